"""
Which process of a pool makes which call, and what comes of them.

::

    submit ─▶ waiting jobs ─▶ an idle process ─▶ ChildProcess ─▶ child
    Job ◀─ returned, raised ◀─ ChildProcess ◀─┘
    waiting jobs ◀─ what it had not begun ◀─ exited
"""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Callable, Sequence
from enum import Enum
from time import monotonic
from typing import Any

from asynqueue.errors import MaybeEncodingError, QueueRunError, WorkerError
from asynqueue.iteration.far import FarSource
from asynqueue.loops.adapters import LoopAdapter
from asynqueue.outcome import Raised, cannotSend
from asynqueue.pool.jobs import Job, tell
from asynqueue.pool.supervisors import Supervisors
from asynqueue.processes.guard import harmless, isInterrupt, report
from asynqueue.processes.process import ChildProcess
from asynqueue.processes.roles import ExitReport
from asynqueue.processes.supervisor import Supervisor

# The most calls that are sent to a process ahead of the one it runs, where they may wait there.
_AHEAD = 16


class _Life(Enum):
    RUNNING = "takes calls"
    CLOSED = "ends those it has"
    TERMINATED = "is gone"


class JobDispatcher:
    """
    The jobs of a pool, from the moment they are submitted. It is the delegate of all who
    keep its processes: see L{SupervisorDelegate
    <asynqueue.processes.supervisor.SupervisorDelegate>}.

    @ivar supervisors: these.
    """

    def __init__(
        self,
        loop: LoopAdapter,
        newSupervisor: Callable[[JobDispatcher], Supervisor],
        *,
        oneByOne: bool = True,
        onExit: Callable[[int, int | None], Any] | None = None,
        gone: Callable[[int], None] = lambda pid: None,
        now: Callable[[], float] = monotonic,
    ) -> None:
        """
        @param newSupervisor: makes one that keeps a place, for this owner.
        @param oneByOne: whether a process gets a call only when it has none.
        @param onExit: is called with the process ID and the exit code, or minus the signal,
            of each process that is gone; C{None} if that cannot be known. It is the
            caller's: what it raises is logged.
        @param gone: is called with the process ID before that.
        @param now: tells the time, for callbacks.
        """
        self._loop = loop
        self._most = 1 if oneByOne else _AHEAD
        self._onExit = onExit
        self._gone = gone
        self._now = now
        self._life = _Life.RUNNING
        # Why it is at its end, if what drives it has failed.
        self._cause: BaseException | None = None
        self._waiting: deque[Job] = deque()
        self.supervisors = Supervisors(lambda: newSupervisor(self))

    @property
    def isOver(self) -> bool:
        """
        Whether nothing is left to be done.
        """
        return self._life is _Life.TERMINATED and not self.supervisors.children

    def checkOpen(self, call: Callable[[], str]) -> None:
        """
        Return if calls are taken.

        @param call: gives the call in words.
        @raise QueueRunError: they are not.
        """
        if self._life is not _Life.RUNNING:
            raise QueueRunError(call()) from self._cause

    def submit(self, job: Job) -> None:
        """
        Have a call made.
        """
        if self._life is _Life.TERMINATED:
            # Another thread has done that meanwhile.
            job.turnAway(self._cause)
            return
        self._waiting.append(job)
        self._dispatch()
        if self._waiting:
            self.fill()

    def fill(self) -> None:
        """
        Have all processes that there are to be.
        """
        if self._life is _Life.RUNNING or (self._life is _Life.CLOSED and self._waiting):
            self.supervisors.fill()

    def close(self) -> None:
        """
        Take no more calls. When the last has ended, the processes go.
        """
        if self._life is _Life.RUNNING:
            self._life = _Life.CLOSED
            self._checkClosed()

    def terminate(self) -> None:
        """
        End all processes at once, also those that were told to end. Calls that wait, or
        have not begun, fail; those that run fail when their processes are gone.
        """
        self._life = _Life.TERMINATED
        notBegun = self.supervisors.takeBack()
        self.supervisors.crash("the pool was terminated")
        waiting, self._waiting = self._waiting, deque()
        for job in (*notBegun, *waiting):
            job.turnAway(self._cause)

    def breakDown(self, error: BaseException) -> None:
        """
        Fail all calls because what drives the pool has failed, and leave nothing of the
        processes. To be called where that was caught.
        """
        self._life = _Life.TERMINATED
        self._cause = error
        children = self.supervisors.children
        jobs = [*self.supervisors.jobs, *self._waiting]
        self._waiting.clear()
        self.supervisors.clear()
        for child in children:
            child.signal(signal.SIGKILL)
        for child in children:
            harmless("the end of a process", child.abandon)
        for job in jobs:
            job.turnAway(error)
        report(error, "driving a pool: it is at its end")

    def forked(self) -> None:
        """
        Have nothing to do in a fork: the processes are the parent's, and the outcomes with them.
        """
        self._life = _Life.TERMINATED
        self._waiting.clear()

    # CallDelegate

    def returned(self, child: ChildProcess, job: Job, value: Any) -> None:
        """
        Hear that a call returned.
        """
        self._begin(child, job)
        job.succeed(value)

    def raised(self, child: ChildProcess, job: Job, outcome: Raised) -> None:
        """
        Hear that a call raised.
        """
        self._begin(child, job)
        job.fail(outcome.localError())

    def iterating(self, child: ChildProcess, job: Job, source: FarSource) -> None:
        """
        Fail a call that returned what cannot be its result here.
        """
        self._begin(child, job)
        source.stop()
        reason = "an iterator stays in the process that made it; return a list"
        job.fail(MaybeEncodingError(reason, source.text))

    def onBatchRead(self, child: ChildProcess) -> None:
        """
        Hear that there may be an idle process.
        """
        if child.calls.held:
            self._begin(child, next(iter(child.calls.held.values())))
        else:
            self.supervisors.onIdle(child)
            self.fill()
        self._dispatch()
        self._checkClosed()

    # SupervisorDelegate

    def filled(self, supervisor: Supervisor) -> None:
        """
        Hear that there is a process more.
        """
        self._dispatch()

    def exited(self, supervisor: Supervisor, ending: ExitReport) -> None:
        """
        Hear that there is a process less.
        """
        self._gone(ending.pid)
        for job in ending.losses:
            job.lose(ending)
        self._waitAgain(ending.notBegun)
        self.supervisors.exited(supervisor)
        code = ending.exitCode if ending.signal is None else -ending.signal
        tell(self._onExit, ending.pid, code)
        self.fill()
        self._dispatch()
        self._checkClosed()

    def handedBack(self, jobs: Sequence[Job]) -> None:
        """
        Take calls back, to be made elsewhere.
        """
        self._waitAgain(jobs)
        self.fill()
        self._dispatch()

    def failing(self, supervisor: Supervisor, reason: str, isHopeless: bool) -> None:
        """
        Fail what waits, if no process can be had: one ended as it started.
        """
        if not isHopeless:
            return
        waiting, self._waiting = self._waiting, deque()
        for job in waiting:
            job.fail(WorkerError(f"{job} was not run: {reason}"))
        self._checkClosed()

    # Within

    def _dispatch(self) -> None:
        """
        Give jobs to processes that have room, evenly. One that is not up yet gets
        none: a call is timed from the moment in which it is given.
        """
        if self._life is _Life.TERMINATED:
            return
        for most in range(1, self._most + 1):
            for supervisor in self.supervisors:
                while self._waiting and (child := supervisor.child) is not None:
                    held = child.calls.held
                    if not child.calls.isUp or len(held) >= most:
                        break
                    if held and self._waiting[0].tries:
                        break
                    self._give(supervisor, child, self._waiting.popleft())
            if not self._waiting:
                break

    def _give(self, supervisor: Supervisor, child: ChildProcess, job: Job) -> None:
        isFirst = not child.calls.held
        try:
            job.number = child.calls.make(job, *job.callTuple)
        except BaseException as error:
            # Somebody's objects: whatever their pickling raises. Or who runs the program ends
            # it, and must be heard: here no reactor sees to that.
            job.fail(cannotSend(error, job.callTuple, "call"))
            if isInterrupt(error):
                raise
            return
        if isFirst:
            self._begin(child, job)
        supervisor.given(child)
        if job.tries:
            # It may have ended another one: this one has no other.
            supervisor.reserve()

    def _begin(self, child: ChildProcess, job: Job) -> None:
        job.begin(child, self._loop, self._now())

    def _waitAgain(self, jobs: Sequence[Job]) -> None:
        """
        Have calls that a process has not begun wait before those that wait.
        """
        if self._life is _Life.TERMINATED:
            for job in jobs:
                job.turnAway(self._cause)
        else:
            self._waiting.extendleft(job.takenBack() for job in reversed(jobs))

    def _checkClosed(self) -> None:
        """
        Let the processes of a closed pool go when it has nothing left to do.
        """
        if self._life is _Life.CLOSED and not self._waiting and not self.supervisors.jobs:
            self._life = _Life.TERMINATED
            self.supervisors.finish()
