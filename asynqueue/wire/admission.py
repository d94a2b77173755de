"""
The calls of one connection that have no outcome: those that the queue of the host has, and
those that wait until the other side reads what it was sent::

    make ──▶ given to the queue ──▶ returned, failed
               │          ▲
          hold ▼          │ admit: one for each that ends
              kept back here
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from asynqueue.interfaces import ISlottedWorker, IWorker
from asynqueue.scheduling.options import CallOptions
from asynqueue.scheduling.task import TaskDeferred
from asynqueue.taskqueue import TaskQueue
from asynqueue.wire.beginnings import Beginnings

_log = Logger()


class Call(NamedTuple):
    """
    What is to be called, and how.
    """

    options: CallOptions
    isWatched: bool
    f: Callable[..., Any]
    args: Any
    kw: dict[str, Any]


class Admission:
    """
    Gives calls to a queue, and takes back what the queue has not begun.
    """

    def __init__(
        self,
        queue: TaskQueue,
        returned: Callable[[Any, int], None],
        failed: Callable[[Failure, int], None],
        refused: Callable[[BaseException, int], None],
        begun: Callable[[int], None],
    ) -> None:
        """
        @param queue: makes the calls.
        @param returned: is called with what a call returned, and its number.
        @param failed: is called with what it failed with, and its number.
        @param refused: is called with what the queue raised, and the number of a call that
            was kept back and was to be given to it.
        @param begun: is called with the number of a watched call that begins.
        """
        self._queue = queue
        self._returned = returned
        self._failed = failed
        self._refused = refused
        self._beginnings = Beginnings(queue, begun)
        self._given: dict[int, Deferred[Any]] = {}
        self._kept: dict[int, Call] = {}
        self._isHeld = False

    def __len__(self) -> int:
        return len(self._given) + len(self._kept)

    def __contains__(self, number: int) -> bool:
        return number in self._given or number in self._kept

    @property
    def numbers(self) -> list[int]:
        """
        The numbers of the calls, in order.
        """
        return sorted((*self._given, *self._kept))

    def make(self, number: int, call: Call) -> None:
        """
        Have a call made, now or when others have ended. A hot path.

        @raise Exception: whatever the queue raises, which does not have the call then.
        """
        if self._isHeld or (self._kept and not call.options.doNext):
            self._kept[number] = call
        else:
            self._give(number, call)

    def wait(self, number: int, d: Deferred[Any]) -> None:
        """
        A call has the outcome that a Deferred has. A hot path.
        """
        self._given[number] = d
        d.addCallbacks(self._ended, self._endedWith, callbackArgs=(number,), errbackArgs=(number,))

    def cancel(self, number: int) -> bool:
        """
        End a call, as far as that can be done. Nothing more is heard of it.

        @return: whether there was one of this number.
        """
        if self._kept.pop(number, None) is not None:
            return True
        d = self._given.pop(number, None)
        if d is None:
            return False
        try:
            d.cancel()
        except BaseException:
            # The seam to user code, which is left by its finally clauses.
            _log.failure("A call raised as it was cancelled")
        self._admit(1)
        return True

    def takeBack(self, number: int) -> bool:
        """
        Take a call back that has not begun. Nothing more is heard of it.

        @return: whether that could be done: it will not begin.
        """
        if self._kept.pop(number, None) is not None:
            return True
        if not self._isWithdrawn(number):
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
        for number, d in list(self._given.items()):
            task = d.task if isinstance(d, TaskDeferred) else None
            if task is not None:
                call = Call(task.options, self._beginnings.expects(d), *task.callTuple)
                if self._isWithdrawn(number):
                    self._kept[number] = call

    def admit(self, count: int) -> None:
        """
        Let calls begin again: at first so many of those that were kept back, then one for
        each that ends.
        """
        self._isHeld = False
        self._admit(count)

    def rest(self) -> None:
        """
        Observe the queue no more, if there is no need.
        """
        self._beginnings.rest()

    def stop(self) -> None:
        """
        Cancel all, and say nothing more of them.
        """
        self._beginnings.stop()
        self._kept.clear()
        for number in list(self._given):
            self.cancel(number)

    def _give(self, number: int, call: Call) -> None:
        """
        Give a call to the queue. A hot path.
        """
        options, isWatched, f, args, kw = call
        if isWatched:
            self._beginnings.expect(number)
        try:
            d = self._queue.callWith(options, f, *args, **kw)
        except BaseException:
            self._beginnings.expect(None)
            raise
        self.wait(number, d)

    def _ended(self, value: Any, number: int) -> None:
        """
        A call has returned. A hot path.
        """
        if self._given.pop(number, None) is not None:
            self._returned(value, number)
            if self._kept:
                self._admit(1)

    def _endedWith(self, failure: Failure, number: int) -> None:
        if self._given.pop(number, None) is not None:
            self._failed(failure, number)
            if self._kept:
                self._admit(1)

    def _isWithdrawn(self, number: int) -> bool:
        d = self._given.pop(number, None)
        if d is None:
            return False
        # If so, it fails in this moment, and is not known any more.
        if self._queue.withdraw(d):
            return True
        self._given[number] = d
        return False

    def _admit(self, count: int) -> None:
        """
        Give some of the calls that were kept back to the queue, the oldest first.
        """
        while count > 0 and self._kept and not self._isHeld:
            number = next(iter(self._kept))
            try:
                self._give(number, self._kept.pop(number))
            except Exception as error:
                # The queue was shut down meanwhile.
                self._refused(error, number)
            else:
                count -= 1


def isQualified(worker: IWorker, series: str | None) -> bool:
    """
    Whether a worker may run calls of a series.
    """
    return series is None or series in worker.cQualified or series in worker.iQualified


def slotsOf(queue: TaskQueue, series: str | None) -> int:
    """
    How many calls of a series a queue can run at once. Workers that can run nothing for now
    do not count.
    """
    return sum(
        worker.slots if ISlottedWorker.providedBy(worker) else 1
        for worker in queue.workers(dialing=False, failing=False)
        if isQualified(worker, series)
    )
