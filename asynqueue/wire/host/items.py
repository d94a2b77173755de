"""
What comes of iterators on a host, on its way to the other side.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any

from twisted.python.failure import Failure
from zope.interface import implementer

from asynqueue.codec import ClosedItems
from asynqueue.errors import RemoteProtocolError
from asynqueue.failures import failureOf, raisedOf, shortened
from asynqueue.interfaces import IItemSink
from asynqueue.iteration.far import FarSource
from asynqueue.outcome import ClosedError, cannotDecode, cannotSend
from asynqueue.processes.streaming import sizeOf
from asynqueue.salvage import Lost
from asynqueue.wire.protocol.codecs import Codec
from asynqueue.wire.protocol.messages import MessageKind

# How many items may be granted that were not given yet: nobody takes as many in a second.
_MOST_CREDIT = 1 << 21

# For hot paths: members of an enumeration are slow to look up.
ITEMS, ITEM_FAILED, END = (
    int(kind) for kind in (MessageKind.ITEMS, MessageKind.ITEM_FAILED, MessageKind.END)
)

Send = Callable[..., None]


class State(Enum):
    IDLE = "has no credit"
    ACTIVE = "waits for its turn"
    WAITING = "waits for items"
    OVER = "gives no more"


def sendRaised(send: Send, codec: Codec, kind: int, number: int, failure: Failure) -> None:
    """
    Send what something failed with, or as much of it as can be sent.
    """
    error = failure.value
    outcome = raisedOf(failure)
    try:
        packed = error.packed if isinstance(error, ClosedError) else codec.encodeRaised(outcome)
        send(kind, number, packed)
    except BaseException:
        # Somebody's objects, or too many of them: whatever that raises.
        send(kind, number, codec.encodeRaised(shortened(outcome)))


def checkedCredit(credit: int) -> int:
    """
    Return the credit of an iterator.

    @raise RemoteProtocolError: it is more than there may be.
    """
    if credit > _MOST_CREDIT:
        raise RemoteProtocolError(f"a credit of {credit:,} items; {_MOST_CREDIT:,} are allowed")
    return credit


class ItemSender:
    """
    Sends what comes of an iterator, as far as there is credit for it.
    """

    def __init__(self, number: int, codec: Codec, send: Send) -> None:
        self.number = number
        self._codec = codec
        self._send = send

    def items(self, items: list[Any]) -> int:
        """
        Send items, and failures in the places of those that cannot be sent.

        @return: about how many bytes they had.
        """
        try:
            body, buffers = self._codec.encode(items)
            self._send(ITEMS, self.number, body, buffers)
        except BaseException as error:
            # Somebody's objects, or too many bytes: find out which.
            if len(items) == 1:
                self.failure(Failure(cannotSend(error, items[0])))
                return 0
            return sum(self.items([item]) for item in items)
        return sizeOf(body, buffers)

    def closed(self, items: ClosedItems) -> None:
        """
        Send items as they came.
        """
        try:
            self._send(ITEMS, self.number, items.body, items.buffers)
        except Exception as error:
            # More bytes than the other side takes.
            if items.length == 1:
                self.failure(Failure(cannotSend(error, items)))
                return
            # They are opened to find out which.
            for run in self._codec.decodeItems(items.body, items.buffers):
                if isinstance(run, Lost):
                    self.failure(failureOf(cannotDecode(run.error)))
                else:
                    self.items(run)

    def failure(self, failure: Failure) -> None:
        """
        Send a failure in the place of an item.
        """
        sendRaised(self._send, self._codec, ITEM_FAILED, self.number, failure)

    def end(self) -> None:
        """
        Say that there are no more.
        """
        self._send(END, self.number)


@implementer(IItemSink)
class ClosedIteration:
    """
    An iterator in a process of this host, whose items go on as they come: its credit is that of
    the other side, and nothing is kept here.

    @ivar number: the number of the call.
    @ivar consumed: how many items were sent.
    @ivar isAwaited: whether somebody reads is seen at the other side only, which closes it.
    """

    isAwaited = True

    def __init__(
        self,
        number: int,
        source: FarSource,
        sender: ItemSender,
        ready: Callable[[ClosedIteration], None],
    ) -> None:
        """
        @param ready: is called when the iteration wants a turn: a call of L{step}.
        """
        self.number = number
        self.consumed = 0
        self._source = source
        self._sender = sender
        self._ready = ready
        # How many items the other side wants, and the source was not asked for yet ...
        self._credit = 0
        # ... and how many that was asked for have not come.
        self._asked = 0
        self._state = State.IDLE
        self._hasEnded = False
        # What came before there was credit: failures.
        self._early: list[Failure] = []
        source.connect(self)

    def grant(self, count: int) -> None:
        """
        Give more items.

        @raise RemoteProtocolError: they are too many.
        """
        self._credit = checkedCredit(self._credit + count)
        self._activate()

    def step(self) -> bool:
        """
        Have the source give some items.

        @return: whether there may be more. If not, it is said that this is the end.
        """
        if self._state is State.OVER:
            return False
        self._state = State.IDLE
        while self._early and self._credit:
            self._credit -= 1
            self._giveFailure(self._early.pop(0))
        if self._hasEnded:
            if self._early:
                return True
            self._state = State.OVER
            self._sender.end()
            return False
        count = min(self._credit, self._source.window - self._asked)
        if count > 0:
            self._credit -= count
            self._asked += count
            self._source.grant(count)
        return True

    def close(self) -> None:
        """
        Give no more, and say nothing.
        """
        self._state = State.OVER
        self._source.stop()

    # IItemSink

    def receive(self, items: Sequence[Any], moreLeft: bool = False) -> None:
        """
        Pass items on. What needs something of this program has come open.
        """
        first = items[0]
        if type(first) is ClosedItems:
            count = first.length
            self._sender.closed(first)
        else:
            count = len(items)
            self._sender.items(list(items))
        self._asked -= count
        self.consumed += count
        if self._credit and 2 * self._asked <= self._source.window:
            self._activate()

    def receiveFailure(self, failure: Failure) -> None:
        if self._asked:
            self._asked -= 1
            self._giveFailure(failure)
        else:
            # As the first, or of a process that is lost.
            self._early.append(failure)
            self._activate()

    def resize(self, window: int) -> None:
        """
        Go on: the credit is that of the other side.
        """

    def finish(self) -> None:
        self._hasEnded = True
        self._activate()

    # Within

    def _giveFailure(self, failure: Failure) -> None:
        self.consumed += 1
        self._sender.failure(failure)

    def _activate(self) -> None:
        if self._state is State.IDLE:
            self._state = State.ACTIVE
            self._ready(self)
