"""
A function over many arguments, a bounded number of calls ahead.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from zope.interface import implementer

from asynqueue.interfaces import IItemSink, IItemSource


class _Slot:
    """
    The place of one result.
    """

    __slots__ = ("d", "filled", "result")

    def __init__(self) -> None:
        self.d: Deferred[Any] | None = None
        self.filled = False
        self.result: Any = None


@implementer(IItemSource)
class MapSource:
    """
    Makes a call for each item of an iterable, as far as there is credit, and
    hands the results on: in the order of the items, or as they come.

    A call that fails fails its own item only. An iterable that raises fails one
    more item, the last.
    """

    def __init__(
        self, call: Callable[[Any], Deferred[Any]], iterable: Iterable[Any], ordered: bool
    ) -> None:
        """
        @param call: makes one call.
        @param iterable: what to call it with; taken from in the reactor's thread.
        @param ordered: whether results keep the order of the items.
        """
        self._call = call
        self._iterator: Iterator[Any] | None = iter(iterable)
        self._ordered = ordered
        self._sink: IItemSink | None = None
        self._credit = 0
        self._slots: deque[_Slot] = deque()
        self._pending: dict[_Slot, None] = {}
        self._advancing = False

    def connect(self, sink: IItemSink) -> None:
        self._sink = sink

    def grant(self, count: int) -> None:
        self._credit += count
        self._advance()

    def stop(self) -> None:
        """
        Cancels the calls that are under way.
        """
        self._sink = None
        self._closeIterator()
        self._slots.clear()
        while self._pending:
            slot = self._pending.popitem()[0]
            if slot.d is not None:
                slot.d.cancel()

    def _advance(self) -> None:
        """
        Make calls and hand on results until neither can be done.

        Calls that end at once, and sinks that grant at once, end up here again:
        they are seen by the loop that is running.
        """
        if self._advancing:
            return
        self._advancing = True
        while self._fill() or self._flush():
            pass
        self._advancing = False
        if self._iterator is None and not self._slots and not self._pending:
            sink, self._sink = self._sink, None
            if sink is not None:
                sink.finish()

    def _fill(self) -> bool:
        """
        Make the next call, if there is credit and an item.
        """
        if self._credit <= 0 or self._iterator is None:
            return False
        self._credit -= 1
        slot = _Slot()
        # Taken away meanwhile: the iterable may stop this.
        iterator, self._iterator = self._iterator, None
        try:
            item = next(iterator)
        except StopIteration:
            return True
        except Exception:
            # The seam to the user's iterable: it is an outcome like another.
            self._slots.append(slot)
            self._filled(Failure(), slot)
            return True
        self._iterator = iterator
        if self._sink is None:
            self._closeIterator()
            return False
        self._pending[slot] = None
        if self._ordered:
            self._slots.append(slot)
        try:
            slot.d = self._call(item)
        except Exception:
            # The queue takes no calls any more, and will take none later.
            self._closeIterator()
            self._ended(Failure(), slot)
        else:
            slot.d.addBoth(self._ended, slot)
            if self._sink is None and slot.d is not None:
                # What ran within the call stopped this.
                slot.d.cancel()
        return True

    def _ended(self, result: Any, slot: _Slot) -> None:
        if self._pending.pop(slot, self) is self:
            # It was cancelled, and nobody waits for it.
            return
        if not self._ordered:
            self._slots.append(slot)
        self._filled(result, slot)

    def _filled(self, result: Any, slot: _Slot) -> None:
        slot.d = None
        slot.result = result
        slot.filled = True
        self._advance()

    def _flush(self) -> bool:
        """
        Hand on the results whose turn it is.
        """
        slots = self._slots
        some = False
        while slots and slots[0].filled and self._sink is not None:
            some = True
            items = []
            failure = None
            while slots and slots[0].filled and failure is None:
                result = slots.popleft().result
                if isinstance(result, Failure):
                    failure = result
                else:
                    items.append(result)
            if items:
                self._sink.receive(items)
            if failure is not None and self._sink is not None:
                self._sink.receiveFailure(failure)
        return some

    def _closeIterator(self) -> None:
        iterator, self._iterator = self._iterator, None
        # Only generators have a close() that means this; other iterators, such as
        # files, are their owner's.
        if isinstance(iterator, Generator):
            iterator.close()
