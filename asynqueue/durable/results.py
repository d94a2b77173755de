"""
Those who wait for the outcomes of jobs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from asynqueue.durable.errors import (
    JobCancelled,
    JobError,
    JobExpired,
    JobLost,
    ResultNotKept,
    UnknownJob,
)
from asynqueue.durable.payloads import Payloads
from asynqueue.errors import QueueRunError, RemoteError
from asynqueue.stores.interfaces import IStore
from asynqueue.stores.operations import Again, Ended, Find
from asynqueue.stores.records import Attempt, JobFilter, JobRecord, JobState, Outcome
from asynqueue.timers import Timer

_log = Logger()

# The seconds after which those who wait are looked after again, when the store was away.
_PAUSE = 1.0

_ERRORS: dict[JobState, type[JobError]] = {
    JobState.LOST: JobLost,
    JobState.CANCELLED: JobCancelled,
    JobState.EXPIRED: JobExpired,
}


class Results:
    """
    Fires Deferreds with the outcomes of jobs.
    """

    def __init__(
        self,
        store: IStore,
        payloads: Payloads,
        callLater: Callable[[float, Callable[[], None]], Any],
    ) -> None:
        self._store = store
        self._payloads = payloads
        self._waiting: dict[str, list[Deferred[Any]]] = {}
        # Those that the store need not know yet.
        self._new: set[str] = set()
        self._timer = Timer(callLater)

    def __len__(self) -> int:
        """
        Return for how many jobs somebody waits.
        """
        return len(self._waiting)

    def wait(self, id: str, *, isNew: bool = False) -> Deferred[Any]:
        """
        Wait for the outcome of a job. To cancel the Deferred ends the waiting, and harms no job.

        @param isNew: whether the job is about to be added: then the store is not asked, and
            L{added} is called when that is done.
        """

        def forget(d: Deferred[Any]) -> None:
            waiting = self._waiting.get(id, [])
            if d in waiting:
                waiting.remove(d)
                if not waiting:
                    del self._waiting[id]

        d: Deferred[Any] = Deferred(forget)
        self._waiting.setdefault(id, []).append(d)
        if isNew:
            self._new.add(id)
        else:
            self._lookFor(frozenset((id,)), isFirst=True)
        return d

    def added(self, id: str) -> None:
        """
        Hear that a job that was about to be added is stored, or will not be.
        """
        self._new.discard(id)

    def ended(self, ids: Iterable[str]) -> None:
        """
        Hear that jobs have outcomes.
        """
        wanted = self._waiting.keys() & set(ids)
        if wanted:
            self._lookFor(frozenset(wanted))

    def lookAgain(self) -> None:
        """
        Look for all: something may have been missed.
        """
        if self._waiting:
            self._lookFor(frozenset(self._waiting))

    def stored(self, ends: Sequence[Ended | Again], accepted: frozenset[Attempt]) -> None:
        """
        Hear of outcomes that this program has stored. A hot path, where anybody waits.
        """
        refused = set()
        for end in ends:
            id = end.attempt.id
            if id in self._waiting and isinstance(end, Ended):
                if end.attempt in accepted:
                    self._fire(id, end.outcome)
                else:
                    # It may have ended in another way, at the same time.
                    refused.add(id)
        if refused:
            self._lookFor(frozenset(refused))

    def stop(self, what: str) -> None:
        """
        Fail all that wait.
        """
        self._timer.stop()
        for id in list(self._waiting):
            for d in self._waiting.pop(id, ()):
                d.errback(QueueRunError(f"{what} {id}"))

    def _lookFor(self, ids: frozenset[str], isFirst: bool = False) -> None:
        d: Deferred[Sequence[JobRecord]] = self._store.do(Find(JobFilter(ids=ids), count=len(ids)))
        d.addCallbacks(self._found, self._notFound, (ids,), errbackArgs=(ids, isFirst))

    def _found(self, records: Sequence[JobRecord], ids: frozenset[str]) -> None:
        for record in records:
            if record.outcome is not None:
                self._fire(record.job.id, record.outcome, record.job.name)
        for id in ids - self._new - {record.job.id for record in records}:
            for d in self._waiting.pop(id, ()):
                d.errback(UnknownJob(id))

    def _notFound(self, failure: Failure, ids: frozenset[str], isFirst: bool) -> None:
        """
        Tell who has just asked, and try again for those who wait.
        """
        if isFirst:
            for id in ids:
                for d in self._waiting.pop(id, ()):
                    d.errback(failure)
        elif not self._timer.isRunning and self._waiting:
            self._timer.start(_PAUSE, self.lookAgain)

    def _fire(self, id: str, outcome: Outcome, name: str = "") -> None:
        for d in self._waiting.pop(id, ()):
            try:
                value = self._valueOf(id, outcome, name)
            except Exception as error:
                # What a store has may be anything.
                value = Failure(error)
            d.callback(value)

    def _valueOf(self, id: str, outcome: Outcome, name: str) -> Any:
        if outcome.kind is JobState.DONE:
            if outcome.value is None:
                raise ResultNotKept(id, outcome.summary or "")
            return self._payloads.value(name or id, outcome)
        failure = self._payloads.failure(outcome)
        if outcome.kind is JobState.FAILED:
            return failure or Failure(RemoteError("Exception", outcome.summary or "unknown"))
        error = _ERRORS[outcome.kind](id, outcome.summary or "")
        error.__cause__ = None if failure is None else failure.value
        return Failure(error)
