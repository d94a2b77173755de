"""
Adding jobs to a store in SQLite. No Twisted.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from asynqueue.stores.errors import KeyTaken
from asynqueue.stores.operations import Add
from asynqueue.stores.records import Added, JobState, NewJob, OnTaken
from asynqueue.stores.sqlite.rows import LATER, NEW_PLACE, RUNNING, STATES, jobRow, placeRow
from asynqueue.stores.sqlite.transaction import CANCELLED, Transaction

_JOB = f"INSERT INTO job VALUES ({', '.join('?' * 20)})"
_PLACE = f"INSERT INTO place VALUES ({NEW_PLACE})"

_STORED = "SELECT value FROM json_each(?) WHERE value IN (SELECT id FROM job)"


class _Adding:
    """
    New jobs that are about to be stored, in one go if nothing else is to be looked at.
    """

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction
        # Jobs have numbers of their own: not all places are of new jobs.
        self._n = transaction.execute("SELECT max(n) FROM job").fetchone()[0] or 0
        self._stored: set[str] = set()
        self._jobs: dict[str, tuple[int, NewJob]] = {}
        self._keys: dict[str, str] = {}

    def look(self, ids: list[str]) -> None:
        """
        Look which of the new jobs are stored already.
        """
        found = self._transaction.execute(_STORED, (json.dumps(ids),))
        self._stored = {id for (id,) in found}

    def add(self, job: NewJob) -> Added | KeyTaken:
        """
        Take a job, unless it, or its key, is there.
        """
        if job.id in self._jobs or job.id in self._stored:
            self.flush()
            return Added(job.id, stateOf(self._transaction, job.id))
        if job.key is not None and (taken := self._taken(job, job.key)) is not None:
            return taken
        self._n += 1
        self._jobs[job.id] = (self._n, job)
        return Added(job.id, JobState.LATER if job.after > 0 else JobState.WAITING)

    def _taken(self, job: NewJob, key: str) -> Added | KeyTaken | None:
        """
        Return what becomes of a job whose key another one has; C{None}: it can be stored.
        """
        if key in self._keys:
            self.flush()
        transaction = self._transaction
        other = transaction.places("JOIN held h ON h.n = p.n WHERE h.key = ?", (key,))
        if other:
            place = other[0]
            if job.onTaken is OnTaken.JOIN:
                return Added(place.id, STATES[place.state], joined=True)
            if job.onTaken is OnTaken.REJECT or place.state == RUNNING:
                return KeyTaken(key, place.id)
            transaction.finishAs(CANCELLED, other)
        self._keys[key] = job.id
        return None

    def flush(self) -> None:
        """
        Store what was taken.
        """
        jobs = list(self._jobs.values())
        if not jobs:
            return
        transaction, now = self._transaction, self._transaction.now
        seq = transaction.nextSeq(len(jobs))
        transaction.executeMany(_JOB, [jobRow(n, job, now) for n, job in jobs])
        places = [placeRow(n, seq + i, job, now) for i, (n, job) in enumerate(jobs)]
        transaction.executeMany(_PLACE, places)
        keys = [(job.key, n) for n, job in jobs if job.key is not None]
        if keys:
            transaction.executeMany("INSERT INTO held VALUES (?, ?)", keys)
        if any(place[1] == LATER for place in places):
            transaction.nowLater()
        transaction.nowWaiting(job.flow for _, job in jobs if job.after <= 0)
        self._stored.update(self._jobs)
        self._jobs, self._keys = {}, {}


def add(transaction: Transaction, operations: Sequence[Add]) -> list[Any]:
    """
    Store the jobs of several operations as one.
    """
    adding = _Adding(transaction)
    adding.look([job.id for operation in operations for job in operation.jobs])
    answers = [tuple(map(adding.add, operation.jobs)) for operation in operations]
    adding.flush()
    return answers


def stateOf(transaction: Transaction, id: str) -> JobState:
    """
    Return the state of a job that is stored.
    """
    state, kind = transaction.execute(
        "SELECT p.state, o.kind FROM job j LEFT JOIN place p ON p.n = j.n"
        " LEFT JOIN outcome o ON o.n = j.n WHERE j.id = ?",
        (id,),
    ).fetchone()
    return STATES[state] if kind is None else JobState(kind)
