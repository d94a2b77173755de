"""
What an intake promises a source of calls, whatever that is. That of hosts, which say what they
hear over a connection, is tried in L{tests.test_wire_host}, too.
"""

from __future__ import annotations

from typing import Any

import pytest

from asynqueue.errors import QueueRunError
from asynqueue.intake import Call, Intake, IntakeDelegate
from asynqueue.testing import MemoryQueue, MemoryWorker
from tests.doubles import readingLogs


class Source(IntakeDelegate):
    """
    A source of calls, which writes down what it hears.
    """

    def __init__(self, queue: MemoryQueue, series: str | None = None) -> None:
        self.heard: list[tuple[Any, ...]] = []
        self.values: dict[Any, Any] = {}
        self.intake = Intake(queue, self, series=series)

    def callReturned(self, key: Any, value: Any) -> None:
        self.values[key] = value
        self.heard.append(("returned", key))

    def callFailed(self, key: Any, failure: Any) -> None:
        self.heard.append((failure.type.__name__, key))

    def callRefused(self, key: Any, error: Exception) -> None:
        self.heard.append(("refused", key, type(error).__name__))

    def callBegun(self, key: Any) -> None:
        self.heard.append(("begun", key))


def raising(error: Exception) -> None:
    """
    Raises what it is given.
    """
    raise error


def test_callsHaveKeysOfAnyKind() -> None:
    """
    A source hears of the outcome of each call, once, under the key that it gave it.
    """
    queue = MemoryQueue()
    source = Source(queue)
    source.intake.make("a/b", Call(abs, (-3,)))
    source.intake.make(None, Call(dict, kw={"x": 1}, isWatched=True))
    source.intake.make(("no", 1), Call(raising, (KeyError(),)))
    assert len(source.intake) == 3
    assert source.intake.keys == ["a/b", None, ("no", 1)]
    assert "a/b" in source.intake
    queue.finish()
    assert source.heard == [
        ("returned", "a/b"),
        ("begun", None),
        ("returned", None),
        ("KeyError", ("no", 1)),
    ]
    assert source.values == {"a/b": 3, None: {"x": 1}}
    assert len(source.intake) == 0


def test_aQueueThatReturnsNoFailuresStillTellsThem() -> None:
    """
    How the queue ends the calls of its program does not matter to those of a source.
    """
    queue = MemoryQueue(returnFailure=False)
    source = Source(queue)
    with readingLogs():
        source.intake.make(1, Call(raising, (KeyError(),)))
        queue.finish()
    assert source.heard == [("KeyError", 1)]


def test_asManyAreWantedAsTheWorkersCanUse() -> None:
    """
    Two calls are wanted for each that can run at once, and another one as each ends.
    """
    queue = MemoryQueue(MemoryWorker())
    source = Source(queue)
    made = 0
    while source.intake.wanted:
        source.intake.make(made, Call(abs, (made,)))
        made += 1
    assert made == 2
    queue.step()
    assert source.intake.wanted == 1
    queue.attachWorker(MemoryWorker())
    assert source.intake.wanted == 3


def test_onlyWorkersOfTheSeriesWantCalls() -> None:
    """
    For a source whose calls have a series only the workers for that count.
    """
    queue = MemoryQueue(MemoryWorker())
    source = Source(queue, series="disk")
    assert source.intake.wanted == 0
    queue.attachWorker(MemoryWorker(["disk"]))
    assert source.intake.wanted == 2


def test_nothingIsWantedOfAQueueThatEnds() -> None:
    """
    A queue that is shut down wants no calls, and refuses those that it is given.
    """
    queue = MemoryQueue()
    source = Source(queue)
    queue.shutdown()
    assert source.intake.wanted == 0
    with pytest.raises(QueueRunError):
        source.intake.make(1, Call(abs, (1,)))
    assert source.intake.keys == []
    assert source.heard == []


def test_callsThatAreHeldBeginLater() -> None:
    """
    While calls are held none begins and none is wanted; those that have begun end. Then so
    many begin as are admitted, in their order, and one for each that ends.
    """
    queue = MemoryQueue(MemoryWorker(window=9))
    worker = queue.workers()[0]
    source = Source(queue)
    source.intake.make(0, Call(abs, (0,)))
    source.intake.hold()
    source.intake.hold()
    assert source.intake.wanted == 0
    for number in (1, 2, 3):
        source.intake.make(number, Call(abs, (number,), isWatched=True))
    queue.finish()
    assert source.heard == [("returned", 0)]
    source.intake.admit(2)
    assert [task.callTuple[1] for task in worker.tasks] == [(1,), (2,)]
    queue.finish()
    assert source.heard[1:] == [
        ("begun", 1),
        ("begun", 2),
        ("returned", 1),
        ("begun", 3),
        ("returned", 2),
        ("returned", 3),
    ]


def test_callsThatTheQueueHasNotBegunAreHeld() -> None:
    """
    Calls that wait in the queue are held, too, and keep what was said of them.
    """
    queue = MemoryQueue(MemoryWorker())
    source = Source(queue)
    for number in range(3):
        source.intake.make(number, Call(abs, (-number,), isWatched=True))
    source.intake.hold()
    assert (queue.statistics().queued, len(source.intake)) == (0, 3)
    queue.finish()
    source.intake.admit(1)
    queue.finish()
    assert source.heard == [(what, number) for number in range(3) for what in ("begun", "returned")]
    assert source.values == {0: 0, 1: 1, 2: 2}


def test_heldCallsAreRefusedByAQueueThatHasEnded() -> None:
    """
    Calls that were kept back as the queue was shut down are told to have been refused.
    """
    queue = MemoryQueue()
    source = Source(queue)
    source.intake.hold()
    source.intake.make(1, Call(abs, (1,)))
    queue.shutdown()
    source.intake.admit(1)
    assert source.heard == [("refused", 1, "QueueRunError")]


@pytest.mark.parametrize("held", [True, False])
def test_whatHasNotBegunCanBeTakenBack(held: bool) -> None:
    """
    A call that has not begun is taken back, and nothing is heard of it; one that has is not.
    """
    queue = MemoryQueue(MemoryWorker())
    source = Source(queue)
    source.intake.make(0, Call(abs, (0,)))
    if held:
        source.intake.hold()
    source.intake.make(1, Call(abs, (1,)))
    assert not source.intake.takeBack(0)
    assert source.intake.takeBack(1)
    assert not source.intake.takeBack(1)
    queue.finish()
    assert source.heard == [("returned", 0)]


def test_cancelledCallsAreNotHeardOf() -> None:
    """
    Calls are cancelled in every state, and make room for those that were kept back.
    """
    queue = MemoryQueue(MemoryWorker())
    source = Source(queue)
    source.intake.make(0, Call(abs, (0,)))
    source.intake.hold()
    source.intake.make(1, Call(abs, (1,)))
    source.intake.make(2, Call(abs, (2,)))
    source.intake.admit(0)
    assert source.intake.cancel(1)
    assert source.intake.cancel(0)
    assert not source.intake.cancel(0)
    queue.finish()
    assert source.heard == [("returned", 2)]


def test_aSourceThatStopsHearsNothingMore() -> None:
    """
    With C{stop} all calls are cancelled, whether they have begun or not.
    """
    queue = MemoryQueue(MemoryWorker(window=9))
    source = Source(queue)
    for number in range(2):
        source.intake.make(number, Call(abs, (number,), isWatched=True))
    source.intake.hold()
    source.intake.make(2, Call(abs, (2,)))
    del source.heard[:]
    source.intake.stop()
    queue.finish()
    assert source.heard == []
    assert source.intake.keys == []


def test_aSourceMayDoWithoutSome() -> None:
    """
    Who does not watch calls, and does not keep them back, need not know what is told of such.
    """

    class Simple(IntakeDelegate):
        pass

    simple = Simple()
    assert simple.callBegun(1) is None
    assert simple.callRefused(1, KeyError()) is None


def test_theQueueIsObservedNoLongerThanNeeded() -> None:
    """
    A source that says so observes the queue only while a watched call has not begun.
    """
    queue = MemoryQueue(MemoryWorker())
    source = Source(queue)
    source.intake.make(0, Call(abs, (0,)))
    source.intake.make(1, Call(abs, (1,), isWatched=True))
    source.intake.unobserve()
    queue.finish()
    assert ("begun", 1) in source.heard
    source.intake.unobserve()
    source.intake.make(2, Call(abs, (2,)))
    queue.finish()
    assert source.heard[-1] == ("returned", 2)
