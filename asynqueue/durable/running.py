"""
The jobs that this program has begun, on the workers of a queue.

::

    claimed ─▶ begin: resolve, read the arguments ─▶ TaskQueue.callWith ─▶ the outcome
                 │ unreadable                            │ not begun         │
                 ▼                                       ▼                   ▼
               failed                                given back     ended, or again
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from asynqueue.durable.errors import JobUnreadable
from asynqueue.durable.options import Retry, Running, runningOf
from asynqueue.durable.payloads import Payloads
from asynqueue.errors import GiveUp, QueueRunError, Snooze, WorkerLost
from asynqueue.outcome import describeCall, oneLine
from asynqueue.scheduling.options import CallOptions, makeOptions
from asynqueue.stores.operations import Again, Ended
from asynqueue.stores.records import Band, Claimed, JobState, NewJob, Outcome
from asynqueue.taskqueue import TaskQueue

# How many kinds of jobs are kept as they were looked up.
_KEPT = 1024

_CANCELLED = Outcome(kind=JobState.CANCELLED)


class Run:
    """
    One attempt of a job that runs here.

    @ivar node: the ID of the node that has begun it.
    @ivar d: what the queue has given for it, once it has it.
    """

    __slots__ = ("claimed", "d", "f", "node", "retry")

    def __init__(self, claimed: Claimed, node: str) -> None:
        self.claimed = claimed
        self.node = node
        self.f: Any = None
        self.retry: Retry | None = None
        self.d: Deferred[Any] | None = None


class RunsDelegate(Protocol):
    """
    Who hears how the attempts go on: of each one of these, once.
    """

    def runEnded(self, run: Run, end: Ended | Again) -> None:
        """
        Hear that an attempt has ended. A hot path.
        """

    def runGivenBack(self, run: Run) -> None:
        """
        Hear that an attempt has surely not begun, and will not.
        """


class _Kind:
    """
    What jobs of the same name and options have in common.
    """

    __slots__ = ("f", "options", "retry")

    def __init__(self, f: Callable[..., Any], options: CallOptions, retry: Retry) -> None:
        self.f = f
        self.options = options
        self.retry = retry


class Runs:
    """
    Gives attempts to a queue, and says what is to be stored of their ends.
    """

    def __init__(self, tasks: TaskQueue, payloads: Payloads, delegate: RunsDelegate) -> None:
        self._tasks = tasks
        self._payloads = payloads
        self._delegate = delegate
        self._runs: dict[Run, None] = {}
        self._kinds: dict[Any, _Kind] = {}
        # The latest one of them, with a job of that kind: mostly the next job is of the same.
        self._latest: tuple[NewJob, _Kind] | None = None

    def __len__(self) -> int:
        return len(self._runs)

    def __iter__(self) -> Iterator[Run]:
        return iter(list(self._runs))

    def begin(self, claimed: Claimed, node: str) -> None:
        """
        Have an attempt run that the store knows to have begun. It may end within this call. A hot
        path.
        """
        run = Run(claimed, node)
        new = claimed.job
        self._runs[run] = None
        try:
            latest = self._latest
            if latest is not None and _isLike(new, latest[0]):
                kind = latest[1]
            else:
                kind = self._kindOf(new)
            run.f, run.retry = kind.f, kind.retry
            args, kw = self._payloads.unpackCall(new.name, new.codec, new.payload)
        except JobUnreadable as error:
            self._end(run, Ended(claimed.attempt, self._payloads.raised(Failure(error))))
            return
        try:
            d = self._tasks.callWith(kind.options, kind.f, *args, **kw)
        except QueueRunError:
            # It was shut down, by others or with the reactor.
            self._giveBack(run)
            return
        run.d = d
        d.addCallbacks(self._returned, self._failed, callbackArgs=(run,), errbackArgs=(run,))

    def withdraw(self, chosen: Callable[[NewJob], bool] = lambda job: True) -> None:
        """
        Give back the attempts that no worker has.
        """
        for run in list(self._runs):
            if run.d is not None and chosen(run.claimed.job):
                # The run is not known any more as the Deferred fails.
                del self._runs[run]
                if self._tasks.withdraw(run.d):
                    self._delegate.runGivenBack(run)
                else:
                    self._runs[run] = None

    def cancel(self, ids: Iterable[str]) -> None:
        """
        End the attempts of some jobs.
        """
        wanted = frozenset(ids)
        for run in list(self._runs):
            if run.claimed.attempt.id in wanted and run.d is not None:
                run.d.cancel()

    def _kindOf(self, new: NewJob) -> _Kind:
        """
        @raise JobUnreadable: it cannot be called.
        """
        key = new.name, new.options, new.flow, new.attempts, new.loss
        kind = self._kinds.get(key)
        if kind is None:
            kind = self._lookUp(new)
            if len(self._kinds) >= _KEPT:
                self._kinds.clear()
            self._kinds[key] = kind
        self._latest = new, kind
        return kind

    def _lookUp(self, new: NewJob) -> _Kind:
        f = self._payloads.resolve(new.name)
        running: Running = runningOf(new.name, new.options, new.attempts, new.loss)
        flow = new.flow
        options = makeOptions(
            flow.niceness,
            flow.series or None,
            flow.band is Band.NEXT,
            flow.band is Band.LAST,
            running.timeout,
            0,
            None,
            True,
        )
        return _Kind(f, options, running.retry)

    # Ends

    def _returned(self, value: Any, run: Run) -> None:
        """
        Hear what an attempt has returned. A hot path.
        """
        if run in self._runs:
            self._end(run, Ended(run.claimed.attempt, self._payloads.returned(value)))

    def _failed(self, failure: Failure, run: Run) -> None:
        if run not in self._runs:
            return
        error = failure.value
        isUnmade = isinstance(error, QueueRunError) or (
            isinstance(error, WorkerLost) and not error.begun
        )
        if isUnmade and self._isOurs(failure, run):
            self._giveBack(run)
            return
        self._end(run, self._endOf(run, failure))

    def _isOurs(self, failure: Failure, run: Run) -> bool:
        """
        Tell whether a failure is what the queue says of the call, and not what the call has raised,
        which may use queues itself.
        """
        error = failure.value
        assert error is not None
        if error.__traceback__ is not None or error.__cause__ is not None:
            return False
        new = run.claimed.job
        args, kw = self._payloads.unpackCall(new.name, new.codec, new.payload)
        return error.args[0] == describeCall(run.f, tuple(args), kw)  # type: ignore[no-any-return]

    def _endOf(self, run: Run, failure: Failure) -> Ended | Again:
        attempt, error = run.claimed.attempt, failure.value
        assert error is not None
        assert run.retry is not None
        summary = oneLine(error)
        isLoss = isinstance(error, WorkerLost) and self._isOurs(failure, run)
        match error:
            case CancelledError():
                return Ended(attempt, _CANCELLED)
            case Snooze():
                return Again(attempt, error.seconds, isCounted=False, summary=summary)
            case GiveUp():
                return Ended(attempt, self._payloads.raised(failure))
        counted = run.claimed.counted + 1
        mayRepeat = run.retry.loss if isLoss else run.retry.covers(error)
        if mayRepeat and counted < run.retry.attempts:
            delay = 0.0 if isLoss else run.retry.delayAfter(counted, random.random())
            return Again(attempt, delay, isLoss=isLoss, summary=summary)
        kind = JobState.LOST if isLoss else JobState.FAILED
        return Ended(attempt, self._payloads.raised(failure, kind))

    def _end(self, run: Run, end: Ended | Again) -> None:
        del self._runs[run]
        self._delegate.runEnded(run, end)

    def _giveBack(self, run: Run) -> None:
        del self._runs[run]
        self._delegate.runGivenBack(run)


def _isLike(new: NewJob, other: NewJob) -> bool:
    """
    Tell whether two jobs are of the same kind, as far as that is seen at a glance: stores use the
    same object for equal flows. A hot path.
    """
    return (
        new.flow is other.flow
        and new.name == other.name
        and new.options == other.options
        and new.attempts == other.attempts
        and new.loss == other.loss
    )
