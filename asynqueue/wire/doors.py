"""
How connections come to a server: it listens for them, or dials them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from twisted.application.internet import backoffPolicy
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure

from asynqueue.errors import IdentityRefused, VersionRefused
from asynqueue.timers import Timer, later
from asynqueue.wire.attempts import Attempts, NotedEndpoint
from asynqueue.wire.connection import Connection
from asynqueue.wire.transports import letGo

# Between attempts: the seconds at first and at last, and their growth. There is up to
# a second of jitter, so that not all hosts of a hub that comes back are there at once.
_PAUSE = 0.5
_LONGEST_PAUSE = 30.0
_GROWTH = 1.7

# To try again would bring the same answer.
_FINAL = (IdentityRefused, VersionRefused)

# Of those who connect, so many may be there who have not proved themselves.
_MOST_STRANGERS = 256


class ConnectionFactory(Factory):
    """
    Has somebody make the protocols.
    """

    noisy = False

    def __init__(self, make: Callable[[Any], Any]) -> None:
        """
        @param make: is called with the address of the other side; what it returns is its
            protocol, or C{None} if there shall be none.
        """
        self._make = make

    def buildProtocol(self, addr: IAddress | None) -> Any:
        return self._make(addr)


class Door(Protocol):
    """
    Where connections come from.
    """

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
        This is a fork: have no new connections, and leave those that come to the parent.
        """


class Listener:
    """
    Listens, and bounds how many strangers are connected.

    @ivar strangers: the connections that have not proved themselves, the oldest first.
    """

    def __init__(self, endpoint: Any, *, most: int = _MOST_STRANGERS) -> None:
        """
        @param endpoint: an C{IStreamServerEndpoint}.
        @param most: how many strangers may be connected at once. One more, and the oldest
            is cut: it has had the longest time to prove itself.
        """
        self.strangers: dict[Connection, None] = {}
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
        Count a connection no more among the strangers: it is open, or lost.
        """
        self.strangers.pop(connection, None)

    def shut(self) -> Deferred[Any]:
        """
        The strangers stay connected.
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
            # One that is proven is no stranger any more, and will be open soon.
            strangers = [each for each in self.strangers if not each.isProven]
            for stranger in strangers[: max(0, len(strangers) + 1 - self._most)]:
                del self.strangers[stranger]
                stranger.abort()
            self.strangers[connection] = None
        return connection


class Dialer:
    """
    Keeps one connection, again and again.

    Twisted's C{ClientService} takes a connection for good as soon as there is one. Here
    it is only when both sides have accepted each other: what is refused at once must not
    be tried again at once.
    """

    def __init__(self, endpoint: Any, reactor: Any, where: str) -> None:
        """
        @param endpoint: an C{IStreamClientEndpoint}.
        @param where: what it dials, in words.
        """
        self._attempts = Attempts(where)
        self._endpoint = NotedEndpoint(endpoint, self._attempts)
        self._reactor = reactor
        self._policy = backoffPolicy(_PAUSE, _LONGEST_PAUSE, _GROWTH)
        self._factory: ConnectionFactory | None = None
        self._connecting: Deferred[Any] | None = None
        self._timer = Timer(partial(later, reactor))
        self._failures = 0
        self._first: Deferred[Any] = Deferred()

    def open(self, factory: ConnectionFactory) -> Deferred[Any]:
        """
        It fires when the first connection is open, and fails if the other side does not
        want this one, now or ever.
        """
        self._factory = factory
        self._try()
        return self._first

    def opened(self, connection: Connection) -> None:
        self._failures = 0
        self._attempts.succeeded()
        if not self._first.called:
            self._first.callback(None)

    def lost(self, connection: Connection, error: Exception) -> None:
        if isinstance(error, _FINAL) and not self._first.called:
            self._first.errback(Failure(error))
        self._attempts.failed(error)
        self._again()

    def shut(self) -> Deferred[Any]:
        self._factory = None
        self._timer.stop()
        if self._connecting is not None:
            self._connecting.cancel()
        return succeed(None)

    def forked(self) -> None:
        self._factory = None
        self._timer.stop()
        self._connecting = None
        self._endpoint.abandon()

    def _try(self) -> None:
        assert self._factory is not None
        connecting = self._endpoint.connect(self._factory)
        self._connecting = connecting
        connecting.addCallbacks(self._connected, self._failed)

    def _connected(self, protocol: Any) -> None:
        """
        Whether it is of any use will be seen.
        """
        self._connecting = None

    def _failed(self, failure: Failure) -> None:
        self._connecting = None
        self._again()

    def _again(self) -> None:
        if self._factory is None or self._timer.isRunning:
            return
        self._failures += 1
        seconds = self._policy(self._failures)
        self._timer.start(seconds, self._try)
        self._attempts.pause(self._reactor.seconds(), seconds)
