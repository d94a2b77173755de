"""
A worker inside the reactor.
"""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Hashable, Iterable
from enum import Enum
from time import perf_counter
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure
from zope.interface import implementer

from asynqueue.awaitable import deferAwaitable
from asynqueue.checks import wholeNumber
from asynqueue.failures import caught
from asynqueue.interfaces import ICancellingWorker, ISlottedWorker, ITask
from asynqueue.reactors import checkedReactor, theReactor
from asynqueue.scheduling.options import seriesOf
from asynqueue.scheduling.snapshots import WorkerSnapshot
from asynqueue.timers import later
from asynqueue.workers.delivery import Deliveries
from asynqueue.workers.standing import stateOf
from asynqueue.workers.waiters import Waiters

# The reactor has a turn after so many seconds of functions that end at once.
_SLICE = 0.01

# An iterator in the reactor is advanced on demand, one item ahead.
_WINDOW = 2


class _Life(Enum):
    SERVING = "serving"
    STOPPING = "stopping"
    CRASHED = "crashed"


# By names, for each task: see L{asynqueue.outcome.ITERATOR}.
_SERVING, _STOPPING, _CRASHED = _Life


@implementer(ICancellingWorker, ISlottedWorker)
class AsyncWorker:
    """
    Runs functions in the reactor's thread: plain ones (which must not block),
    coroutine functions, and those that return a Deferred or, where an asyncio
    loop runs, any asyncio future.

    @ivar ID: the number that a queue gave to this worker.
    """

    cQualified: list[Any] = ["async", "local"]

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
        self._life = _SERVING
        self._waiting: deque[ITask] = deque()
        self._runs: dict[ITask, Deferred[Any] | None] = {}
        self._deliveries = Deliveries(self._checkStopped)
        self._turn: Any = None
        self._ready: Deferred[None] | None = None
        self._stopped = Waiters()
        self._ended = 0

    @property
    def slots(self) -> int:
        """
        How many tasks run at once.
        """
        return self._concurrent

    def setResignator(self, callableObject: Any) -> None:
        """
        Never resigns: the reactor does not go away. One that has stopped begins anew.
        """
        if self._life is _STOPPING:
            self._life = _SERVING

    def run(self, task: ITask) -> Deferred[None]:
        """
        Run a task in one of the next turns of the reactor.
        """
        if task.options.doNext:
            # Behind those that are as urgent, which are all in front.
            urgent = sum(1 for other in self._waiting if other.options.doNext)
            self._waiting.insert(urgent, task)
        else:
            self._waiting.append(task)
        if self._turn is None:
            self._turn = later(theReactor(self._reactor), 0, self._take)
        if len(self._waiting) + len(self._runs) < self._concurrent:
            return succeed(None)
        self._ready = Deferred()
        return self._ready

    def stop(self) -> Deferred[None]:
        d = self._stopped.wait()
        if self._life is _SERVING:
            self._life = _STOPPING
        self._checkStopped()
        return d

    def crash(self) -> list[ITask]:
        """
        Cancels what it has running.
        """
        self._life = _CRASHED
        left = [task for task in (*self._runs, *self._waiting) if not task.ended]
        left += self._deliveries.crash()
        runs = [d for d in self._runs.values() if d is not None]
        self._waiting.clear()
        self._runs.clear()
        for d in runs:
            d.cancel()
        self._checkStopped()
        return left

    def cancel(self, task: ITask) -> None:
        """
        Cancels the Deferred, the coroutine or the future.
        """
        d = self._runs.get(task)
        if d is not None:
            d.cancel()

    def _take(self) -> None:
        """
        Run what waits, one after the other, for as long as a slice of time.
        """
        end = perf_counter() + _SLICE
        while self._waiting:
            self._begin(self._waiting.popleft())
            if perf_counter() > end and self._waiting:
                self._turn = later(theReactor(self._reactor), 0, self._take)
                return
        self._turn = None
        self._checkStopped()

    def _begin(self, task: ITask) -> None:
        if not task.ended:
            # The call itself may have this worker stop or crash.
            self._runs[task] = None
            f, args, kw = task.callTuple
            try:
                value = task.context.run(f, *args, **kw)
                if inspect.isawaitable(value):
                    self._await(task, task.context.run(deferAwaitable, value))
                    return
            except BaseException as error:
                # The seam to user code: an exit or an interrupt that a task
                # raises is its outcome, and does not concern the reactor.
                value = caught(error)
            self._over(value, task)
        else:
            self._freed()

    def _await(self, task: ITask, d: Deferred[Any]) -> None:
        if task in self._runs:
            self._runs[task] = d
            d.addBoth(self._over, task)
            if task.ended:
                # It was cancelled within its first step.
                d.cancel()
        else:
            # The call, in its first step, had the worker crash.
            d.cancel()
            d.addErrback(lambda failure: None)

    def _over(self, result: Any, task: ITask) -> None:
        """
        A run that was waited for is over. What a crash ended is not ours to end.
        """
        if task in self._runs:
            del self._runs[task]
            self._ended += 1
            # Not of the result: somebody's __class__ may raise.
            if issubclass(type(result), Failure):
                task.errback(result)
            else:
                self._deliveries.endHere(task, result, self._raw, _WINDOW)
            self._freed()

    def _freed(self) -> None:
        """
        There is room for another task.
        """
        ready, self._ready = self._ready, None
        if ready is not None:
            ready.callback(None)
        self._checkStopped()

    def _checkStopped(self) -> None:
        if self._life is _SERVING:
            return
        if not self._runs and not self._waiting and not self._deliveries:
            self._stopped.fire()

    def statistics(self) -> WorkerSnapshot:
        """
        Return how it stands.
        """
        return WorkerSnapshot(
            state=stateOf(self._life.value, self._stopped),
            slots=self._concurrent,
            held=len(self._waiting) + len(self._runs),
            ended=self._ended,
            fault="",
        )
