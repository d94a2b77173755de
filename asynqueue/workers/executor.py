"""
A worker that has its tasks done by a C{concurrent.futures.Executor}.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterable, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from functools import partial
from math import inf
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from asynqueue.checks import wholeNumber
from asynqueue.failures import caught
from asynqueue.forks import isParents, tellForks
from asynqueue.interfaces import (
    ICancellingWorker,
    IFailingWorker,
    IPrefetchingWorker,
    IResigningWorker,
    ISlottedWorker,
    ITask,
)
from asynqueue.outcome import inWords
from asynqueue.reactors import checkedReactor, theReactor
from asynqueue.scheduling.options import seriesOf
from asynqueue.scheduling.snapshots import WorkerSnapshot
from asynqueue.timers import later
from asynqueue.workers.executorcalls import (
    CallsElsewhere,
    CallsHere,
    ExecutorCalls,
    Places,
    daskClient,
    executorWorkers,
    isFinal,
)
from asynqueue.workers.failing import RetriedFault
from asynqueue.workers.iterators import ThreadIterators
from asynqueue.workers.outbox import Outbox
from asynqueue.workers.prefetch import Life, Prefetch, Prefetching
from asynqueue.workers.steps import Close, Step
from asynqueue.workers.window import Window

_log = Logger()

# The most tasks that may be sent ahead to threads.
_MOST_AHEAD = 500

# An urgent task does not wait behind more work than this, besides what runs.
_SHORT_SECONDS = 0.0005


@implementer(
    IPrefetchingWorker, ICancellingWorker, IFailingWorker, IResigningWorker, ISlottedWorker
)
class ExecutorWorker(Prefetching[Window | Places]):
    """
    Runs tasks in any C{concurrent.futures.Executor}: threads, processes, loky's
    reusable processes, Dask's cluster.

    Unless the executor is a C{ThreadPoolExecutor}, calls and results are pickled
    by cloudpickle: functions of C{__main__}, lambdas and closures can be called.
    Iterators cannot leave the process that made them. Coroutines run where they were made,
    in an asyncio loop of their own.

    An executor that breaks (a process of a C{ProcessPoolExecutor} died, and took
    the others with it) makes this worker resign. What was in its hands may have
    begun.

    Threads are given a few milliseconds of work ahead of what they run, which is taken back
    if it does not move. Of other executors it holds as many tasks as they have workers, and
    follows their number: what they are given ahead of that cannot be taken back for sure, if
    what runs turns out to be long (G6). C{ahead} has them given more all the same.

    The executor is its owner's: it is shut down with the worker only if so asked.

    @ivar ID: the number that a queue gave to this worker.
    @ivar loss: why it has resigned, in words.
    """

    cQualified: list[Any] = ["executor", "local"]

    def __init__(
        self,
        executor: Executor,
        series: Iterable[Hashable] = (),
        *,
        raw: bool = False,
        shutdown: bool = False,
        ahead: int | None = None,
        reactor: Any = None,
    ) -> None:
        """
        @param executor: who does the work.
        @param series: what this worker is qualified for, besides its kind.
        @param raw: whether iterators come back as they are, where the call does
            not say; with threads only.
        @param shutdown: whether the executor is shut down when this worker stops
            or crashes.
        @param ahead: how many tasks the executor may be given ahead of those that its workers
            run. For threads it is the most, and C{None} a large number. For others, which are
            given none if it is C{None}, it is for calls that are short: one behind a long
            call may have to wait for that, though another worker is idle, and C{timeout=}
            counts the time that it waits. Ends may be heard of a millisecond later, together.
        @param reactor: the reactor, or an asyncio loop; C{None}: the one that runs when
            it is needed first.
        @raise ValueError: C{ahead} is negative.
        @raise TypeError: it is no executor; or C{series} is a string, or one of them is
            not hashable.
        """
        if not isinstance(executor, Executor):
            raise TypeError(
                f"{executor!r} is no concurrent.futures.Executor: give one, such as a"
                " ThreadPoolExecutor"
            )
        self.iQualified: list[Any] = seriesOf(series)
        self.ID: int | None = None
        self.loss = ""
        self._executor = executor
        self._here = isinstance(executor, ThreadPoolExecutor)
        self._calls: ExecutorCalls = CallsHere() if self._here else CallsElsewhere()
        # Dask's futures can be cancelled at any time, so that says nothing.
        self._tellsBegun = daskClient(executor) is None
        self._shutdown = shutdown
        self._theReactor = partial(theReactor, checkedReactor(reactor))
        self._outbox: Outbox[Any] | None = None
        if ahead is not None:
            wholeNumber(ahead, "ahead", least=0)
        workers = executorWorkers(executor)
        # By their futures.
        self._tasks = Prefetch[Window | Places](
            self,
            Window(workers, _MOST_AHEAD if ahead is None else ahead)
            if self._here
            else Places(executor, ahead or 0),
            lambda seconds, f: later(self._theReactor(), seconds, f),
            slots=workers if self._here or ahead else inf,
        )
        self._fault = RetriedFault(self._tasks.name, self._theReactor)
        self._iterators = ThreadIterators(
            self._submit, raw, self._tasks.name, self._theReactor, self._tasks.checkStopped
        )
        self._resignator: Callable[[], None] | None = None
        self._process = os.getpid()
        tellForks(self)

    @property
    def slots(self) -> int:
        """
        How many tasks run at once.
        """
        return executorWorkers(self._executor)

    def setResignator(self, callableObject: Callable[[], None]) -> None:
        """
        Begin anew if it has stopped or crashed, and its executor was not shut down.
        """
        if self._isOurs and self._tasks.life not in (Life.SERVING, Life.BROKEN):
            self._tasks.revive()
        self._fault.stop()
        self.loss = ""
        self._resignator = callableObject

    def setReporter(self, callableObject: Callable[[str, Sequence[ITask], bool], None]) -> None:
        self._fault.reporter = callableObject

    def run(self, task: ITask) -> Deferred[None]:
        """
        Give a task to the executor. C{doNext} goes before what that can give back, and not before
        what it keeps.
        """
        tasks = self._tasks
        held = tasks.held
        if tasks.life is not Life.SERVING and tasks.life is not Life.STOPPING:
            return self._refuse(task)
        if tasks.window.isClosed and len(held) >= tasks.window.size and tasks.turnsAway(task):
            return tasks.wait()
        if self._outbox is None:
            self._outbox = Outbox(
                self._theReactor(),
                self._collect,
                lambda: self._calls.unhurried(len(self._tasks.held) - self.slots),
            )
        if task.options.doNext and len(held) * tasks.window.mean > _SHORT_SECONDS:
            others = tasks.takeBack()
            urgent = [other for other in others if other.options.doNext]
            line = [*urgent, task, *(other for other in others if not other.options.doNext)]
        else:
            line = [task]
        for place, each in enumerate(line):
            refused = self._give(each, self._outbox.put)
            if refused is not None:
                rest = tasks.handBack(line[place + 1 :])
                tasks.lose(rest, self.loss or self._fault.reason, begun=False)
                return refused
        return tasks.taken()

    def _give(self, task: ITask, put: Callable[[Any], None]) -> Deferred[None] | None:
        """
        Have the executor make the call of a task. A hot path.

        @return: what C{run} is to return, if the executor refuses it.
        """
        try:
            call, args = self._calls.make(task, put)
        except BaseException as error:
            # Pickling runs other people's code, and may raise anything: the task
            # cannot be sent, and that is its outcome.
            task.errback(caught(error))
            return None
        try:
            future = self._executor.submit(call, *args)
        except Exception as error:
            # It is shut down or broken, or has no connection or no room for now.
            return self._refused(task, args, error)
        self._tasks.held[future] = task
        if self._fault.reason:
            self._fault.stop()
        if not self._here:
            task.begin()
        future.add_done_callback(put)
        return None

    def _refused(self, task: ITask, args: tuple[Any, ...], error: Exception) -> Deferred[None]:
        """
        Lose, or hand back, a task whose call the executor says that it has not taken.
        """
        reason = f"its executor takes no calls: {inWords(error)}"
        if not self._calls.isWithdrawn(self._executor, args):
            # One of its workers has it already.
            self._tasks.lose([task], reason)
        if isFinal(error) or self._fault.reporter is None:
            self._noteLoss(reason)
            return self._refuse(task)
        self._fault.strike(reason, [task])
        return succeed(None)

    def _refuse(self, task: ITask) -> Deferred[None]:
        """
        Hand a task back, and resign: the executor takes no more.
        """
        self._tasks.lose(self._tasks.handBack([task]), self.loss, begun=False)
        self._resign()
        return Deferred()

    def stop(self) -> Deferred[None]:
        """
        Iterators of a thread executor may be read for as long as it lives. If it is shut
        down with this worker, they may be read to their ends; one that nobody reads is
        closed.
        """
        self._fault.stop()
        return super().stop()

    def crash(self) -> list[ITask]:
        """
        Calls that the executor can still cancel have not begun. What comes of
        the others is dropped.
        """
        if self._tasks.life is Life.CRASHED:
            return []
        left, futures = self._tasks.crash()
        running = 0
        if self._isOurs:
            # Only threads advance iterators.
            running = sum(future.running() for future in futures) if self._here else 0
            for future in futures:
                future.cancel()
        left += self._iterators.crash(running, self.slots)
        self._close()
        self._tasks.sayStopped()
        if self._outbox is not None:
            self._outbox.hurry()
        return left

    def cancel(self, task: ITask) -> None:
        """
        Take a call out of the executor that has not begun. One that runs keeps its place there
        until it returns.
        """
        future = self._tasks.keyOf(task)
        if future is not None and self._isOurs:
            future.cancel()

    def _submit(self, job: Step | Close) -> None:
        """
        Have a thread of the executor do something for an iterator. May be called
        in any thread.
        """
        assert self._outbox is not None
        if not self._isOurs:
            # The iterator is the parent's, too.
            return
        try:
            self._executor.submit(job.do, self._outbox.put)
        except Exception as error:
            # A thread that has run the task does this, too, if there is no room for another.
            if isFinal(error) or not self._here:
                job.refused(Failure())

    # The end of the executor

    @property
    def _isOurs(self) -> bool:
        """
        Whether the executor is this process' own. In a fork its threads are the parent's, also
        those that see to its processes, and have its locks: there it is not touched.
        """
        return self._process == os.getpid()

    def forked(self) -> None:
        """
        Take nothing in a fork.
        """
        if self._outbox is not None and self._tasks.life is not Life.CRASHED:
            if self._tasks.life is Life.SERVING:
                self._tasks.life = Life.BROKEN
            self._theReactor().callLater(0, self._leaveToParent)

    def _leaveToParent(self) -> None:
        reason = f"its executor is not this process' own: {isParents(self._process)}"
        self._noteLoss(reason)
        self._iterators.fail(reason)
        tasks = list(self._tasks.held.values())
        self._tasks.held.clear()
        self._tasks.lose(tasks, reason)
        self._resign()
        self._tasks.checkStopped()

    def _noteLoss(self, reason: str) -> None:
        """
        Say once why this worker can run no more tasks.
        """
        if not self.loss and self._tasks.life in (Life.SERVING, Life.BROKEN):
            self.loss = reason
            _log.error("{name} resigns: {reason}", name=self._tasks.name(), reason=reason)

    def _resign(self) -> None:
        if self._tasks.life is Life.SERVING:
            self._tasks.life = Life.BROKEN
        if self._resignator is not None:
            self._resignator()

    # The ends of calls

    def _collect(self, items: list[Any]) -> None:
        """
        Take what the executor has done.
        """
        for item in items:
            if isinstance(item, Future):
                self._ended(item)
            else:
                # A step of an iterator, or a begin.
                item.done()
        self._calls.measure(self._tasks.window.measured)
        self._tasks.checkReady()
        self._tasks.checkStopped()

    def _ended(self, future: Future[Any]) -> None:
        """
        Hear that a call has ended, or was cancelled.
        """
        tasks = self._tasks
        task = tasks.held.pop(future, None)
        if task is None:
            # It was taken back, and may have been given again.
            return
        try:
            result = future.result()
        except BaseException as error:
            # The executor's own: its calls raise nothing.
            self._failed(future, task, error)
        else:
            tasks.ended += 1
            self._calls.end(task, result, self._iterators.end)

    def _failed(self, future: Future[Any], task: ITask, error: BaseException) -> None:
        """
        Hear that the executor has not made a call, or lost it.
        """
        tasks = self._tasks
        if future.cancelled():
            # By us, if the task has ended, or else by who shut the executor down.
            if not task.ended:
                tasks.held[future] = task
                self._noteLoss("its executor cancelled a call: somebody has shut it down")
                self._resign()
            return
        tasks.ended += 1
        broken = isinstance(error, BrokenExecutor)
        if broken:
            if tasks.life is Life.SERVING:
                tasks.life = Life.BROKEN
            self._noteLoss(f"its executor broke: {inWords(error)}")
        tasks.lose([task], inWords(error))
        if broken:
            self._resign()

    # PrefetchDelegate

    #: The executor is its owner's, and stays.
    isGone = True

    def takeUnbegun(self) -> list[ITask]:
        """
        Take what the executor has begun with no worker.
        """
        if not self._tellsBegun or not self._isOurs:
            return []
        held = self._tasks.held
        # From the last on: meanwhile the first ones may begin, and none is to begin before those.
        tasks = [held.pop(future) for future in reversed(list(held)) if future.cancel()]
        return tasks[::-1]

    def letGo(self) -> bool:
        """
        Shut the executor down, if so asked.
        """
        ends = self._shutdown and self._isOurs
        if self._iterators.wait("it stops") if ends else self._iterators.deliveries:
            return False
        self._close()
        return True

    def _close(self) -> None:
        self._iterators.stop()
        self._fault.stop()
        if self._shutdown and self._isOurs:
            self._executor.shutdown(wait=False)

    def statistics(self) -> WorkerSnapshot:
        """
        Return a snapshot of the worker.
        """
        tasks = self._tasks
        return WorkerSnapshot(
            state=tasks.state(self._fault),
            slots=self.slots,
            held=tasks.count,
            ended=tasks.ended,
            fault=self.loss or self._fault.reason,
        )
