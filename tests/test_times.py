"""
How long calls wait and run.
"""

from __future__ import annotations

import json

import pytest
from twisted.internet.task import Clock

from asynqueue.scheduling.times import CallTimes
from asynqueue.taskqueue import TaskQueue
from asynqueue.testing.doubles import MemoryWorker


class Bench:
    """
    A queue without workers whose calls are measured by a clock.
    """

    def __init__(self) -> None:
        self.clock = Clock()
        self.queue = TaskQueue(reactor=self.clock)
        self.times = CallTimes(self.clock.seconds)
        self.queue.addObserver(self.times)

    def hire(self) -> MemoryWorker:
        worker = MemoryWorker()
        self.queue.attachWorker(worker)
        return worker

    def seconds(self) -> tuple[tuple[int, float], tuple[int, float]]:
        """
        How many calls have waited, and how long all together; and the same of those that ran.
        """
        waited, ran = self.times.statistics().waited, self.times.statistics().ran
        return (waited.count, waited.seconds), (ran.count, ran.seconds)


def test_waitsAndRunsAreMeasured() -> None:
    """
    A call waits from when it is queued until it begins, and runs from then until it ends.
    """
    bench = Bench()
    for _ in range(2):
        bench.queue.call(len, "")
    bench.clock.advance(3)
    worker = bench.hire()
    bench.clock.advance(4)
    worker.step()
    bench.clock.advance(1)
    worker.step()
    assert bench.seconds() == ((2, 3 + 7), (2, 4 + 1))


def test_durationsAreClassed() -> None:
    """
    Durations are counted by classes, each of which ends at twice the seconds of the last; the
    longest is known by itself.
    """
    bench = Bench()
    worker = bench.hire()
    for seconds in (0.003, 0.5, 0.6):
        bench.queue.call(len, "")
        bench.clock.advance(seconds)
        worker.step()
    ran = bench.times.statistics().ran
    assert ran.classes == ((0.004096, 1), (0.524288, 1), (1.048576, 1))
    assert ran.longest == pytest.approx(0.6)


def test_lostRunIsNotMeasured() -> None:
    """
    A call whose worker was lost waits again from then on, and only its last run is measured.
    """
    bench = Bench()
    bench.queue.call(len, "", retries=1)
    worker = bench.hire()
    bench.clock.advance(2)
    worker.resign()
    bench.clock.advance(3)
    worker = bench.hire()
    bench.clock.advance(4)
    worker.step()
    assert bench.seconds() == ((2, 3), (1, 4))


def test_callThatNeverBeginsIsNotMeasured() -> None:
    """
    A call that is cancelled while it waits is measured neither as one that waited nor as one that
    ran.
    """
    bench = Bench()
    d = bench.queue.call(len, "")
    bench.clock.advance(1)
    d.cancel()
    d.addErrback(lambda failure: None)
    assert bench.seconds() == ((0, 0), (0, 0))


def test_callOfBeforeCountsFromItsBeginning() -> None:
    """
    Of a call that was queued before anybody measured, only the run is known.
    """
    bench = Bench()
    bench.queue.removeObserver(bench.times)
    bench.queue.call(len, "")
    bench.clock.advance(1)
    bench.queue.addObserver(bench.times)
    worker = bench.hire()
    bench.clock.advance(2)
    worker.step()
    assert bench.seconds() == ((0, 0), (1, 2))


def test_timesAreThereForJSON() -> None:
    """
    What was measured can be had as JSON.
    """
    bench = Bench()
    worker = bench.hire()
    bench.queue.call(len, "")
    bench.clock.advance(2)
    worker.step()
    ran = json.loads(json.dumps(bench.times.statistics().as_dict()))["ran"]
    assert ran == {"count": 1, "seconds": 2, "longest": 2, "classes": [[2.097152, 1]]}
