"""
What the queue knows of one of its workers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from asynqueue.interfaces import (
    ICancellingWorker,
    IConnectingWorker,
    IFailingWorker,
    ILingeringWorker,
    IPrefetchingWorker,
    IProcessWorker,
    IRemoteWorker,
    IResigningWorker,
    ISlottedWorker,
    ITask,
    IWorker,
)
from asynqueue.scheduling.lanes import Lane
from asynqueue.scheduling.task import Task

_log = Logger()


class WorkerState(Enum):
    """
    How far a worker is in its time with the queue. The values are words for programs.

    @cvar PREPARING: makes the updates that there were before it came.
    @cvar READY: is given tasks.
    @cvar FAILING: can run nothing for now, and is given nothing.
    @cvar STOPPING: ends the tasks that it has.
    @cvar GONE: is the queue's no more.
    """

    PREPARING = "preparing"
    READY = "ready"
    FAILING = "failing"
    STOPPING = "stopping"
    GONE = "gone"


# The states of workers that choose from a lane, now or later.
CHOOSING = (WorkerState.PREPARING, WorkerState.READY, WorkerState.FAILING)


@frozen
class Traits:
    """
    What a worker can do, besides running tasks.

    @ivar prefetching: takes tasks ahead of those it runs.
    @ivar cancelling: can end the run of a task.
    @ivar failing: tells when it can run nothing for a while.
    @ivar lingering: something is left of it for a while after it has crashed.
    @ivar telling: tells why it has resigned, in its C{loss}.
    @ivar remote: its tasks run at the other end of a connection.
    @ivar connecting: makes that connection itself, and makes it again after it was lost.
    @ivar processes: its tasks run in processes of this host.
    @ivar slotted: tells how many tasks it runs at once, in its C{slots}.
    """

    prefetching: bool
    cancelling: bool
    failing: bool
    lingering: bool
    telling: bool
    remote: bool
    connecting: bool
    processes: bool
    slotted: bool


def traitsOf(worker: Any) -> Traits:
    """
    Return what a worker can do by the interfaces that it provides. This is the one place
    that asks for them.
    """
    remote = IRemoteWorker.providedBy(worker)
    return Traits(
        prefetching=IPrefetchingWorker.providedBy(worker),
        cancelling=ICancellingWorker.providedBy(worker),
        failing=IFailingWorker.providedBy(worker),
        lingering=ILingeringWorker.providedBy(worker),
        telling=remote or IResigningWorker.providedBy(worker),
        remote=remote,
        connecting=IConnectingWorker.providedBy(worker),
        processes=IProcessWorker.providedBy(worker),
        slotted=ISlottedWorker.providedBy(worker),
    )


class WorkerRecord:
    """
    What one worker has accepted and not finished, and how it stands.

    @ivar ID: the number of the worker, unique in its queue.
    @ivar traits: what it can do.
    @ivar state: see L{WorkerState}.
    @ivar lane: what it chooses from.
    @ivar tasks: what it holds, in the order it was assigned, each with the lane in which
        its flow was charged for it, if it was.
    @ivar updates: calls that it must run before any other.
    @ivar waiters: those who wait until it is gone, for the tasks it did not end.
    @ivar ready: whether it waits to be assigned a task.
    @ivar fault: why it can run nothing, while it is failing.
    @ivar hopeless: whether there is no hope then that it can again.
    @ivar parked: whether it will be ready for a task when it is failing no more.
    @ivar done: how many tasks it has ended.
    @ivar onBroken: is called with this record and what happened, when the worker has broken
        its contract.
    """

    __slots__ = (
        "ID",
        "done",
        "fault",
        "hopeless",
        "lane",
        "onBroken",
        "parked",
        "ready",
        "state",
        "tasks",
        "traits",
        "updates",
        "waiters",
        "worker",
    )

    def __init__(
        self,
        worker: IWorker,
        ID: int,
        lane: Lane,
        onBroken: Callable[[WorkerRecord, str], object],
    ) -> None:
        # Any: what else than an IWorker it is, its traits say.
        self.worker: Any = worker
        self.ID = ID
        self.traits = traitsOf(worker)
        self.lane = lane
        self.onBroken = onBroken
        self.state = WorkerState.PREPARING
        self.ready = True
        self.fault = ""
        self.hopeless = False
        self.parked = False
        self.done = 0
        self.tasks: dict[Task, Lane | None] = {}
        self.updates: deque[Task] = deque()
        self.waiters: list[Deferred[list[Task]]] = []

    @property
    def name(self) -> str:
        """
        The worker in words.
        """
        name = f"{type(self.worker).__name__} {self.ID}"
        return f"{name} ({self.worker.host})" if self.traits.remote else name

    def rest(self) -> None:
        """
        Wait for a task.
        """
        self.ready = True
        self.lane.idle.append(self)

    def recall(self) -> Sequence[ITask]:
        """
        Have the worker hand over what it has not begun, and return that.
        """
        try:
            tasks: Sequence[ITask] = self.worker.takeBack()
        except BaseException:
            # The seam to other people's workers: what it does not hand over may
            # have begun.
            _log.failure("{worker} failed to hand over its tasks", worker=self.name)
            return ()
        return tasks
