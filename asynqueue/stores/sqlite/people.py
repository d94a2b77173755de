"""
What people ask a store in SQLite, and what is done to many jobs at once. No Twisted.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from attrs import asdict

from asynqueue.stores.jobrows import flowOf
from asynqueue.stores.operations import (
    Act,
    ActOn,
    Count,
    Find,
    Pause,
    Paused,
    Prune,
    Resume,
)
from asynqueue.stores.records import DEAD, JobFilter, JobRecord, JobState
from asynqueue.stores.sqlite.rows import (
    CLAIMED,
    JOB,
    RECORD,
    RUNNING,
    STATES,
    WAITING,
    Place,
    record,
)
from asynqueue.stores.sqlite.transaction import CANCELLED, EXPIRED, Transaction

_FROM = "FROM job j LEFT JOIN place p ON p.n = j.n LEFT JOIN outcome o ON o.n = j.n"

_WORDS = " ".join(f"WHEN {i} THEN {state.value!r}" for i, state in enumerate(STATES))
_STATE = f"COALESCE(o.kind, CASE p.state {_WORDS} END)"

_HELD = frozenset({JobState.CLAIMED, JobState.RUNNING})

DEAD_JOBS = "SELECT n FROM outcome INDEXED BY outcome_dead WHERE kind IN ('failed', 'lost')"
HELD_JOBS = "SELECT n FROM place INDEXED BY place_held WHERE state >= 2"

_RETRY = f"""
INSERT INTO place SELECT n, {WAITING}, series, niceness, band, ?, ?, 0, 0, ?, NULL, NULL, NULL, 0,
    NULL, key, keep, keep_dead
FROM job WHERE n = ?"""


def contains(text: str, *words: str | None) -> bool:
    """
    Tell whether a text in lower case is a part of words in any. For use in statements.
    """
    return any(text in word.lower() for word in words if word)


def _where(wanted: JobFilter, now: float) -> tuple[str, list[Any]]:
    """
    Return the condition of a filter, and its parameters.
    """
    conditions = ["1"]
    parameters: list[Any] = []

    def having(condition: str, *values: Any) -> None:
        conditions.append(condition)
        parameters.extend(values)

    def oneOf(column: str, words: frozenset[str]) -> None:
        having(f"{column} IN (SELECT value FROM json_each(?))", json.dumps(sorted(words)))

    if wanted.ids is not None:
        oneOf("j.id", wanted.ids)
    if wanted.states is not None:
        # Those that people look for most are few, and have indexes of their own.
        if wanted.states <= DEAD:
            having(f"j.n IN ({DEAD_JOBS})")
        elif wanted.states <= _HELD:
            having(f"j.n IN ({HELD_JOBS})")
        oneOf(_STATE, frozenset(state.value for state in wanted.states))
    if wanted.series is not None:
        oneOf("j.series", wanted.series)
    if wanted.names is not None:
        oneOf("j.name", wanted.names)
    if wanted.key is not None:
        having("j.key = ?", wanted.key)
    if wanted.node is not None:
        having("COALESCE(o.node, p.node) = ?", wanted.node)
    if wanted.olderThan is not None:
        having("? - j.created > ?", now, wanted.olderThan)
    if wanted.newerThan is not None:
        having("? - j.created < ?", now, wanted.newerThan)
    if wanted.text is not None:
        error = "CASE WHEN o.kind IS NULL THEN p.failure ELSE o.summary END"
        having(f"contains(?, j.name, j.key, {error})", wanted.text.lower())
    return " AND ".join(conditions), parameters


def find(transaction: Transaction, operation: Find) -> Sequence[JobRecord]:
    """
    Read a page of jobs.
    """
    where, parameters = _where(operation.filter, transaction.now)
    order = "j.id"
    if operation.newestFirst:
        order = "j.id DESC"
    if operation.after is not None:
        where += f" AND j.id {'<' if operation.newestFirst else '>'} ?"
        parameters.append(operation.after)
    rows = transaction.execute(
        f"SELECT {JOB}, {RECORD} {_FROM} WHERE {where} ORDER BY {order} LIMIT ?",
        (*parameters, operation.count),
    )
    return tuple(map(record, rows))


def count(transaction: Transaction, operation: Count) -> dict[JobState, int]:
    """
    Count jobs by state.
    """
    if operation.filter == JobFilter():
        # Each from an index: that is much faster than from the rows.
        numbers = {
            state: transaction.execute(
                f"SELECT count(*) FROM place WHERE state = {i}{' AND state >= 2' * (i >= CLAIMED)}"
            ).fetchone()[0]
            for i, state in enumerate(STATES)
        }
        ended = transaction.execute("SELECT kind, count(*) FROM outcome GROUP BY kind")
        numbers |= {JobState(kind): number for kind, number in ended}
        return {state: number for state, number in numbers.items() if number}
    where, parameters = _where(operation.filter, transaction.now)
    rows = transaction.execute(
        f"SELECT {_STATE}, count(*) {_FROM} WHERE {where} GROUP BY 1", parameters
    )
    return {JobState(state): number for state, number in rows}


def actOn(transaction: Transaction, operation: ActOn) -> Sequence[str]:
    """
    Act on all jobs of a filter.
    """
    do = {Act.CANCEL: _cancel, Act.RETRY: _retry, Act.DROP: _drop}[operation.act]
    done = do(transaction, *_where(operation.filter, transaction.now))
    transaction.note(operation.who, operation.act.value, _inWords(operation.filter), len(done))
    return tuple(done)


def _cancel(transaction: Transaction, where: str, parameters: list[Any]) -> list[str]:
    places = transaction.places(
        f"LEFT JOIN outcome o ON o.n = j.n WHERE {where} ORDER BY j.id", parameters
    )
    running = [place for place in places if place.state == RUNNING and not place.stopping]
    others = [place for place in places if place.state != RUNNING]
    transaction.executeMany(
        "UPDATE place SET stopping = 1 WHERE n = ?", [(place.n,) for place in running]
    )
    transaction.nowStopping(place.id for place in running)
    transaction.finishAs(CANCELLED, others)
    return [place.id for place in [*others, *running]]


def _retry(transaction: Transaction, where: str, parameters: list[Any]) -> list[str]:
    done = []
    rows = transaction.execute(
        "SELECT j.n, j.id, j.key, j.series, j.niceness, j.band, o.number"
        f" {_FROM} WHERE o.kind != 'done' AND {where} ORDER BY j.id",
        parameters,
    ).fetchall()
    for n, id, key, series, niceness, band, number in rows:
        if key is not None:
            held = transaction.execute("INSERT OR IGNORE INTO held VALUES (?, ?)", (key, n))
            if not held.rowcount:
                continue
        transaction.execute(_RETRY, (transaction.nextSeq(), number, transaction.now, n))
        transaction.execute("DELETE FROM outcome WHERE n = ?", (n,))
        transaction.nowWaiting((flowOf(series, niceness, band),))
        done.append(id)
    return done


def _drop(transaction: Transaction, where: str, parameters: list[Any]) -> list[str]:
    rows = transaction.execute(
        f"SELECT j.n, j.id {_FROM} WHERE o.kind IS NOT NULL AND {where}", parameters
    ).fetchall()
    _forget(transaction, [n for n, _ in rows])
    return [id for _, id in rows]


def _forget(transaction: Transaction, numbers: list[int]) -> None:
    """
    Forget jobs that have ended.
    """
    rows = [(n,) for n in numbers]
    transaction.executeMany("DELETE FROM outcome WHERE n = ?", rows)
    transaction.executeMany("DELETE FROM job WHERE n = ?", rows)


def prune(transaction: Transaction, operation: Prune) -> int:
    """
    End what has expired, and forget what need not be kept.
    """
    over: list[Place] = transaction.places(
        f"WHERE p.expires <= ? AND p.state < {CLAIMED} ORDER BY p.expires LIMIT ?",
        (transaction.now, operation.most),
    )
    transaction.finishAs(EXPIRED, over)
    rows = transaction.execute(
        "SELECT n FROM outcome WHERE until <= ? ORDER BY until LIMIT ?",
        (transaction.now, operation.most - len(over)),
    ).fetchall()
    _forget(transaction, [n for (n,) in rows])
    return len(over) + len(rows)


def pause(transaction: Transaction, operation: Pause) -> None:
    """
    Have no more jobs of a series claimed.
    """
    transaction.execute(
        "INSERT OR IGNORE INTO paused VALUES (?, ?, ?)",
        (operation.series, transaction.now, operation.who),
    )
    transaction.note(operation.who, "pause", operation.series, 1)


def resume(transaction: Transaction, operation: Resume) -> None:
    """
    Have jobs of a series claimed again.
    """
    transaction.execute("DELETE FROM paused WHERE series = ?", (operation.series,))
    rows = transaction.execute(
        f"SELECT DISTINCT series, niceness, band FROM place WHERE state = {WAITING} AND series = ?",
        (operation.series,),
    )
    transaction.nowWaiting(flowOf(*row) for row in rows)
    transaction.note(operation.who, "resume", operation.series, 1)


def paused(transaction: Transaction, operation: Paused) -> Sequence[str]:
    """
    Tell which series are paused.
    """
    return tuple(series for (series,) in transaction.execute("SELECT series FROM paused"))


def _inWords(wanted: JobFilter) -> str:
    """
    Return a filter as JSON.
    """

    said = asdict(wanted, filter=lambda _, value: value is not None)
    return json.dumps(
        {
            name: sorted(getattr(each, "value", each) for each in value)
            if isinstance(value, frozenset)
            else value
            for name, value in said.items()
        }
    )
