"""
When something is due for tasks: for those that begin later, and for those that expire.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Any

from asynqueue.scheduling.task import Task
from asynqueue.timers import Timer, later

# The most seconds for which a timer of the reactor is set: reactors cannot wait for ever.
_LONGEST = 3600.0

# The entries of tasks that were taken out that may lie there before it is worth a look.
_DEAD_ENOUGH = 64

_order = count()


class Timetable:
    """
    Tasks, each with a time: a heap, and one timer of the reactor for all.

    A task that is taken out leaves its entry, without the task, until that comes to the top,
    or until such entries are the larger part.
    """

    def __init__(self, reactor: Callable[[], Any], due: Callable[[Task], None]) -> None:
        """
        @param reactor: gives the reactor, when it is needed.
        @param due: is called with a task as its time has come. The task is taken out then.
        """
        self._reactor = reactor
        self._due = due
        self._entries: dict[Task, list[Any]] = {}
        self._heap: list[list[Any]] = []
        self._timer = Timer(lambda seconds, f: later(reactor(), seconds, f))

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, task: Task) -> bool:
        return task in self._entries

    def __iter__(self) -> Iterator[Task]:
        return iter(list(self._entries))

    def add(self, task: Task, seconds: float) -> None:
        """
        Put in a task, whose time is C{seconds} from now.
        """
        entry = self._entries[task] = [self._reactor().seconds() + seconds, next(_order), task]
        heappush(self._heap, entry)
        if self._heap[0] is entry:
            self._start()

    def discard(self, task: Task) -> None:
        """
        Take out a task, if it is there.
        """
        entry = self._entries.pop(task, None)
        if entry is None:
            return
        entry[2] = None
        if not self._entries:
            self._heap.clear()
            self._timer.stop()
        elif len(self._heap) > 2 * len(self._entries) + _DEAD_ENOUGH:
            self._heap = [entry for entry in self._heap if entry[2] is not None]
            heapify(self._heap)

    def remaining(self, task: Task) -> float:
        """
        Return how many seconds from now the time of a task is. The task is there.
        """
        left: float = self._entries[task][0] - self._reactor().seconds()
        return max(0.0, left)

    def _start(self) -> None:
        left = self._heap[0][0] - self._reactor().seconds()
        self._timer.start(min(max(0.0, left), _LONGEST), self._ring)

    def _ring(self) -> None:
        now = self._reactor().seconds()
        while self._heap and (self._heap[0][2] is None or self._heap[0][0] <= now):
            _, _, task = heappop(self._heap)
            if task is not None:
                del self._entries[task]
                self._due(task)
        # What was due may have put in another one.
        if self._heap and not self._timer.isRunning:
            self._start()
