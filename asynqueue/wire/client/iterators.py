"""
Iterators of a host on their way to tasks: what becomes of the messages about them.

::

    host ── ITEMS ──▶ FarSource ── receive ──▶ Inbox: a round trip's worth of items ─▶ Deferator
         ◀── CREDIT ──          ◀── grant ──
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.python.failure import Failure
from zope.interface import implementer

from asynqueue.errors import RemoteProtocolError
from asynqueue.failures import failureOf
from asynqueue.interfaces import IItemSink, IItemSource, ITask
from asynqueue.outcome import cannotDecode
from asynqueue.salvage import Lost
from asynqueue.wire.protocol.codecs import Codec
from asynqueue.wire.protocol.messages import MessageKind, packedCount
from asynqueue.workers.held import HeldIterators

# The items that may be on the way or not consumed: at any distance, and more for each second of
# the round trip. The half of that is under way for sure, as items are granted by halves ...
_ITEMS = 512
_ITEMS_PER_SECOND = 300_000

# ... or fewer, if these have more bytes together ...
_BYTES = 4 << 20
_BYTES_PER_SECOND = 375_000_000

# ... but two at the least, and two of the first, of whose size nothing is known.
_LEAST = 2


@implementer(IItemSource)
class FarSource:
    """
    An iterator on a host, as the queue sees it.

    The window of its sink holds as many items as the way to the host and back can, by their
    size, which may change.

    @ivar sink: where its items go; C{None} once nobody wants any, or there are no more.
    """

    def __init__(
        self, credit: Callable[[int], Any], close: Callable[[], Any], rtt: Callable[[], float]
    ) -> None:
        """
        @param credit: tells the host how many more items it may give.
        @param close: tells it that no more are taken.
        @param rtt: tells the least round trip to it, in seconds.
        """
        self.sink: IItemSink | None = None
        self._credit = credit
        self._close = close
        self._rtt = rtt
        self._granted = 0
        self._isOver = False

    def connect(self, sink: IItemSink) -> None:
        self.sink = sink

    def grant(self, count: int) -> None:
        if not self._isOver:
            self._granted += count
            self._credit(count)

    def stop(self) -> None:
        """
        Close the iterator. This may also be called by the garbage collector, in the reactor's
        thread.
        """
        self.sink = None
        if not self._isOver:
            self._isOver = True
            self._close()

    def fail(self, failure: Failure) -> None:
        """
        End the iteration from this side, after what has come.
        """
        sink = self.sink
        self.stop()
        if sink is not None:
            sink.receiveFailure(failure)
            sink.finish()

    # What the host says

    def receive(self, items: Sequence[Any], size: int) -> None:
        """
        Items have come. A hot path.

        @param size: how many bytes they had.
        @raise RemoteProtocolError: they are more than the host may give.
        """
        self._use(len(items))
        sink = self.sink
        if sink is None:
            return
        rtt = self._rtt()
        most = _ITEMS + _ITEMS_PER_SECOND * rtt
        fitting = (_BYTES + _BYTES_PER_SECOND * rtt) * len(items) / max(1, size)
        sink.resize(max(_LEAST, int(min(most, fitting))))
        sink.receive(items)

    def failed(self, failure: Failure) -> None:
        """
        Take a failure that has come in the place of an item.

        @raise RemoteProtocolError: there was no credit for it.
        """
        self._use(1)
        if self.sink is not None:
            self.sink.receiveFailure(failure)

    def ended(self) -> None:
        """
        Hear that there are no more items.
        """
        self._isOver = True
        sink, self.sink = self.sink, None
        if sink is not None:
            sink.finish()

    def lost(self, failure: Failure) -> None:
        """
        End the iteration: nothing more can come.
        """
        self._isOver = True
        self.fail(failure)

    def _use(self, count: int) -> None:
        self._granted -= count
        if self._granted < 0:
            raise RemoteProtocolError(
                f"{-self._granted} items of an iterator came that were not asked for"
            )


class OpenIterators(HeldIterators):
    """
    The iterators that are open on a host, over one connection after the other.

    A task that is here is not held any more.

    @ivar sources: the iterators, by the numbers of their calls.
    """

    def __init__(
        self,
        codec: Codec,
        name: Callable[[], str],
        callLater: Callable[[float, Callable[[], None]], Any],
        looked: Callable[[], None],
    ) -> None:
        """
        @param codec: reads the items.
        @param name: as L{HeldIterators} takes it, as C{callLater} and C{looked}.
        """
        self.sources: dict[int, FarSource] = {}
        super().__init__(self.sources.values, name, callLater, looked)
        self._codec = codec

    def open(
        self,
        task: ITask,
        number: int,
        text: str,
        tell: Callable[[int, int, bytes], None],
        rtt: Callable[[], float],
    ) -> None:
        """
        Hear that a call returned an iterator.

        @param text: what it is, in words.
        @param tell: sends the host a kind of message, a number and a body.
        @param rtt: tells the least round trip to the host, in seconds.
        """
        source = self.sources[number] = FarSource(
            lambda count: tell(MessageKind.CREDIT, number, packedCount(count)),
            lambda: tell(MessageKind.CLOSE, number, b""),
            rtt,
        )
        if task.ended:
            source.stop()
        else:
            self.deliveries.begin(task, source, text, _LEAST)

    def heard(self, kind: int, number: int, body: Any, buffers: Sequence[Any]) -> None:
        """
        Take items that the host has sent, a failure in their place, or the end.

        @raise RemoteProtocolError: it must not send that.
        """
        source = self.sources.get(number)
        if source is None:
            raise RemoteProtocolError(
                f"{MessageKind(kind).name} came for {number}, which is no iterator"
            )
        if kind == MessageKind.ITEMS:
            self._items(source, body, buffers)
        elif kind == MessageKind.ITEM_FAILED:
            source.failed(failureOf(self._codec.decodeRaised(body)))
        else:
            del self.sources[number]
            source.ended()

    def lose(self, reason: str) -> None:
        """
        End the iterations: nothing more can come.

        @param reason: why, in words.
        """
        self.stop()
        sources = list(self.sources.values())
        self.sources.clear()
        for source in sources:
            source.lost(self._lost(reason))

    def _items(self, source: FarSource, body: Any, buffers: Sequence[Any]) -> None:
        try:
            runs = self._codec.decodeItems(body, buffers)
        except RemoteProtocolError:
            raise
        except BaseException as error:
            # They are not here, or what came is something else.
            source.fail(failureOf(cannotDecode(error)))
            return
        size = len(body) + sum(len(buffer) for buffer in buffers)
        for run in runs:
            if isinstance(run, Lost):
                source.failed(failureOf(cannotDecode(run.error)))
            else:
                source.receive(run, size // len(runs))
