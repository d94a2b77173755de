"""
Where hosts dial in, to serve a queue.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterable
from functools import partial
from typing import Any

from attrs import frozen
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, gatherResults, succeed
from twisted.internet.interfaces import IAddress
from twisted.logger import Logger
from twisted.python.failure import Failure

from asynqueue.errors import ForkError, QueueRunError, WireError, WorkerLost
from asynqueue.forks import isParents, tellForks
from asynqueue.framing import LARGEST
from asynqueue.reactors import checkedReactor, theReactor
from asynqueue.scheduling.options import seriesOf
from asynqueue.scheduling.snapshots import Snapshot
from asynqueue.taskqueue import TaskQueue
from asynqueue.timers import later
from asynqueue.wire.client.remote import RemoteStatistics, RemoteWorker
from asynqueue.wire.host.serving import ServingService
from asynqueue.wire.protocol.session import Session
from asynqueue.wire.transport.connecting import ConnectionFactory, Listener
from asynqueue.wire.transport.connection import Connection
from asynqueue.wire.transport.endpoints import dialedAs, keyFor, requireIdentity, serverEndpoint

_log = Logger()


@frozen
class HubStatistics(Snapshot):
    """
    The state of a hub.

    @ivar state: "idle", "starting" or "listening".
    @ivar description: where it is to listen.
    @ivar address: what hosts dial to reach it; empty while it does not listen.
    @ivar unproven: how many connections have not proved themselves by now.
    @ivar workers: the states of the workers whose hosts have dialed in.
    """

    state: str
    description: str
    address: str
    unproven: int
    workers: tuple[RemoteStatistics, ...]


class HubWorker(RemoteWorker):
    """
    Runs tasks on a host that has dialed in, as long as its connection lasts.

    @ivar hub: where it has dialed in.
    """

    def __init__(
        self, hub: WireHub, ended: Callable[[Connection, HubWorker | None], None], **options: Any
    ) -> None:
        """
        @param ended: is called with the connection when that is open, and with this
            worker, or lost before, and with C{None}.
        @param options: as L{RemoteWorker} takes them.
        """
        super().__init__("a host", **options)
        self.hub = hub
        self._arrival = ended

    def opened(self, connection: Connection) -> None:
        super().opened(connection)
        self._arrival(connection, self)

    def lost(self, connection: Connection, error: Exception) -> None:
        if self._connections:
            super().lost(connection, error)
        else:
            self._arrival(connection, None)


class WireHub:
    """
    Listens for hosts that serve a queue: each that dials in and proves itself becomes a
    worker of the queue, until its connection is lost.

    @ivar address: where it listens, if it does.
    """

    def __init__(
        self,
        queue: TaskQueue,
        description: str,
        series: Iterable[Hashable] = (),
        *,
        raw: bool = False,
        thread: bool = False,
        N_concurrent: int | None = None,
        key: bytes | None = None,
        keyFile: str | os.PathLike[str] | None = None,
        codec: str = "pickle",
        heartbeat: float | None = 10.0,
        largest: int = LARGEST,
        reactor: Any = None,
    ) -> None:
        """
        @param queue: whose workers the hosts become.
        @param description: where to listen: a server endpoint string of Twisted, or
            C{tls:}; see L{asynqueue.wire.transport.endpoints}.
        @param series: what the workers are qualified for, besides their kind and what
            their hosts say.
        @param key: as L{WireWorker<asynqueue.wire.client.worker.WireWorker>} takes it; and so for
            all others, which hold for the worker of each host.
        @raise TypeError: C{series} is a string, or one of them is not hashable.
        """
        self.address: Any = None
        self._queue = queue
        self._description = description
        self._options: dict[str, Any] = {
            "series": seriesOf(series),
            "raw": raw,
            "thread": thread,
            "N_concurrent": N_concurrent,
            "codec": codec,
            "reactor": reactor,
        }
        self._key = key
        self._keyFile = keyFile
        self._heartbeat = heartbeat
        self._largest = largest
        self._reactor = checkedReactor(reactor)
        # What it listens with.
        self._driver: Any = None
        self._listener: Listener | None = None
        # Who waits until it listens.
        self._waiting: list[Deferred[Any]] = []
        self._process = os.getpid()
        # Made once to check the options.
        RemoteWorker("a host", **self._options)
        tellForks(self)

    @property
    def workers(self) -> list[RemoteWorker]:
        """
        Those of the queue's workers whose hosts have dialed in here.
        """
        return [
            worker
            for worker in self._queue.workers()
            if isinstance(worker, HubWorker) and worker.hub is self
        ]

    @property
    def service(self) -> Service:
        """
        A service that listens while it runs.
        """
        return ServingService(lambda: self.start().addErrback(_cannotServe), self.stop)

    def start(self) -> Deferred[Any]:
        """
        Listen.

        @return: a Deferred that fires with the address when hosts can dial in. It fails
            with L{IdentityRequired<asynqueue.errors.IdentityRequired>} if those who
            connect need not prove themselves, with C{ValueError} or C{OSError} if
            description or key are no good, and with
            C{twisted.internet.error.CannotListenError}.
        """
        if self.address is not None:
            return succeed(self.address)
        d: Deferred[Any] = Deferred(self._waiting.remove)
        self._waiting.append(d)
        if self._listener is None:
            try:
                key = keyFor(self._description, self._key, self._keyFile)
                requireIdentity(self._description, key)
                endpoint = serverEndpoint(theReactor(self._reactor), self._description)
            except Exception:
                # Descriptions and files of users, and plugins of anybody.
                self._fail(Failure())
            else:
                self._listen(Listener(endpoint, theReactor(self._reactor)), key)
        return d

    def stop(self) -> Deferred[None]:
        """
        Listen no more, and let the hosts go: what they run is ended first, for as long as
        the queue allows.

        @return: a Deferred that fires when that is done.
        """
        listener, self._listener = self._listener, None
        self.address = None
        closing: list[Deferred[Any]] = []
        if listener is not None:
            closing.append(listener.shut())
            for connection in list(listener.unproven):
                connection.abort()
        self._fail(Failure(CancelledError("the hub stops")))
        closing += [self._queue.detachWorker(worker) for worker in self.workers]
        return gatherResults(closing).addCallback(lambda _: None)

    def forked(self) -> None:
        """
        Listen no more in a fork of the process that listens, and goes on with it, until the
        hub is started here.
        """
        listener, self._listener = self._listener, None
        self.address = None
        if listener is not None:
            listener.forked()
            later(self._driver, 0, self._leaveToParent)

    def statistics(self) -> HubStatistics:
        """
        Return the state of the hub, with its workers.
        """
        listener, address = self._listener, self.address
        state = "idle" if listener is None else "starting" if address is None else "listening"
        return HubStatistics(
            state=state,
            description=self._description,
            address="" if address is None else dialedAs(self._description, address),
            unproven=0 if listener is None else len(listener.unproven),
            workers=tuple(worker.statistics() for worker in self.workers),
        )

    # Within

    def _leaveToParent(self) -> None:
        _log.warn(
            "the hub at {description} in this fork: {reason}; start() it here, too, if it is to"
            " listen here",
            description=self._description,
            reason=isParents(self._process),
        )
        if self._listener is None:
            self._fail(Failure(ForkError("start()", "hub")))

    def _listen(self, listener: Listener, key: bytes | None) -> None:
        self._driver = theReactor(self._reactor)
        self._process = os.getpid()

        def make(address: IAddress) -> Connection:
            session = Session(
                "queue", False, key=key, codec=self._options["codec"], largest=self._largest
            )
            return Connection(
                session,
                HubWorker(self, partial(self._settled, listener), **self._options),
                heartbeat=self._heartbeat,
                onRefused=listener.onRefused,
                reactor=self._reactor,
            )

        self._listener = listener
        listening = listener.open(ConnectionFactory(make))
        listening.addCallbacks(
            self._listens, self._cannotListen, callbackArgs=(listener,), errbackArgs=(listener,)
        )

    def _listens(self, address: Any, listener: Listener) -> None:
        if listener is self._listener:
            self.address = address
            waiting, self._waiting = self._waiting, []
            for d in waiting:
                d.callback(address)

    def _cannotListen(self, failure: Failure, listener: Listener) -> None:
        if listener is self._listener:
            self._listener = None
            self._fail(failure)

    def _fail(self, failure: Failure) -> None:
        waiting, self._waiting = self._waiting, []
        for d in waiting:
            d.errback(failure)

    def _settled(
        self, listener: Listener, connection: Connection, worker: HubWorker | None
    ) -> None:
        """
        Hire the worker of a connection that is open, or forget one that was lost before.
        """
        listener.settled(connection)
        if worker is None:
            return
        try:
            hired = self._queue.attachWorker(worker)
        except QueueRunError:
            connection.goodbye("the queue is shut down")
            connection.close()
        else:
            hired.addErrback(self._notHired, connection)

    def _notHired(self, failure: Failure, connection: Connection) -> None:
        if failure.check(WorkerLost, WireError) is None:
            _log.failure("{host} was not hired", failure, host=connection.description)


def _cannotServe(failure: Failure) -> None:
    _log.failure("the hub cannot listen", failure)
