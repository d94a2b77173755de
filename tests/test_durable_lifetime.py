"""
L{asynqueue.durable.lifetime}: how a durable queue begins and ends.
"""

from __future__ import annotations

import pytest

from asynqueue.durable.queue import DurableQueue
from asynqueue.errors import QueueRunError
from asynqueue.stores.errors import StoreError, StoreUnavailable
from asynqueue.stores.store import Store
from asynqueue.stores.thread import DirectRunner
from asynqueue.workers.asynchronous import AsyncWorker
from tests import durablejobs as jobs
from tests.doubles import Heard, errorOf, readingLogs, resultOf
from tests.programs import ALLOWED, FaultyEngine, Machine


class RefusingEngine(FaultyEngine):
    """
    An engine that cannot be opened at first.
    """

    refusals = 1

    def open(self) -> None:
        """
        Refuse, so far.
        """
        if self.refusals:
            self.refusals -= 1
            raise StoreUnavailable("it", "it is away")
        super().open()


class Starting:
    """
    A queue that was not started, on a store that goes on when a test says so.
    """

    def __init__(self, machine: Machine) -> None:
        self.clock = machine.clock
        self.runner = DirectRunner()
        self.engine = RefusingEngine(machine.memory)
        self.engine.refusals = 0
        self.queue = DurableQueue(
            Store(self.engine, self.runner, reactor=self.clock, patience=30),
            AsyncWorker(reactor=self.clock),
            allow=ALLOWED,
            reactor=self.clock,
        )

    def turn(self) -> None:
        """
        Do all that can be done now.
        """
        for _ in range(20):
            self.clock.advance(0)


@pytest.fixture
def starting() -> Starting:
    """
    A queue that was not started.
    """
    return Starting(Machine())


def test_itCanBeStartedAgainIfThatFailed(starting: Starting) -> None:
    """
    A queue whose store cannot be opened says so, and can be started when it can.
    """
    starting.engine.refusals = 1
    assert isinstance(errorOf(starting.queue.start()), StoreError)
    resultOf(starting.queue.start())
    d = starting.queue.run(jobs.add, 1, 2)
    starting.turn()
    assert resultOf(d) == 3


def test_itIsStartedOnce(starting: Starting) -> None:
    """
    A queue that runs is not started again.
    """
    resultOf(starting.queue.start())
    with pytest.raises(QueueRunError):
        starting.queue.start()


def test_itTakesNothingBeforeItIsStarted(starting: Starting) -> None:
    """
    A queue that was not started takes no jobs.
    """
    with pytest.raises(QueueRunError):
        starting.queue.enqueue(jobs.nothing)


def test_itCanBeStoppedUnstarted(starting: Starting) -> None:
    """
    To stop a queue that was not started ends its workers.
    """
    d = starting.queue.stop()
    starting.turn()
    resultOf(d)
    assert not starting.queue.tasks.isRunning()


def test_itCanBeStoppedAsItStarts(starting: Starting) -> None:
    """
    A queue that is stopped while its store is being opened ends, and its start fails.
    """
    starting.runner.isHeld = True
    started, stopped = Heard(starting.queue.start()), Heard(starting.queue.stop())
    with readingLogs():
        starting.runner.step()
        starting.turn()
    assert isinstance(started.error, StoreError)
    assert stopped.result is None


def test_allWhoStopItHearOfTheEnd(starting: Starting) -> None:
    """
    Each Deferred of C{stop} fires when nothing is left, also one that was asked for after that.
    """
    resultOf(starting.queue.start())
    stops = [Heard(starting.queue.stop()), Heard(starting.queue.stop())]
    starting.turn()
    stops.append(Heard(starting.queue.stop()))
    assert [each.result for each in stops] == [None, None, None]


def test_itEndsWhereTheStoreNeverAnswers(starting: Starting) -> None:
    """
    A queue ends also if its store does not come back from what it was asked.
    """
    resultOf(starting.queue.start())
    starting.turn()
    starting.runner.isHeld = True
    starting.queue.enqueue(jobs.nothing).addErrback(lambda failure: None)
    stopped = Heard(starting.queue.stop())
    with readingLogs():
        for _ in range(60):
            starting.clock.advance(1)
    assert stopped.result is None


def test_itLeavesTheStoreAsItStops(starting: Starting) -> None:
    """
    After a queue has stopped, its node is forgotten.
    """
    resultOf(starting.queue.start())
    starting.turn()
    starting.queue.stop()
    starting.turn()
    other = Starting(Machine())
    other.engine._engine = starting.engine._engine
    resultOf(other.queue.start())
    other.turn()
    assert len(resultOf(other.queue.nodes())) == 1
