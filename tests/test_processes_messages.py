"""
What the messages of a child about its iterators come to, and what it is told of them.
"""

from __future__ import annotations

import marshal
import pickle
from typing import Any

import pytest

from asynqueue.codec import ClosedItems, encode
from asynqueue.iteration.far import FarSource
from asynqueue.outcome import raised
from asynqueue.processes.messages import OpenStreams
from asynqueue.processes.protocol import Kind
from tests.iterations import Sink


class Streams:
    """
    The iterators of a child, whose messages are a test's.

    @ivar sent: what the child was told: kinds and numbers.
    """

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.streams = OpenStreams(lambda kind, number, body: self.sent.append((kind, number)))
        self.sink = Sink()

    def open(self, *first: Any, kind: int = Kind.ITERATOR) -> FarSource:
        """
        Have the call 5 return an iterator.
        """
        source = self.streams.open(kind, 5, pickle.dumps("it"), first)
        source.connect(self.sink)
        source.grant(10)
        return source

    def hear(self, kind: int, body: Any = b"", *buffers: Any) -> None:
        """
        Take a message about it.
        """
        self.streams.heard(kind, 5, body, buffers)


@pytest.fixture
def streams() -> Streams:
    """
    The iterators of a child.
    """
    return Streams()


def test_itemsComeWithTheFirst(streams: Streams) -> None:
    """
    The first item comes with the iterator, the others and the end as they are sent.
    """
    source = streams.open(pickle.dumps(["first"]))
    streams.hear(Kind.ITEMS, pickle.dumps([1, 2]))
    streams.hear(Kind.END)
    assert source.text == "it"
    assert streams.sink.heard == ["first", 1, 2, Sink.END]
    assert streams.streams.sources == {}


def test_theFirstCannotBeRead(streams: Streams) -> None:
    """
    A first item that cannot be made here fails, and has taken its place among those granted.
    """
    streams.open(b"no pickle")
    streams.hear(Kind.ITEMS, pickle.dumps([1]))
    failure, item = streams.sink.heard
    assert "cannot be made again here" in failure
    assert item == 1
    assert streams.sent == [(Kind.CREDIT, 5)]


def test_closedItems(streams: Streams) -> None:
    """
    Items that need nothing of this program stay pickled.
    """
    source = streams.open(b"first", b"buffer", kind=Kind.CLOSED_ITERATOR)
    streams.hear(Kind.CLOSED_ITEMS, marshal.dumps(3), b"more")
    assert source.isClosed
    assert streams.sink.heard == [ClosedItems(1, b"first", [b"buffer"]), ClosedItems(3, b"more")]


@pytest.mark.parametrize("kind", [Kind.ITEMS, Kind.CLOSED_ITEMS])
def test_itemsThatAreNotHere(streams: Streams, kind: int) -> None:
    """
    When items cannot be had here, nobody knows how many they were: the iteration ends with
    that, and the child closes the iterator.
    """
    streams.open(pickle.dumps(["first"]))
    streams.hear(kind, b"no pickle", b"")
    _, failure, end = streams.sink.heard
    assert "cannot be made again here" in failure
    assert end == Sink.END
    assert streams.sent[-1] == (Kind.STOP, 5)


def test_aFailure(streams: Streams) -> None:
    """
    What was raised in the child fails an item.
    """
    streams.open()
    body, buffers = encode(raised(LookupError("of a test")))
    streams.hear(Kind.ITEM_FAILED, body, *buffers)
    assert streams.sink.heard == ["of a test"]


def test_nothingIsHeardOfWhatIsNotOpen(streams: Streams) -> None:
    """
    Items of an iterator that is not open any more are dropped.
    """
    streams.open()
    streams.hear(Kind.END)
    streams.hear(Kind.ITEMS, pickle.dumps([1]))
    assert streams.sink.heard == [Sink.END]
