"""
A worker with a process of its own.

::

    run ─▶ ProcessCalls.make ─▶ frames ─▶ child: one call after the other
    end of tasks, ready ◀─ returned, raised, iterating, onBatchRead ◀─┘
    WorkerLost for what was begun, the rest given back ◀─ exited, and a new child
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import cache, partial
from time import monotonic
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure
from zope.interface import implementer

from asynqueue.checks import listOf
from asynqueue.failures import failureOf
from asynqueue.framing import LARGEST
from asynqueue.interfaces import (
    ICancellingWorker,
    IFailingWorker,
    ILingeringWorker,
    IPrefetchingWorker,
    IProcessWorker,
    ISlottedWorker,
    ITask,
)
from asynqueue.iteration.far import FarSource
from asynqueue.loops.adapters import adapterOf
from asynqueue.outcome import Raised
from asynqueue.processes.limits import Limits
from asynqueue.processes.process import ChildProcess
from asynqueue.processes.roles import CallTuple, ExitReport
from asynqueue.processes.spawn import Spawned
from asynqueue.processes.supervisor import Supervisor
from asynqueue.reactors import checkedReactor, theReactor
from asynqueue.scheduling.options import seriesOf
from asynqueue.scheduling.snapshots import WorkerSnapshot
from asynqueue.workers.childtasks import ChildTasks
from asynqueue.workers.failing import Fault
from asynqueue.workers.iterators import ChildIterators
from asynqueue.workers.prefetch import Life, Prefetch, Prefetching
from asynqueue.workers.stale import STALE_SECONDS
from asynqueue.workers.waiters import Waiters
from asynqueue.workers.window import Window

# The most tasks that may be sent ahead to one process.
_MOST_AHEAD = 500

# How often a child is looked at again that may move without being heard of.
_MOST_LOOKS = 100


@frozen
class ProcessStatistics(WorkerSnapshot):
    """
    How a process worker stands, and what it has done.

    @ivar pids: the process IDs of its children that live now.
    @ivar seconds: how long the tasks that have ended ran, all together.
    @ivar mean: the mean seconds of the latest.
    @ivar started: how many children it has started.
    @ivar lost: how many of them died of themselves.
    @ivar memory: the kB of memory that its child has.
    """

    pids: tuple[int, ...]
    seconds: float
    mean: float
    started: int
    lost: int
    memory: int

    @property
    def tasks(self) -> int:
        """
        How many calls its children have ended.
        """
        return self.ended


@implementer(
    IPrefetchingWorker,
    ICancellingWorker,
    IFailingWorker,
    ILingeringWorker,
    IProcessWorker,
    ISlottedWorker,
)
class ProcessWorker(Prefetching[Window]):
    """
    Runs tasks in a child process, one after the other.

    The child is a fresh interpreter with the module search path of this one. What is
    called, its arguments and its result are pickled, by cloudpickle where that is
    needed: functions of C{__main__}, lambdas and closures can be called. A function
    is sent to a child once, with what it closes over as that is then.

    A child that dies takes with it the one task that it had begun, which fails with
    L{WorkerLost<asynqueue.errors.WorkerLost>} or is tried again, and is replaced. The
    child is started with the first task.

    @ivar ID: the number that a queue gave to this worker.
    """

    cQualified: list[Any] = ["process", "local"]
    #: One task runs at a time.
    slots = 1

    def __init__(
        self,
        series: Iterable[Hashable] = (),
        *,
        raw: bool = False,
        initializer: Callable[..., Any] | None = None,
        initargs: Iterable[Any] = (),
        maxTasks: int | None = None,
        maxMemory: int | None = None,
        idleTimeout: float | None = None,
        grace: float = 1.0,
        largest: int = LARGEST,
        reactor: Any = None,
        spawn: Callable[[int], Spawned] = Spawned,
        now: Callable[[], float] = monotonic,
    ) -> None:
        """
        @param series: what it is qualified for, besides its kind.
        @param raw: whether iterators are pickled as they are, where the call does
            not say.
        @param initializer: is called with C{initargs} in each child, before any
            task.
        @param maxTasks: how many tasks a child runs before it is replaced.
        @param maxMemory: the bytes of memory that a child may have when a task
            ends, before it is replaced. One that has twice as much in the middle of
            a task is killed. With it, a child is sent one task after the other.
        @param idleTimeout: the seconds after which a child without work is ended;
            C{None}: it lives on.
        @param grace: the seconds that a task has to clean up after it was cancelled
            or has timed out, before its child is killed.
        @param largest: how many bytes the arguments or the result of a task may
            have, pickled.
        @param reactor: the reactor, or an asyncio loop; C{None}: the one that runs when
            it is needed first.
        @param spawn: starts a process; it is given C{largest}. A test may have a double of
            one.
        @param now: tells the time, in seconds, for the pauses after starts that failed.
        @raise ValueError: a limit is out of its range.
        @raise TypeError: C{series} or C{initargs} is a string, or a series is not hashable.
        """
        self.iQualified: list[Any] = seriesOf(series)
        self.ID: int | None = None
        given = checkedReactor(reactor)
        loop = cache(lambda: adapterOf(theReactor(given)))
        # What prepares each child, before what updates add.
        self._initial: list[CallTuple] = (
            [] if initializer is None else [(initializer, tuple(listOf(initargs, "initargs")), {})]
        )
        # By themselves: a child has the numbers of their calls.
        self._tasks = Prefetch(
            self,
            # A limit of memory is looked at after each task: none is sent ahead of that.
            Window(1, _MOST_AHEAD if maxMemory is None else 0),
            lambda seconds, f: loop().callLater(seconds, f),
            progress=lambda: self._supervisor.children.progress,
            # This program may have been too busy to hear of an end, or of a beginning.
            patience=lambda looks: (
                STALE_SECONDS if looks < _MOST_LOOKS and self._supervisor.children.mayMove else 0.0
            ),
        )
        self._supervisor = Supervisor(
            self,
            loop,
            Limits(maxTasks, maxMemory, idleTimeout),
            self._initial,
            largest,
            self._tasks.name,
            start=partial(ChildProcess, spawn=spawn),
            now=now,
        )
        self._line = ChildTasks(self._tasks, self._supervisor, raw, grace)
        # Those that a crash has killed, and that are not gone.
        self._dying: list[ChildProcess] = []
        self._fault = Fault()
        self._iterators = ChildIterators(
            lambda: self._supervisor.children,
            grace,
            self._tasks.name,
            lambda seconds, f: loop().callLater(seconds, f),
            self._tasks.checkStopped,
        )
        self._gone = Waiters()

    # IWorker

    def setResignator(self, callableObject: Callable[[], None]) -> None:
        """
        Never resigns: a child that dies is replaced. One that has stopped or crashed begins
        anew, with another child, also while the last one still dies.
        """
        if self._tasks.life is Life.SERVING:
            return
        self._tasks.revive()
        self._fault.stop()
        self._supervisor.preparations[:] = self._initial

    def setReporter(self, callableObject: Callable[[str, Sequence[ITask], bool], None]) -> None:
        self._fault.reporter = callableObject

    def run(self, task: ITask) -> Deferred[None]:
        tasks = self._tasks
        window = tasks.window
        if window.isClosed and len(tasks.held) >= window.size and tasks.turnsAway(task):
            return tasks.wait()
        child = self._supervisor.child
        if child is None or task.tries or task.options.doNext:
            self._line.give(task)
        else:
            self._line.make(child, task)
        return tasks.taken()

    def stop(self) -> Deferred[None]:
        """
        After a crash, the children that were killed are waited for.
        """
        return self.gone() if self._tasks.life is Life.CRASHED else super().stop()

    def crash(self) -> list[ITask]:
        """
        Kill the child; L{gone} tells when nothing is left of it.
        """
        if self._tasks.life is Life.CRASHED:
            return []
        left, _ = self._tasks.crash()
        self._iterators.stop()
        self._dying = list(self._supervisor.children)
        for child in self._dying:
            # Nothing comes of it any more.
            child.calls.held.clear()
        self._supervisor.crash("its worker crashed")
        self._tasks.sayStopped()
        return left + self._iterators.deliveries.crash()

    def gone(self) -> Deferred[None]:
        return self._gone.wait() if self._dying else succeed(None)

    def cancel(self, task: ITask) -> None:
        """
        Interrupt a task that runs with L{TaskInterrupted<asynqueue.errors.TaskInterrupted>}, or by
        the cancellation of its coroutine. If it does not end within the grace, its child is killed.
        """
        self._line.end(task)

    # For people

    @property
    def pids(self) -> list[int]:
        """
        The process IDs of the children that live now: one, while none is being
        replaced.
        """
        return [child.pid for child in self._supervisor.children]

    def memUsage(self) -> int:
        """
        Return the memory of the child in kB; 0 while there is none.
        """
        return sum(child.resident for child in self._supervisor.children) >> 10

    def start(self) -> None:
        """
        Start the child before there is a task for it.
        """
        if self._tasks.life is Life.SERVING:
            self._supervisor.fill()

    # CallDelegate

    def returned(self, child: ChildProcess, job: Any, value: Any) -> None:
        """
        End a task with its value. A hot path.
        """
        tasks = self._tasks
        if tasks.held.pop(job, None) is not None:
            tasks.ended += 1
            if job.lasting:
                self._supervisor.prepare(job.callTuple)
            job.callback(value)

    def raised(self, child: ChildProcess, job: Any, outcome: Raised) -> None:
        """
        End a task with its failure.
        """
        tasks = self._tasks
        if job in tasks.held:
            del tasks.held[job]
            tasks.ended += 1
            job.errback(failureOf(outcome))

    def iterating(self, child: ChildProcess, job: Any, source: FarSource) -> None:
        """
        End a task with the items of an iterator.
        """
        if self._tasks.held.pop(job, None) is None or job.ended:
            source.stop()
            return
        self._tasks.ended += 1
        if not source.isClosed:
            self._iterators.deliveries.begin(job, source, source.text, source.window)
            return
        job.callback(source)
        if source.sink is None:
            # Nobody was there for it.
            source.stop()

    def onBatchRead(self, child: ChildProcess) -> None:
        """
        Take more: what has ended is known. A hot path.
        """
        child.calls.measure(self._tasks.window.measured)
        held = child.calls.held
        if held:
            first = next(iter(held.values()))
            if first.watched:
                first.begin()
        if self._supervisor.isLimited:
            self._supervisor.checkMemory(child)
        self._tasks.checkReady()
        if not held and (
            self._supervisor.isLimited
            or child is not self._supervisor.child
            or self._tasks.life is not Life.SERVING
        ):
            self._supervisor.onIdle(child)
            self._tasks.checkStopped()

    # SupervisorDelegate

    def handedBack(self, jobs: Sequence[Any]) -> None:
        """
        Let others have what was not begun.
        """
        self._line.handBack(jobs)

    def filled(self, supervisor: Supervisor) -> None:
        """
        Give a child to those that wait for one.
        """
        self._line.lineUp(self._tasks.takeWaiting())
        self._fault.end()

    def exited(self, supervisor: Supervisor, ending: ExitReport) -> None:
        """
        Settle what a child leaves that is gone.
        """
        self._dying = [child for child in self._dying if child in supervisor.children]
        if not self._dying:
            self._gone.fire()
        for task in ending.losses:
            if self._tasks.held.pop(task, None) is not None:
                task.errback(Failure(ending.errorFor(task)))
        self._line.handBack(ending.notBegun)
        if self._tasks.waiting:
            supervisor.fill()
        self._tasks.checkReady()
        self._tasks.checkStopped()

    def failing(self, supervisor: Supervisor, reason: str, isHopeless: bool) -> None:
        """
        Others shall have what waits, until there is a child, which is tried to be had again.
        Without a queue nobody shall wait any longer if it is hopeless.
        """
        tasks = self._tasks
        if self._fault.reporter is not None and tasks.life is Life.SERVING:
            waiting = tasks.takeWaiting()
            supervisor.retry()
            self._fault.tell(reason, [task for task in waiting if not task.ended], isHopeless)
        elif isHopeless:
            tasks.lose(tasks.takeWaiting(), reason, begun=False)
        tasks.checkReady()
        tasks.checkStopped()

    # PrefetchDelegate

    def takeUnbegun(self) -> list[ITask]:
        return self._line.takeBack()

    def letGo(self) -> bool:
        """
        Let the child go.
        """
        if self._iterators.wait("it stops"):
            return False
        self._supervisor.finish()
        return True

    @property
    def isGone(self) -> bool:
        """
        Whether no child is left.
        """
        return not self._supervisor.children

    def statistics(self) -> ProcessStatistics:
        """
        Return a snapshot of the worker, and what it has done. The seconds of a task count when
        its Deferred fires.
        """
        for child in self._supervisor.children:
            child.calls.measure(self._tasks.window.measured)
        return ProcessStatistics(
            state=self._tasks.state(self._fault),
            slots=self.slots,
            held=self._tasks.count,
            ended=self._tasks.ended,
            fault=self._fault.reason,
            pids=tuple(self.pids),
            seconds=self._tasks.window.seconds,
            mean=self._tasks.window.mean,
            started=self._supervisor.started,
            lost=self._supervisor.lost,
            memory=self.memUsage(),
        )

    #: The same, as queues of processes name it.
    stats = statistics
