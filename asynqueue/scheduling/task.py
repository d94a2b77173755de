"""
A task: one attempt to make one call, from its queueing to its outcome.

This is a hot path (a task is made and ended for each call), plain on purpose;
C{benchmarks/} guards it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Context, copy_context
from enum import Enum
from typing import Any, Protocol

from twisted.internet.defer import AlreadyCalledError, CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from asynqueue.awaitable import AwaitableDeferred
from asynqueue.errors import (
    ImplementationError,
    MaybeEncodingError,
    TaskExpired,
    TaskTimedOut,
    WorkerLost,
)
from asynqueue.failures import isOf
from asynqueue.interfaces import ITask
from asynqueue.outcome import VALUES, describeCall
from asynqueue.scheduling.observers import Observers, logFailed
from asynqueue.scheduling.options import CallOptions

_log = Logger()

CallTuple = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]


class State(Enum):
    """
    Where a task is in its life.
    """

    QUEUED = "queued"
    ASSIGNED = "assigned"
    BEGUN = "begun"
    ENDED = "ended"


QUEUED, ASSIGNED, BEGUN, ENDED = State


class TaskOwner(Protocol):
    """
    What a task tells of itself to the queue that made it.

    @ivar observers: whom the task tells that its run started.
    """

    observers: Observers

    @property
    def reactor(self) -> Any:
        """
        The reactor; C{None} while it is not known.
        """

    def taskEnded(self, task: Task, outcome: Any, failed: bool, counts: bool = True) -> None:
        """
        Hear that the task has its outcome. Its Deferred fires next.

        @param outcome: the value that the call returned, or the failure.
        @param failed: whether it is the failure.
        @param counts: whether it counts among those that were done.
        """

    def taskGivenUp(self, task: Task) -> None:
        """
        Hear that the task has ended while a worker had it: the worker may end the run.
        """

    def taskLost(self, task: Task) -> None:
        """
        Hear that the worker of the task was lost. It is tried again next, or ends.
        """

    def retryTask(self, task: Task) -> bool:
        """
        Queue a task again whose worker was lost, if it may be.

        @return: whether the task lives on, as another attempt.
        """

    def startTimer(self, seconds: float, f: Callable[[], None]) -> Any:
        """
        Call C{f} after a time.

        @return: an C{IDelayedCall}.
        """


class TaskDeferred(AwaitableDeferred[Any]):
    """
    The Deferred of a call.

    @ivar task: the present attempt to make the call, until it has ended.
    """

    task: Task | None = None

    def drivenBy(self) -> Any:
        return None if self.task is None else self.task.owner.reactor


def _cancelTask(d: Any) -> None:
    """
    Cancel the task of a Deferred. This canceller is the same for all, and finds the task by the
    Deferred: a million queued tasks are a million methods less.
    """
    if d.task is not None:
        d.task.cancel()


@implementer(ITask)
class Task:
    """
    One attempt to make one call.

    @ivar owner: who made it, and hears of it.
    @ivar ID: the number of the call, in the order in which calls were made; each attempt to
        make it has the same.
    @ivar attempt: which attempt this is, from 1.
    @ivar state: see L{State}.
    @ivar holder: the record of the worker that has the task, if one has.
    @ivar tries: how many processes have ended that had this and had begun nothing that they had.
    @cvar isUpdate: whether this is a call of C{TaskQueue.update}, made to one
        worker and not queued.
    @cvar lasting: whether it is one that later workers must make, too.
    """

    # For nearly all, who need no place for them: see L{Update} and L{_NextAttempt}.
    isUpdate = False
    lasting = False
    attempt = 1
    _spent = 0

    __slots__ = (
        "ID",
        "_args",
        "_caller",
        "_context",
        "_func",
        "_kw",
        "_timer",
        "d",
        "holder",
        "options",
        "owner",
        "state",
        "tries",
    )

    def __init__(
        self,
        owner: TaskOwner,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        kw: dict[str, Any],
        options: CallOptions,
        ID: int,
    ) -> None:
        self.owner = owner
        self._func = func
        self._args = args
        # A dictionary for each of a million queued calls is a tenth of their memory.
        self._kw = kw or None
        self.options = options
        self.ID = ID
        # Mostly there are no variables, and a new context is as good as a copy.
        self._caller = copy_context() or None
        self._context: Context | None = None
        self.state = QUEUED
        self.holder: Any = None
        self._timer: Any = None
        self.tries = 0
        d = self.d = TaskDeferred(_cancelTask)
        d.task = self

    def __repr__(self) -> str:
        return f"<Task {self.ID} {self.state.value}: {self.describe()}>"

    def __lt__(self, other: Task) -> bool:
        return self.priority < other.priority

    @property
    def callTuple(self) -> CallTuple:
        """
        What to call: (f, args, kw).
        """
        # Made when asked for: a million queued tasks are a million tuples less.
        return self._func, self._args, self._kw or {}

    @property
    def context(self) -> Context:
        """
        The context variables of the caller, to run the call with.

        They are this attempt's own copy: an earlier attempt may still run with its.
        """
        context = self._context
        if context is None:
            caller = self._caller
            context = self._context = Context() if caller is None else caller.copy()
        return context

    @property
    def series(self) -> Any:
        """
        The label that a worker must be qualified for, or C{None}.
        """
        return self.options.series

    @property
    def priority(self) -> tuple[int, int, int]:
        """
        What tasks are ordered by: band, niceness, ID.
        """
        options = self.options
        band = -1 if options.doNext else 1 if options.doLast else 0
        return band, options.niceness, self.ID

    @property
    def ended(self) -> bool:
        """
        Whether the task has its outcome.
        """
        return self.state is ENDED

    @property
    def watched(self) -> bool:
        """
        Whether somebody must know when the run starts.
        """
        options = self.options
        return (
            options.timeout is not None
            or options.expires is not None
            or self.owner.observers.taskBegun is not None
        )

    def describe(self) -> str:
        """
        Return what is called, in one short line.
        """
        return describeCall(*self.callTuple)

    def begin(self) -> None:
        """
        Note that the run starts now, and so does the clock of C{timeout=}; and tell observers. A
        hot path where there are such.
        """
        if self.state is not ASSIGNED:
            return
        self.state = BEGUN
        if self.options.timeout is not None:
            self.startClock()
        tell = self.owner.observers.taskBegun
        if tell is not None:
            try:
                tell(self, self.holder.worker)
            except BaseException:
                logFailed(tell)

    def startClock(self) -> None:
        """
        Start the clock of C{timeout=}, which there is: the run starts now.
        """
        timeout = self.options.timeout
        assert timeout is not None
        self._timer = self.owner.startTimer(timeout, self._timedOut)

    def callback(self, value: Any) -> None:
        """
        End the task with its value. A second end is ignored. With a Deferred,
        the task ends when that fires. What cannot be asked for its class is no value
        that a Deferred can carry: the task fails.
        """
        if self.state is ENDED:
            return
        kind = type(value)
        # Most values need no closer look; a class with a metaclass of somebody's may not be
        # looked up.
        if type(kind) is not type or kind not in VALUES:
            try:
                isDeferred = isOf(value, Deferred)
            except MaybeEncodingError as error:
                self.errback(Failure(error))
                return
            if isDeferred:
                value.addCallbacks(self.callback, self.errback)
                return
        self.state = ENDED
        if self._timer is not None:
            self._stopTimer()
        self.owner.taskEnded(self, value, False)
        d = self.d
        d.task = None
        try:
            d.callback(value)
        except AlreadyCalledError:
            # An observer has cancelled it as it heard of the end. To ask each whether it was
            # called would take longer.
            pass

    def errback(self, failure: Failure) -> None:
        """
        End the task with a failure. A second end is ignored.

        A L{WorkerLost} is not the end for a task that may be tried again.
        """
        if self.state is ENDED:
            return
        if not isinstance(failure, Failure):
            text = f"a worker ended {self.describe()} with {failure!r}, which is no Failure"
            failure = Failure(ImplementationError(text))
        if isinstance(failure.value, WorkerLost):
            self.owner.taskLost(self)
            # An observer may have ended it.
            if self.state is ENDED:
                return
            if self._spent < self.options.retries and self.owner.retryTask(self):
                return
        self._fail(failure)

    def putBack(self) -> None:
        """
        Take the task for one that was not begun, and waits for a worker again.
        """
        if self._timer is not None:
            self._stopTimer()
        self.state = QUEUED
        self.holder = None

    def nextAttempt(self, spent: int = 0) -> Task:
        """
        Return a new task for the same call and the same Deferred. From now on nothing that is done
        to this one has any effect.

        @param spent: how many of the retries this costs.
        """
        again = _NextAttempt(self.owner, *self.callTuple, self.options, self.ID)
        again.attempt = self.attempt + 1
        again._spent = self._spent + spent
        again._caller = self._caller
        again.tries = self.tries
        again.d = self.d
        again.d.task = again
        if self._timer is not None:
            self._stopTimer()
        self.state = ENDED
        return again

    def cancel(self) -> None:
        """
        Give the task up: its Deferred errbacks with C{CancelledError}.
        """
        self._giveUp(Failure(CancelledError()))

    def withdraw(self) -> None:
        """
        Fail the task with C{CancelledError}, as if it had never been queued: it counts
        for nothing.
        """
        self._fail(Failure(CancelledError()), counts=False)

    def expire(self) -> None:
        """
        Fail the task, which no worker has and which has not begun: its time is over.
        """
        seconds = self.options.expires
        assert seconds is not None
        self._fail(Failure(TaskExpired(self.describe(), seconds)))

    def _timedOut(self) -> None:
        self._timer = None
        timeout = self.options.timeout
        assert timeout is not None
        self._giveUp(Failure(TaskTimedOut(self.describe(), timeout)))

    def _giveUp(self, failure: Failure) -> None:
        if self.state is not ENDED:
            self._fail(failure, givenUp=self.holder is not None)

    def _fail(self, failure: Failure, givenUp: bool = False, counts: bool = True) -> None:
        if self._timer is not None:
            self._stopTimer()
        self.state = ENDED
        self.owner.taskEnded(self, failure, True, counts)
        if givenUp:
            self.owner.taskGivenUp(self)
        self.d.task = None
        if self.d.called:
            # What ran, as it was given up, cancelled the Deferred itself.
            return
        if self.options.returnFailure is False and not failure.check(CancelledError):
            _log.failure("{call} failed", failure, call=self.describe())
            self.d.callback(None)
        else:
            self.d.errback(failure)

    def _stopTimer(self) -> None:
        self._timer.cancel()
        self._timer = None


class _NextAttempt(Task):
    """
    An attempt to make a call after the first.
    """

    __slots__ = ("_spent", "attempt")


class Update(Task):
    """
    A call that is made to one worker, and not queued.
    """

    __slots__ = ()

    isUpdate = True


class LastingUpdate(Update):
    """
    One that the worker makes again if it begins anew.
    """

    __slots__ = ()

    lasting = True
