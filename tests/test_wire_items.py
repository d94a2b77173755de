"""
L{asynqueue.wire.host.items}: items of an iterator in a process go on as they came, as far as the
other side has granted credit.
"""

from __future__ import annotations

from typing import Any

import pytest
from twisted.python.failure import Failure

from asynqueue.codec import ClosedItems
from asynqueue.errors import FrameTooLarge, RemoteProtocolError
from asynqueue.interfaces import IItemSink
from asynqueue.iteration.far import FarSource
from asynqueue.wire.host.items import ClosedIteration, ItemSender
from asynqueue.wire.protocol.codecs import PickleCodec
from asynqueue.wire.protocol.messages import MessageKind
from tests.test_wire_codecs import nothingUnpickled

ITEMS, ITEM_FAILED, END = MessageKind.ITEMS, MessageKind.ITEM_FAILED, MessageKind.END

CODEC = PickleCodec()


def closed(*items: Any) -> ClosedItems:
    """
    Items as they come from a process.
    """
    return ClosedItems(len(items), *CODEC.encode(list(items)))


class Passing:
    """
    An iterator in a process that is a test's, and the other side, which is the same test.

    @ivar source: what the process says of it, and is told.
    @ivar granted: the credits that the process was given, and C{"close"}.
    @ivar sent: the kinds of messages that the other side was sent, with their items.
    @ivar turns: how often the iteration has wanted a turn.
    """

    rtt = 0.0

    def __init__(self, first: ClosedItems | None = None, most: int = 1 << 20) -> None:
        self.granted: list[Any] = []
        self.sent: list[Any] = []
        self.turns = 0
        self._most = most
        self.source = FarSource(self, 5, "it", True, unasked=1)
        if first is not None:
            self.come(first)
        sender = ItemSender(5, CODEC, self._send)
        self.iteration = ClosedIteration(5, self.source, sender, self._ready)

    def _ready(self, iteration: ClosedIteration) -> None:
        self.turns += 1

    def _send(self, kind: int, number: int, body: bytes = b"", buffers: Any = ()) -> None:
        assert number == 5
        if len(body) > self._most:
            raise FrameTooLarge(len(body), self._most)
        if kind == ITEMS:
            self.sent.append(CODEC.decode(body, buffers))
        else:
            self.sent.append(MessageKind(kind))

    def come(self, items: ClosedItems) -> None:
        """
        Items come from the process.
        """
        self.source.receive([items], items.length, items.length)

    # FarEnd

    def grantItems(self, number: int, count: int) -> None:
        """
        Note a credit.
        """
        self.granted.append(count)

    def closeItems(self, number: int) -> None:
        """
        Note the end.
        """
        self.granted.append("close")

    # The other side

    def turn(self, grant: int = 0) -> bool:
        """
        The other side grants items, and the iteration has its turn.
        """
        if grant:
            self.iteration.grant(grant)
        return self.iteration.step()


def test_theProcessHasTheCreditOfTheOtherSide() -> None:
    """
    A process is asked for what the other side wants, and for no more than its window at once.
    """
    passing = Passing(closed(0))
    passing.turn(4)
    assert passing.granted == [3]
    passing.come(closed(1, 2))
    passing.turn(10_000)
    assert passing.granted == [3, 511]
    assert passing.sent == [[0], [1, 2]]
    assert passing.iteration.consumed == 3


def test_itAsksAgainWhenHalfHasCome() -> None:
    """
    The iteration wants another turn as soon as half of what it has asked for is there.
    """
    passing = Passing(closed(0))
    passing.turn(1000)
    turns = passing.turns
    passing.come(closed(*range(254)))
    assert passing.turns == turns
    passing.come(closed(255))
    assert passing.turns == turns + 1
    passing.turn()
    assert passing.granted == [511, 256]


def test_theFirstItemWaitsForCredit() -> None:
    """
    An item that came by itself is not sent before there is credit for it, and the end comes
    after it, once.
    """
    passing = Passing(closed("first"))
    passing.source.ended()
    assert passing.sent == []
    assert passing.turn(1)
    assert not passing.turn()
    assert not passing.turn(1)
    assert passing.sent == [["first"], END]


def test_aFailureAsTheFirstWaitsForCredit() -> None:
    """
    A failure in the place of the first item is not sent before there is credit for it.
    """
    passing = Passing()
    passing.source.failed(Failure(LookupError()))
    passing.source.ended()
    assert passing.turn()
    assert passing.sent == []
    assert not passing.turn(1)
    assert passing.sent == [ITEM_FAILED, END]


def test_nothingIsUnpickled() -> None:
    """
    What is passed on is not looked into.
    """
    with nothingUnpickled():
        passing = Passing()
        sent: list[Any] = []
        sender = ItemSender(5, CODEC, lambda kind, number, *body: sent.append(body))
        iteration = ClosedIteration(5, passing.source, sender, lambda _: None)
        iteration.grant(5)
        iteration.step()
        items = closed(1, 2)
        passing.come(items)
    assert sent == [(items.body, items.buffers)]


def test_itemsThatCameOpenAreSentToo() -> None:
    """
    What needs something of this program is pickled here.
    """
    passing = Passing()
    passing.turn(5)
    passing.source.receive([1, 2], 20, 2)
    passing.come(closed(3))
    assert passing.sent == [[1, 2], [3]]
    assert IItemSink.providedBy(passing.iteration)


def test_itemsThatAreTooLarge() -> None:
    """
    Of items that have more bytes together than the other side takes, those are replaced by
    failures that have too many themselves.
    """
    passing = Passing(closed(0), most=2000)
    passing.turn(10)
    passing.come(closed(b"a" * 1500, b"b" * 1500, b"c" * 3000))
    passing.come(closed(b"d" * 3000))
    assert passing.sent == [[0], [b"a" * 1500], [b"b" * 1500], ITEM_FAILED, ITEM_FAILED]


def test_nothingIsSaidOfWhatWasClosed() -> None:
    """
    An iteration that was closed has its process close the iterator, and says no more.
    """
    passing = Passing(closed(0))
    passing.turn(5)
    passing.iteration.close()
    passing.come(closed(1))
    passing.source.ended()
    assert not passing.turn()
    assert passing.granted == [4, "close"]
    assert passing.sent == [[0]]


def test_creditWithoutEnd() -> None:
    """
    Nobody may grant more items than there is any use for.
    """
    passing = Passing()
    with pytest.raises(RemoteProtocolError, match="allowed"):
        passing.iteration.grant(1 << 30)


def test_aProcessThatIsLost() -> None:
    """
    The other side is told that the process is gone, in the place of an item, and that this is
    the end.
    """
    passing = Passing()
    passing.turn(5)
    passing.source.fail(Failure(LookupError("gone")))
    assert not passing.turn()
    assert passing.sent == [ITEM_FAILED, END]
