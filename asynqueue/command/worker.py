"""
C{asynqueue worker}: a host in the foreground.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from twisted.logger import globalLogBeginner
from twisted.python.failure import Failure

from asynqueue.command.statuses import Status
from asynqueue.reactors import theReactor
from asynqueue.service.logs import observerFor, setLevel
from asynqueue.service.readiness import Notifier
from asynqueue.service.running import HostService, Server, ownSignals
from asynqueue.service.settings import Settings
from asynqueue.signals import EndSignals


def work(
    settings: Settings,
    makeServer: Callable[[Settings, Any], Server] | None = None,
    notifier: Notifier | None = None,
    interrupts: EndSignals | None = None,
) -> Status:
    """
    Serve until a signal ends it. The log goes to standard error. Runs the reactor, which
    can be done once in a process.

    @param makeServer: makes what serves of the settings and the reactor; C{None}: as
        L{HostService} does.
    @param notifier: is told when it serves, and when it stops; C{None}: tells systemd.
    @param interrupts: hear the signals; C{None}: those of L{ownSignals}.
    @return: whether all ended within the grace, it could not serve at all, or a second
        signal has ended it.
    """
    if settings.logLevel is not None:
        setLevel(settings.logLevel)
    observer = observerFor(sys.stderr, settings.logLevel, settings.logJson)
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)
    reactor: Any = theReactor()
    interrupts = interrupts or ownSignals()

    def failed(failure: Failure) -> None:
        # It may not run yet.
        reactor.callWhenRunning(reactor.callLater, 0, interrupts.stopReactor)

    service = HostService(
        settings,
        failed=failed,
        makeServer=makeServer,
        notifier=notifier or Notifier(),
        interrupts=interrupts,
    )
    service.startService()
    reactor.run()
    if service.failure is not None:
        return Status.FAILED
    return Status.TERMINATED if service.forced else Status.WELL
