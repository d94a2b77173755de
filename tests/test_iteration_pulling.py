"""
What is promised of items that a function is asked for: by a
L{asynqueue.iteration.Deferator}, and by a C{Prefetcherator}.
"""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import (
    Deferred,
    fail,
    succeed,
)
from twisted.python.failure import Failure

from asynqueue.errors import NotReadyError
from asynqueue.iteration import (
    Deferator,
    Prefetcherator,
)
from tests.iterations import (
    Oops,
    failing,
    looped,
    outcomeOf,
)

# The protocol of getNext ----------------------------------------------------


def test_aFunctionIsAskedOncePerItem() -> None:
    """
    C{f(*args, **kw)} gives (value, isValid, moreLeft), and each item comes with
    its answer.
    """
    asked: list[Any] = []

    def getNext(*args: Any, **kw: Any) -> Any:
        asked.append((args, kw))
        return Deferred()

    answers: list[Deferred[Any]] = []

    def noted(*args: Any, **kw: Any) -> Any:
        answers.append(getNext(*args, **kw))
        return answers[-1]

    dr = Deferator("<rows>", noted, 1, key=2)
    assert asked == [((1,), {"key": 2})]
    d = next(dr)
    answers[0].callback(("a", True, True))
    assert outcomeOf(d) == "a"
    d = next(dr)
    assert len(answers) == 2
    answers[1].callback(("b", True, False))
    assert outcomeOf(d) == "b"
    assert list(dr) == []
    assert outcomeOf(dr.d) is True


def test_anAnswerThatIsNotValidIsNoItem() -> None:
    """
    (None, False, False) at once is an empty iteration.
    """
    dr = Deferator("empty", lambda: succeed((None, False, False)))
    assert list(dr) == []


@pytest.mark.parametrize("f", [lambda: fail(Oops()), lambda: 1 / 0, lambda: succeed(7)])
def test_aFunctionThatFailsEndsTheIteration(f: Any) -> None:
    """
    A failure, an exception and an answer of another form fail the item.
    """
    dr = Deferator("bad", f)
    assert outcomeOf(next(dr)).check(Oops, ZeroDivisionError, TypeError)
    assert list(dr) == []
    assert outcomeOf(dr.d) is False


def test_whatIsNoFunctionIsRefused() -> None:
    """
    After a representation there must be a function.
    """
    with pytest.raises(TypeError):
        Deferator("rows", 5)


def test_stopCancelsWhatTheFunctionWasAskedFor() -> None:
    """
    The Deferred of a call that is under way is cancelled.
    """
    cancelled: list[Any] = []
    dr = Deferator("rows", lambda: Deferred(cancelled.append))
    dr.stop()
    assert len(cancelled) == 1


def test_aFunctionMayStopItsDeferator() -> None:
    """
    What it gives in that very call is cancelled, or not heard.
    """
    holder: list[Deferator] = []
    cancelled: list[Any] = []

    def getNext() -> Any:
        if not holder:
            return 1, True, True
        holder[0].stop()
        return Deferred(cancelled.append)

    holder.append(Deferator("rows", getNext))
    assert outcomeOf(next(holder[0])) == 1
    assert len(cancelled) == 1
    assert list(holder[0]) == []


def test_anAnswerAfterTheStopIsNotHeard() -> None:
    """
    An answer that is given in spite of its cancellation does nothing.
    """
    holder: list[Deferator] = []

    def getNext() -> Any:
        for dr in holder:
            dr.stop()
        return len(holder), True, True

    holder.append(Deferator("rows", getNext))
    assert outcomeOf(next(holder[0])) == 0
    assert list(holder[0]) == []


@pytest.mark.bulk
def test_manyAnswersDoNotRecurse() -> None:
    """
    20,000 answers that are there at once are no deeper than one.
    """
    numbers = iter(range(20_000))
    dr = Deferator("numbers", lambda: succeed((next(numbers), True, True)))
    count = 0
    for d in dr:
        if isinstance(outcomeOf(d), Failure):
            break
        count += 1
    assert count == 20_000


# Prefetcherator -------------------------------------------------------------


def test_aPrefetcheratorTellsWhatFollows() -> None:
    """
    C{getNext} gives each value with whether another one follows.
    """
    pf = Prefetcherator("ID")
    assert outcomeOf(pf.setup(iter("ab"))) is True
    assert [outcomeOf(pf.getNext()) for _ in range(4)] == [
        ("a", True, True),
        ("b", True, False),
        (None, False, False),
        (None, False, False),
    ]
    assert not pf.isBusy()


@pytest.mark.parametrize("args", [(), (iter(()),), (5,)])
def test_aPrefetcheratorWithoutItemsSaysSo(args: Any) -> None:
    """
    C{setup} is False if there is nothing to iterate over.
    """
    pf = Prefetcherator()
    assert outcomeOf(pf.setup(*args)) is False
    assert not pf.isBusy()


def test_aBusyPrefetcheratorIsNotSetUp() -> None:
    """
    One iteration after another: C{setup} is False until the last one ended.
    """
    pf = Prefetcherator(3)
    assert outcomeOf(pf.setup(iter([1, 2]))) is True
    assert "busy" in repr(pf)
    assert outcomeOf(pf.setup(iter([3]))) is False
    assert outcomeOf(looped(Deferator(pf))) == [1, 2]
    assert "idle" in repr(pf)
    assert outcomeOf(pf.setup(iter([3]))) is True


def test_aPrefetcheratorCallsAFunction() -> None:
    """
    A function is called with its arguments until it raises StopIteration.
    """
    left = [1, 2, 3]

    def pull(scale: int, offset: int) -> Any:
        if not left:
            raise StopIteration
        return succeed(left.pop(0) * scale + offset)

    pf = Prefetcherator()
    assert outcomeOf(pf.setup(pull, 10, offset=5)) is True
    assert outcomeOf(looped(Deferator(pf))) == [15, 25, 35]


def test_aPrefetcheratorFailsTheItemThatFailed() -> None:
    """
    An iterator that raises fails the C{getNext} of that item and has ended.
    """
    pf = Prefetcherator()
    pf.setup(failing())
    assert outcomeOf(pf.getNext()) == (1, True, True)
    assert outcomeOf(pf.getNext()) == (2, True, True)
    assert outcomeOf(pf.getNext()).check(Oops)
    assert outcomeOf(pf.getNext()) == (None, False, False)


def test_aPrefetcheratorIsAskedOneAtATime() -> None:
    """
    C{getNext} before the last one fired is L{NotReadyError}.
    """
    waiting: list[Deferred[int]] = []

    def pull() -> Any:
        waiting.append(Deferred())
        return waiting[-1]

    pf = Prefetcherator()
    ready = pf.setup(pull)
    assert outcomeOf(pf.getNext()).check(NotReadyError)
    waiting[0].callback(1)
    assert outcomeOf(ready) is True
    first = pf.getNext()
    assert outcomeOf(pf.getNext()).check(NotReadyError)
    waiting[1].callback(2)
    assert outcomeOf(first) == (1, True, True)
