"""
What the queue knows of one of its workers.
"""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import Any

from twisted.internet.defer import Deferred

from asynqueue.interfaces import (
    ICancellingWorker,
    IFailingWorker,
    ILingeringWorker,
    IPrefetchingWorker,
    IRemoteWorker,
    IWorker,
)
from asynqueue.scheduling.flows import Lane
from asynqueue.scheduling.task import Task


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


class Ledger:
    """
    What one worker has accepted and not finished, and how it stands.

    @ivar ID: the number of the worker, unique in its queue.
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
    @ivar prefetching: whether it takes tasks ahead of those it runs.
    @ivar cancelling: whether it can end the run of a task.
    @ivar failing: whether it tells when it can run nothing for a while.
    @ivar lingering: whether something is left of it for a while after it has crashed.
    @ivar remote: whether its tasks run at the other end of a connection.
    """

    __slots__ = (
        "ID",
        "cancelling",
        "done",
        "failing",
        "fault",
        "hopeless",
        "lane",
        "lingering",
        "parked",
        "prefetching",
        "ready",
        "remote",
        "state",
        "tasks",
        "updates",
        "waiters",
        "worker",
    )

    def __init__(self, worker: IWorker, ID: int, lane: Lane) -> None:
        # Any: what else than an IWorker it is, is asked below.
        self.worker: Any = worker
        self.ID = ID
        self.lane = lane
        self.state = WorkerState.PREPARING
        self.ready = False
        self.fault = ""
        self.hopeless = False
        self.parked = False
        self.done = 0
        self.tasks: dict[Task, Lane | None] = {}
        self.updates: deque[Task] = deque()
        self.waiters: list[Deferred[list[Task]]] = []
        # Asked once: it is needed for every task.
        self.prefetching = IPrefetchingWorker.providedBy(worker)
        self.cancelling = ICancellingWorker.providedBy(worker)
        self.failing = IFailingWorker.providedBy(worker)
        self.lingering = ILingeringWorker.providedBy(worker)
        self.remote = IRemoteWorker.providedBy(worker)

    @property
    def name(self) -> str:
        """
        The worker in words.
        """
        name = f"{type(self.worker).__name__} {self.ID}"
        return f"{name} ({self.worker.host})" if self.remote else name
