"""
A connection between a queue and a host: a session, and the transport that carries it.

::

    transport ── bytes ──▶ BoxParser ── boxes ──▶ Session ── events ──▶ delegate
        ◀── Writer: bytes, at the end of a turn ◀───┘  ◀── send ─────────┘
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from enum import IntEnum
from functools import partial
from typing import Any, Protocol as HasMethods

from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHandshakeListener
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from asynqueue.errors import RemoteProtocolError, WireError
from asynqueue.forks import isParents, tellForks
from asynqueue.framing import Frame
from asynqueue.reactors import theReactor
from asynqueue.renewal import renewInForks
from asynqueue.timers import Timer, later
from asynqueue.wire.protocol.boxes import BoxParser
from asynqueue.wire.protocol.commands import (
    MOST_UNPROVEN_BOXES,
    MOST_UNPROVEN_BYTES,
    OPENING_SECONDS,
    Frames,
    Left,
    Opened,
    Peer,
)
from asynqueue.wire.protocol.session import Session
from asynqueue.wire.transport.sockets import (
    Heartbeat,
    Writer,
    bindingOf,
    closeWriting,
    describe,
    isSecure,
    letGo,
    refusalOf,
    tune,
)

_log = Logger()

# When all is said, the bytes that the other side may still send, which are thrown away, and
# the seconds that it has to read and to close.
_MOST_DISCARDED = 1 << 16
_DISCARDING_SECONDS = 2.0
_CLOSING_SECONDS = 10.0


class _State(IntEnum):
    """
    What a connection does.
    """

    WAITING = 0
    """For a transport."""
    OPENING = 1
    OPEN = 2
    CLOSING = 3
    """When all that is lined up was written."""
    ENDING = 4
    """Nothing more is said, and nothing is heard."""
    LOST = 5


class ConnectionDelegate(HasMethods):
    """
    Hears what happens to a connection: in the reactor's thread, and never within a call of
    L{Connection.send}.
    """

    def opened(self, connection: Connection) -> None:
        """
        Hear that both sides are ready: messages can be sent. At most once, and before all
        below but L{lost}.
        """

    def received(self, connection: Connection, frames: list[Frame]) -> None:
        """
        Take messages. What this raises ends the connection.

        @param frames: kind, number, body and buffers of each.
        @raise WireError: the other side must not say this. It is told so.
        """

    def leaving(self, connection: Connection, reason: str) -> None:
        """
        Hear that the other side begins nothing new.
        """

    def lost(self, connection: Connection, error: Exception) -> None:
        """
        Hear that the connection is over. Exactly once, and the last.

        @param error: why: an error of the wire, or of the transport. If one side just
            closed it, C{ConnectionDone}, or C{ConnectionLost} where something was still
            on its way.
        """


@implementer(IHandshakeListener)
class Connection(Protocol):
    """
    One connection. Over TLS it begins when the channel stands.

    @ivar description: where the other side is: "host 10.0.0.2:4000", "UNIX socket /x".
    """

    def __init__(
        self,
        session: Session,
        delegate: ConnectionDelegate,
        *,
        heartbeat: float | None = 10.0,
        onRefused: Callable[[str, Exception], None] | None = None,
        reactor: Any = None,
    ) -> None:
        """
        @param session: a new one.
        @param delegate: is told what happens.
        @param heartbeat: the seconds of silence after which the other side is asked whether
            it is there; after three times that it is taken for gone. C{None}: never.
        @param onRefused: is called with where the other side is, and why, if the connection
            could not be opened.
        @param reactor: the reactor; C{None} is the installed one.
        """
        self.description = "a host"
        self._session = session
        self._delegate = delegate
        self._onRefused = onRefused
        self._reactor = theReactor(reactor)
        self._process = os.getpid()
        self._state = _State.WAITING
        self._transport: Any = None
        self._parser = BoxParser(MOST_UNPROVEN_BYTES, MOST_UNPROVEN_BOXES)
        self._isLifted = False
        self._error: Exception | None = None
        self._timer = Timer(partial(later, self._reactor))
        self._wasOpen = False
        self._discarded = 0
        self._writer = Writer(session, self._reactor, self._failed)
        self._heartbeat = Heartbeat(heartbeat, session, self._writer, self._reactor, self._silent)

    # For its users

    @property
    def isOpen(self) -> bool:
        """
        Whether messages can be sent.
        """
        return self._state is _State.OPEN

    @property
    def isProven(self) -> bool:
        """
        Whether the other side is who it has to be. It may think that the connection is
        open, before this side can know.
        """
        return self._session.isProven and self._state < _State.ENDING

    @property
    def rtt(self) -> float | None:
        """
        The seconds of the shortest round trip; C{None} before there was one.
        """
        return self._session.rtt

    @property
    def peer(self) -> Peer:
        """
        Who is on the other side.

        @raise WireError: the connection was never open.
        """
        peer = self._session.peer
        if peer is None:
            raise WireError(f"the connection with {self.description} is not open")
        return peer

    def send(
        self,
        kind: int,
        number: int,
        body: Any = b"",
        buffers: Sequence[Any] = (),
        behind: int | None = None,
    ) -> None:
        """
        Send a message, with all others of this turn of the reactor. A hot path.

        Messages of the same number keep their order; others may overtake those of more
        than 16 KiB.

        @param kind: a L{MessageKind<asynqueue.wire.protocol.messages.MessageKind>}.
        @param buffers: objects with the buffer protocol; they must not change until
            they are sent.
        @param behind: it must not overtake messages of this number either.
        @raise LocalProtocolError: the connection is not open.
        @raise FrameTooLarge: the other side does not take messages of this size.
        @raise FrameInvalid: there are too many buffers.
        """
        self._session.send(kind, number, body, buffers, behind)
        if not self._writer.isDue:
            self._writer.writeSoon()

    @property
    def backlog(self) -> int:
        """
        How many bytes wait because the other side does not read, or not as fast: chunks
        without a window, and what was written since the transport is full.
        """
        return self._writer.backlog

    def whenEased(self, below: int, f: Callable[[], None]) -> None:
        """
        Call C{f} once, when the backlog is smaller than C{below}: soon, if it is so
        already, but not within this call or L{send}. It is forgotten when the connection
        is lost; what it raises ends the connection.
        """
        self._writer.whenEased(below, f)

    def goodbye(self, reason: str = "") -> None:
        """
        Say that this side begins nothing new. Messages can be sent all the same, and are
        received, until one side closes the connection.
        """
        self._session.goodbye(reason)
        self._writer.writeSoon()

    def close(self) -> None:
        """
        End the connection, after all that is lined up was written.
        """
        if self._state is _State.OPEN:
            self._state = _State.CLOSING
            self._writer.finish(self._end)
        elif self._state < _State.OPEN:
            self._end()

    def abort(self, error: Exception | None = None) -> None:
        """
        End the connection at once.

        @param error: why, for L{ConnectionDelegate.lost}.
        """
        if self._state is _State.LOST:
            return
        self._error = self._error or error or ConnectionAborted()
        isConnected = self._state is not _State.WAITING
        self._state = _State.ENDING
        self._writer.stop()
        if isConnected:
            self._transport.abortConnection()

    def forked(self) -> None:
        """
        Lose the connection in a fork of the process that has it, and goes on with it: the
        other side sees nothing of that.
        """
        if self._state is not _State.LOST:
            letGo(self._transport)
            self.abort(WireError(isParents(self._process)))

    # From the transport

    def connectionMade(self) -> None:
        """
        Greet over the transport, or wait for its TLS channel.
        """
        transport: Any = self.transport
        self._transport = transport
        self.description = describe(transport)
        tellForks(self)
        renewInForks(self._reactor)
        if self._state is not _State.WAITING:
            # It was ended before it began.
            transport.abortConnection()
            return
        self._state = _State.OPENING
        tune(transport)
        self._writer.start(transport)
        late = f"the connection with {self.description} was not open within {OPENING_SECONDS:g} s"
        self._timer.start(OPENING_SECONDS, lambda: self.abort(RemoteProtocolError(late)))
        if not isSecure(transport):
            self._greet(b"")

    def handshakeCompleted(self) -> None:
        """
        Greet: the TLS channel stands.
        """
        if self._state is _State.OPENING:
            self._greet(bindingOf(self._transport))

    def dataReceived(self, data: bytes) -> None:
        """
        Take bytes. A hot path.
        """
        if self._state >= _State.ENDING:
            self._discarded += len(data)
            if self._discarded > _MOST_DISCARDED:
                self.abort()
            return
        now = self._reactor.seconds()
        self._heartbeat.heard(now)
        parser = self._parser
        session = self._session
        writer = self._writer
        # What is sent from here on leaves when all has been heard.
        writer.isDue = True
        try:
            parser.add(data)
            while (box := parser.next()) is not None:
                for event in session.receive(box, now):
                    self._tell(event)
                if self._state >= _State.ENDING:
                    return
                if not self._isLifted and session.isProven:
                    self._isLifted = True
                    parser.lift()
        except WireError as error:
            self._refuse(error)
        except Exception as error:
            # The seam to the delegate's code: it ends this connection only.
            self._failed(error)
        else:
            writer.write()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        Tell the delegate that it is over.
        """
        if self._state is _State.LOST:
            return
        self._state = _State.LOST
        self._timer.stop()
        self._heartbeat.stop()
        self._writer.stop()
        error = self._error
        if error is None:
            value = reason.value
            error = value if isinstance(value, Exception) else ConnectionLost(str(value))
            if not self._wasOpen:
                error = refusalOf(error, self.description) or error
        # Nobody can send any more.
        self._session.refuse("busy", "")
        # Who comes and goes without a word may just look whether there is somebody.
        isRefused = not self._wasOpen and not isinstance(error, ConnectionDone)
        if isRefused and self._onRefused is not None:
            self._onRefused(self.description, error)
        try:
            self._delegate.lost(self, error)
        except Exception:
            # The seam to the delegate's code: the transport must not suffer from it.
            _log.failure("in the end of the connection with {peer}", peer=self.description)

    # Within

    def _greet(self, binding: bytes) -> None:
        self._session.start(binding, self.description)
        self._writer.write()

    def _tell(self, event: Any) -> None:
        """
        Tell the delegate what has happened. A hot path.
        """
        kind = type(event)
        if kind is Frames:
            self._delegate.received(self, event.frames)
        elif kind is Opened:
            self._state = _State.OPEN
            self._wasOpen = True
            self._timer.stop()
            self._heartbeat.start()
            self._delegate.opened(self)
        elif kind is Left:
            self._delegate.leaving(self, event.reason)

    def _failed(self, error: Exception) -> None:
        _log.failure("in the delegate of the connection with {peer}", peer=self.description)
        self.abort(error)

    def _silent(self, seconds: float) -> None:
        self.abort(RemoteProtocolError(f"{self.description} was silent for {seconds:g} s"))

    def _refuse(self, error: WireError) -> None:
        """
        Tell the other side that it must not go on, and wait until it has heard that.
        """
        self._error = error
        session = self._session
        session.refuse("broken", str(error))
        boxes = session.boxes(self._reactor.seconds())
        if boxes:
            # To close both ways now would lose them, if something is still on its way.
            self._state = _State.ENDING
            self._timer.start(_DISCARDING_SECONDS, self.abort)
            self._heartbeat.stop()
            self._transport.write(b"".join(boxes))
            self._writer.stop()
            closeWriting(self._transport)
        else:
            self._end()

    def _end(self) -> None:
        """
        Let the transport close, and break it if that takes too long.
        """
        isConnected = self._state is not _State.WAITING
        self._state = _State.ENDING
        self._timer.stop()
        self._heartbeat.stop()
        self._writer.stop()
        if isConnected:
            self._timer.start(_CLOSING_SECONDS, self.abort)
            self._transport.loseConnection()
