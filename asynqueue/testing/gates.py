"""
Where the calls of a test wait until the test lets them go on.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.protocol import Factory, Protocol

from asynqueue.reactors import theReactor
from asynqueue.testing.calls import Address, Token

# The calls that may come at once before the reactor looks.
_BACKLOG = 1024


class Gate:
    """
    Holds calls up, and tells when they have come, so that no test has to sleep.

    Give its L{token} to a call: C{token.wait()} waits there until the gate is
    open, C{token.signal()} is only counted. In the reactor C{wait} returns a
    Deferred, elsewhere it blocks.

    @ivar token: stands for the gate in calls; it can be pickled, unless C{local}.
    @ivar arrived: how many have come by now, to wait or to signal.
    """

    def __init__(self, local: bool = False, reactor: Any = None) -> None:
        """
        @param local: whether the calls run in the reactor's thread. If not, the
            gate listens on a port of this host, and must be L{close}d.
        @param reactor: the reactor; C{None} is the installed one.
        """
        self.arrived = 0
        self.token: Token
        self._isOpen = False
        self._waiters: list[tuple[int, Deferred[None]]] = []
        self._held: dict[Any, None] = {}
        self._port: Any = None
        self._lastLeft: Deferred[None] | None = None
        self._reactor = reactor
        self._look: Any = None
        if local:
            self.token = _Here(self)
        else:
            factory = Factory.forProtocol(_Visitor)
            factory.noisy = False
            factory.gate = self  # type: ignore[attr-defined]
            self._port = theReactor(reactor).listenTCP(
                0, factory, backlog=_BACKLOG, interface="127.0.0.1"
            )
            host = self._port.getHost()
            self.token = Address(host.host, host.port)

    def arrivals(self, count: int = 1) -> Deferred[None]:
        """
        Return a Deferred that fires when C{count} have come, all in all. In the reactor
        it fires in a later turn, when the calls that wait have returned.
        """
        if self.arrived >= count:
            return succeed(None)
        d: Deferred[None] = Deferred()
        self._waiters.append((count, d))
        return d

    def open(self) -> None:
        """
        Let go on who waits, and who comes later.
        """
        self._isOpen = True
        for visitor in list(self._held):
            visitor.goOn()

    def close(self) -> Deferred[None]:
        """
        Open the gate, and listen no more.

        @return: a Deferred that fires when that is done.
        """
        self.open()
        port, self._port = self._port, None
        closed: Deferred[None] = succeed(None) if port is None else port.stopListening()
        return closed.addCallback(lambda _: self._allLeft())

    def _allLeft(self) -> Deferred[None]:
        if not self._held:
            return succeed(None)
        self._lastLeft = Deferred()
        return self._lastLeft

    def came(self, visitor: Any) -> None:
        """
        Hear that a visitor has come; if it is one, and not C{None}, it waits.
        """
        self.arrived += 1
        if visitor is not None:
            self._held[visitor] = None
            if self._isOpen:
                visitor.goOn()
        if self._waiters and self._look is None:
            self._look = theReactor(self._reactor).callLater(0, self._tell)

    def _tell(self) -> None:
        self._look = None
        waiters, self._waiters = self._waiters, []
        for count, d in waiters:
            if self.arrived >= count:
                d.callback(None)
            else:
                self._waiters.append((count, d))

    def left(self, visitor: Any) -> None:
        """
        Hear that a visitor is gone.
        """
        self._held.pop(visitor, None)
        if not self._held and self._lastLeft is not None:
            d, self._lastLeft = self._lastLeft, None
            d.callback(None)


class _Visitor(Protocol):
    """
    A call in another thread or process.
    """

    factory: Any
    transport: Any

    def connectionMade(self) -> None:
        self.factory.gate.came(self)

    def goOn(self) -> None:
        """
        Let it go on.
        """
        self.transport.loseConnection()

    def connectionLost(self, reason: Any = None) -> None:
        self.factory.gate.left(self)


class _Here:
    """
    A gate for calls in the reactor.
    """

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    def wait(self) -> Deferred[None]:
        """
        Return a Deferred that fires when the gate is open.
        """
        caller = _Caller(self._gate)
        self._gate.came(caller)
        return caller.d

    def signal(self) -> None:
        """
        Only be counted.
        """
        self._gate.came(None)


class _Caller:
    """
    A call in the reactor that waits.
    """

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self.d: Deferred[None] = Deferred(lambda _: gate.left(self))

    def goOn(self) -> None:
        """
        Let it go on.
        """
        self._gate.left(self)
        self.d.callback(None)
