"""
The side of a worker that is towards its queue: the tasks that it holds, when it is ready for
more, and when it has stopped.

::

    run ─▶ turnsAway, taken ─▶ held ─▶ the worker ends them ─▶ checkReady, checkStopped
                                │
    the queue ◀─ handBack ◀─ recall ◀─ nothing moves
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from typing import Any, Generic, Protocol, TypeVar

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from asynqueue.errors import WorkerLost
from asynqueue.failures import caught
from asynqueue.interfaces import ITask
from asynqueue.outcome import describeCall
from asynqueue.workers.failing import Fault
from asynqueue.workers.stale import STALE_SECONDS, StaleCheck
from asynqueue.workers.waiters import Waiters

W = TypeVar("W", bound="TaskWindow")

_READY: Deferred[None] = succeed(None)


class Life(Enum):
    """
    How far a worker has come. One that is broken serves no more, and waits to be let go; one
    that leaves has ended its tasks, and lets go of what ran them.
    """

    SERVING = "serving"
    BROKEN = "broken"
    STOPPING = "stopping"
    LEAVING = "leaving"
    CRASHED = "crashed"


class TaskWindow(Protocol):
    """
    How many tasks a worker may hold.

    @ivar size: how many it may hold now.
    @ivar isClosed: whether nothing may be sent ahead, until a task has ended.
    """

    isClosed: bool

    @property
    def size(self) -> int: ...

    def close(self) -> None:
        """
        Send nothing ahead until a task has ended.
        """


class PrefetchDelegate(Protocol):
    """
    A worker that has a L{Prefetch}.

    @ivar ID: the number that a queue gave to this worker.
    """

    ID: int | None

    def takeUnbegun(self) -> list[ITask]:
        """
        Take the tasks that surely have not begun from who runs them, and hold them no more.
        """

    def letGo(self) -> bool:
        """
        Let go of what runs the tasks, as the worker stops and has none; or not yet, if
        iterators that calls returned are open: then close those that nobody reads.

        @return: whether it has let go. If not, L{Prefetch.checkStopped} is called later.
        """

    @property
    def isGone(self) -> bool:
        """
        Whether nothing is left of what runs the tasks. When that changes,
        L{Prefetch.checkStopped} is to be called.
        """


class Prefetch(Generic[W]):
    """
    What a worker owes its queue.

    A task of the worker is in one place: it is held by who runs it, or waits for somebody
    who can, or is about to end since it cannot be sent.

    A hot path, plain on purpose. The worker adds to C{held} and takes from it by itself, and
    then calls L{taken}, L{checkReady} and L{checkStopped}.

    @ivar held: the tasks that are with who runs them, by what the worker hears of their ends
        by. It is the same dictionary always.
    @ivar waiting: those that nobody can run yet, in order.
    @ivar window: how many there may be of both.
    @ivar ended: how many tasks have ended.
    @ivar life: how far the worker has come.
    @ivar returner: what L{IPrefetchingWorker.setReturner
        <asynqueue.interfaces.IPrefetchingWorker.setReturner>} gave; C{None} without a queue.
    """

    __slots__ = (
        "_name",
        "_notBegun",
        "_ready",
        "_recall",
        "_slots",
        "_soon",
        "_stale",
        "_stopped",
        "_unsendable",
        "_worker",
        "ended",
        "held",
        "life",
        "returner",
        "waiting",
        "window",
    )

    def __init__(
        self,
        worker: PrefetchDelegate,
        window: W,
        callLater: Callable[[float, Callable[[], None]], Any],
        *,
        slots: float = 1,
        name: Callable[[], str] | None = None,
        recall: Callable[[], None] | None = None,
        progress: Callable[[], Any] = lambda: None,
        patience: Callable[[int], float] = lambda looks: 0.0,
        staleSeconds: Callable[[], float] = lambda: STALE_SECONDS,
    ) -> None:
        """
        @param callLater: makes a call after some seconds; what it returns can be cancelled.
        @param slots: more tasks than this are lined up.
        @param name: names the worker; C{None}: by its class and its ID.
        @param recall: has what is lined up handed back, as nothing moves; C{None}: what
            L{PrefetchDelegate.takeUnbegun} gives is.
        @param progress: tells how far tasks have come, besides that they have ended.
        @param patience: see L{StaleCheck}.
        @param staleSeconds: see L{StaleCheck}.
        """
        self.held: dict[Any, ITask] = {}
        self.waiting: dict[ITask, None] = {}
        self.window = window
        self.ended = 0
        self.life = Life.SERVING
        self.returner: Callable[[Sequence[ITask]], None] | None = None
        self._worker = worker
        self._soon = callLater
        self._slots = slots
        self._name = name
        self._recall = recall
        self._unsendable: dict[ITask, BaseException] = {}
        self._notBegun: list[ITask] = []
        self._ready: Deferred[None] | None = None
        self._stopped = Waiters()
        self._stale = StaleCheck(
            callLater,
            lambda: self.count > slots,
            lambda: (self.ended, progress()),
            self._goStale,
            patience,
            staleSeconds,
        )

    @property
    def count(self) -> int:
        """
        How many tasks count for the window.
        """
        return len(self.held) + len(self.waiting)

    def name(self) -> str:
        """
        Name the worker, for messages.
        """
        if self._name is not None:
            return self._name()
        return f"{type(self._worker).__name__} {self._worker.ID}"

    def state(self, fault: Fault | None = None) -> str:
        """
        Return the state of the worker, as L{WorkerSnapshot
        <asynqueue.scheduling.snapshots.WorkerSnapshot>} has it.

        @param fault: what may be wrong with it for a while.
        """
        life = Life.STOPPING if self.life is Life.LEAVING else self.life
        if life is Life.STOPPING and self._stopped.isEmpty:
            return "stopped"
        if life is Life.SERVING and fault is not None and fault.reason:
            return "failing"
        state: str = life.value
        return state

    def keyOf(self, task: ITask) -> Any:
        """
        Find the key of a task that is held; C{None} if it is not. Takes time in proportion to
        what is held.
        """
        return next((key for key, held in self.held.items() if held is task), None)

    # Being given tasks

    def turnsAway(self, task: ITask) -> bool:
        """
        Have the queue give a task to another worker, if tasks do not move here. It is to be
        asked where as many are held as the window has room for.

        @return: whether it was handed back. Then L{wait} gives what C{run} returns.
        """
        window = self.window
        if self.returner is None or not (window.isClosed or not window.size):
            return False
        self.returner([task])
        return True

    def taken(self) -> Deferred[None]:
        """
        Note that a task was taken. A hot path.

        @return: a Deferred that fires when the worker is ready for another one.
        """
        count = len(self.held) + len(self.waiting)
        if count > self._slots and not self._stale.isRunning:
            self._stale.start()
        if count < self.window.size:
            return _READY
        ready = self._ready = Deferred()
        return ready

    def wait(self) -> Deferred[None]:
        """
        Be not ready, until L{checkReady} finds room.
        """
        self._ready = Deferred()
        return self._ready

    @property
    def isWaiting(self) -> bool:
        """
        Whether somebody waits for the worker to be ready.
        """
        return self._ready is not None

    def checkReady(self) -> None:
        """
        Be ready, if the window has room. A hot path.
        """
        ready = self._ready
        if ready is not None and len(self.held) + len(self.waiting) < self.window.size:
            self._ready = None
            ready.callback(None)

    # Ends that the worker does not hear of

    def cannotSend(self, task: ITask, error: BaseException) -> None:
        """
        End a task that cannot be sent to who is to run it, but not within C{run}: chains of
        calls would recurse.
        """
        if not self._unsendable:
            self._soon(0, self._endUnsendable)
        self._unsendable[task] = error

    def _endUnsendable(self) -> None:
        unsendable, self._unsendable = self._unsendable, {}
        for task, error in unsendable.items():
            task.errback(caught(error))
        self.checkStopped()

    def lose(self, tasks: Iterable[ITask], reason: str, begun: bool = True) -> None:
        """
        End tasks that are held no more, and that nobody will end.

        @param begun: whether they may have begun.
        """
        for task in tasks:
            call = describeCall(*task.callTuple)
            task.errback(Failure(WorkerLost(call, self.name(), begun, reason=reason)))

    # Handing back

    def takeBack(self) -> Sequence[ITask]:
        """
        See L{IPrefetchingWorker.takeBack<asynqueue.interfaces.IPrefetchingWorker.takeBack>}.
        """
        if self.life is Life.CRASHED:
            return self._notBegun
        tasks = [*self._worker.takeUnbegun(), *self.takeWaiting()]
        return [task for task in tasks if not task.ended]

    def takeWaiting(self) -> list[ITask]:
        """
        Take those that nobody can run yet: they wait no more.
        """
        waiting = list(self.waiting)
        self.waiting.clear()
        return waiting

    def handBack(self, tasks: Iterable[ITask]) -> list[ITask]:
        """
        Have the queue give tasks to others that are held no more and have not begun.

        @return: those that stay, since there is no queue.
        """
        tasks = [task for task in tasks if not task.ended]
        if self.returner is None:
            return tasks
        if tasks:
            self.returner(tasks)
        return []

    def _goStale(self) -> None:
        """
        Hand what is lined up to others, since nothing has moved, and take no more until a task has
        ended.
        """
        if self.returner is not None:
            self.window.close()
            if self._recall is not None:
                self._recall()
                return
            self.handBack(self.takeBack())
            # Where none is held any more, the end of none will say so.
            self.checkReady()
            self.checkStopped()

    # The end

    def stop(self) -> Deferred[None]:
        """
        See L{IWorker.stop<asynqueue.interfaces.IWorker.stop>}.
        """
        d = self._stopped.wait()
        if self.life is Life.SERVING or self.life is Life.BROKEN:
            self.life = Life.STOPPING
        self.checkStopped()
        return d

    def checkStopped(self) -> None:
        """
        Let go of what runs the tasks if the worker stops and nothing is left to do; when that is
        gone, say so.
        """
        if self.life is Life.SERVING:
            return
        if self.life is Life.STOPPING and self.isIdle:
            # First this: it may hear of the end while it lets go.
            self.life = Life.LEAVING
            if not self._worker.letGo():
                self.life = Life.STOPPING
                return
            self._stale.stop()
        if self.life is Life.CRASHED or (self.life is Life.LEAVING and self._worker.isGone):
            self.sayStopped()

    def sayStopped(self) -> None:
        """
        Tell those who wait that the worker has stopped, or crashed.
        """
        self._stopped.fire()

    @property
    def isIdle(self) -> bool:
        """
        Whether there is no task.
        """
        return not (self.held or self.waiting or self._unsendable)

    def crash(self) -> tuple[list[ITask], list[Any]]:
        """
        Hold nothing any more, and end nothing. L{sayStopped} is to be called when the worker
        is gone.

        @return: the tasks without outcome, and the keys of those that may have begun.
        """
        self._notBegun = [task for task in self._unsendable if not task.ended]
        self._unsendable = {}
        self._notBegun += self.takeBack()
        left = [task for task in self.held.values() if not task.ended]
        begun = list(self.held)
        self.held.clear()
        self.life = Life.CRASHED
        self.pause()
        return left + self._notBegun, begun

    def pause(self) -> None:
        """
        Look no more whether tasks move, and be not ready: nobody can run any.
        """
        self._stale.stop()
        self._ready = None

    def revive(self) -> None:
        """
        Serve again, after the end.
        """
        self.life = Life.SERVING
        self.window.isClosed = False


class Prefetching(Generic[W]):
    """
    The methods of a worker that are its L{Prefetch}'s.
    """

    _tasks: Prefetch[W]

    def setReturner(self, callableObject: Callable[[Sequence[ITask]], None]) -> None:
        """
        See L{IPrefetchingWorker.setReturner
        <asynqueue.interfaces.IPrefetchingWorker.setReturner>}.
        """
        self._tasks.returner = callableObject

    def takeBack(self) -> Sequence[ITask]:
        """
        See L{IPrefetchingWorker.takeBack<asynqueue.interfaces.IPrefetchingWorker.takeBack>}.
        """
        return self._tasks.takeBack()

    def stop(self) -> Deferred[None]:
        """
        See L{IWorker.stop<asynqueue.interfaces.IWorker.stop>}. Iterators may be read to
        their ends; one that nobody reads is closed.
        """
        return self._tasks.stop()
