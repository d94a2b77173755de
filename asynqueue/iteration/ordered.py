"""
Items made in any order, and handed to a thread in the order they were asked for.
"""

from __future__ import annotations

import contextvars
import threading
from collections import deque
from collections.abc import Callable
from enum import Enum, auto
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.python.failure import Failure

from asynqueue.awaitable import AwaitableDeferred
from asynqueue.checks import wholeNumber
from asynqueue.errors import ImplementationError
from asynqueue.failures import caught
from asynqueue.iteration.handover import Handover


class _Stage(Enum):
    NEW = auto()
    RUNNING = auto()
    ENDING = auto()
    OVER = auto()


class _Item(Enum):
    AWAITED = auto()
    MADE = auto()
    FAILED = auto()
    CANCELLED = auto()


class _Slot:
    """
    The place of an item in the order of the calls.
    """

    def __init__(self, canceller: Callable[[_Slot], None]) -> None:
        self.state = _Item.AWAITED
        self.item: Any = None
        self.making: Deferred[Any] | None = None
        self.d: AwaitableDeferred[Any] = AwaitableDeferred(lambda _: canceller(self))


class OrderedItemProducer:
    """
    Feeds the items that calls give, in the order of those calls, to a function
    that blocks.

    The function runs in a thread of its own, which ends with it. Call the
    methods in the reactor's thread.

    @ivar i: the iterator that the function is given.
    """

    def __init__(
        self, maxThreads: int | None = None, maxAhead: int = 64, reactor: Any = None
    ) -> None:
        """
        @param maxThreads: is taken from older programs, and does nothing: one
            thread is enough.
        @param maxAhead: with more items than this waiting for the function, the
            Deferred of an item does not fire before there are fewer.
        @raise ValueError: if C{maxAhead} is no whole number, or less than 1.
        """
        self._maxAhead = wholeNumber(maxAhead, "maxAhead")
        self.i = Handover(reactor)
        self._stage = _Stage.NEW
        self._thread: threading.Thread | None = None
        self._slots: deque[_Slot] = deque()
        # Whose items are handed over, and who wait until there are fewer.
        self._held: deque[_Slot] = deque()
        self._failure: Failure | None = None
        self._outcome: Any = None
        self._waiting: list[Deferred[Any]] = []

    def start(self, fb: Callable[..., Any], *args: Any, **kw: Any) -> AwaitableDeferred[None]:
        """
        Run C{fb(iterator, *args, **kw)} in a thread, with the caller's
        C{contextvars}.

        @return: a Deferred that fires when it is about to begin.
        @raise TypeError: if C{fb} cannot be called.
        @raise ImplementationError: if it was started, or stopped, before.
        """
        if not callable(fb):
            raise TypeError(
                f"{fb!r} cannot be called with the items: give a function of an iterator"
            )
        if self._stage is not _Stage.NEW:
            raise ImplementationError(
                "an OrderedItemProducer starts only once, before its stop(): make another one"
            )
        started: AwaitableDeferred[None] = AwaitableDeferred(lambda _: None)
        context = contextvars.copy_context()
        reactor = self.i.useReactor()

        def run() -> None:
            outcome: Any
            reactor.callFromThread(_fire, started)
            try:
                outcome = context.run(fb, self.i, *args, **kw)
            except BaseException as error:
                # The seam to the user's function: this thread is only for it.
                outcome = caught(error)
            reactor.callFromThread(self._over, outcome)

        self._thread = threading.Thread(
            target=run, name=f"OrderedItemProducer {id(self):#x}", daemon=True
        )
        self._stage = _Stage.RUNNING
        self._thread.start()
        return started

    def produceItem(self, fp: Callable[..., Any], *args: Any, **kw: Any) -> AwaitableDeferred[Any]:
        """
        Make an item, by C{fp(*args, **kw)}, whose place is after those of the
        earlier calls.

        If C{fp} fails, the iterator ends before this item, and L{stop} tells
        the failure; the Deferred here fires with C{None}. After that, after
        L{stop} and after the function has ended, C{fp} is not called.

        @return: a Deferred of the item. Cancelling it takes the item out of the
            order, if it has not been made.
        @raise TypeError: if C{fp} cannot be called.
        """
        if not callable(fp):
            raise TypeError(f"{fp!r} cannot be called for an item: give a function")
        slot = _Slot(self._cancelled)
        if self._failure is not None or self._stage not in (_Stage.NEW, _Stage.RUNNING):
            slot.d.callback(None)
            return slot.d
        self._slots.append(slot)
        slot.making = maybeDeferred(fp, *args, **kw)
        slot.making.addCallbacks(self._made, self._failed, (slot,), {}, (slot,), {})
        return slot.d

    def stop(self) -> AwaitableDeferred[Any]:
        """
        Let the iterator end after the items that are being made.

        @return: a Deferred of what the function returns, or C{None} if it was
            not started. It fails as the first item that failed, or as the
            function.
        """
        d: AwaitableDeferred[Any] = AwaitableDeferred(self._waiting.remove)
        self._waiting.append(d)
        if self._stage is _Stage.NEW:
            self._over(None)
        elif self._stage is _Stage.OVER:
            self._tell()
        else:
            self._stage = _Stage.ENDING
            self._flush()
        return d

    def _made(self, item: Any, slot: _Slot) -> None:
        slot.item = item
        slot.state = _Item.MADE
        self._flush()
        if len(self.i) > self._maxAhead and self._stage is not _Stage.OVER:
            self._held.append(slot)
            self.i.callWhenLow(self._maxAhead, self._release)
        else:
            slot.d.callback(item)

    def _failed(self, failure: Failure, slot: _Slot) -> None:
        if slot.state is not _Item.CANCELLED:
            slot.state = _Item.FAILED
            if slot in self._slots and self._failure is None:
                self._failure = failure
            slot.d.callback(None)
        self._flush()

    def _cancelled(self, slot: _Slot) -> None:
        if slot.state is _Item.AWAITED:
            slot.state = _Item.CANCELLED
            if slot.making is not None:
                slot.making.cancel()
            self._flush()
        elif slot in self._held:
            self._held.remove(slot)

    def _flush(self) -> None:
        """
        Hand over the items whose turn it is, and end if they were the last.
        """
        while self._slots and self._slots[0].state is not _Item.AWAITED:
            slot = self._slots.popleft()
            if slot.state is _Item.MADE:
                self.i.put(slot.item)
            elif slot.state is _Item.FAILED:
                # What comes after it has no place any more.
                self._slots.clear()
        over = self._stage is _Stage.ENDING or self._failure is not None
        if over and not self._slots:
            self.i.end()

    def _release(self) -> None:
        while self._held and (len(self.i) <= self._maxAhead or self._stage is _Stage.OVER):
            slot = self._held.popleft()
            slot.d.callback(slot.item)
        if self._held:
            self.i.callWhenLow(self._maxAhead, self._release)

    def _over(self, outcome: Any) -> None:
        """
        Note that the function has ended, or will never begin.
        """
        self._stage = _Stage.OVER
        self._outcome = outcome if self._failure is None else self._failure
        self._slots.clear()
        self.i.drop()
        self._release()
        self._tell()

    def _tell(self) -> None:
        while self._waiting:
            self._waiting.pop(0).callback(self._outcome)


def _fire(d: Deferred[None]) -> None:
    # It may have been cancelled meanwhile.
    if not d.called:
        d.callback(None)
