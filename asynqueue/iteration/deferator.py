"""
The Deferator: an iteration whose items come later.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.python.reflect import safe_repr

from asynqueue.awaitable import AwaitableDeferred, raiseHere
from asynqueue.checks import wholeNumber
from asynqueue.failures import isOf
from asynqueue.interfaces import IItemSource
from asynqueue.iteration.inbox import NOTHING, Inbox, ItemDeferred
from asynqueue.iteration.prefetch import Prefetcherator
from asynqueue.iteration.sources import (
    AsyncIteratorSource,
    IteratorSource,
    PullSource,
    isIterator,
)
from asynqueue.reactors import runningReactor

_REPRESENTATION_LENGTH = 200
# Of an iterator here two items are known ahead, the least that a loop needs.
_NEAR_WINDOW = 2


class _Granted(NamedTuple):
    """
    What L{Deferator.fromSource} gives to the constructor.
    """

    source: IItemSource
    window: int


class Deferator:
    """
    Iterates over items that come later.

    In a plain loop each step gives a Deferred of an item, to be waited for
    before the next step. It fires when it is known whether another item
    follows, so that the loop can end where it should::

        for d in deferator:
            item = yield d

    An asynchronous loop, of Twisted or of asyncio, gives each item as soon as
    it is here::

        async for item in deferator:
            ...

    An item that failed fails its Deferred, or raises in the loop, with its own
    type. A Deferred that is cancelled loses no item: the next step gives it.

    To end early, call L{stop}, here or on the Deferred of any item. A Deferator
    that nobody holds any more is stopped.

    All of it belongs to the reactor's thread.

    @ivar d: fires as the iteration is asked for an item and has no more: C{True},
        or C{False} if the last item was a failure. Also C{False} when it is
        stopped before all items were consumed. A callback on it that holds the
        Deferator keeps it from being dropped.
    @ivar representation: what is iterated over, in words.
    """

    isIterator = staticmethod(isIterator)

    def __init__(self, objOrRep: object, *args: Any, **kw: Any) -> None:
        """
        Iterate over an iterator, an asynchronous one, or a L{Prefetcherator};
        or over what a function gives, with any representation before it::

            Deferator("rows of the table", getNext, 1, key=2)

        The function is called for one item after another, and gives a Deferred
        of C{(value, isValid, moreLeft)}; L{PullSource} says more. Anything else
        is an empty iteration.

        @raise TypeError: if the function cannot be called.
        """
        source, window = _sourceOf(objOrRep, args, kw)
        self.representation = "[]" if source is None else _shortened(objOrRep)
        reactor = runningReactor()
        self._inbox = Inbox(source, window, reactor)
        self._atHand = self._inbox.atHand
        self.d: AwaitableDeferred[bool] = self._inbox.d
        weakref.finalize(self, _dropped, self._inbox, threading.get_ident(), reactor).atexit = False
        self._inbox.open()

    @classmethod
    def fromSource(cls, source: IItemSource, representation: str, window: int = 64) -> Deferator:
        """
        Iterate over what a source produces. It is connected and granted its
        first items at once.

        @param window: how many items may be granted and not consumed. More are
            granted in batches, when no more than half of it is left.
        @raise ValueError: if the window is no whole number, or less than 2, because an item is
            handed out when the one after it is known.
        """
        return cls(representation, _Granted(source, wholeNumber(window, "window", least=2)))

    def __repr__(self) -> str:
        return f"<Deferator of {self.representation}>"

    @property
    def unconsumed(self) -> int:
        """
        How many items are here and not consumed.
        """
        return self._inbox.unconsumed

    @property
    def moreLeft(self) -> bool:
        """
        Whether there is, or may be, another item.
        """
        return self._inbox.moreLeft

    def __iter__(self) -> Deferator:
        return self

    def __next__(self) -> ItemDeferred:
        """
        Return the Deferred of the next item.

        @raise NotReadyError: if the last one has not fired.
        """
        return self._inbox.next()

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        """
        Return the next item. A hot path.

        @raise NotReadyError: if another one is waited for.
        """
        if self._atHand:
            return self._atHand.popleft()
        item = self._inbox.take()
        if item is NOTHING:
            return await self._inbox.waitForItem()
        # What no Deferred can carry fails here, too.
        if isOf(item, Failure):
            raiseHere(item, "an item of an iteration")
        return item

    def deferUntilReady(self) -> Deferred[Deferator]:
        """
        Wait until an item is here, or it is known that there are no more.

        What hands out a Deferator should wait for this first: a plain loop over
        an iteration that turns out to be empty can only fail its first Deferred
        (with C{StopAsyncIteration}).

        @return: a Deferred that fires with this Deferator.
        """
        ready: AwaitableDeferred[Deferator] = AwaitableDeferred(lambda _: watched.cancel())
        watched = self._inbox.watch()
        watched.addCallback(lambda _: self).chainDeferred(ready)
        return ready

    def takeReady(self, most: int) -> list[Any]:
        """
        Take the items that are here, without a Deferred for each: for those who hand
        on many of them.

        With none here, L{moreLeft} says whether any can come, and L{deferUntilReady}
        waits for them.

        @param most: the most that are taken.
        @return: the items in their order, a C{Failure} in the place of one that failed.
        @raise NotReadyError: if another one is waited for.
        """
        return self._inbox.takeReady(most)

    def follow(self) -> None:
        """
        Promise to take all items, or to L{stop}, though there may be long pauses: a worker
        that stops waits for that, where it would close an iterator that nobody reads.
        """
        self._inbox.follow()

    def stop(self) -> None:
        """
        End the iteration: stop its source and drop what was not consumed. A
        Deferred of an item that has not fired is cancelled.
        """
        self._inbox.stop()


def _sourceOf(
    obj: object, args: tuple[Any, ...], kw: dict[str, Any]
) -> tuple[IItemSource | None, int]:
    """
    Return the source for the arguments of a Deferator, and the window that suits it.
    """
    if args and isinstance(args[0], _Granted):
        return args[0]
    if args:
        return PullSource(*args, **kw), 1
    if isinstance(obj, Prefetcherator):
        return PullSource(obj.getNext), 1
    if isIterator(obj):
        return IteratorSource(obj), _NEAR_WINDOW  # type: ignore[arg-type]
    if isinstance(obj, AsyncIterator):
        return AsyncIteratorSource(obj), _NEAR_WINDOW
    return None, 1


def _shortened(obj: object) -> str:
    """
    Return what an object looks like, in so few characters that it may be kept.
    """
    text = obj.strip("<>") if isinstance(obj, str) else safe_repr(obj).strip("<>")
    if len(text) > _REPRESENTATION_LENGTH:
        return text[: _REPRESENTATION_LENGTH - 3] + "..."
    return text


def _dropped(inbox: Inbox, thread: int, reactor: Any) -> None:
    """
    Stop an iteration whose Deferator nobody holds any more. The collector of cycles, which runs in
    any thread, may have found it.
    """
    if threading.get_ident() == thread or reactor is None:
        inbox.stop()
    else:
        reactor.callFromThread(inbox.stop)
