"""
What L{asynqueue.iteration.Deferator} and its sources promise.
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
    inlineCallbacks,
    succeed,
)
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure
from zope.interface import implementer
from zope.interface.verify import verifyObject

from asynqueue.errors import ImplementationError, NotReadyError
from asynqueue.interfaces import IItemSink, IItemSource
from asynqueue.iteration import (
    AsyncIteratorSource,
    Deferator,
    IteratorSource,
    Prefetcherator,
    PullSource,
    isIterator,
)
from asynqueue.iteration.inbox import Inbox


@implementer(IItemSource)
class Scripted:
    """
    A source that produces when the test says so.
    """

    def __init__(self) -> None:
        self.sink: Any = None
        self.granted = 0
        self.grants: list[int] = []
        self.stops = 0

    def connect(self, sink: Any) -> None:
        self.sink = sink

    def grant(self, count: int) -> None:
        self.granted += count
        self.grants.append(count)

    def stop(self) -> None:
        self.stops += 1

    def give(self, *items: Any) -> None:
        self.granted -= len(items)
        self.sink.receive(items)

    def end(self, *items: Any) -> None:
        self.give(*items)
        self.sink.finish()


def scripted(window: int = 64) -> tuple[Scripted, Deferator]:
    source = Scripted()
    return source, Deferator.fromSource(source, "scripted", window)


def resultOf(d: Deferred[Any]) -> Any:
    """
    What a Deferred has fired with, a Failure included.
    """
    results: list[Any] = []
    d.addBoth(results.append)
    assert results, "the Deferred has not fired"
    return results[0]


@inlineCallbacks
def looped(dr: Deferator) -> Any:
    items = []
    for d in dr:
        item = yield d
        items.append(item)
    return items


async def loopedAsynchronously(dr: Deferator) -> list[Any]:
    return [item async for item in dr]


# What is an iterator --------------------------------------------------------


@pytest.mark.parametrize("x", [iter([]), (i for i in ()), iter(""), map(str, ()), zip()])
def test_whatHasNextIsAnIterator(x: Any) -> None:
    """
    Iterators of all kinds are recognised.
    """
    assert isIterator(x)
    assert Deferator.isIterator(x)


@pytest.mark.parametrize(
    "x",
    [
        *("", b"", bytearray(), memoryview(b""), [], (), {}, set(), frozenset()),
        *(range(3), 1, None, test_whatHasNextIsAnIterator),
        *(Deferred(), Deferator([])),
    ],
)
def test_containersAndDeferredsAreNoIterators(x: Any) -> None:
    """
    Containers, mere iterables, functions, Deferreds and Deferators are none.
    """
    assert not isIterator(x)


# Loops ----------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 2, 3, 100])
def test_aPlainLoopGivesEachItemInOrder(count: int) -> None:
    """
    A loop over Deferreds gives all items of an iterator and then ends.
    """
    dr = Deferator(iter(range(count)))
    assert resultOf(looped(dr)) == list(range(count))
    assert resultOf(dr.d) is True


@pytest.mark.parametrize("count", [0, 1, 2, 3, 100])
def test_anAsynchronousLoopGivesEachItemInOrder(count: int) -> None:
    """
    C{async for} in Twisted's coroutines gives all items and then ends.
    """
    dr = Deferator(iter(range(count)))
    assert resultOf(ensureDeferred(loopedAsynchronously(dr))) == list(range(count))
    assert resultOf(dr.d) is True


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
    assert resultOf(dr.d) is True
    assert list(dr) == []


@pytest.mark.parametrize("loop", [looped, lambda dr: ensureDeferred(loopedAsynchronously(dr))])
def test_manyReadyItemsDoNotRecurse(loop: Any) -> None:
    """
    100,000 items that are ready at once are no deeper than one.
    """
    assert len(resultOf(loop(Deferator(iter(range(100_000)))))) == 100_000


@pytest.mark.parametrize("loop", [looped, lambda dr: ensureDeferred(loopedAsynchronously(dr))])
def test_manyAwaitedItemsDoNotRecurse(loop: Any) -> None:
    """
    20,000 items that are Deferreds, or come one by one, are no deeper either.
    """
    dr = Deferator(succeed(i) for i in range(20_000))
    assert len(resultOf(loop(dr))) == 20_000


def test_anItemComesWhenItIsKnownWhatFollows() -> None:
    """
    In a plain loop an item's Deferred fires once another item is here.
    """
    source, dr = scripted()
    d = next(dr)
    source.give("a")
    assert not d.called
    source.give("b")
    assert resultOf(d) == "a"


def test_theLastItemComesWithTheEnd() -> None:
    """
    The last item's Deferred fires when the source is finished, and the loop ends.
    """
    source, dr = scripted()
    d = next(dr)
    source.end("a")
    assert resultOf(d) == "a"
    assert not dr.d.called
    with pytest.raises(StopIteration):
        next(dr)
    assert resultOf(dr.d) is True


def test_anAsynchronousLoopHasAnItemAtOnce() -> None:
    """
    C{async for} does not wait for what follows.
    """
    source, dr = scripted()
    d = ensureDeferred(dr.__anext__())
    source.give("a")
    assert resultOf(d) == "a"


def test_theEndComesToAnAsynchronousLoopThatWaits() -> None:
    """
    C{StopAsyncIteration} is raised where the next item was waited for.
    """
    source, dr = scripted()
    d = ensureDeferred(loopedAsynchronously(dr))
    source.end()
    assert resultOf(d) == []
    assert resultOf(dr.d) is True


def test_nextBeforeTheLastFiredIsRefused() -> None:
    """
    Both kinds of step raise L{NotReadyError} while an item is waited for.
    """
    source, dr = scripted()
    d = next(dr)
    with pytest.raises(NotReadyError):
        next(dr)
    assert resultOf(ensureDeferred(dr.__anext__())).check(NotReadyError)
    source.end(1)
    assert resultOf(d) == 1


def test_anEmptyIterationFailsTheDeferredItCannotTakeBack() -> None:
    """
    A loop that began before the iteration turned out to be empty is told so.
    """
    source, dr = scripted()
    d = next(dr)
    source.end()
    assert resultOf(d).check(StopAsyncIteration)
    assert resultOf(dr.d) is True


def test_afterReadyALoopOverNothingEnds() -> None:
    """
    C{deferUntilReady} fires when an empty iteration is known to be empty.
    """
    source, dr = scripted()
    ready = dr.deferUntilReady()
    assert not ready.called
    source.end()
    assert resultOf(ready) is dr
    assert list(dr) == []


def test_readyWhenTheFirstItemIsHere() -> None:
    """
    C{deferUntilReady} fires with the first item, and at once when there is one.
    """
    source, dr = scripted()
    ready = dr.deferUntilReady()
    source.give(1)
    assert resultOf(ready) is dr
    assert resultOf(dr.deferUntilReady()) is dr


def test_aCancelledWaitForReadinessHarmsNoOther() -> None:
    """
    One who waits may cancel another's wait, even as it fires.
    """
    source, dr = scripted()
    first, second = dr.deferUntilReady(), dr.deferUntilReady()
    first.addCallback(lambda _: second.cancel())
    source.give(1)
    assert resultOf(first) is None
    assert resultOf(second).check(CancelledError)


# Failures -------------------------------------------------------------------


class Oops(Exception):
    """
    What user code raises.
    """


def failing() -> Any:
    yield 1
    yield 2
    raise Oops("in the middle")


def test_anIteratorThatRaisesFailsThatItem() -> None:
    """
    The items before it come, then its Deferred fails with its own type, and
    the iteration ends incomplete.
    """
    dr = Deferator(failing())
    assert resultOf(next(dr)) == 1
    assert resultOf(next(dr)) == 2
    assert resultOf(next(dr)).check(Oops)
    assert list(dr) == []
    assert resultOf(dr.d) is False


def test_anIteratorThatRaisesRaisesInAnAsynchronousLoop() -> None:
    """
    C{async for} raises what the iterator raised.
    """
    assert resultOf(ensureDeferred(loopedAsynchronously(Deferator(failing())))).check(Oops)


def test_stopIterationInsideAGeneratorIsAFailure() -> None:
    """
    A generator in which C{StopIteration} escapes has failed, and not ended.
    """

    def wrong() -> Any:
        yield 1
        next(iter(()))

    dr = Deferator(wrong())
    assert resultOf(next(dr)) == 1
    assert resultOf(next(dr)).check(RuntimeError)


def test_theIterationGoesOnAfterAFailedItem() -> None:
    """
    An item that failed is followed by others, and such an iteration may be
    complete.
    """
    dr = Deferator(iter([succeed(1), fail(Oops()), succeed(3)]))
    assert resultOf(next(dr)) == 1
    assert resultOf(next(dr)).check(Oops)
    assert resultOf(next(dr)) == 3
    assert list(dr) == []
    assert resultOf(dr.d) is True


# Cancelling and stopping ----------------------------------------------------


def test_aCancelledItemIsGivenNext() -> None:
    """
    Cancelling the Deferred of an item loses no item.
    """
    source, dr = scripted()
    d = next(dr)
    source.give("a")
    d.cancel()
    assert resultOf(d).check(CancelledError)
    source.give("b")
    assert resultOf(next(dr)) == "a"


def test_aCancelledAsynchronousStepLosesNothing() -> None:
    """
    Cancelling what waits in an asynchronous loop loses no item.
    """
    source, dr = scripted()
    d = ensureDeferred(dr.__anext__())
    d.cancel()
    assert resultOf(d).check(CancelledError)
    source.give("a")
    assert resultOf(ensureDeferred(dr.__anext__())) == "a"


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
    assert resultOf(d).check(CancelledError)
    assert dr.unconsumed == 0
    assert list(dr) == []
    assert resultOf(ensureDeferred(loopedAsynchronously(dr))) == []
    assert resultOf(dr.d) is False


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
    assert resultOf(dr.d) is False


def test_stopAfterTheLastItemWasConsumedIsComplete() -> None:
    """
    C{d} is True if there was nothing left to be stopped.
    """
    dr = Deferator(iter([1]))
    assert resultOf(next(dr)) == 1
    dr.stop()
    assert resultOf(dr.d) is True


def test_stopBeforeTheLastItemsIsNotComplete() -> None:
    """
    C{d} is False if items that had arrived were dropped.
    """
    dr = Deferator(iter([1, 2]))
    assert resultOf(next(dr)) == 1
    dr.stop()
    assert resultOf(dr.d) is False


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
    assert resultOf(d).check(CancelledError)


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
    assert resultOf(done) is False


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
    with pytest.raises(ValueError):
        Deferator.fromSource(Scripted(), "narrow", 1)


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
    assert [resultOf(next(dr)) for _ in range(2)] == [1, 2]
    assert resultOf(next(dr)).check(Oops)


@given(
    window=st.integers(2, 9),
    total=st.integers(0, 30),
    steps=st.lists(st.sampled_from(["give", "give2", "next", "anext", "cancel", "end", "stop"])),
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
            count = min(total - given, source.granted, 2 if step == "give2" else 1)
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
        assert dr.unconsumed + source.granted <= window or ended or stopped
        assert got == list(range(len(got)))
    assert not pending
    assert len(got) == given or stopped
    assert len(fired) == len(set(fired))
    assert resultOf(dr.d) is not None


# Sources --------------------------------------------------------------------


@pytest.mark.parametrize(
    "source", [IteratorSource(iter(())), AsyncIteratorSource(Deferator([])), PullSource(len)]
)
def test_sourcesProvideTheirInterface(source: Any) -> None:
    """
    Each source is an L{IItemSource}.
    """
    assert verifyObject(IItemSource, source)


def test_theInboxProvidesItsInterface() -> None:
    """
    What a source produces to is an L{IItemSink}.
    """
    assert verifyObject(IItemSink, Inbox(None, 2))


@pytest.mark.parametrize(
    ("make", "wrong", "error"),
    [
        (IteratorSource, [1], ImplementationError),
        (AsyncIteratorSource, iter([1]), ImplementationError),
        (PullSource, "f", TypeError),
    ],
)
def test_sourcesRefuseWhatTheyCannotIterate(make: Any, wrong: Any, error: Any) -> None:
    """
    A wrong argument is an error where it is given.
    """
    with pytest.raises(error):
        make(wrong)


def test_anIteratorIsAdvancedOnDemand() -> None:
    """
    Of an endless iterator no more is taken than the window has room for.
    """
    taken: list[int] = []

    def endless() -> Any:
        while True:
            taken.append(1)
            yield len(taken)

    dr = Deferator(endless())
    assert len(taken) == 2
    assert resultOf(next(dr)) == 1
    assert len(taken) == 3
    dr.stop()
    assert len(taken) == 3


def test_itemsThatAreDeferredsAreWaitedFor() -> None:
    """
    The iterator is not advanced before its Deferred has fired.
    """
    waiting: list[Deferred[str]] = []

    def deferreds() -> Any:
        for _ in range(2):
            waiting.append(Deferred())
            yield waiting[-1]

    dr = Deferator(deferreds())
    d = ensureDeferred(loopedAsynchronously(dr))
    assert len(waiting) == 1
    waiting[0].callback("a")
    waiting[1].callback("b")
    assert resultOf(d) == ["a", "b"]


def test_stopCancelsTheItemThatIsADeferred() -> None:
    """
    The Deferred that an iterator gave is cancelled by C{stop}.
    """
    cancelled: list[Any] = []
    dr = Deferator(iter([Deferred(cancelled.append)]))
    dr.stop()
    assert len(cancelled) == 1


def test_stopFromWithinTheGeneratorClosesItAfterwards() -> None:
    """
    A generator may stop the Deferator that advances it.
    """
    holder: list[Deferator] = []
    closed = []

    def selfish() -> Any:
        try:
            yield 1
            yield 2
            holder[0].stop()
            yield 3
        finally:
            closed.append(True)

    holder.append(Deferator(selfish()))
    assert resultOf(next(holder[0])) == 1
    assert closed == [True]
    assert list(holder[0]) == []


def test_aGeneratorThatFailsAsItEndsAfterAStopIsNotHeard() -> None:
    """
    What a generator does after it stopped its own Deferator reaches nobody.
    """
    holder: list[Deferator] = []

    def selfish() -> Any:
        yield 1
        yield 2
        holder[0].stop()

    holder.append(Deferator(selfish()))
    assert resultOf(next(holder[0])) == 1
    assert resultOf(holder[0].d) is False


def logged(act: Any) -> list[Any]:
    """
    The failures that were logged while C{act()} ran.
    """
    events: list[Any] = []
    globalLogPublisher.addObserver(events.append)
    try:
        act()
    finally:
        globalLogPublisher.removeObserver(events.append)
    return [event["log_failure"] for event in events if "log_failure" in event]


def test_aGeneratorThatRaisesAsItIsClosedIsLogged() -> None:
    """
    C{stop} does not raise what a generator raises in its C{finally}.
    """

    def bad() -> Any:
        try:
            while True:
                yield 1
        finally:
            raise Oops

    dr = Deferator(bad())
    (failure,) = logged(dr.stop)
    assert failure.check(Oops)


def test_anAsyncGeneratorIsIteratedOver() -> None:
    """
    An asynchronous generator gives its items under Twisted alone.
    """
    waiting: Deferred[str] = Deferred()

    async def items() -> Any:
        yield "a"
        yield await waiting

    d = looped(Deferator(items()))
    waiting.callback("b")
    assert resultOf(d) == ["a", "b"]


def test_anAsyncGeneratorRunsOnlyOnCredit() -> None:
    """
    It is advanced no further than its window.
    """
    taken: list[int] = []

    async def endless() -> Any:
        while True:
            taken.append(1)
            yield len(taken)

    dr = Deferator(endless())
    assert len(taken) == 2
    next(dr)
    assert len(taken) == 3
    dr.stop()


def test_anAsyncGeneratorThatRaisesFailsThatItem() -> None:
    """
    Its exception comes in its place, with its own type.
    """

    async def bad() -> Any:
        yield 1
        raise Oops

    dr = Deferator(bad())
    assert resultOf(next(dr)) == 1
    assert resultOf(next(dr)).check(Oops)
    assert list(dr) == []


@pytest.mark.parametrize("waits", [True, False])
def test_stopClosesAnAsyncGenerator(waits: bool) -> None:
    """
    It runs its C{finally}, whether it waits for something or for credit.
    """
    closed = []

    async def endless() -> Any:
        try:
            while True:
                yield 1
                if waits:
                    await Deferred()
        finally:
            closed.append(True)

    dr = Deferator(endless())
    dr.stop()
    assert closed == [True]


def test_stopFromWithinAnAsyncGenerator() -> None:
    """
    It may stop the Deferator that advances it, and is closed then.
    """
    holder: list[Deferator] = []
    closed = []

    async def selfish() -> Any:
        try:
            yield 1
            yield 2
            holder[0].stop()
            yield 3
        finally:
            closed.append(True)

    holder.append(Deferator(selfish()))
    next(holder[0])
    assert closed == [True]


def test_anAsyncGeneratorThatRaisesAsItIsClosedIsLogged() -> None:
    """
    C{stop} does not raise what an asynchronous generator raises at its end.
    """

    async def bad() -> Any:
        try:
            while True:
                yield 1
        finally:
            raise Oops

    dr = Deferator(bad())
    (failure,) = logged(dr.stop)
    assert failure.check(Oops)


def test_anAsyncIteratorThatIsCancelledOnItsOwnFailsTheItem() -> None:
    """
    A cancellation that did not come from C{stop} is a failure like others.
    """

    async def cancelled() -> Any:
        yield 1
        raise asyncio.CancelledError

    dr = Deferator(cancelled())
    assert resultOf(next(dr)) == 1
    assert resultOf(next(dr)).check(asyncio.CancelledError)


def test_aPlainAsyncIteratorIsStopped() -> None:
    """
    An asynchronous iterator that cannot be closed is just not advanced.
    """

    class Forever:
        def __aiter__(self) -> Any:
            return self

        async def __anext__(self) -> int:
            return 1

    dr = Deferator(Forever())
    assert resultOf(next(dr)) == 1
    dr.stop()
    assert resultOf(dr.d) is False


def test_asyncioItemsAreStoppedWithTheirTask() -> None:
    """
    In asyncio, C{stop} cancels what the generator waits for.
    """
    closed = []

    async def waiting() -> Any:
        try:
            yield 1
            await asyncio.get_running_loop().create_future()
        finally:
            closed.append(True)

    async def main() -> None:
        dr = Deferator(waiting())
        async for _item in dr:
            break
        await asyncio.sleep(0)
        dr.stop()
        while not closed:
            await asyncio.sleep(0)

    asyncio.run(main())
    assert closed == [True]


def test_aStepThatAsyncioCancelsLosesNothing() -> None:
    """
    A task that waits for an item may be cancelled; the next one gets the item.
    """

    async def main() -> None:
        source, dr = scripted()
        task = asyncio.ensure_future(anext(dr))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        source.give("a")
        assert await anext(dr) == "a"

    asyncio.run(main())


def test_anAsyncGeneratorThatNobodyHoldsGoes() -> None:
    """
    A source that nobody holds any more is collected, with what it waits for.
    """
    closed = []

    async def waiting() -> Any:
        try:
            yield await Deferred()
        finally:
            closed.append(True)

    source = AsyncIteratorSource(waiting())
    source.connect(Inbox(None, 2))
    source.grant(1)
    del source
    gc.collect()
    assert closed == [True]


def test_aClosedSourceIsStoppedAgain() -> None:
    """
    C{stop} may be called more than once, also on sources.
    """

    async def items() -> Any:
        yield 1

    for source in (AsyncIteratorSource(items()), IteratorSource(iter([])), PullSource(len, ())):
        source.stop()
        source.stop()


def test_stopBeforeTheTaskOfAsyncioBeganIsClean() -> None:
    """
    A generator that never began is not begun by C{stop}, and nothing warns.
    """
    begun = []

    async def items() -> Any:
        begun.append(True)
        yield 1

    async def main() -> None:
        Deferator(items()).stop()
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    asyncio.run(main())
    assert begun == []


def test_whenAsyncioEndsThoseWhoWaitAreTold() -> None:
    """
    A task that asyncio cancels fails the item that it was to give.
    """
    results: list[Any] = []

    async def items() -> Any:
        yield await asyncio.get_running_loop().create_future()

    async def main(turns: int) -> None:
        dr = Deferator(items())
        next(dr).addErrback(results.append)
        for _ in range(turns):
            await asyncio.sleep(0)
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    for turns in (0, 2):
        asyncio.run(main(turns))
    assert len(results) == 2


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
    assert resultOf(d) == "a"
    d = next(dr)
    assert len(answers) == 2
    answers[1].callback(("b", True, False))
    assert resultOf(d) == "b"
    assert list(dr) == []
    assert resultOf(dr.d) is True


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
    assert resultOf(next(dr)).check(Oops, ZeroDivisionError, TypeError)
    assert list(dr) == []
    assert resultOf(dr.d) is False


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
    assert resultOf(next(holder[0])) == 1
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
    assert resultOf(next(holder[0])) == 0
    assert list(holder[0]) == []


def test_manyAnswersDoNotRecurse() -> None:
    """
    20,000 answers that are there at once are no deeper than one.
    """
    numbers = iter(range(20_000))
    dr = Deferator("numbers", lambda: succeed((next(numbers), True, True)))
    count = 0
    for d in dr:
        if isinstance(resultOf(d), Failure):
            break
        count += 1
    assert count == 20_000


# Prefetcherator -------------------------------------------------------------


def test_aPrefetcheratorTellsWhatFollows() -> None:
    """
    C{getNext} gives each value with whether another one follows.
    """
    pf = Prefetcherator("ID")
    assert resultOf(pf.setup(iter("ab"))) is True
    assert [resultOf(pf.getNext()) for _ in range(4)] == [
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
    assert resultOf(pf.setup(*args)) is False
    assert not pf.isBusy()


def test_aBusyPrefetcheratorIsNotSetUp() -> None:
    """
    One iteration after another: C{setup} is False until the last one ended.
    """
    pf = Prefetcherator(3)
    assert resultOf(pf.setup(iter([1, 2]))) is True
    assert "busy" in repr(pf)
    assert resultOf(pf.setup(iter([3]))) is False
    assert resultOf(looped(Deferator(pf))) == [1, 2]
    assert "idle" in repr(pf)
    assert resultOf(pf.setup(iter([3]))) is True


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
    assert resultOf(pf.setup(pull, 10, offset=5)) is True
    assert resultOf(looped(Deferator(pf))) == [15, 25, 35]


def test_aPrefetcheratorFailsTheItemThatFailed() -> None:
    """
    An iterator that raises fails the C{getNext} of that item and has ended.
    """
    pf = Prefetcherator()
    pf.setup(failing())
    assert resultOf(pf.getNext()) == (1, True, True)
    assert resultOf(pf.getNext()) == (2, True, True)
    assert resultOf(pf.getNext()).check(Oops)
    assert resultOf(pf.getNext()) == (None, False, False)


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
    assert resultOf(pf.getNext()).check(NotReadyError)
    waiting[0].callback(1)
    assert resultOf(ready) is True
    first = pf.getNext()
    assert resultOf(pf.getNext()).check(NotReadyError)
    waiting[1].callback(2)
    assert resultOf(first) == (1, True, True)


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
