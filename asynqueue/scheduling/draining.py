"""
Waiting until the tasks of a queue have ended; and the end of a queue whose reactor was told to
stop: it does what it has, lets its workers go, and has them back for calls that others make in
their own last moments.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from enum import Enum
from typing import Any

from twisted.internet.defer import Deferred, gatherResults, succeed

from asynqueue.interfaces import ITask, IWorker
from asynqueue.scheduling.lifecycle import Lifecycle
from asynqueue.scheduling.observers import QueueObserver
from asynqueue.scheduling.registry import Registry
from asynqueue.signals import hearSecondSignals
from asynqueue.timers import later


class Drain(QueueObserver):
    """
    Waits until all tasks have ended that a queue has now.

    It counts them, and those that end by their numbers: that takes no memory for each.

    @ivar d: fires one turn of the reactor after the last of them has ended; at once, if there
        is none. Cancelling it ends the waiting.
    """

    def __init__(self, registry: Registry) -> None:
        self.d: Deferred[None] = Deferred(lambda _: self._registry.removeObserver(self))
        self._registry = registry
        self._left = registry.load()
        self._last = registry.lastNumber
        if self._left:
            registry.addObserver(self)
        else:
            self.d.callback(None)

    def taskDone(self, task: ITask, outcome: Any, worker: IWorker | None) -> None:
        if self._last < task.ID:
            return
        self._left -= 1
        if not self._left:
            self._registry.removeObserver(self)
            # Those who wait for the task itself hear of it first.
            self._registry.startTimer(0, self._end)

    def _end(self) -> None:
        # It may have been cancelled in the meantime.
        if not self.d.called:
            self.d.callback(None)


class Draining(QueueObserver):
    """
    Waits until a queue has no call left that a worker has or can have.

    It looks one turn of the reactor after a call has ended: who waited for that one may
    have made another.

    @ivar d: fires when that is so, or when the time is over.
    """

    def __init__(
        self, lifecycle: Lifecycle, reactor: Any, limit: float, awaited: bool = False
    ) -> None:
        """
        @param limit: the seconds that this may take.
        @param awaited: whether a worker that dials is waited for, if there is a call.
        """
        self.d: Deferred[None] = Deferred()
        self._lifecycle = lifecycle
        self._reactor = reactor
        self._turn: Any = None
        self._limit = later(reactor, limit, self._end)
        self._awaited = awaited
        lifecycle.registry.addObserver(self)
        self._lookLater()

    def taskDone(self, task: ITask, outcome: Any, worker: IWorker | None) -> None:
        """
        Hear that a call has ended.
        """
        self._lookLater()

    def _lookLater(self) -> None:
        if self._turn is None and not self.d.called:
            self._turn = later(self._reactor, 0, self._look)

    def _look(self) -> None:
        self._turn = None
        lifecycle = self._lifecycle
        queued = lifecycle.dispatcher.waiting
        dials = self._awaited and queued and lifecycle.reconnects.workers()
        if not lifecycle.registry.isBusy and not dials:
            self._end()

    def stop(self) -> None:
        """
        Look no more.
        """
        for timer in (self._turn, self._limit):
            if timer is not None:
                timer.cancel()
        self._turn = None
        self._lifecycle.registry.removeObserver(self)

    def _end(self) -> None:
        self.stop()
        self.d.callback(None)


class _Stage(Enum):
    SERVING = "does what it has"
    LEAVING = "its workers go"
    WANTED = "its workers go, and are to come back"
    RESTING = "its workers are gone"
    OVER = "takes no more calls"


class LastCalls:
    """
    A queue between the moment when its reactor was told to stop and that when it stops.

    Others who were told of the same go on for as long as they like, and the reactor with
    them, but nobody is told when they have finished: so the workers go as soon as there is
    nothing left to be done, and are hired again when there is another call. That is over
    when something was not done in time.
    """

    def __init__(
        self,
        lifecycle: Lifecycle,
        reactor: Any,
        limit: float,
        hire: Callable[[IWorker], Any],
        abandon: Callable[[str], None],
    ) -> None:
        """
        @param limit: the seconds that it may take to do what there is, each time.
        @param hire: attaches a worker.
        @param abandon: ends the queue at once, for a reason.
        """
        self._lifecycle = lifecycle
        self._reactor = reactor
        self._hire = hire
        self._abandon = abandon
        self._ignoreSignals: Callable[[], None] | None = None
        self._stage = _Stage.SERVING
        self._limit = limit
        self._end = 0.0
        self._workers: list[IWorker] = []
        self._draining: Draining | None = None
        self._left: Deferred[Any] = succeed(None)
        self._done: Deferred[None] | None = Deferred()

    def begin(self) -> Deferred[None]:
        """
        Do what there is, and what follows from it, and let the workers go.

        @return: a Deferred that fires when the workers are gone.
        """
        assert self._done is not None
        done = self._done
        self._ignoreSignals = hearSecondSignals(self._reactor, self._interrupted)
        self._drain()
        return done

    def _interrupted(self, number: signal.Signals) -> None:
        self._abandon(f"{number.name} came while the reactor stopped")

    @property
    def isOver(self) -> bool:
        """
        Whether no more calls are taken.
        """
        return self._stage is _Stage.OVER

    def wake(self) -> bool:
        """
        Have workers for another call.

        @return: whether it can be taken.
        """
        if self._stage is _Stage.LEAVING:
            self._stage = _Stage.WANTED
            self._lifecycle.dispatcher.admission.reopen()
        elif self._stage is _Stage.RESTING:
            self._return()
        return self._lifecycle.dispatcher.admission.gives

    def close(self) -> Deferred[Any]:
        """
        Take no more calls.

        @return: a Deferred that fires when the workers that were let go are gone.
        """
        self._stage = _Stage.OVER
        if self._draining is not None:
            self._draining.stop()
        return self._left

    def ended(self) -> None:
        """
        Hear that the queue is gone.
        """
        self.close()
        if self._ignoreSignals is not None:
            self._ignoreSignals()
        self._finish()

    def _finish(self) -> None:
        """
        Have the reactor wait no more for this queue.
        """
        done, self._done = self._done, None
        if done is not None:
            done.callback(None)

    @property
    def remaining(self) -> float:
        """
        How many seconds there are for what there is to be done.
        """
        left: float = self._end - self._reactor.seconds()
        return max(0.0, left)

    def _drain(self, again: bool = False) -> None:
        self._stage = _Stage.SERVING
        self._end = self._reactor.seconds() + self._limit
        self._draining = Draining(self._lifecycle, self._reactor, self._limit, again)
        self._draining.d.addCallback(self._letGo)

    def _letGo(self, _: None) -> None:
        lifecycle = self._lifecycle
        records = list(lifecycle.registry.records.values())
        # Hosts that have dialed in come by themselves, if they do.
        self._workers = [
            record.worker
            for record in records
            if not record.traits.remote or record.traits.connecting
        ]
        self._workers += lifecycle.reconnects.workers()
        self._stage = _Stage.LEAVING
        limit = self.remaining
        # First this: what fails now may have callbacks that ask for the end of the queue.
        left = self._left = Deferred()
        left.addCallback(self._areGone)
        lifecycle.close()
        leaving = gatherResults([lifecycle.dismiss(record, limit) for record in records])
        leaving.addCallback(lambda _: lifecycle.lingered())
        leaving.addCallback(lambda _: left.callback(None))

    def _areGone(self, _: Any) -> None:
        if self._stage is _Stage.OVER:
            return
        if not self.remaining:
            # Workers had to crash, and nobody knows whether they can be had again.
            self._abandon("its time is over")
        elif self._stage is _Stage.LEAVING:
            self._stage = _Stage.RESTING
            self._finish()
        elif self._stage is _Stage.WANTED:
            self._return()

    def _return(self) -> None:
        self._lifecycle.dispatcher.admission.reopen()
        workers, self._workers = self._workers, []
        for worker in workers:
            self._hire(worker)
        self._drain(again=True)
