"""
How long calls wait and run, for those who want to know.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from time import perf_counter
from typing import Any

from asynqueue.interfaces import ITask, IWorker
from asynqueue.scheduling.observers import QueueObserver
from asynqueue.scheduling.snapshots import CallTimesStatistics, Spread


class _Tally:
    """
    Durations, by the powers of two of their microseconds.
    """

    def __init__(self) -> None:
        self._seconds = self._longest = 0.0
        self._counts: Counter[int] = Counter()

    def add(self, seconds: float) -> None:
        self._seconds += seconds
        self._longest = max(self._longest, seconds)
        self._counts[int(seconds * 1e6).bit_length()] += 1

    def spread(self) -> Spread:
        counts = sorted(self._counts.items())
        return Spread(
            self._counts.total(),
            self._seconds,
            self._longest,
            tuple((2**bits / 1e6, count) for bits, count in counts),
        )


class CallTimes(QueueObserver):
    """
    Measures how long the calls of one queue wait for a worker, and how long they run. Calls that
    were queued before this was added count from when they begin.

    What a lost worker had begun waits again, and only the run that ended is measured. A call that
    ends before it begins is not measured.
    """

    def __init__(self, clock: Callable[[], float] = perf_counter) -> None:
        """
        @param clock: returns the time in seconds.
        """
        self._clock = clock
        self._waiting: dict[int, float] = {}
        self._running: dict[int, float] = {}
        self._waits = _Tally()
        self._runs = _Tally()

    def taskQueued(self, task: ITask) -> None:
        self._waiting[task.ID] = self._clock()

    def taskBegun(self, task: ITask, worker: IWorker) -> None:
        now = self._running[task.ID] = self._clock()
        queued = self._waiting.pop(task.ID, None)
        if queued is not None:
            self._waits.add(now - queued)

    def taskLost(self, task: ITask, worker: IWorker) -> None:
        if self._running.pop(task.ID, None) is not None:
            self._waiting[task.ID] = self._clock()

    def taskDone(self, task: ITask, outcome: Any, worker: IWorker | None) -> None:
        begun = self._running.pop(task.ID, None)
        if begun is not None:
            self._runs.add(self._clock() - begun)
        else:
            self._waiting.pop(task.ID, None)

    def statistics(self) -> CallTimesStatistics:
        """
        Return what was measured by now.
        """
        return CallTimesStatistics(self._waits.spread(), self._runs.spread())
