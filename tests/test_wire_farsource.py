"""
The near end of an iterator on a host: what L{asynqueue.wire.client.iterators.FarSource} asks for,
and what comes of it.
"""

from __future__ import annotations

from typing import Any

import pytest
from twisted.python.failure import Failure

from asynqueue.errors import RemoteProtocolError
from asynqueue.iteration.inbox import Inbox
from asynqueue.wire.client.iterators import FarSource

FAILURE = Failure(LookupError("of a test"))
END = "the end"

#: The window of items that are small, if the host is near.
WINDOW = 512


class Far:
    """
    A host that gives numbers as far as it has credit, to whom takes them from an inbox.

    @ivar told: the credits that it was given, and C{"close"}.
    @ivar given: how many it has given.
    """

    def __init__(self, rtt: float = 0.0, size: int = 8) -> None:
        self.told: list[Any] = []
        self.given = 0
        self.credit = 0
        self.size = size
        self.source = FarSource(self._credited, lambda: self.told.append("close"), lambda: rtt)
        self.inbox = Inbox(self.source, 2)
        self.inbox.open()

    def give(self, count: int | None = None) -> int:
        """
        Give so many, or as many as may be given.
        """
        count = self.credit if count is None else count
        self.credit -= count
        numbers = range(self.given, self.given + count)
        self.given += count
        self.source.receive(numbers, self.size * count)
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

    def _credited(self, count: int) -> None:
        self.told.append(count)
        self.credit += count


def test_theFirstAreFew() -> None:
    """
    As long as nothing is known of the size of the items, two are asked for.
    """
    assert Far().told == [2]


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
def test_theWindowIsARoundTripsWorth(rtt: float, size: int, least: int, most: int) -> None:
    """
    Unconsumed items are as many as the way can hold, by their number and by their bytes;
    two at the least.
    """
    far = Far(rtt, size)
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


def test_consumptionMakesRoom() -> None:
    """
    As items are consumed the host may give as many more, in large pieces.
    """
    far = Far()
    far.giveAll()
    before = len(far.told)
    for _ in range(WINDOW):
        far.take(1)
    assert sum(far.told[before:]) == WINDOW
    assert len(far.told) - before == 2


def test_theWindowFollowsTheSize() -> None:
    """
    When the items become large, no more are asked for than the window for such has; and as many
    as before when they are small again.
    """
    far = Far()
    far.giveAll()
    far.take()
    far.size = 1 << 20
    far.giveAll()
    far.take()
    far.giveAll()
    assert far.inbox.unconsumed == 4
    far.size = 8
    far.take()
    far.giveAll()
    assert far.inbox.unconsumed == WINDOW


def test_asksForNoMoreThanItsWindow() -> None:
    """
    Whatever is taken here, the host has at most its window of items out.
    """
    far = Far()
    got: list[int] = []
    while far.given < 5000:
        assert far.credit + far.inbox.unconsumed <= WINDOW
        far.give()
        got += far.take(100)
    assert got == list(range(len(got)))


def test_moreThanAskedForIsAFault() -> None:
    """
    A host that gives what it was not asked for is not believed.
    """
    with pytest.raises(RemoteProtocolError, match="1 items"):
        Far().give(3)


def test_failuresKeepTheirPlace() -> None:
    """
    A failure comes between the items before and after it, and takes the place of one.
    """
    far = Far()
    far.give(1)
    far.fail()
    far.give(2)
    far.source.ended()
    assert far.take(3) == [0, "of a test", 1]
    assert far.take() == [2, END]


def test_theEndComesAfterAll() -> None:
    """
    The end comes when all items were taken, and nothing is asked for after it.
    """
    far = Far()
    far.give(2)
    told = list(far.told)
    far.source.ended()
    assert far.take() == [0, 1, END]
    assert far.told == told


def test_anEmptyIterationEnds() -> None:
    """
    Without items the end comes at once.
    """
    far = Far()
    far.source.ended()
    assert far.take() == [END]


def test_stopping() -> None:
    """
    One that is stopped tells the host so, once, and hears nothing more.
    """
    far = Far()
    far.give(1)
    far.inbox.stop()
    far.source.stop()
    far.give(1)
    far.fail()
    far.source.ended()
    assert far.take() == [END]
    assert far.told[-1] == "close"
    assert far.told.count("close") == 1


def test_stoppingAfterTheEndSaysNothing() -> None:
    """
    The host need not be told to close what it has ended.
    """
    far = Far()
    far.source.ended()
    far.source.stop()
    assert "close" not in far.told


@pytest.mark.parametrize("how", ["fail", "lost"])
def test_endingFromThisSide(how: str) -> None:
    """
    What has come can be taken, then the failure; what comes later does not.
    """
    far = Far()
    far.give(1)
    getattr(far.source, how)(FAILURE)
    far.give(1)
    far.source.ended()
    assert far.take() == [0, "of a test", END]
    assert ("close" in far.told) is (how == "fail")


def test_lossAfterTheEndIsNone() -> None:
    """
    When the connection is lost after the last item has come, nothing is missing.
    """
    far = Far()
    far.give(2)
    far.source.ended()
    far.source.lost(FAILURE)
    assert far.take() == [0, 1, END]


@pytest.mark.bulk
def test_aReaderOfThousands() -> None:
    """
    Who takes one at a time has all items in order, and never more here than the window holds.
    """
    far = Far(rtt=0.06)
    got: list[int] = []
    while len(got) < 30_000:
        if far.inbox.unconsumed < 2:
            far.give()
        far.inbox.next().addCallback(got.append)
        assert far.inbox.unconsumed + far.credit <= 19_000
    assert got == list(range(30_000))
