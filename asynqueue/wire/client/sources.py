"""
The near end of an iterator that stays on a host.

::

    host ── ITEMS ──▶ here: a round trip's worth of items ── receive ──▶ Deferator
         ◀── CREDIT ──                                    ◀── grant ──
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

from twisted.python.failure import Failure
from zope.interface import implementer

from asynqueue.errors import RemoteProtocolError
from asynqueue.interfaces import IItemSink, IItemSource

# The items that may be on the way or wait here: at any distance, and more for each second of
# the round trip ...
_ITEMS = 512
_ITEMS_PER_SECOND = 200_000

# ... or fewer, if these have more bytes together ...
_BYTES = 4 << 20
_BYTES_PER_SECOND = 250_000_000

# ... but two at the least, and two of the first, of whose size nothing is known.
_LEAST = 2

# The items that may wait where they are consumed besides, or fewer, by the size of the first.
_NEAR = 64


class _Failed:
    """
    Stands for an item.
    """

    __slots__ = ("failure",)

    def __init__(self, failure: Failure) -> None:
        self.failure = failure


@implementer(IItemSource)
class FarSource:
    """
    An iterator on a host, as the queue sees it.

    The host has credit for as many items as the way to it and back can hold, by their
    size, which may change; what has come and is not wanted yet waits here, and counts.

    @ivar over: whether the host has closed it, or given its last item.
    @ivar sink: where its items go; C{None} once nobody wants any.
    """

    def __init__(
        self, credit: Callable[[int], Any], close: Callable[[], Any], rtt: Callable[[], float]
    ) -> None:
        """
        Grant the host its first items.

        @param credit: tells the host how many more items it may give.
        @param close: tells it that no more are taken.
        @param rtt: tells the least round trip to it, in seconds.
        """
        self.over = False
        self.sink: IItemSink | None = None
        self._credit = credit
        self._close = close
        self._rtt = rtt
        self._room = _LEAST
        self._waiting: deque[Any] = deque()
        self._failures = 0
        self._wanted = 0
        self._stopped = False
        self._granted = _LEAST
        credit(_LEAST)

    @property
    def window(self) -> int:
        """
        How many items may wait where they are consumed.
        """
        return max(_LEAST, min(_NEAR, self._room))

    def connect(self, sink: IItemSink) -> None:
        self.sink = sink

    def grant(self, count: int) -> None:
        self._wanted += count
        self._deliver()

    def stop(self) -> None:
        """
        Close the iterator. This may also be called by the garbage collector, in the reactor's
        thread.
        """
        self.sink = None
        self._waiting.clear()
        if not self._stopped and not self.over:
            self._stopped = True
            self._close()

    def fail(self, failure: Failure) -> None:
        """
        End the iteration from this side, after what has come.
        """
        if not self.over and not self._stopped:
            self._close()
        self.lost(failure)

    def lost(self, failure: Failure) -> None:
        """
        End the iteration: nothing more can come.
        """
        if not self.over and not self._stopped:
            self._waiting.append(_Failed(failure))
            self._failures += 1
            self.ended()

    # What the host says

    def receive(self, items: Sequence[Any], size: int) -> None:
        """
        Items have come. A hot path.

        @param size: how many bytes they had.
        @raise RemoteProtocolError: they are more than the host may give.
        """
        self._use(len(items))
        if self._stopped or self.over:
            return
        rtt = self._rtt()
        most = _ITEMS + _ITEMS_PER_SECOND * rtt
        fitting = (_BYTES + _BYTES_PER_SECOND * rtt) * len(items) / max(1, size)
        self._room = max(_LEAST, int(min(most, fitting)))
        self._waiting.extend(items)
        self._deliver()

    def failed(self, failure: Failure) -> None:
        """
        Take a failure that has come in the place of an item.

        @raise RemoteProtocolError: there was no credit for it.
        """
        self._use(1)
        if not self._stopped and not self.over:
            self._waiting.append(_Failed(failure))
            self._failures += 1
            self._deliver()

    def ended(self) -> None:
        """
        Hear that there are no more items.
        """
        self.over = True
        self._deliver()

    # Within

    def _use(self, count: int) -> None:
        self._granted -= count
        if self._granted < 0:
            raise RemoteProtocolError(
                f"{-self._granted} items of an iterator came that were not asked for"
            )

    def _deliver(self) -> None:
        """
        Give on what is wanted; then let the host give as much more.
        """
        waiting = self._waiting
        while self._wanted and waiting and self.sink is not None:
            if self._failures:
                self._deliverOne(self.sink)
            else:
                count = min(self._wanted, len(waiting))
                self._wanted -= count
                if count == len(waiting):
                    items = list(waiting)
                    waiting.clear()
                else:
                    items = list(islice(waiting, count))
                    for _ in range(count):
                        waiting.popleft()
                self.sink.receive(items)
        if not self.over:
            self._topUp()
        elif not waiting and self.sink is not None:
            sink, self.sink = self.sink, None
            sink.finish()

    def _deliverOne(self, sink: IItemSink) -> None:
        item = self._waiting.popleft()
        self._wanted -= 1
        if type(item) is _Failed:
            self._failures -= 1
            sink.receiveFailure(item.failure)
        else:
            sink.receive([item])

    def _topUp(self) -> None:
        room = self._room - len(self._waiting) - self._granted
        if not self._stopped and room > 0 and 4 * room >= self._room:
            self._granted += room
            self._credit(room)
