"""
What becomes of what calls returned that were made in threads of a worker: their iterators
are advanced in these threads, from the ends of the calls to their own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from asynqueue.interfaces import ITask
from asynqueue.timers import later
from asynqueue.workers.delivery import Deliveries
from asynqueue.workers.held import HeldIterators
from asynqueue.workers.steps import StepRunner, ThreadSource, closeApart

# How many items of an iterator may be under way at once.
_WINDOW = 64


class ThreadIterators:
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
        self._runner = runner
        self._raw = raw
        self._reactor = reactor
        self._open: dict[ThreadSource, None] = {}
        self._deliveries = Deliveries(looked)
        self._held = HeldIterators(
            lambda: self._open, name, lambda seconds, f: later(reactor(), seconds, f), looked
        )

    @property
    def isDelivering(self) -> bool:
        """
        Whether there is a task that has not ended, though its call has returned.
        """
        return bool(self._deliveries)

    def end(self, task: ITask, value: Any) -> None:
        """
        End a task with what its call returned, or with the items of that.
        """

        def sourceOf(iterator: Any) -> ThreadSource:
            source = ThreadSource(self._runner, task.context, iterator, self._reactor())
            self._open[source] = None
            return source

        self._deliveries.end(task, value, self._raw, sourceOf, _WINDOW)

    def closed(self, source: ThreadSource) -> None:
        """
        An iterator has ended, or was closed. May be called in any thread.
        """
        self._open.pop(source, None)

    def wait(self, reason: str) -> bool:
        """
        See L{HeldIterators.wait}.
        """
        return self._held.wait(reason)

    def stop(self) -> None:
        """
        See L{HeldIterators.stop}.
        """
        self._held.stop()

    def fail(self, reason: str) -> None:
        """
        See L{HeldIterators.fail}.
        """
        self._held.fail(reason)

    def crash(self, running: int, threads: int) -> list[ITask]:
        """
        Stop all iterators, and end none of the tasks.

        @param running: how many calls run.
        @param threads: how many threads there are for these and for the iterators.
        @return: the tasks.
        """
        sources = list(self._open)
        running += sum(source.isStepping for source in sources)
        self._held.stop()
        left = self._deliveries.crash()
        self._held.fail("it crashed")
        if running >= threads:
            closeApart(sources)
        return left
