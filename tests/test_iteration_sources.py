"""
What the sources of L{asynqueue.iteration} promise: iterators of both kinds are advanced
on demand, and closed when nobody wants more.
"""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest
from twisted.internet.defer import (
    Deferred,
    ensureDeferred,
)
from zope.interface.verify import verifyObject

from asynqueue.errors import ImplementationError
from asynqueue.interfaces import IItemSink, IItemSource
from asynqueue.iteration import (
    AsyncIteratorSource,
    Deferator,
    IteratorSource,
    PullSource,
    isIterator,
)
from asynqueue.iteration.inbox import Inbox
from tests.iterations import (
    Oops,
    logged,
    looped,
    loopedAsynchronously,
    outcomeOf,
    scripted,
)

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
    assert outcomeOf(next(dr)) == 1
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
    assert outcomeOf(d) == ["a", "b"]


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
    assert outcomeOf(next(holder[0])) == 1
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
    assert outcomeOf(next(holder[0])) == 1
    assert outcomeOf(holder[0].d) is False


def test_aGeneratorThatExitsFailsThatItem() -> None:
    """
    An iterator that wants to end the program ends itself: the reactor goes on.
    """

    def leaving() -> Any:
        yield 1
        raise SystemExit(3)

    dr = Deferator(leaving())
    assert outcomeOf(next(dr)) == 1
    assert outcomeOf(next(dr)).check(SystemExit)
    assert list(dr) == []


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
    assert outcomeOf(d) == ["a", "b"]


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
    assert outcomeOf(next(dr)) == 1
    assert outcomeOf(next(dr)).check(Oops)
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
    assert outcomeOf(next(dr)) == 1
    assert outcomeOf(next(dr)).check(asyncio.CancelledError)


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
    assert outcomeOf(next(dr)) == 1
    dr.stop()
    assert outcomeOf(dr.d) is False


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
