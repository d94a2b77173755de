"""
The near end of an iterator on a host.
"""

from __future__ import annotations

from typing import Any

import pytest
from twisted.python.failure import Failure

from asynqueue.errors import RemoteProtocolError
from asynqueue.iteration.deferator import Deferator
from asynqueue.wire.client.sources import FarSource
from tests.iterations import Sink

FAILURE = Failure(LookupError("of a test"))


class Far:
    """
    A host that gives numbers as far as it has credit.

    @ivar told: the credits that it was given, and C{"close"}.
    @ivar given: how many it has given.
    """

    def __init__(self, rtt: float = 0.0, size: int = 8) -> None:
        self.told: list[Any] = []
        self.given = 0
        self.credit = 0
        self.size = size
        self.sink = Sink()
        self.source = FarSource(self._credited, lambda: self.told.append("close"), lambda: rtt)

    @property
    def heard(self) -> list[Any]:
        """
        What the sink has heard.
        """
        return self.sink.heard

    def connect(self) -> Far:
        """
        Have somebody listen.
        """
        self.source.connect(self.sink)
        return self

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

    def _credited(self, count: int) -> None:
        self.told.append(count)
        self.credit += count


def test_theFirstAreFew() -> None:
    """
    As long as nothing is known of the size of the items, two are asked for, and before
    anybody listens.
    """
    assert Far().told == [2]


@pytest.mark.parametrize(
    ("rtt", "size", "least", "most"),
    [
        (0.0, 8, 512, 512),
        (0.06, 8, 12_000, 13_000),
        (0.0, 8192, 512, 512),
        (0.0, 1 << 20, 4, 4),
        (0.06, 1 << 20, 15, 20),
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


def test_nothingIsHandedOverUngranted() -> None:
    """
    What has come waits until it is wanted, in order.
    """
    far = Far().connect()
    far.giveAll()
    assert far.heard == []
    far.source.grant(3)
    assert far.heard == [0, 1, 2]
    far.source.grant(2)
    assert far.heard == [0, 1, 2, 3, 4]


def test_consumptionMakesRoom() -> None:
    """
    As items are consumed the host may give as many more, in large pieces.
    """
    far = Far().connect()
    far.giveAll()
    before = len(far.told)
    for _ in range(512):
        far.source.grant(1)
    assert sum(far.told[before:]) >= 512 - 128
    assert len(far.told) - before <= 5


def test_theWindowFollowsTheSize() -> None:
    """
    When the items become large, no more are asked for than the window for such has.
    """
    far = Far().connect()
    far.giveAll()
    far.source.grant(512)
    far.size = 1 << 20
    far.giveAll()
    before = far.given
    far.source.grant(400)
    far.giveAll()
    assert len(far.heard) == 512 + 400
    assert far.given - len(far.heard) <= max(4, before - len(far.heard))


def test_asksForNoMoreThanItsWindow() -> None:
    """
    Whatever is granted here, the host has at most its window of items out.
    """
    far = Far().connect()
    far.source.grant(10**6)
    while far.given < 5000:
        assert far.credit <= 512
        far.give()
    assert far.heard == list(range(far.given))


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
    far = Far().connect()
    far.give(1)
    far.source.failed(FAILURE)
    far.credit -= 1
    far.give(2)
    far.source.ended()
    far.source.grant(3)
    assert far.heard == [0, "of a test", 1]
    far.source.grant(1)
    assert far.heard == [0, "of a test", 1, 2, Sink.END]


def test_theEndComesAfterAll() -> None:
    """
    The end is told when all items were handed over, and nothing is asked for after it.
    """
    far = Far().connect()
    far.give(2)
    told = list(far.told)
    far.source.ended()
    assert far.heard == []
    far.source.grant(64)
    assert far.heard == [0, 1, Sink.END]
    assert far.told == told
    assert far.source.over


def test_anEmptyIterationEnds() -> None:
    """
    Without items the end is told at once, whether anything was granted or not.
    """
    far = Far().connect()
    far.source.ended()
    assert far.heard == [Sink.END]


def test_stopping() -> None:
    """
    One that is stopped tells the host so, once, and hears nothing more.
    """
    far = Far().connect()
    far.give(1)
    far.source.stop()
    far.source.stop()
    far.give(1)
    far.source.failed(FAILURE) if far.credit else None
    far.source.ended()
    assert far.heard == []
    assert far.told[-1] == "close"
    assert far.told.count("close") == 1


def test_stoppingAfterTheEndSaysNothing() -> None:
    """
    The host need not be told to close what it has ended.
    """
    far = Far().connect()
    far.source.ended()
    far.source.stop()
    assert "close" not in far.told


@pytest.mark.parametrize("how", ["fail", "lost"])
def test_endingFromThisSide(how: str) -> None:
    """
    What has come is handed over, then the failure; what comes later is not.
    """
    far = Far().connect()
    far.give(1)
    getattr(far.source, how)(FAILURE)
    far.give(1)
    far.source.ended()
    far.source.grant(10)
    assert far.heard == [0, "of a test", Sink.END]
    assert ("close" in far.told) is (how == "fail")


def test_lossAfterTheEndIsNone() -> None:
    """
    When the connection is lost after the last item has come, nothing is missing.
    """
    far = Far().connect()
    far.give(2)
    far.source.ended()
    far.source.lost(FAILURE)
    far.source.grant(10)
    assert far.heard == [0, 1, Sink.END]


@pytest.mark.bulk
def test_aDeferatorOfThousands() -> None:
    """
    A Deferator over it gives all items in order, and holds only a few.
    """
    far = Far(rtt=0.06)
    far.give()
    deferator = Deferator.fromSource(far.source, "numbers", far.source.window)
    got: list[int] = []
    while len(got) < 30_000:
        if deferator.unconsumed < 2:
            far.give()
        next(deferator).addCallback(got.append)
        assert deferator.unconsumed <= 64
    assert got == list(range(30_000))
