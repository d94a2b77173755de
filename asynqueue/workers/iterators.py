"""
What becomes of what calls returned that were made in threads of a worker: their iterators
are advanced in these threads, from the ends of the calls to their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from asynqueue.interfaces import ITask
from asynqueue.timers import later
from asynqueue.workers.held import HeldIterators
from asynqueue.workers.steps import StepRunner, ThreadSource, closeApart

# How many items of an iterator may be under way at once.
_WINDOW = 64


class ThreadIterators(HeldIterators):
    """
    The iterators of a worker that has threads.
    """

    def __init__(
        self,
        runner: StepRunner,
        raw: bool,
        name: Callable[[], str],
        reactor: Callable[[], Any],
        looked: Callable[[], None],
    ) -> None:
        """
        @param runner: the worker.
        @param raw: whether iterators come back as they are, where the call does not say.
        @param name: names the worker, in errors.
        @param reactor: gives the reactor.
        @param looked: is called when it may be that no task has to be ended, or that no
            iterator is open any more.
        """
        super().__init__(
            lambda: self._open, name, lambda seconds, f: later(reactor(), seconds, f), looked
        )
        self._runner = runner
        self._raw = raw
        self._reactor = reactor
        self._open: dict[ThreadSource, None] = {}

    def end(self, task: ITask, value: Any) -> None:
        """
        End a task with what its call returned, or with the items of that. A hot path.
        """
        self.deliveries.end(task, value, self._raw, self._sourceOf, _WINDOW)

    def _sourceOf(self, iterator: Iterator[Any], task: ITask) -> ThreadSource:
        source = ThreadSource(self._runner, task.context, iterator, self._reactor())
        self._open[source] = None
        return source

    def closed(self, source: ThreadSource) -> None:
        """
        An iterator has ended, or was closed. May be called in any thread.
        """
        self._open.pop(source, None)

    def crash(self, running: int, threads: int) -> list[ITask]:
        """
        Stop all iterators, and end none of the tasks.

        @param running: how many calls run.
        @param threads: how many threads there are for these and for the iterators.
        @return: the tasks.
        """
        sources = list(self._open)
        running += sum(source.isStepping for source in sources)
        self.stop()
        left = self.deliveries.crash()
        self.fail("it crashed")
        if running >= threads:
            closeApart(sources)
        return left
