"""
A worker with a process of its own.

::

    run ─▶ ProcessCalls.make ─▶ frames ─▶ child: one call after the other
    end of tasks, ready ◀─ returned, raised, iterating, onBatchRead ◀─┘
    WorkerLost for what was begun, the rest given back ◀─ exited, and a new child
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import partial
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
from asynqueue.loops.adapters import LoopAdapter, adapterOf
from asynqueue.outcome import Raised
from asynqueue.processes.iterators import ChildIterator
from asynqueue.processes.limits import Limits
from asynqueue.processes.process import ChildProcess
from asynqueue.processes.roles import CallTuple, ExitReport
from asynqueue.processes.spawn import Spawned
from asynqueue.processes.supervisor import Supervisor
from asynqueue.reactors import checkedReactor, theReactor
from asynqueue.scheduling.options import seriesOf
from asynqueue.scheduling.snapshots import WorkerSnapshot
from asynqueue.workers.failing import Fault
from asynqueue.workers.held import HeldIterators
from asynqueue.workers.prefetch import Life, Prefetch, Prefetching
from asynqueue.workers.stale import STALE_SECONDS
from asynqueue.workers.waiters import Waiters
from asynqueue.workers.window import Window

# The most tasks that may be sent ahead to one process.
_MOST_AHEAD = 500

# An urgent task does not wait behind more work than this, besides what runs.
_SHORT_SECONDS = 0.0005

# How often a child is looked at again that may move without being heard of.
_MOST_LOOKS = 100

# What is ended that was cancelled, in words.
_CANCELLED = "a cancelled task"


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
        self._raw = raw
        self._grace = grace
        self._reactor = checkedReactor(reactor)
        self._loop: LoopAdapter | None = None
        # What prepares each child, before what updates add.
        self._initial: list[CallTuple] = (
            [] if initializer is None else [(initializer, tuple(listOf(initargs, "initargs")), {})]
        )
        # By themselves: a child has the numbers of their calls.
        self._tasks = Prefetch(
            self,
            # A limit of memory is looked at after each task: none is sent ahead of that.
            Window(1, _MOST_AHEAD if maxMemory is None else 0),
            lambda seconds, f: self._theLoop().callLater(seconds, f),
            # This program may have been too busy to hear of an end, or of a beginning.
            progress=lambda: self._supervisor.children.progress,
            patience=self._patience,
        )
        self._newSupervisor: Callable[[], Supervisor] = lambda: Supervisor(
            self,
            self._theLoop,
            Limits(maxTasks, maxMemory, idleTimeout),
            list(self._initial),
            largest,
            self._tasks.name,
            start=partial(ChildProcess, spawn=spawn),
            now=now,
        )
        self._supervisor = self._newSupervisor()
        # Those whose children were killed, and are not all gone.
        self._crashed: dict[Supervisor, None] = {}
        self._fault = Fault()
        self._iterators = HeldIterators(
            self._sources,
            self._tasks.name,
            lambda seconds, f: self._theLoop().callLater(seconds, f),
            self._tasks.checkStopped,
            self._endSource,
        )
        self._gone = Waiters()
        self._seconds = 0.0

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
        if self._supervisor in self._crashed:
            before, self._supervisor = self._supervisor, self._newSupervisor()
            self._supervisor.started, self._supervisor.lost = before.started, before.lost
        self._supervisor.preparations[:] = self._initial

    def setReporter(self, callableObject: Callable[[str, Sequence[ITask], bool], None]) -> None:
        self._fault.reporter = callableObject

    def run(self, task: ITask) -> Deferred[None]:
        tasks = self._tasks
        held = tasks.held
        if len(held) >= tasks.window.size and tasks.turnsAway(task):
            return tasks.wait()
        child = self._supervisor.child
        if task.options.doNext and (
            tasks.waiting or (len(held) + 1) * tasks.window.mean > _SHORT_SECONDS
        ):
            self._giveFirst(task)
        elif child is None or task.tries:
            self._lineUp((task,))
        else:
            self._give(child, task)
        return tasks.taken()

    def stop(self) -> Deferred[None]:
        """
        Iterators may be read to their ends; one that nobody reads is closed.
        """
        return self.gone() if self._tasks.life is Life.CRASHED else self._tasks.stop()

    def crash(self) -> list[ITask]:
        """
        The child is killed; L{gone} tells when nothing is left of it.
        """
        if self._tasks.life is Life.CRASHED:
            return []
        left, _ = self._tasks.crash()
        self._iterators.stop()
        if self._supervisor.children:
            self._crashed[self._supervisor] = None
        self._supervisor.crash("its worker crashed")
        self._tasks.sayStopped()
        return left + self._iterators.deliveries.crash()

    def gone(self) -> Deferred[None]:
        return self._gone.wait() if self._crashed else succeed(None)

    def cancel(self, task: ITask) -> None:
        """
        A task that runs gets an exception,
        L{TaskInterrupted<asynqueue.errors.TaskInterrupted>}, or the cancellation of
        its coroutine. If it does not end within the grace, its child is killed.
        """
        tasks = self._tasks
        if task in tasks.held:
            self._cancelHeld(task)
        elif task in tasks.waiting:
            del tasks.waiting[task]
        tasks.checkReady()
        tasks.checkStopped()

    # For people

    @property
    def slots(self) -> int:
        """
        One task runs at a time.
        """
        return 1

    @property
    def pids(self) -> list[int]:
        """
        The process IDs of the children that live now: one, while none is being
        replaced.
        """
        return [child.pid for child in self._supervisor.children]

    def memUsage(self) -> int:
        """
        The memory of the child in kB; 0 while there is none.
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
        if job in tasks.held:
            del tasks.held[job]
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

    def iterating(self, child: ChildProcess, job: Any, source: ChildIterator, text: str) -> None:
        """
        End a task with the items of an iterator.
        """
        if self._tasks.held.pop(job, None) is None or job.ended:
            source.stop()
        else:
            self._tasks.ended += 1
            self._iterators.deliveries.begin(job, source, text, source.window)

    def givenBack(self, child: ChildProcess, job: Any) -> None:
        """
        It was about to begin, and did not.
        """
        self._handBack([job])

    def onBatchRead(self, child: ChildProcess) -> None:
        """
        What has ended is known: take more. A hot path.
        """
        self._measure(child)
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

    def filled(self, supervisor: Supervisor) -> None:
        """
        There is a child for those that wait.
        """
        self._lineUp(self._tasks.takeWaiting())
        self._fault.end()

    def exited(self, supervisor: Supervisor, ending: ExitReport) -> None:
        """
        A child is gone: settle what it leaves.
        """
        if supervisor in self._crashed:
            if not supervisor.children:
                del self._crashed[supervisor]
                if not self._crashed:
                    self._gone.fire()
            return
        for task in ending.losses:
            if self._tasks.held.pop(task, None) is not None:
                task.errback(Failure(ending.errorFor(task)))
        self._handBack(ending.notBegun)
        if self._tasks.waiting:
            supervisor.fill()
        self._tasks.checkReady()
        self._tasks.checkStopped()

    def handedBack(self, supervisor: Supervisor, jobs: Sequence[Any]) -> None:
        """
        The child takes no more.
        """
        self._handBack(jobs)

    def onGivenUp(self, supervisor: Supervisor, reason: str) -> None:
        """
        Nobody shall wait any longer.
        """
        if self._reports(reason, isHopeless=True):
            return
        self._tasks.lose(self._tasks.takeWaiting(), reason, begun=False)
        self._tasks.checkReady()
        self._tasks.checkStopped()

    def failing(self, supervisor: Supervisor, reason: str) -> None:
        """
        Others shall have what waits, until there is a child.
        """
        self._reports(reason, isHopeless=False)

    def _reports(self, reason: str, isHopeless: bool) -> bool:
        """
        Hand back what waits, be given nothing more, and try again to have a child.

        @return: whether there is a queue that hears of it, and this serves it.
        """
        if self._fault.reporter is None or self._tasks.life is not Life.SERVING:
            return False
        waiting = self._tasks.takeWaiting()
        self._supervisor.retry()
        self._fault.tell(reason, [task for task in waiting if not task.ended], isHopeless)
        self._tasks.checkReady()
        self._tasks.checkStopped()
        return True

    # Tasks

    def _give(self, child: ChildProcess, task: ITask) -> None:
        """
        Have the child make the call of a task. A hot path.
        """
        f, args, kw = task.callTuple
        raw = task.options.raw
        if task.watched and not child.calls.held and child.calls.isUp:
            task.begin()
        held = self._tasks.held
        held[task] = task
        try:
            raw = self._raw if raw is None else raw
            child.calls.make(task, f, args, kw, raw)
        except BaseException as error:
            # Somebody's objects: whatever their pickling raises, and does.
            if held.pop(task, None) is not None:
                self._tasks.cannotSend(task, error)
        else:
            if self._supervisor.isLimited:
                self._supervisor.given(child)

    def _giveFirst(self, task: ITask) -> None:
        """
        Have the call of a task made before those that have not begun.
        """
        tasks = self._tasks
        others = self._supervisor.takeBack(reserved=False)
        for other in others:
            del tasks.held[other]
        others += tasks.takeWaiting()
        urgent = [other for other in others if other.options.doNext]
        rest = [other for other in others if not other.options.doNext]
        self._lineUp((*urgent, task, *rest))

    def _lineUp(self, tasks: Iterable[ITask]) -> None:
        """
        Give tasks to a child while one takes them; the others wait until one does. What may
        have ended a child has the next one for itself.
        """
        supervisor = self._supervisor
        for task in tasks:
            if task.tries and supervisor.child is not None and supervisor.child.calls.held:
                supervisor.reserve()
            child = supervisor.child
            if child is None:
                self._tasks.waiting[task] = None
                continue
            self._give(child, task)
            if task.tries and child.calls.held:
                supervisor.reserve()
        if self._tasks.waiting:
            supervisor.fill()

    def _cancelHeld(self, task: ITask) -> None:
        """
        End the call of a task, or take it back if it has not begun.
        """
        found = self._callOf(task)
        if found is None:
            # Its child is gone, and what that held is about to be settled.
            del self._tasks.held[task]
            return
        child, number = found
        others: Sequence[ITask] = ()
        if not child.calls.hasBegun(number):
            others = [other for other in self.takeBack() if other is not task]
        if task in self._tasks.held:
            # It has begun, if only in this moment.
            child.calls.end(number, self._grace, _CANCELLED)
        self._handBack(others)

    def _callOf(self, task: ITask) -> tuple[ChildProcess, int] | None:
        """
        The child that has the call of a task, and the number of that.
        """
        for child in self._supervisor.children:
            for number, job in child.calls.held.items():
                if job is task:
                    return child, number
        return None

    def _handBack(self, tasks: Iterable[ITask]) -> None:
        """
        Let others have tasks that were not begun; without a queue, keep them.
        """
        for task in tasks:
            self._tasks.held.pop(task, None)
        self._lineUp(self._tasks.handBack(tasks))

    def _measure(self, child: ChildProcess) -> None:
        """
        Take in how long the latest calls of a child ran. A hot path.
        """
        tasks, seconds = child.calls.measure()
        if tasks:
            self._seconds += seconds
            self._tasks.window.measured(tasks, seconds)

    def _patience(self, looks: int) -> float:
        """
        Wait for a child that may be ending, or that has said what was not read yet.
        """
        children = self._supervisor.children
        mayMove = looks < _MOST_LOOKS and (children.mayBeEnding or children.hasNews)
        return STALE_SECONDS if mayMove else 0.0

    # Within

    def _theLoop(self) -> LoopAdapter:
        if self._loop is None:
            self._loop = adapterOf(theReactor(self._reactor))
        return self._loop

    # PrefetchDelegate

    def takeUnbegun(self) -> list[ITask]:
        tasks: list[ITask] = self._supervisor.takeBack()
        for task in tasks:
            del self._tasks.held[task]
        return tasks

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

    def _sources(self) -> list[ChildIterator]:
        children = self._supervisor.children
        return [source for child in children for source in child.calls.streams.values()]

    def _endSource(self, source: ChildIterator) -> None:
        """
        Have the child end an iterator that it does not come to close. It may be in the code
        of another one: if that is read, it is waited for.
        """
        for child in self._supervisor.children:
            streams = list(child.calls.streams.items())
            isRead = any(other.sink is not None for _, other in streams)
            for number, other in streams:
                if other is source and not isRead:
                    child.calls.end(number, self._grace, "an iterator that nobody reads")

    def statistics(self) -> ProcessStatistics:
        """
        Return how it stands, and what it has done. The seconds of a task are counted when its
        Deferred fires.
        """
        for child in self._supervisor.children:
            self._measure(child)
        return ProcessStatistics(
            state=self._tasks.state(self._fault),
            slots=self.slots,
            held=self._tasks.count,
            ended=self._tasks.ended,
            fault=self._fault.reason,
            pids=tuple(self.pids),
            seconds=self._seconds,
            mean=self._tasks.window.mean,
            started=self._supervisor.started,
            lost=self._supervisor.lost,
            memory=self.memUsage(),
        )

    def stats(self) -> ProcessStatistics:
        """
        Return the same as L{statistics}, as queues of processes name it.
        """
        return self.statistics()
