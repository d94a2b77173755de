"""
Where connections come from: listening, or dialing again and again; and what people are told of
it: who was refused, why the last attempt failed, and when there is another.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from random import random
from typing import Any, Protocol as HasMethods

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.error import ConnectError, TimeoutError as ConnectionTimeout
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from asynqueue.errors import IdentityRefused, VersionRefused
from asynqueue.outcome import oneLine
from asynqueue.reactors import theReactor
from asynqueue.renewal import renewInForks
from asynqueue.timers import Timer, later
from asynqueue.wire.transport.connection import Connection
from asynqueue.wire.transport.sockets import letGo

_log = Logger()

# The most connections that have not proved themselves.
_MOST_UNPROVEN = 256

# To try again would bring the same answer.
_FINAL = (IdentityRefused, VersionRefused)

# The seconds between attempts, at first and at last, and their growth. Each pause is between
# half of that and one and a half, so that not all who are refused at once come at once.
_PAUSE = 0.1
_LONGEST_PAUSE = 20.0
_GROWTH = 1.5

# A connection that was open for more seconds than this was a success.
_SUCCESS = 5.0


class ConnectionFactory(Factory):
    """
    Has somebody make the protocols.
    """

    noisy = False

    def __init__(self, make: Callable[[Any], Any]) -> None:
        """
        @param make: is called with the address of the other side; what it returns is its
            protocol, or C{None} to have none.
        """
        self._make = make

    def buildProtocol(self, addr: IAddress | None) -> Any:
        return self._make(addr)


class ConnectionSource(HasMethods):
    """
    Where connections come from: a L{Listener}, or a L{Dialer}.

    @ivar onRefused: hears of those that could not be opened, if not L{lost} alone does.
    """

    onRefused: Callable[[str, Exception], None] | None

    def open(self, factory: ConnectionFactory) -> Deferred[Any]:
        """
        Have connections from now on.

        @return: a Deferred of the address where it listens, if it does; it fires when
            there may be, or is, a connection.
        """

    def opened(self, connection: Connection) -> None:
        """
        Take notice that a connection is open.
        """

    def lost(self, connection: Connection, error: Exception) -> None:
        """
        Take notice that a connection is lost, whether it was open or not.
        """

    def shut(self) -> Deferred[Any]:
        """
        Have no new connections.
        """

    def forked(self) -> None:
        """
        In a fork, have no new connections, and leave those that come to the parent.
        """


class RefusalLog:
    """
    Logs who could not open a connection, but not more often than is good for a log.

    One is shared by all connections of a listening port.
    """

    def __init__(self, reactor: Any = None, *, most: int = 10, seconds: float = 60.0) -> None:
        """
        @param reactor: the reactor; C{None} is the installed one.
        @param most: how many are logged ...
        @param seconds: ... within this time.
        """
        self._most = most
        self._seconds = seconds
        self._reactor = reactor
        self._since = 0.0
        self._count = 0

    def add(self, description: str, error: Exception) -> None:
        """
        Log that somebody could not open a connection.

        @param description: where from.
        @param error: why.
        """
        now = theReactor(self._reactor).seconds()
        if not 0 <= now - self._since < self._seconds:
            if self._count > self._most:
                _log.warn(
                    "{count} more connections could not be opened", count=self._count - self._most
                )
            self._since = now
            self._count = 0
        self._count += 1
        if self._count <= self._most:
            _log.warn("no connection with {peer}: {error}", peer=description, error=oneLine(error))


class Listener:
    """
    Listens, and bounds how many are connected that have not proved themselves.

    @ivar unproven: the connections that have not proved themselves, the oldest first.
    """

    def __init__(self, endpoint: Any, reactor: Any = None, *, most: int = _MOST_UNPROVEN) -> None:
        """
        @param endpoint: an C{IStreamServerEndpoint}.
        @param reactor: the reactor; C{None} is the installed one.
        @param most: how many of these there may be. One more, and the oldest is cut: it has
            had the longest time to prove itself.
        """
        self.unproven: dict[Connection, None] = {}
        self.onRefused: Callable[[str, Exception], None] | None = RefusalLog(reactor).add
        self._endpoint = endpoint
        self._most = most
        self._port: Any = None
        self._isShut = False

    def open(self, factory: ConnectionFactory) -> Deferred[Any]:
        self._isShut = False
        listening: Deferred[Any] = maybeDeferred(
            self._endpoint.listen, ConnectionFactory(partial(self._enter, factory))
        )
        return listening.addCallback(self._listens)

    def opened(self, connection: Connection) -> None:
        self.settled(connection)

    def lost(self, connection: Connection, error: Exception) -> None:
        self.settled(connection)

    def settled(self, connection: Connection) -> None:
        """
        Count a connection no more among the unproven: it is open, or lost.
        """
        self.unproven.pop(connection, None)

    def shut(self) -> Deferred[Any]:
        """
        Leave those that are connected.
        """
        self._isShut = True
        port, self._port = self._port, None
        return succeed(None) if port is None else maybeDeferred(port.stopListening)

    def forked(self) -> None:
        self._isShut = True
        port, self._port = self._port, None
        if port is not None:
            # To end it would remove the parent's socket file.
            letGo(port)

    def _listens(self, port: Any) -> Any:
        if self._isShut:
            # That came while the endpoint was not ready yet.
            port.stopListening()
        else:
            self._port = port
        return port.getHost()

    def _enter(self, factory: ConnectionFactory, address: Any) -> Connection | None:
        connection: Connection | None = factory.buildProtocol(address)
        if connection is not None:
            # One that is proven now will be open soon.
            unproven = [each for each in self.unproven if not each.isProven]
            for oldest in unproven[: max(0, len(unproven) + 1 - self._most)]:
                del self.unproven[oldest]
                oldest.abort()
            self.unproven[connection] = None
        return connection


def reasonOf(error: BaseException) -> str:
    """
    Say why there is no connection.
    """
    if isinstance(error, ConnectError) and error.osError:
        return os.strerror(error.osError)
    if isinstance(error, ConnectionTimeout):
        return "no answer in time"
    return oneLine(error).rstrip(".")


class Attempts:
    """
    Notes what comes of the attempts to reach one place, says how long to wait before the next,
    and logs each reason why they fail once.
    """

    def __init__(
        self,
        where: str,
        *,
        first: float = _PAUSE,
        longest: float = _LONGEST_PAUSE,
        jitter: Callable[[], float] = random,
    ) -> None:
        """
        @param where: an endpoint string.
        @param first: the first pause, in seconds.
        @param longest: the longest, without its jitter.
        @param jitter: gives numbers from 0 to 1.
        """
        self._where = where
        self._first = first
        self._longest = longest
        self._jitter = jitter
        self._reason = ""
        self._told = ""
        self._failures = 0
        # Since when there is a connection, if there is.
        self._since: float | None = None
        # When the next one begins; C{None}: one is under way.
        self._next: float | None = None

    @property
    def haveFailed(self) -> bool:
        """
        Whether a pause is to come before the next one.
        """
        return self._failures > 0

    def begun(self) -> None:
        """
        Note that an attempt begins.
        """
        self._next = None

    def succeeded(self, now: float) -> None:
        """
        Note that there is a connection that can be used.

        @param now: the time of the reactor, in seconds.
        """
        self._reason = self._told = ""
        self._next = None
        self._since = now

    def failed(self, now: float, error: BaseException, isTold: bool = False) -> None:
        """
        Note that an attempt has failed, or that the connection is lost. One that was lost as
        soon as it was there is a failure as well.

        @param isTold: whether somebody else logs it.
        """
        text = reasonOf(error)
        self._reason = text[:1].lower() + text[1:] if text[1:2].islower() else text
        if isTold:
            self._told = self._reason
        if self._since is not None and now - self._since > _SUCCESS:
            self._failures = 0
        self._since = None
        self._failures += 1

    def pause(self, now: float) -> float:
        """
        Return how long to wait before the next attempt, in seconds.
        """
        growth: float = _GROWTH ** min(self._failures - 1, 100)
        seconds = min(self._first * growth, self._longest) * (0.5 + self._jitter())
        self._next = now + seconds
        if self._reason != self._told:
            self._told = self._reason
            _log.warn("{attempts}", attempts=self.inWords(now), reason=self._reason)
        return seconds

    def inWords(self, now: float) -> str:
        """
        Say where this dials, why that failed and what is next.

        @param now: the time of the reactor, in seconds.
        """
        said = f"dialing {self._where}"
        if self._reason:
            said += f": {self._reason}"
        if self._next is not None:
            return f"{said}, next try in {max(0.0, self._next - now):.2g} s"
        return f"{said}, trying again" if self._reason else said


class _AttemptFactory(Factory):
    """
    Knows in which process an attempt has begun.
    """

    noisy = False

    def __init__(self, factory: Any) -> None:
        self._factory = factory
        self._process = os.getpid()

    def buildProtocol(self, addr: IAddress | None) -> Any:
        if self._process != os.getpid():
            return _Inherited()
        return self._factory.buildProtocol(addr)


class _Inherited(Protocol):
    """
    A connection that the parent of this process, which is a fork, has begun, and has.
    """

    def connectionMade(self) -> None:
        """
        Let it go, before anything is sent or read.
        """
        transport: Any = self.transport
        letGo(transport)
        transport.abortConnection()


class Dialer:
    """
    Keeps one connection, again and again, with pauses between the attempts.

    Twisted's C{ClientService} takes a connection for good as soon as there is one. Here
    it is only when both sides have accepted each other: what is refused at once must not
    be tried again at once.
    """

    def __init__(self, endpoint: Any, reactor: Any, attempts: Attempts) -> None:
        """
        @param endpoint: an C{IStreamClientEndpoint}.
        @param attempts: what has come of those before; the pauses go on from there.
        """
        self.onRefused: Callable[[str, Exception], None] | None = None
        self._endpoint = endpoint
        self._reactor = reactor
        self._attempts = attempts
        self._factory: ConnectionFactory | None = None
        self._connecting: Deferred[Any] | None = None
        self._timer = Timer(partial(later, reactor))
        self._first: Deferred[Any] = Deferred()

    def open(self, factory: ConnectionFactory) -> Deferred[Any]:
        """
        Dial. If attempts have failed before, a pause comes first.

        @return: a Deferred that fires when the first connection is open. If the other side
            refuses to have one, now and ever, it fails, and there is no other attempt.
        """
        self._factory = factory
        renewInForks(self._reactor)
        if self._attempts.haveFailed:
            self._again()
        else:
            self._try()
        return self._first

    def opened(self, connection: Connection) -> None:
        self._attempts.succeeded(self._reactor.seconds())
        if not self._first.called:
            self._first.callback(None)

    def lost(self, connection: Connection, error: Exception) -> None:
        if isinstance(error, _FINAL) and not self._first.called:
            self._factory = None
            self._first.errback(Failure(error))
        else:
            self._fail(error)

    def shut(self) -> Deferred[Any]:
        self._factory = None
        self._timer.stop()
        if self._connecting is not None:
            self._connecting.cancel()
        return succeed(None)

    def forked(self) -> None:
        # What is under way is the parent's: to end it would end it there.
        self._factory = None
        self._timer.stop()
        self._connecting = None

    def _try(self) -> None:
        self._attempts.begun()
        self._connecting = connecting = maybeDeferred(
            self._endpoint.connect, _AttemptFactory(self._factory)
        )
        connecting.addCallbacks(self._connected, self._failed)

    def _connected(self, protocol: Any) -> None:
        # Whether it is of any use will be seen.
        self._connecting = None

    def _failed(self, failure: Failure) -> None:
        self._connecting = None
        assert failure.value is not None
        self._fail(failure.value)

    def _fail(self, error: BaseException) -> None:
        if self._factory is not None:
            self._attempts.failed(self._reactor.seconds(), error)
            self._again()

    def _again(self) -> None:
        if not self._timer.isRunning:
            self._timer.start(self._attempts.pause(self._reactor.seconds()), self._try)
