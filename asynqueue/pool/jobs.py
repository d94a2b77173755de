"""
The calls of a pool, and what is called as they go on.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Context
from functools import partial
from typing import Any

from asynqueue.errors import (
    QueueRunError,
    TimeLimitExceeded,
    WorkerError,
    WorkerLostError,
)
from asynqueue.loops.adapters import LoopAdapter, Timer
from asynqueue.outcome import describeCall, inWords
from asynqueue.pool.results import AsyncResult
from asynqueue.processes.guard import harmless
from asynqueue.processes.process import ChildProcess
from asynqueue.processes.roles import CallTuple, ExitReport


class Callbacks:
    """
    What is called as a job goes on. What they raise is logged, and harms nobody.
    """

    def __init__(
        self,
        callback: Callable[[Any], Any] | None,
        error_callback: Callable[[BaseException], Any] | None,
        accept_callback: Callable[[int, float], Any] | None,
        timeout_callback: Callable[[bool, float], Any] | None,
    ) -> None:
        self.returned = callback
        self.failed = error_callback
        self.accepted = accept_callback
        self.timedOut = timeout_callback


class Job:
    """
    A call of a pool, from C{apply_async} to its end.

    @ivar number: what its process calls it.
    @ivar tries: how many processes have ended that had this and had begun nothing that they had.
    """

    def __init__(
        self,
        callTuple: CallTuple,
        result: AsyncResult,
        callbacks: Callbacks,
        soft: float | None,
        hard: float | None,
    ) -> None:
        """
        @param result: what the caller holds.
        @param soft: the seconds after which an exception is raised in the call; C{None}:
            it has no such limit.
        @param hard: the seconds after which its process is ended.
        """
        self.callTuple = callTuple
        self.result = result
        self.number = 0
        self.tries = 0
        self._callbacks = callbacks
        self._soft = soft
        self._hard = hard
        self._isBegun = False
        # Whether its process was ended because of the hard limit ...
        self._exceeded = False
        # ... and whether the signal of the soft one has not come there.
        self._isDeaf = False
        self._timers: list[Timer] = []

    def __str__(self) -> str:
        return describeCall(*self.callTuple)

    def begin(self, child: ChildProcess, loop: LoopAdapter, now: float) -> None:
        """
        Take note that the call begins, and have its limits hold from now on. May be called
        more than once.

        @param now: the time, for the callback.
        """
        if self._isBegun:
            return
        self._isBegun = True
        tell(self._callbacks.accepted, child.pid, now)
        if self._soft is not None:
            soft = partial(self._softLimit, child, self._soft)
            self._timers.append(loop.callLater(self._soft, soft))
        if self._hard is not None:
            hard = partial(self._hardLimit, child, self._hard)
            self._timers.append(loop.callLater(self._hard, hard))

    def takenBack(self) -> Job:
        """
        Take note that its process has not begun it, and that another one will.

        @return: this job.
        """
        self._stopTimers()
        self._isBegun = self._exceeded = False
        return self

    def succeed(self, value: Any) -> None:
        """
        End it with the value of the call.
        """
        self._stopTimers()
        self.result.succeed(value)
        tell(self._callbacks.returned, value)

    def fail(self, error: BaseException) -> None:
        """
        End it with an error, if it has not ended.
        """
        self._stopTimers()
        if not self.result.ready():
            self.result.fail(error)
            tell(self._callbacks.failed, error)

    def lose(self, ending: ExitReport) -> None:
        """
        End it with the end of the process that had begun it, or that was the last of too many
        which ended before they began it.
        """
        if ending.poison is self:
            lost = ending.errorFor(self)
            reason = f"{lost.call}: {lost.reason}"
            self.fail(WorkerLostError(ending.pid, lost.exitCode, lost.signal, reason=reason))
        elif self._exceeded and self._hard is not None:
            self.fail(TimeLimitExceeded(self._hard, self._isDeaf))
        else:
            code = ending.exitCode
            self.fail(WorkerLostError(ending.pid, code, ending.signal, str(self), ending.why))

    def turnAway(self, cause: BaseException | None) -> None:
        """
        End it because its pool is at its end.

        @param cause: what has ended the pool, if nobody wanted that.
        """
        if cause is None:
            self.fail(QueueRunError(str(self)))
            return
        error = WorkerError(
            f"{self} has no result: what drives its pool has failed: {inWords(cause)}"
        )
        error.__cause__ = cause
        self.fail(error)

    def _softLimit(self, child: ChildProcess, seconds: float) -> None:
        child.calls.interrupt(self.number, seconds)
        tell(self._callbacks.timedOut, True, seconds)

    def _hardLimit(self, child: ChildProcess, seconds: float) -> None:
        self._exceeded = True
        self._isDeaf = child.calls.isDeaf(self.number)
        tell(self._callbacks.timedOut, False, seconds)
        child.kill(f"a call ran for more than its {seconds:g} s")

    def _stopTimers(self) -> None:
        timers, self._timers = self._timers, []
        for timer in timers:
            timer.cancel()


def tell(f: Callable[..., Any] | None, *args: Any) -> None:
    """
    Call a callback, if there is one, without the context variables of what drives the pool:
    an event loop, a thread, or a caller that waits for another result.
    """
    if f is not None:
        harmless("a callback of a pool", Context().run, f, *args)
