"""
The near end of an iteration: what has arrived and is not consumed yet::

    source ── receive, finish ──▶ Inbox ◀── next, take ── Deferator ◀── user
           ◀──── grant, stop ────

The source holds the inbox, and never the Deferator: a Deferator that nobody
holds goes away, and stops its source as it goes. While somebody waits for an
item, the inbox holds what waits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from enum import Enum, auto
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure
from zope.interface import implementer

from asynqueue.awaitable import AwaitableDeferred
from asynqueue.errors import ImplementationError, NotReadyError
from asynqueue.failures import areOrdinary
from asynqueue.interfaces import IItemSink, IItemSource
from asynqueue.outcome import cannotSend, raisable

#: What L{Inbox.take} returns when no item is there to be taken.
NOTHING: Any = object()

_ITEM = "an item of an iteration"

# Where at least this many items come at once, it pays to look at all of them together.
_MANY = 8


class _Life(Enum):
    OPEN = auto()
    FINISHED = auto()
    STOPPED = auto()


# By names, for each item: see L{asynqueue.outcome.ITERATOR}.
_OPEN, _FINISHED, _STOPPED = _Life


class ItemDeferred(AwaitableDeferred[Any]):
    """
    The Deferred of one item, from which the iteration can be stopped, too.
    """

    def __init__(
        self, inbox: Inbox, canceller: Callable[[Deferred[Any]], None] | None = None
    ) -> None:
        super().__init__(canceller)
        self._inbox = inbox

    def stop(self) -> None:
        """
        Stop the whole iteration, as C{Deferator.stop} does.
        """
        self._inbox.stop()

    def _toRaise(self, error: BaseException, exits: bool) -> BaseException:
        # This is the end: the failure of an item has come as another one.
        isEnd = type(error) is StopAsyncIteration
        return error if isEnd else raisable(error, _ITEM, exits=exits)


@implementer(IItemSink)
class Inbox:
    """
    Keeps items until they are consumed, and grants credit for more.

    This is a hot path: an item costs one C{popleft}, a Deferred, and its share
    of a grant; or, in an asynchronous loop, one step of L{atHand}. A failure is kept as it is,
    in its place among the items.

    @ivar atHand: the next items, as far as nothing else is to be done for them: they are no
        failures, and no more are to be granted as they are taken.
    """

    def __init__(self, source: IItemSource | None, window: int, reactor: Any = None) -> None:
        """
        @param source: where items come from; C{None} is a source that is
            finished.
        @param window: how many items may be granted and not consumed. With 1,
            the source must always say what follows.
        @param reactor: the reactor that items come from, where it is known.
        """
        self.d: AwaitableDeferred[bool] = AwaitableDeferred()
        self.d.reactor = reactor
        self._reactor = reactor
        self._source = source
        self._window = window
        self._low = window // 2
        self._buffer: deque[Any] = deque()
        # How many of the first ones of these are surely no failures.
        self._ordinary = 0
        self.atHand: deque[Any] = deque()
        self._granted = 0
        self._life = _OPEN
        self._received = 0
        self._complete = True
        # How many items are here when it is known that the iteration does not end with the next.
        self._enough = 2
        self._pending: ItemDeferred | None = None
        self._pendingNeeds = 2
        self._watchers: list[Deferred[None]] = []
        self._isFollowed = False

    def open(self) -> None:
        """
        Connect to the source, and grant it the first items.
        """
        if self._source is None:
            self.finish()
            return
        self._source.connect(self)
        self._topUp()

    # What the source calls ---------------------------------------------------

    def receive(self, items: Sequence[Any], moreLeft: bool = False) -> None:
        """
        Take items.

        @param moreLeft: that something surely follows them; the last one may
            then be handed out before that arrives.
        @raise ImplementationError: if they are more than were granted.
        """
        if self._life is not _OPEN:
            return
        count = len(items)
        if count > self._granted:
            raise ImplementationError(
                f"{self._source!r} produced {count} items where {self._granted} were granted"
            )
        self._granted -= count
        self._received += count
        buffer = self._buffer
        if count >= _MANY and self._ordinary == len(buffer) and areOrdinary(items):
            self._ordinary += count
        buffer.extend(items)
        self._enough = 1 if moreLeft else 2
        self._complete = True
        self._settle()

    def receiveFailure(self, failure: Failure) -> None:
        """
        Take a failure as an item. If it is the last, the iteration is not
        complete.
        """
        if self._life is not _OPEN:
            return
        # Who waits for this item in a loop would take some for the end.
        value: Any = failure.value
        error = raisable(value, _ITEM, exits=False)
        if error is not value:
            failure = Failure(error)
        # It may come without a grant: from a connection that was lost.
        self._granted = max(0, self._granted - 1)
        self._received += 1
        self._buffer.append(failure)
        self._enough = 2
        self._complete = False
        self._settle()

    def resize(self, window: int) -> None:
        """
        Have another window. A hot path.
        """
        if window == self._window:
            return
        self._putBack()
        self._window = window
        self._low = window // 2
        if len(self._buffer) + self._granted <= self._low:
            self._topUp()

    def finish(self) -> None:
        """
        Hear that there are no more items. The source is let go.
        """
        if self._life is not _OPEN:
            return
        self._life = _FINISHED
        self._source = None
        self._granted = 0
        self._enough = 1
        if not self._received:
            self._resolve()
        self._settle()

    # What a worker asks ------------------------------------------------------

    @property
    def consumed(self) -> int:
        """
        How many items were taken from here.
        """
        return self._received - self.unconsumed

    @property
    def isAwaited(self) -> bool:
        """
        Whether somebody waits for an item now, or takes all of them.
        """
        return self._isFollowed or self._pending is not None or bool(self._watchers)

    # What the Deferator calls ------------------------------------------------

    def follow(self) -> None:
        """
        Hear that all items will be taken, until the end or L{stop}.
        """
        self._isFollowed = True

    @property
    def unconsumed(self) -> int:
        """
        How many items are here.
        """
        return len(self._buffer) + len(self.atHand)

    @property
    def moreLeft(self) -> bool:
        """
        Whether there is, or may be, another item.
        """
        return self._life is _OPEN or self.unconsumed > 0

    def next(self) -> ItemDeferred:
        """
        Return the Deferred of the next item, which fires when it is known whether yet another one
        follows.

        @raise StopIteration: if there are no more items.
        @raise NotReadyError: if the last Deferred has not fired.
        """
        if self._pending is not None:
            raise NotReadyError
        self._putBack()
        if len(self._buffer) >= self._enough:
            d = ItemDeferred(self)
            self._handOut(d)
            return d
        if self._life is not _OPEN:
            self._resolve()
            raise StopIteration
        return self._wait(2)

    def take(self) -> Any:
        """
        Return the next item at once, perhaps a failure, or L{NOTHING}. None are L{atHand}; after
        this some may be.

        @raise StopAsyncIteration: if there are no more items.
        @raise NotReadyError: if the last Deferred has not fired.
        """
        if self._pending is not None:
            raise NotReadyError
        buffer = self._buffer
        if buffer:
            # As _pop() has it: a call for each item shows.
            item = buffer.popleft()
            if self._ordinary:
                self._ordinary -= 1
            if len(buffer) + self._granted <= self._low:
                self._topUp()
            if self._ordinary:
                self._hold()
            return item
        if self._life is not _OPEN:
            self._resolve()
            raise StopAsyncIteration
        return NOTHING

    def takeReady(self, most: int) -> list[Any]:
        """
        Take the items that are here, perhaps failures among them, and not more than C{most}. If
        there are none now, whether any come is for L{watch} to tell.

        @raise NotReadyError: if the last Deferred has not fired.
        """
        if self._pending is not None:
            raise NotReadyError
        self._putBack()
        buffer = self._buffer
        items = self._first(most)
        if items:
            if len(buffer) + self._granted <= self._low:
                self._topUp()
        elif most > 0 and self._life is not _OPEN:
            self._resolve()
        return items

    def waitForItem(self) -> ItemDeferred:
        """
        Return the Deferred of the next item, which fires as soon as it arrives. Called after
        L{take} gave nothing.
        """
        return self._wait(1)

    def watch(self) -> Deferred[None]:
        """
        Return a Deferred that fires when an item is here, or surely none comes.
        """
        d: Deferred[None] = Deferred(self._watchers.remove)
        self._watchers.append(d)
        self._notify()
        return d

    def stop(self) -> None:
        """
        Stop the source and drop what was not consumed. It may be called at any
        time and more than once.
        """
        if self._life is _STOPPED:
            return
        consumed = self._life is _FINISHED and not self.unconsumed
        source, self._source = self._source, None
        pending, self._pending = self._pending, None
        self._life = _STOPPED
        self._granted = self._ordinary = 0
        self._buffer.clear()
        self.atHand.clear()
        try:
            if source is not None:
                source.stop()
        finally:
            self._resolve(consumed and self._complete)
            self._notify()
            if pending is not None:
                pending.errback(CancelledError("the iteration was stopped"))

    # Within ------------------------------------------------------------------

    def _wait(self, needs: int) -> ItemDeferred:
        self._pendingNeeds = needs
        self._pending = ItemDeferred(self, self._forget)
        self._pending.reactor = self._reactor
        return self._pending

    def _forget(self, d: Deferred[Any]) -> None:
        """
        Leave here what the pending Deferred waited for, which is cancelled.
        """
        self._pending = None

    def _hold(self) -> None:
        """
        Have items at hand that may be taken without a look at what else is to be done.
        """
        count = self._ordinary
        if self._source is not None:
            # With the one after these, more are granted.
            count = min(count, len(self._buffer) + self._granted - self._low - 1)
        if count > 0:
            self.atHand.extend(self._first(count))

    def _putBack(self) -> None:
        """
        Have nothing at hand.
        """
        items = self.atHand
        if items:
            self._ordinary += len(items)
            self._buffer.extendleft(reversed(items))
            items.clear()

    def _first(self, most: int) -> list[Any]:
        """
        Take the first items, and not more than C{most}.
        """
        buffer = self._buffer
        if len(buffer) <= most:
            items = list(buffer)
            buffer.clear()
        else:
            items = [buffer.popleft() for _ in range(most)]
        self._ordinary = max(0, self._ordinary - len(items))
        return items

    def _pop(self) -> Any:
        item = self._buffer.popleft()
        if self._ordinary:
            self._ordinary -= 1
        if len(self._buffer) + self._granted <= self._low:
            self._topUp()
        return item

    def _handOut(self, d: ItemDeferred) -> None:
        """
        Fire the Deferred of the next item.
        """
        item = self._pop()
        try:
            item.__class__  # noqa: B018 -- a Deferred asks its result for it
            (d.errback if issubclass(type(item), Failure) else d.callback)(item)
        except BaseException as error:
            # Somebody's class, such as that of a proxy of what is gone, or one without a hash.
            if d.called:
                raise
            d.errback(Failure(cannotSend(error, item)))

    def _topUp(self) -> None:
        """
        Grant as much as the window has room for. The source may produce it
        before this returns.
        """
        if self._source is not None:
            count = self._window - len(self._buffer) - self._granted
            self._granted += count
            self._source.grant(count)

    def _settle(self) -> None:
        """
        Tell those who wait for it that something arrived.
        """
        if self._watchers:
            self._notify()
        pending = self._pending
        if pending is None:
            return
        if len(self._buffer) >= min(self._enough, self._pendingNeeds):
            self._pending = None
            self._handOut(pending)
        elif self._life is not _OPEN:
            self._pending = None
            self._resolve()
            pending.errback(
                StopAsyncIteration(
                    "the iteration has no items: before a plain loop over a Deferator,"
                    " wait for its deferUntilReady(), or use an asynchronous loop"
                )
            )

    def _notify(self) -> None:
        """
        Fire those who watch. One of them may consume the item; the others then
        wait for the next.
        """
        while self._watchers and (self.unconsumed or self._life is not _OPEN):
            self._watchers.pop(0).callback(None)

    def _resolve(self, complete: bool | None = None) -> None:
        if not self.d.called:
            self.d.callback(self._complete if complete is None else complete)
