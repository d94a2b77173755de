"""
What L{asynqueue.iteration.OrderedItemProducer} promises.
"""

from __future__ import annotations

import contextvars
import threading
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.python.failure import Failure

from asynqueue.errors import ImplementationError
from asynqueue.iteration import OrderedItemProducer, deferToDelay
from asynqueue.reactors import theReactor
from tests.iterations import Oops, outcomeOf

LIMIT = 30


def soon(d: Deferred[Any]) -> Deferred[Any]:
    return d.addTimeout(LIMIT, theReactor())


def slowly() -> tuple[list[Deferred[Any]], Any]:
    """
    A function whose items the test gives.
    """
    ds: list[Deferred[Any]] = []

    def fp() -> Deferred[Any]:
        ds.append(Deferred())
        return ds[-1]

    return ds, fp


@pytest_twisted.inlineCallbacks
def test_itemsComeInTheOrderOfTheCalls() -> Any:
    """
    Whichever is made first, the function gets them as they were asked for.
    """
    producer = OrderedItemProducer()
    yield soon(producer.start(list))
    ds, fp = slowly()
    items = [producer.produceItem(fp) for _ in range(3)]
    for k in (2, 0, 1):
        ds[k].callback(k)
        assert outcomeOf(items[k]) == k
    assert (yield soon(producer.stop())) == [0, 1, 2]


@pytest_twisted.inlineCallbacks
def test_theFunctionRunsInItsOwnThread() -> Any:
    """
    It gets the iterator and its arguments, and the caller's context.
    """
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable")
    variable.set(7)

    def fb(iterator: Any, *args: Any, **kw: Any) -> Any:
        thread = threading.current_thread()
        return list(iterator), args, kw, thread.daemon, variable.get(), thread

    producer = OrderedItemProducer(maxThreads=2)
    assert (yield soon(producer.start(fb, 1, x=2))) is None
    assert outcomeOf(producer.produceItem(lambda a, b: a + b, 3, b=4)) == 7
    *result, thread = yield soon(producer.stop())
    assert result == [[7], (1,), {"x": 2}, True, 7]
    assert thread is not threading.current_thread()


@pytest_twisted.inlineCallbacks
def test_itemsMayBeMadeBeforeTheStart() -> Any:
    """
    The function gets them when it begins.
    """
    producer = OrderedItemProducer()
    assert outcomeOf(producer.produceItem(succeed, 1)) == 1
    started = producer.start(sum)
    started.cancel()
    assert outcomeOf(started) is not None
    assert (yield soon(producer.stop())) == 1


@pytest_twisted.inlineCallbacks
def test_stopWaitsForItemsThatAreBeingMade() -> Any:
    """
    They are handed over; calls after the stop make nothing.
    """
    producer = OrderedItemProducer()
    yield soon(producer.start(list))
    ds, fp = slowly()
    producer.produceItem(fp)
    d = producer.stop()
    assert outcomeOf(producer.produceItem(fp)) is None
    assert len(ds) == 1
    ds[0].callback("a")
    assert (yield soon(d)) == ["a"]
    assert outcomeOf(producer.stop()) == ["a"]


@pytest_twisted.inlineCallbacks
def test_aFunctionThatFailsFailsTheStop() -> Any:
    """
    C{stop} fails as the function did.
    """

    def fb(iterator: Any) -> None:
        next(iterator)
        raise Oops

    producer = OrderedItemProducer()
    yield soon(producer.start(fb))
    producer.produceItem(succeed, 1)
    with pytest.raises(Oops):
        yield soon(producer.stop())


@pytest.mark.parametrize("how", ["raise", "fail"])
@pytest_twisted.inlineCallbacks
def test_anItemThatFailsEndsTheIterator(how: str) -> Any:
    """
    The function gets the items before it; C{stop} fails as the item did.
    """
    got: list[Any] = []

    def fp() -> Any:
        if how == "raise":
            raise Oops
        return fail(Oops())

    producer = OrderedItemProducer()
    yield soon(producer.start(got.extend))
    producer.produceItem(succeed, 1)
    assert outcomeOf(producer.produceItem(fp)) is None
    assert outcomeOf(producer.produceItem(succeed, 3)) is None
    with pytest.raises(Oops):
        yield soon(producer.stop())
    assert got == [1]


@pytest_twisted.inlineCallbacks
def test_anItemThatFailsBeforeTheStartIsTheEnd() -> Any:
    """
    The function that is started then gets what came before it, and no more.
    """
    got: list[Any] = []
    producer = OrderedItemProducer()
    producer.produceItem(succeed, 1)
    producer.produceItem(fail, Oops())
    assert outcomeOf(producer.produceItem(succeed, 3)) is None
    yield soon(producer.start(got.extend))
    with pytest.raises(Oops):
        yield soon(producer.stop())
    assert got == [1]


@pytest_twisted.inlineCallbacks
def test_itemsBeforeAFailedOneAreStillMade() -> Any:
    """
    A later item that fails first does not take the place of those before it,
    and those behind it are dropped.
    """
    got: list[Any] = []
    producer = OrderedItemProducer()
    yield soon(producer.start(got.extend))
    ds, fp = slowly()
    items = [producer.produceItem(fp) for _ in range(4)]
    ds[1].errback(Failure(Oops()))
    d = producer.stop()
    ds[0].callback("a")
    with pytest.raises(Oops):
        yield soon(d)
    assert got == ["a"]
    ds[2].callback("c")
    ds[3].errback(Failure(Oops()))
    assert [outcomeOf(item) for item in items] == ["a", None, "c", None]


@pytest_twisted.inlineCallbacks
def test_aFunctionThatEndsEarlyLetsNobodyWait() -> Any:
    """
    Items that are being made then are dropped, later ones are not made, and
    C{stop} has the function's result.
    """
    producer = OrderedItemProducer()
    yield soon(producer.start(next))
    ds, fp = slowly()
    producer.produceItem(succeed, "first")
    late = producer.produceItem(fp)
    assert (yield soon(producer.stop())) == "first"
    ds[0].callback("late")
    assert outcomeOf(late) == "late"
    assert outcomeOf(producer.produceItem(fp)) is None


@pytest_twisted.inlineCallbacks
def test_whoIsFarAheadWaits() -> Any:
    """
    With more than C{maxAhead} items unconsumed, an item's Deferred waits for
    the function.
    """
    go = threading.Event()

    def fb(iterator: Any) -> Any:
        go.wait(LIMIT)
        return list(iterator)

    producer = OrderedItemProducer(maxAhead=2)
    yield soon(producer.start(fb))
    items = [producer.produceItem(succeed, k) for k in range(5)]
    assert [d.called for d in items] == [True, True, False, False, False]
    items[3].cancel()
    assert outcomeOf(items[3]).check(CancelledError)
    go.set()
    for k in (2, 4):
        assert (yield soon(items[k])) == k
    assert (yield soon(producer.stop())) == [0, 1, 2, 3, 4]


@pytest_twisted.inlineCallbacks
def test_whoWaitsForRoomGoesOnWhenTheFunctionEnds() -> Any:
    """
    A function that takes nothing more holds up nobody.
    """
    producer = OrderedItemProducer(maxAhead=1)
    items = [producer.produceItem(succeed, k) for k in range(3)]
    assert [d.called for d in items] == [True, False, False]
    producer.start(lambda iterator: "enough")
    for k in range(3):
        assert (yield soon(items[k])) == k
    assert (yield soon(producer.stop())) == "enough"


@pytest_twisted.inlineCallbacks
def test_whoWaitsForRoomGoesOnOneByOne() -> Any:
    """
    Those who wait are let on as the function takes items, and no sooner.
    """
    steps = threading.Semaphore(0)

    def fb(iterator: Any) -> Any:
        got = []
        while steps.acquire(timeout=LIMIT):
            item = next(iterator, None)
            if item is None:
                break
            got.append(item)
        return got

    producer = OrderedItemProducer(maxAhead=1)
    yield soon(producer.start(fb))
    items = [producer.produceItem(succeed, k) for k in range(1, 5)]
    steps.release(3)
    yield soon(items[3])
    assert all(d.called for d in items)
    steps.release(2)
    assert (yield soon(producer.stop())) == [1, 2, 3, 4]


@pytest_twisted.inlineCallbacks
def test_aCancelledItemLeavesTheOrder() -> Any:
    """
    Making it is cancelled, and the others come as if it had not been asked for.
    """
    producer = OrderedItemProducer()
    yield soon(producer.start(list))
    ds, fp = slowly()
    items = [producer.produceItem(fp) for _ in range(3)]
    ds[2].callback("c")
    items[1].cancel()
    assert outcomeOf(items[1]).check(CancelledError)
    ds[0].callback("a")
    assert (yield soon(producer.stop())) == ["a", "c"]


def test_stopWithoutStartIsNothing() -> None:
    """
    There is no result, and nobody can start it any more.
    """
    producer = OrderedItemProducer()
    assert outcomeOf(producer.stop()) is None
    with pytest.raises(ImplementationError):
        producer.start(list)


def test_wrongArgumentsAreRefused() -> None:
    """
    Functions are callable, and some item must be allowed ahead.
    """
    producer = OrderedItemProducer()
    with pytest.raises(TypeError):
        producer.start(5)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        producer.produceItem(5)  # type: ignore[arg-type]
    for maxAhead in (0, True, 1.5):
        with pytest.raises(ValueError, match="maxAhead must be a whole number"):
            OrderedItemProducer(maxAhead=maxAhead)  # type: ignore[arg-type]


@pytest_twisted.inlineCallbacks
def test_aWaitForTheStopCanBeCancelled() -> Any:
    """
    Who gives up waiting for the result changes nothing for others.
    """
    producer = OrderedItemProducer()
    yield soon(producer.start(list))
    ds, fp = slowly()
    producer.produceItem(fp)
    impatient, patient = producer.stop(), producer.stop()
    impatient.cancel()
    assert outcomeOf(impatient).check(CancelledError)
    ds[0].callback(1)
    assert (yield soon(patient)) == [1]
    yield deferToDelay(0)
