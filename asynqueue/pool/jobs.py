"""
The calls of a pool, and what is called as they go on.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Context
from typing import Any

from asynqueue.loops.adapters import Timer
from asynqueue.pool.results import AsyncResult
from asynqueue.processes.guard import harmless
from asynqueue.processes.roles import CallTuple


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
        self.callTuple = callTuple
        self.result = result
        self.callbacks = callbacks
        self.soft = soft
        self.hard = hard
        self.number = 0
        self.tries = 0
        self.exceeded = False
        # Whether the signal of its soft limit has not come there.
        self.isDeaf = False
        self.accepted = False
        self.timers: list[Timer] = []

    def stopTimers(self) -> None:
        """
        It is timed no more.
        """
        timers, self.timers = self.timers, []
        for timer in timers:
            timer.cancel()

    def notBegun(self) -> Job:
        """
        Its process has not begun it, and another one will.
        """
        self.stopTimers()
        self.accepted = self.exceeded = False
        return self


def tell(f: Callable[..., Any] | None, *args: Any) -> None:
    """
    Call a callback, if there is one, without the context variables of what drives the pool:
    an event loop, a thread, or a caller that waits for another result.
    """
    if f is not None:
        harmless("a callback of a pool", Context().run, f, *args)
