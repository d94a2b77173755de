"""
The beginning and the end of a durable queue.
"""

from __future__ import annotations

from enum import Enum
from typing import Any

from twisted.internet.defer import Deferred, DeferredList, maybeDeferred, succeed
from twisted.internet.interfaces import IReactorCore
from twisted.python.failure import Failure

from asynqueue.durable.feeding import Feed
from asynqueue.errors import QueueRunError
from asynqueue.reactors import theReactor
from asynqueue.stores.interfaces import IStore
from asynqueue.taskqueue import TaskQueue

# How long outcomes that cannot be stored are waited for, where jobs have any time to end.
_PATIENCE = 10.0


class Life(Enum):
    """
    How far a durable queue is.
    """

    IDLE = "not started"
    STARTING = "gets ready"
    RUNNING = "serves"
    STOPPING = "ends what it has"
    STOPPED = "has ended"


class Lifetime:
    """
    Opens a store and has it feed a queue, and ends that.

    @ivar state: see L{Life}.
    """

    def __init__(
        self, store: IStore, tasks: TaskQueue, feed: Feed, grace: float | None, reactor: Any
    ) -> None:
        """
        @param grace: how many seconds outcomes have to be stored at the end.
        """
        self.state = Life.IDLE
        self._store = store
        self._tasks = tasks
        self._feed = feed
        self._grace = grace
        self._reactor = reactor
        # Fires when a start has succeeded or failed.
        self._starting: Deferred[Any] = succeed(None)
        self._waiting: list[Deferred[None]] = []
        self._trigger: Any = None

    def start(self) -> Deferred[None]:
        """
        Open the store, take over what dead programs have left, and begin.

        @raise QueueRunError: it was started, or stopped.
        """
        if self.state is not Life.IDLE or not self._tasks.isRunning():
            raise QueueRunError("start() of a queue that runs, or has been stopped")
        self.state = Life.STARTING
        reactor = theReactor(self._reactor)
        if IReactorCore.providedBy(reactor):
            self._trigger = reactor.addSystemEventTrigger("before", "shutdown", self._reactorStops)
        started: Deferred[None] = Deferred()
        d: Deferred[Any] = self._store.open()
        d.addCallback(lambda _: self._feed.start())
        d.addCallbacks(self._started, self._notStarted)
        self._starting = d.addCallbacks(started.callback, started.errback)
        return started

    def _started(self, _: Any) -> None:
        if self.state is Life.STARTING:
            self.state = Life.RUNNING

    def _notStarted(self, failure: Failure) -> Any:
        if self.state is not Life.STARTING:
            return failure
        closed: Deferred[Any] = self._store.close()

        def isClosed(_: Any) -> Failure:
            if self.state is Life.STARTING:
                self.state = Life.IDLE
                self._forgetTrigger()
            return failure

        return closed.addCallback(isClosed)

    def stop(self) -> Deferred[None]:
        """
        End, once; each time it is asked for, a Deferred fires when that is done.
        """
        stopped: Deferred[None] = Deferred()
        if self.state is Life.STOPPED:
            stopped.callback(None)
            return stopped
        self._waiting.append(stopped)
        if self.state is Life.STOPPING:
            return stopped
        state, self.state = self.state, Life.STOPPING
        if state is Life.IDLE:
            d = maybeDeferred(self._tasks.shutdown)
        else:
            if state is Life.STARTING:
                # It may be that it cannot be opened for long.
                self._store.close()
            d = self._starting
            d.addBoth(lambda _: self._end())
        d.addBoth(self._stopped)
        return stopped

    def _end(self) -> Deferred[Any]:
        feed, tasks = self._feed, self._tasks
        feed.close()
        # Those that workers have and have not begun come back to the queue, and none gets them.
        left = [tasks.detachWorker(worker, reassign=True) for worker in tasks.workers()]
        feed.withdraw()
        d: Deferred[Any] = DeferredList(left, consumeErrors=True)
        d.addBoth(lambda _: feed.withdraw())
        d.addBoth(lambda _: tasks.shutdown())
        d.addBoth(lambda _: self._settled())
        d.addBoth(lambda _: self._left())
        return d

    def _settled(self) -> Deferred[Any]:
        """
        Wait until all outcomes are stored, if that does not take longer than the grace.
        """
        settled: Deferred[Any] = self._feed.settle()
        patience = _PATIENCE if self._grace is None else self._grace
        settled.addTimeout(patience, theReactor(self._reactor))
        return settled.addErrback(lambda failure: None)

    def _left(self) -> Deferred[Any]:
        """
        Leave the store. That it comes back is seen to by its closing only.
        """
        left = self._feed.stop()
        return DeferredList([left, self._store.close()], consumeErrors=True)

    def _stopped(self, _: Any) -> None:
        self._feed.results.stop("the result of job")
        self.state = Life.STOPPED
        self._forgetTrigger()
        waiting, self._waiting = self._waiting, []
        for d in waiting:
            d.callback(None)

    def _reactorStops(self) -> Deferred[None]:
        # What calls this is not to be removed any more.
        self._trigger = None
        return self.stop()

    def _forgetTrigger(self) -> None:
        if self._trigger is not None:
            trigger, self._trigger = self._trigger, None
            theReactor(self._reactor).removeSystemEventTrigger(trigger)
