"""
A worker that dials its host, and again when the connection was lost.
"""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IAddress
from twisted.python.failure import Failure
from zope.interface import implementer

from asynqueue.forks import tellForks
from asynqueue.framing import LARGEST
from asynqueue.interfaces import IConnectingWorker
from asynqueue.timers import later
from asynqueue.wire.client.remote import RemoteWorker
from asynqueue.wire.host.catalog import WireWorkerUniverse, methodNames
from asynqueue.wire.protocol.session import Session
from asynqueue.wire.transport.connecting import Attempts, ConnectionFactory, Dialer
from asynqueue.wire.transport.connection import Connection
from asynqueue.wire.transport.endpoints import clientEndpoint, keyFor, requireIdentity
from asynqueue.workers.prefetch import Life


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
        @raise ValueError: C{N_concurrent} is no number of calls, or there is no such codec.
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
        self._attempts = Attempts(description)
        self._dialer: Dialer | None = None
        # A connection that is not open yet, and who waits for one.
        self._attempt: Connection | None = None
        self._wanted: list[Deferred[None]] = []
        tellForks(self)

    # IConnectingWorker

    @property
    def dialing(self) -> str:
        """
        What it does to get a connection, in words; nothing, if it has one or wants none.
        """
        if self._dialer is None or self._session is not None:
            return ""
        return self._attempts.inWords(self._theReactor().seconds())

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.dialing or self.host}>"

    def whenConnected(self) -> Deferred[None]:
        """
        Get a connection. A worker that has crashed or stopped begins a new life.

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
        if self._dialer is not None:
            self._dialer.opened(connection)
        super().opened(connection)
        wanted, self._wanted = self._wanted, []
        for d in wanted:
            d.callback(None)

    def lost(self, connection: Connection, error: Exception) -> None:
        if connection is self._attempt:
            self._attempt = None
            if self._dialer is not None:
                self._dialer.lost(connection, error)
        elif self._session is not None and self._session.connection is connection:
            self._attempts.failed(self._theReactor().seconds(), error, isTold=True)
            self._stopDialing()
            super().lost(connection, error)

    # Within

    def _connect(self) -> None:
        if self._dialer is not None:
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

        self._dialer = Dialer(endpoint, reactor, self._attempts)
        self._dialer.open(ConnectionFactory(make)).addErrback(self._giveUp)

    def _disconnect(self) -> None:
        self._stopDialing()
        wanted, self._wanted = self._wanted, []
        for d in wanted:
            d.errback(CancelledError("the worker was let go"))

    def _stopDialing(self) -> None:
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            attempt.abort()
        dialer, self._dialer = self._dialer, None
        if dialer is not None:
            dialer.shut()

    def forked(self) -> None:
        """
        In a fork of the process that dials, leave what is under way to that, and dial anew. A
        connection that can be used is told of that itself.
        """
        if self._dialer is not None and self._session is None:
            self._dialer.forked()
            self._dialer = self._attempt = None
            later(self._theReactor(), 0, self._dialAnew)

    def _dialAnew(self) -> None:
        if self._session is None and (self._wanted or self._tasks.waiting):
            self._connect()

    def _unwanted(self, d: Deferred[None]) -> None:
        """
        Dial no more if nobody else waits for a connection.
        """
        if d in self._wanted:
            self._wanted.remove(d)
            if not self._wanted and not self._tasks.waiting and self._session is None:
                self._stopDialing()

    def _giveUp(self, failure: Failure) -> None:
        """
        Tell those who wait that there will be no connection.
        """
        self._stopDialing()
        wanted, self._wanted = self._wanted, []
        for d in wanted:
            d.errback(failure)
        for task in self._tasks.takeWaiting():
            task.errback(failure)
        self._checkEmpty()
