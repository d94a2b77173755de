"""
An iterator that lives in threads: it is advanced there, step by step, and its
items go to the reactor in batches.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from contextvars import Context
from math import inf
from threading import Lock, Thread
from time import perf_counter
from types import GeneratorType
from typing import Any

from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from asynqueue.failures import caught
from asynqueue.interfaces import IItemSink, IItemSource
from asynqueue.timers import later
from asynqueue.workers.window import AHEAD_SECONDS

_log = Logger()

# The seconds after which a thread that advances an iterator hands over what it has.
_STEP_SECONDS = AHEAD_SECONDS


class Step:
    """
    An iterator in the hands of a thread, for some items.
    """

    __slots__ = ("_count", "_end", "_source", "failure", "finished", "items")

    def __init__(self, source: ThreadSource, count: int) -> None:
        self._source = source
        self._count = count
        # When a thread hands over what it has; it has not begun as long as this is infinite.
        self._end = inf
        self.items: deque[Any] = deque()
        self.finished = False
        self.failure: Failure | None = None

    def do(self, put: Callable[[Any], None]) -> None:
        """
        Advance the iterator. Runs in a thread.
        """
        self._source.advance(self._take)
        put(self)

    def _take(self, iterator: Iterator[Any]) -> None:
        end = self._end = perf_counter() + _STEP_SECONDS
        try:
            for _ in range(self._count):
                self.items.append(next(iterator))
                if perf_counter() > end:
                    break
        except StopIteration:
            self.finished = True
        except BaseException as error:
            # The seam to user code, as for a task: an exit is an outcome.
            self.failure = caught(error)
            self.finished = True

    @property
    def isLate(self) -> bool:
        """
        Whether the next item that is made ends the step.
        """
        return perf_counter() > self._end

    def taken(self) -> list[Any]:
        """
        Return the items so far, each of them once. Runs in the reactor, also while a thread adds to
        them.
        """
        take = self.items.popleft
        return [take() for _ in range(len(self.items))]

    def done(self) -> None:
        """
        Hand the items on. Runs in the reactor.
        """
        self._source.stepped(self)

    def refused(self, failure: Failure) -> None:
        """
        Give up: no thread will do it.
        """
        self.failure = failure
        self.finished = True
        self.done()


class Close:
    """
    A generator to be closed by a thread, as it ran there.
    """

    __slots__ = ("_source",)

    def __init__(self, source: ThreadSource) -> None:
        self._source = source

    def do(self, put: Callable[[Any], None]) -> None:
        """
        Close it. Runs in a thread.
        """
        self._source.close()

    def refused(self, failure: Failure) -> None:
        """
        Leave it to the garbage collector to close it: no thread will.
        """
        self._source.iterator = None


def closeApart(sources: Iterable[ThreadSource]) -> None:
    """
    Close iterators that were stopped, each in a thread of its own: those which should do
    that are in other code, and nobody knows for how long.
    """
    # Without room for more threads they wait for those that are busy.
    with suppress(Exception):
        for source in sources:
            name = "asynqueue closes an iterator"
            Thread(target=source.close, name=name, daemon=True).start()


@implementer(IItemSource)
class ThreadSource:
    """
    An iterator that threads advance, one at a time, as far as it has credit.

    @ivar iterator: C{None} once it has ended, or was closed.
    @ivar sink: where its items go; C{None} once nobody wants any.
    @ivar isStepping: whether a thread advances the iterator, or is to.
    """

    def __init__(
        self,
        submit: Callable[[Step | Close], None],
        ended: Callable[[ThreadSource], None],
        context: Context,
        iterator: Iterator[Any],
        reactor: Any,
    ) -> None:
        """
        @param submit: has a thread do a job, before any task. May be called in any thread.
        @param ended: is called when the iterator has ended, or was closed, in any thread.
        @param context: the context variables that the iterator runs with.
        @param reactor: the reactor of those threads.
        """
        self._submit = submit
        self._ended = ended
        self._reactor = reactor
        self._context = context
        self.iterator: Iterator[Any] | None = iterator
        self.sink: IItemSink | None = None
        self.isStepping = False
        self._isStopped = False
        # Is held by the thread that is in the code of the iterator.
        self._inUse = Lock()
        self._credit = 0
        self._early: Any = None

    def connect(self, sink: IItemSink) -> None:
        self.sink = sink

    def grant(self, count: int) -> None:
        self._credit += count
        self._step()

    def stop(self) -> None:
        """
        May be called in any thread: the garbage collector calls it, too.
        """
        self.sink = None
        self._isStopped = True
        if self.iterator is not None:
            self._submit(Close(self))
            if not self.isStepping:
                self._ended(self)

    def advance(self, take: Callable[[Iterator[Any]], None]) -> None:
        """
        Have items taken from the iterator. Runs in a thread.
        """
        with self._inUse:
            iterator = self.iterator
            if iterator is not None and not self._isStopped:
                self._context.run(take, iterator)
        if self._isStopped:
            self.close()

    def close(self) -> None:
        """
        Close the iterator, if it is a generator, and nobody will have it advanced any more.
        Runs in a thread; if another one advances it at this moment, that one closes it.
        """
        if not self._inUse.acquire(blocking=False):
            return
        try:
            iterator, self.iterator = self.iterator, None
            if type(iterator) is GeneratorType:
                self._context.run(iterator.close)
        except BaseException:
            # The seam to user code: nobody is left who could be told.
            _log.failure("closing an iterator failed")
        finally:
            self._inUse.release()

    def fail(self, failure: Failure) -> None:
        """
        End the iteration from this side.
        """
        sink = self.sink
        self.stop()
        if sink is not None:
            sink.receiveFailure(failure)
            sink.finish()

    def stepped(self, step: Step) -> None:
        """
        Hand on the items of a step that is done, and go on if there is credit.
        """
        self.isStepping = False
        if self._early is not None:
            self._early.cancel()
            self._early = None
        items = step.taken()
        self._credit -= len(items)
        if step.finished:
            self.iterator = None
        if step.finished or self._isStopped:
            self._ended(self)
        sink = self.sink
        if sink is None:
            return
        if items:
            sink.receive(items)
        if step.failure is not None:
            sink.receiveFailure(step.failure)
        if step.finished:
            sink.finish()
        else:
            self._step()

    def _step(self) -> None:
        if self._credit > 0 and not self.isStepping and self.iterator is not None:
            self.isStepping = True
            step = Step(self, self._credit)
            self._submit(step)
            # An item that comes later than this ends the step; those before it
            # must not wait until it comes.
            if self.isStepping:
                self._lookLater(step, 2 * _STEP_SECONDS)

    def _lookLater(self, step: Step, seconds: float) -> None:
        self._early = later(self._reactor, seconds, self._takeEarly, step, seconds)

    def _takeEarly(self, step: Step, seconds: float) -> None:
        """
        Hand on what a step has so far that takes its time. If the thread came to it late, or has
        not come to it yet, look again later.
        """
        self._early = None
        # First this: what is made between the two is not lost.
        isLate = step.isLate
        items = step.taken()
        if self.sink is not None and not isLate:
            self._lookLater(step, 2 * seconds)
        self._credit -= len(items)
        if items and self.sink is not None:
            self.sink.receive(items)
