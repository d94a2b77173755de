"""
A number of child processes that make calls, for programs with any event loop, or
with none.

::

    apply ─▶ JobDispatcher ─▶ child
    AsyncResult, callbacks ◀─ Job ◀─ Outputs ◀─┘
"""

from __future__ import annotations

import signal as signals
from collections.abc import Callable, Iterable
from functools import partial
from time import monotonic
from typing import Any

from asynqueue.checks import listOf, secondsOrNone, wholeNumber
from asynqueue.cores import cores
from asynqueue.errors import ForkError
from asynqueue.forks import tellForks
from asynqueue.loops.adapters import adapterOf
from asynqueue.loops.own import OwnLoop
from asynqueue.outcome import describeCall
from asynqueue.pool.dispatcher import JobDispatcher
from asynqueue.pool.jobs import Callbacks, Job
from asynqueue.pool.outputs import Outputs
from asynqueue.pool.results import AsyncResult
from asynqueue.processes.limits import Limits
from asynqueue.processes.process import ChildProcess
from asynqueue.processes.roles import CallTuple
from asynqueue.processes.spawn import Spawned
from asynqueue.processes.supervisor import Supervisor


class EventPool:
    """
    Processes that make calls, driven by an event loop.

    It begins to read results when it is registered with a loop. Without, each
    caller that waits for a result drives it for so long.
    """

    def __init__(
        self,
        processes: int | None = None,
        initializer: Callable[..., Any] | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
        max_memory_per_child: int | None = None,
        timeout: float | None = None,
        soft_timeout: float | None = None,
        proc_alive_timeout: float | None = None,
        on_process_exit: Callable[[int, int | None], Any] | None = None,
        putlocks: bool = True,
        *,
        spawn: Callable[[int], Spawned] = Spawned,
        now: Callable[[], float] = monotonic,
    ) -> None:
        """
        @param processes: how many; C{None}: as many as this process may use cores.
        @param initializer: is called with C{initargs} in each process, first.
        @param maxtasksperchild: how many calls a process makes before it is
            replaced.
        @param max_memory_per_child: the kB that it may have as a call ends, before
            it is replaced.
        @param timeout: the seconds that a call may take, before its process is
            ended.
        @param soft_timeout: those before an exception is raised in it.
        @param proc_alive_timeout: the seconds in which a process must be up, before
            it is ended and another one tried.
        @param on_process_exit: is called with the process ID and the exit code, or
            minus the signal, of each process that is gone; C{None} if that cannot be
            known, as where SIGCHLD is ignored.
        @param putlocks: whether a process gets a call only when it has none.
        @param spawn: starts a process, as L{ChildProcess} wants it.
        @param now: tells the time, in seconds, as loops do with which it is registered.
        @raise ValueError: a number is out of its range.
        @raise TypeError: C{initargs} is a string.
        """
        count = cores() if processes is None else wholeNumber(processes, "processes")
        self.timeout = secondsOrNone(timeout, "timeout")
        self.soft_timeout = secondsOrNone(soft_timeout, "soft_timeout")
        initial: list[CallTuple] = []
        if initializer is not None:
            initial.append((initializer, tuple(listOf(initargs, "initargs")), {}))
        memory = None if max_memory_per_child is None else max_memory_per_child << 10
        limits = Limits(maxtasksperchild, memory, excess=None)
        # Whether this process is a fork, and its parent has the processes.
        self._isParents = False
        self._now = now
        self._loop = OwnLoop(now=now)
        self._outputs = Outputs(
            self._loop,
            secondsOrNone(proc_alive_timeout, "proc_alive_timeout"),
            isEnough=not initial,
            joinExited=self._joinExited,
        )
        self._jobs = JobDispatcher(
            self._loop,
            lambda jobs: Supervisor(
                jobs,
                lambda: self._loop,
                limits,
                initial,
                reader=self._outputs,
                start=partial(ChildProcess, spawn=spawn),
                now=now,
            ),
            oneByOne=putlocks,
            onExit=on_process_exit,
            gone=self._outputs.removeGone,
            now=now,
        )
        self._supervisors = self._jobs.supervisors
        self._supervisors.grow(count)
        self._jobs.fill()
        tellForks(self)

    # What a pool is asked

    def register_with_event_loop(self, loop: Any) -> None:
        """
        Have a loop do all that is to be done.

        @param loop: a Twisted reactor, an asyncio loop, or any object with
            C{add_reader(fd, callback, *args)} and C{remove_reader(fd)}.
        @raise ImplementationError: it is none of these.
        """
        self._loop.register(adapterOf(loop))

    def apply_async(
        self,
        target: Callable[..., Any],
        args: Iterable[Any] = (),
        kwargs: dict[str, Any] | None = None,
        callback: Callable[[Any], Any] | None = None,
        error_callback: Callable[[BaseException], Any] | None = None,
        accept_callback: Callable[[int, float], Any] | None = None,
        timeout_callback: Callable[[bool, float], Any] | None = None,
        soft_timeout: float | None = None,
        timeout: float | None = None,
    ) -> AsyncResult:
        """
        Have a call made.

        @param callback: is called with the value.
        @param error_callback: is called with the exception.
        @param accept_callback: is called with the process ID and the time, of
            C{time.monotonic}, when the call begins.
        @param timeout_callback: is called with whether it is the soft limit, and the
            limit in seconds, when the call exceeds it.
        @param soft_timeout: as for the pool, for this call.
        @param timeout: as for the pool, for this call.
        @raise QueueRunError: the pool is closed.
        @raise ValueError: a limit is out of its range.
        """
        callTuple: CallTuple = (target, tuple(args), dict(kwargs or {}))
        self._jobs.checkOpen(lambda: describeCall(*callTuple))
        job = Job(
            callTuple,
            AsyncResult(self._waitFor),
            Callbacks(callback, error_callback, accept_callback, timeout_callback),
            secondsOrNone(soft_timeout, "soft_timeout") or self.soft_timeout,
            secondsOrNone(timeout, "timeout") or self.timeout,
        )
        self._submit(job)
        return job.result

    def pids(self) -> list[int]:
        """
        Return the process IDs of the children that live.
        """
        return [child.pid for child in self._supervisors.children]

    @property
    def size(self) -> int:
        """
        How many processes there are to be.
        """
        return len(self._supervisors)

    def grow(self, n: int = 1) -> None:
        """
        Have C{n} more processes.

        @raise ValueError: that is no whole number, or less than 0.
        """
        self._supervisors.grow(wholeNumber(n, "n", 0))
        self._jobs.fill()

    def shrink(self, n: int = 1) -> None:
        """
        Have C{n} processes less. One that is busy ends its call first.

        @raise ValueError: that is no whole number, or less than 0, or none would be left.
        """
        self._supervisors.shrink(wholeNumber(n, "n", 0))

    def terminate_job(self, pid: int, signal: int | None = None) -> None:
        """
        Send a signal to the process that makes a call, SIGTERM if nothing else is
        said. The call fails with L{WorkerLostError}; another process takes its
        place.

        @raise ValueError: no process of this pool has this ID.
        """
        for child in self._supervisors.children:
            if child.pid == pid:
                child.signal(signals.SIGTERM if signal is None else signal)
                return
        raise ValueError(f"{pid!r} is no process of this pool: it has {self.pids()}")

    def maintain(self) -> None:
        """
        Have all processes that there are to be.
        """
        self._jobs.fill()

    def flush(self) -> None:
        """
        Do what can be done at once: send what waits, take what has come.
        """
        for child in self._supervisors.children:
            child.calls.flush()
        self._loop.turn(0)

    def did_start_ok(self) -> bool:
        """
        Tell whether no process has died as it started.
        """
        supervisors = self._supervisors
        return not any(each.starts.falseStarts for each in supervisors) and bool(
            supervisors.children
        )

    def restart(self) -> AsyncResult:
        """
        Replace all processes by fresh ones, each when it has ended its call.

        @return: the result of a call that is made by a fresh one.
        """
        self._supervisors.renew()
        self._jobs.fill()
        return self.apply_async(_nothing)

    def close(self) -> None:
        """
        Take no more calls.
        """
        self._jobs.close()

    def leave(self) -> None:
        """
        Take no more calls, and wait for nothing: nobody has this pool any more. Called by the
        garbage collector, too. Where no loop drives it, its processes are killed when the last
        result is dropped that a caller may wait for.
        """
        self.close()

    @property
    def isDriven(self) -> bool:
        """
        Whether calls end without somebody who waits for them.
        """
        return self._loop.isDriven

    def leaveLoop(self) -> None:
        """
        Have no event loop do anything any more: it may be closed already. What is
        left to be done, L{join} does.
        """
        self._loop.unregister()

    def join(self) -> None:
        """
        Wait until all calls have ended and all processes are gone. To be called
        after L{close} or L{terminate}.
        """
        while not self._isOver:
            self._loop.turn(None)

    def terminate(self) -> None:
        """
        End all processes at once, also those that were told to end. Calls that wait, or
        have not begun, fail; those that run fail when their processes are gone.
        """
        self._jobs.terminate()

    def breakDown(self, error: BaseException) -> None:
        """
        Fail all calls with what has failed to drive the pool, and end what is left of the
        processes. To be called where that was caught.
        """
        self._jobs.breakDown(error)
        self._outputs.byDescriptor.clear()

    # Within

    def forked(self) -> None:
        """
        Take the pool for gone in a fork, where nothing comes of its calls: the processes are the
        parent's.
        """
        self._isParents = True
        self._loop.forked()
        self._jobs.forked()

    def _joinExited(self) -> bool:
        children = self._supervisors.children
        for child in children:
            child.checkEnded()
        return not self._supervisors.children

    @property
    def _isOver(self) -> bool:
        """
        Whether nothing is left to be done.
        """
        return self._jobs.isOver

    def _submit(self, job: Job) -> None:
        self._jobs.submit(job)

    def _waitFor(self, result: AsyncResult, timeout: float | None) -> None:
        """
        Drive the pool until a result is here.

        @raise ForkError: it will not come here.
        """
        self._checkNoFork()
        deadline = None if timeout is None else self._now() + timeout
        while not result.ready():
            left = None if deadline is None else deadline - self._now()
            if left is not None and left <= 0:
                return
            self._loop.turn(left)

    def _checkNoFork(self) -> None:
        if self._isParents:
            raise ForkError("get()", "pool")


def _nothing() -> None:
    """
    Do nothing: it is called to see whether calls are made.
    """
