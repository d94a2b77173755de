"""
What L{asynqueue.iteration.Deferator} promises: each item once and in order, to either
kind of loop, until the end or the stop.
"""

from __future__ import annotations

import asyncio
import gc
import threading
from typing import Any

import pytest
import pytest_twisted
from hypothesis import given, strategies as st
from twisted.internet.defer import (
    CancelledError,
    Deferred,
    ensureDeferred,
    fail,
    succeed,
)
from twisted.python.failure import Failure

from asynqueue.errors import ImplementationError, NotReadyError
from asynqueue.iteration import (
    Deferator,
)
from tests.iterations import (
    Oops,
    Scripted,
    failing,
    looped,
    loopedAsynchronously,
    outcomeOf,
    scripted,
)

# Loops ----------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 2, 3, 100])
def test_aPlainLoopGivesEachItemInOrder(count: int) -> None:
    """
    A loop over Deferreds gives all items of an iterator and then ends.
    """
    dr = Deferator(iter(range(count)))
    assert outcomeOf(looped(dr)) == list(range(count))
    assert outcomeOf(dr.d) is True


@pytest.mark.parametrize("count", [0, 1, 2, 3, 100])
def test_anAsynchronousLoopGivesEachItemInOrder(count: int) -> None:
    """
    C{async for} in Twisted's coroutines gives all items and then ends.
    """
    dr = Deferator(iter(range(count)))
    assert outcomeOf(ensureDeferred(loopedAsynchronously(dr))) == list(range(count))
    assert outcomeOf(dr.d) is True


def test_anAsynchronousLoopRunsInAsyncio() -> None:
    """
    C{async for} in an asyncio task gives all items, also those it waits for.
    """

    async def slowly() -> Any:
        for i in range(3):
            await asyncio.sleep(0)
            yield i

    async def main() -> list[Any]:
        return await loopedAsynchronously(Deferator(slowly()))

    assert asyncio.run(main()) == [0, 1, 2]


@pytest.mark.parametrize("notIterable", [None, 5, [1, 2], "rep"])
def test_whatCannotBeIteratedIsEmpty(notIterable: Any) -> None:
    """
    A Deferator of something that is no iterator has no items, and is done.
    """
    dr = Deferator(notIterable)
    assert outcomeOf(dr.d) is True
    assert list(dr) == []


@pytest.mark.bulk
@pytest.mark.parametrize("loop", [looped, lambda dr: ensureDeferred(loopedAsynchronously(dr))])
def test_manyReadyItemsDoNotRecurse(loop: Any) -> None:
    """
    100,000 items that are ready at once are no deeper than one.
    """
    assert len(outcomeOf(loop(Deferator(iter(range(100_000)))))) == 100_000


@pytest.mark.bulk
@pytest.mark.parametrize("loop", [looped, lambda dr: ensureDeferred(loopedAsynchronously(dr))])
def test_manyAwaitedItemsDoNotRecurse(loop: Any) -> None:
    """
    20,000 items that are Deferreds, or come one by one, are no deeper either.
    """
    dr = Deferator(succeed(i) for i in range(20_000))
    assert len(outcomeOf(loop(dr))) == 20_000


def test_anItemComesWhenItIsKnownWhatFollows() -> None:
    """
    In a plain loop an item's Deferred fires once another item is here.
    """
    source, dr = scripted()
    d = next(dr)
    source.give("a")
    assert not d.called
    source.give("b")
    assert outcomeOf(d) == "a"


def test_theLastItemComesWithTheEnd() -> None:
    """
    The last item's Deferred fires when the source is finished, and the loop ends.
    """
    source, dr = scripted()
    d = next(dr)
    source.end("a")
    assert outcomeOf(d) == "a"
    assert not dr.d.called
    with pytest.raises(StopIteration):
        next(dr)
    assert outcomeOf(dr.d) is True


def test_anAsynchronousLoopHasAnItemAtOnce() -> None:
    """
    C{async for} does not wait for what follows.
    """
    source, dr = scripted()
    d = ensureDeferred(dr.__anext__())
    source.give("a")
    assert outcomeOf(d) == "a"


def test_theEndComesToAnAsynchronousLoopThatWaits() -> None:
    """
    C{StopAsyncIteration} is raised where the next item was waited for.
    """
    source, dr = scripted()
    d = ensureDeferred(loopedAsynchronously(dr))
    source.end()
    assert outcomeOf(d) == []
    assert outcomeOf(dr.d) is True


def test_nextBeforeTheLastFiredIsRefused() -> None:
    """
    Both kinds of step raise L{NotReadyError} while an item is waited for.
    """
    source, dr = scripted()
    d = next(dr)
    with pytest.raises(NotReadyError):
        next(dr)
    assert outcomeOf(ensureDeferred(dr.__anext__())).check(NotReadyError)
    source.end(1)
    assert outcomeOf(d) == 1


def test_anEmptyIterationFailsTheDeferredItCannotTakeBack() -> None:
    """
    A loop that began before the iteration turned out to be empty is told so.
    """
    source, dr = scripted()
    d = next(dr)
    source.end()
    assert outcomeOf(d).check(StopAsyncIteration)
    assert outcomeOf(dr.d) is True


def test_afterReadyALoopOverNothingEnds() -> None:
    """
    C{deferUntilReady} fires when an empty iteration is known to be empty.
    """
    source, dr = scripted()
    ready = dr.deferUntilReady()
    assert not ready.called
    source.end()
    assert outcomeOf(ready) is dr
    assert list(dr) == []


def test_readyWhenTheFirstItemIsHere() -> None:
    """
    C{deferUntilReady} fires with the first item, and at once when there is one.
    """
    source, dr = scripted()
    ready = dr.deferUntilReady()
    source.give(1)
    assert outcomeOf(ready) is dr
    assert outcomeOf(dr.deferUntilReady()) is dr


def test_aCancelledWaitForReadinessHarmsNoOther() -> None:
    """
    One who waits may cancel another's wait, even as it fires.
    """
    source, dr = scripted()
    first, second = dr.deferUntilReady(), dr.deferUntilReady()
    first.addCallback(lambda _: second.cancel())
    source.give(1)
    assert outcomeOf(first) is None
    assert outcomeOf(second).check(CancelledError)


# Failures -------------------------------------------------------------------


def test_anIteratorThatRaisesFailsThatItem() -> None:
    """
    The items before it come, then its Deferred fails with its own type, and
    the iteration ends incomplete.
    """
    dr = Deferator(failing())
    assert outcomeOf(next(dr)) == 1
    assert outcomeOf(next(dr)) == 2
    assert outcomeOf(next(dr)).check(Oops)
    assert list(dr) == []
    assert outcomeOf(dr.d) is False


def test_anIteratorThatRaisesRaisesInAnAsynchronousLoop() -> None:
    """
    C{async for} raises what the iterator raised.
    """
    assert outcomeOf(ensureDeferred(loopedAsynchronously(Deferator(failing())))).check(Oops)


def test_stopIterationInsideAGeneratorIsAFailure() -> None:
    """
    A generator in which C{StopIteration} escapes has failed, and not ended.
    """

    def wrong() -> Any:
        yield 1
        next(iter(()))

    dr = Deferator(wrong())
    assert outcomeOf(next(dr)) == 1
    assert outcomeOf(next(dr)).check(RuntimeError)


def test_theIterationGoesOnAfterAFailedItem() -> None:
    """
    An item that failed is followed by others, and such an iteration may be
    complete.
    """
    dr = Deferator(iter([succeed(1), fail(Oops()), succeed(3)]))
    assert outcomeOf(next(dr)) == 1
    assert outcomeOf(next(dr)).check(Oops)
    assert outcomeOf(next(dr)) == 3
    assert list(dr) == []
    assert outcomeOf(dr.d) is True


# Cancelling and stopping ----------------------------------------------------


@pytest.mark.parametrize("odd", [0, 7, 20, 29])
def test_failuresAmongManyItemsKeepTheirPlaces(odd: int) -> None:
    """
    Of many items that come together, one that is a Failure raises in its place, and the others
    are given.
    """
    source, dr = scripted()
    items: list[Any] = list(range(30))
    items[odd] = Failure(Oops())
    source.give(*items[:20])
    source.end(*items[20:])
    got: list[Any] = []

    async def taken() -> None:
        while dr.moreLeft:
            try:
                got.append(await anext(dr))
            except Oops as error:
                got.append(error)

    assert outcomeOf(ensureDeferred(taken())) is None
    assert [n for n, item in enumerate(got) if isinstance(item, Oops)] == [odd]
    assert [item for item in got if item != got[odd]] == [n for n in range(30) if n != odd]


def test_allWhoWaitUntilReadyHearOfManyItems() -> None:
    """
    One of those who wait for items may take one in an asynchronous loop: the others hear that
    more are here.
    """
    source, dr = scripted()
    heard: list[Any] = []

    async def taken() -> None:
        await dr.deferUntilReady()
        heard.append(await anext(dr))

    takers = [ensureDeferred(taken()) for _ in range(2)]
    source.give(*range(20))
    assert [outcomeOf(taker) for taker in takers] == [None, None]
    assert (heard, dr.unconsumed) == ([0, 1], 18)


def test_aCancelledItemIsGivenNext() -> None:
    """
    Cancelling the Deferred of an item loses no item.
    """
    source, dr = scripted()
    d = next(dr)
    source.give("a")
    d.cancel()
    assert outcomeOf(d).check(CancelledError)
    source.give("b")
    assert outcomeOf(next(dr)) == "a"


def test_aCancelledAsynchronousStepLosesNothing() -> None:
    """
    Cancelling what waits in an asynchronous loop loses no item.
    """
    source, dr = scripted()
    d = ensureDeferred(dr.__anext__())
    d.cancel()
    assert outcomeOf(d).check(CancelledError)
    source.give("a")
    assert outcomeOf(ensureDeferred(dr.__anext__())) == "a"


def test_stopEndsEverything() -> None:
    """
    C{stop} stops the source, cancels the pending item, drops the others, and
    C{d} is False.
    """
    source, dr = scripted()
    d = next(dr)
    source.give("a")
    dr.stop()
    assert source.stops == 1
    assert outcomeOf(d).check(CancelledError)
    assert dr.unconsumed == 0
    assert list(dr) == []
    assert outcomeOf(ensureDeferred(loopedAsynchronously(dr))) == []
    assert outcomeOf(dr.d) is False


def test_stopTwiceIsStopOnce() -> None:
    """
    A second C{stop} does nothing.
    """
    source, dr = scripted()
    dr.stop()
    dr.stop()
    assert source.stops == 1


def test_anItemsDeferredCanStopTheIteration() -> None:
    """
    Every Deferred of an item has the C{stop} of its Deferator.
    """
    source, dr = scripted()
    d = next(dr)
    source.give(1, 2, 3)
    d.stop()
    assert source.stops == 1
    assert outcomeOf(dr.d) is False


def test_stopAfterTheLastItemWasConsumedIsComplete() -> None:
    """
    C{d} is True if there was nothing left to be stopped.
    """
    dr = Deferator(iter([1]))
    assert outcomeOf(next(dr)) == 1
    dr.stop()
    assert outcomeOf(dr.d) is True


def test_stopBeforeTheLastItemsIsNotComplete() -> None:
    """
    C{d} is False if items that had arrived were dropped.
    """
    dr = Deferator(iter([1, 2]))
    assert outcomeOf(next(dr)) == 1
    dr.stop()
    assert outcomeOf(dr.d) is False


def test_aSourceThatFailsToStopHarmsNoWait() -> None:
    """
    The pending item is cancelled even if the source raises as it is stopped.
    """

    class Bad(Scripted):
        def stop(self) -> None:
            raise Oops

    dr = Deferator.fromSource(Bad(), "bad")
    d = next(dr)
    with pytest.raises(Oops):
        dr.stop()
    assert outcomeOf(d).check(CancelledError)


def test_afterStopTheSourceIsNotHeard() -> None:
    """
    What a source says after it was stopped is ignored.
    """
    source, dr = scripted()
    dr.stop()
    source.give(1)
    source.sink.receiveFailure(Failure(Oops()))
    source.sink.finish()
    assert dr.unconsumed == 0
    assert list(dr) == []


def test_aDroppedDeferatorStopsItsSource() -> None:
    """
    A Deferator that nobody holds stops its source, without the collector.
    """
    gc.disable()
    try:
        source, dr = scripted()
        source.give(1)
        done = dr.d
        del dr
        assert source.stops == 1
    finally:
        gc.enable()
    assert outcomeOf(done) is False


def test_aDroppedDeferatorClosesItsGenerator() -> None:
    """
    The generator behind a dropped Deferator runs its C{finally}.
    """
    closed = []

    def endless() -> Any:
        try:
            while True:
                yield 1
        finally:
            closed.append(True)

    dr = Deferator(endless())
    next(dr)
    del dr
    assert closed == [True]


def test_whoWaitsIsNotDropped() -> None:
    """
    A loop that waits for an item lives, though only the source knows of it.
    """
    source = Scripted()
    items = []

    async def loop() -> None:
        items.extend(await loopedAsynchronously(Deferator.fromSource(source, "waiting")))

    ensureDeferred(loop())
    gc.collect()
    source.end(1, 2)
    assert items == [1, 2]


@pytest_twisted.inlineCallbacks
def test_droppedInAnotherThreadIsStoppedInTheReactors() -> Any:
    """
    When the last reference goes in another thread, the source is stopped in the
    reactor's.
    """
    where: Deferred[threading.Thread] = Deferred()

    class Noting(Scripted):
        def stop(self) -> None:
            where.callback(threading.current_thread())

    holder = [Deferator.fromSource(Noting(), "noting")]
    thread = threading.Thread(target=holder.clear)
    thread.start()
    thread.join()
    stoppedIn = yield where
    assert stoppedIn is threading.current_thread()


# Credit ---------------------------------------------------------------------


def test_creditIsGrantedInBatches() -> None:
    """
    The window is granted at once, and again when half of it was consumed.
    """
    source, dr = scripted(8)
    assert source.grants == [8]
    source.give(*range(8))
    for _ in range(3):
        next(dr)
    assert source.grants == [8]
    next(dr)
    assert source.grants == [8, 4]


def test_theWindowIsAtLeastTwo() -> None:
    """
    A window in which no item could be handed out is refused.
    """
    for window in (1, True, 2.5):
        with pytest.raises(ValueError, match="window must be a whole number, 2 or more"):
            Deferator.fromSource(Scripted(), "narrow", window)  # type: ignore[arg-type]


def test_moreThanWasGrantedIsRefused() -> None:
    """
    A source that breaks its promise is told so.
    """
    source, _dr = scripted(2)
    with pytest.raises(ImplementationError):
        source.sink.receive([1, 2, 3])


def test_aFailureMayComeWithoutCredit() -> None:
    """
    A source that is lost says so even when its credit is used up.
    """
    source, dr = scripted(2)
    source.give(1, 2)
    source.sink.receiveFailure(Failure(Oops()))
    source.sink.finish()
    assert [outcomeOf(next(dr)) for _ in range(2)] == [1, 2]
    assert outcomeOf(next(dr)).check(Oops)


@given(
    window=st.integers(2, 40),
    total=st.integers(0, 80),
    steps=st.lists(
        st.sampled_from(
            ["give 1", "give 2", "give 20", "next", "anext", "take", "cancel", "end", "stop"]
        )
    ),
)
def test_anyInterleavingGivesEachItemOnceInOrder(window: int, total: int, steps: list[str]) -> None:
    """
    Whatever comes when: items come once, in order, within the window, every
    Deferred fires once, and none after the stop.
    """
    source, dr = scripted(window)
    got: list[Any] = []
    fired: list[Deferred[Any]] = []
    pending: list[Deferred[Any]] = []
    given = 0
    stopped = ended = False

    def note(result: Any, d: Deferred[Any]) -> None:
        fired.append(d)
        pending.remove(d)
        if not isinstance(result, Failure):
            got.append(result)

    def watch(d: Deferred[Any]) -> None:
        pending.append(d)
        d.addBoth(note, d)

    for step in [*steps, "end", *["next"] * (total + 1)]:
        if step.startswith("give") and not (ended or stopped):
            count = min(total - given, source.granted, int(step.split()[1]))
            if count:
                source.give(*range(given, given + count))
                given += count
        elif step == "end" and not stopped:
            ended = True
            source.sink.finish()
        elif step == "stop":
            stopped = True
            dr.stop()
            assert not pending
        elif step == "cancel" and pending:
            pending[0].cancel()
        elif step in ("next", "anext") and not pending:
            if step == "anext":
                watch(ensureDeferred(dr.__anext__()))
            else:
                for d in dr:
                    watch(d)
                    break
        elif step == "take" and not pending:
            got += dr.takeReady(3)
        if not (ended or stopped):
            assert window // 2 < dr.unconsumed + source.granted <= window
            assert dr.unconsumed == given - len(got)
        assert got == list(range(len(got)))
    assert not pending
    assert len(got) == given or stopped
    assert len(fired) == len(set(fired))
    assert outcomeOf(dr.d) is not None


# Appearance -----------------------------------------------------------------


def test_theRepresentationIsShort() -> None:
    """
    It says what is iterated over, and keeps no large text.
    """
    assert repr(Deferator("<rows>", lambda: (None, False, False))) == "<Deferator of rows>"
    assert repr(Deferator(5)) == "<Deferator of []>"
    assert len(repr(Deferator.fromSource(Scripted(), "x" * 10_000))) < 250
    assert "list_iterator" in repr(Deferator(iter([1])))


def test_moreLeftUntilTheEnd() -> None:
    """
    C{moreLeft} is true while there may be another item.
    """
    source, dr = scripted()
    assert dr.moreLeft
    source.end(1)
    assert dr.moreLeft
    next(dr)
    assert not dr.moreLeft


# Many items at once ----------------------------------------------------------


def test_takeReadyGivesWhatIsHere() -> None:
    """
    All items that are here are taken at once, in order, and none that are not.
    """
    source, dr = scripted()
    assert dr.takeReady(10) == []
    source.give(1, 2, 3)
    assert dr.takeReady(10) == [1, 2, 3]
    assert dr.takeReady(10) == []
    assert dr.moreLeft


def test_takeReadyGivesNoMoreThanAsked() -> None:
    """
    No more items are taken than were asked for; the others are next.
    """
    source, dr = scripted()
    source.give(1, 2, 3)
    assert (dr.takeReady(0), dr.takeReady(2), dr.takeReady(2)) == ([], [1, 2], [3])


def test_takeReadyGrantsInBatches() -> None:
    """
    What was taken is granted again when no more than half of the window is left.
    """
    source, dr = scripted(window=8)
    source.give(*range(8))
    assert dr.takeReady(3) == [0, 1, 2]
    assert source.grants == [8]
    assert dr.takeReady(3) == [3, 4, 5]
    assert source.grants == [8, 6]


def test_takeReadyTellsTheEnd() -> None:
    """
    After the last item nothing more is left, and the iteration is complete.
    """
    source, dr = scripted()
    source.end(1, 2)
    assert dr.takeReady(10) == [1, 2]
    assert not dr.moreLeft
    assert dr.takeReady(10) == []
    assert outcomeOf(dr.d) is True


def test_takeReadyHasFailuresInTheirPlaces() -> None:
    """
    A failure stands among the items where it came, and ends an iteration that it is the
    last of.
    """
    dr = Deferator(failing())
    items: list[Any] = []
    while dr.moreLeft:
        items += dr.takeReady(10)
    assert items[:2] == [1, 2]
    assert isinstance(items[2], Failure)
    assert items[2].check(Oops)
    assert dr.takeReady(1) == []
    assert outcomeOf(dr.d) is False


def test_takeReadyWaitsForNobodyElse() -> None:
    """
    Nothing is taken from under who waits for an item.
    """
    source, dr = scripted()
    d = next(dr)
    with pytest.raises(NotReadyError):
        dr.takeReady(1)
    source.give(1, 2, 3)
    assert outcomeOf(d) == 1
    assert dr.takeReady(5) == [2, 3]


@given(count=st.integers(0, 50), window=st.integers(2, 9), most=st.integers(1, 9))
def test_takeReadyGivesEachItemOnce(count: int, window: int, most: int) -> None:
    """
    Whatever the window, and however many are taken at a time, each item comes once and in
    order, and no more of them are here than the window has room for.
    """
    source, dr = scripted(window)
    left = list(range(count))
    taken: list[int] = []
    while dr.moreLeft:
        items, left = left[: source.granted], left[source.granted :]
        source.give(*items)
        assert dr.unconsumed <= window
        if not left:
            source.sink.finish()
        taken += dr.takeReady(most)
    assert taken == list(range(count))
