"""
A worker that has its tasks done by a C{concurrent.futures.Executor}.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Hashable, Iterable, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from enum import Enum
from functools import partial
from itertools import count
from typing import Any
from uuid import uuid4

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from asynqueue.codec import dumps, located
from asynqueue.errors import Unsendable, WorkerError, WorkerLost
from asynqueue.failures import caught, failureOf
from asynqueue.forks import isParents, tellForks
from asynqueue.interfaces import (
    ICancellingWorker,
    IFailingWorker,
    IPrefetchingWorker,
    IResigningWorker,
    ISlottedWorker,
    ITask,
)
from asynqueue.outcome import (
    Raised,
    Returned,
    describeCall,
    inWords,
    perform,
    presentable,
    settled,
    shortRepr,
)
from asynqueue.program import ELSEWHERE, keptElsewhere
from asynqueue.reactors import checkedReactor, theReactor
from asynqueue.scheduling.options import seriesOf
from asynqueue.scheduling.snapshots import WorkerSnapshot
from asynqueue.workers.failing import RetriedFault
from asynqueue.workers.iterators import ThreadIterators
from asynqueue.workers.outbox import Begun, Outbox
from asynqueue.workers.refusals import isFinal, isWithdrawn
from asynqueue.workers.standing import stateOf
from asynqueue.workers.steps import Close, Step, ThreadSource
from asynqueue.workers.waiters import Waiters

_log = Logger()

# The worker count of an executor that does not tell it.
_UNKNOWN = 1


class _Life(Enum):
    SERVING = "serving"
    BROKEN = "broken"
    STOPPING = "stopping"
    CRASHED = "crashed"


def executorWorkers(executor: Executor) -> int:
    """
    How many workers an executor has now.

    No executor tells this by a public name. The standard library's and loky's
    have C{_max_workers}; Dask's has a client, which knows the workers of its
    cluster.
    """
    most: int | None = getattr(executor, "_max_workers", None)
    if most is None:
        # What the client was last told, without asking the scheduler: this is
        # called in the reactor's thread. Dask has it told every few seconds.
        known = getattr(_daskClient(executor), "_scheduler_identity", None) or {}
        most = known.get("total_threads")
        if most is None:
            most = sum(worker["nthreads"] for worker in known.get("workers", {}).values())
    return most or _UNKNOWN


def _daskClient(executor: Executor) -> Any:
    """
    The client of Dask's executor; C{None} for the others.
    """
    return getattr(executor, "_client", None)


def _isFirst(claim: list[None]) -> bool:
    """
    Whether nobody has asked this before. May be called in any thread.
    """
    try:
        claim.pop()
    except IndexError:
        return False
    return True


def _runHere(task: ITask, claim: list[None], begun: Callable[[], None] | None) -> Returned | Raised:
    """
    Make the call of a task in a thread of this process.

    @param claim: is empty if the call is not to be made: the executor has refused it, and
        kept it. Who takes out what is in it decides.
    """
    if not _isFirst(claim):
        return Returned(None)
    if begun is not None:
        begun()
    f, args, kw = task.callTuple
    try:
        value = task.context.run(f, *args, **kw)
        outcome: Returned | Raised = Returned(task.context.run(settled, value))
    except BaseException as error:
        # The seam to user code: an exit or an interrupt is an outcome.
        outcome = Raised(presentable(error), "")
    return outcome


class _Ended:
    """
    A task that the executor is done with.
    """

    def __init__(self, worker: ExecutorWorker, task: ITask, future: Future[Any]) -> None:
        self._worker = worker
        self._task = task
        self._future = future

    def done(self) -> None:
        """
        Tell the worker. Runs in the reactor.
        """
        self._worker.ended(self._task, self._future)


@implementer(
    IPrefetchingWorker, ICancellingWorker, IFailingWorker, IResigningWorker, ISlottedWorker
)
class ExecutorWorker:
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

    It holds as many tasks as the executor has workers, and follows their number.
    What an executor is given ahead of what it runs cannot be taken back for sure,
    if that turns out to be long (G6): so nothing is sent ahead.

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
        reactor: Any = None,
    ) -> None:
        """
        @param executor: who does the work.
        @param series: what this worker is qualified for, besides its kind.
        @param raw: whether iterators come back as they are, where the call does
            not say; with threads only.
        @param shutdown: whether the executor is shut down when this worker stops
            or crashes.
        @param reactor: the reactor, or an asyncio loop; C{None}: the one that runs when
            it is needed first.
        @raise TypeError: it is no executor; or C{series} is a string, or one of them is
            not hashable.
        """
        if not isinstance(executor, Executor):
            raise TypeError(f"{executor!r} is no concurrent.futures.Executor")
        self.iQualified: list[Any] = seriesOf(series)
        self.ID: int | None = None
        self.loss = ""
        self._executor = executor
        self._here = isinstance(executor, ThreadPoolExecutor)
        # Dask's futures can be cancelled at any time, so that says nothing.
        self._tellsBegun = _daskClient(executor) is None
        self._shutdown = shutdown
        self._reactor = checkedReactor(reactor)
        self._life = _Life.SERVING
        self._outbox: Outbox[Any] | None = None
        self._futures: dict[ITask, Future[Any]] = {}
        self._fault = RetriedFault(lambda: self._name, self._theReactor, self._tryAgain)
        # Calls of this worker are unlike those of all others, also elsewhere.
        self._mark = uuid4().hex
        self._numbers = count()
        self._iterators = ThreadIterators(
            self, raw, lambda: self._name, self._theReactor, self._checkStopped
        )
        self._notBegun: list[ITask] = []
        self._ready: Deferred[None] | None = None
        self._stopped = Waiters()
        self._ended = 0
        self._resignator: Callable[[], None] | None = None
        self._returner: Callable[[Sequence[ITask]], None] | None = None
        self._process = os.getpid()
        # In a fork, the tasks that its parent has.
        self._inherited: list[ITask] = []
        tellForks(self)

    @property
    def slots(self) -> int:
        """
        How many tasks run at once.
        """
        return executorWorkers(self._executor)

    def setResignator(self, callableObject: Callable[[], None]) -> None:
        """
        One that has stopped begins anew, if its executor was not shut down.
        """
        if self._life is _Life.STOPPING:
            self._life = _Life.SERVING
        self._fault.stop()
        self.loss = ""
        self._resignator = callableObject

    def setReturner(self, callableObject: Callable[[Sequence[ITask]], None]) -> None:
        self._returner = callableObject

    def setReporter(self, callableObject: Callable[[str, Sequence[ITask], bool], None]) -> None:
        self._fault.reporter = callableObject

    def run(self, task: ITask) -> Deferred[None]:
        """
        An executor has no order but its own: C{doNext} goes before what the queue
        has, not before what the executor has.
        """
        if self._outbox is None:
            self._outbox = Outbox(self._theReactor(), self._collect)
        if self._life is _Life.BROKEN:
            return self._refuse(task)
        outbox = self._outbox
        try:
            call, args = self._callOf(task, outbox)
        except BaseException as error:
            # Pickling runs other people's code, and may raise anything: the task
            # cannot be sent, and that is its outcome.
            task.errback(caught(error))
            return succeed(None)
        try:
            future = self._executor.submit(call, *args)
        except Exception as error:
            # It is shut down or broken, or has no connection or no room for now.
            return self._refused(task, args, error)
        self._futures[task] = future
        if self._fault.reason:
            self._fault.stop()
        if not self._here:
            # Nobody hears from another process that a call begins.
            task.begin()
        future.add_done_callback(lambda future: outbox.put(_Ended(self, task, future)))
        if self._hasPlace():
            return succeed(None)
        self._ready = Deferred()
        return self._ready

    def _refused(self, task: ITask, args: tuple[Any, ...], error: Exception) -> Deferred[None]:
        """
        The executor has not taken a call, as it says.
        """
        reason = f"its executor takes no calls: {inWords(error)}"
        if not (_isFirst(args[1]) if self._here else isWithdrawn(self._executor, args[1])):
            # One of its workers has it already.
            call = describeCall(*task.callTuple)
            task.errback(Failure(WorkerLost(call, self._name, begun=True, reason=reason)))
        if isFinal(error) or self._fault.reporter is None:
            self._noteLoss(reason)
            return self._refuse(task)
        self._fault.strike(reason, [task])
        return succeed(None)

    def _tryAgain(self) -> None:
        self._fault.probe()

    def _hasPlace(self) -> bool:
        """
        Whether the executor has a worker without work, as far as we know.
        """
        return len(self._futures) < executorWorkers(self._executor)

    def _callOf(
        self, task: ITask, outbox: Outbox[Any]
    ) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """
        What the executor is to call, with what.
        """
        if self._here:
            begun = partial(outbox.put, Begun(task)) if task.watched else None
            return _runHere, (task, [None], begun)
        f, args, kw = task.callTuple
        try:
            packed = dumps((keptElsewhere(f), args, kw), ELSEWHERE)
        except Unsendable as error:
            raise located(error, args, kw, lambda arg: dumps(arg, ELSEWHERE)) from None
        return perform, (packed, f"{self._mark}-{next(self._numbers)}")

    def stop(self) -> Deferred[None]:
        """
        Iterators of a thread executor may be read for as long as it lives. If it is shut
        down with this worker, they may be read to their ends; one that nobody reads is
        closed.
        """
        d = self._stopped.wait()
        if self._life in (_Life.SERVING, _Life.BROKEN):
            self._life = _Life.STOPPING
        self._fault.stop()
        self._checkStopped()
        return d

    def crash(self) -> list[ITask]:
        """
        Calls that the executor can still cancel have not begun. What comes of
        the others is dropped.
        """
        if self._life is _Life.CRASHED:
            return []
        self._life = _Life.CRASHED
        self._fault.stop()
        left = [task for task in (*self._inherited, *self._futures) if not task.ended]
        self._inherited = []
        # Only threads advance iterators.
        running = sum(future.running() for future in self._futures.values()) if self._here else 0
        futures, self._futures = self._futures, {}
        cancelled = [task for task in left if task in futures and futures[task].cancel()]
        self._notBegun = cancelled if self._tellsBegun else []
        left += self._iterators.crash(running, executorWorkers(self._executor))
        self._checkStopped()
        return left

    def takeBack(self) -> Sequence[ITask]:
        if self._life is _Life.CRASHED:
            return self._notBegun
        if not self._tellsBegun:
            return []
        taken = [task for task, future in self._futures.items() if future.cancel()]
        for task in taken:
            del self._futures[task]
        return [task for task in taken if not task.ended]

    def cancel(self, task: ITask) -> None:
        """
        A call that has not begun is taken out of the executor. One that runs
        keeps its place there until it returns.
        """
        future = self._futures.get(task)
        if future is not None:
            future.cancel()

    def forked(self) -> None:
        """
        The threads of the executor are the parent's, also those that see to its processes, and
        have its locks. Here it takes nothing, and is not touched.
        """
        if self._outbox is not None and self._life is not _Life.CRASHED:
            if self._life is _Life.SERVING:
                self._life = _Life.BROKEN
            self._shutdown = False
            self._inherited, self._futures = list(self._futures), {}
            self._theReactor().callLater(0, self._leaveToParent)

    def _leaveToParent(self) -> None:
        reason = f"its executor is not this process' own: {isParents(self._process)}"
        self._noteLoss(reason)
        self._iterators.fail(reason)
        tasks, self._inherited = self._inherited, []
        for task in tasks:
            call = describeCall(*task.callTuple)
            task.errback(Failure(WorkerLost(call, self._name, reason=reason)))
        self._resign()
        self._checkStopped()

    def submit(self, job: Step | Close) -> None:
        """
        Have a thread of the executor do something for an iterator. May be called
        in any thread.
        """
        assert self._outbox is not None
        if self._process != os.getpid():
            # The iterator is the parent's, too.
            return
        try:
            self._executor.submit(job.do, self._outbox.put)
        except Exception as error:
            # A thread that has run the task does this, too, if there is no room for another.
            if isFinal(error) or not self._here:
                job.refused(Failure())

    def sourceEnded(self, source: ThreadSource) -> None:
        """
        An iterator has ended, or was closed. May be called in any thread.
        """
        self._iterators.closed(source)

    def _refuse(self, task: ITask) -> Deferred[None]:
        """
        The executor takes no more: the queue may give the task to another.
        """
        if self._returner is not None:
            self._returner([task])
        else:
            call = describeCall(*task.callTuple)
            task.errback(Failure(WorkerLost(call, self._name, begun=False, reason=self.loss)))
        self._resign()
        return Deferred()

    def _noteLoss(self, reason: str) -> None:
        """
        Say once why this worker can run no more tasks.
        """
        if not self.loss and self._life in (_Life.SERVING, _Life.BROKEN):
            self.loss = reason
            _log.error("{name} resigns: {reason}", name=self._name, reason=reason)

    def _resign(self) -> None:
        if self._life is _Life.SERVING:
            self._life = _Life.BROKEN
        if self._resignator is not None:
            self._resignator()

    def _collect(self, items: list[Any]) -> None:
        """
        Take what the executor has done.
        """
        for item in items:
            item.done()
        ready = self._ready
        if ready is not None and self._hasPlace():
            self._ready = None
            ready.callback(None)
        self._checkStopped()

    def ended(self, task: ITask, future: Future[Any]) -> None:
        """
        A call has ended, or was cancelled.
        """
        if self._futures.get(task) is not future:
            # It was taken back, and may have been given again.
            return
        del self._futures[task]
        if future.cancelled():
            # By us, if the task has ended, or else by who shut the executor down.
            if not task.ended:
                self._futures[task] = future
                self._noteLoss("its executor cancelled a call: somebody has shut it down")
                self._resign()
            return
        self._ended += 1
        error = future.exception()
        if error is None:
            self._end(task, future.result())
            return
        # The executor's own: perform and _runHere raise nothing.
        broken = isinstance(error, BrokenExecutor)
        if broken and self._life is _Life.SERVING:
            self._life = _Life.BROKEN
        reason = inWords(error)
        if broken:
            self._noteLoss(f"its executor broke: {reason}")
        call = describeCall(*task.callTuple)
        task.errback(Failure(WorkerLost(call, self._name, reason=reason)))
        if broken:
            self._resign()

    def _end(self, task: ITask, outcome: Any) -> None:
        """
        Give a task its outcome.
        """
        try:
            if isinstance(outcome, bytes):
                outcome = pickle.loads(outcome)
        except BaseException as unreadable:
            # Unpickling runs other people's code, and may raise anything.
            task.errback(caught(unreadable))
            return
        match outcome:
            case Raised(error, trace):
                task.errback(failureOf(outcome) if trace else caught(error))
            case Returned(value):
                self._iterators.end(task, value)
            case _:
                text = f"the executor gave {shortRepr(outcome)}, which is no outcome"
                task.errback(Failure(WorkerError(text)))

    def _checkStopped(self) -> None:
        crashed = self._life is _Life.CRASHED
        busy = self._futures or self._iterators.deliveries
        if not crashed and (self._life is not _Life.STOPPING or busy):
            return
        if self._shutdown:
            if not crashed and self._iterators.wait("it stops"):
                return
            self._executor.shutdown(wait=False)
        self._stopped.fire()

    @property
    def _name(self) -> str:
        return f"{type(self).__name__} {self.ID}"

    def _theReactor(self) -> Any:
        return theReactor(self._reactor)

    def statistics(self) -> WorkerSnapshot:
        """
        Return how it stands.
        """
        return WorkerSnapshot(
            state=stateOf(self._life.value, self._stopped, self._fault),
            slots=self.slots,
            held=len(self._futures) + len(self._inherited),
            ended=self._ended,
            fault=self.loss or self._fault.reason,
        )
