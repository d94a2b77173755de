"""
A worker whose tasks run on a host, over one connection at a time.

::

    run ─▶ QueueSession ─▶ CALL ─▶ Connection ─▶ host: its own queue
    end of tasks, ready ◀─ RETURNED, RAISED, ITERATOR, GIVEN_BACK ◀─┘
    resignator, and WorkerLost for what was sent ◀─ lost

What was sent and not given back may have begun (G2); the window keeps that to what the
host ends in a round trip and a few milliseconds.

A hot path, plain on purpose; C{benchmarks/} guards it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.logger import Logger
from zope.interface import implementer

from asynqueue.checks import wholeNumber
from asynqueue.interfaces import (
    ICancellingWorker,
    IFailingWorker,
    IPrefetchingWorker,
    IRemoteWorker,
    ISlottedWorker,
    ITask,
)
from asynqueue.outcome import oneLine
from asynqueue.reactors import checkedReactor, theReactor
from asynqueue.scheduling.options import seriesOf
from asynqueue.scheduling.snapshots import WorkerSnapshot
from asynqueue.timers import later
from asynqueue.wire.client.iterators import OpenIterators
from asynqueue.wire.client.sessions import QueueSession
from asynqueue.wire.protocol.codecs import codecNamed
from asynqueue.wire.protocol.commands import Peer
from asynqueue.wire.protocol.messages import CallFlag
from asynqueue.wire.transport.connection import Connection
from asynqueue.workers.failing import Fault
from asynqueue.workers.prefetch import Life, Prefetch, Prefetching
from asynqueue.workers.roundtrip import MOST, RoundTripWindow

_log = Logger()

# The seconds, or round trips, without any end after which what has not begun is called back.
_STALE_SECONDS = 0.01
_STALE_TRIPS = 4

# Before that, what has come is read: for this time.
_READING_SECONDS = 0.001


@frozen
class RemoteStatistics(WorkerSnapshot):
    """
    The state of a worker over a connection, what it has done, and how the connection is. Its
    slots are the calls that the host says that it runs at once.

    @ivar host: who is at the other end, in words.
    @ivar connected: whether there is a connection.
    @ivar window: how many calls may be with it now.
    @ivar rate: how many ended per second, when that was measured last.
    @ivar rtt: the least round trip in seconds; 0 if it is not known.
    @ivar connections: how many connections it has had.
    """

    host: str
    connected: bool
    window: int
    rate: float
    rtt: float
    connections: int


@implementer(IPrefetchingWorker, ICancellingWorker, IFailingWorker, IRemoteWorker, ISlottedWorker)
class RemoteWorker(Prefetching[RoundTripWindow]):
    """
    Runs tasks on a host, as many at once as that says, and lines up as many more as
    keep it busy.

    When the connection is lost the worker resigns. What was sent by then may have begun
    and fails with L{WorkerLost<asynqueue.errors.WorkerLost>}, or is tried again; the
    rest is run elsewhere.

    It is the owner of its L{Connection<asynqueue.wire.transport.connection.Connection>}.

    @ivar ID: the number that a queue gave to this worker.
    @ivar host: who is at the other end, in words.
    @ivar loss: why the last connection was lost, in words.
    """

    cQualified: list[Any] = ["wire", "remote"]

    def __init__(
        self,
        host: str,
        series: Iterable[Hashable] = (),
        *,
        raw: bool = False,
        thread: bool = False,
        N_concurrent: int | None = None,
        universe: object = None,
        names: Iterable[str] | None = None,
        codec: str = "pickle",
        mostBytes: int = 256 << 20,
        reactor: Any = None,
    ) -> None:
        """
        @param host: who is to be at the other end, until that is known better.
        @param series: what it is qualified for, besides its kind.
        @param raw: whether iterators are sent as they are, where the call does not say.
        @param thread: whether calls run in threads of the host.
        @param N_concurrent: how many of its calls may be under way at once;
            C{None}: as many as keep the host busy.
        @param universe: whose methods stand for those of the host that have their
            names.
        @param names: what can be called by a plain name; C{None}: that is for the host to
            say.
        @param codec: how arguments and results are encoded.
        @param mostBytes: how many bytes several large calls may have together before the host
            is sent nothing more; one of them may have any number.
        @param reactor: the reactor; C{None} is the installed one.
        @raise ValueError: C{N_concurrent} is no whole number, or less than 1.
        @raise TypeError: C{series} is a string, or one of them is not hashable.
        """
        if N_concurrent is not None:
            wholeNumber(N_concurrent, "N_concurrent")
        self.iQualified: list[Any] = seriesOf(series)
        # Those of them that the host of the last connection said.
        self._said: list[str] = []
        self.ID: int | None = None
        self.host = host
        self.loss = ""
        self._raw = raw
        self._flags = int(CallFlag.THREAD) if thread else 0
        self._most = MOST if N_concurrent is None else N_concurrent
        self._universe = universe
        self._names = None if names is None else frozenset(names)
        self._codec = codecNamed(codec)
        self._mostBytes = mostBytes
        self._reactor = checkedReactor(reactor)
        self._session: QueueSession | None = None
        self._connections = 0

        def callLater(seconds: float, f: Callable[[], None]) -> Any:
            return later(self._theReactor(), seconds, f)

        # By the numbers of their calls, in order; those that wait, wait for a connection.
        self._tasks = Prefetch(
            self,
            RoundTripWindow(1, self._most),
            callLater,
            name=lambda: f"{type(self).__name__} {self.ID} ({self.host})",
            recall=lambda: None if self._session is None else self._session.recall(),
            # What has come is read first.
            patience=lambda looks: 0.0 if looks else _READING_SECONDS,
            staleSeconds=lambda: max(_STALE_SECONDS, _STALE_TRIPS * self._rtt),
        )
        self._iterators = OpenIterators(self._codec, self._tasks.name, callLater, self._checkEmpty)
        # Why the host can run nothing, as it said.
        self._fault = Fault()
        self._resignator: Callable[[], None] | None = None

    # IWorker

    def setResignator(self, callableObject: Callable[[], None]) -> None:
        self._resignator = callableObject

    def setReporter(self, callableObject: Callable[[str, Sequence[ITask], bool], None]) -> None:
        self._fault.reporter = callableObject

    def run(self, task: ITask) -> Deferred[None]:
        tasks = self._tasks
        session = self._session
        if session is None or session.isLeaving:
            if session is not None and tasks.returner is not None:
                tasks.returner([task])
            else:
                tasks.waiting[task] = None
                if session is None:
                    self._connect()
            return tasks.wait()
        held = tasks.held
        if len(held) >= tasks.window.size and tasks.turnsAway(task):
            return tasks.wait()
        if not held:
            tasks.window.start(self._theReactor().seconds())
        session.send(task)
        ready = tasks.taken()
        return tasks.wait() if ready.called and session.isHeavy else ready

    def crash(self) -> list[ITask]:
        """
        Close the connection at once; so the host ends what it runs.
        """
        if self._tasks.life is Life.CRASHED:
            return []
        left, _ = self._tasks.crash()
        left += self._iterators.deliveries.crash()
        session, self._session = self._session, None
        if session is not None:
            session.stop()
            session.connection.abort()
        self._disconnect()
        self._iterators.lose(self.loss or "its worker crashed")
        self._tasks.sayStopped()
        return left

    def cancel(self, task: ITask) -> None:
        """
        Have the host end the run, as it can.
        """
        tasks = self._tasks
        if task in tasks.waiting:
            del tasks.waiting[task]
            if self._session is not None:
                self._session.checkReady()
            self._checkEmpty()
        elif self._session is not None:
            self._session.cancel(task)

    # For people

    @property
    def peer(self) -> Peer | None:
        """
        What the host said of itself as it greeted; C{None} while there is no connection.
        """
        return None if self._session is None else self._session.connection.peer

    @property
    def slots(self) -> int:
        """
        How many calls may run at once on the host.
        """
        return min(self._tasks.window.slots, self._most)

    def statistics(self) -> RemoteStatistics:
        """
        Return the state of the worker, and what it has done.
        """
        tasks = self._tasks
        window = tasks.window
        state = tasks.state(self._fault)
        if state == "serving" and self._session is None:
            state = "disconnected"
        return RemoteStatistics(
            state=state,
            slots=window.slots,
            held=tasks.count + len(self._iterators.deliveries),
            ended=tasks.ended,
            fault=self._fault.reason,
            host=self.host,
            connected=self._session is not None,
            window=window.size,
            rate=window.rate,
            rtt=self._rtt,
            connections=self._connections,
        )

    # ConnectionOwner

    def opened(self, connection: Connection) -> None:
        """
        Serve over a connection.
        """
        self._session = session = QueueSession(
            connection,
            self._tasks,
            self._iterators,
            self._fault,
            codec=self._codec,
            universe=self._universe,
            names=self._names,
            raw=self._raw,
            flags=self._flags,
            mostBytes=self._mostBytes,
            reactor=self._theReactor(),
        )
        self._connections += 1
        self.host = connection.description
        self.loss = ""
        self._fault.stop()
        self._tasks.window = RoundTripWindow(session.slots, self._most)
        # Not for those of another host any more.
        self.iQualified[:] = [each for each in self.iQualified if each not in self._said]
        self._said = [each for each in session.series if each not in self.iQualified]
        self.iQualified += self._said
        session.resume()
        self._checkEmpty()

    def received(self, connection: Connection, frames: list[Any]) -> None:
        """
        Take what has come. A hot path.
        """
        session = self._session
        if session is None or session.connection is not connection:
            return
        session.received(frames)
        if not self._tasks.held:
            self._checkEmpty()

    def leaving(self, connection: Connection, reason: str) -> None:
        """
        Give the host no more calls, and close the connection when the last has ended.
        """
        if self._session is not None and self._session.connection is connection:
            self._session.isLeaving = True
            self._checkEmpty()

    def lost(self, connection: Connection, error: Exception) -> None:
        """
        Resign: the connection is gone.
        """
        session = self._session
        if session is None or session.connection is not connection:
            return
        self._session = None
        session.stop()
        tasks = self._tasks
        tasks.pause()
        self._iterators.stop()
        isStopping = tasks.life in (Life.STOPPING, Life.LEAVING)
        if isStopping and tasks.isIdle and not self._iterators.deliveries:
            self._disconnect()
        else:
            self.loss = "the host left" if session.isLeaving else _lossBy(error)
            if tasks.held or not session.isLeaving:
                _log.warn("{host}: {loss}", host=self.host, loss=self.loss)
            if self._resignator is not None:
                self._resignator()
            if tasks.life is not Life.CRASHED:
                # Without a queue nobody else ends what was sent.
                sent = [*tasks.held.values(), *self._iterators.deliveries.crash()]
                tasks.held.clear()
                tasks.lose(sent, self.loss)
                if tasks.waiting:
                    self._connect()
        self._iterators.lose(self.loss or "it stopped")
        self._checkEmpty()

    # Comings and goings

    def _connect(self) -> None:
        """
        Get a connection: there are tasks, and none.
        """

    def _disconnect(self) -> None:
        """
        Have no connection any more.
        """

    def _checkEmpty(self) -> None:
        """
        Close the connection when there is nothing left to do, and one of both sides leaves.
        """
        tasks, session = self._tasks, self._session
        tasks.checkStopped()
        if session is None or not session.isLeaving or tasks.life is not Life.SERVING:
            return
        if not tasks.held and not tasks.waiting and not self._iterators.wait("its host leaves"):
            session.close()

    @property
    def _rtt(self) -> float:
        return 0.0 if self._session is None else self._session.rtt

    def _theReactor(self) -> Any:
        return theReactor(self._reactor)

    # PrefetchDelegate

    def takeUnbegun(self) -> list[ITask]:
        """
        Take nothing: only the host knows what has not begun, of that which was sent.
        """
        return []

    def letGo(self) -> bool:
        """
        Close the connection, or have none.
        """
        if self._iterators.wait("it stops"):
            return False
        if self._session is None:
            self._disconnect()
        else:
            self._session.connection.goodbye("the worker stops")
            self._session.close()
        return True

    @property
    def isGone(self) -> bool:
        """
        Whether there is no connection.
        """
        return self._session is None


def _lossBy(error: Exception) -> str:
    if isinstance(error, ConnectionDone):
        return "the host closed the connection"
    return f"the connection was lost: {oneLine(error)}"
