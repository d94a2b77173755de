"""
How jobs are added to a store in PostgreSQL.
"""

from __future__ import annotations

from collections.abc import Sequence

from asynqueue.stores.errors import KeyTaken
from asynqueue.stores.operations import Add
from asynqueue.stores.postgres.arrays import blobs, numbers, texts
from asynqueue.stores.postgres.schema import PLACE
from asynqueue.stores.postgres.transaction import CANCELLED, CLAIM, JOB, WAITING, Transaction
from asynqueue.stores.records import Added, JobState, NewJob, OnTaken

_ADD = f"""
WITH given AS MATERIALIZED (
    SELECT * FROM unnest(%s::uuid[], %s::text[], %s::bytea[], %s::text[], %s::bytea[], %s::text[],
        %s::int2[], %s::int2[], %s::int4[], %s::bool[], %s::text[], %s::text[], %s::float8[],
        %s::float8[], %s::float8[], %s::float8[], %s::text[], %s::text[])
    WITH ORDINALITY AS g ({JOB}, nr)
), stored AS (
    INSERT INTO job ({JOB}, created)
    SELECT {JOB}, %s FROM given ORDER BY nr ON CONFLICT (id) DO NOTHING RETURNING id, created
), new AS MATERIALIZED (
    SELECT id, series, niceness, band, created + expires AS expires, created,
        created + greatest(after, 0) AS due, key, nr
    FROM given JOIN stored USING (id)
), places AS (
    INSERT INTO waiting (job, series, niceness, band, expires, due)
    SELECT id, series, niceness, band, expires, due FROM new WHERE due <= created ORDER BY nr
), put_off AS (
    INSERT INTO later (job, series, niceness, band, expires, due)
    SELECT id, series, niceness, band, expires, due FROM new WHERE due > created
), keyed AS (
    INSERT INTO held (key, job) SELECT key, id FROM new WHERE key IS NOT NULL
)
SELECT id FROM stored"""

_STATES = "SELECT id, state FROM record WHERE id = ANY (%s::uuid[])"
_HOLDERS = """
SELECT h.key, r.id, r.state FROM held h JOIN record r ON r.id = h.job WHERE h.key = ANY (%s)"""


def add(transaction: Transaction, operations: Sequence[Add]) -> list[Sequence[Added | KeyTaken]]:
    """
    Add the jobs of several operations at once.
    """
    adding = _Adding(transaction, [job for operation in operations for job in operation.jobs])
    answers = adding.answers()
    split = []
    first = 0
    for operation in operations:
        split.append(answers[first : first + len(operation.jobs)])
        first += len(operation.jobs)
    return split  # type: ignore[return-value]


class _Adding:
    """
    Decides for each job, in their order, whether it is stored, and stores those at once.

    Nobody else adds jobs with keys meanwhile: the transaction has the lock of keys.
    """

    def __init__(self, transaction: Transaction, jobs: Sequence[NewJob]) -> None:
        self._transaction = transaction
        self._jobs = jobs
        self._fresh: dict[str, NewJob] = {}
        self._states: dict[str, JobState] = {}
        self._holders: dict[str, str] = {}

    def answers(self) -> tuple[Added | KeyTaken, ...]:
        """
        Add the jobs, and say what became of each.
        """
        keys = list({job.key for job in self._jobs if job.key is not None})
        if keys:
            self._look(keys)
        asked = [self._decide(job) for job in self._jobs]
        self._store()
        unknown = [each for each in asked if isinstance(each, str) and each not in self._states]
        self._learn(unknown)
        return tuple(
            Added(each, self._states[each]) if isinstance(each, str) else each for each in asked
        )

    def _look(self, keys: list[str]) -> None:
        """
        Learn who has the keys, and which of the jobs with keys are known.
        """
        for key, id, state in self._transaction.execute(_HOLDERS, [keys]):
            self._holders[key], self._states[id] = id, JobState(state)
        self._learn([job.id for job in self._jobs if job.key is not None])

    def _learn(self, ids: list[str]) -> None:
        if ids:
            for id, state in self._transaction.execute(_STATES, [texts(ids)]):
                self._states[id] = JobState(state)

    def _decide(self, job: NewJob) -> str | Added | KeyTaken:
        """
        Return what becomes of a job; its ID if that is known when it is stored.
        """
        key, id = job.key, job.id
        if id in self._states:
            return Added(id, self._states[id])
        if id in self._fresh:
            return id
        if key is not None and (holder := self._holders.get(key)) is not None:
            state = self._states[holder]
            if job.onTaken is OnTaken.JOIN:
                return Added(holder, state, joined=True)
            if job.onTaken is OnTaken.REJECT or state is JobState.RUNNING:
                return KeyTaken(key, holder)
            self._store()
            _cancel(self._transaction, holder)
            self._states[holder] = JobState.CANCELLED
        self._fresh[id] = job
        if key is None:
            return id
        self._holders[key] = id
        self._states[id] = JobState.LATER if job.after > 0 else JobState.WAITING
        return Added(id, self._states[id])

    def _store(self) -> None:
        """
        Store the jobs that were found to be new.
        """
        jobs, self._fresh = list(self._fresh.values()), {}
        if not jobs:
            return
        flows = [job.flow for job in jobs]
        rows = self._transaction.execute(
            _ADD,
            [
                texts(job.id for job in jobs),
                texts(job.name for job in jobs),
                blobs(job.payload for job in jobs),
                texts(job.codec for job in jobs),
                blobs(job.options for job in jobs),
                texts(flow.series for flow in flows),
                numbers(flow.niceness for flow in flows),
                numbers(flow.band.value for flow in flows),
                numbers(job.attempts for job in jobs),
                numbers(job.loss for job in jobs),
                texts(job.key for job in jobs),
                texts(job.onTaken.value for job in jobs),
                numbers(job.after for job in jobs),
                numbers(job.expires for job in jobs),
                numbers(job.keep for job in jobs),
                numbers(job.keepDead for job in jobs),
                texts(job.trace for job in jobs),
                texts(job.parent for job in jobs),
                self._transaction.now,
            ],
        )
        stored = {row[0] for row in rows}
        isLater = False
        for job in jobs:
            if job.id in stored:
                self._states[job.id] = JobState.LATER if job.after > 0 else JobState.WAITING
                isLater |= job.after > 0
            else:
                self._states.pop(job.id, None)
        self._transaction.nowWaiting(
            job.flow for job in jobs if self._states.get(job.id) is JobState.WAITING
        )
        if isLater:
            self._transaction.nowLater()


def _cancel(transaction: Transaction, id: str) -> None:
    """
    Cancel a job that does not run.
    """
    for table, columns in ("waiting", WAITING), ("later", PLACE), ("claim", CLAIM):
        found = transaction.places(f"DELETE FROM {table} WHERE job = %s RETURNING {columns}", [id])
        transaction.finishAs(CANCELLED, found)
