"""
A worker that is nothing but its side towards the queue.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.task import Clock

from asynqueue.interfaces import ITask
from asynqueue.testing import MemoryTask
from asynqueue.workers.prefetch import Prefetch
from asynqueue.workers.window import Window


class Holder:
    """
    Holds tasks by numbers, and does what the test says.

    @ivar slots: more tasks than this are lined up.
    @ivar begun: the numbers of the tasks that cannot be taken back.
    @ivar asked: how often it was asked to let go.
    @ivar areOpen: whether iterators keep it from stopping.
    @ivar isGone: whether nothing is left of what runs its tasks.
    @ivar letGone: how often it was let go.
    """

    def __init__(self, slots: int = 1, most: int = 10, **options: Any) -> None:
        """
        @param options: those of L{Prefetch}.
        """
        self.ID: int | None = 3
        self.slots = slots
        self.clock = Clock()
        self.tasks = Prefetch(
            self, Window(slots, most), self.clock.callLater, slots=slots, **options
        )
        self.last = 0
        self.begun: set[int] = set()
        self.asked = 0
        self.areOpen = False
        self.isGone = False
        self.letGone = 0

    # What a worker does

    def run(self, task: ITask) -> Any:
        """
        Take a task, as a worker does.
        """
        tasks = self.tasks
        if len(tasks.held) >= tasks.window.size and tasks.turnsAway(task):
            return tasks.wait()
        self.last += 1
        tasks.held[self.last] = task
        return tasks.taken()

    def takeUnbegun(self) -> list[ITask]:
        held = self.tasks.held
        return [held.pop(number) for number in list(held) if number not in self.begun]

    def letGo(self) -> bool:
        self.asked += 1
        if self.areOpen:
            return False
        self.letGone += 1
        return True

    # What the test says

    def give(self, count: int) -> list[MemoryTask]:
        """
        Run some tasks, whether this is ready or not.
        """
        tasks = [MemoryTask(int) for _ in range(count)]
        for task in tasks:
            self.run(task)
        return tasks

    def end(self, number: int, seconds: float = 0.001) -> None:
        """
        End a task that has run for some seconds.
        """
        self.settle([number], lambda task: task.callback(number), seconds)

    def settle(self, numbers: list[int], end: Callable[[ITask], None], seconds: float) -> None:
        """
        Hold some tasks no more, and end them together.
        """
        tasks = self.tasks
        ended = [tasks.held.pop(number) for number in numbers]
        tasks.ended += len(ended)
        tasks.window.measured(len(ended), seconds * len(ended))
        for task in ended:
            end(task)
        tasks.checkReady()
        tasks.checkStopped()
