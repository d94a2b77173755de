"""
The near end of an iterator in a child.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from twisted.python.failure import Failure

from asynqueue.processes.iterators import ChildIterator
from tests.iterations import Sink


class Far:
    """
    A child that notes what its source tells it.

    @ivar told: the credits that it was given, and C{"close"}.
    """

    def __init__(self, first: Sequence[Any] = (), size: int = 100) -> None:
        self.told: list[Any] = []
        self.sink = Sink()
        self.source = ChildIterator(
            self.told.append, lambda: self.told.append("close"), first, size
        )
        self.source.connect(self.sink)

    @property
    def heard(self) -> list[Any]:
        """
        What the sink has heard.
        """
        return self.sink.heard


FAILURE = Failure(LookupError("of a test"))


@pytest.mark.parametrize(
    ("size", "window"),
    [(0, 512), (1, 512), (8192, 512), (1 << 20, 4), (1 << 22, 2), (1 << 40, 2)],
)
def test_theWindowIsSmallForLargeItems(size: int, window: int) -> None:
    """
    As many items may be out as have four megabytes together; two at the least, and
    512 at the most.
    """
    assert Far(["first"], size).source.window == window


def test_creditIsGiven() -> None:
    """
    What the sink grants, the child is told.
    """
    far = Far()
    far.source.grant(3)
    far.source.grant(2)
    far.source.receive([1, 2])
    assert far.told == [3, 2]
    assert far.heard == [1, 2]


def test_theEarlyItemComesFirst() -> None:
    """
    The item that is here already is given with the first grant, which has room for
    fewer then, and before all others.
    """
    far = Far(["early"])
    assert far.heard == []
    far.source.grant(3)
    far.source.receive(["second", "third"])
    far.source.grant(1)
    assert far.heard == ["early", "second", "third"]
    assert far.told == [2, 1]


def test_theEarlyItemMayBeAll() -> None:
    """
    A grant of one is used up by it.
    """
    far = Far(["early"])
    far.source.grant(1)
    assert far.heard == ["early"]
    assert far.told == []


def test_theEndWaitsForTheEarlyItem() -> None:
    """
    A failure and the end that follow the early item come after it, in their order.
    """
    far = Far(["early"])
    far.source.failed(FAILURE)
    far.source.ended()
    assert far.heard == []
    far.source.grant(5)
    assert far.heard == ["early", "of a test", Sink.END]
    assert far.told == []


def test_theEndIsToldOnce() -> None:
    """
    With nothing to wait for, the end is told at once; nothing comes after it.
    """
    far = Far()
    far.source.grant(2)
    far.source.receive([1])
    far.source.failed(FAILURE)
    far.source.ended()
    far.source.ended()
    far.source.failed(FAILURE)
    far.source.receive([2])
    far.source.grant(1)
    far.source.stop()
    assert far.heard == [1, "of a test", Sink.END]
    assert far.told == [2]
    assert far.source.over


def test_stopClosesOnce() -> None:
    """
    To stop closes the iterator, once, and the sink hears nothing more.
    """
    far = Far(["early"])
    far.source.stop()
    far.source.stop()
    far.source.grant(3)
    far.source.receive([1])
    far.source.failed(FAILURE)
    far.source.ended()
    far.source.fail(FAILURE)
    assert far.told == ["close"]
    assert far.heard == []


def test_failEndsTheIteration() -> None:
    """
    An iteration that is ended from this side fails, ends, and closes the iterator.
    """
    far = Far()
    far.source.grant(2)
    far.source.receive([1])
    far.source.fail(FAILURE)
    far.source.fail(FAILURE)
    far.source.receive([2])
    assert far.heard == [1, "of a test", Sink.END]
    assert far.told == [2, "close"]
