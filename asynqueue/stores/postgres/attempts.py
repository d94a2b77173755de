"""
How nodes take, begin and end jobs of a store in PostgreSQL.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from asynqueue.stores.jobrows import newJob
from asynqueue.stores.operations import Again, Begin, Claim, Claims, End, Ended, GiveBack
from asynqueue.stores.postgres.arrays import numbers, texts
from asynqueue.stores.postgres.schema import PLACE
from asynqueue.stores.postgres.transaction import (
    CANCELLED,
    CLAIM,
    EXPIRED,
    JOB,
    WAITING,
    Place,
    Transaction,
)
from asynqueue.stores.records import Attempt, Claimed, JobState, Outcome

_COLUMNS = len(JOB.split(","))

# Others that claim at the same time skip what this one has locked. Rows are found again by where
# they are: locked ones do not move.
_CLAIM = f"""
WITH want AS (
    SELECT * FROM unnest(%(series)s::text[], %(niceness)s::int2[], %(bands)s::int2[],
        %(counts)s::int8[]) WITH ORDINALITY AS w (series, niceness, band, count, nr)
    WHERE EXISTS (SELECT FROM node WHERE id = %(node)s)
), first AS MATERIALIZED (
    SELECT w.nr, f.* FROM want w CROSS JOIN LATERAL (
        SELECT t.ctid AS at, t.* FROM waiting t
        WHERE t.series = w.series AND t.niceness = w.niceness AND t.band = w.band
        ORDER BY t.seq LIMIT w.count FOR UPDATE SKIP LOCKED
    ) f
), taken AS (
    DELETE FROM waiting WHERE ctid = ANY (ARRAY(SELECT at FROM first))
), claimed AS (
    INSERT INTO claim ({PLACE}, seq, node, begun)
    SELECT job, series, niceness, band, CASE WHEN %(begun)s::float8 IS NULL THEN expires END,
        number + 1, counted, losses, due, failure, seq, %(node)s, %(begun)s::float8
    FROM first WHERE expires IS NULL OR expires > %(now)s
)
SELECT {", ".join(f"j.{name.strip()}" for name in JOB.split(","))}, j.created,
    {", ".join(f"f.{name.strip()}" for name in WAITING.split(","))}, f.nr
FROM first f JOIN job j ON j.id = f.job ORDER BY f.nr, f.seq"""

_ATTEMPTS = "unnest(%(jobs)s::uuid[], %(numbers)s::int4[]) AS a (id, nr)"
# Found by their jobs: an index of nodes would be gone through for each.
_OURS = "c.job = a.id AND c.number = a.nr AND c.node || '' = %(node)s"
_NAMED = ", ".join(f"c.{name.strip()}" for name in CLAIM.split(","))

_BEGIN = f"""
UPDATE claim c SET begun = COALESCE(c.begun, %(now)s), expires = NULL FROM {_ATTEMPTS}
WHERE {_OURS} AND (c.expires IS NULL OR c.expires > %(now)s) RETURNING c.job, c.number"""

_EXPIRE = f"""
DELETE FROM claim c USING {_ATTEMPTS}
WHERE {_OURS} AND c.expires <= %(now)s RETURNING {_NAMED}"""

_TAKE = f"DELETE FROM claim c USING {_ATTEMPTS} WHERE {_OURS} RETURNING {_NAMED}"
_TAKE_CLAIMED = f"""
DELETE FROM claim c USING {_ATTEMPTS} WHERE {_OURS} AND c.begun IS NULL RETURNING {_NAMED}"""

_BEFORE = f"""
SELECT c.job, c.number, c.kind FROM outcome c JOIN {_ATTEMPTS} ON {_OURS} FOR UPDATE OF c"""

_TAKE_LOST = """
WITH lost AS (DELETE FROM outcome WHERE job = ANY (%s::uuid[]) RETURNING *)
SELECT l.job, j.series, j.niceness, j.band, NULL, l.number, l.counted, l.losses, l.due, NULL, NULL,
    l.node, l.begun FROM lost l JOIN job j ON j.id = l.job"""


def claim(transaction: Transaction, operation: Claim) -> Claims:
    """
    Take jobs. Where some have expired, others are taken instead.
    """
    claimed: dict[int, list[Claimed]] = {}
    expired: list[Place] = []
    wants = {
        number: (want.flow, want.count)
        for number, want in enumerate(operation.wants)
        if want.count > 0 and want.flow.series not in transaction.paused
    }
    while wants:
        numbered = list(wants)
        flows = [wants[number][0] for number in numbered]
        rows = transaction.execute(
            _CLAIM,
            {
                "series": texts(flow.series for flow in flows),
                "niceness": numbers(flow.niceness for flow in flows),
                "bands": numbers(flow.band.value for flow in flows),
                "counts": numbers(wants[number][1] for number in numbered),
                "node": operation.node,
                "now": transaction.now,
                "begun": transaction.now if operation.begin else None,
            },
        )
        again: dict[int, int] = {}
        for row in rows:
            number = numbered[row[-1] - 1]
            place = Place(*row[_COLUMNS + 1 : -1])
            if place.expires is not None and place.expires <= transaction.now:
                expired.append(place)
                again[number] = again.get(number, 0) + 1
            else:
                claimed.setdefault(number, []).append(
                    Claimed(
                        newJob(row),
                        Attempt(place.job, place.number + 1),
                        row[_COLUMNS],
                        place.losses,
                        place.counted,
                    )
                )
        wants = {number: (wants[number][0], count) for number, count in again.items()}
    transaction.finishAs(EXPIRED, expired)
    return Claims(
        tuple(each for number in sorted(claimed) for each in claimed[number]),
        tuple(place.job for place in expired),
    )


def begin(transaction: Transaction, operations: Sequence[Begin]) -> list[frozenset[Attempt]]:
    """
    Begin the attempts of several operations of one node.
    """
    asked = [attempt for operation in operations for attempt in operation.attempts]
    parameters = {**_named(operations[0].node, asked), "now": transaction.now}
    begun = {Attempt(*row) for row in transaction.execute(_BEGIN, parameters)}
    if len(begun) < len(asked):
        transaction.finishAs(EXPIRED, transaction.places(_EXPIRE, parameters))
    return [begun.intersection(operation.attempts) for operation in operations]  # type: ignore[misc]


def end(transaction: Transaction, operations: Sequence[End]) -> list[frozenset[Attempt]]:
    """
    End the attempts of several operations of one node. No two operations have the same.
    """
    node = operations[0].node
    ends: dict[Attempt, Ended | Again] = {}
    asked = [each for operation in operations for each in operation.ends]
    more = [each for each in asked if ends.setdefault(each.attempt, each) is not each]
    accepted = _endEach(transaction, node, ends)
    if more:
        accepted |= end(transaction, [End(node, tuple(more))])[0]
    return [
        frozenset(each.attempt for each in operation.ends if each.attempt in accepted)
        for operation in operations
    ]


def _endEach(
    transaction: Transaction, node: str, ends: dict[Attempt, Ended | Again]
) -> set[Attempt]:
    """
    Return the attempts that were accepted.
    """
    places = transaction.places(_TAKE, _named(node, ends))
    taken = {Attempt(place.job, place.number): place for place in places}
    # Those that are repeated wait in the order in which they have ended.
    _finish(
        transaction, [(taken[attempt], each) for attempt, each in ends.items() if attempt in taken]
    )
    accepted = set(taken)
    if len(accepted) < len(ends):
        late = [
            each
            for attempt, each in ends.items()
            if attempt not in accepted and isinstance(each, Ended)
        ]
        accepted |= _acceptLate(transaction, node, late)
    return accepted


def _finish(transaction: Transaction, ends: Iterable[tuple[Place, Ended | Again]]) -> None:
    """
    End or repeat jobs whose claims are deleted.
    """
    finished: list[tuple[Place, Outcome]] = []
    waiting: list[Place] = []
    later: list[Place] = []
    for place, each in ends:
        if isinstance(each, Ended):
            finished.append((place, each.outcome))
        elif place.stopping:
            finished.append((place, CANCELLED))
        else:
            repeated = place._replace(
                seq=None,
                expires=None,
                counted=place.counted + each.isCounted,
                losses=place.losses + each.isLoss,
                due=transaction.now + max(0.0, each.delay),
                failure=each.summary,
            )
            (later if each.delay > 0 else waiting).append(repeated)
    transaction.finish(finished)
    transaction.wait(waiting)
    transaction.later(later)


def _acceptLate(transaction: Transaction, node: str, ends: Sequence[Ended]) -> set[Attempt]:
    """
    Return those attempts that have ended their jobs before. Lost jobs take their outcomes.
    """
    found = {
        Attempt(job, number): JobState(kind)
        for job, number, kind in transaction.execute(
            _BEFORE, _named(node, [each.attempt for each in ends])
        )
    }
    true = {
        each.attempt.id: each.outcome
        for each in ends
        if found.get(each.attempt) is JobState.LOST and each.outcome.kind is not JobState.LOST
    }
    if true:
        places = transaction.places(_TAKE_LOST, [texts(true)])
        transaction.finish([(place, true[place.job]) for place in places])
    return set(found)


def giveBack(transaction: Transaction, operation: GiveBack) -> frozenset[Attempt]:
    """
    Put jobs of a node back.
    """
    statement = _TAKE if operation.begun else _TAKE_CLAIMED
    places = transaction.places(statement, _named(operation.node, operation.attempts))
    transaction.giveBack(places)
    return frozenset(Attempt(place.job, place.number) for place in places)


def _named(node: str, attempts: Iterable[Attempt]) -> dict[str, str]:
    attempts = list(attempts)
    return {
        "node": node,
        "jobs": texts(attempt.id for attempt in attempts),
        "numbers": numbers(attempt.number for attempt in attempts),
    }
