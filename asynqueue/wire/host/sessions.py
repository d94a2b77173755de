"""
A host's side of one connection: what the other side is told, and how both part.

::

    connection ── received ──▶ HostSession ─▶ HostCalls ─▶ TaskQueue
               ◀── slots, goodbye ──┘  └─▶ the server: opened, lost
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, Protocol

from attrs import frozen
from twisted.internet.defer import Deferred, succeed

from asynqueue.framing import LARGEST, Frame
from asynqueue.scheduling.snapshots import Snapshot
from asynqueue.status import statusOf
from asynqueue.taskqueue import TaskQueue
from asynqueue.wire.host.calls import HostCalls
from asynqueue.wire.host.catalog import Catalog
from asynqueue.wire.protocol.codecs import Codec
from asynqueue.wire.protocol.messages import MessageKind, packedFault
from asynqueue.wire.protocol.session import Session
from asynqueue.wire.transport.connection import Connection
from asynqueue.workers.waiters import Waiters

# What is said of workers that can run calls.
_NO_FAULT = ("", False)


class _State(Enum):
    SERVING = "takes calls"
    LEAVING = "takes none, and the other side may not know that yet"
    PARTED = "gets none any more"
    CLOSING = "has nothing left to do"
    GONE = "has no connection"


@frozen
class SessionStatistics(Snapshot):
    """
    The state of a host's session with one queue.

    @ivar name: where the queue is, in words.
    @ivar held: how many of its calls have not ended, and how many iterators are open for it.
    """

    name: str
    held: int


class SessionDelegate(Protocol):
    """
    Hears of the sessions of a host.
    """

    def sessionOpened(self, session: HostSession) -> None:
        """
        Hear that the other side has proved itself, and may call.
        """

    def sessionLost(self, session: HostSession, error: Exception) -> None:
        """
        Hear that the connection is lost, and nothing is left of the session. Called once.
        """


class HostSession:
    """
    Serves one connection, as its
    L{ConnectionDelegate<asynqueue.wire.transport.connection.ConnectionDelegate>}: makes the
    calls that come over it in a queue.

    @ivar connection: the connection, as L{connect} has made it.
    @ivar wasOpen: whether the other side has proved itself.
    @ivar error: why the connection was lost, once it was.
    """

    def __init__(
        self,
        delegate: SessionDelegate,
        queue: TaskQueue,
        catalog: Catalog,
        *,
        codec: Codec,
        series: str | None = None,
        threadSeries: str = "thread",
        qualified: Sequence[str] = (),
        most: int = 10_000,
        reactor: Any = None,
    ) -> None:
        """
        @param queue: makes the calls.
        @param catalog: says what may be called.
        @param codec: reads and writes what is called with, and what comes of it.
        @param series: the series of the calls in the queue.
        @param threadSeries: the series of those that want a thread.
        @param qualified: for which series the queue on the other side may take this
            host, besides C{None}.
        @param most: how many calls without outcome, and iterators, the other side may
            have here; with more, the connection is aborted.
        @param reactor: the reactor; C{None} is the installed one.
        @raise ValueError: the catalog trusts code, and the codec sends none.
        """
        self.connection: Connection | None = None
        self.wasOpen = False
        self.error: Exception | None = None
        self._delegate = delegate
        self._codec = codec
        self._queue = queue
        self._catalog = catalog
        self._series = series
        self._qualified = list(qualified)
        self._reactor = reactor
        self._state = _State.SERVING
        self._calls = HostCalls(
            queue,
            catalog,
            codec,
            series=series,
            threadSeries=threadSeries,
            most=most,
            status=self._status,
            ended=self._checkLeft,
            reactor=reactor,
        )
        self._slots: int | None = None
        # Why the workers can run nothing, and whether there is no hope, as was said.
        self._fault = _NO_FAULT
        self._drained = Waiters()
        self._unwatch: Callable[[], None] = lambda: None

    def connect(
        self,
        dialed: bool,
        *,
        key: bytes | None = None,
        largest: int = LARGEST,
        heartbeat: float | None = 10.0,
        onRefused: Callable[[str, Exception], None] | None = None,
    ) -> Connection:
        """
        Make the connection, which wants a transport. Call this once.

        @param dialed: whether this side has dialed.
        @param key: see L{Session}, as for C{largest}.
        @param heartbeat: see L{Connection}, as for C{onRefused}.
        """
        codec, about = self._codec.name, self.about()
        session = Session("host", dialed, key=key, codec=codec, largest=largest, about=about)
        self.connection = Connection(
            session, self, heartbeat=heartbeat, onRefused=onRefused, reactor=self._reactor
        )
        return self.connection

    @property
    def name(self) -> str:
        """
        Where the other side is, in words.
        """
        return "nobody" if self.connection is None else self.connection.description

    @property
    def isProven(self) -> bool:
        """
        Whether the other side has proved itself.
        """
        return self.connection is not None and self.connection.isProven

    @property
    def held(self) -> int:
        """
        How many calls without outcome, and iterators, there are.
        """
        return len(self._calls)

    def statistics(self) -> SessionStatistics:
        """
        Return the state of the session.
        """
        return SessionStatistics(self.name, self.held)

    def about(self) -> dict[str, Any]:
        """
        Return what the other side is told of this host as the connection opens.
        """
        self._slots = self._queue.slots(self._series)
        return {
            "slots": self._slots,
            "trust": self._catalog.trust,
            "series": list(self._qualified),
            "names": list(self._catalog.names),
        }

    def capacityChanged(self) -> None:
        """
        Tell the other side how many calls can run at once, if that has changed: workers of
        the queue came or went, or one runs more at once than before. The session looks by
        itself when workers come and go, and whenever messages come.
        """
        slots = self._queue.slots(self._series)
        if slots and slots == self._slots:
            return
        fault = _NO_FAULT if slots else self._queue.faultOf(self._series)
        if (slots, fault) != (self._slots, self._fault) and self._calls.connection is not None:
            self._slots = slots
            self._fault = fault
            self._calls.isFaulty = bool(fault[0])
            self._calls.say(MessageKind.CAPACITY, slots, packedFault(*fault))
            if fault[0]:
                # Others may run them meanwhile.
                self._calls.giveBack()

    def drain(self, reason: str = "the host stops") -> Deferred[None]:
        """
        Take no more calls, give back those that have not begun, and end the rest. The other
        side closes the connection when it has heard of all its calls: some may be on their
        way here. May be called more than once.

        @param reason: what the other side is told.
        @return: a Deferred that fires when the connection is gone.
        """
        if self._state is _State.GONE:
            return succeed(None)
        waiter = self._drained.wait()
        if self._state is _State.SERVING:
            self._state = _State.LEAVING
            self._calls.isClosed = True
            if self._calls.connection is not None:
                self._calls.connection.goodbye(reason)
                self._calls.giveBack()
        return waiter

    def dismiss(self) -> None:
        """
        End the session when all its calls have ended, or at once if the other side has not
        proved itself.
        """
        if self.isProven:
            self.drain()
        else:
            self.cut()

    def cut(self) -> None:
        """
        End the session at once.
        """
        if self.connection is not None:
            self.connection.abort()

    # ConnectionDelegate

    def opened(self, connection: Connection) -> None:
        self.wasOpen = True
        self._calls.connection = connection
        self._unwatch = self._queue.watchWorkers(self._workersChanged)
        if self._state is _State.LEAVING:
            connection.goodbye("")
        else:
            self.capacityChanged()
        self._delegate.sessionOpened(self)

    def received(self, connection: Connection, frames: Sequence[Frame]) -> None:
        """
        Take what has come. A hot path.
        """
        if connection is self._calls.connection:
            self._calls.heard(frames)
            self.capacityChanged()

    def leaving(self, connection: Connection, reason: str) -> None:
        if self._state in (_State.SERVING, _State.LEAVING):
            self._state = _State.PARTED
            self._calls.isClosed = True
        self._checkLeft()

    def lost(self, connection: Connection, error: Exception) -> None:
        """
        End all calls: nobody will hear of them.
        """
        if self._state is _State.GONE:
            return
        self._state = _State.GONE
        self._unwatch()
        self.error = error
        self._calls.stop()
        self._drained.fire()
        self._delegate.sessionLost(self, error)

    # Within

    def _workersChanged(self) -> None:
        """
        Say what workers of the queue can run, as they came or went, failed or recovered. That
        there is no hope is said each time: for calls that the other side has queued since.
        """
        if self._fault[1]:
            self._fault = _NO_FAULT
        self.capacityChanged()

    def _status(self) -> dict[str, Any]:
        return statusOf(
            self._queue,
            slots=self._queue.slots(self._series),
            series=self._qualified,
            trust=self._catalog.trust,
            held=self.held,
            names=self._catalog.names,
        )

    def _checkLeft(self) -> None:
        """
        Close the connection when the other side sends no more calls, and all have ended.
        """
        connection = self._calls.connection
        if self._state is _State.PARTED and connection is not None and not self.held:
            self._state = _State.CLOSING
            connection.close()
