"""
One transaction on a store in PostgreSQL, and how jobs go from one state to another in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from psycopg import Connection, Cursor

from asynqueue.stores.jobrows import COLUMNS, flowOf
from asynqueue.stores.postgres.arrays import blobs, numbers, texts
from asynqueue.stores.postgres.schema import PLACE
from asynqueue.stores.records import (
    Flow,
    JobState,
    Outcome,
    StoreEvent,
)

CANCELLED = Outcome(kind=JobState.CANCELLED)
EXPIRED = Outcome(kind=JobState.EXPIRED)

# The columns of a new job, in the order of what makes it again.
JOB = ", ".join(COLUMNS)


class Place(NamedTuple):
    """
    A row of a narrow table; what only claims have is C{None} in others.
    """

    job: str
    series: str
    niceness: int
    band: int
    expires: float | None
    number: int
    counted: int
    losses: int
    due: float
    failure: str | None
    seq: int | None = None
    node: str | None = None
    begun: float | None = None
    stopping: bool = False

    @property
    def flow(self) -> Flow:
        return flowOf(self.series, self.niceness, self.band)


# What is returned where a claim is deleted.
CLAIM = f"{PLACE}, seq, node, begun, stopping"
WAITING = f"{PLACE}, seq"

_WAIT = f"""
INSERT INTO waiting ({PLACE}, seq)
SELECT {PLACE}, COALESCE(seq, nextval('seq')) FROM (
    SELECT * FROM unnest(%s::uuid[], %s::text[], %s::int2[], %s::int2[], %s::float8[], %s::int4[],
        %s::int4[], %s::int4[], %s::float8[], %s::text[], %s::int8[])
    WITH ORDINALITY AS p ({PLACE}, seq, nr) ORDER BY nr) p"""

_LATER = f"""
INSERT INTO later ({PLACE})
SELECT * FROM unnest(%s::uuid[], %s::text[], %s::int2[], %s::int2[], %s::float8[], %s::int4[],
    %s::int4[], %s::int4[], %s::float8[], %s::text[])"""

_FINISH = """
WITH freed AS (DELETE FROM held WHERE job = ANY (%(jobs)s::uuid[]))
INSERT INTO outcome (job, kind, number, counted, losses, due, node, begun, codec, value, error,
    summary, ended, until)
SELECT e.*, %(now)s,
    %(now)s + CASE WHEN e.kind IN ('failed', 'lost') THEN j.keep_dead ELSE j.keep END
FROM unnest(%(jobs)s::uuid[], %(kinds)s::text[], %(numbers)s::int4[], %(counted)s::int4[],
    %(losses)s::int4[], %(due)s::float8[], %(nodes)s::text[], %(begun)s::float8[],
    %(codecs)s::text[], %(values)s::bytea[], %(errors)s::bytea[], %(summaries)s::text[])
    AS e (job, kind, number, counted, losses, due, node, begun, codec, value, error, summary)
JOIN job j ON j.id = e.job"""


class Transaction:
    """
    A transaction, and what it has changed so far.

    @ivar now: when it is, by the server's clock; after all it has had to wait for.
    @ivar isHeard: whether other programs want to hear what it changes.
    """

    def __init__(
        self,
        connection: Connection[Any],
        now: float,
        paused: Iterable[str],
        isHeard: bool = False,
    ) -> None:
        self.now = now
        self.isHeard = isHeard
        self.paused = frozenset(paused)
        self._connection = connection
        self._flows: dict[Flow, None] = {}
        self._ended: list[str] = []
        self._stopping: list[str] = []
        self._hasLater = False

    def execute(self, statement: str, parameters: Any = None) -> Cursor[Any]:
        """
        Execute a statement of ours.
        """
        return self._connection.execute(statement, parameters)

    def places(self, statement: str, parameters: Any = None) -> list[Place]:
        """
        Execute a statement that returns L{CLAIM}, L{WAITING}, or C{PLACE}.
        """
        return [Place(*row) for row in self.execute(statement, parameters)]

    def event(self) -> StoreEvent:
        """
        Return what it has changed.
        """
        flows = tuple(flow for flow in self._flows if flow.series not in self.paused)
        return StoreEvent(flows, tuple(self._ended), tuple(self._stopping), self._hasLater)

    def nowWaiting(self, flows: Iterable[Flow]) -> None:
        """
        Note that flows have jobs that can be claimed.
        """
        self._flows.update(dict.fromkeys(flows))

    def nowLater(self) -> None:
        """
        Note that there are jobs that are due later.
        """
        self._hasLater = True

    def nowStopping(self, jobs: Iterable[str]) -> None:
        """
        Note that running jobs are cancelled.
        """
        self._stopping.extend(jobs)

    def wait(self, places: Sequence[Place]) -> None:
        """
        Let jobs wait, where they have been, or in this order at the end if they have no C{seq}.
        """
        if places:
            self.execute(_WAIT, [*_columns(places), numbers(place.seq for place in places)])
            self.nowWaiting(place.flow for place in places)

    def later(self, places: Sequence[Place]) -> None:
        """
        Let jobs wait until they are due.
        """
        if places:
            self.execute(_LATER, _columns(places))
            self.nowLater()

    def giveBack(self, claims: Iterable[Place]) -> None:
        """
        Let jobs whose claims are deleted wait in their old places. Those that were cancelled as
        they ran have ended.
        """
        claims = list(claims)
        self.finishAs(CANCELLED, (claim for claim in claims if claim.stopping))
        self.wait(
            [
                # The number of an attempt that was not begun is free again.
                claim._replace(number=claim.number - (claim.begun is None))
                for claim in claims
                if not claim.stopping
            ]
        )

    def finishAs(self, outcome: Outcome, places: Iterable[Place]) -> None:
        """
        End jobs whose places are deleted alike.
        """
        self.finish([(place, outcome) for place in places])

    def finish(self, ends: Sequence[tuple[Place, Outcome]]) -> None:
        """
        End jobs whose places are deleted.
        """
        if not ends:
            return
        places = [place for place, _ in ends]
        outcomes = [outcome for _, outcome in ends]
        ids = [place.job for place in places]
        self.execute(
            _FINISH,
            {
                "now": self.now,
                "jobs": texts(ids),
                "kinds": texts(outcome.kind.value for outcome in outcomes),
                "numbers": numbers(place.number for place in places),
                "counted": numbers(place.counted for place in places),
                "losses": numbers(place.losses for place in places),
                "due": numbers(place.due for place in places),
                "nodes": texts(place.node for place in places),
                "begun": numbers(place.begun for place in places),
                "codecs": texts(outcome.codec for outcome in outcomes),
                "values": blobs(outcome.value for outcome in outcomes),
                "errors": blobs(outcome.error for outcome in outcomes),
                "summaries": texts(outcome.summary for outcome in outcomes),
            },
        )
        self._ended.extend(ids)


def _columns(places: Sequence[Place]) -> list[str]:
    """
    Return arrays of what all narrow tables have.
    """
    return [
        texts(place.job for place in places),
        texts(place.series for place in places),
        numbers(place.niceness for place in places),
        numbers(place.band for place in places),
        numbers(place.expires for place in places),
        numbers(place.number for place in places),
        numbers(place.counted for place in places),
        numbers(place.losses for place in places),
        numbers(place.due for place in places),
        texts(place.failure for place in places),
    ]
