"""
A host: a queue of its own behind connections.

::

    Listener, or Dialer ─▶ Connection ─▶ HostSession ─▶ TaskQueue ─▶ workers
                           (one of each for every queue out there)
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail, gatherResults, succeed
from twisted.internet.interfaces import IReactorCore
from twisted.logger import Logger
from twisted.python.failure import Failure

from asynqueue.awaitable import AwaitableDeferred, bothWorlds
from asynqueue.checks import listOf
from asynqueue.errors import ForkError, WireError
from asynqueue.forks import isParents, tellForks
from asynqueue.framing import LARGEST
from asynqueue.reactors import checkedReactor, theReactor
from asynqueue.scheduling.options import seriesOf
from asynqueue.taskqueue import TaskQueue
from asynqueue.timers import Timer, later
from asynqueue.wire.host.serving import (
    HostWorkers,
    ServerState,
    ServerStatistics,
    ServingService,
    buildHostQueue,
)
from asynqueue.wire.host.sessions import HostSession
from asynqueue.wire.host.universes import newCatalog
from asynqueue.wire.protocol.codecs import codecNamed
from asynqueue.wire.transport.connecting import (
    Attempts,
    ConnectionFactory,
    ConnectionSource,
    Dialer,
    Listener,
)
from asynqueue.wire.transport.connection import Connection
from asynqueue.wire.transport.endpoints import (
    clientEndpoint,
    dialedAs,
    keyFor,
    requireIdentity,
    serverEndpoint,
)
from asynqueue.workers.waiters import Waiters

_log = Logger()


class WireServer:
    """
    Makes the calls of queues that are elsewhere, in a queue of its own.

    What may be called are the methods of a L{WireWorkerUniverse
    <asynqueue.wire.host.catalog.WireWorkerUniverse>}, by name; or more, if those who prove
    themselves are trusted with more. Calls are made in the reactor, so they must not
    block, unless the caller wants a thread for them (C{thread=True}); or in processes,
    each of which has a universe of its own.

    @ivar service: an C{IService} that serves while it runs: for C{.tac} files, C{twistd}
        and the like. What makes it impossible to serve is raised by its C{startService},
        or logged if it is found out later.
    @ivar address: where it listens, as an C{IAddress}; C{None} while it does not.
    """

    def __init__(
        self,
        description: str,
        wwuOrFQN: Any = None,
        *,
        key: bytes | None = None,
        keyFile: str | os.PathLike[str] | None = None,
        codec: str = "pickle",
        trust: str = "universe",
        allow: Iterable[str] = (),
        series: Iterable[str] = (),
        processes: int = 0,
        threads: int | None = None,
        concurrent: int = 100,
        queue: TaskQueue | None = None,
        dial: bool = False,
        heartbeat: float | None = 10.0,
        largest: int = LARGEST,
        grace: float = 10.0,
        reactor: Any = None,
    ) -> None:
        """
        @param description: where to listen: an endpoint string, as
            L{asynqueue.wire.transport.endpoints} has them.
        @param wwuOrFQN: the universe, its class, or the dotted name of either.
        @param key: what both sides must have. C{None}: that of the C{keyFile}, or of the
            file that the environment variable ASYNQUEUE_KEY_FILE names, if any.
        @param codec: C{"pickle"} or C{"cbor"}; both sides must have the same.
        @param trust: what may be called: methods of the C{"universe"}, also functions of
            C{"modules"}, or also any C{"code"} that is sent.
        @param allow: the names of these modules. Who names any trusts modules.
        @param series: what this host is qualified for, besides its kind, where a hub
            hires it.
        @param processes: how many processes make the calls, instead of the reactor.
        @param threads: how many threads there are for calls that want one; C{None}: as
            many as there are cores.
        @param concurrent: how many calls may wait for their results at once in the
            reactor.
        @param queue: the queue that makes the calls, instead of one with such workers. It
            is not shut down with the server.
        @param dial: whether to dial a L{WireHub<asynqueue.wire.client.hub.WireHub>} there, again
            and again, instead of listening.
        @param heartbeat: the seconds of silence after which the other side is asked for a
            sign of life; C{None}: never.
        @param largest: how many bytes a message may have.
        @param grace: the seconds that calls have to end when the server stops.
        @param reactor: the reactor; C{None} is the installed one.
        @raise ValueError: two of the arguments exclude each other, or one is out of its range.
        @raise TypeError: the universe is none; or C{allow} or C{series} is a string.
        @raise Exception: whatever the import or the making of the universe raises.
        """
        if queue is not None and processes:
            raise ValueError(
                f"the calls are made by the queue, or by {processes!r} processes that this server"
                " starts: give one of the two"
            )
        self.service = ServingService(self._begin, lambda: self._leave(grace))
        self.address: Any = None
        self._description = description
        self._key = key
        self._keyFile = keyFile
        self._codec = codecNamed(codec)
        modules = tuple(listOf(allow, "allow"))
        self._catalog = newCatalog(self, wwuOrFQN, modules, trust, processes, codec)
        self._series = tuple(seriesOf(series))
        self._workers = HostWorkers(processes, threads, concurrent, largest)
        self._givenQueue = queue
        self._dial = dial
        self._isOnce = not dial and description.startswith("stdio:")
        self._heartbeat = heartbeat
        self._largest = largest
        self._grace = grace
        self._reactor = checkedReactor(reactor)
        # The process that serves, and what drives it.
        self._process = os.getpid()
        self._driver: Any = None
        self._state = ServerState.IDLE
        self._source: ConnectionSource | None = None
        self._queue: TaskQueue | None = None
        self._sessions: dict[HostSession, None] = {}
        self._starting: list[Deferred[None]] = []
        self._stopped = Waiters()
        self._timer = Timer(lambda seconds, f: later(theReactor(reactor), seconds, f))
        self._deadline = 0.0
        self._servesSince = 0.0
        self._trigger: Any = None
        self._shut: Deferred[Any] = succeed(None)
        tellForks(self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._description}: {self._state.value[1]}>"

    def statistics(self) -> ServerStatistics:
        """
        Return the state of the server. Costs a look at each flow and each worker of its queue.
        """
        seconds = 0.0
        if self._state is ServerState.SERVING:
            seconds = theReactor(self._reactor).seconds() - self._servesSince
        sessions = [each.statistics() for each in self._sessions if each.isProven]
        address = self.address
        return ServerStatistics(
            state=self._state.value[0],
            description=self._description,
            address="" if address is None else dialedAs(self._description, address),
            seconds=seconds,
            sessions=tuple(sessions),
            unproven=len(self._sessions) - len(sessions),
            queue=None if self._queue is None else self._queue.statistics(),
        )

    # Beginning

    def start(self) -> AwaitableDeferred[None]:
        """
        Serve.

        @return: a Deferred that fires when the server listens, or is connected with the
            hub. It fails with L{IdentityRequired<asynqueue.errors.IdentityRequired>} if
            others could run calls here without having proved themselves; with
            L{IdentityRefused<asynqueue.errors.IdentityRefused>} or L{VersionRefused
            <asynqueue.errors.VersionRefused>} if the hub does not want this host; and with
            whatever else makes it impossible to serve.
        """
        if self._state is ServerState.SERVING:
            return bothWorlds(succeed(None))
        if self._state not in (ServerState.IDLE, ServerState.STARTING):
            return bothWorlds(fail(WireError(f"{self!r} and can start when that is over")))
        waiter: AwaitableDeferred[None] = AwaitableDeferred(lambda _: None)
        self._starting.append(waiter)
        if self._state is ServerState.IDLE:
            self.service.startService()
        return waiter

    def _begin(self) -> None:
        """
        Begin to serve, if the server is idle.
        """
        if self._state is not ServerState.IDLE:
            return
        self._state = ServerState.STARTING
        try:
            opening = self._open()
        except Exception as error:
            # Files, addresses, other people's endpoints: whatever is wrong with them.
            opening = fail(error)
        failures: list[Failure] = []
        opening.addCallbacks(self._serves, self._cannot).addErrback(failures.append)
        if failures:
            # Nobody but the service's starter wants to know it.
            failures[0].raiseException()
        opening.addCallback(_logLate, failures)

    def _open(self) -> Deferred[Any]:
        reactor = self._driver = theReactor(self._reactor)
        self._process = os.getpid()
        key = keyFor(self._description, self._key, self._keyFile)
        requireIdentity(self._description, key, self._dial)
        if self._dial:
            endpoint = clientEndpoint(reactor, self._description)
            source: ConnectionSource = Dialer(endpoint, reactor, Attempts(self._description))
        else:
            source = Listener(serverEndpoint(reactor, self._description), reactor)
        self._source = source
        if IReactorCore.providedBy(reactor):
            # Before that of the queue: what has not begun is given back, and not failed.
            self._trigger = reactor.addSystemEventTrigger("before", "shutdown", self._reactorStops)
        self._queue = self._givenQueue
        if self._queue is None:
            self._queue = buildHostQueue(self._workers, self._catalog, self._grace, reactor)
        return source.open(ConnectionFactory(lambda address: self._newConnection(key)))

    def _serves(self, address: Any) -> None:
        if self._state is ServerState.STARTING:
            self._state = ServerState.SERVING
            self._servesSince = theReactor(self._reactor).seconds()
            self.address = address
            _log.info("{server!r}", server=self)
            for waiter in self._noLongerStarting():
                waiter.callback(None)

    def _cannot(self, failure: Failure) -> Failure | None:
        """
        Tell those who wait for the start that it is impossible, or else the one that has started
        the service.
        """
        if self._state is not ServerState.STARTING:
            return None
        starting = self._noLongerStarting()
        self.stop(0.0)
        for waiter in starting:
            waiter.errback(failure)
        return None if starting else failure

    def _noLongerStarting(self) -> list[Deferred[None]]:
        starting, self._starting = self._starting, []
        return starting

    # Connections

    def _newConnection(self, key: bytes | None) -> Connection | None:
        if self._state not in (ServerState.STARTING, ServerState.SERVING):
            return None
        assert self._queue is not None
        assert self._source is not None
        host = HostSession(
            self,
            self._queue,
            self._catalog,
            codec=self._codec,
            series=None if self._queue is self._givenQueue else self._workers.series,
            qualified=self._series,
            reactor=self._reactor,
        )
        self._sessions[host] = None
        return host.connect(
            self._dial,
            key=key,
            largest=self._largest,
            heartbeat=self._heartbeat,
            onRefused=self._source.onRefused,
        )

    def sessionOpened(self, session: HostSession) -> None:
        """
        See L{SessionDelegate<asynqueue.wire.host.sessions.SessionDelegate>}.
        """
        assert self._source is not None
        assert session.connection is not None
        self._source.opened(session.connection)

    def sessionLost(self, session: HostSession, error: Exception) -> None:
        """
        See L{SessionDelegate<asynqueue.wire.host.sessions.SessionDelegate>}.
        """
        # Of those that listen, refusals tell who was never open.
        if isinstance(error, WireError) and (session.wasOpen or self._dial):
            _log.warn("the connection with {peer} is over: {error}", peer=session.name, error=error)
        del self._sessions[session]
        if self._source is not None:
            assert session.connection is not None
            self._source.lost(session.connection, error)
        if self._isOnce and self._state is ServerState.SERVING:
            # Nobody else can come.
            self.stop()
        self._checkLeft()

    # The end

    def stop(self, grace: float | None = None) -> AwaitableDeferred[None]:
        """
        Take no more calls, give back what has not begun, and let the rest end.

        @param grace: the seconds that it has for that, before it is cancelled and the
            connections are cut; C{None}: those that the server was made with. Asked again
            with fewer, it has no more from now on; with 0, it ends at once.
        @return: a Deferred that fires when nothing is left.
        """
        self.service.running = False
        return bothWorlds(self._leave(self._grace if grace is None else grace))

    def whenStopped(self) -> AwaitableDeferred[None]:
        """
        Wait until the server has stopped, also if it did that by itself: C{stdio:} ends with
        its only connection.

        @return: a Deferred that fires then, or at once if it does not serve.
        """
        if self._state is ServerState.IDLE:
            return bothWorlds(succeed(None))
        return bothWorlds(self._stopped.wait())

    def _reactorStops(self) -> Deferred[None]:
        # The trigger that is being run cannot be removed.
        self._trigger = None
        return self.stop()

    def _leave(self, grace: float) -> Deferred[None]:
        if self._state is ServerState.IDLE:
            return succeed(None)
        stopped = self._stopped.wait()
        if self._state in (ServerState.STARTING, ServerState.SERVING):
            self._state = ServerState.LEAVING
            self.address = None
            if self._source is not None:
                self._shut = self._source.shut()
            for waiter in self._noLongerStarting():
                waiter.errback(CancelledError("the server stops"))
            for session in list(self._sessions):
                session.dismiss()
        self._hurry(grace)
        self._checkLeft()
        return stopped

    def forked(self) -> None:
        """
        Serve no more in a fork of the process that serves, and goes on to serve, until the
        server is started here.
        """
        if self._state in (ServerState.STARTING, ServerState.SERVING, ServerState.LEAVING):
            self._state = ServerState.LEAVING
            self.service.running = False
            self.address = None
            assert self._source is not None
            self._source.forked()
            later(self._driver, 0, self._leaveToParent)

    def _leaveToParent(self) -> None:
        _log.warn(
            "{server!r} in this fork: {reason}; start() it here, too, if it is to serve here",
            server=self,
            reason=isParents(self._process),
        )
        for waiter in self._noLongerStarting():
            waiter.errback(ForkError("start()", "server"))
        self._leave(0.0)

    def _hurry(self, grace: float) -> None:
        """
        Have the server end within C{grace} seconds, or within those that were granted before.
        """
        deadline = theReactor(self._reactor).seconds() + grace
        if self._timer.isRunning and deadline >= self._deadline:
            return
        self._timer.stop()
        if grace > 0:
            self._deadline = deadline
            self._timer.start(grace, self._tooLate)
        else:
            self._cut()

    def _tooLate(self) -> None:
        _log.warn("{server!r}, and has no more time for it", server=self)
        self._cut()

    def _cut(self) -> None:
        """
        Wait for nothing any more.
        """
        for session in list(self._sessions):
            session.cut()
        queue = self._queue
        if queue is not None and queue is not self._givenQueue:
            for worker in queue.workers():
                queue.detachWorker(worker, crash=True)

    def _checkLeft(self) -> None:
        if self._state is not ServerState.LEAVING or self._sessions:
            return
        self._state = ServerState.CLOSING
        ending = [self._shut]
        if self._queue is not None and self._queue is not self._givenQueue:
            ending.append(self._queue.shutdown())
        gatherResults(ending, consumeErrors=True).addBoth(self._closed)

    def _closed(self, result: Any) -> None:
        if isinstance(result, Failure):
            _log.failure("in the end of a server", result)
        self._timer.stop()
        if self._trigger is not None:
            theReactor(self._reactor).removeSystemEventTrigger(self._trigger)
            self._trigger = None
        self._queue = self._source = None
        self._state = ServerState.IDLE
        self._stopped.fire()


def _logLate(result: Any, failures: Iterable[Failure]) -> None:
    """
    Log that it is impossible to serve, as was found out late.
    """
    for failure in failures:
        _log.failure("there is no server", failure)
