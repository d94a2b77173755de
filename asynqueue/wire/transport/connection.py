"""
A connection between a queue and a host: a session, and the transport that carries it.

::

    transport ── bytes ──▶ BoxParser ── boxes ──▶ Session ── events ──▶ delegate
        ◀──────── bytes, at the end of a turn ◀─────┘  ◀── send ─────────┘
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from enum import IntEnum
from functools import partial
from typing import Any, Protocol as HasMethods

from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHandshakeListener, IPushProducer
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
)
from asynqueue.wire.protocol.events import Frames, Left, Opened, Peer
from asynqueue.wire.protocol.session import Session
from asynqueue.wire.transport.refusals import RefusalLog
from asynqueue.wire.transport.sockets import (
    bindingOf,
    closeWriting,
    describe,
    isSecure,
    letGo,
    refusalOf,
    tune,
)

_log = Logger()

# Beats without any answer, after which the other side is taken for gone.
_MOST_MISSED = 3

# What the other side still sends, or does not read, when all is said: so many bytes are
# thrown away, for so many seconds.
_MOST_DISCARDED = 1 << 16
_DISCARDING_SECONDS = 2.0
_CLOSING_SECONDS = 10.0


class _Life(IntEnum):
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
        Both sides are ready: messages can be sent. At most once, and before all below
        but L{lost}.
        """

    def received(self, connection: Connection, frames: list[Frame]) -> None:
        """
        Messages came. What this raises ends the connection.

        @param frames: kind, number, body and buffers of each.
        @raise WireError: the other side must not say this. It is told so.
        """

    def leaving(self, connection: Connection, reason: str) -> None:
        """
        The other side begins nothing new.
        """

    def lost(self, connection: Connection, error: Exception) -> None:
        """
        The connection is over. Exactly once, and the last.

        @param error: why: an error of the wire, or of the transport. If one side just
            closed it, C{ConnectionDone}, or C{ConnectionLost} where something was still
            on its way.
        """


@implementer(IHandshakeListener, IPushProducer)
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
        refusals: RefusalLog | None = None,
        reactor: Any = None,
    ) -> None:
        """
        @param session: a new one.
        @param delegate: is told what happens.
        @param heartbeat: after so many seconds of silence the other side is asked whether
            it is there, and taken for gone after three times as many. C{None}: never.
        @param refusals: logs it, if the connection could not be opened.
        @param reactor: the reactor; C{None} is the installed one.
        """
        self.description = "a host"
        self._session = session
        self._delegate = delegate
        self._heartbeat = heartbeat
        self._refusals = refusals
        self._reactor = theReactor(reactor)
        self._process = os.getpid()
        self._life = _Life.WAITING
        self._transport: Any = None
        self._parser = BoxParser(MOST_UNPROVEN_BYTES, MOST_UNPROVEN_BOXES)
        self._isLifted = False
        self._error: Exception | None = None
        self._timer = Timer(partial(later, self._reactor))
        self._isDue = False
        self._isPaused = False
        self._wasOpen = False
        self._heard = 0.0
        self._said = 0.0
        self._missed = 0
        self._discarded = 0
        # What was written since the transport is full, and who waits for less to wait.
        self._unsent = 0
        self._waiting: list[tuple[int, Callable[[], None]]] = []

    # For its users

    @property
    def isOpen(self) -> bool:
        """
        Whether messages can be sent.
        """
        return self._life is _Life.OPEN

    @property
    def isProven(self) -> bool:
        """
        Whether the other side is who it has to be. It may think that the connection is
        open, before this side can know.
        """
        return self._session.isProven and self._life < _Life.ENDING

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

        @param kind: a L{Kind<asynqueue.wire.protocol.messages.Kind>}.
        @param buffers: objects with the buffer protocol; they must not change until
            they are sent.
        @param behind: it must not overtake messages of this number either.
        @raise LocalProtocolError: the connection is not open.
        @raise FrameTooLarge: the other side does not take messages of this size.
        @raise FrameInvalid: there are too many buffers.
        """
        self._session.send(kind, number, body, buffers, behind)
        if not self._isDue:
            self._isDue = True
            later(self._reactor, 0, self._flush)

    @property
    def backlog(self) -> int:
        """
        How many bytes wait because the other side does not read, or not as fast: chunks
        without a window, and what was written since the transport is full.
        """
        return self._session.backlog + self._unsent

    def whenEased(self, below: int, f: Callable[[], None]) -> None:
        """
        Call C{f} once, when the backlog is smaller than C{below}: soon, if it is so
        already, but not within this call or L{send}. It is forgotten when the connection
        is lost; what it raises ends the connection.
        """
        self._waiting.append((below, f))
        self._flushSoon()

    def goodbye(self, reason: str = "") -> None:
        """
        Say that this side begins nothing new. Messages can be sent all the same, and are
        received, until one side closes the connection.
        """
        self._session.goodbye(reason)
        self._flushSoon()

    def close(self) -> None:
        """
        End the connection, after all that is lined up was written.
        """
        if self._life is _Life.OPEN:
            self._life = _Life.CLOSING
            self._flushSoon()
        elif self._life < _Life.OPEN:
            self._end(_CLOSING_SECONDS)

    def abort(self, error: Exception | None = None) -> None:
        """
        End the connection at once.

        @param error: why, for L{ConnectionDelegate.lost}.
        """
        if self._life is _Life.LOST:
            return
        self._error = self._error or error or ConnectionAborted()
        isConnected = self._life is not _Life.WAITING
        self._life = _Life.ENDING
        if isConnected:
            self._transport.abortConnection()

    def forked(self) -> None:
        """
        This is a fork of the process that has the connection, and goes on with it: here it is
        lost, and the other side sees nothing of that.
        """
        if self._life is not _Life.LOST:
            letGo(self._transport)
            self.abort(WireError(isParents(self._process)))

    # From the transport

    def connectionMade(self) -> None:
        """
        There is a transport: greet, or wait for the channel.
        """
        transport: Any = self.transport
        self._transport = transport
        self.description = describe(transport)
        tellForks(self)
        renewInForks(self._reactor)
        if self._life is not _Life.WAITING:
            # It was ended before it began.
            transport.abortConnection()
            return
        self._life = _Life.OPENING
        tune(transport)
        transport.registerProducer(self, True)
        self._timer.start(OPENING_SECONDS, self._tooLate)
        if not isSecure(transport):
            self._start(b"")

    def handshakeCompleted(self) -> None:
        """
        The TLS channel stands.
        """
        if self._life is _Life.OPENING:
            self._start(bindingOf(self._transport))

    def dataReceived(self, data: bytes) -> None:
        """
        Bytes came. A hot path.
        """
        if self._life >= _Life.ENDING:
            self._discard(len(data))
            return
        now = self._heard = self._reactor.seconds()
        self._missed = 0
        parser = self._parser
        session = self._session
        # What is sent from here on leaves when all has been heard.
        self._isDue = True
        try:
            parser.add(data)
            while (box := parser.next()) is not None:
                for event in session.receive(box, now):
                    self._tell(event)
                if self._life >= _Life.ENDING:
                    return
                if not self._isLifted and session.isProven:
                    self._isLifted = True
                    parser.lift()
        except WireError as error:
            self._refuse(error)
        except Exception as error:
            # The seam to the delegate's code: it ends this connection only.
            _log.failure("in what came from {peer}", peer=self.description)
            self.abort(error)
        else:
            self._flush()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        It is over.
        """
        if self._life is _Life.LOST:
            return
        self._life = _Life.LOST
        self._timer.stop()
        error = self._error
        if error is None:
            value = reason.value
            error = value if isinstance(value, Exception) else ConnectionLost(str(value))
            if not self._wasOpen:
                error = refusalOf(error, self.description) or error
        self._waiting.clear()
        # Nobody can send any more.
        self._session.refuse("busy", "")
        if self._refusals is not None and not self._wasOpen:
            self._complain(error)
        try:
            self._delegate.lost(self, error)
        except Exception:
            # The seam to the delegate's code: the transport must not suffer from it.
            _log.failure("in the end of the connection with {peer}", peer=self.description)

    # IPushProducer

    def pauseProducing(self) -> None:
        """
        The transport has enough: only small messages are written until it resumes.
        """
        self._isPaused = True

    def resumeProducing(self) -> None:
        """
        The transport takes more.
        """
        self._isPaused = False
        # It does so when it has sent all.
        self._unsent = 0
        self._flush()

    def stopProducing(self) -> None:
        """
        The transport takes no more: L{connectionLost} follows.
        """
        self._isPaused = True

    # Writing

    def _flushSoon(self) -> None:
        if not self._isDue:
            self._isDue = True
            later(self._reactor, 0, self._flush)

    def _flush(self) -> None:
        """
        Write what is to be written, and can be. A hot path.
        """
        self._isDue = False
        life = self._life
        if life is _Life.WAITING or life >= _Life.ENDING:
            return
        session = self._session
        transport = self._transport
        now = self._reactor.seconds()
        while boxes := session.boxes(now, not self._isPaused):
            self._said = now
            data = boxes[0] if len(boxes) == 1 else b"".join(boxes)
            transport.write(data)
            if self._isPaused:
                self._unsent += len(data)
                break
            if not session.hasMore:
                break
        if self._waiting:
            self._ease()
        if life is _Life.CLOSING and session.isDone:
            self._end(_CLOSING_SECONDS)

    def _ease(self) -> None:
        """
        Call those for whom little enough waits.
        """
        waiting, self._waiting = self._waiting, []
        for below, f in waiting:
            if self.backlog >= below:
                self._waiting.append((below, f))
                continue
            try:
                f()
            except Exception as error:
                # The seam to the delegate's code, as in what it is told.
                _log.failure("in what goes to {peer}", peer=self.description)
                self.abort(error)

    # Beginning

    def _start(self, binding: bytes) -> None:
        self._session.start(binding, self.description)
        self._flush()

    def _tooLate(self) -> None:
        self.abort(
            RemoteProtocolError(
                f"the connection with {self.description} was not open within {OPENING_SECONDS:g} s"
            )
        )

    def _tell(self, event: Any) -> None:
        """
        Tell the delegate what has happened. A hot path.
        """
        kind = type(event)
        if kind is Frames:
            self._delegate.received(self, event.frames)
        elif kind is Opened:
            self._life = _Life.OPEN
            self._wasOpen = True
            self._timer.stop()
            if self._heartbeat is not None:
                self._timer.start(self._heartbeat, self._tick)
            self._delegate.opened(self)
        elif kind is Left:
            self._delegate.leaving(self, event.reason)

    # Heartbeats

    def _tick(self) -> None:
        """
        See whether the other side is there.
        """
        heartbeat = self._heartbeat
        assert heartbeat is not None
        now = self._reactor.seconds()
        # The clock may have been set back.
        self._heard = min(self._heard, now)
        self._said = min(self._said, now)
        if now - self._heard >= heartbeat:
            # They are counted: the time alone also goes on while this process sleeps.
            self._missed += 1
            if self._missed >= _MOST_MISSED:
                seconds = _MOST_MISSED * heartbeat
                self.abort(RemoteProtocolError(f"{self.description} was silent for {seconds:g} s"))
                return
        last = min(self._heard, self._said)
        if now - last >= heartbeat:
            # Also if only this side was silent: its echoes may wait behind much else.
            self._session.beat(now)
            self._flush()
            last = now
        self._timer.start(last + heartbeat - now, self._tick)

    # Ending

    def _refuse(self, error: WireError) -> None:
        """
        The other side must not go on: say so, and wait until it has heard that.
        """
        self._error = error
        session = self._session
        session.refuse("broken", str(error))
        boxes = session.boxes(self._reactor.seconds())
        if boxes:
            # To close both ways now would lose them, if something is still on its way.
            self._life = _Life.ENDING
            self._timer.start(_DISCARDING_SECONDS, self.abort)
            transport = self._transport
            transport.write(b"".join(boxes))
            transport.unregisterProducer()
            closeWriting(transport)
        else:
            self._end(_CLOSING_SECONDS)

    def _discard(self, size: int) -> None:
        self._discarded += size
        if self._discarded > _MOST_DISCARDED:
            self.abort()

    def _end(self, seconds: float) -> None:
        """
        Let the transport close, and not take longer than that.
        """
        isConnected = self._life is not _Life.WAITING
        self._life = _Life.ENDING
        self._timer.stop()
        if isConnected:
            self._timer.start(seconds, self.abort)
            transport = self._transport
            transport.unregisterProducer()
            transport.loseConnection()

    def _complain(self, error: Exception) -> None:
        assert self._refusals is not None
        # Who comes and goes without a word may just look whether there is somebody.
        if not isinstance(error, ConnectionDone):
            self._refusals.add(self.description, error)
