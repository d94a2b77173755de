"""
The near end of an iterator that stays in a child.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.python.failure import Failure
from zope.interface import implementer

from asynqueue.interfaces import IItemSink, IItemSource

# How many items may be unconsumed, or fewer if these have more bytes together than
# this, by the size of the first; but two at the least.
_MOST_ITEMS = 512
_MOST_BYTES = 4 << 20


@implementer(IItemSource)
class ChildIterator:
    """
    An iterator in a child, as its parent sees it.

    @ivar window: how many of its items may be unconsumed.
    @ivar over: whether the child has closed it, or given its last item.
    @ivar sink: where its items go; C{None} once nobody wants any.
    @ivar text: what it is, in words.
    @ivar isClosed: whether it gives L{ClosedItems<asynqueue.codec.ClosedItems>}, as far as
        they need nothing of this program.
    """

    def __init__(
        self,
        credit: Callable[[int], Any],
        close: Callable[[], Any],
        first: Sequence[Any],
        size: int,
        text: str = "",
        isClosed: bool = False,
    ) -> None:
        """
        @param credit: tells the child how many more items it may give.
        @param close: tells it that no more are taken.
        @param first: the first item, if it is here already.
        @param size: how many bytes it has.
        """
        self.window = max(2, min(_MOST_ITEMS, _MOST_BYTES // max(1, size)))
        self.over = False
        self.text = text
        self.isClosed = isClosed
        self.sink: IItemSink | None = None
        self._credit = credit
        self._close = close
        self._early: list[Any] = list(first)
        self._events: list[Callable[[], None]] = []
        self._stopped = False

    def connect(self, sink: IItemSink) -> None:
        self.sink = sink

    def grant(self, count: int) -> None:
        early, self._early = self._early, []
        if self.sink is not None and early:
            self.sink.receive(early)
            count -= len(early)
        events, self._events = self._events, []
        for event in events:
            event()
        if count > 0 and not self.over and not self._stopped:
            self._credit(count)

    def stop(self) -> None:
        """
        Close the iterator. This may also be called by the garbage collector, in the reactor's
        thread.
        """
        self.sink = None
        if not self._stopped and not self.over:
            self._stopped = True
            self._close()

    def fail(self, failure: Failure) -> None:
        """
        End the iteration from this side.
        """
        sink = self.sink
        self.stop()
        if sink is not None:
            sink.receiveFailure(failure)
            sink.finish()

    # What the child says.

    def receive(self, items: Sequence[Any]) -> None:
        """
        Items have come.
        """
        if self.sink is not None:
            self.sink.receive(items)

    def failed(self, failure: Failure) -> None:
        """
        Take a failure that has come in the place of an item.
        """
        if self._early:
            self._events.append(lambda: self.failed(failure))
        elif self.sink is not None:
            self.sink.receiveFailure(failure)

    def ended(self) -> None:
        """
        Hear that there are no more items.
        """
        self.over = True
        if self._early or self._events:
            self._events.append(self.ended)
            return
        sink, self.sink = self.sink, None
        if sink is not None:
            sink.finish()
