"""
Listening for connections, and where connections come from.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory
from twisted.logger import Logger

from asynqueue.outcome import oneLine
from asynqueue.reactors import theReactor
from asynqueue.wire.transport.connection import Connection
from asynqueue.wire.transport.sockets import letGo

_log = Logger()

# The most connections that have not proved themselves.
_MOST_UNPROVEN = 256


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


class ConnectionSource(Protocol):
    """
    Where connections come from: a L{Listener}, or a
    L{Dialer<asynqueue.wire.transport.dialing.Dialer>}.

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
