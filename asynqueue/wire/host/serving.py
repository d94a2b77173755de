"""
What a server consists of: its states, for people and for programs; the workers that make its
calls; and the service that it is.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any

from attrs import field, frozen
from twisted.application.service import Service
from twisted.internet.defer import Deferred

from asynqueue.checks import wholeNumber
from asynqueue.queues import ProcessQueue
from asynqueue.scheduling.snapshots import QueueStatistics, Snapshot
from asynqueue.taskqueue import TaskQueue
from asynqueue.wire.host.catalog import Catalog
from asynqueue.wire.host.sessions import SessionStatistics
from asynqueue.wire.host.universes import ChildCatalog
from asynqueue.workers.asynchronous import AsyncWorker
from asynqueue.workers.process import ProcessWorker
from asynqueue.workers.thread import ThreadWorker


class ServerState(Enum):
    """
    What a server does: for programs, and in words.
    """

    IDLE = "idle", "does not serve"
    STARTING = "starting", "begins to serve"
    SERVING = "serving", "serves"
    LEAVING = "stopping", "ends what it has"
    CLOSING = "closing", "lets its workers go"


@frozen
class ServerStatistics(Snapshot):
    """
    The state of a server.

    @ivar state: "idle", "starting", "serving", "stopping" (calls still end) or "closing" (its
        workers do).
    @ivar description: where it is to listen, or what it dials.
    @ivar address: what queues dial to reach it; empty while it does not listen.
    @ivar seconds: how long it has been serving; 0 if it does not.
    @ivar sessions: those with queues that have proved themselves.
    @ivar unproven: how many connections there are with others.
    @ivar queue: the state of the queue that makes the calls; C{None} while there is none.
    """

    state: str
    description: str
    address: str
    seconds: float
    sessions: tuple[SessionStatistics, ...]
    unproven: int
    queue: QueueStatistics | None


def _atLeast(least: int) -> Any:
    return lambda _, field, value: wholeNumber(value, field.name, least=least)


def _orCores(count: int | None) -> int:
    return ProcessQueue.cores() if count is None else count


@frozen
class HostWorkers:
    """
    Which workers a host has. Raises C{ValueError} for numbers that are too small or not whole.

    @ivar processes: how many processes make the calls; 0: the reactor does.
    @ivar threads: how many threads there are for calls that want one; C{None}: as many as
        there are cores.
    @ivar concurrent: how many calls may wait in the reactor.
    @ivar largest: how many bytes a message may have.
    """

    processes: int = field(validator=_atLeast(0))
    threads: int = field(converter=_orCores, validator=_atLeast(1))
    concurrent: int = field(validator=_atLeast(1))
    largest: int

    @property
    def series(self) -> str:
        """
        The series of calls that do not want a thread.
        """
        return "process" if self.processes else "async"


def buildHostQueue(
    workers: HostWorkers, catalog: Catalog, timeout: float, reactor: Any
) -> TaskQueue:
    """
    Return a queue with these workers.

    @param timeout: the seconds that they may take to stop.
    """
    queue = TaskQueue(timeout=timeout, reactor=reactor)
    queue.attachWorker(ThreadWorker(threads=workers.threads, reactor=reactor))
    if not workers.processes:
        queue.attachWorker(AsyncWorker(concurrent=workers.concurrent, reactor=reactor))
    preparation: dict[str, Any] = {}
    if isinstance(catalog, ChildCatalog):
        preparation = {"initializer": catalog.initializer, "initargs": catalog.initargs}
    for _ in range(workers.processes):
        worker = ProcessWorker(largest=workers.largest, reactor=reactor, **preparation)
        queue.attachWorker(worker)
        worker.start()
    return queue


class ServingService(Service):
    """
    A server, or a hub, for those who think in services.
    """

    def __init__(self, begin: Callable[[], Any], leave: Callable[[], Deferred[None]]) -> None:
        """
        @param begin: has it serve; what it raises is raised by L{startService}.
        @param leave: has it serve no more; the Deferred fires when nothing is left.
        """
        self._begin = begin
        self._leave = leave

    def startService(self) -> None:
        Service.startService(self)
        self._begin()

    def stopService(self) -> Deferred[None]:
        Service.stopService(self)
        return self._leave()
