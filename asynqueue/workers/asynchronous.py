"""
A worker inside the reactor.
"""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Callable, Hashable, Iterable
from math import inf
from time import perf_counter
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from zope.interface import implementer

from asynqueue.awaitable import deferAwaitable
from asynqueue.checks import wholeNumber
from asynqueue.failures import caught
from asynqueue.interfaces import ICancellingWorker, ISlottedWorker, ITask
from asynqueue.outcome import VALUES
from asynqueue.reactors import checkedReactor, theReactor
from asynqueue.scheduling.options import seriesOf
from asynqueue.scheduling.snapshots import WorkerSnapshot
from asynqueue.timers import later
from asynqueue.workers.delivery import Deliveries
from asynqueue.workers.prefetch import Life, Prefetch
from asynqueue.workers.window import Window

# The seconds of functions that end at once after which the reactor has a turn.
_SLICE = 0.01

# An iterator in the reactor is advanced on demand, one item ahead.
_WINDOW = 2


@implementer(ICancellingWorker, ISlottedWorker)
class AsyncWorker:
    """
    Runs functions in the reactor's thread: plain ones (which must not block),
    coroutine functions, and those that return a Deferred or, where an asyncio
    loop runs, any asyncio future.

    @ivar ID: the number that a queue gave to this worker.
    """

    cQualified: list[Any] = ["async", "local"]
    #: It has nothing of its own that runs its tasks, and would have to go first.
    isGone = True

    def __init__(
        self,
        series: Iterable[Hashable] = (),
        *,
        raw: bool = False,
        concurrent: int = 1,
        reactor: Any = None,
    ) -> None:
        """
        @param series: what it is qualified for, besides its kind.
        @param raw: whether iterators come back as they are, where the call does
            not say.
        @param concurrent: how many tasks may wait for their results at once.
        @param reactor: the reactor, or an asyncio loop; C{None}: the one that runs when
            it is needed first.
        @raise TypeError: C{series} is a string, or one of them is not hashable.
        """
        self.iQualified: list[Any] = seriesOf(series)
        self.ID: int | None = None
        self._raw = raw
        self._concurrent = wholeNumber(concurrent, "concurrent")
        self._reactor = checkedReactor(reactor)
        # By themselves. Nothing is lined up behind those that run.
        self._tasks = Prefetch(self, Window(concurrent, 0), self._later, slots=inf)
        self._waiting: deque[ITask] = deque()
        # What tasks wait for that have begun, and did not end at once.
        self._awaited: dict[ITask, Deferred[Any]] = {}
        self._deliveries = Deliveries(self._tasks.checkStopped)
        self._isDue = False

    @property
    def slots(self) -> int:
        """
        How many tasks run at once.
        """
        return self._concurrent

    def setResignator(self, callableObject: Any) -> None:
        """
        Never resigns: the reactor does not go away. One that has stopped or crashed begins
        anew.
        """
        if self._tasks.life is not Life.SERVING:
            self._tasks.revive()

    def run(self, task: ITask) -> Deferred[None]:
        """
        Run a task in one of the next turns of the reactor.
        """
        self._tasks.held[task] = task
        if task.options.doNext:
            # Behind those that are as urgent, which are all in front.
            urgent = sum(1 for other in self._waiting if other.options.doNext)
            self._waiting.insert(urgent, task)
        else:
            self._waiting.append(task)
        if not self._isDue:
            self._isDue = True
            self._later(0, self._take)
        return self._tasks.taken()

    def stop(self) -> Deferred[None]:
        return self._tasks.stop()

    def crash(self) -> list[ITask]:
        """
        Cancels what it has running.
        """
        if self._tasks.life is Life.CRASHED:
            return []
        left, _ = self._tasks.crash()
        left += self._deliveries.crash()
        awaited, self._awaited = self._awaited, {}
        for d in awaited.values():
            d.cancel()
        self._tasks.sayStopped()
        return left

    def cancel(self, task: ITask) -> None:
        """
        Cancels the Deferred, the coroutine or the future.
        """
        d = self._awaited.get(task)
        if d is not None:
            d.cancel()

    def _later(self, seconds: float, f: Callable[[], None]) -> Any:
        return later(theReactor(self._reactor), seconds, f)

    def _take(self) -> None:
        """
        Run what waits, one after the other, for as long as a slice of time. A hot path.
        """
        end = perf_counter() + _SLICE
        waiting = self._waiting
        while waiting:
            self._begin(waiting.popleft())
            isLate = perf_counter() > end
            if isLate or not waiting:
                # To be given several at once is less work, for the queue as well.
                self._look()
                if isLate and waiting:
                    self._later(0, self._take)
                    return
        self._isDue = False

    def _look(self) -> None:
        self._tasks.checkReady()
        self._tasks.checkStopped()

    def _begin(self, task: ITask) -> None:
        """
        Run a task. A hot path.
        """
        if task.ended:
            del self._tasks.held[task]
            return
        f, args, kw = task.callTuple
        isPlain = False
        try:
            value = task.context.run(f, *args, **kw)
            # Most values need no closer look; a class with a metaclass of somebody's may not
            # be looked up.
            kind = type(value)
            isPlain = type(kind) is type and kind in VALUES
            if not isPlain and inspect.isawaitable(value):
                self._await(task, task.context.run(deferAwaitable, value))
                return
        except BaseException as error:
            # The seam to user code: an exit or an interrupt that a task
            # raises is its outcome, and does not concern the reactor.
            value = caught(error)
        self._end(value, task, isPlain)

    def _await(self, task: ITask, d: Deferred[Any]) -> None:
        if task in self._tasks.held:
            self._awaited[task] = d
            d.addBoth(self._ended, task)
            if task.ended:
                # It was cancelled within its first step.
                d.cancel()
        else:
            # The call, in its first step, had the worker crash.
            d.cancel()
            d.addErrback(lambda failure: None)

    def _ended(self, result: Any, task: ITask) -> None:
        """
        End a run that was waited for.
        """
        self._awaited.pop(task, None)
        self._end(result, task)
        self._look()

    def _end(self, result: Any, task: ITask, isPlain: bool = False) -> None:
        """
        End a task. What a crash ended is not ours to end. A hot path.

        @param isPlain: whether it is known that the result is a value of a plain type.
        """
        tasks = self._tasks
        if tasks.held.pop(task, None) is None:
            return
        tasks.ended += 1
        if isPlain:
            task.callback(result)
        # Not of the result: somebody's __class__ may raise.
        elif issubclass(type(result), Failure):
            task.errback(result)
        else:
            self._deliveries.endHere(task, result, self._raw, _WINDOW)

    # PrefetchDelegate

    def takeUnbegun(self) -> list[ITask]:
        """
        Take what has not had its turn.
        """
        tasks = list(self._waiting)
        self._waiting.clear()
        for task in tasks:
            del self._tasks.held[task]
        return tasks

    def letGo(self) -> bool:
        """
        Wait for tasks that wait for the items of iterators.
        """
        return not self._deliveries

    def statistics(self) -> WorkerSnapshot:
        """
        Return a snapshot of the worker.
        """
        tasks = self._tasks
        return WorkerSnapshot(
            state=tasks.state(),
            slots=self._concurrent,
            held=tasks.count,
            ended=tasks.ended,
            fault="",
        )
