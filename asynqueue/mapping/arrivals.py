"""
The items of an asynchronous iterable, for those who make calls with them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterable, Callable, Sequence
from typing import Any

from twisted.python.failure import Failure
from zope.interface import implementer

from asynqueue.interfaces import IItemSink
from asynqueue.iteration.deferator import Deferator
from asynqueue.iteration.sources import AsyncIteratorSource


@implementer(IItemSink)
class Arrivals:
    """
    An iterator over those items of an asynchronous iterable that have come.

    It raises C{StopIteration} when there are none, and can be advanced again when there are.

    @ivar failure: what the iterable raised, as its last item.
    @ivar isOver: whether no more items come.
    """

    def __init__(self, iterable: AsyncIterable[Any], changed: Callable[[], None]) -> None:
        """
        @param changed: is called when items have come, or the end.
        @raise TypeError: C{iterable} gives no asynchronous iterator.
        """
        self.failure: Failure | None = None
        self.isOver = False
        self._iterable = iterable
        self._changed = changed
        self._items: deque[Any] = deque()
        self._received = 0
        self._source = AsyncIteratorSource(aiter(iterable))
        self._source.connect(self)

    def __iter__(self) -> Arrivals:
        return self

    def __next__(self) -> Any:
        if not self._items:
            raise StopIteration
        return self._items.popleft()

    def grant(self, count: int) -> None:
        """
        Ask the iterable for more items.
        """
        self._source.grant(count)

    def stop(self) -> None:
        """
        Take no more items, and close the iterable, if it is an asynchronous generator or a
        Deferator: others are their owner's.
        """
        self.isOver = True
        self._items.clear()
        self._source.stop()
        if issubclass(type(self._iterable), Deferator):
            self._iterable.stop()  # type: ignore[attr-defined]

    # IItemSink

    def resize(self, window: int) -> None:
        """
        Go on: who asks for items says how many.
        """

    @property
    def consumed(self) -> int:
        """
        How many items were taken.
        """
        return self._received - len(self._items)

    @property
    def isAwaited(self) -> bool:
        """
        Whether a call could be made with another item.
        """
        return not self._items

    def receive(self, items: Sequence[Any], moreLeft: bool = False) -> None:
        """
        Keep items until calls are made with them. Where some wait already, they are looked
        for as soon as there is room for them.
        """
        wereNone = not self._items
        self._items += items
        self._received += len(items)
        if wereNone:
            self._changed()

    def receiveFailure(self, failure: Failure) -> None:
        """
        Keep what the iterable raised. The end follows.
        """
        self.failure = failure

    def finish(self) -> None:
        """
        Say that no more items come.
        """
        self.isOver = True
        self._changed()
