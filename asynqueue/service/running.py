"""
A host, or a queue, as a Twisted service.

::

    startService ─▶ WireServer.start ─▶ ready: a line in the log, and the service manager
                                   └──▶ failed: it cannot serve
    stopService  ─▶ WireServer.stop: running calls have the grace ─▶ stopped
    a signal in the meantime ─▶ WireServer.stop(0)
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from enum import Enum
from typing import Any, Protocol

from twisted.application.service import Service
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.python.failure import Failure
from txaio.tx import make_logger

from asynqueue.errors import AsynQueueError
from asynqueue.outcome import oneLine
from asynqueue.reactors import theReactor
from asynqueue.service.readiness import Notifier
from asynqueue.service.settings import Settings, processesOf, trustOf
from asynqueue.signals import EndSignals
from asynqueue.taskqueue import TaskQueue
from asynqueue.wire.host.server import WireServer

_log = make_logger()

# The seconds that a host has after a second signal.
_LAST_SECONDS = 2.0


class Server(Protocol):
    """
    What a host service wants of a L{WireServer}.
    """

    address: Any

    def start(self) -> Deferred[Any]:
        """
        Serve.

        @return: a Deferred that fires when it does. The address is then where it listens.
        """

    def stop(self, grace: float | None = None) -> Deferred[Any]:
        """
        End what runs, within C{grace} seconds.

        @return: a Deferred that fires when all has ended.
        """


class _Life(Enum):
    IDLE = "does nothing yet"
    STARTING = "gets ready"
    SERVING = "serves"
    STOPPING = "ends what it has"
    STOPPED = "has ended"


class HostService(Service):
    """
    Serves queues that connect, or one that it dials.

    @ivar forced: whether a second signal has ended what still ran.
    @ivar failure: why it could not serve, if it could not.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        failed: Callable[[Failure], None] = lambda failure: None,
        makeServer: Callable[[Settings, Any], Server] | None = None,
        notifier: Notifier | None = None,
        interrupts: EndSignals | None = None,
        reactor: Any = None,
    ) -> None:
        """
        @param settings: what it is to be.
        @param failed: is told if it cannot serve, after that was logged.
        @param makeServer: makes what serves of the settings and the reactor.
        @param notifier: tells the service manager.
        @param interrupts: hear signals, as L{ownSignals} do; C{None}: nobody does, as becomes
            a part of somebody's program.
        @param reactor: the reactor; C{None} is the installed one.
        """
        self.forced = False
        self.failure: Failure | None = None
        self._settings = settings
        self._failed = failed
        self._makeServer = makeServer or serverOf
        self._notifier = notifier or Notifier({})
        self._interrupts = interrupts
        self._reactor = reactor
        self._life = _Life.IDLE
        self._server: Server | None = None
        self._waiting: list[Deferred[None]] = []
        self._trigger: Any = None

    def startService(self) -> None:
        """
        Begin to serve. What goes wrong is logged, and told to C{failed}.
        """
        if self._life not in (_Life.IDLE, _Life.STOPPED):
            return
        super().startService()  # type: ignore[no-untyped-call]
        self._life = _Life.STARTING
        self.failure = None
        self.forced = False
        reactor = theReactor(self._reactor)
        # This stands before what the queue of the server wants to do when the reactor
        # stops, which is to end at once what has not begun. We give that back.
        self._trigger = reactor.addSystemEventTrigger("before", "shutdown", self._reactorStops)
        if self._interrupts is not None:
            reactor.callWhenRunning(self._interrupts.hear, self._interrupted)
        started = maybeDeferred(self._start, reactor)
        started.addCallback(lambda _: reactor.callWhenRunning(self._serves))
        started.addErrback(self._cannotServe)

    def stopService(self) -> Deferred[None]:
        """
        Take no more calls, and let those that run go on for the time of grace.

        @return: a Deferred that fires when all has ended.
        """
        super().stopService()  # type: ignore[no-untyped-call]
        if self._life in (_Life.IDLE, _Life.STOPPED):
            return succeed(None)
        waiter: Deferred[None] = Deferred()
        self._waiting.append(waiter)
        if self._life is not _Life.STOPPING:
            self._stop()
        return waiter

    def endNow(self) -> None:
        """
        Wait no longer for what still runs.
        """
        if self._life is _Life.STOPPING and self._server is not None:
            _log.warn("ending at once, whatever still runs")
            self.forced = True
            self._server.stop(0)

    def _interrupted(self, number: signal.Signals) -> None:
        self.endNow()

    def _start(self, reactor: Any) -> Deferred[Any]:
        self._server = self._makeServer(self._settings, reactor)
        return self._server.start()

    def _serves(self) -> None:
        if self._life is not _Life.STARTING or self._server is None:
            # It was told to stop in the meantime.
            return
        self._life = _Life.SERVING
        where = whereOf(self._settings, self._server.address)
        _log.info("serving {where}: {what}", where=where, what=whatOf(self._settings))
        self._notifier.ready(f"serving {where}")

    def _cannotServe(self, failure: Failure) -> None:
        if self._life is not _Life.STARTING:
            return
        self.failure = failure
        if failure.check(LookupError) and (self._settings.listen or "").startswith("systemd:"):
            # Twisted's parser has no words for it.
            _log.critical(
                "cannot serve: systemd has passed no such socket as {listen} names (LISTEN_FDS,"
                " LISTEN_FDNAMES)",
                listen=self._settings.listen,
            )
        elif failure.check(AsynQueueError, OSError, ValueError, TypeError, ImportError):
            # These say what to do; where they were raised helps nobody.
            error: Any = failure.value
            _log.critical("cannot serve: {reason}", reason=oneLine(error))
        else:
            _log.failure("cannot serve", failure=failure)
        self._failed(failure)

    def _stop(self) -> None:
        self._life = _Life.STOPPING
        self._ignoreReactor()
        server = self._server
        if self._interrupts is not None:
            self._interrupts.ending()
        if server is None or self.failure is not None:
            stopped: Deferred[Any] = succeed(None)
        else:
            grace = self._settings.grace
            _log.info(
                "ending: what runs has {grace:g} s; a second signal ends it at once", grace=grace
            )
            self._notifier.stopping(f"running calls have {grace:g} s to end")
            stopped = maybeDeferred(server.stop)
        stopped.addErrback(lambda failure: _log.failure("could not end well", failure=failure))
        stopped.addCallback(self._stopped)

    def _stopped(self, _: Any) -> None:
        self._life = _Life.STOPPED
        if self._interrupts is not None:
            self._interrupts.ended()
        _log.info("ended")
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.callback(None)

    def _reactorStops(self) -> Deferred[None]:
        # The trigger that is being run cannot be removed.
        self._trigger = None
        return self.stopService()

    def _ignoreReactor(self) -> None:
        if self._trigger is not None:
            theReactor(self._reactor).removeSystemEventTrigger(self._trigger)
            self._trigger = None


class QueueService(Service):
    """
    A queue of a program, which is shut down when its service is stopped.
    """

    def __init__(self, queue: TaskQueue) -> None:
        """
        @param queue: its C{timeout} is the grace for what runs then.
        """
        self.queue = queue

    def stopService(self) -> Deferred[None]:
        """
        Shut the queue down.

        @return: a Deferred that fires when nothing is left of it.
        """
        super().stopService()  # type: ignore[no-untyped-call]
        return self.queue.shutdown()


def ownSignals() -> EndSignals:
    """
    Return what hears the signals of a process that is nothing but a service. The first one is the
    reactor's, which stops, and the service with it; after a second one the process ends, even if
    its reactor hangs.
    """
    return EndSignals(isEnding=False, lastSeconds=_LAST_SECONDS)


def makeService(what: Settings | TaskQueue, **kw: Any) -> Service:
    """
    Return a Twisted service: of settings, a host; of a queue, one that shuts it down.

    @param kw: keywords of L{HostService}.
    """
    if isinstance(what, TaskQueue):
        return QueueService(what)
    return HostService(what, **kw)


def serverOf(settings: Settings, reactor: Any = None) -> WireServer:
    """
    Return the server that settings describe. It does not serve yet.

    @raise AsynQueueError: that cannot be.
    """
    return WireServer(
        settings.listen or settings.connect or "",
        settings.universe,
        keyFile=settings.keyFile,
        codec=settings.codec,
        trust=trustOf(settings),
        allow=settings.allow,
        series=settings.series,
        processes=processesOf(settings),
        threads=settings.threads,
        concurrent=settings.concurrent,
        dial=settings.listen is None,
        heartbeat=settings.heartbeat or None,
        grace=settings.grace,
        reactor=reactor,
    )


def whereOf(settings: Settings, address: Any = None) -> str:
    """
    Return where a service serves, in words.

    @param address: where it listens, as an C{IAddress}, if it does.
    """
    if settings.listen is None:
        return f"the queue at {settings.connect}"
    if isinstance(address, (IPv4Address, IPv6Address)):
        return f"at {settings.listen} ({address.host}:{address.port})"
    return f"at {settings.listen}"


def whatOf(settings: Settings) -> str:
    """
    Return what a service runs, and where, in words.
    """
    called = [f"methods of {settings.universe}"] if settings.universe else []
    if settings.allow:
        called.append(f"functions of {', '.join(settings.allow)}")
    if trustOf(settings) == "code":
        called.append("any code")
    processes = processesOf(settings)
    many = f"{processes} process{'' if processes == 1 else 'es'}" if processes else "the reactor"
    return f"{', '.join(called)}; in {many}"
