"""
When the queue of a host begins calls.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from asynqueue.interfaces import ITask, IWorker
from asynqueue.scheduling.observers import QueueObserver
from asynqueue.taskqueue import TaskQueue


class Beginnings(QueueObserver):
    """
    Tells when a queue begins the calls whose beginning is watched.

    It observes the queue only while there are such calls: that costs something for each
    call that the queue is given.
    """

    def __init__(self, queue: TaskQueue, begun: Callable[[int], None]) -> None:
        """
        @param begun: is called with the number of a call that begins, once for each.
        """
        self._queue = queue
        self._begun = begun
        self._numbers: dict[Any, int] = {}
        self._next: int | None = None
        self._observing = False

    def expect(self, number: int | None) -> None:
        """
        The call that is given to the queue next has this number: it may begin as it is
        given. With C{None}, none is to be watched: it was not given.
        """
        if number is not None and not self._observing:
            self._observing = True
            self._queue.addObserver(self)
        self._next = number

    def expects(self, d: Any) -> bool:
        """
        Whether the call that has this Deferred is watched, and has not begun.
        """
        return d in self._numbers

    def rest(self) -> None:
        """
        Observe no more, if nothing is watched. An observer itself must not say so.
        """
        if self._observing and not self._numbers:
            self.stop()

    def stop(self) -> None:
        """
        Observe no more.
        """
        if self._observing:
            self._observing = False
            self._numbers.clear()
            self._queue.removeObserver(self)

    def taskQueued(self, task: ITask) -> None:
        """
        The Deferred of the task is the same for all attempts to make the call.
        """
        if self._next is not None:
            self._numbers[task.d] = self._next
            self._next = None

    def taskBegun(self, task: ITask, worker: IWorker) -> None:
        number = self._numbers.pop(task.d, None)
        if number is not None:
            self._begun(number)

    def taskDone(self, task: ITask, outcome: Any, worker: IWorker | None) -> None:
        self._numbers.pop(task.d, None)
