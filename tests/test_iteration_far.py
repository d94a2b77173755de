"""
An iterator that is elsewhere: what L{asynqueue.iteration.far.FarSource} asks for, and what comes
of it, whether the far end gives the first item unasked, as a child does, or not, as a host.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from twisted.python.failure import Failure

from asynqueue.errors import RemoteProtocolError
from asynqueue.iteration.far import FarSource
from asynqueue.iteration.inbox import Inbox
from asynqueue.salvage import Lost
from tests.iterations import Sink

FAILURE = Failure(LookupError("of a test"))
END = "the end"

#: The window of items that are small, if the far end is near.
WINDOW = 512


class Far:
    """
    A far end that gives numbers as far as it has credit, to whom takes them from an inbox.

    @ivar told: the credits that it was given, and C{"close"}.
    @ivar given: how many it has given.
    """

    def __init__(self, rtt: float = 0.0, size: int = 8, unasked: int = 0) -> None:
        self.told: list[Any] = []
        self.given = 0
        self.credit = unasked
        self.size = size
        self.rtt = rtt
        self.source = FarSource(self, 5, "numbers", unasked=unasked)
        self.give()
        self.inbox = Inbox(self.source, self.source.window)
        self.inbox.open()

    def give(self, count: int | None = None) -> int:
        """
        Give so many, or as many as may be given.
        """
        count = self.credit if count is None else count
        self.credit -= count
        numbers = range(self.given, self.given + count)
        self.given += count
        if count:
            self.source.receive(numbers, self.size * count, count)
        return count

    def giveAll(self) -> None:
        """
        Give as long as there is credit.
        """
        while self.credit:
            self.give()

    def fail(self) -> None:
        """
        Give a failure in the place of an item.
        """
        self.credit -= 1
        self.source.failed(FAILURE)

    def take(self, most: int = 1_000_000) -> list[Any]:
        """
        Take what is there: items, failures by their text, and the end.
        """
        items = self.inbox.takeReady(most)
        heard = [str(item.value) if isinstance(item, Failure) else item for item in items]
        return heard if self.inbox.moreLeft else [*heard, END]

    # FarEnd

    def grantItems(self, number: int, count: int) -> None:
        """
        Note a credit.
        """
        assert number == 5
        self.told.append(count)
        self.credit += count

    def closeItems(self, number: int) -> None:
        """
        Note the end.
        """
        assert number == 5
        self.told.append("close")


#: Makes a far end, of a round trip and a size of items.
Make = Callable[..., Far]


@pytest.fixture(params=[0, 1], ids=["asked", "unasked"])
def make(request: pytest.FixtureRequest) -> Make:
    """
    Makes far ends that give nothing unasked, or the first item.
    """
    return partial(Far, unasked=request.param)


@pytest.fixture
def far(make: Make) -> Far:
    """
    A far end that is near, with small items.
    """
    return make()


def test_theFirstAreFew() -> None:
    """
    As long as nothing is known of the size of the items, two are asked for.
    """
    assert Far().told == [2]


@pytest.mark.parametrize(("size", "granted"), [(8, 511), (1 << 20, 3), (1 << 30, 1)])
def test_theFirstUnaskedTellsTheSize(size: int, granted: int) -> None:
    """
    An item that came unasked has a place in the first window, which is for items of its size.
    """
    assert Far(size=size, unasked=1).told == [granted]


@pytest.mark.parametrize(
    ("rtt", "size", "least", "most"),
    [
        (0.0, 8, 512, 512),
        (0.06, 8, 18_000, 19_000),
        (0.0, 8192, 512, 512),
        (0.0, 1 << 20, 4, 4),
        (0.06, 1 << 20, 20, 26),
        (0.0, 1 << 30, 2, 2),
    ],
)
def test_theWindowIsARoundTripsWorth(
    make: Make, rtt: float, size: int, least: int, most: int
) -> None:
    """
    Unconsumed items are as many as the way can hold, by their number and by their bytes;
    two at the least.
    """
    far = make(rtt, size)
    far.giveAll()
    assert least <= far.given <= most
    assert far.inbox.unconsumed == far.given


@pytest.mark.parametrize(("rtt", "size"), [(0.01, 8), (0.06, 8), (0.3, 8), (0.06, 1 << 16)])
def test_aLongWayIsKeptFull(rtt: float, size: int) -> None:
    """
    A host whose items are taken as they come gives 150,000 of them in a second, or 180 MB,
    however long the way: before it has used its credit, more has come.
    """
    far = Far(rtt, size)
    far.giveAll()
    far.take()
    window = far.credit
    while far.credit <= window:
        window = far.credit
        far.give(1)
        far.take()
    onTheWay = min(150_000 * rtt, 180e6 * rtt / size)
    assert window >= onTheWay


def test_consumptionMakesRoom(far: Far) -> None:
    """
    As items are consumed the far end may give as many more, in large pieces.
    """
    far.giveAll()
    before = len(far.told)
    for _ in range(WINDOW):
        far.take(1)
    assert sum(far.told[before:]) == WINDOW
    assert len(far.told) - before == 2


def test_theWindowFollowsTheSize(far: Far) -> None:
    """
    When the items become large, no more are asked for than the window for such has; and as many
    as before when they are small again.
    """
    far.giveAll()
    far.take()
    far.size = 1 << 20
    far.giveAll()
    far.take()
    far.giveAll()
    assert far.inbox.unconsumed == far.source.window == 4
    far.size = 8
    far.take()
    far.giveAll()
    assert far.inbox.unconsumed == far.source.window == WINDOW


def test_asksForNoMoreThanItsWindow(far: Far) -> None:
    """
    Whatever is taken here, the far end has at most its window of items out.
    """
    got: list[int] = []
    while far.given < 5000:
        assert far.credit + far.inbox.unconsumed <= WINDOW
        far.give()
        got += far.take(100)
    assert got == list(range(len(got)))


def test_moreThanAskedForIsAFault(far: Far) -> None:
    """
    A far end that gives what it was not asked for is not believed.
    """
    with pytest.raises(RemoteProtocolError, match="1 items"):
        far.give(far.credit + 1)


def test_failuresKeepTheirPlace(make: Make) -> None:
    """
    A failure comes between the items before and after it, and takes the place of one.
    """
    far = make(0.06)
    far.giveAll()
    far.take()
    first = far.given
    far.give(1)
    far.fail()
    far.give(2)
    far.source.ended()
    assert far.take() == [first, "of a test", first + 1, first + 2, END]


def test_theEndComesAfterAll(far: Far) -> None:
    """
    The end comes when all items were taken, and nothing is asked for after it.
    """
    far.give()
    told = list(far.told)
    far.source.ended()
    assert far.take() == [*range(far.given), END]
    assert far.told == told


def test_anEmptyIterationEnds(far: Far) -> None:
    """
    Without more items the end comes at once.
    """
    far.source.ended()
    assert far.take() == [*range(far.given), END]


def test_stopping(far: Far) -> None:
    """
    One that is stopped tells the far end so, once, and hears nothing more.
    """
    far.give(1)
    far.inbox.stop()
    far.source.stop()
    far.give(1)
    far.fail()
    far.source.ended()
    far.source.grant(3)
    assert far.take() == [END]
    assert far.told[-1] == "close"
    assert far.told.count("close") == 1


def test_stoppingAfterTheEndSaysNothing(far: Far) -> None:
    """
    The far end need not be told to close what it has ended.
    """
    far.source.ended()
    far.source.stop()
    assert "close" not in far.told


@pytest.mark.parametrize("how", ["fail", "lost"])
def test_endingFromThisSide(far: Far, how: str) -> None:
    """
    What has come can be taken, then the failure; what comes later does not.
    """
    far.give(1)
    came = range(far.given)
    getattr(far.source, how)(FAILURE)
    getattr(far.source, how)(FAILURE)
    far.give(1)
    far.source.ended()
    assert far.take() == [*came, "of a test", END]
    assert far.told.count("close") == (how == "fail")


def test_lossAfterTheEndIsNone(far: Far) -> None:
    """
    When the way is lost after the last item has come, nothing is missing.
    """
    far.give(1)
    far.source.ended()
    far.source.lost(FAILURE)
    assert far.take() == [*range(far.given), END]


def test_someThatCannotBeRead(far: Far) -> None:
    """
    Each of the items that cannot be read fails in its place.
    """
    lost: Any = Lost(LookupError("of a test"))
    far.giveAll()
    far.take()
    far.source.read(lambda body, buffers: [["a"], lost, ["b", "c"]], b"", ())
    heard = far.take()
    assert heard[:1] + heard[2:] == ["a", "b", "c"]
    assert "of a test" in heard[1]


def test_itemsThatAreNotHere(far: Far) -> None:
    """
    When nobody knows how many items have come, as they cannot be read, the iteration ends with
    that, and the iterator is closed.
    """

    def load(body: Any, buffers: Any) -> Any:
        raise OSError("there is no such segment")

    far.source.read(load, b"", ())
    *came, failure, end = far.take()
    assert came == [*range(far.given)]
    assert "no such segment" in failure
    assert end == END
    assert far.told[-1] == "close"


@pytest.mark.bulk
def test_aReaderOfThousands(make: Make) -> None:
    """
    Who takes one at a time has all items in order, and never more here than the window holds.
    """
    far = make(0.06)
    got: list[int] = []
    while len(got) < 30_000:
        if far.inbox.unconsumed < 2:
            far.give()
        far.inbox.next().addCallback(got.append)
        assert far.inbox.unconsumed + far.credit <= 19_000
    assert got == list(range(30_000))


class Unasked:
    """
    A source whose first item came unasked, or a failure in its place, and the sink that takes
    its items when the test says so.

    @ivar told: the credits that the far end was given, and C{"close"}.
    """

    rtt = 0.0

    def __init__(self, isFailure: bool = False) -> None:
        self.told: list[Any] = []
        self.sink = Sink()
        self.source = FarSource(self, 5, "it", unasked=1)
        if isFailure:
            self.source.failed(FAILURE)
        else:
            self.source.receive(["first"], 100, 1)

    def grantItems(self, number: int, count: int) -> None:
        """
        Note a credit.
        """
        self.told.append(count)

    def closeItems(self, number: int) -> None:
        """
        Note the end.
        """
        self.told.append("close")


@pytest.mark.parametrize(("isFailure", "first"), [(False, "first"), (True, "of a test")])
def test_theFirstWaitsToBeAskedFor(isFailure: bool, first: str) -> None:
    """
    What came unasked is given with the first grant, which has room for fewer then, and before
    all others.
    """
    far = Unasked(isFailure)
    far.source.connect(far.sink)
    assert far.sink.heard == []
    far.source.grant(3)
    far.source.receive(["second", "third"], 200, 2)
    far.source.grant(1)
    assert far.sink.heard == [first, "second", "third"]
    assert far.told == [2, 1]


def test_theFirstMayBeAllThatIsWanted() -> None:
    """
    A grant of one is used up by what came unasked.
    """
    far = Unasked()
    far.source.connect(far.sink)
    far.source.grant(1)
    assert far.sink.heard == ["first"]
    assert far.told == []


def test_theEndWaitsForTheFirst() -> None:
    """
    The end comes after what came unasked, and then nothing is asked for.
    """
    far = Unasked()
    far.source.connect(far.sink)
    far.source.ended()
    assert far.sink.heard == []
    far.source.grant(5)
    assert far.sink.heard == ["first", Sink.END]
    assert far.told == []


@pytest.mark.parametrize("how", ["fail", "lost"])
def test_theFirstIsNotLost(how: str) -> None:
    """
    What came unasked is given before the failure by which the iteration ends, too.
    """
    far = Unasked()
    far.source.connect(far.sink)
    getattr(far.source, how)(FAILURE)
    far.source.grant(5)
    assert far.sink.heard == ["first", "of a test", Sink.END]
    assert far.told == (["close"] if how == "fail" else [])


def test_stoppedBeforeItWasAsked() -> None:
    """
    To stop closes the iterator, and the sink is not given what came unasked.
    """
    far = Unasked()
    far.source.connect(far.sink)
    far.source.stop()
    far.source.grant(3)
    assert far.sink.heard == []
    assert far.told == ["close"]


def test_theEndOfNothingIsToldAtOnce() -> None:
    """
    Where there is no item, the sink need not ask for one to hear of the end.
    """
    sink = Sink()
    source = FarSource(Unasked(), 5, "it", unasked=1)
    source.connect(sink)
    source.ended()
    assert sink.heard == [Sink.END]
