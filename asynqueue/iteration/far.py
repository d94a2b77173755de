"""
An iterator that is elsewhere, in a child process or on a host, at the end where its items are
wanted.

::

    there ── items ──▶ FarSource ── receive ──▶ Inbox: as many as fill the way ──▶ Deferator
          ◀─ credit ── FarEnd    ◀── grant ──
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NoReturn, Protocol

from twisted.python.failure import Failure
from zope.interface import implementer

from asynqueue.errors import RemoteProtocolError
from asynqueue.failures import failureOf
from asynqueue.interfaces import IItemSink, IItemSource
from asynqueue.outcome import cannotDecode
from asynqueue.salvage import Lost

# The items that may be on the way or not consumed: at any distance, and more for each second of
# the round trip. The half of that is under way for sure, as items are granted by halves ...
_ITEMS = 512
_ITEMS_PER_SECOND = 300_000

# ... or fewer, if these have more bytes together ...
_BYTES = 4 << 20
_BYTES_PER_SECOND = 375_000_000

# ... but two at the least, and two of the first where nothing is known of their size.
_LEAST = 2

# Reads what items were pickled to: runs of those that are there, and what is known of the others.
Load = Callable[[Any, Sequence[Any]], Sequence[list[Any] | Lost]]


class FarEnd(Protocol):
    """
    Tells what has iterators how far their items are wanted, by the numbers of the calls that
    returned them.
    """

    @property
    def rtt(self) -> float:
        """
        The least round trip to it, in seconds.
        """

    def grantItems(self, number: int, count: int) -> None:
        """
        Let an iterator give C{count} more items.
        """

    def closeItems(self, number: int) -> None:
        """
        Have an iterator closed: no more are taken.
        """


@implementer(IItemSource)
class FarSource:
    """
    An iterator that is elsewhere.

    An item that came without having been asked for is kept until the first grant, and so is what
    follows it.

    @ivar number: the number of the call that returned it.
    @ivar text: what it is, in words.
    @ivar isClosed: whether it gives L{ClosedItems<asynqueue.codec.ClosedItems>}, as far as
        they need nothing of this program.
    @ivar sink: where its items go; C{None} once nobody wants any, or there are no more.
    @ivar window: how many of its items may be granted and not consumed: as many as the way to
        the far end and back can hold of such as came last.
    """

    def __init__(
        self,
        far: FarEnd,
        number: int,
        text: str,
        isClosed: bool = False,
        unasked: int = 0,
    ) -> None:
        """
        @param far: is told how many items are wanted.
        @param unasked: how many items come without having been granted.
        """
        self.number = number
        self.text = text
        self.isClosed = isClosed
        self.sink: IItemSink | None = None
        self.window = _LEAST
        self._far = far
        # How many more items may come.
        self._granted = unasked
        self._isOver = False
        # What is to be told at the first grant, an item each, and the end; nothing waits any more.
        self._early: list[Callable[[], None]] | None = []

    def connect(self, sink: IItemSink) -> None:
        self.sink = sink
        # With nothing to wait for, the end is told at once.
        self._early = self._early or None

    def grant(self, count: int) -> None:
        early, self._early = self._early, None
        if early:
            for event in early:
                event()
            count -= len(early)
        if count > 0 and not self._isOver:
            self._granted += count
            self._far.grantItems(self.number, count)

    def stop(self) -> None:
        """
        Close the iterator. This may also be called by the garbage collector, in the reactor's
        thread.
        """
        self.sink = None
        self._close()

    def fail(self, failure: Failure) -> None:
        """
        End the iteration from this side, after what has come.
        """
        self._close()
        self.lost(failure)

    # What the far end says

    def receive(self, items: Sequence[Any], size: int, count: int) -> None:
        """
        Take items that have come. A hot path.

        @param size: how many bytes they had.
        @param count: how many they are.
        @raise RemoteProtocolError: they are more than were granted.
        """
        self._granted -= count
        if self._granted < 0:
            self._excess()
        window, room = _ITEMS, _BYTES
        rtt = self._far.rtt
        if rtt:
            window += int(_ITEMS_PER_SECOND * rtt)
            room += int(_BYTES_PER_SECOND * rtt)
        if size * window > room * count:
            window = max(_LEAST, room * count // size)
        if window != self.window:
            self.window = window
            if self.sink is not None:
                self.sink.resize(window)
        if self._early is not None:
            self._early.append(partial(self._deliver, items))
        elif self.sink is not None:
            self.sink.receive(items)

    def read(self, load: Load, body: Any, buffers: Sequence[Any]) -> None:
        """
        Take items that have come pickled. If they cannot be read, the iteration ends: nobody
        knows how many they are. A hot path.

        @param load: unpickles them.
        @raise RemoteProtocolError: they are no items, or more than were granted.
        """
        try:
            runs = load(body, buffers)
        except RemoteProtocolError:
            raise
        except BaseException as error:
            # Somebody's objects: whatever their unpickling raises. Or they are not here.
            self.fail(failureOf(cannotDecode(error)))
            return
        size = len(body)
        if buffers:
            size += sum(map(len, buffers))
        for run in runs:
            if isinstance(run, Lost):
                self.failed(failureOf(cannotDecode(run.error)))
            else:
                self.receive(run, size // len(runs), len(run))

    def failed(self, failure: Failure) -> None:
        """
        Take a failure that has come in the place of an item.

        @raise RemoteProtocolError: no item was granted.
        """
        self._granted -= 1
        if self._granted < 0:
            self._excess()
        self._do(partial(self._fail, failure))

    def ended(self) -> None:
        """
        Hear that there are no more items.
        """
        self._isOver = True
        self._do(self._finish)

    def lost(self, failure: Failure) -> None:
        """
        End the iteration: nothing more can come.
        """
        self._isOver = True
        self._do(partial(self._fail, failure))
        self._do(self._finish)

    # Within

    def _excess(self) -> NoReturn:
        raise RemoteProtocolError(
            f"{-self._granted} items of an iterator came that were not asked for"
        )

    def _do(self, event: Callable[[], None]) -> None:
        """
        Tell the sink, now or at the first grant.
        """
        if self._early is None:
            event()
        else:
            self._early.append(event)

    def _deliver(self, items: Sequence[Any]) -> None:
        if self.sink is not None:
            self.sink.receive(items)

    def _fail(self, failure: Failure) -> None:
        if self.sink is not None:
            self.sink.receiveFailure(failure)

    def _finish(self) -> None:
        sink, self.sink = self.sink, None
        if sink is not None:
            sink.finish()

    def _close(self) -> None:
        if not self._isOver:
            self._isOver = True
            self._far.closeItems(self.number)
