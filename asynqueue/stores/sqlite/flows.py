"""
The flows of a store in SQLite, and what comes to be due in them. No Twisted.
"""

from __future__ import annotations

from collections.abc import Sequence

from asynqueue.stores.jobrows import flowOf
from asynqueue.stores.operations import FlowCount, Flows, Ripen, Ripened
from asynqueue.stores.sqlite.rows import LATER, WAITING
from asynqueue.stores.sqlite.transaction import Transaction

# How far the jobs of a flow are counted, and how many come to be due in one transaction.
_MOST = 10_000

_NEXT = f"""
SELECT series, niceness, band FROM place
WHERE state = {WAITING} AND (series, niceness, band) > (?, ?, ?)
ORDER BY series, niceness, band LIMIT 1"""

_COUNT = f"""
SELECT count(*) FROM (
    SELECT 1 FROM place WHERE state = {WAITING} AND series = ? AND niceness = ? AND band = ?
    LIMIT {_MOST})"""


def flows(transaction: Transaction, operation: Flows) -> Sequence[FlowCount]:
    """
    Tell which flows have jobs that can be claimed. It goes from flow to flow, not from job to job.
    """
    paused = {series for (series,) in transaction.execute("SELECT series FROM paused")}
    counts = []
    flow = ("", -99, 0)
    while (row := transaction.execute(_NEXT, flow).fetchone()) is not None:
        flow = row
        wanted = operation.series is None or row[0] in operation.series
        if wanted and row[0] not in paused:
            (count,) = transaction.execute(_COUNT, flow).fetchone()
            counts.append(FlowCount(flowOf(*flow), count))
    return tuple(counts)


def ripen(transaction: Transaction, operation: Ripen) -> Ripened:
    """
    Let the jobs that are due wait to be claimed.
    """
    due = transaction.places(
        f"WHERE p.state = {LATER} AND p.due <= ? ORDER BY p.due, j.id LIMIT {_MOST}",
        (transaction.now,),
    )
    first = transaction.nextSeq(len(due))
    transaction.executeMany(
        f"UPDATE place SET state = {WAITING}, seq = ? WHERE n = ?",
        [(seq, place.n) for seq, place in enumerate(due, first)],
    )
    ripe = dict.fromkeys(place.flow for place in due)
    transaction.nowWaiting(ripe)
    (next,) = transaction.execute(f"SELECT min(due) FROM place WHERE state = {LATER}").fetchone()
    return Ripened(tuple(ripe), None if next is None else max(0.0, next - transaction.now))
