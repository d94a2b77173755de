"""
What a connection wants of the transport below it: what that is, to write to it, and a sign of
life from the other side.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import partial
from typing import Any

from OpenSSL.SSL import Error as TLSError
from service_identity.exceptions import VerificationError
from twisted.internet.abstract import FileDescriptor
from twisted.internet.address import UNIXAddress
from twisted.internet.interfaces import IPushProducer, ISSLTransport, ITCPTransport
from zope.interface import implementer

from asynqueue.descriptors import abandon
from asynqueue.errors import IdentityRefused
from asynqueue.timers import Timer, later
from asynqueue.wire.protocol.session import Session

# The bytes not sent yet that the kernel may hold: what comes later waits behind them.
_NOT_SENT = 1 << 17

# The beats without any answer after which the other side is taken for gone.
_MOST_MISSED = 3

# RFC 9266.
_BINDING_LABEL = b"EXPORTER-Channel-Binding"
_BINDING_BYTES = 32


def isSecure(transport: Any) -> bool:
    """
    Return whether it is a TLS channel.
    """
    return ISSLTransport.providedBy(transport)


def bindingOf(transport: Any) -> bytes:
    """
    Return what only the two ends of a TLS channel know. The channel must stand.
    """
    handle = transport.getHandle()
    return bytes(handle.export_keying_material(_BINDING_LABEL, _BINDING_BYTES, b""))


def refusalOf(error: BaseException, description: str) -> IdentityRefused | None:
    """
    Return the error in our words, if it says that TLS believes one side not.
    """
    if isinstance(error, TLSError):
        reasons = [words[-1] for words in error.args[0]] if error.args else []
        text = ", ".join(filter(None, reasons)) or "the handshake failed"
    elif isinstance(error, VerificationError):
        text = "the certificate is another host's"
    else:
        return None
    return IdentityRefused(
        description, f"TLS: {text}; see to the certificates and the authorities of both sides"
    )


def describe(transport: Any) -> str:
    """
    Say where the other side of a transport is.
    """
    peer = transport.getPeer()
    if isinstance(peer, UNIXAddress):
        # Who has dialed has no name, but the socket that it has dialed.
        name = peer.name or transport.getHost().name or b""
        return f"UNIX socket {name.decode(errors='replace')}".rstrip()
    host, port = getattr(peer, "host", None), getattr(peer, "port", None)
    return f"host {host}:{port}" if host is not None else f"{peer}"


def closeWriting(transport: Any) -> None:
    """
    Send what was written, and say that nothing follows; the other side is still heard.
    """
    if isSecure(transport):
        # TLS says so to the other side, and waits until that does as well.
        transport.loseConnection()
    elif ITCPTransport.providedBy(transport):
        transport.loseWriteConnection()


def tune(transport: Any) -> None:
    """
    Have small messages leave at once, and wait for little; and as much read at once as is sent.
    """
    below = _below(transport)
    if isinstance(below, FileDescriptor):
        below.bufferSize = max(below.bufferSize, below.SEND_LIMIT)
    # Twisted's UNIX sockets also say that they are of TCP.
    if not ITCPTransport.providedBy(transport) or isinstance(transport.getHost(), UNIXAddress):
        return
    transport.setTcpNoDelay(True)
    handle = below.getHandle()
    if isinstance(handle, socket.socket) and hasattr(socket, "TCP_NOTSENT_LOWAT"):
        handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _NOT_SENT)


def letGo(transport: Any) -> None:
    """
    In a fork, have a transport, or what listens for them, stand for a connection that has
    ended. The one that it stands for is the parent's, which goes on with it.
    """
    below = _below(transport)
    if isinstance(below, FileDescriptor):
        below.stopReading()
        below.stopWriting()
        abandon(below.fileno())


def _below(transport: Any) -> Any:
    # What has the socket.
    return transport.transport if isSecure(transport) else transport


@implementer(IPushProducer)
class Writer:
    """
    Writes what a session has to say: all of one turn of the reactor at once, and no more than
    small messages while the transport has enough.

    @ivar isDue: whether what is said now is going to be written.
    @ivar said: when something was written last.
    """

    def __init__(self, session: Session, reactor: Any, failed: Callable[[Exception], None]) -> None:
        """
        @param failed: is called with what one of those raises who wait for less to wait.
        """
        self.isDue = False
        self.said = 0.0
        self._session = session
        self._reactor = reactor
        self._failed = failed
        self._transport: Any = None
        self._isPaused = False
        # What was written since the transport is full, and who waits for less to wait.
        self._unsent = 0
        self._waiting: list[tuple[int, Callable[[], None]]] = []
        self._done: Callable[[], None] | None = None

    def start(self, transport: Any) -> None:
        """
        Write to a transport from now on.
        """
        self._transport = transport
        transport.registerProducer(self, True)

    def finish(self, done: Callable[[], None]) -> None:
        """
        Call C{done} when all that is said was written.
        """
        self._done = done
        self.writeSoon()

    def stop(self) -> None:
        """
        Write nothing more, and forget who waits.
        """
        self._waiting.clear()
        self._done = None
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.unregisterProducer()

    def writeSoon(self) -> None:
        """
        Write in the next turn of the reactor.
        """
        if not self.isDue:
            self.isDue = True
            later(self._reactor, 0, self.write)

    def write(self) -> None:
        """
        Write what is to be written, and can be. A hot path.
        """
        self.isDue = False
        transport = self._transport
        if transport is None:
            return
        session = self._session
        now = self._reactor.seconds()
        while boxes := session.boxes(now, not self._isPaused):
            self.said = now
            data = boxes[0] if len(boxes) == 1 else b"".join(boxes)
            transport.write(data)
            if self._isPaused:
                self._unsent += len(data)
                break
            if not session.hasMore:
                break
        if self._waiting:
            self._ease()
        if self._done is not None and session.isDone:
            done, self._done = self._done, None
            done()

    # What waits

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
        already, but not within this call.
        """
        self._waiting.append((below, f))
        self.writeSoon()

    def _ease(self) -> None:
        """
        Call those for whom little enough waits.
        """
        waiting, self._waiting = self._waiting, []
        for below, f in waiting:
            if self._transport is None:
                # One of them has ended the connection.
                return
            if self.backlog >= below:
                self._waiting.append((below, f))
                continue
            try:
                f()
            except Exception as error:
                # The seam to the delegate's code, as in what it is told.
                self._failed(error)

    # IPushProducer

    def pauseProducing(self) -> None:
        """
        Write only small messages until the transport resumes.
        """
        self._isPaused = True

    def resumeProducing(self) -> None:
        """
        Write: the transport takes more.
        """
        self._isPaused = False
        # It does so when it has sent all.
        self._unsent = 0
        self.write()

    def stopProducing(self) -> None:
        """
        Pause: the connection is about to be lost.
        """
        self._isPaused = True


class Heartbeat:
    """
    Asks the other side for a sign of life when one of both was silent for a while.
    """

    def __init__(
        self,
        seconds: float | None,
        session: Session,
        writer: Writer,
        reactor: Any,
        silent: Callable[[float], None],
    ) -> None:
        """
        @param seconds: how long the silence may be; C{None}: for ever.
        @param silent: is called when the other side has said nothing for three times as long,
            with that time in seconds.
        """
        self._seconds = seconds
        self._session = session
        self._writer = writer
        self._reactor = reactor
        self._silent = silent
        self._heard = 0.0
        self._missed = 0
        self._timer = Timer(partial(later, reactor))

    def start(self) -> None:
        """
        Listen for the other side from now on.
        """
        if self._seconds is not None:
            self._timer.start(self._seconds, partial(self._tick, self._seconds))

    def stop(self) -> None:
        """
        Listen no more.
        """
        self._timer.stop()

    def heard(self, now: float) -> None:
        """
        Take notice that the other side has said something. A hot path.
        """
        self._heard = now
        self._missed = 0

    def _tick(self, seconds: float) -> None:
        """
        See whether the other side is there.
        """
        now = self._reactor.seconds()
        # The clock may have been set back.
        self._heard = min(self._heard, now)
        if now - self._heard >= seconds:
            # They are counted: the time alone also goes on while this process sleeps.
            self._missed += 1
            if self._missed >= _MOST_MISSED:
                self._silent(_MOST_MISSED * seconds)
                return
        last = min(self._heard, self._writer.said, now)
        if now - last >= seconds:
            # Also if only this side was silent: its echoes may wait behind much else.
            self._session.beat(now)
            self._writer.write()
            last = now
        self._timer.start(last + seconds - now, partial(self._tick, seconds))
