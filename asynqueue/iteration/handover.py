"""
From any writer to a thread that waits: a blocking iterator.
"""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Callable
from enum import Enum, auto
from typing import Any

from twisted.internet.defer import Deferred

from asynqueue.awaitable import AwaitableDeferred
from asynqueue.reactors import presentReactor, theReactor


class _Life(Enum):
    OPEN = auto()
    ENDED = auto()
    SEEN = auto()


class Handover:
    """
    Items that are put in here and taken out by a thread that waits for them.

    It may be used from any thread, except for L{deferUntilDone} and L{useReactor}. What
    waits in C{next} is released when the reactor shuts down, too. To make one installs no
    reactor.
    """

    def __init__(self, reactor: Any = None) -> None:
        self._reactor: Any = None
        self._condition = threading.Condition()
        self._items: deque[Any] = deque()
        self._life = _Life.OPEN
        self._low = 0
        self._whenLow: Callable[[], None] | None = None
        # These belong to the reactor's thread.
        self._done = False
        self._waiting: list[Deferred[None]] = []
        self._unwatch: weakref.finalize[[Any, Any], Handover] | None = None
        self._take(presentReactor(reactor))

    def __len__(self) -> int:
        """
        Return how many items were put in and not taken out.
        """
        return len(self._items)

    def __bool__(self) -> bool:
        return True

    @property
    def ended(self) -> bool:
        """
        Whether nothing more can be put in.
        """
        return self._life is not _Life.OPEN

    def put(self, item: Any) -> bool:
        """
        Put in an item, without waiting.

        @return: whether it was taken: not after the end.
        """
        with self._condition:
            if self._life is not _Life.OPEN:
                return False
            self._items.append(item)
            self._condition.notify()
        if self._reactor is None:
            self._take(presentReactor())
        return True

    def end(self) -> None:
        """
        Let the iteration end after what was put in.
        """
        with self._condition:
            if self._life is _Life.OPEN:
                self._life = _Life.ENDED
                self._condition.notify_all()

    def drop(self) -> None:
        """
        Let the iteration end at once, and forget what was put in. It is done
        with that.
        """
        with self._condition:
            seen = self._life is _Life.SEEN
            self._life = _Life.SEEN
            self._items.clear()
            self._condition.notify_all()
        if not seen:
            self.callInReactor(self._finished)

    def callWhenLow(self, low: int, f: Callable[[], None]) -> None:
        """
        Have C{f()} called in the reactor's thread, once, when no more than so
        many items are left here. It takes the place of an earlier one.
        """
        with self._condition:
            if len(self._items) > low:
                self._low, self._whenLow = low, f
                return
        self.callInReactor(f)

    def useReactor(self) -> Any:
        """
        Find the reactor, if it is not known: the installed one, of which there is one then,
        if no asyncio loop runs this.

        @return: the reactor.
        """
        if self._reactor is None:
            self._take(theReactor())
        return self._reactor

    def callInReactor(self, f: Callable[[], None]) -> None:
        """
        Call C{f()} in the reactor's thread; or at once, where there is no reactor yet.
        """
        with self._condition:
            if self._reactor is None:
                self._take(presentReactor())
            reactor = self._reactor
            if reactor is None:
                f()
                return
        reactor.callFromThread(f)

    def __iter__(self) -> Handover:
        return self

    def __next__(self) -> Any:
        """
        Wait for the next item. Never in the reactor's thread.
        """
        if self._reactor is None:
            self._take(presentReactor())
        with self._condition:
            while not self._items and self._life is _Life.OPEN:
                self._condition.wait()
            if self._items:
                item = self._items.popleft()
                whenLow = self._whenLow if len(self._items) <= self._low else None
                if whenLow is None:
                    return item
                self._whenLow = None
            else:
                whenLow = self._finished if self._life is _Life.ENDED else None
                self._life = _Life.SEEN
                item = self
        if whenLow is not None:
            self.callInReactor(whenLow)
        if item is self:
            raise StopIteration
        return item

    def deferUntilDone(self) -> AwaitableDeferred[None]:
        """
        Return a Deferred that fires when the iteration has ended: when the thread was told that
        there are no more items, or they were dropped.
        """
        self.useReactor()
        d: AwaitableDeferred[None] = AwaitableDeferred(self._waiting.remove)
        if self._done:
            d.callback(None)
        else:
            self._waiting.append(d)
        return d

    def _take(self, reactor: Any) -> None:
        """
        Take a reactor, if there is one, unless another thread has found one.
        """
        with self._condition:
            if reactor is None or self._reactor is not None:
                return
            self._reactor = reactor
        reactor.callFromThread(self._watchReactor)

    def _finished(self) -> None:
        self._done = True
        if self._unwatch is not None:
            self._unwatch()
        while self._waiting:
            self._waiting.pop(0).callback(None)

    def _watchReactor(self) -> None:
        if self._done:
            return
        trigger = self._reactor.addSystemEventTrigger(
            "before", "shutdown", _endAtShutdown, weakref.ref(self)
        )
        # The trigger goes when this is done, or when nobody holds it.
        self._unwatch = weakref.finalize(self, _removeTrigger, self._reactor, trigger)
        self._unwatch.atexit = False

    def _shutDown(self) -> None:
        if self._unwatch is not None:
            # A trigger that has fired must not be removed.
            self._unwatch.detach()
        self.end()


def _endAtShutdown(reference: weakref.ref[Handover]) -> None:
    handover = reference()
    if handover is not None:
        handover._shutDown()


def _removeTrigger(reactor: Any, trigger: Any) -> None:
    """
    From whichever thread the last reference was dropped in.
    """
    reactor.callFromThread(reactor.removeSystemEventTrigger, trigger)
