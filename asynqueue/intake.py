"""
Where calls come from outside into a queue: over a connection, from a folder, from whatever a
program reads them.

::

    make ──▶ given to the queue ──▶ callReturned, callFailed
               │          ▲
          hold ▼          │ admit: one for each that ends
              kept back here

A source of calls has an L{Intake}. It gives each call a key of its own, hears of the outcome
under that key, and can take back what has not begun. How many calls are wanted, L{Intake.wanted}
says: so a source need never hand over more than the workers of the queue can use.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from asynqueue.interfaces import ITask, IWorker
from asynqueue.scheduling.observers import QueueObserver
from asynqueue.scheduling.options import CallOptions
from asynqueue.scheduling.task import TaskDeferred
from asynqueue.taskqueue import TaskQueue

_log = Logger()

# A worker has a call to run, and one that it can begin at once when that has ended.
_EACH = 2

_DEFAULT = CallOptions(returnFailure=True)


class Call(NamedTuple):
    """
    What is to be called, and how.

    @ivar options: how the queue makes the call. Without C{returnFailure} a call that fails
        is heard of as one that returned C{None}.
    @ivar isWatched: whether L{IntakeDelegate.callBegun} is to be called.
    """

    f: Callable[..., Any]
    args: Sequence[Any] = ()
    kw: Mapping[str, Any] = {}
    options: CallOptions = _DEFAULT
    isWatched: bool = False


class IntakeDelegate(Protocol):
    """
    A source of calls, as its L{Intake} knows it. Of each call that was made one outcome is
    told, unless it was cancelled or taken back, and nothing after it.

    A source that inherits from this defines what it wants to hear. All of it is called in the
    reactor's thread, and must not raise.
    """

    def callReturned(self, key: Any, value: Any) -> None:
        """
        Hear that a call has returned a value. If it returned an iterator, and is not C{raw}, the
        value is a L{Deferator<asynqueue.iteration.deferator.Deferator>}.
        """

    def callFailed(self, key: Any, failure: Failure) -> None:
        """
        Hear that a call has raised, was lost, or that the queue was shut down before it was made.
        """

    def callRefused(self, key: Any, error: Exception) -> None:
        """
        Hear what the queue has raised as it was given a call that was kept back: it was shut down
        meanwhile. The call was not made.
        """

    def callBegun(self, key: Any) -> None:
        """
        Hear that a watched call begins, for the first time.
        """


class Intake:
    """
    Gives the calls of a source to a queue, and takes back what the queue has not begun.
    """

    def __init__(
        self, queue: TaskQueue, delegate: IntakeDelegate, *, series: str | None = None
    ) -> None:
        """
        @param queue: makes the calls.
        @param delegate: hears what becomes of them.
        @param series: the series that most of the calls have: see L{wanted}.
        """
        self._queue = queue
        self._returned = delegate.callReturned
        self._failed = delegate.callFailed
        self._refused = delegate.callRefused
        self._series = series
        self._beginnings = _Beginnings(queue, delegate.callBegun)
        self._given: dict[Any, Deferred[Any]] = {}
        self._kept: dict[Any, Call] = {}
        self._isHeld = False

    def __len__(self) -> int:
        """
        Return how many calls have no outcome.
        """
        return len(self._given) + len(self._kept)

    def __contains__(self, key: Hashable) -> bool:
        """
        Tell whether there is a call of this key without an outcome.
        """
        return key in self._given or key in self._kept

    @property
    def keys(self) -> list[Any]:
        """
        The keys of the calls that have no outcome.
        """
        return [*self._given, *self._kept]

    @property
    def wanted(self) -> int:
        """
        How many more calls the workers of the queue can use: two for each that they run at
        once, less those that have no outcome. None while calls are held, or the queue is
        shut down.

        It changes with each call that is made or ends, and as workers come and go
        (L{TaskQueue.watchWorkers}).
        """
        if self._isHeld or not self._queue.isRunning():
            return 0
        return max(0, _EACH * self._queue.slots(self._series) - len(self))

    def make(self, key: Hashable, call: Call) -> None:
        """
        Have a call made, now or when others have ended. A hot path.

        @param key: names the call; no other one without an outcome has it.
        @raise Exception: whatever the queue raises, which does not have the call then.
        """
        if self._isHeld or (self._kept and not call.options.doNext):
            self._kept[key] = call
        else:
            self._give(key, call)

    def cancel(self, key: Hashable) -> bool:
        """
        End a call, as far as that can be done. Nothing more is heard of it.

        @return: whether there was one of this key.
        """
        if self._kept.pop(key, None) is not None:
            return True
        d = self._given.pop(key, None)
        if d is None:
            return False
        try:
            d.cancel()
        except BaseException:
            # The seam to user code, which is left by its finally clauses.
            _log.failure("A call raised as it was cancelled")
        self._admit(1)
        return True

    def takeBack(self, key: Hashable) -> bool:
        """
        Take a call back that has not begun. Nothing more is heard of it.

        @return: whether that could be done: it will not begin.
        """
        if self._kept.pop(key, None) is not None:
            return True
        if not self._isWithdrawn(key):
            return False
        self._admit(1)
        return True

    def hold(self) -> None:
        """
        Have no more calls begin, as far as that can be done, until L{admit}.
        """
        if self._isHeld:
            return
        self._isHeld = True
        for key, d in list(self._given.items()):
            task = d.task if isinstance(d, TaskDeferred) else None
            if task is not None:
                call = Call(*task.callTuple, task.options, self._beginnings.expects(d))
                if self._isWithdrawn(key):
                    self._kept[key] = call

    def admit(self, count: int) -> None:
        """
        Let calls begin again.

        @param count: how many of those that were kept back begin now; then one begins for
            each that ends.
        """
        self._isHeld = False
        self._admit(count)

    def unobserve(self) -> None:
        """
        Observe the queue no more, unless a watched call has not begun: for sources that
        seldom have such calls, since that costs something for each call of the queue.
        """
        self._beginnings.unobserve()

    def stop(self) -> None:
        """
        Cancel all calls, and say nothing more of them.
        """
        self._beginnings.stop()
        self._kept.clear()
        for key in list(self._given):
            self.cancel(key)

    # Within

    def _give(self, key: Any, call: Call) -> None:
        """
        Give a call to the queue. A hot path.
        """
        f, args, kw, options, isWatched = call
        if isWatched:
            self._beginnings.expect(key)
        try:
            d = self._queue.callWith(options, f, *args, **kw)
        except BaseException:
            self._beginnings.forget()
            raise
        self._given[key] = d
        d.addCallbacks(self._ended, self._endedWith, callbackArgs=(key,), errbackArgs=(key,))

    def _ended(self, value: Any, key: Any) -> None:
        """
        Tell what a call has returned. A hot path.
        """
        if self._given.pop(key, None) is not None:
            self._returned(key, value)
            if self._kept:
                self._admit(1)

    def _endedWith(self, failure: Failure, key: Any) -> None:
        if self._given.pop(key, None) is not None:
            self._failed(key, failure)
            if self._kept:
                self._admit(1)

    def _isWithdrawn(self, key: Any) -> bool:
        d = self._given.pop(key, None)
        if d is None:
            return False
        # If so, it fails in this moment, and is not known any more.
        if self._queue.withdraw(d):
            return True
        self._given[key] = d
        return False

    def _admit(self, count: int) -> None:
        """
        Give some of the calls that were kept back to the queue, the oldest first.
        """
        while count > 0 and self._kept and not self._isHeld:
            key = next(iter(self._kept))
            try:
                self._give(key, self._kept.pop(key))
            except Exception as error:
                # The queue was shut down meanwhile.
                self._refused(key, error)
            else:
                count -= 1


class _Beginnings(QueueObserver):
    """
    Tells when a queue begins the calls whose beginning is watched.

    It observes the queue only while there are such calls: that costs something for each
    call that the queue is given.
    """

    def __init__(self, queue: TaskQueue, begun: Callable[[Any], None]) -> None:
        """
        @param begun: is called with the key of a call that begins, once for each.
        """
        self._queue = queue
        self._begun = begun
        self._keys: dict[Any, Any] = {}
        self._next: list[Any] = []
        self._observing = False

    def expect(self, key: Any) -> None:
        """
        Take the key of the call that is given to the queue next: it may begin as it is given.
        """
        if not self._observing:
            self._observing = True
            self._queue.addObserver(self)
        self._next.append(key)

    def forget(self) -> None:
        """
        Hear that the call that was expected was not given to the queue.
        """
        self._next.clear()

    def expects(self, d: Any) -> bool:
        """
        Tell whether the call that has this Deferred is watched, and has not begun.
        """
        return d in self._keys

    def unobserve(self) -> None:
        """
        Observe no more, if nothing is watched. An observer itself must not say so.
        """
        if self._observing and not self._keys:
            self.stop()

    def stop(self) -> None:
        """
        Observe no more.
        """
        if self._observing:
            self._observing = False
            self._keys.clear()
            self._queue.removeObserver(self)

    def taskQueued(self, task: ITask) -> None:
        """
        Note whose call it is. The Deferred of a task is the same for all attempts to make it.
        """
        if self._next:
            self._keys[task.d] = self._next.pop()

    def taskBegun(self, task: ITask, worker: IWorker) -> None:
        """
        Tell of a watched call.
        """
        if task.d in self._keys:
            self._begun(self._keys.pop(task.d))

    def taskDone(self, task: ITask, outcome: Any, worker: IWorker | None) -> None:
        """
        Forget a call that has ended.
        """
        self._keys.pop(task.d, None)


def isQualified(worker: IWorker, series: str | None) -> bool:
    """
    Tell whether a worker may run calls of a series.
    """
    return series is None or series in worker.cQualified or series in worker.iQualified
