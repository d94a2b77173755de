"""
The end of a queue: when it is asked for, when the calls that there are have been made, or with
its reactor.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.internet.interfaces import IReactorCore

from asynqueue.awaitable import AwaitableDeferred
from asynqueue.interfaces import IWorker
from asynqueue.reactors import loopIsClosed, readUntil
from asynqueue.scheduling.draining import Drain, LastCalls
from asynqueue.scheduling.lifecycle import Lifecycle
from asynqueue.scheduling.records import WorkerState

# The seconds that workers of a queue without a time limit have, when the reactor stops,
# seconds to end what they run: the program was told to end.
_REACTOR_GRACE = 10.0

# How long processes that were killed are waited for, where no loop runs any more.
_LAST_SECONDS = 1.0


class Ending:
    """
    Ends a queue.

    @ivar isOver: whether nothing is left of the queue.
    """

    def __init__(
        self,
        lifecycle: Lifecycle,
        timeout: float | None,
        hire: Callable[[IWorker], Any],
        over: Callable[[], None],
    ) -> None:
        """
        @param timeout: the seconds that a worker may take to stop, before it crashes; C{None}: as
            long as its tasks take, or ten seconds when the reactor stops.
        @param hire: attaches a worker again.
        @param over: is called when nothing is left.
        """
        self.isOver = False
        self._lifecycle = lifecycle
        self._admission = lifecycle.dispatcher.admission
        self._timeout = timeout
        self._hire = hire
        self._over = over
        self._waiters: list[AwaitableDeferred[None]] = []
        self._trigger: Any = None
        # What is left to be done since the reactor was told to stop.
        self._last: LastCalls | None = None
        # What is done before the end, if that was asked for.
        self._drain: Drain | None = None

    @property
    def _reactor(self) -> Any:
        return self._lifecycle.dispatcher.reactor

    @property
    def mayWake(self) -> bool:
        """
        Whether calls are still taken as the reactor has only been told to stop.
        """
        return self._drain is None and self._last is not None and not self._last.isOver

    def wake(self) -> bool:
        """
        Have workers again for a call, if the reactor has only been told to stop.

        @return: whether the call can be taken.
        """
        return self._drain is None and self._last is not None and self._last.wake()

    def follow(self, reactor: Any) -> None:
        """
        End the queue with its reactor.
        """
        if IReactorCore.providedBy(reactor):
            self._trigger = reactor.addSystemEventTrigger("before", "shutdown", self._reactorStops)

    def begin(self, drain: bool) -> AwaitableDeferred[None]:
        """
        Take no more calls, and end: see L{asynqueue.taskqueue.TaskQueue.shutdown}.
        """
        if drain and self._admission.gives and not loopIsClosed(self._reactor):
            waiter = self._waiter()
            if self._drain is None:
                self._admission.refuse()
                self._drain = Drain(self._lifecycle.registry)
                # It is cancelled where the end comes sooner.
                self._drain.d.addCallbacks(lambda _: self._begin(self._timeout), lambda _: None)
            return waiter
        return self._begin(self._timeout)

    def _waiter(self) -> AwaitableDeferred[None]:
        waiter: AwaitableDeferred[None] = AwaitableDeferred(lambda _: None)
        waiter.reactor = self._reactor
        self._waiters.append(waiter)
        return waiter

    def _begin(self, limit: float | None) -> AwaitableDeferred[None]:
        waiter = self._waiter()
        if self.isOver:
            self._tellWaiters()
            return waiter
        if self._drain is not None:
            self._drain.d.cancel()
        last = self._last
        if loopIsClosed(self._reactor):
            self._abandon("the asyncio loop of its queue is closed")
        elif self._admission.gives:
            if last is not None:
                limit = last.remaining if limit is None else min(limit, last.remaining)
                last.close()
            self._lifecycle.close()
            ended = self._dismissAll(limit)
            ended.addCallback(lambda _: self._lifecycle.lingered())
            ended.addCallback(self._ended)
        elif last is not None and not last.isOver:
            # Its workers have been let go.
            last.close().addCallback(self._ended)
        return waiter

    def _dismissAll(self, limit: float | None) -> Deferred[Any]:
        records = list(self._lifecycle.registry.records.values())
        return gatherResults([self._lifecycle.dismiss(record, limit) for record in records])

    def _ended(self, _: Any) -> None:
        self.isOver = True
        if self._trigger is not None:
            self._reactor.removeSystemEventTrigger(self._trigger)
            self._trigger = None
        if self._last is not None:
            self._last.ended()
        self._over()
        self._tellWaiters()

    def _tellWaiters(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.called:
                waiter.callback(None)

    def _abandon(self, reason: str) -> None:
        """
        End at once: nobody can wait for anything.
        """
        if self._last is not None:
            self._last.close()
        self._lifecycle.close()
        for record in list(self._lifecycle.registry.records.values()):
            self._lifecycle.crash(record, reason)
        readUntil(self._reactor, self._lifecycle.lingered(), _LAST_SECONDS)
        if not self.isOver:
            self._ended(None)

    def _reactorStops(self) -> Deferred[Any]:
        """
        End what was accepted, in order, and then the workers, within the time of grace.
        Calls are taken until the reactor has stopped: who answers a last request may need
        another one.
        """
        # The trigger that is being run cannot be removed.
        self._trigger = None
        if loopIsClosed(self._reactor):
            self._abandon("the asyncio loop of its queue is closed")
            return succeed(None)
        limit = _REACTOR_GRACE if self._timeout is None else self._timeout
        for record in list(self._lifecycle.registry.records.values()):
            if record.state is WorkerState.STOPPING:
                self._lifecycle.dismiss(record, limit)
        if not self._admission.gives or limit <= 0:
            return self._begin(limit)
        # This phase lasts until all have finished who were told, and then nobody waits.
        self._reactor.addSystemEventTrigger("during", "shutdown", self._reactorStopped)
        self._last = LastCalls(self._lifecycle, self._reactor, limit, self._hire, self._abandon)
        return self._last.begin()

    def _reactorStopped(self) -> None:
        if not self.isOver:
            self._abandon("the reactor has stopped")
