"""
A worker that can run nothing for a while.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.logger import Logger

from asynqueue.interfaces import ITask
from asynqueue.processes.limits import Backoff
from asynqueue.timers import Timer, later

_log = Logger()


class Fault:
    """
    Why a worker can run nothing for now, which its queue is told.

    @ivar reason: why, in words; empty while it can run tasks.
    @ivar isHopeless: whether those who wait are told that there is no hope.
    @ivar reporter: what L{IFailingWorker.setReporter} gave; C{None} without a queue.
    """

    def __init__(self) -> None:
        self.reason = ""
        self.isHopeless = False
        self.reporter: Callable[[str, Sequence[ITask], bool], None] | None = None

    def tell(self, reason: str, tasks: Sequence[ITask] = (), isHopeless: bool = False) -> None:
        """
        Tell that the worker can run nothing.

        @param tasks: what it holds no more, and has not begun.
        """
        self.reason = reason
        self.isHopeless = isHopeless
        if self.reporter is not None:
            self.reporter(reason, tasks, isHopeless)

    def probe(self) -> None:
        """
        Only a task can show whether the worker can run tasks: have it be given one. Then
        the fault is told again, or L{stop} is to be called.
        """
        if self.reporter is not None:
            self.reporter("", (), False)

    def end(self) -> None:
        """
        Tell that the worker can run tasks.
        """
        if self.reason:
            self.stop()
            self.probe()

    def stop(self) -> None:
        """
        Forget the fault, and tell nobody: the worker goes, or begins anew.
        """
        self.reason = ""
        self.isHopeless = False


class RetriedFault(Fault):
    """
    The fault of a worker that tries again, after pauses that grow.
    """

    def __init__(
        self,
        name: Callable[[], str],
        reactor: Callable[[], Any],
        tryAgain: Callable[[], None] | None = None,
    ) -> None:
        """
        @param name: names the worker, in messages.
        @param reactor: gives the reactor.
        @param tryAgain: is called when a pause is over. It calls L{strike}, L{end} or
            L{probe}. C{None}: L{probe} is.
        """
        super().__init__()
        self._name = name
        self._tryAgain = self.probe if tryAgain is None else tryAgain
        self._backoff = Backoff(lambda: float(reactor().seconds()))
        self._pause = Timer(lambda seconds, f: later(reactor(), seconds, f))

    def strike(self, reason: str, tasks: Sequence[ITask] = ()) -> None:
        """
        Note that the worker can run nothing: it is to try again after a pause.

        @param tasks: what it holds no more, and has not begun.
        """
        if not self.reason:
            _log.error("{name}: {reason}", name=self._name(), reason=reason)
        self._backoff.failed()
        self._pause.start(self._backoff.leastPause, self._tryAgain)
        self.tell(reason, tasks, self._backoff.isHopeless)

    def stop(self) -> None:
        super().stop()
        self._backoff.succeeded()
        self._pause.stop()
