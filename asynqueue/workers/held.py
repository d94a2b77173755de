"""
What becomes of iterators that calls returned, as the worker that advances them stops.

An iterator keeps its worker from stopping for as long as somebody reads it. One that
nobody reads is closed soon, and its reader, should there be one after all, is told.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, Protocol

from twisted.python.failure import Failure

from asynqueue.errors import OPEN_ITERATOR, WorkerLost
from asynqueue.interfaces import IItemSink
from asynqueue.timers import Timer
from asynqueue.workers.delivery import Deliveries

#: When a worker stops, an iterator is closed if nobody takes an item from it for this many
#: seconds.
IDLE_SECONDS = 2.0


class HeldSource(Protocol):
    """
    An open iterator, as the worker that advances it sees it.

    @ivar sink: where its items go; C{None} once nobody wants any.
    """

    @property
    def sink(self) -> IItemSink | None: ...

    def fail(self, failure: Failure) -> None:
        """
        Close the iterator, and end the iteration with a failure. What has come of it can
        still be taken.
        """


class HeldIterators:
    """
    The open iterators of a worker, as it stops or crashes.

    @ivar deliveries: the tasks that have not ended, though their calls have returned.
    """

    def __init__(
        self,
        sources: Callable[[], Collection[HeldSource]],
        name: Callable[[], str],
        callLater: Callable[[float, Callable[[], None]], Any],
        looked: Callable[[], None],
        insist: Callable[[Any], None] = lambda source: None,
    ) -> None:
        """
        @param sources: gives the iterators that are open.
        @param name: names the worker, in errors.
        @param callLater: makes a call after some seconds; what it returns can be cancelled.
        @param looked: is called when it may be that none is open any more, and when the last
            of the deliveries has ended.
        @param insist: is called with a source that was closed, and has not ended in the time
            after which one is closed: its code may never come to that.
        """
        self.deliveries = Deliveries(looked)
        self._sources = sources
        self._name = name
        self._looked = looked
        self._insist = insist
        self._timer = Timer(callLater)
        self._reason = ""
        # How many items had been taken from each, when that was seen last.
        self._seen: dict[HeldSource, int] = {}

    def wait(self, reason: str) -> bool:
        """
        From now on close those that nobody reads.

        @param reason: why they must end, in words.
        @return: whether one is open, or a task has not ended. If so, C{looked} is called
            later, and is to ask again.
        """
        if self.deliveries:
            return True
        if not self._sources():
            self.stop()
            return False
        if not self._timer.isRunning:
            self._reason = f"{reason}, and nobody took an item for {IDLE_SECONDS:g} s"
            self._seen = {source: _taken(source) for source in self._sources()}
            self._timer.start(IDLE_SECONDS, self._look)
        return True

    def stop(self) -> None:
        """
        Look no more.
        """
        self._timer.stop()
        self._seen.clear()

    def fail(self, reason: str) -> None:
        """
        Close all at once.

        @param reason: why, in words.
        """
        failure = self._lost(reason)
        for source in list(self._sources()):
            source.fail(failure)

    def _look(self) -> None:
        # The reactor may have been held up, and readers with it: they have their turn first.
        if self._unread():
            self._timer.start(0, self._close)
        else:
            self._looked()

    def _close(self) -> None:
        for source in self._unread():
            if source.sink is None:
                self._insist(source)
            else:
                source.fail(self._lost(self._reason))
        self._looked()

    def _unread(self) -> list[HeldSource]:
        """
        Find those from which nothing was taken since that was seen last.
        """
        return [
            source
            for source in self._sources()
            if self._seen.get(source) == _taken(source)
            and not (source.sink is not None and source.sink.isAwaited)
        ]

    def _lost(self, reason: str) -> Failure:
        return Failure(WorkerLost(OPEN_ITERATOR, self._name(), reason=reason))


def _taken(source: HeldSource) -> int:
    """
    Return how many items were taken; -1 if nobody wants any.
    """
    return -1 if source.sink is None else source.sink.consumed
