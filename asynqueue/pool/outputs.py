"""
What a pool reads of its processes, and whether they come up in time.
"""

from __future__ import annotations

from collections.abc import Callable

from asynqueue.loops.adapters import LoopAdapter, Timer
from asynqueue.pool.results import ResultHandler
from asynqueue.processes.process import ChildProcess


class Outputs:
    """
    The L{Reader<asynqueue.processes.roles.Reader>} of a pool's processes.

    @ivar byDescriptor: the processes, by the descriptors of what they send.
    @ivar results: who reads that.
    """

    def __init__(
        self,
        loop: LoopAdapter,
        aliveTimeout: float | None,
        isEnough: bool,
        joinExited: Callable[[], bool],
    ) -> None:
        """
        @param aliveTimeout: the seconds in which a process must be up, before it is ended;
            C{None}: it has time.
        @param isEnough: whether it is up as soon as it says so: nothing prepares it.
        @param joinExited: looks which processes have ended, and tells whether all have.
        """
        self._loop = loop
        self._aliveTimeout = aliveTimeout
        self._isEnough = isEnough
        self._timers: dict[int, Timer] = {}
        self.byDescriptor: dict[int, ChildProcess] = {}
        self.results = ResultHandler(
            fileno_to_outq=self.byDescriptor,
            on_process_alive=self._alive,
            join_exited_workers=joinExited,
        )
        self.results.attach(loop)

    def add(self, descriptor: int, child: ChildProcess) -> None:
        """
        Read from a process that has come, and see that it is up in time.
        """
        self.byDescriptor[descriptor] = child
        self.results.watch(descriptor)
        if self._aliveTimeout is not None:
            reason = f"it was not up within {self._aliveTimeout:g} s"
            self._timers[child.pid] = self._loop.callLater(
                self._aliveTimeout, lambda: None if child.calls.isUp else child.kill(reason)
            )

    def removeGone(self, pid: int) -> None:
        """
        Take note that a process is gone.
        """
        timer = self._timers.pop(pid, None)
        if timer is not None:
            timer.cancel()
        for descriptor, child in list(self.byDescriptor.items()):
            if child.isGone:
                del self.byDescriptor[descriptor]

    @property
    def pids(self) -> set[int]:
        """
        The process IDs of those whose coming up is waited for.
        """
        return set(self._timers)

    def _alive(self, pid: int) -> None:
        # With an initializer it is of use only after that: then the timer looks.
        if pid in self._timers and self._isEnough:
            self._timers.pop(pid).cancel()
