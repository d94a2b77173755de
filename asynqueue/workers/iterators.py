"""
The iterators that calls returned, where the calls were made: in threads of a worker, which
advance them from the ends of the calls to their own; or in its child processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

from asynqueue.interfaces import ITask
from asynqueue.iteration.far import FarSource
from asynqueue.processes.process import ChildProcess
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
        Forget an iterator that has ended, or was closed. May be called in any thread.
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


class ChildIterators(HeldIterators):
    """
    The iterators of a worker that has child processes.
    """

    def __init__(
        self,
        children: Callable[[], Iterable[ChildProcess]],
        grace: float,
        name: Callable[[], str],
        callLater: Callable[[float, Callable[[], None]], Any],
        looked: Callable[[], None],
    ) -> None:
        """
        @param children: gives the children that are not gone.
        @param grace: the seconds that an iterator has to end, before its child is killed.
        @param name: names the worker, in errors.
        @param callLater: makes a call after some seconds; what it returns can be cancelled.
        @param looked: is called when it may be that no task has to be ended, or that no
            iterator is open any more.
        """
        super().__init__(
            lambda: [source for child in children() for source in child.calls.streams.values()],
            name,
            callLater,
            looked,
            self._end,
        )
        self._children = children
        self._grace = grace

    def _end(self, source: FarSource) -> None:
        """
        Have the child end an iterator that it does not come to close. It may be in the code
        of another one: if that is read, it is waited for.
        """
        for child in self._children():
            streams = list(child.calls.streams.items())
            isRead = any(other.sink is not None for _, other in streams)
            for number, other in streams:
                if other is source and not isRead:
                    child.calls.end(number, self._grace, "an iterator that nobody reads")
