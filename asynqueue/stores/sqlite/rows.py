"""
Rows of a store in SQLite, and the records that are made of them. No Twisted.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from asynqueue.stores.jobrows import COLUMNS, flowOf, newJob
from asynqueue.stores.records import (
    Flow,
    JobRecord,
    JobState,
    NewJob,
    NodeRecord,
    Outcome,
)

WAITING, LATER, CLAIMED, RUNNING = range(4)

STATES = (JobState.WAITING, JobState.LATER, JobState.CLAIMED, JobState.RUNNING)

# The columns of a job that make it again.
JOB = ", ".join(f"j.{name}" for name in COLUMNS)

# The columns of L{Place}.
PLACE = (
    "j.id, p.n, p.state, p.series, p.niceness, p.band, p.seq, p.number, p.counted, p.losses, p.due,"
    " p.expires, p.node, p.begun, p.stopping, p.key, p.keep, p.keep_dead"
)

# The row of a new place: no attempt has been made, and no node has it.
NEW_PLACE = "?, ?, ?, ?, ?, ?, 0, 0, 0, ?, ?, NULL, NULL, 0, NULL, ?, ?, ?"

# The columns of a record, after those of a job.
RECORD = (
    "j.created, p.state, p.number, p.counted, p.losses, p.due, p.begun, p.node, p.stopping,"
    " p.failure, o.kind, o.number, o.counted, o.losses, o.due, o.begun, o.node, o.ended, o.until,"
    " o.codec, o.value, o.error, o.summary"
)


class Place(NamedTuple):
    """
    Where a job is that has not ended, and all that its moves depend on.

    @ivar n: the number of the job in this database.
    @ivar seq: its place in its flow.
    """

    id: str
    n: int
    state: int
    series: str
    niceness: int
    band: int
    seq: int
    number: int
    counted: int
    losses: int
    due: float
    expires: float | None
    node: str | None
    begun: float | None
    stopping: int
    key: str | None
    keep: float
    keepDead: float

    @property
    def flow(self) -> Flow:
        return flowOf(self.series, self.niceness, self.band)

    def isExpired(self, now: float) -> bool:
        """
        Tell whether its time is over. That of one that has begun never is.
        """
        return self.expires is not None and self.expires <= now


def jobRow(n: int, job: NewJob, now: float) -> tuple[Any, ...]:
    """
    Return the row of a new job, in the order of the columns of its table. A hot path.
    """
    flow = job.flow
    return (
        n,
        job.id,
        job.name,
        job.codec,
        flow.series,
        flow.niceness,
        flow.band.value,
        job.attempts,
        job.loss,
        job.key,
        job.onTaken.value,
        job.after,
        job.expires,
        job.keep,
        job.keepDead,
        job.trace,
        job.parent,
        now,
        job.options,
        job.payload,
    )


def placeRow(n: int, seq: int, job: NewJob, now: float) -> tuple[Any, ...]:
    """
    Return the first place of a new job, in the order of L{NEW_PLACE}. A hot path.
    """
    flow = job.flow
    isLater = job.after > 0
    return (
        n,
        LATER if isLater else WAITING,
        flow.series,
        flow.niceness,
        flow.band.value,
        seq,
        now + job.after if isLater else now,
        None if job.expires is None else now + job.expires,
        job.key,
        job.keep,
        job.keepDead,
    )


def record(row: Sequence[Any]) -> JobRecord:
    """
    Return the record of a row with the columns L{JOB} and L{RECORD}.
    """
    created, *rest = row[len(COLUMNS) :]
    state, *place = rest[:9]
    kind, *end = rest[9:]
    if kind is None:
        number, counted, losses, due, begun, node, stopping, failure = place
        return JobRecord(
            job=newJob(row),
            state=STATES[state],
            attempt=number,
            counted=counted,
            losses=losses,
            created=created,
            due=due,
            begun=begun,
            node=node,
            stopping=bool(stopping),
            failure=failure,
        )
    number, counted, losses, due, begun, node, ended, until, codec, value, error, summary = end
    outcome = Outcome(kind=JobState(kind), codec=codec, value=value, error=error, summary=summary)
    return JobRecord(
        job=newJob(row),
        state=outcome.kind,
        attempt=number,
        counted=counted,
        losses=losses,
        created=created,
        due=due,
        begun=begun,
        ended=ended,
        node=node,
        outcome=outcome,
        until=until,
    )


def nodeRecord(row: Sequence[Any]) -> NodeRecord:
    """
    Return the record of a row of the table of nodes.
    """
    return NodeRecord(
        id=row[0],
        name=row[1],
        host=row[2],
        pid=row[3],
        version=row[4],
        series=tuple(json.loads(row[5])),
        slots=row[6],
        started=row[7],
        leaseUntil=row[8],
    )
