"""
Which jobs of a store in PostgreSQL wait, and from when on.
"""

from __future__ import annotations

from collections.abc import Sequence

from asynqueue.stores.jobrows import flowOf
from asynqueue.stores.operations import (
    FlowCount,
    Flows,
    Pause,
    Paused,
    Prune,
    Resume,
    Ripen,
    Ripened,
)
from asynqueue.stores.postgres.arrays import texts
from asynqueue.stores.postgres.schema import PLACE
from asynqueue.stores.postgres.transaction import EXPIRED, Transaction

# How many jobs ripen at once.
_MOST = 10_000

# Goes from flow to flow by the index, however many jobs each has.
_FLOWS = """
WITH RECURSIVE flow AS (
    (SELECT series, niceness, band FROM waiting ORDER BY series, niceness, band LIMIT 1)
    UNION ALL
    SELECT n.* FROM flow f CROSS JOIN LATERAL (
        SELECT series, niceness, band FROM waiting
        WHERE (series, niceness, band) > (f.series, f.niceness, f.band)
        ORDER BY series, niceness, band LIMIT 1
    ) n
)
SELECT f.series, f.niceness, f.band, (
    SELECT count(*) FROM (
        SELECT FROM waiting w
        WHERE (w.series, w.niceness, w.band) = (f.series, f.niceness, f.band)
        ORDER BY w.seq LIMIT 10000
    ) found
)
FROM flow f
WHERE NOT EXISTS (SELECT FROM paused p WHERE p.series = f.series)"""

_RIPEN = f"""
WITH ripe AS (
    DELETE FROM later WHERE job = ANY (ARRAY(
        SELECT job FROM later WHERE due <= %(now)s ORDER BY due LIMIT {_MOST}
        FOR UPDATE SKIP LOCKED))
    RETURNING {PLACE}
), waits AS (
    INSERT INTO waiting ({PLACE}) SELECT {PLACE} FROM ripe ORDER BY due, job
)
SELECT DISTINCT series, niceness, band FROM ripe"""

# What somebody else takes or ripens at this moment is not expired by us.
_EXPIRED = f"""
DELETE FROM {{table}} WHERE job = ANY (ARRAY(
    SELECT job FROM {{table}} WHERE expires <= %s ORDER BY expires LIMIT %s
    FOR UPDATE SKIP LOCKED))
RETURNING {PLACE}"""

_FORGET = """
WITH old AS (
    DELETE FROM outcome WHERE job = ANY (ARRAY(
        SELECT job FROM outcome WHERE until <= %s ORDER BY until LIMIT %s FOR UPDATE SKIP LOCKED))
    RETURNING job
)
DELETE FROM job USING old WHERE id = old.job"""


def flows(transaction: Transaction, operation: Flows) -> Sequence[FlowCount]:
    """
    Count what waits.
    """
    rows = transaction.execute(_FLOWS).fetchall()
    wanted = operation.series
    return tuple(
        FlowCount(flowOf(series, niceness, band), count)
        for series, niceness, band, count in rows
        if wanted is None or series in wanted
    )


def ripen(transaction: Transaction, operation: Ripen) -> Ripened:
    """
    Let those that are due wait.
    """
    ripe = [flowOf(*row) for row in transaction.execute(_RIPEN, {"now": transaction.now})]
    transaction.nowWaiting(ripe)
    row = transaction.execute("SELECT min(due) FROM later").fetchone()
    if row is None or row[0] is None:
        return Ripened(tuple(ripe), None)
    return Ripened(tuple(ripe), max(0.0, row[0] - transaction.now))


def pause(transaction: Transaction, operation: Pause) -> None:
    """
    Pause a series.
    """
    transaction.execute(
        "INSERT INTO paused (series, at, who) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
        [operation.series, transaction.now, operation.who],
    )
    note(transaction, operation.who, "pause", operation.series, 1)
    transaction.paused |= {operation.series}


def resume(transaction: Transaction, operation: Resume) -> None:
    """
    Resume a series.
    """
    transaction.execute("DELETE FROM paused WHERE series = %s", [operation.series])
    transaction.paused -= {operation.series}
    found = flows(transaction, Flows(frozenset({operation.series})))
    transaction.nowWaiting(each.flow for each in found)
    note(transaction, operation.who, "resume", operation.series, 1)


def paused(transaction: Transaction, operation: Paused) -> Sequence[str]:
    """
    Tell which series are paused.
    """
    return tuple(sorted(transaction.paused))


def prune(transaction: Transaction, operation: Prune) -> int:
    """
    Expire and forget.
    """
    left = operation.most
    for table in "waiting", "later":
        statement = _EXPIRED.format(table=table)
        places = transaction.places(statement, [transaction.now, left])
        transaction.finishAs(EXPIRED, places)
        left -= len(places)
    left -= transaction.execute(_FORGET, [transaction.now, left]).rowcount
    return operation.most - left


def note(transaction: Transaction, who: str, act: str, jobs: str, count: int) -> None:
    """
    Enter into the audit what people have done.
    """
    transaction.execute(
        "INSERT INTO audit (at, who, act, jobs, count) VALUES (%s, %s, %s, %s, %s)",
        [transaction.now, who, act, jobs, count],
    )


def forget(transaction: Transaction, jobs: Sequence[str]) -> None:
    """
    Forget jobs whose outcomes are deleted.
    """
    transaction.execute("DELETE FROM job WHERE id = ANY (%s::uuid[])", [texts(jobs)])
