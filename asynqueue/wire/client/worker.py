"""
A worker that dials its host, and again when the connection was lost.
"""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterable
from random import random
from typing import Any

from twisted.application.internet import ClientService
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IAddress
from twisted.python.failure import Failure
from zope.interface import implementer

from asynqueue.errors import IdentityRefused, VersionRefused
from asynqueue.forks import tellForks
from asynqueue.framing import LARGEST
from asynqueue.interfaces import IConnectingWorker
from asynqueue.renewal import renewInForks
from asynqueue.timers import later
from asynqueue.wire.client.remote import RemoteWorker
from asynqueue.wire.host.catalog import WireWorkerUniverse, methodNames
from asynqueue.wire.protocol.session import Session
from asynqueue.wire.transport.connection import Connection
from asynqueue.wire.transport.dialing import Attempts, NotedEndpoint
from asynqueue.wire.transport.endpoints import clientEndpoint, keyFor, requireIdentity
from asynqueue.wire.transport.listening import ConnectionFactory
from asynqueue.workers.prefetch import Life

# To try again would bring the same answer.
_FINAL = (IdentityRefused, VersionRefused)

# The seconds between attempts, at first and at last, and their growth; each pause is
# between half of that and one and a half.
_PAUSE = 0.1
_LONGEST_PAUSE = 20.0
_GROWTH = 1.5

# A connection that was open for so many seconds was a success.
_SUCCESS = 5.0


class Dialing:
    """
    Dials until there is a connection, with pauses that grow: also those before a new
    start, where connections are lost as soon as they are there.
    """

    def __init__(self, where: str) -> None:
        """
        @param where: an endpoint string.
        """
        self._attempts = Attempts(where)
        self._reactor: Any = None
        # What it dials, and what makes its connections.
        self._dialed: tuple[Any, ConnectionFactory] | None = None
        self._endpoint: NotedEndpoint | None = None
        self._service: ClientService | None = None
        self._pause: Any = None
        self._failures = 0
        self._since: float | None = None
        tellForks(self)

    @property
    def isRunning(self) -> bool:
        """
        Whether it was started, and not stopped.
        """
        return self._service is not None

    def inWords(self) -> str:
        """
        Say where this dials, why that failed and what is next; nothing, if it does not.
        """
        return self._attempts.inWords(self._reactor.seconds()) if self.isRunning else ""

    def start(self, endpoint: Any, factory: ConnectionFactory, reactor: Any) -> None:
        """
        Dial until a connection is made, and again when it is lost.
        """
        self._reactor = reactor
        self._dialed = endpoint, factory
        renewInForks(reactor)
        service = self._newService()
        if self._failures:
            self._pause = later(reactor, self._seconds(), service.startService)
        else:
            service.startService()

    def opened(self, now: float) -> None:
        """
        The connection can be used.
        """
        self._since = now
        self._attempts.succeeded()

    def refused(self, error: Exception) -> None:
        """
        A connection was lost before it could be used.
        """
        self._attempts.failed(error)

    def lost(self, now: float, error: Exception) -> None:
        """
        The connection that could be used is lost, and this is to be stopped: the next
        start begins with a pause.
        """
        self._attempts.lost(error)
        if self._since is not None and now - self._since > _SUCCESS:
            self._failures = 0
        self._failures += 1
        self.stop()

    def stop(self) -> None:
        """
        Dial no more.
        """
        service, self._service = self._service, None
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        if service is not None and service.running:
            service.stopService()

    def forked(self) -> None:
        """
        This is a fork of the process that dials: leave what is under way to that, and dial
        anew. A connection that can be used, is told of that itself.
        """
        if self._service is None or self._since is not None:
            return
        assert self._endpoint is not None
        self._endpoint.abandon()
        if self._pause is not None:
            self._pause.cancel()
        self._pause = later(self._reactor, 0, self._newService().startService)

    def _newService(self) -> ClientService:
        assert self._dialed is not None
        endpoint, factory = self._dialed
        self._since = None
        self._endpoint = NotedEndpoint(endpoint, self._attempts)
        self._service = ClientService(
            self._endpoint, factory, retryPolicy=self._failed, clock=self._reactor
        )
        return self._service

    def _failed(self, attempts: int) -> float:
        """
        How long to wait after an attempt. The count is our own: for the service, a
        connection that was made and refused was a success.
        """
        self._failures += 1
        return self._seconds()

    def _seconds(self) -> float:
        growth: float = _GROWTH ** min(self._failures - 1, 100)
        seconds = min(_PAUSE * growth, _LONGEST_PAUSE) * (0.5 + random())
        self._attempts.pause(self._reactor.seconds(), seconds)
        return seconds


@implementer(IConnectingWorker)
class WireWorker(RemoteWorker):
    """
    Runs tasks on a host that it dials::

        queue = TaskQueue(WireWorker(MyUniverse(), "tcp:host:4000", keyFile="shared.key"))
        result = await queue.call("method", 1, two=2)

    A queue hires it when it is connected, and again each time it has a new connection
    after it lost one. Without a queue it dials as there is a task.

    What is called is the name of a method of the universe, such a method itself, or
    another function or class, if the host is willing to run that.
    """

    def __init__(
        self,
        wwu: WireWorkerUniverse | None,
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
        @param wwu: a universe, which says what methods the host has; C{None}: that is for
            the host to say.
        @param description: where the host listens: a client endpoint string of Twisted.
        @param series: what it is qualified for, besides its kind.
        @param raw: whether iterators are sent as they are, where the call does not say.
        @param thread: whether methods run in threads of the host. C{thread=} in a call by
            name says so for that call, and does not reach the method.
        @param N_concurrent: how many of its calls may be under way at once; C{None}: as
            many as keep the host busy.
        @param key: the key that both sides must have.
        @param keyFile: the file that it is in; without both, the one that
            C{ASYNQUEUE_KEY_FILE} names in the environment.
        @param codec: how arguments and results are encoded: "pickle", or "cbor", with
            which nothing on the wire can execute code.
        @param heartbeat: the seconds of silence after which the host is asked for a sign
            of life; after three times that the connection is lost. C{None}: never.
        @param largest: how many bytes the result of a task may have, encoded.
        @param reactor: the reactor; C{None} is the installed one.
        @raise TypeError: C{wwu} is no universe; or C{series} is a string, or one of them is
            not hashable.
        @raise ValueError: something has no sense.
        """
        if wwu is not None:
            WireWorkerUniverse.check(wwu)
        super().__init__(
            description,
            series,
            raw=raw,
            thread=thread,
            N_concurrent=N_concurrent,
            universe=wwu,
            names=None if wwu is None else methodNames(type(wwu)),
            codec=codec,
            reactor=reactor,
        )
        self._description = description
        self._key = key
        self._keyFile = keyFile
        self._heartbeat = heartbeat
        self._largest = largest
        self._dialing = Dialing(description)
        # A connection that is not open yet, and who waits for one.
        self._attempt: Connection | None = None
        self._wanted: list[Deferred[None]] = []

    # IConnectingWorker

    @property
    def dialing(self) -> str:
        """
        What it does to get a connection, in words; nothing, if it has one or wants none.
        """
        return self._dialing.inWords() if self._session is None else ""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.dialing or self.host}>"

    def whenConnected(self) -> Deferred[None]:
        """
        A worker that has crashed or stopped begins a new life.

        @return: it fails with L{IdentityRefused<asynqueue.errors.IdentityRefused>} or
            L{VersionRefused<asynqueue.errors.VersionRefused>} if the host refuses, with
            L{IdentityRequired<asynqueue.errors.IdentityRequired>} if it would not prove
            itself, with C{ValueError} or C{OSError} if description or key are no good,
            and with C{CancelledError} when the worker crashes or is stopped.
        """
        life = self._tasks.life
        if life is Life.CRASHED or (life is Life.LEAVING and self.isGone):
            self._tasks.revive()
        if self._session is not None:
            return succeed(None)
        d: Deferred[None] = Deferred(self._unwanted)
        self._wanted.append(d)
        self._connect()
        return d

    # ConnectionOwner

    def opened(self, connection: Connection) -> None:
        self._attempt = None
        self._dialing.opened(self._theReactor().seconds())
        super().opened(connection)
        wanted, self._wanted = self._wanted, []
        for d in wanted:
            d.callback(None)

    def lost(self, connection: Connection, error: Exception) -> None:
        if connection is self._attempt:
            self._attempt = None
            if isinstance(error, _FINAL):
                self._giveUp(Failure(error))
            else:
                self._dialing.refused(error)
        elif self._session is not None and self._session.connection is connection:
            self._dialing.lost(self._theReactor().seconds(), error)
            super().lost(connection, error)

    # Within

    def _connect(self) -> None:
        if self._dialing.isRunning:
            return
        reactor = self._theReactor()
        try:
            key = keyFor(self._description, self._key, self._keyFile)
            requireIdentity(self._description, key, dials=True)
            endpoint = clientEndpoint(reactor, self._description)
        except Exception:
            # Descriptions and files of users, and plugins of anybody.
            later(reactor, 0, self._giveUp, Failure())
            return

        def make(address: IAddress) -> Connection:
            session = Session("queue", True, key=key, codec=self._codec.name, largest=self._largest)
            self._attempt = Connection(
                session, self, heartbeat=self._heartbeat, reactor=self._reactor
            )
            return self._attempt

        self._dialing.start(endpoint, ConnectionFactory(make), reactor)

    def _disconnect(self) -> None:
        self._stopDialing()
        wanted, self._wanted = self._wanted, []
        for d in wanted:
            d.errback(CancelledError("the worker was let go"))

    def _stopDialing(self) -> None:
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            attempt.abort()
        self._dialing.stop()

    def _unwanted(self, d: Deferred[None]) -> None:
        """
        Nobody waits for a connection with this Deferred any more.
        """
        if d in self._wanted:
            self._wanted.remove(d)
            if not self._wanted and not self._tasks.waiting and self._session is None:
                self._stopDialing()

    def _giveUp(self, failure: Failure) -> None:
        """
        There will be no connection.
        """
        self._stopDialing()
        wanted, self._wanted = self._wanted, []
        for d in wanted:
            d.errback(failure)
        for task in self._tasks.takeWaiting():
            task.errback(failure)
        self._checkEmpty()
