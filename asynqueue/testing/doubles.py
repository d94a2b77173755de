"""
Doubles: they do what the real ones do when the test says so, and nothing else.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable, Iterable
from contextvars import Context, copy_context
from functools import partial
from math import inf
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from asynqueue.awaitable import deferAwaitable
from asynqueue.interfaces import (
    ICancellingWorker,
    IPrefetchingWorker,
    IQueueObserver,
    ITask,
    IWorker,
)
from asynqueue.outcome import describeCall
from asynqueue.scheduling.options import DEFAULT, CallOptions, seriesOf
from asynqueue.scheduling.snapshots import WorkerSnapshot
from asynqueue.taskqueue import TaskQueue
from asynqueue.workers.delivery import Deliveries
from asynqueue.workers.prefetch import Life, Prefetch, Prefetching
from asynqueue.workers.window import Window

_WINDOW = 2


@implementer(ITask)
class MemoryTask:
    """
    A task without a queue, to give to a worker.

    @ivar ends: how often a worker ended it; only the first has an effect.
    @ivar begun: whether the worker said that it began.
    """

    def __init__(
        self,
        f: Callable[..., Any],
        *args: Any,
        options: CallOptions = DEFAULT,
        watched: bool = False,
        **kw: Any,
    ) -> None:
        """
        @param f: what to call, with C{args} and C{kw}.
        @param watched: whether the worker is to tell of the begin.
        """
        self.callTuple = f, args, kw
        self.options = options
        self.series = options.series
        self.priority = (-1 if options.doNext else 1 if options.doLast else 0, options.niceness)
        self.context: Context = copy_context()
        self.d: Deferred[Any] = Deferred()
        self.watched = watched
        self.lasting = False
        self.ID = 1
        self.attempt = 1
        self.tries = 0
        self.begun = False
        self.ends = 0

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {describeCall(*self.callTuple)}>"

    def __lt__(self, other: MemoryTask) -> bool:
        return self.priority < other.priority

    @property
    def ended(self) -> bool:
        """
        Whether it has its outcome.
        """
        return self.ends > 0

    def begin(self) -> None:
        self.begun = True

    def callback(self, value: Any) -> None:
        self.ends += 1
        if self.ends == 1:
            self.d.callback(value)

    def errback(self, failure: Failure) -> None:
        self.ends += 1
        if self.ends == 1:
            self.d.errback(failure)


@implementer(IWorker)
class MemoryWorker:
    """
    Holds tasks, and does nothing with them until the test says so.

    It is ready for another task while it holds fewer than its window, and again
    as one of them ends.

    @ivar ID: the number that a queue gave to this worker.
    @ivar resigned: how often L{resign} was called.
    """

    cQualified: list[Any] = ["memory", "local"]
    #: It has nothing that runs its tasks, and would have to go first.
    isGone = True

    def __init__(
        self, series: Iterable[Hashable] = (), *, raw: bool = False, window: int = 1
    ) -> None:
        """
        @param series: what it is qualified for, besides its kind.
        @param raw: whether iterators come back as they are, where the call does
            not say.
        @param window: how many tasks it holds at once.
        """
        self.iQualified: list[Any] = seriesOf(series)
        self.ID: int | None = None
        self.resigned = 0
        self._raw = raw
        # By themselves.
        self._tasks = Prefetch(self, Window(window, 0), Clock().callLater, slots=inf)
        self._running: list[ITask] = []
        self._deliveries = Deliveries(self._tasks.checkStopped)
        self._resignator: Callable[[], None] | None = None

    @property
    def tasks(self) -> list[ITask]:
        """
        What it holds: what runs, what is urgent and the rest, each the oldest first.
        """
        return sorted(self._tasks.held.values(), key=self._place)

    def _place(self, task: ITask) -> int:
        return 0 if task in self._running else 1 if task.options.doNext else 2

    def setResignator(self, callableObject: Callable[[], None]) -> None:
        if self._tasks.life is not Life.SERVING:
            self._tasks.revive()
        self._resignator = callableObject

    def run(self, task: ITask) -> Deferred[None]:
        self._tasks.held[task] = task
        return self._tasks.taken()

    def stop(self) -> Deferred[None]:
        return self._tasks.stop()

    def crash(self) -> list[ITask]:
        left, _ = self._tasks.crash()
        left += self._deliveries.crash()
        self._running.clear()
        self._tasks.sayStopped()
        return left

    def statistics(self) -> WorkerSnapshot:
        """
        Return a snapshot of the worker.
        """
        tasks = self._tasks
        return WorkerSnapshot(
            state=tasks.state(),
            slots=tasks.window.size,
            held=tasks.count,
            ended=tasks.ended,
            fault="",
        )

    # PrefetchDelegate

    def takeUnbegun(self) -> list[ITask]:
        """
        Take nothing: all that it holds counts as begun.
        """
        return []

    def letGo(self) -> bool:
        """
        Wait for tasks that wait for the items of iterators.
        """
        return not self._deliveries

    # What the test says

    def step(self) -> ITask | None:
        """
        Run the oldest task that does not run yet, here and now, and end it. If
        the call gives a Deferred or another awaitable, the task ends with that.

        @return: the task, or C{None} if there was none.
        """
        waiting = [task for task in self.tasks if task not in self._running]
        if not waiting:
            return None
        task = waiting[0]
        self._running.append(task)
        self._begin(task)
        if task.ended:
            self.drop(task)
            return task
        f, args, kw = task.callTuple
        try:
            value = task.context.run(f, *args, **kw)
        except BaseException:
            # The seam to the test's functions: an exit is an outcome, too.
            self._end(task, Failure())
        else:
            if inspect.isawaitable(value):
                task.context.run(deferAwaitable, value).addBoth(
                    lambda result: self._end(task, result)
                )
            else:
                self._end(task, value)
        return task

    def end(self, task: ITask, value: Any = None) -> None:
        """
        End a task with a value, without running it.
        """
        self.drop(task, lambda: task.callback(value))

    def fail(self, task: ITask, exception: BaseException) -> None:
        """
        End a task with an exception, without running it.
        """
        self.drop(task, lambda: task.errback(Failure(exception)))

    def drop(self, task: ITask, end: Callable[[], None] = lambda: None) -> None:
        """
        Hold a task no more, and end it as C{end} does; then be ready.

        @raise ValueError: the worker does not hold the task.
        """
        if self._tasks.held.pop(task, None) is None:
            raise ValueError(f"the worker does not hold {task!r}")
        self._tasks.ended += 1
        if task in self._running:
            self._running.remove(task)
        end()
        self._tasks.checkReady()
        self._tasks.checkStopped()

    def resign(self) -> None:
        """
        Say that this worker can serve no more.
        """
        self.resigned += 1
        if self._resignator is not None:
            self._resignator()

    def becomeReady(self) -> None:
        """
        Be ready for another task, if it was not, whatever the window says.
        """
        window = self._tasks.window
        size, window.size = window.size, self._tasks.count + 1
        try:
            self._tasks.checkReady()
        finally:
            window.size = size

    # Within

    def _begin(self, task: ITask) -> None:
        """
        Only who prefetches says that a run begins.
        """

    def _end(self, task: ITask, result: Any) -> None:
        if task not in self._tasks.held:
            # A crash took it, or the test ended it by hand.
            return
        if isinstance(result, Failure):
            self.drop(task, lambda: task.errback(result))
        else:
            deliver = partial(self._deliveries.endHere, task, result, self._raw, _WINDOW)
            self.drop(task, deliver)


@implementer(IPrefetchingWorker, ICancellingWorker)
class MemoryPrefetcher(Prefetching[Window], MemoryWorker):
    """
    A L{MemoryWorker} whose tasks are ahead of those it runs, which begin when it
    is told to, and which can be cancelled.

    @ivar cancelled: the tasks whose run the queue wanted to end. They are still
        held: C{drop} them when the run is over.
    """

    def __init__(
        self, series: Iterable[Hashable] = (), *, raw: bool = False, window: int = 4
    ) -> None:
        super().__init__(series, raw=raw, window=window)
        self.cancelled: list[ITask] = []
        self._begun: list[ITask] = []

    def takeUnbegun(self) -> list[ITask]:
        """
        Take what the test did not say of that it has begun.
        """
        tasks = self._unbegun()
        for task in tasks:
            del self._tasks.held[task]
        return tasks

    def cancel(self, task: ITask) -> None:
        if task in self._tasks.held:
            self.cancelled.append(task)

    # What the test says

    def begin(self, task: ITask) -> None:
        """
        Say that the run of a task starts now.
        """
        self._begun.append(task)
        if task.watched:
            task.begin()

    def handBack(self, *tasks: ITask) -> None:
        """
        Hand back tasks that have not begun; without any named, all of them.
        """
        chosen = list(tasks) or self._unbegun()
        for task in chosen:
            del self._tasks.held[task]
        self._tasks.handBack(chosen)
        self._tasks.checkReady()

    def _begin(self, task: ITask) -> None:
        if task not in self._begun and not task.ended:
            self.begin(task)

    def _unbegun(self) -> list[ITask]:
        return [task for task in self.tasks if task not in self._begun and not task.ended]


class MemoryQueue(TaskQueue):
    """
    A queue with doubles for workers and for the reactor: nothing happens that
    the test does not do.

    @ivar clock: its C{twisted.internet.task.Clock}.
    """

    def __init__(self, *workers: IWorker, **kw: Any) -> None:
        """
        @param workers: the workers to begin with: without any, a
            L{MemoryWorker}.
        @param kw: keywords of L{TaskQueue}.
        """
        self.clock = Clock()
        super().__init__(*(workers or (MemoryWorker(),)), reactor=self.clock, **kw)

    def step(self) -> int:
        """
        Have each worker run the oldest task that it holds.

        @return: how many of them had one.
        """
        return sum(worker.step() is not None for worker in self.workers())

    def finish(self) -> int:
        """
        Have the workers run tasks until they have none that does not run.

        @return: how many steps that took.
        """
        steps = 0
        while self.step():
            steps += 1
            # A queue that was long at work goes on in the reactor's next turn.
            self.clock.advance(0)
        return steps


def advanceUntil(
    clock: Clock, happened: Callable[[], Any], seconds: float = 3600.0, step: float = 0.1
) -> float:
    """
    Advance a clock in small steps until something has happened.

    @param happened: tells by a true value that it has.
    @param seconds: for how long, on that clock.
    @return: how many seconds the clock was advanced.
    @raise AssertionError: it has not happened in that time.
    """
    advanced = 0.0
    while not happened():
        if advanced >= seconds:
            raise AssertionError(f"it has not happened within {seconds:g} s of the clock")
        clock.advance(step)
        advanced += step
    return advanced


@implementer(IQueueObserver)
class RecordingObserver:
    """
    Notes what happens in a queue.

    @ivar events: tuples: the name of the event ("queued", "begun", "done", "lost",
        "hired", "left") and what it is about.
    """

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []

    def names(self, subject: Any = None) -> list[str]:
        """
        Return the names of the events, in order: all, or those of one task or worker.
        """
        return [event[0] for event in self.events if subject is None or subject in event]

    def taskQueued(self, task: ITask) -> None:
        self.events.append(("queued", task))

    def taskBegun(self, task: ITask, worker: IWorker) -> None:
        self.events.append(("begun", task, worker))

    def taskDone(self, task: ITask, outcome: Any, worker: IWorker | None) -> None:
        self.events.append(("done", task, outcome, worker))

    def taskLost(self, task: ITask, worker: IWorker) -> None:
        self.events.append(("lost", task, worker))

    def workerHired(self, worker: IWorker) -> None:
        self.events.append(("hired", worker))

    def workerLeft(self, worker: IWorker) -> None:
        self.events.append(("left", worker))


@implementer(IConsumer)
class RecordingConsumer:
    """
    Notes what is written to it, and pauses its producer when the test wants.

    @ivar items: what was written.
    @ivar producer: who writes, or C{None}.
    @ivar registered: how often a producer was registered.
    """

    def __init__(self, pauseAfter: int | None = None) -> None:
        """
        @param pauseAfter: how many items come before the producer is paused.
        """
        self.items: list[Any] = []
        self.producer: Any = None
        self.registered = 0
        self._pauseAfter = pauseAfter
        self._waiters: list[tuple[int, Deferred[None]]] = []

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self.producer = producer
        self.registered += 1

    def unregisterProducer(self) -> None:
        self.producer = None

    def write(self, data: Any) -> None:
        self.items.append(data)
        if len(self.items) == self._pauseAfter:
            self.producer.pauseProducing()
        waiters, self._waiters = self._waiters, []
        for count, d in waiters:
            if len(self.items) >= count:
                d.callback(None)
            else:
                self._waiters.append((count, d))

    def written(self, count: int) -> Deferred[None]:
        """
        Return a Deferred that fires when C{count} items have come, all in all.
        """
        d: Deferred[None] = Deferred()
        if len(self.items) >= count:
            d.callback(None)
        else:
            self._waiters.append((count, d))
        return d
