"""
The results of a map, until they are handed on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred

from asynqueue.mapping.chunker import Batch


class SingleCall:
    """
    An item that travels by itself: a L{Batch} without what chunks need.
    """

    __slots__ = ("d", "failing", "items", "keys", "results")

    def __init__(self, items: list[Any], keys: Sequence[Any]) -> None:
        self.d: Deferred[Any] | None = None
        self.failing = False
        self.items = items
        self.keys = keys
        self.results: list[Any] = []


class Results:
    """
    Keeps results until it is their turn: in the order of the items, or as they come.
    """

    def __init__(self, ordered: bool) -> None:
        """
        @param ordered: whether they keep the order of the items.
        """
        self._ordered = ordered
        # In the order of the items, what was not taken; or, if that does not matter, the results.
        self._order: deque[Batch | SingleCall] = deque()
        self._loose: list[Any] = []
        # Whether there may be failures among these.
        self._looseFailing = False

    def __bool__(self) -> bool:
        """
        Tell whether there are results, or items that have none yet and whose turn comes.
        """
        return bool(self._order or self._loose)

    def expect(self, batch: Batch | SingleCall) -> None:
        """
        Have the next turn for the results of a batch. A hot path.
        """
        if self._ordered:
            self._order.append(batch)

    def divide(self, batch: Batch, rest: Batch) -> None:
        """
        Have a turn for the last items of a batch, which are another batch now, after the others.
        """
        if self._ordered:
            self._order.insert(self._order.index(batch) + 1, rest)

    def add(self, batch: Batch | SingleCall, results: list[Any], failing: bool) -> None:
        """
        Keep results of a batch, with its keys if it has some. A hot path.

        @param failing: whether there may be failures among them.
        """
        if batch.keys:
            count = len(results)
            results = list(zip(batch.keys[:count], results, strict=True))
            batch.keys = batch.keys[count:]
            failing = False
        if self._ordered:
            batch.results += results
            batch.failing |= failing
        else:
            self._loose += results
            self._looseFailing |= failing

    def take(self) -> tuple[list[Any], bool]:
        """
        Take the results whose turn it is. A hot path.

        @return: them, and whether there may be failures among them.
        """
        if not self._ordered:
            ready, self._loose = self._loose, []
            failing, self._looseFailing = self._looseFailing, False
            return ready, failing
        ready = []
        failing = False
        order = self._order
        while order:
            batch = order[0]
            if batch.results:
                ready += batch.results
                failing |= batch.failing
                batch.results = []
                batch.failing = False
            if batch.items:
                break
            order.popleft()
        return ready, failing

    def clear(self) -> None:
        """
        Drop all.
        """
        self._order.clear()
        self._loose.clear()
