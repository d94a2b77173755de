"""
What becomes of what a call returned: of an iterator a Deferator for the caller, or items
for a consumer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import AsyncGeneratorType
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure

from asynqueue.failures import caught
from asynqueue.interfaces import IItemSource, ITask
from asynqueue.iteration.deferator import Deferator
from asynqueue.iteration.producers import IterationProducer
from asynqueue.iteration.sources import AsyncIteratorSource, IteratorSource, isIterator
from asynqueue.outcome import shortRepr


def _inReactor(iterator: Iterator[Any], task: ITask) -> IItemSource:
    return IteratorSource(iterator)


class Deliveries:
    """
    The tasks of a worker whose calls have returned iterators, and that have not
    ended yet.

    Without a consumer a task ends with a Deferator, as soon as it is known
    whether there is any item. With one it ends when the consumer has had the
    last item. If it ends before (it is cancelled, or takes too long), the
    iterator is stopped.
    """

    def __init__(self, emptied: Callable[[], None]) -> None:
        """
        @param emptied: is called when the last of the tasks has ended.
        """
        self._emptied = emptied
        self._deferators: dict[ITask, Deferator] = {}

    def __len__(self) -> int:
        """
        Return how many such tasks there are.
        """
        return len(self._deferators)

    def end(
        self,
        task: ITask,
        value: Any,
        raw: bool,
        sourceOf: Callable[[Iterator[Any], ITask], IItemSource],
        window: int,
    ) -> None:
        """
        End a task with what its call returned, or with the items of that.

        @param raw: whether an iterator is returned as it is, where the call does not say.
        @param sourceOf: makes the source of an iterator's items, for a task. Asynchronous
            generators are advanced in the reactor.
        @param window: how many items may be under way at once.
        """
        own = task.options.raw
        source: IItemSource
        if value is None or (raw if own is None else own) or task.ended:
            task.callback(value)
            return
        if isIterator(value):
            source = sourceOf(value, task)
        elif type(value) is AsyncGeneratorType:
            source = AsyncIteratorSource(value)
        else:
            task.callback(value)
            return
        self.begin(task, source, shortRepr(value), window)

    def begin(self, task: ITask, source: IItemSource, representation: str, window: int) -> None:
        """
        End a task with the items of a source.
        """
        deferator = Deferator.fromSource(source, representation, window)
        self._deferators[task] = deferator
        consumer = task.options.consumer
        outcome: Deferred[Any]
        if consumer is None:
            outcome = deferator.deferUntilReady()
        else:
            try:
                outcome = IterationProducer(deferator, consumer).run()
            except BaseException as error:
                # Somebody's consumer, which does not want to be one: as its connection is
                # lost, for instance.
                deferator.stop()
                outcome = fail(caught(error))
        outcome.addBoth(self._ended, task)
        if task in self._deferators:
            task.d.addBoth(self._settled, task)

    def endHere(self, task: ITask, value: Any, raw: bool, window: int) -> None:
        """
        End a task as L{end} does. Iterators, too, are advanced in the reactor.
        """
        self.end(task, value, raw, _inReactor, window)

    def crash(self) -> list[ITask]:
        """
        Stop all iterators, and end none of the tasks.

        @return: the tasks.
        """
        deferators, self._deferators = self._deferators, {}
        for deferator in deferators.values():
            deferator.stop()
        return [task for task in deferators if not task.ended]

    def _ended(self, result: Any, task: ITask) -> None:
        """
        End the task with what there is to end it with, if it is still to be ended.
        """
        if self._deferators.pop(task, None) is None:
            return
        if isinstance(result, Failure):
            task.errback(result)
        else:
            task.callback(result)
        if not self._deferators:
            self._emptied()

    def _settled(self, result: Any, task: ITask) -> Any:
        """
        Stop the iteration of a task whose Deferred has fired, perhaps by something else.
        """
        deferator = self._deferators.pop(task, None)
        if deferator is not None:
            deferator.stop()
            if not self._deferators:
                self._emptied()
        return result
