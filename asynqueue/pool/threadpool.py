"""
A pool that a thread of its own drives.
"""

from __future__ import annotations

import signal as signals
from collections.abc import Callable
from threading import Thread, current_thread
from typing import Any

from asynqueue.pool.eventpool import EventPool
from asynqueue.pool.jobs import Job
from asynqueue.pool.results import AsyncResult


class ThreadedPool(EventPool):
    """
    The same for programs without a loop: a thread of its own drives it. Callbacks
    are called in that thread. All methods may be called in any thread.
    """

    def __init__(self, *args: Any, **kw: Any) -> None:
        """
        @param args: as for L{EventPool}.
        """
        super().__init__(*args, **kw)
        self._loop.openWakeUp()
        self._thread = Thread(target=self._drive, name="asynqueue pool", daemon=True)
        self._thread.start()

    def register_with_event_loop(self, loop: Any) -> None:
        """
        Do nothing: this pool wants nothing of a loop.
        """

    @property
    def isDriven(self) -> bool:
        return True

    def grow(self, n: int = 1) -> None:
        self._inThread(super().grow, n)

    def shrink(self, n: int = 1) -> None:
        self._inThread(super().shrink, n)

    def terminate_job(self, pid: int, signal: int | None = None) -> None:
        self._inThread(super().terminate_job, pid, signal)

    def maintain(self) -> None:
        self._inThread(super().maintain)

    def flush(self) -> None:
        self._inThread(super().flush)

    def restart(self) -> AsyncResult:
        restarted: AsyncResult = self._inThread(super().restart)
        return restarted

    def close(self) -> None:
        self._inThread(super().close)

    def terminate(self) -> None:
        self._inThread(super().terminate)

    def leave(self) -> None:
        self._inThread(super().close, wait=False)

    def join(self) -> None:
        if current_thread() is not self._thread:
            self._thread.join()

    def _submit(self, job: Job) -> None:
        self._inThread(super()._submit, job, wait=False)

    def _waitFor(self, result: AsyncResult, timeout: float | None) -> None:
        if current_thread() is self._thread:
            super()._waitFor(result, timeout)
        else:
            self._checkNoFork()
            result.block(timeout)

    def _inThread(self, f: Callable[..., Any], *args: Any, wait: bool = True) -> Any:
        """
        Have the thread do something.

        @param wait: whether to wait for what it returns.
        """
        if current_thread() is self._thread:
            return f(*args)
        done = AsyncResult(lambda result, timeout: result.block(timeout))

        def do() -> None:
            try:
                done.succeed(f(*args))
            except BaseException as error:
                # It is raised where it was asked for.
                done.fail(error)

        if not self._loop.callFromThread(do):
            return f(*args)
        return done.get() if wait else None

    def _drive(self) -> None:
        """
        Run in the thread until nothing is left.
        """
        # Signals are the main thread's; and those of children that this thread has
        # started would come here first.
        signals.pthread_sigmask(signals.SIG_BLOCK, signals.valid_signals())
        try:
            while not self._isOver:
                self._loop.turn(None)
        except BaseException as error:
            # Nobody else would ever know.
            self.breakDown(error)
        self._loop.closeWakeUp()
        # Those who have asked for something wait for it.
        self._loop.makeCalls()
