"""
Which jobs of a store in PostgreSQL are meant, and what is done to them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from asynqueue.stores.jobrows import newJob
from asynqueue.stores.operations import Act, ActOn, Count, Find
from asynqueue.stores.postgres.arrays import texts
from asynqueue.stores.postgres.flows import forget, note
from asynqueue.stores.postgres.schema import PLACE
from asynqueue.stores.postgres.transaction import (
    CANCELLED,
    CLAIM,
    JOB,
    WAITING,
    Place,
    Transaction,
)
from asynqueue.stores.records import (
    ALL,
    ENDED,
    JobFilter,
    JobRecord,
    JobState,
    Outcome,
)

_COLUMNS = len(JOB.split(","))

_FIND = f"""
SELECT {JOB}, state, number, counted, losses, created, due, begun, ended, node, stopping, failure,
    outcome_codec, value, error, summary, until
FROM record"""

_COUNT_ALL = """
SELECT 'waiting', count(*) FROM waiting
UNION ALL SELECT 'later', count(*) FROM later
UNION ALL SELECT CASE WHEN begun IS NULL THEN 'claimed' ELSE 'running' END, count(*)
    FROM claim GROUP BY 1
UNION ALL SELECT kind, count(*) FROM outcome GROUP BY 1"""

# So that the planner sees which table has them.
_OF_STATES = {
    JobState.WAITING: "in_waiting IS NOT NULL",
    JobState.LATER: "in_later IS NOT NULL",
    JobState.CLAIMED: "(in_claim IS NOT NULL AND begun IS NULL)",
    JobState.RUNNING: "(in_claim IS NOT NULL AND begun IS NOT NULL)",
    **{state: f"kind = '{state.value}'" for state in ENDED},
}

_SINCE_RETRY = """
WITH meant AS (
    SELECT id, key FROM record WHERE kind IN ('failed', 'lost', 'cancelled', 'expired') AND {where}
), firsts AS (
    SELECT DISTINCT ON (COALESCE(key, id::text)) id, key FROM meant
    WHERE key IS NULL OR NOT EXISTS (SELECT FROM held h WHERE h.key = meant.key)
    ORDER BY COALESCE(key, id::text), id
), keyed AS (
    INSERT INTO held (key, job) SELECT key, id FROM firsts WHERE key IS NOT NULL
), gone AS (
    DELETE FROM outcome WHERE job IN (SELECT id FROM firsts) RETURNING job, number
)
SELECT g.job, j.series, j.niceness, j.band, NULL, g.number, 0, 0, %(now)s, NULL
FROM gone g JOIN job j ON j.id = g.job ORDER BY g.job"""


def _meant(wanted: JobFilter, now: float) -> tuple[str, dict[str, Any]]:
    """
    Return the condition of a filter, and its parameters.
    """
    conditions = ["true"]
    parameters: dict[str, Any] = {"now": now}

    def needs(name: str, value: Any, condition: str) -> None:
        if value is not None:
            conditions.append(condition)
            parameters[name] = value

    ids = None if wanted.ids is None else texts(id for id in wanted.ids if _isID(id))
    needs("ids", ids, "id = ANY (%(ids)s::uuid[])")
    needs("series", _listed(wanted.series), "series = ANY (%(series)s)")
    needs("names", _listed(wanted.names), "name = ANY (%(names)s)")
    needs("key", wanted.key, "key = %(key)s")
    needs("node", wanted.node, "node = %(node)s")
    needs("older", wanted.olderThan, "created < %(now)s - %(older)s")
    needs("newer", wanted.newerThan, "created > %(now)s - %(newer)s")
    needs(
        "text",
        None if wanted.text is None else wanted.text.lower(),
        "strpos(lower(concat_ws(chr(1), name, key, COALESCE(summary, failure))), %(text)s) > 0",
    )
    if wanted.states is not None:
        some = [_OF_STATES[state] for state in wanted.states]
        conditions.append(f"({' OR '.join(some) or 'false'})")
    return " AND ".join(conditions), parameters


def _listed(values: frozenset[str] | None) -> list[str] | None:
    return None if values is None else list(values)


def _isID(text: str) -> bool:
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False


def find(transaction: Transaction, operation: Find) -> Sequence[JobRecord]:
    """
    Read a page of jobs.
    """
    where, parameters = _meant(operation.filter, transaction.now)
    order = "DESC" if operation.newestFirst else "ASC"
    if operation.after is not None:
        where += f" AND id {'<' if operation.newestFirst else '>'} %(after)s"
        parameters["after"] = operation.after
    parameters["count"] = operation.count
    rows = transaction.execute(
        f"{_FIND} WHERE {where} ORDER BY id {order} LIMIT %(count)s", parameters
    )
    return tuple(_record(row) for row in rows)


def _record(row: Sequence[Any]) -> JobRecord:
    (
        state,
        number,
        counted,
        losses,
        created,
        due,
        begun,
        ended,
        node,
        stopping,
        failure,
        codec,
        value,
        error,
        summary,
        until,
    ) = row[_COLUMNS:]
    kind = JobState(state)
    outcome = None
    if kind in ENDED:
        outcome = Outcome(kind=kind, codec=codec, value=value, error=error, summary=summary)
    return JobRecord(
        job=newJob(row),
        state=kind,
        attempt=number,
        counted=counted,
        losses=losses,
        created=created,
        due=due,
        begun=begun,
        ended=ended,
        node=node,
        stopping=stopping,
        failure=failure,
        outcome=outcome,
        until=until,
    )


def _goThrough(transaction: Transaction) -> None:
    """
    Allow whole tables to be gone through from now on.
    """
    transaction.execute("SET LOCAL enable_seqscan = on")


def count(transaction: Transaction, operation: Count) -> dict[JobState, int]:
    """
    Count jobs.
    """
    _goThrough(transaction)
    if operation.filter == ALL:
        rows = transaction.execute(_COUNT_ALL)
    else:
        where, parameters = _meant(operation.filter, transaction.now)
        rows = transaction.execute(
            f"SELECT state, count(*) FROM record WHERE {where} GROUP BY state", parameters
        )
    return {JobState(state): number for state, number in rows if number}


def act(transaction: Transaction, operation: ActOn) -> Sequence[str]:
    """
    Act on jobs: nobody claims, begins or ends any meanwhile.
    """
    _goThrough(transaction)
    where, parameters = _meant(operation.filter, transaction.now)
    if operation.act is Act.CANCEL:
        done = _cancel(transaction, where, parameters)
    elif operation.act is Act.RETRY:
        retried = transaction.places(_SINCE_RETRY.format(where=where), parameters)
        transaction.wait(retried)
        done = [place.job for place in retried]
    else:
        done = _drop(transaction, where, parameters)
    note(transaction, operation.who, operation.act.value, repr(operation.filter), len(done))
    return tuple(done)


def _cancel(transaction: Transaction, where: str, parameters: dict[str, Any]) -> list[str]:
    cancelled: list[Place] = []
    for table, columns, more in (
        ("waiting", WAITING, "in_waiting IS NOT NULL"),
        ("later", PLACE, "in_later IS NOT NULL"),
        ("claim", CLAIM, "in_claim IS NOT NULL AND begun IS NULL"),
    ):
        cancelled += transaction.places(
            f"DELETE FROM {table} WHERE job IN (SELECT id FROM record WHERE {more} AND {where})"
            f" RETURNING {columns}",
            parameters,
        )
    stopping = [
        row[0]
        for row in transaction.execute(
            "UPDATE claim SET stopping = true WHERE NOT stopping AND job IN"
            f" (SELECT id FROM record WHERE in_claim IS NOT NULL AND {where}) RETURNING job",
            parameters,
        )
    ]
    transaction.finishAs(CANCELLED, cancelled)
    transaction.nowStopping(stopping)
    return [*(place.job for place in cancelled), *stopping]


def _drop(transaction: Transaction, where: str, parameters: dict[str, Any]) -> list[str]:
    rows = transaction.execute(
        "DELETE FROM outcome WHERE job IN (SELECT id FROM record WHERE kind IS NOT NULL"
        f" AND {where}) RETURNING job",
        parameters,
    )
    done = [row[0] for row in rows]
    forget(transaction, done)
    return done
