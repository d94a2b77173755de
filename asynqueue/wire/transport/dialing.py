"""
Dialing, again and again, and what people are told of it: why the last attempt failed, and
when there is another.
"""

from __future__ import annotations

import os
from functools import partial
from typing import Any

from twisted.application.internet import backoffPolicy
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred, succeed
from twisted.internet.error import ConnectError, TimeoutError as ConnectionTimeout
from twisted.internet.interfaces import IAddress, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from asynqueue.errors import IdentityRefused, VersionRefused
from asynqueue.outcome import oneLine
from asynqueue.timers import Timer, later
from asynqueue.wire.transport.connection import Connection
from asynqueue.wire.transport.listening import ConnectionFactory
from asynqueue.wire.transport.sockets import letGo

_log = Logger()

# Between attempts: the seconds at first and at last, and their growth. There is up to
# a second of jitter, so that not all hosts of a hub that comes back are there at once.
_PAUSE = 0.5
_LONGEST_PAUSE = 30.0
_GROWTH = 1.7

# To try again would bring the same answer.
_FINAL = (IdentityRefused, VersionRefused)


def reasonOf(error: BaseException) -> str:
    """
    Why there is no connection, in words.
    """
    if isinstance(error, ConnectError) and error.osError:
        return os.strerror(error.osError)
    if isinstance(error, ConnectionTimeout):
        return "no answer in time"
    return oneLine(error).rstrip(".")


class Attempts:
    """
    Notes what comes of the attempts to reach one place, and logs each reason why they
    fail once.
    """

    def __init__(self, where: str) -> None:
        """
        @param where: an endpoint string.
        """
        self._where = where
        self._reason = ""
        self._told = ""
        # When the next one begins; C{None}: one is under way.
        self._next: float | None = None

    def begun(self) -> None:
        """
        An attempt begins.
        """
        self._next = None

    def failed(self, error: BaseException) -> None:
        """
        An attempt has failed.
        """
        text = reasonOf(error)
        self._reason = text[:1].lower() + text[1:] if text[1:2].islower() else text

    def lost(self, error: BaseException) -> None:
        """
        A connection was lost, which somebody else logs.
        """
        self.failed(error)
        self._told = self._reason

    def pause(self, now: float, seconds: float) -> None:
        """
        There is another attempt after a pause.

        @param now: the time of the reactor, in seconds.
        """
        self._next = now + seconds
        if self._reason != self._told:
            self._told = self._reason
            _log.warn("{attempts}", attempts=self.inWords(now), reason=self._reason)

    def succeeded(self) -> None:
        """
        There is a connection that can be used.
        """
        self._reason = self._told = ""
        self._next = None

    def inWords(self, now: float) -> str:
        """
        Say where this dials, why that failed and what is next.

        @param now: the time of the reactor, in seconds.
        """
        said = f"dialing {self._where}"
        if self._reason:
            said += f": {self._reason}"
        if self._next is not None:
            return f"{said}, next try in {max(0.0, self._next - now):.2g} s"
        return f"{said}, trying again" if self._reason else said


@implementer(IStreamClientEndpoint)
class NotedEndpoint:
    """
    An endpoint whose attempts are noted.
    """

    def __init__(self, endpoint: Any, attempts: Attempts) -> None:
        """
        @param endpoint: an C{IStreamClientEndpoint}.
        """
        self._endpoint = endpoint
        self._attempts = attempts
        self._isAbandoned = False

    def __repr__(self) -> str:
        return repr(self._endpoint)

    def connect(self, protocolFactory: Any) -> Deferred[Any]:
        """
        Connect. What the endpoint raises fails the Deferred.
        """
        if self._isAbandoned:
            return Deferred()
        self._attempts.begun()
        connecting: Deferred[Any] = maybeDeferred(
            self._endpoint.connect, _AttemptFactory(protocolFactory)
        )
        return connecting.addErrback(self._failed)

    def abandon(self) -> None:
        """
        This is a fork of the process that dials: nothing comes of this endpoint here. What is
        under way is not ended, as that would end it for the parent.
        """
        self._isAbandoned = True

    def _failed(self, failure: Failure) -> Failure:
        if not failure.check(CancelledError):
            assert failure.value is not None
            self._attempts.failed(failure.value)
        return failure


class _AttemptFactory(Factory):
    """
    Knows in which process an attempt has begun.
    """

    noisy = False

    def __init__(self, factory: Any) -> None:
        self._factory = factory
        self._process = os.getpid()

    def buildProtocol(self, addr: IAddress | None) -> Any:
        if self._process != os.getpid():
            return _Inherited()
        return self._factory.buildProtocol(addr)


class _Inherited(Protocol):
    """
    A connection that the parent of this process, which is a fork, has begun, and has.
    """

    def connectionMade(self) -> None:
        """
        Let it go, before anything is sent or read.
        """
        transport: Any = self.transport
        letGo(transport)
        transport.abortConnection()


class Dialer:
    """
    Keeps one connection, again and again.

    Twisted's C{ClientService} takes a connection for good as soon as there is one. Here
    it is only when both sides have accepted each other: what is refused at once must not
    be tried again at once.
    """

    def __init__(self, endpoint: Any, reactor: Any, where: str) -> None:
        """
        @param endpoint: an C{IStreamClientEndpoint}.
        @param where: what it dials, in words.
        """
        self._attempts = Attempts(where)
        self._endpoint = NotedEndpoint(endpoint, self._attempts)
        self._reactor = reactor
        self._policy = backoffPolicy(_PAUSE, _LONGEST_PAUSE, _GROWTH)
        self._factory: ConnectionFactory | None = None
        self._connecting: Deferred[Any] | None = None
        self._timer = Timer(partial(later, reactor))
        self._failures = 0
        self._first: Deferred[Any] = Deferred()

    def open(self, factory: ConnectionFactory) -> Deferred[Any]:
        """
        It fires when the first connection is open, and fails if the other side does not
        want this one, now or ever.
        """
        self._factory = factory
        self._try()
        return self._first

    def opened(self, connection: Connection) -> None:
        self._failures = 0
        self._attempts.succeeded()
        if not self._first.called:
            self._first.callback(None)

    def lost(self, connection: Connection, error: Exception) -> None:
        if isinstance(error, _FINAL) and not self._first.called:
            self._first.errback(Failure(error))
        self._attempts.failed(error)
        self._again()

    def shut(self) -> Deferred[Any]:
        self._factory = None
        self._timer.stop()
        if self._connecting is not None:
            self._connecting.cancel()
        return succeed(None)

    def forked(self) -> None:
        self._factory = None
        self._timer.stop()
        self._connecting = None
        self._endpoint.abandon()

    def _try(self) -> None:
        assert self._factory is not None
        connecting = self._endpoint.connect(self._factory)
        self._connecting = connecting
        connecting.addCallbacks(self._connected, self._failed)

    def _connected(self, protocol: Any) -> None:
        """
        Whether it is of any use will be seen.
        """
        self._connecting = None

    def _failed(self, failure: Failure) -> None:
        self._connecting = None
        self._again()

    def _again(self) -> None:
        if self._factory is None or self._timer.isRunning:
            return
        self._failures += 1
        seconds = self._policy(self._failures)
        self._timer.start(seconds, self._try)
        self._attempts.pause(self._reactor.seconds(), seconds)
