"""
The tasks of a process worker on their way to its child, and back.

::

    give, giveFirst ─▶ lineUp ─▶ a child takes calls: ProcessCalls.make
                         │
                         └─▶ Prefetch.waiting, until the supervisor has a child
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from asynqueue.interfaces import ITask
from asynqueue.processes.process import ChildProcess
from asynqueue.processes.supervisor import Supervisor
from asynqueue.workers.prefetch import Prefetch
from asynqueue.workers.window import Window

# An urgent task does not wait behind more work than this, besides what runs.
_SHORT_SECONDS = 0.0005

# What is ended that was cancelled, in words.
_CANCELLED = "a cancelled task"


class ChildTasks:
    """
    Gives the tasks of a worker to its child, and takes them back.
    """

    def __init__(
        self, tasks: Prefetch[Window], supervisor: Supervisor, raw: bool, grace: float
    ) -> None:
        """
        @param tasks: what the worker holds, by the tasks themselves.
        @param raw: whether iterators are pickled as they are, where the call does not say.
        @param grace: the seconds that a task has to end that was cancelled.
        """
        self._tasks = tasks
        self._supervisor = supervisor
        self._raw = raw
        self._grace = grace

    def give(self, task: ITask) -> None:
        """
        Have the call of a task made in its turn, which may be the first, and when there is a child
        for it.
        """
        tasks = self._tasks
        if task.options.doNext and (
            tasks.waiting or (len(tasks.held) + 1) * tasks.window.mean > _SHORT_SECONDS
        ):
            self._giveFirst(task)
        else:
            self.lineUp((task,))

    def lineUp(self, tasks: Iterable[ITask]) -> None:
        """
        Give tasks to a child while one takes them; the others wait until one does. What may
        have ended a child has the next one for itself.
        """
        supervisor = self._supervisor
        for task in tasks:
            if task.tries and supervisor.child is not None and supervisor.child.calls.held:
                supervisor.reserve()
            child = supervisor.child
            if child is None:
                self._tasks.waiting[task] = None
                continue
            self.make(child, task)
            if task.tries and child.calls.held:
                supervisor.reserve()
        if self._tasks.waiting:
            supervisor.fill()

    def _giveFirst(self, task: ITask) -> None:
        """
        Have the call of a task made before those that have not begun.
        """
        others = [*self.takeBack(reserved=False), *self._tasks.takeWaiting()]
        urgent = [other for other in others if other.options.doNext]
        rest = [other for other in others if not other.options.doNext]
        self.lineUp((*urgent, task, *rest))

    def make(self, child: ChildProcess, task: ITask) -> None:
        """
        Have the child make the call of a task. A hot path.
        """
        calls = child.calls
        if not calls.held and calls.isUp and task.watched:
            task.begin()
        held = self._tasks.held
        held[task] = task
        try:
            f, args, kw = task.callTuple
            raw = task.options.raw
            calls.make(task, f, args, kw, self._raw if raw is None else raw)
        except BaseException as error:
            # Somebody's objects: whatever their pickling raises, and does.
            if held.pop(task, None) is not None:
                self._tasks.cannotSend(task, error)
        else:
            if self._supervisor.isLimited:
                self._supervisor.given(child)

    def takeBack(self, reserved: bool = True) -> list[ITask]:
        """
        Take back the tasks that children have not begun, and hold them no more.

        @param reserved: see L{Supervisor.takeBack}.
        @return: the tasks, in order.
        """
        tasks: list[ITask] = self._supervisor.takeBack(reserved)
        for task in tasks:
            del self._tasks.held[task]
        return tasks

    def handBack(self, tasks: Iterable[ITask]) -> None:
        """
        Let others have tasks that no child has begun or will; without a queue, keep them.
        """
        for task in tasks:
            self._tasks.held.pop(task, None)
        self.lineUp(self._tasks.handBack(tasks))

    def end(self, task: Any) -> None:
        """
        End the run of a task that has its outcome already, or take it back.
        """
        tasks = self._tasks
        found = self._supervisor.children.find(task)
        if found is not None:
            child, number = found
            others: Sequence[ITask] = ()
            if not child.calls.hasBegun(number):
                others = [other for other in tasks.takeBack() if other is not task]
            if task in tasks.held:
                # It has begun, if only in this moment.
                child.calls.end(number, self._grace, _CANCELLED)
            self.handBack(others)
        else:
            # It waits, or its child is gone, and what that held is about to be settled.
            tasks.held.pop(task, None)
            tasks.waiting.pop(task, None)
        tasks.checkReady()
        tasks.checkStopped()
