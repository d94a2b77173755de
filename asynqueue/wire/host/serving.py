"""
How a server serves: in words and for programs, and as a service.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any

from attrs import frozen
from twisted.application.service import Service
from twisted.internet.defer import Deferred

from asynqueue.scheduling.snapshots import QueueStatistics, Snapshot
from asynqueue.wire.host.sessions import SessionStatistics


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
