"""
Attempts in a store in SQLite: claimed, begun, ended, given back. No Twisted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Any, TypeVar

from asynqueue.stores.jobrows import COLUMNS, newJob
from asynqueue.stores.operations import (
    Again,
    Begin,
    Claim,
    Claims,
    End,
    Ended,
    GiveBack,
    Want,
)
from asynqueue.stores.records import Attempt, Claimed, JobState, Outcome
from asynqueue.stores.sqlite.rows import (
    CLAIMED,
    JOB,
    RUNNING,
    WAITING,
    Place,
)
from asynqueue.stores.sqlite.transaction import CANCELLED, EXPIRED, Transaction

T = TypeVar("T")

# About the most bytes of arguments that one claim takes, whatever is wanted.
_MOST_BYTES = 16_000_000

_FLOW = f"p.state = {WAITING} AND p.series = ? AND p.niceness = ? AND p.band = ?"

_FIRST = f"""
SELECT {JOB}, j.created, p.seq, p.number, p.counted, p.losses, p.expires
FROM place p JOIN job j ON j.n = p.n WHERE {_FLOW} ORDER BY p.seq LIMIT ?"""

_TAKE = f"""
UPDATE place AS p SET state = {CLAIMED}, number = number + 1, node = ?
WHERE {_FLOW} AND p.seq <= ?"""

_TAKE_BEGUN = f"""
UPDATE place AS p SET state = {RUNNING}, number = number + 1, node = ?, begun = ?, expires = NULL
WHERE {_FLOW} AND p.seq <= ?"""

_BEGIN = f"UPDATE place SET state = {RUNNING}, begun = ?, expires = NULL WHERE n = ?"

# The latest attempt of a job that has ended.
_LATE = """
SELECT j.n, o.kind, j.keep, j.keep_dead FROM job j JOIN outcome o ON o.n = j.n
WHERE j.id = ? AND o.number = ? AND o.node = ?"""

_TRUTH = """
UPDATE outcome SET kind = ?, codec = ?, summary = ?, error = ?, value = ?, ended = ?, until = ?
WHERE n = ?"""


def claim(transaction: Transaction, operations: Sequence[Claim]) -> list[Any]:
    """
    Do claims, one after the other.
    """
    return [_claim(transaction, operation) for operation in operations]


def _claim(transaction: Transaction, operation: Claim) -> Claims:
    isThere = "SELECT 1 FROM node WHERE id = ?"
    if transaction.execute(isThere, (operation.node,)).fetchone() is None:
        return Claims()
    paused = {series for (series,) in transaction.execute("SELECT series FROM paused")}
    claimed: list[Claimed] = []
    expired: list[str] = []
    room = _MOST_BYTES
    for want in operation.wants:
        if want.flow.series not in paused and room > 0:
            found = _take(transaction, operation, want, room, expired)
            room -= sum(len(each.job.payload) for each in found)
            claimed += found
    return Claims(tuple(claimed), tuple(expired))


def _take(
    transaction: Transaction, operation: Claim, want: Want, room: int, expired: list[str]
) -> list[Claimed]:
    """
    Take jobs of a flow; those that are expired end, and are not counted.
    """
    now = transaction.now
    flow = (want.flow.series, want.flow.niceness, want.flow.band.value)
    found: list[Claimed] = []
    while (missing := want.count - len(found)) > 0 and room > 0:
        isLast, last = True, 0
        over = []
        rows = transaction.execute(_FIRST, (*flow, missing))
        for row in rows:
            created, seq, number, counted, losses, expires = row[len(COLUMNS) :]
            if expires is not None and expires <= now:
                over.append(seq)
                isLast = False
                continue
            job = newJob(row)
            found.append(Claimed(job, Attempt(job.id, number + 1), created, losses, counted))
            last = seq
            room -= len(job.payload)
            if room <= 0:
                break
        # What was not read is not in memory, either.
        rows.close()
        _expire(transaction, flow, over, expired)
        if last and operation.begin:
            transaction.execute(_TAKE_BEGUN, (operation.node, now, *flow, last))
        elif last:
            transaction.execute(_TAKE, (operation.node, *flow, last))
        if isLast:
            break
    return found


def _expire(
    transaction: Transaction, flow: tuple[Any, ...], seqs: list[int], expired: list[str]
) -> None:
    first = f"WHERE {_FLOW} AND p.seq = ?"
    places = [place for seq in seqs for place in transaction.places(first, (*flow, seq))]
    transaction.finishAs(EXPIRED, places)
    expired += [place.id for place in places]


def _inRuns(
    operations: Sequence[T],
    sharing: Callable[[T], Any],
    attemptsOf: Callable[[T], Sequence[Attempt]],
) -> Iterator[list[T]]:
    """
    Part operations into runs that can be done as one: they share what matters, and have no job
    twice.
    """
    for _, group in groupby(operations, sharing):
        run: list[T] = []
        seen: set[str] = set()
        for operation in group:
            ids = [attempt.id for attempt in attemptsOf(operation)]
            if not seen.isdisjoint(ids):
                yield run
                run, seen = [], set()
            run.append(operation)
            seen.update(ids)
        yield run


def begin(transaction: Transaction, operations: Sequence[Begin]) -> list[Any]:
    """
    Note that attempts begin.
    """
    return [
        answer
        for run in _inRuns(operations, lambda each: each.node, lambda each: each.attempts)
        for answer in _begin(transaction, run)
    ]


def _begin(transaction: Transaction, operations: list[Begin]) -> list[frozenset[Attempt]]:
    attempts = [attempt for operation in operations for attempt in operation.attempts]
    held = transaction.heldBy(operations[0].node, (attempt.id for attempt in attempts))
    now = transaction.now
    answers: list[frozenset[Attempt]] = []
    begun = []
    over: dict[str, Place] = {}
    for operation in operations:
        accepted = []
        for attempt in operation.attempts:
            place = held.get(attempt.id)
            if place is None or place.number != attempt.number:
                continue
            if place.state == CLAIMED and place.isExpired(now):
                over[place.id] = place
                continue
            if place.state == CLAIMED:
                begun.append((now, place.n))
            accepted.append(attempt)
        answers.append(frozenset(accepted))
    transaction.executeMany(_BEGIN, begun)
    transaction.finishAs(EXPIRED, list(over.values()))
    return answers


def end(transaction: Transaction, operations: Sequence[End]) -> list[Any]:
    """
    Store how attempts have ended.
    """
    answers = []
    for run in _inRuns(
        operations, lambda each: each.node, lambda each: [end.attempt for end in each.ends]
    ):
        answers += _endRun(transaction, run)
    return answers


def _endRun(transaction: Transaction, operations: list[End]) -> list[frozenset[Attempt]]:
    node = operations[0].node
    ids = [each.attempt.id for operation in operations for each in operation.ends]
    held = transaction.heldBy(node, ids)
    answers: list[frozenset[Attempt]] = []
    ended: list[tuple[Place, Outcome]] = []
    for operation in operations:
        accepted = []
        for each in operation.ends:
            attempt = each.attempt
            place = held.get(attempt.id)
            if place is None or place.number != attempt.number:
                if place is None and isinstance(each, Ended):
                    # What has ended by now may be meant.
                    transaction.finish(ended)
                    ended = []
                    if _isLate(transaction, node, each):
                        accepted.append(attempt)
                continue
            # Another end of the same attempt meets the outcome.
            del held[attempt.id]
            if isinstance(each, Ended):
                ended.append((place, each.outcome))
            else:
                _again(transaction, place, each)
            accepted.append(attempt)
        answers.append(frozenset(accepted))
    transaction.finish(ended)
    return answers


def _again(transaction: Transaction, place: Place, each: Again) -> None:
    if place.stopping:
        transaction.finishAs(CANCELLED, [place])
        return
    counted, losses = place.counted + each.isCounted, place.losses + each.isLoss
    transaction.repeat(place, each.delay, counted, losses, each.summary)


def _isLate(transaction: Transaction, node: str, each: Ended) -> bool:
    """
    Tell whether it was this attempt that has ended its job, which takes the outcome if it was lost.
    """
    attempt, outcome = each.attempt, each.outcome
    row = transaction.execute(_LATE, (attempt.id, attempt.number, node)).fetchone()
    if row is None:
        return False
    n, kind, keep, keepDead = row
    if kind == JobState.LOST.value and outcome.kind is not JobState.LOST:
        until = transaction.now + (keepDead if outcome.kind is JobState.FAILED else keep)
        transaction.execute(
            _TRUTH,
            (
                outcome.kind.value,
                outcome.codec,
                outcome.summary,
                outcome.error,
                outcome.value,
                transaction.now,
                until,
                n,
            ),
        )
        transaction.nowEnded([attempt.id])
    return True


def giveBack(transaction: Transaction, operations: Sequence[GiveBack]) -> list[Any]:
    """
    Put jobs back in their old places.
    """
    return [
        answer
        for run in _inRuns(
            operations, lambda each: (each.node, each.begun), lambda each: each.attempts
        )
        for answer in _giveBack(transaction, run)
    ]


def _giveBack(transaction: Transaction, operations: list[GiveBack]) -> list[frozenset[Attempt]]:
    node, begun = operations[0].node, operations[0].begun
    ids = [attempt.id for operation in operations for attempt in operation.attempts]
    held = transaction.heldBy(node, ids)
    answers: list[frozenset[Attempt]] = []
    places: dict[str, Place] = {}
    for operation in operations:
        given = []
        for attempt in operation.attempts:
            place = held.get(attempt.id)
            if place is None or place.number != attempt.number:
                continue
            if place.state == CLAIMED or begun:
                places[place.id] = place
                given.append(attempt)
        answers.append(frozenset(given))
    transaction.giveBack(list(places.values()))
    return answers
