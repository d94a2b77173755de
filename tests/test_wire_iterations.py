"""
L{asynqueue.wire.host.iterations}: iterators of a host give each item once and in order, as far
as they have credit, and are closed when nobody takes more.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator
from itertools import count
from typing import Any

import pytest
from hypothesis import given, strategies as st
from pytest_twisted import ensureDeferred
from twisted.internet.defer import CancelledError, Deferred

from asynqueue import AsyncWorker, Deferator, TaskQueue, ThreadWorker
from asynqueue.errors import MaybeEncodingError, NotReadyError, RemoteProtocolError
from asynqueue.iteration import deferToDelay
from asynqueue.testing.calls import Unsendable
from asynqueue.wire.host.catalog import WireWorkerUniverse
from asynqueue.wire.protocol.messages import MessageKind
from tests.doubles import Heard, readingLogs
from tests.iterations import Oops, Scripted
from tests.test_wire_codecs import Sprung, nothingUnpickled
from tests.wirehosts import CBOR, PICKLE, THREAD, Station

both = pytest.mark.parametrize("codec", [PICKLE, CBOR], ids=lambda codec: codec.name)


class Counting(Deferator):
    """
    Counts how often it was asked for items.
    """

    asked = 0

    def takeReady(self, most: int) -> list[Any]:
        type(self).asked += 1
        return super().takeReady(most)


class Universe(WireWorkerUniverse):
    """
    Its methods give iterators.

    @ivar events: what the iterators have noted.
    @ivar sources: what gives when the test says so.
    """

    def __init__(self) -> None:
        super().__init__()
        self.events: list[Any] = []
        self.sources: list[Scripted] = []

    def numbers(self, end: int) -> Iterator[int]:
        return iter(range(end))

    def forever(self) -> Iterator[int]:
        try:
            for number in count():
                self.events.append(number)
                yield number
        finally:
            self.events.append("closed")

    def failing(self) -> Iterator[int]:
        yield 1
        yield 2
        raise Oops("in the middle")

    def exiting(self) -> Iterator[int]:
        yield 1
        sys.exit(4)

    def some(self) -> Iterator[Any]:
        yield from [1, Unsendable(), 3, Unsendable(), Unsendable(), 6]

    def springs(self) -> Iterator[Any]:
        yield Sprung()

    def sized(self, *sizes: int) -> Iterator[bytes]:
        for size in sizes:
            yield bytes(size)

    def angry(self) -> Iterator[int]:
        try:
            yield from count()
        finally:
            raise SystemExit

    async def asynchronous(self, end: int) -> AsyncIterator[int]:
        try:
            for number in range(end):
                yield number
        finally:
            self.events.append("closed")

    def ownAsynchronous(self, end: int) -> AsyncIterator[int]:
        class Own:
            def __init__(self) -> None:
                self.n = 0

            def __aiter__(self) -> Any:
                return self

            async def __anext__(self) -> int:
                if self.n == end:
                    raise StopAsyncIteration
                self.n += 1
                return self.n - 1

        return Own()

    def scripted(self) -> Deferator:
        self.sources.append(Scripted())
        return Counting.fromSource(self.sources[-1], "scripted", 8)

    def busy(self) -> Deferator:
        deferator = self.scripted()
        self.events.append(Heard(next(deferator)))
        return deferator

    def pause(self) -> Deferred[None]:
        return Deferred()

    def one(self) -> int:
        return 1

    def angryCall(self) -> None:
        raise Oops

    def deferreds(self) -> Iterator[Any]:
        yield Deferred()


def begun(name: str, *args: Any, codec: Any = PICKLE) -> tuple[Station, int, Universe]:
    """
    A host whose call has returned an iterator.
    """
    universe = Universe()
    station = Station(universe, codec=codec, concurrent=3)
    number = station.call(name, *args)
    station.turn()
    assert station.kinds(number) == [MessageKind.ITERATOR]
    return station, number, universe


# Items ------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("name", ["numbers", "asynchronous", "ownAsynchronous"])
@pytest.mark.parametrize("end", [0, 1, 2, 100, 5000])
def test_allItemsCome(codec: Any, name: str, end: int) -> None:
    """
    An iterator of any kind gives all its items, in order, and says that this is the end.
    """
    station, number, _ = begun(name, end, codec=codec)
    station.credit(number, end + 1)
    station.turn()
    assert station.items(number) == list(range(end))
    assert station.kinds(number)[-1] is MessageKind.END
    assert station.host.held == 0


def test_theIteratorIsRepresented() -> None:
    """
    The other side is told what the iterator looks like.
    """
    station, number, _ = begun("numbers", 3)
    ((_, text),) = station.said(number)
    assert "range_iterator" in text


@pytest.mark.parametrize("name", ["numbers", "asynchronous"])
def test_noMoreItemsComeThanWereGranted(name: str) -> None:
    """
    Without credit nothing comes, and with it so many items.
    """
    station, number, _ = begun(name, 100)
    for granted in (0, 1, 3, 5):
        before = len(station.items(number))
        station.credit(number, granted)
        station.turn()
        assert len(station.items(number)) == before + granted
    assert MessageKind.END not in station.kinds(number)


def test_aGeneratorIsNotFarAhead() -> None:
    """
    A generator is advanced as far as items are granted, and a few more (G8).
    """
    station, number, universe = begun("forever")
    station.credit(number, 10)
    station.turn()
    assert station.items(number) == list(range(10))
    assert len(universe.events) <= 10 + 2


def test_creditMayComeBeforeTheIterator() -> None:
    """
    What is granted to a call that runs is its iterator's; if there is none, it is gone.
    """
    universe = Universe()
    station = Station(universe)
    number = station.call("numbers", 5)
    station.credit(number, 2)
    station.credit(number, 1)
    station.turn()
    assert station.items(number) == [0, 1, 2]


@pytest.mark.parametrize("end", ["return", "raise", "cancel", "recall"])
def test_creditOfOtherCallsIsForgotten(end: str) -> None:
    """
    What was granted to a call that returned no iterator is not another one's, also of the
    same number.
    """
    station = Station(Universe())
    station.call("pause", number=1)
    number = station.call({"return": "one", "raise": "angryCall"}.get(end, "pause"), number=2)
    station.credit(number, 5)
    if end == "cancel":
        station.hear(MessageKind.CANCEL, number)
    elif end == "recall":
        station.hear(MessageKind.RECALL, number)
    station.hear(MessageKind.CANCEL, 1)
    station.turn()
    assert station.host.held == 0
    station.call("numbers", 5, number=3 if end == "recall" else number)
    station.turn()
    assert station.items(3 if end == "recall" else number) == []


def test_creditAfterTheEndIsIgnored() -> None:
    """
    What is granted to an iterator that has ended has no effect.
    """
    station, number, _ = begun("numbers", 1)
    station.credit(number, 5)
    station.turn()
    said = station.said(number)
    station.credit(number, 5)
    station.turn()
    assert station.said(number) == said


def test_tooMuchCreditBreaksTheProtocol() -> None:
    """
    Nobody can take so many items: who grants them, at once or bit by bit, is refused.
    """
    station, number, _ = begun("scripted")
    early = station.call("scripted")
    for each in (number, early):
        station.credit(each, 1 << 20)
        station.credit(each, 1 << 20)
        with pytest.raises(RemoteProtocolError):
            station.credit(each, 1)


@given(
    end=st.integers(0, 40),
    grants=st.lists(st.integers(0, 9), max_size=12),
    name=st.sampled_from(["numbers", "asynchronous", "ownAsynchronous"]),
)
def test_eachItemComesOnce(end: int, grants: list[int], name: str) -> None:
    """
    However it is granted, each item comes once and in order, as many as were granted, and
    the end comes when there are no more.
    """
    station, number, _ = begun(name, end)
    granted = 0
    for grant in grants:
        station.credit(number, grant)
        granted += grant
        station.turn()
        assert station.items(number) == list(range(min(end, granted)))
    if granted > end:
        station.turn()
        assert station.kinds(number)[-1] is MessageKind.END


def test_itemsThatComeLaterAreSentThen() -> None:
    """
    An iterator that has to wait for its items gives them as they come.
    """
    station, number, universe = begun("scripted")
    station.credit(number, 10)
    station.turn()
    assert station.items(number) == []
    (source,) = universe.sources
    source.give("a", "b")
    station.turn()
    assert station.items(number) == ["a", "b"]
    source.end("c")
    station.turn()
    assert station.items(number) == ["a", "b", "c"]
    assert station.kinds(number)[-1] is MessageKind.END


def test_anIteratorThatWaitsCostsNothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    An iterator that has no items is not asked for them again and again (G10).
    """
    monkeypatch.setattr(Counting, "asked", 0)
    station, number, _ = begun("scripted")
    station.credit(number, 10)
    station.turn()
    station.turn()
    assert Counting.asked <= 2
    assert station.clock.getDelayedCalls() == []


def test_manyItemsTravelTogether() -> None:
    """
    Items that are here together are sent together.
    """
    station, number, _ = begun("numbers", 5000)
    station.credit(number, 6000)
    station.turn()
    assert station.kinds(number).count(MessageKind.ITEMS) < 200


@pytest.mark.bulk
def test_iteratorsTakeTurns() -> None:
    """
    A long iterator does not keep another one, that began after it, from ending first.
    """
    station, first, _ = begun("numbers", 200_000)
    second = station.call("numbers", 3)
    station.turn()
    station.credit(first, 1_000_000)
    station.credit(second, 10)
    station.turn()
    ends = [number for kind, number, _ in station.line.sent if kind is MessageKind.END]
    assert ends == [second, first]
    assert len(station.items(first)) == 200_000


# Failures ---------------------------------------------------------------------------


def test_anIteratorThatFailsTellsIt() -> None:
    """
    What an iterator raises comes in the place of its next item, and is the end.
    """
    station, number, _ = begun("failing")
    station.credit(number, 10)
    station.turn()
    assert station.items(number) == [1, 2]
    (_, error), (last, _) = station.said(number)[-2:]
    assert (type(error), last) == (Oops, MessageKind.END)


def test_anIteratorThatExitsTellsIt() -> None:
    """
    An exit in an iterator is what it raises, and nothing else ends.
    """
    station, number, _ = begun("exiting")
    station.credit(number, 10)
    station.turn()
    (_, error), (last, _) = station.said(number)[-2:]
    assert (type(error), last) == (SystemExit, MessageKind.END)


def test_anIteratorThatIsTakenFromElsewhereFails() -> None:
    """
    A Deferator that somebody else waits for cannot give its items here: that is told, and
    it is stopped.
    """
    station, number, universe = begun("busy")
    station.credit(number, 10)
    station.turn()
    (_, error), (last, _) = station.said(number)[-2:]
    assert (type(error), last) == (NotReadyError, MessageKind.END)
    assert universe.sources[0].stops == 1
    assert isinstance(universe.events[0].error, CancelledError)


@both
def test_itemsThatCannotBeSentFailInTheirPlaces(codec: Any) -> None:
    """
    An item that cannot be encoded is told in its place, and the others come.
    """
    station, number, _ = begun("some", codec=codec)
    station.credit(number, 10)
    station.turn()
    said = []
    for kind, value in station.said(number)[1:]:
        said += value if kind is MessageKind.ITEMS else [kind if value is None else type(value)]
    error = MaybeEncodingError
    assert said == [1, error, 3, error, error, 6, MessageKind.END]


@both
def test_theErrorShowsTheItem(codec: Any) -> None:
    """
    The error of an item that cannot be sent shows that item, not the list it was to be in.
    """
    station, number, _ = begun("some", codec=codec)
    station.credit(number, 2)
    station.turn()
    (error,) = [value for kind, value in station.said(number) if kind is MessageKind.ITEM_FAILED]
    assert error.value.startswith("<asynqueue")


def test_failedItemsUseCredit() -> None:
    """
    An item that cannot be sent counts as one that was granted.
    """
    station, number, _ = begun("some")
    station.credit(number, 2)
    station.turn()
    assert station.kinds(number) == [
        MessageKind.ITERATOR,
        MessageKind.ITEMS,
        MessageKind.ITEM_FAILED,
    ]


def test_itemsThatAreTooLargeFailInTheirPlaces() -> None:
    """
    An item of more bytes than a message may have fails; several that are too large together
    are sent apart.
    """
    station, number, _ = begun("sized", 10, 600_000, 600_000, 600_000, 2 << 20, 7)
    station.credit(number, 10)
    station.turn()
    assert [len(item) for item in station.items(number)] == [10, 600_000, 600_000, 600_000, 7]
    assert station.kinds(number).count(MessageKind.ITEM_FAILED) == 1


def test_largeItemsTravelAlone() -> None:
    """
    How many items travel together follows their size, and large ones travel alone.
    """
    station, number, _ = begun("sized", *[200_000] * 3, *[1000] * 9, *[200_000] * 6)
    station.credit(number, 20)
    station.turn()
    lists = [value for kind, value in station.said(number) if kind is MessageKind.ITEMS]
    assert [len(items) for items in lists[:3]] == [1, 1, 1]
    assert [len(items) for items in lists[-2:]] == [1, 1]
    assert max(map(len, lists)) > 1
    assert sum(map(len, lists)) == 18


def test_itemsAreNotPickledInCbor() -> None:
    """
    In CBOR an item that defines its pickling is an error, and is not asked.
    """
    station, number, _ = begun("springs", codec=CBOR)
    with nothingUnpickled():
        station.credit(number, 10)
        station.turn()
    assert station.kinds(number) == [MessageKind.ITERATOR, MessageKind.ITEM_FAILED, MessageKind.END]


# Who does not read ------------------------------------------------------------------


def test_itemsThatNobodyReadsAreNotGiven() -> None:
    """
    However much was granted, an iterator gives no more than some megabytes before they are
    read; then it goes on.
    """
    station, number, _ = begun("sized", *[100_000] * 300)
    station.line.counting = True
    station.credit(number, 1000)
    rounds = 0
    while MessageKind.END not in station.kinds(number):
        station.turn()
        assert station.line.backlog < 6 << 20
        station.line.ease()
        rounds += 1
        assert rounds < 20
    assert len(station.items(number)) == 300


def test_heldIteratorsAreClosed() -> None:
    """
    An iterator that waits until its items are read is closed as others are, and those of a
    lost connection go on no more.
    """
    station, number, universe = begun("forever")
    other = station.call("forever")
    station.turn()
    station.line.backlog = 5 << 20
    station.credit(number, 5)
    station.credit(other, 5)
    station.turn()
    assert station.items(number) == []
    station.hear(MessageKind.CLOSE, number)
    assert station.kinds(number)[-1] is MessageKind.END
    station.host.lost(station.line, OSError())
    station.line.ease()
    station.turn()
    assert universe.events.count("closed") == 2
    assert station.items(other) == []


# The end ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [MessageKind.CLOSE, MessageKind.CANCEL])
@pytest.mark.parametrize("granted", [0, 5])
def test_aClosedIteratorEnds(kind: MessageKind, granted: int) -> None:
    """
    When nobody takes more, a generator is closed, its end is told, and nothing more.
    """
    station, number, universe = begun("forever")
    station.credit(number, granted)
    station.turn()
    station.credit(number, granted)
    station.hear(kind, number)
    station.hear(kind, number)
    station.credit(number, 5)
    station.turn()
    assert universe.events[-1] == "closed"
    assert station.kinds(number).count(MessageKind.END) == 1
    assert station.kinds(number)[-1] is MessageKind.END
    assert station.host.held == 0


@pytest.mark.parametrize("granted", [0, 2])
def test_aLostConnectionClosesIterators(granted: int) -> None:
    """
    When the connection is lost, iterators that were never finished are closed, those that
    wait for their turn too.
    """
    station, number, universe = begun("forever")
    asynchronous = station.call("asynchronous", 100)
    station.turn()
    for each in (number, asynchronous):
        station.credit(each, granted)
    said = len(station.line.sent)
    station.host.lost(station.line, OSError())
    station.turn()
    assert universe.events.count("closed") == 2
    assert (len(station.line.sent), station.ended) == (said, 1)


def test_aWaitingIteratorIsClosed() -> None:
    """
    An iterator that waits for an item, or for a Deferred, is stopped.
    """
    station, number, universe = begun("scripted")
    other = station.call("deferreds")
    station.turn()
    station.credit(number, 5)
    station.turn()
    station.hear(MessageKind.CLOSE, number)
    station.host.lost(station.line, OSError())
    assert universe.sources[0].stops == 1
    assert station.kinds(number)[-1] is MessageKind.END
    assert MessageKind.END not in station.kinds(other)


def test_anAngryGeneratorHarmsNobody() -> None:
    """
    What a generator raises as it is closed is logged, and the others are closed.
    """
    station, number, universe = begun("angry")
    for _ in range(2):
        station.call("forever")
        station.call("angry")
    station.turn()
    with readingLogs() as logs:
        station.hear(MessageKind.CLOSE, number)
        station.host.lost(station.line, OSError())
    assert station.kinds(number)[-1] is MessageKind.END
    assert universe.events.count("closed") == 2
    assert logs.errors()


def test_whoLeavesTakesTheItemsFirst() -> None:
    """
    When the other side leaves, iterators are served until they end; then the connection is
    closed.
    """
    station, number, _ = begun("numbers", 3)
    station.host.leaving(station.line, "")
    assert station.line.closed == 0
    station.credit(number, 5)
    station.turn()
    assert station.kinds(number)[-1] is MessageKind.END
    assert station.line.closed == 1


def test_aFarReaderMayBeSlow() -> None:
    """
    A host knows nothing of the reader but the credit: to the workers of the host an iterator
    that is open over a connection is read, until it is closed there.
    """
    station, _, universe = begun("scripted")
    (source,) = universe.sources
    assert source.granted
    assert source.sink.isAwaited
    station.host.lost(station.line, ConnectionError())
    assert source.stops == 1


def test_aClosedIteratorIsTheLast() -> None:
    """
    The connection is also closed when the last iterator is.
    """
    station, number, _ = begun("forever")
    station.host.leaving(station.line, "")
    station.hear(MessageKind.CLOSE, number)
    assert station.line.closed == 1


@ensureDeferred
async def test_iteratorsInThreadsGive() -> None:
    """
    An iterator of a method that runs in a thread gives all its items.
    """
    queue = TaskQueue(AsyncWorker(), ThreadWorker())
    try:
        station = Station(Universe(), queue=queue, series="async")
        number = station.call("numbers", 5000, flags=THREAD)
        station.credit(number, 6000)
        while MessageKind.END not in station.kinds(number):
            await deferToDelay(0.01)
        assert station.items(number) == list(range(5000))
    finally:
        await queue.shutdown()
