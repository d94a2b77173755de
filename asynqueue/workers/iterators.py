"""
What becomes of what calls returned that were made in threads of a worker: their iterators
are advanced in these threads, from the ends of the calls to their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from asynqueue.interfaces import ITask
from asynqueue.timers import later
from asynqueue.workers.held import HeldIterators
from asynqueue.workers.steps import Close, Step, ThreadSource, closeApart

# How many items of an iterator may be under way at once.
_WINDOW = 64


class ThreadIterators(HeldIterators):
    """
    The iterators of a worker that has threads.
    """

    def __init__(
        self,
        submit: Callable[[Step | Close], None],
        raw: bool,
        name: Callable[[], str],
        reactor: Callable[[], Any],
        looked: Callable[[], None],
    ) -> None:
        """
        @param submit: has a thread of the worker do a job. May be called in any thread.
        @param raw: whether iterators come back as they are, where the call does not say.
        @param name: names the worker, in errors.
        @param reactor: gives the reactor.
        @param looked: is called when it may be that no task has to be ended, or that no
            iterator is open any more.
        """
        super().__init__(
            lambda: self._open, name, lambda seconds, f: later(reactor(), seconds, f), looked
        )
        self._submit = submit
        self._raw = raw
        self._reactor = reactor
        self._open: dict[ThreadSource, None] = {}
        # Whether the worker waits until none is open.
        self._isAwaited = False

    def end(self, task: ITask, value: Any) -> None:
        """
        End a task with what its call returned, or with the items of that. A hot path.
        """
        self.deliveries.end(task, value, self._raw, self._sourceOf, _WINDOW)

    def _sourceOf(self, iterator: Iterator[Any], task: ITask) -> ThreadSource:
        reactor = self._reactor()
        closed = partial(self._closed, reactor)
        source = ThreadSource(self._submit, closed, task.context, iterator, reactor)
        self._open[source] = None
        return source

    def _closed(self, reactor: Any, source: ThreadSource) -> None:
        """
        An iterator has ended, or was closed. May be called in any thread.
        """
        self._open.pop(source, None)
        if self._isAwaited:
            reactor.callFromThread(self._looked)

    def wait(self, reason: str) -> bool:
        # Before the look at what is open: one may end in this moment.
        self._isAwaited = True
        return super().wait(reason)

    def stop(self) -> None:
        super().stop()
        self._isAwaited = False

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
