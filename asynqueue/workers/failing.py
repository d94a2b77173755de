"""
A worker that can run nothing for a while.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.logger import Logger

from asynqueue.interfaces import ITask
from asynqueue.pool.upkeep import Backoff
from asynqueue.timers import Timer, later

_log = Logger()

# It tries again after so many seconds or more.
_LEAST_PAUSE = 0.05


class Fault:
    """
    Why a worker can run nothing for now: tells its queue, and has it try again, after pauses
    that grow.

    @ivar reason: why, in words; empty while it can run tasks.
    @ivar reporter: what L{IFailingWorker.setReporter} gave; C{None} without a queue.
    """

    def __init__(
        self, name: Callable[[], str], reactor: Callable[[], Any], tryAgain: Callable[[], None]
    ) -> None:
        """
        @param name: names the worker, in messages.
        @param reactor: gives the reactor.
        @param tryAgain: is called when a pause is over. It calls L{strike}, L{end} or
            L{probe}.
        """
        self.reason = ""
        self.reporter: Callable[[str, Sequence[ITask], bool], None] | None = None
        self._name = name
        self._tryAgain = tryAgain
        self._backoff = Backoff(lambda: float(reactor().seconds()))
        self._pause = Timer(lambda seconds, f: later(reactor(), seconds, f))

    @property
    def isHopeless(self) -> bool:
        """
        Whether those who wait should be told that there is no hope.
        """
        return self._backoff.isHopeless

    def strike(self, reason: str, tasks: Sequence[ITask] = ()) -> None:
        """
        The worker can run nothing: it is to try again after a pause.

        @param tasks: what it holds no more, and has not begun.
        """
        if not self.reason:
            _log.error("{name}: {reason}", name=self._name(), reason=reason)
        self.reason = reason
        self._backoff.failed()
        self._pause.start(max(self._backoff.pause, _LEAST_PAUSE), self._tryAgain)
        if self.reporter is not None:
            self.reporter(reason, tasks, self.isHopeless)

    def probe(self) -> None:
        """
        Only a task can show whether the worker can run tasks: have it be given one. Then
        L{strike} or L{stop} is to be called.
        """
        if self.reporter is not None:
            self.reporter("", (), False)

    def end(self) -> None:
        """
        The worker can run tasks.
        """
        if self.reason:
            self.stop()
            self.probe()

    def stop(self) -> None:
        """
        Try no more, and tell nobody: the worker goes, or begins anew.
        """
        self.reason = ""
        self._backoff.succeeded()
        self._pause.stop()
