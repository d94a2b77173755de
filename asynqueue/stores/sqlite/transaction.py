"""
One transaction on a store in SQLite, and how jobs go from one state to another in it. No Twisted.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any

from asynqueue.stores.records import DEAD, Flow, JobState, Outcome, StoreEvent
from asynqueue.stores.sqlite.rows import CLAIMED, LATER, PLACE, WAITING, Place

CANCELLED = Outcome(kind=JobState.CANCELLED)
EXPIRED = Outcome(kind=JobState.EXPIRED)

_HELD = f"""
SELECT {PLACE} FROM json_each(?) JOIN job j ON j.id = value JOIN place p ON p.n = j.n
WHERE p.node = ?"""

_OUTCOME = "INSERT INTO outcome VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"

_WAIT = f"""
UPDATE place SET state = {WAITING}, seq = ?, number = number - (state = {CLAIMED}), node = NULL,
    begun = NULL, stopping = 0
WHERE n = ?"""

_REPEAT = """
UPDATE place SET state = ?, seq = ?, due = ?, counted = ?, losses = ?, failure = ?, expires = NULL,
    node = NULL, begun = NULL, stopping = 0
WHERE n = ?"""


class Transaction:
    """
    A transaction that has begun, and what it has changed so far.

    @ivar now: when it is.
    """

    def __init__(self, connection: sqlite3.Connection, now: float) -> None:
        self.now = now
        self.execute = connection.execute
        self.executeMany = connection.executemany
        self._flows: dict[Flow, None] = {}
        self._ended: list[str] = []
        self._stopping: list[str] = []
        self._hasLater = False
        self._seq: int = self.execute("SELECT seq FROM meta").fetchone()[0]
        self._firstSeq = self._seq

    def finished(self) -> StoreEvent:
        """
        Return what it has changed. Nothing may be changed any more, but it is not committed yet.
        """
        if self._seq != self._firstSeq:
            self.execute("UPDATE meta SET seq = ?", (self._seq,))
        flows = tuple(self._flows)
        if flows:
            paused = {series for (series,) in self.execute("SELECT series FROM paused")}
            flows = tuple(flow for flow in flows if flow.series not in paused)
        return StoreEvent(flows, tuple(self._ended), tuple(self._stopping), self._hasLater)

    def nextSeq(self, count: int = 1) -> int:
        """
        Return the first of some places that come after all others.
        """
        first = self._seq + 1
        self._seq += count
        return first

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

    def nowEnded(self, ids: Iterable[str]) -> None:
        """
        Note that jobs have an outcome.
        """
        self._ended.extend(ids)

    def nowStopping(self, ids: Iterable[str]) -> None:
        """
        Note that running jobs are cancelled.
        """
        self._stopping.extend(ids)

    # Places

    def places(self, where: str, parameters: Sequence[Any] = ()) -> list[Place]:
        """
        Return the places of jobs that have not ended.

        @param where: what follows after C{FROM place p JOIN job j}.
        """
        asked = f"SELECT {PLACE} FROM place p JOIN job j ON j.n = p.n {where}"
        return list(map(Place._make, self.execute(asked, parameters)))

    def heldBy(self, node: str, ids: Iterable[str]) -> dict[str, Place]:
        """
        Return where those of some jobs are that a node has, by their IDs.
        """
        rows = self.execute(_HELD, (json.dumps(list(ids)), node))
        return {row[0]: Place._make(row) for row in rows}

    def giveBack(self, places: Sequence[Place]) -> None:
        """
        Let jobs that a node has wait in their old places. Those that were cancelled as they ran
        have ended.
        """
        self.finishAs(CANCELLED, [place for place in places if place.stopping])
        back = [place for place in places if not place.stopping]
        self.executeMany(_WAIT, [(place.seq, place.n) for place in back])
        self.nowWaiting(place.flow for place in back)

    def repeat(
        self, place: Place, delay: float, counted: int, losses: int, why: str | None
    ) -> None:
        """
        Let a job that a node has wait at the end of its flow, or until it is due.

        @param counted: how many attempts count now; C{losses}: were lost.
        """
        isLater = delay > 0
        self.execute(
            _REPEAT,
            (
                LATER if isLater else WAITING,
                self.nextSeq(),
                self.now + max(0.0, delay),
                counted,
                losses,
                why,
                place.n,
            ),
        )
        if isLater:
            self.nowLater()
        else:
            self.nowWaiting((place.flow,))

    # Outcomes

    def finishAs(self, outcome: Outcome, places: Sequence[Place]) -> None:
        """
        End jobs alike.
        """
        self.finish([(place, outcome) for place in places])

    def finish(self, ends: Sequence[tuple[Place, Outcome]]) -> None:
        """
        End jobs. A hot path.
        """
        if not ends:
            return
        now = self.now
        rows = []
        keys = []
        for place, outcome in ends:
            keep = place.keepDead if outcome.kind in DEAD else place.keep
            rows.append(
                (
                    place.n,
                    outcome.kind.value,
                    place.number,
                    place.counted,
                    place.losses,
                    place.due,
                    place.node,
                    place.begun,
                    now,
                    now + keep,
                    outcome.codec,
                    outcome.summary,
                    outcome.error,
                    outcome.value,
                )
            )
            if place.key is not None:
                keys.append((place.key, place.n))
        self.executeMany("DELETE FROM place WHERE n = ?", [(place.n,) for place, _ in ends])
        self.executeMany(_OUTCOME, rows)
        if keys:
            self.executeMany("DELETE FROM held WHERE key = ? AND n = ?", keys)
        self.nowEnded(place.id for place, _ in ends)

    def note(self, who: str, act: str, jobs: str, count: int) -> None:
        """
        Note in the audit what people have done. The latest 10,000 notes are kept.
        """
        noted = self.execute(
            "INSERT INTO audit (at, who, act, jobs, count) VALUES (?, ?, ?, ?, ?)",
            (self.now, who, act, jobs, count),
        )
        self.execute("DELETE FROM audit WHERE n <= ?", ((noted.lastrowid or 0) - 10_000,))
