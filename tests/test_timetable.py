"""
What L{asynqueue.scheduling.timetable} promises, and queues by it: calls that begin later, and
calls that expire.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, strategies
from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock

from asynqueue.errors import QueueRunError, TaskExpired
from asynqueue.scheduling.options import CallOptions
from asynqueue.scheduling.timetable import Timetable
from asynqueue.testing import MemoryPrefetcher, MemoryQueue, MemoryWorker, RecordingObserver
from tests.doubles import Heard

STEPS = strategies.lists(
    strategies.one_of(
        strategies.tuples(strategies.just("add"), strategies.integers(0, 9)),
        strategies.tuples(strategies.just("discard"), strategies.integers(0, 200)),
        strategies.tuples(strategies.just("advance"), strategies.integers(0, 4)),
    ),
    max_size=200,
)


@pytest.mark.model
@given(STEPS)
def test_eachIsDueAtItsTimeAndInOrder(steps: Any) -> None:
    """
    Each task that was not taken out is due at its time and once, the earliest first; and while
    there is none there is no timer, otherwise one.
    """
    clock: Any = Clock()
    due: list[Any] = []
    table = Timetable(lambda: clock, lambda task: due.append((task, clock.seconds())))
    expected: dict[Any, float] = {}
    for number, (step, value) in enumerate(steps):
        if step == "add":
            task: Any = number
            expected[task] = clock.seconds() + value
            table.add(task, value)
        elif step == "discard":
            expected.pop(value, None)
            table.discard(value)
        else:
            clock.pump([1] * value if value else [0])
            now = clock.seconds()
            past = sorted((time, task) for task, time in expected.items() if time <= now)
            assert [task for task, _ in due] == [task for _, task in past]
            for _, task in past:
                del expected[task]
            due.clear()
        assert sorted(table) == sorted(expected)
        assert len(table) == len(expected)
        assert len(clock.getDelayedCalls()) == bool(expected)
        for task, time in expected.items():
            assert task in table
            assert table.remaining(task) == max(0.0, time - clock.seconds())


def test_takenOutTakesNoMemory() -> None:
    """
    What is taken out is let go, though the first one stays for long.
    """
    clock: Any = Clock()
    table = Timetable(lambda: clock, print)
    table.add("the first", 1)  # type: ignore[arg-type]
    for number in range(10_000):
        table.add(number, 2)  # type: ignore[arg-type]
        table.discard(number)  # type: ignore[arg-type]
    assert len(table) == 1
    assert len(table._heap) < 200


def test_timesMayBeFarAway() -> None:
    """
    No reactor is asked for a timer of years, and what is due then is due then.
    """
    clock: Any = Clock()
    due: list[Any] = []
    table = Timetable(lambda: clock, due.append)
    for seconds in (math.inf, 1e5):
        table.add(seconds, seconds)  # type: ignore[arg-type]
    while not due:
        (timer,) = clock.getDelayedCalls()
        assert timer.getTime() - clock.seconds() <= 3600
        clock.advance(timer.getTime() - clock.seconds())
    assert due == [1e5]
    assert clock.seconds() == 1e5
    assert len(table) == 1


# Calls that begin later


def test_callBeginsNotBefore() -> None:
    """
    A call with C{after} does not begin before that; then as soon as there is a worker, and
    before those of its kind that were queued after it.
    """
    queue, order = MemoryQueue(), []
    later = Heard(queue.call(order.append, "later", after=5))
    queue.clock.advance(4.9)
    assert queue.workers()[0].tasks == []
    busy = Heard(queue.call(order.append, "busy"))
    waiting = Heard(queue.call(order.append, "waiting"))
    queue.clock.advance(0.1)
    queue.finish()
    assert order == ["busy", "later", "waiting"]
    assert [each.results for each in (later, busy, waiting)] == [[None]] * 3
    assert not queue.clock.getDelayedCalls()


def test_idleWorkerIsWokenForIt() -> None:
    """
    Where a worker is idle it begins at that moment.
    """
    queue = MemoryQueue()
    call = Heard(queue.call(abs, -3, after=5))
    queue.clock.advance(5)
    queue.workers()[0].step()
    assert call.result == 3


def test_allKnowOfACallThatWaitsForItsTime() -> None:
    """
    It has a place in the statistics and in the load, C{why} tells of it, observers hear of it
    once, and a drain waits for it.
    """
    queue, observer = MemoryQueue(), RecordingObserver()
    queue.addObserver(observer)
    call = Heard(queue.call(abs, -3, after=5, series="s"))
    drained = Heard(queue.drain())
    assert (queue.statistics().later, queue.statistics().queued) == (1, 0)
    assert queue._registry.load() == 1
    queue.clock.advance(2)
    assert queue.why(call.d) == "it begins after 3 s, not before"
    queue.clock.advance(3)
    assert "none of 1 workers is qualified" in queue.why(call.d)
    queue.qualifyWorker(queue.workers()[0], "s")
    queue.finish()
    queue.clock.advance(0)
    assert (call.result, drained.result) == (3, None)
    assert observer.names() == ["queued", "begun", "done"]


@pytest.mark.parametrize(
    "end",
    [
        lambda queue, call: call.d.cancel(),
        lambda queue, call: queue.cancelSeries(None),
        lambda queue, call: queue.cancelAll(),
        lambda queue, call: queue.withdraw(call.d),
        lambda queue, call: queue.shutdown(),
    ],
    ids=["cancel", "cancelSeries", "cancelAll", "withdraw", "shutdown"],
)
def test_callThatWaitsForItsTimeCanBeEnded(end: Any) -> None:
    """
    However it is ended before its time, it never begins, and nothing is left.
    """
    queue = MemoryQueue()
    call = Heard(queue.call(abs, -3, after=5, expires=9))
    end(queue, call)
    assert isinstance(call.error, CancelledError | QueueRunError)
    assert queue.statistics().later == 0
    assert queue._registry.load() == 0
    assert not queue.clock.getDelayedCalls()


def test_drainedQueueMakesThemFirst() -> None:
    """
    A queue that ends when it has done what is queued waits for their time.
    """
    queue = MemoryQueue()
    call = Heard(queue.call(abs, -3, after=5))
    ended = Heard(queue.shutdown(drain=True))
    queue.clock.advance(5)
    queue.workers()[0].step()
    queue.clock.advance(0)
    assert (call.result, ended.result) == (3, None)


# Calls that expire


def test_callThatHasNotBegunExpires() -> None:
    """
    A call that no worker has begun within C{expires} fails by name, is never made, and leaves
    nothing; one that has begun in time goes on.
    """
    queue = MemoryQueue()
    running = Heard(queue.call(abs, -1, expires=5))
    waiting = Heard(queue.call(abs, -2, expires=5))
    queue.clock.advance(4.9)
    assert waiting.results == []
    queue.clock.advance(0.1)
    error = waiting.error
    assert isinstance(error, TaskExpired)
    assert isinstance(error, TimeoutError)
    assert (error.call, error.seconds) == ("abs(-2)", 5)
    assert str(error) == (
        "abs(-2) had not begun 5 s after it was queued; give a later expires=, or more workers"
    )
    worker = queue.workers()[0]
    worker.step()
    assert running.result == 1
    assert worker.tasks == []
    assert not queue.clock.getDelayedCalls()
    assert queue.statistics().failed == 1


def test_itMayExpireBeforeItIsDone() -> None:
    """
    What is begun is not hurried: the limit is for the beginning, also of a call that is lost
    and tried again.
    """
    queue = MemoryQueue()
    call = Heard(queue.call(abs, -1, expires=5, retries=1))
    queue.workers()[0].resign()
    queue.clock.advance(6)
    worker = MemoryWorker()
    queue.attachWorker(worker)
    worker.step()
    assert call.result == 1


class Prefetcher(MemoryPrefetcher):
    """
    Hands over what it has not begun, unless that may have begun.
    """

    def __init__(self) -> None:
        super().__init__(window=3)
        self.knows = True

    def takeBack(self) -> Any:
        return super().takeBack() if self.knows else ()


def test_whatIsLinedUpExpires() -> None:
    """
    A worker that has it, and has not begun it, hands it over; what else is lined up there is
    given to workers again.
    """
    worker = Prefetcher()
    queue = MemoryQueue(worker)
    running, expiring, other = (
        Heard(queue.call(abs, n, **kw)) for n, kw in enumerate(({}, {"expires": 5}, {}))
    )
    worker.begin(worker.tasks[0])
    assert len(worker.tasks) == 3
    queue.clock.advance(5)
    assert isinstance(expiring.error, TaskExpired)
    queue.finish()
    assert (running.result, other.result) == (0, 2)


@pytest.mark.parametrize("begins", [True, False])
def test_whatMayHaveBegunIsLeftAlone(begins: bool) -> None:
    """
    While it is unknown whether it has begun, it is not said that it has not: it expires when
    its worker hands it back, or goes on when it has begun.
    """
    worker = Prefetcher()
    queue = MemoryQueue(worker)
    call = Heard(queue.call(abs, -1, expires=5))
    worker.knows = False
    queue.clock.advance(5)
    assert call.results == []
    if begins:
        worker.begin(worker.tasks[0])
        worker.knows = True
        queue.clock.advance(5)
        queue.finish()
        assert call.result == 1
    else:
        worker.knows = True
        queue.clock.advance(1)
        assert isinstance(call.error, TaskExpired)
    assert not queue.clock.getDelayedCalls()


@pytest.mark.parametrize(
    ("after", "expires"), [(0, None), (-1, None), ("1", None), (None, 0), (None, math.nan), (5, 5)]
)
def test_timesAreChecked(after: Any, expires: Any) -> None:
    """
    They are numbers of seconds above 0, and what expires before it may begin is refused.
    """
    with pytest.raises(ValueError, match=r"after|expires"):
        MemoryQueue().call(abs, -1, after=after, expires=expires)
    with pytest.raises(ValueError, match=r"after|expires"):
        CallOptions(after=after, expires=expires)
