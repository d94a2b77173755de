"""
A worker whose tasks run on a host, over one connection at a time.

::

    run ─▶ Naming, Codec ─▶ CALL ─▶ Connection ─▶ host: its own queue
    end of tasks, ready ◀─ received: RETURNED, RAISED, ITERATOR, GIVEN_BACK ◀─┘
    resignator, and WorkerLost for what was sent ◀─ lost

What was sent and not given back may have begun (G2); the window keeps that to what the
host ends in a round trip and a few milliseconds.

A hot path, plain on purpose; C{benchmarks/} guards it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from math import inf
from typing import Any

from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from asynqueue.checks import wholeNumber
from asynqueue.errors import (
    OPEN_ITERATOR,
    LocalProtocolError,
    RemoteProtocolError,
    WorkerLost,
)
from asynqueue.failures import failureOf
from asynqueue.interfaces import (
    ICancellingWorker,
    IFailingWorker,
    IPrefetchingWorker,
    IRemoteWorker,
    ISlottedWorker,
    ITask,
)
from asynqueue.outcome import cannotDecode, oneLine
from asynqueue.reactors import checkedReactor, theReactor
from asynqueue.scheduling.options import seriesOf
from asynqueue.scheduling.snapshots import WorkerSnapshot
from asynqueue.timers import Timer, later
from asynqueue.wire.client.calls import Calls
from asynqueue.wire.client.iterators import OpenIterators
from asynqueue.wire.client.sources import FarSource
from asynqueue.wire.protocol.codecs import codecNamed
from asynqueue.wire.protocol.events import Peer
from asynqueue.wire.protocol.handshake import plain
from asynqueue.wire.protocol.messages import Flag, Kind, unpackedFault
from asynqueue.wire.transport.connection import Connection
from asynqueue.workers.failing import Fault
from asynqueue.workers.prefetch import Life, Prefetch
from asynqueue.workers.roundtrip import MOST, RoundTripWindow

_log = Logger()

# For hot paths: members of an enumeration are slow to look up and to compare.
_RETURNED = int(Kind.RETURNED)

# Where nothing has ended for so long, or so many round trips, what has not begun is
# called back.
_STALE_SECONDS = 0.01
_STALE_TRIPS = 4

# Before that, what has come is read: so long.
_READING_SECONDS = 0.001

# A host that gave back all that it had is sent a call again after so long.
_RETRY_SECONDS = 0.02

# When a worker stops, the host has so long to close the connection.
_PATIENCE = 5.0


@frozen
class RemoteStatistics(WorkerSnapshot):
    """
    How a worker over a connection stands, what it has done, and how the connection is. Its
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
class RemoteWorker:
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
        self._flags = int(Flag.THREAD) if thread else 0
        self._most = MOST if N_concurrent is None else N_concurrent
        self._universe = universe
        self._names = None if names is None else frozenset(names)
        self._codec = codecNamed(codec)
        self._reactor = checkedReactor(reactor)
        # What is with the host, while there is a connection.
        self._far: Calls | None = None
        self._connections = 0
        self._isFarewell = False
        # By the numbers of their calls, in order; those that wait, wait for a connection.
        self._tasks = Prefetch(
            self,
            RoundTripWindow(1, self._most),
            self._later,
            name=lambda: self._name,
            recall=self._recall,
            # What has come is read first.
            patience=lambda looks: 0.0 if looks else _READING_SECONDS,
            staleSeconds=lambda: max(_STALE_SECONDS, _STALE_TRIPS * self._rtt()),
        )
        self._iterators = OpenIterators(
            self._codec, self._tasks.name, self._later, self._checkEmpty
        )
        # Why the host can run nothing, as it said.
        self._fault = Fault()
        self._resignator: Callable[[], None] | None = None
        self._retry = Timer(self._later)
        self._patience = Timer(self._later)

    # IWorker

    def setResignator(self, callableObject: Callable[[], None]) -> None:
        self._resignator = callableObject

    def setReturner(self, callableObject: Callable[[Sequence[ITask]], None]) -> None:
        self._tasks.returner = callableObject

    def setReporter(self, callableObject: Callable[[str, Sequence[ITask], bool], None]) -> None:
        self._fault.reporter = callableObject

    def run(self, task: ITask) -> Deferred[None]:
        tasks = self._tasks
        far = self._far
        if far is None or self._isFarewell:
            self._keep(task)
            return tasks.wait()
        held = tasks.held
        if len(held) >= tasks.window.size and tasks.turnsAway(task):
            return tasks.wait()
        if not held:
            tasks.window.start(self._theReactor().seconds())
        self._send(far, task)
        ready = tasks.taken()
        return tasks.wait() if ready.called and far.isHeavy else ready

    def stop(self) -> Deferred[None]:
        """
        Iterators may be read to their ends; one that nobody reads is closed. Then the
        connection is closed.
        """
        return self._tasks.stop()

    def crash(self) -> list[ITask]:
        """
        The connection is closed at once; so the host ends what it runs.
        """
        if self._tasks.life is Life.CRASHED:
            return []
        left, _ = self._tasks.crash()
        self._stopTimers()
        left += self._iterators.crash()
        sources = self._iterators.lose()
        far, self._far = self._far, None
        if far is not None:
            far.connection.abort()
        self._disconnect()
        self._failSources(sources, "its worker crashed")
        self._tasks.sayStopped()
        return left

    def takeBack(self) -> Sequence[ITask]:
        """
        What was sent may have begun already.
        """
        return self._tasks.takeBack()

    def cancel(self, task: ITask) -> None:
        """
        The host ends the run as it can.
        """
        tasks = self._tasks
        if task in tasks.waiting:
            del tasks.waiting[task]
            self._checkReady()
            self._checkEmpty()
        elif not self._iterators.close(task) and self._far is not None:
            number = tasks.keyOf(task)
            if number is not None:
                self._far.tell(Kind.CANCEL, number)

    # For people

    @property
    def peer(self) -> Peer | None:
        """
        What the host said of itself as it greeted; C{None} while there is no connection.
        """
        return None if self._far is None else self._far.connection.peer

    @property
    def slots(self) -> int:
        """
        How many calls may run at once on the host.
        """
        return min(self._tasks.window.slots, self._most)

    def statistics(self) -> RemoteStatistics:
        """
        Return how it stands, and what it has done.
        """
        tasks = self._tasks
        window = tasks.window
        state = tasks.state(self._fault)
        if state == "serving" and self._far is None:
            state = "disconnected"
        return RemoteStatistics(
            state=state,
            slots=window.slots,
            held=tasks.count + self._iterators.unopened,
            ended=tasks.ended,
            fault=self._fault.reason,
            host=self.host,
            connected=self._far is not None,
            window=window.size,
            rate=window.rate,
            rtt=self._rtt(),
            connections=self._connections,
        )

    # ConnectionOwner

    def opened(self, connection: Connection) -> None:
        """
        There is a connection: serve over it.
        """
        about = connection.peer.about
        self._far = Calls(
            connection,
            self._tasks.held,
            self._codec,
            self._universe,
            self._names,
            self._raw,
            self._flags,
        )
        self._connections += 1
        self._isFarewell = False
        self.host = connection.description
        self.loss = ""
        self._fault.stop()
        slots = about.get("slots")
        if type(slots) is not int or slots < 0:
            slots = 1
        self._tasks.window = RoundTripWindow(slots, self._most)
        self._qualify(about.get("series"))
        self._sendWaiting()
        self._checkReady()
        self._checkEmpty()

    def received(self, connection: Connection, frames: list[Any]) -> None:
        """
        Outcomes have come. A hot path.

        @raise RemoteProtocolError: the host says what has no sense.
        """
        far = self._far
        if far is None or far.connection is not connection:
            return
        tasks = self._tasks
        held = tasks.held
        decode = self._codec.decode
        now = self._theReactor().seconds()
        window = tasks.window
        window.heard(now, connection.rtt)
        full = tasks.isWaiting
        before = tasks.ended
        back: dict[int, None] = {}
        for frame in frames:
            kind, number, body, buffers = frame
            if kind == _RETURNED and number in held:
                task = held.pop(number)
                tasks.ended += 1
                try:
                    value = decode(body, buffers)
                except BaseException as error:
                    # Somebody's objects: whatever their unpickling raises.
                    task.errback(failureOf(cannotDecode(error)))
                else:
                    task.callback(value)
            else:
                self._heard(far, frame, back)
            if self._far is not far:
                # What ended has made the worker crash.
                return
        if tasks.ended != before:
            window.ended(tasks.ended - before, now, full)
        if back:
            self._handBack([held.pop(number) for number in back if number in held])
        self._checkReady()
        if not held:
            self._checkEmpty()

    def leaving(self, connection: Connection, reason: str) -> None:
        """
        The host takes no more calls: close the connection when the last has ended.
        """
        if self._isCurrent(connection):
            self._isFarewell = True
            self._checkEmpty()

    def lost(self, connection: Connection, error: Exception) -> None:
        """
        The connection is gone: resign.
        """
        if not self._isCurrent(connection):
            return
        self._far = None
        farewell, self._isFarewell = self._isFarewell, False
        self._stopTimers()
        sources = self._iterators.lose()
        tasks = self._tasks
        isStopping = tasks.life in (Life.STOPPING, Life.LEAVING)
        if isStopping and tasks.isIdle and not self._iterators.isDelivering:
            self._disconnect()
            tasks.checkStopped()
        else:
            self.loss = "the host left" if farewell else _lossBy(error)
            if tasks.held or not farewell:
                _log.warn("{host}: {loss}", host=self.host, loss=self.loss)
            if self._resignator is not None:
                self._resignator()
            if tasks.life is not Life.CRASHED:
                self._failHeld()
        self._failSources(sources, self.loss or "it stopped")

    # What the host says

    def _heard(self, far: Calls, frame: Any, back: dict[int, None]) -> None:
        """
        Take a message that is no value.

        @param back: takes the numbers of the calls that the host gives back. Until all of
            a batch is heard they count as sent: the rest may end this worker.
        @raise RemoteProtocolError: it has no sense.
        """
        kind, number, body, _ = frame
        match kind:
            case Kind.RAISED:
                task = far.settle(kind, number)
                self._tasks.ended += 1
                task.errback(failureOf(self._codec.decodeRaised(body)))
            case Kind.BEGUN:
                task = far.task(kind, number)
                if task.watched:
                    task.begin()
            case Kind.GIVEN_BACK:
                far.task(kind, number)
                if number in back:
                    raise RemoteProtocolError(f"the host gave back the call {number} twice")
                back[number] = None
            case Kind.CANCELLED:
                task = far.settle(kind, number)
                self._tasks.ended += 1
                if not task.ended:
                    task.errback(Failure(CancelledError("the host ended the call")))
            case Kind.ITERATOR:
                text = bytes(body).decode(errors="replace")
                self._iterators.open(far.settle(kind, number), number, text, far.tell, self._rtt)
            case Kind.ITEMS | Kind.ITEM_FAILED | Kind.END:
                self._iterated(frame)
            case Kind.CAPACITY:
                self._tasks.window.resize(number)
                self._setFault(*unpackedFault(body))
            case _:
                raise RemoteProtocolError(f"a message of the kind {kind!r} came from a host")

    def _setFault(self, reason: str, isHopeless: bool) -> None:
        """
        The host says that it can run nothing for now and why, or that it can.
        """
        if reason:
            self._fault.tell(plain(reason), (), isHopeless)
        else:
            self._fault.end()

    def _iterated(self, frame: Any) -> None:
        task = self._iterators.heard(*frame)
        if task is not None:
            self._tasks.ended += 1
        if not self._iterators.sources:
            self._checkEmpty()

    def _qualify(self, series: Any) -> None:
        """
        Be qualified for the series that this host says, and no more for those of one before.
        """
        for each in self._said:
            if each in self.iQualified:
                self.iQualified.remove(each)
        self._said = []
        for each in series if isinstance(series, list) else ():
            if isinstance(each, str) and each not in self.iQualified:
                self._said.append(each)
                self.iQualified.append(each)

    # Tasks

    def _send(self, far: Calls, task: ITask) -> None:
        """
        Have the host make the call of a task. A hot path.
        """
        try:
            far.send(task)
        except LocalProtocolError:
            # The connection is about to be lost.
            self._tasks.waiting[task] = None
        except BaseException as error:
            # Somebody's objects: whatever their pickling raises.
            self._tasks.cannotSend(task, error)

    def _keep(self, task: ITask) -> None:
        """
        There is nobody to run a task now.
        """
        if self._isFarewell and self._tasks.returner is not None:
            self._tasks.returner([task])
        else:
            self._tasks.waiting[task] = None
            if self._far is None:
                self._connect()

    def _handBack(self, tasks: Sequence[ITask]) -> None:
        """
        Let others have tasks that the host gave back.
        """
        tasks = [task for task in tasks if not task.ended]
        if not tasks:
            return
        if not self._isFarewell:
            held, window = self._tasks.held, self._tasks.window
            if window.isClosed or not held:
                window.keep(len(held))
            if not held and not self._retry.isRunning:
                # Or they would go to and fro as fast as they can.
                self._retry.start(_RETRY_SECONDS, self._tryAgain)
        fault = self._fault
        if fault.reason and fault.reporter is not None:
            fault.tell(fault.reason, tasks, fault.isHopeless)
            return
        stay = self._tasks.handBack(tasks)
        if fault.isHopeless:
            self._tasks.lose(stay, fault.reason, begun=False)
        else:
            self._tasks.waiting.update(dict.fromkeys(stay))

    def _tryAgain(self) -> None:
        """
        See whether the host keeps a call now.
        """
        self._tasks.window.retry()
        self._sendWaiting()
        self._checkReady()

    def _sendWaiting(self) -> None:
        far = self._far
        assert far is not None
        for task in self._tasks.takeWaiting():
            self._send(far, task)

    def _checkReady(self) -> None:
        far = self._far
        if far is not None and not self._isFarewell and self._tasks.isWaiting and not far.isHeavy:
            self._tasks.checkReady()

    def _recall(self) -> None:
        """
        Have the host give back what it has not begun (G6). Its own workers may have some of
        that ahead: it is asked again some times.
        """
        far = self._far
        if far is not None:
            far.tell(Kind.RECALL, far.last)

    # Comings and goings

    def _revive(self) -> None:
        """
        Serve again after the end.
        """
        life = self._tasks.life
        if life is Life.CRASHED or (life is Life.LEAVING and self.isGone):
            self._tasks.revive()

    def _connect(self) -> None:
        """
        There are tasks, and no connection.
        """

    def _disconnect(self) -> None:
        """
        No connection is needed any more.
        """

    def _checkEmpty(self) -> None:
        """
        When there is nothing left to do, and one of both sides leaves, close the
        connection.
        """
        tasks = self._tasks
        tasks.checkStopped()
        if tasks.held or tasks.waiting or not self._isFarewell or tasks.life is not Life.SERVING:
            return
        if not self._iterators.wait("its host leaves"):
            self._close()

    def _close(self) -> None:
        far = self._far
        if far is not None and not self._patience.isRunning:
            far.connection.close()
            self._patience.start(_PATIENCE, far.connection.abort)

    # PrefetchDelegate

    def takeUnbegun(self) -> list[ITask]:
        """
        Only the host knows what has not begun, of that which was sent.
        """
        return []

    def letGo(self) -> bool:
        """
        Close the connection, or have none.
        """
        if self._iterators.wait("it stops"):
            return False
        if self._far is None:
            self._disconnect()
        else:
            self._far.connection.goodbye("the worker stops")
            self._close()
        return True

    @property
    def isGone(self) -> bool:
        """
        Whether there is no connection.
        """
        return self._far is None

    # Within

    def _failHeld(self) -> None:
        """
        Without a queue nobody else does.
        """
        tasks = self._tasks
        lost = [*tasks.held.values(), *self._iterators.takeUnopened()]
        tasks.held.clear()
        tasks.lose(lost, self.loss)
        if tasks.waiting:
            self._connect()
        self._checkEmpty()

    def _failSources(self, sources: Iterable[FarSource], reason: str) -> None:
        for source in sources:
            source.lost(Failure(WorkerLost(OPEN_ITERATOR, self._name, reason=reason)))

    def _stopTimers(self) -> None:
        self._tasks.pause()
        self._retry.stop()
        self._patience.stop()
        self._iterators.stop()

    @property
    def _name(self) -> str:
        return f"{type(self).__name__} {self.ID} ({self.host})"

    def _theReactor(self) -> Any:
        return theReactor(self._reactor)

    def _later(self, seconds: float, f: Callable[[], None]) -> Any:
        return later(self._theReactor(), seconds, f)

    def _rtt(self) -> float:
        """
        The least round trip in seconds; 0 if it is not known.
        """
        if self._tasks.window.rtt != inf:
            return self._tasks.window.rtt
        return 0.0 if self._far is None else self._far.connection.rtt or 0.0

    def _isCurrent(self, connection: Connection) -> bool:
        return self._far is not None and self._far.connection is connection


def _lossBy(error: Exception) -> str:
    if isinstance(error, ConnectionDone):
        return "the host closed the connection"
    return f"the connection was lost: {oneLine(error)}"
