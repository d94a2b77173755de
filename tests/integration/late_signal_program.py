"""
A host that stops by itself, and to which a signal comes at that moment: C{before}, C{after} or
C{late}, when all that it had has ended.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from asynqueue.command.worker import work
from asynqueue.reactors import theReactor
from asynqueue.service.readiness import Notifier
from asynqueue.service.running import ownSignals, serverOf
from asynqueue.service.settings import Settings


class Ready(Notifier):
    """
    Ends the host as soon as it serves.
    """

    def ready(self, status: str) -> None:
        reactor.addSystemEventTrigger("before", "shutdown", lastMoments)
        if when == "before":
            shoot()
        interrupts.stopReactor()
        if when == "after":
            shoot()


def shoot() -> None:
    """
    Send a signal to this process.
    """
    os.kill(os.getpid(), signal.SIGTERM)


def lastMoments() -> Deferred[None]:
    """
    Let the reactor go on for two turns after the host has ended.
    """
    d: Deferred[Any] = server.whenStopped()
    d.addCallback(lambda _: deferLater(reactor, 0, shoot if when == "late" else int))
    return d.addCallback(lambda _: deferLater(reactor, 0))


(when,) = sys.argv[1:]
reactor: Any = theReactor()
interrupts = ownSignals()
settings = Settings(listen="tcp:0:interface=127.0.0.1", allow=["operator"], logLevel="warn")
server = serverOf(settings)
sys.exit(work(settings, lambda settings, reactor: server, Ready({}), interrupts).value)
