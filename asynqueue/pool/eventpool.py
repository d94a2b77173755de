"""
A number of child processes that make calls, for programs with any event loop, or
with none.

::

    apply ─▶ waiting jobs ─▶ an idle seat ─▶ Member ─▶ child
    AsyncResult, callbacks ◀─ EventPool ◀─ ResultHandler ◀─┘
"""

from __future__ import annotations

import signal as signals
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from functools import partial
from time import monotonic
from typing import Any

from asynqueue.checks import listOf, secondsOrNone, wholeNumber
from asynqueue.cores import cores
from asynqueue.errors import (
    ForkError,
    MaybeEncodingError,
    QueueRunError,
    TimeLimitExceeded,
    WorkerError,
    WorkerLostError,
)
from asynqueue.forks import tellForks
from asynqueue.loops.adapters import Timer, hubOf
from asynqueue.loops.own import Switchboard
from asynqueue.outcome import Raised, cannotSend, describeCall, inWords
from asynqueue.pool.jobs import Callbacks, Job, tell
from asynqueue.pool.results import AsyncResult, ResultHandler
from asynqueue.processes.guard import harmless, isInterrupt, report
from asynqueue.processes.iterators import MemberSource
from asynqueue.processes.limits import Limits
from asynqueue.processes.process import Member
from asynqueue.processes.roles import CallTuple, Ending
from asynqueue.processes.spawn import Spawned
from asynqueue.processes.supervisor import Seat

# Without the guard so many calls may be sent to a process ahead of the one it runs.
_AHEAD = 16


class _Life(Enum):
    RUNNING = "takes calls"
    CLOSED = "ends those it has"
    TERMINATED = "is gone"


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
        @param spawn: starts a process, as L{Member} wants it.
        @param now: tells the time, in seconds, as loops do with which it is registered.
        @raise ValueError: a number is out of its range.
        @raise TypeError: C{initargs} is a string.
        """
        count = cores() if processes is None else wholeNumber(processes, "processes")
        self.timeout = secondsOrNone(timeout, "timeout")
        self.soft_timeout = secondsOrNone(soft_timeout, "soft_timeout")
        self._initial: list[CallTuple] = []
        if initializer is not None:
            self._initial.append((initializer, tuple(listOf(initargs, "initargs")), {}))
        memory = None if max_memory_per_child is None else max_memory_per_child << 10
        self._limits = Limits(maxtasksperchild, memory, excess=None)
        self._aliveTimeout = secondsOrNone(proc_alive_timeout, "proc_alive_timeout")
        self._onExit = on_process_exit
        self._capacity = 1 if putlocks else _AHEAD
        self._life = _Life.RUNNING
        # Why it is at its end, if what drives it has failed.
        self._cause: BaseException | None = None
        # Whether this process is a fork, and its parent has the processes.
        self._isParents = False
        self._spawn = spawn
        self._now = now
        self._board = Switchboard(now=now)
        self.fileno_to_outq: dict[int, Member] = {}
        self._results = ResultHandler(
            fileno_to_outq=self.fileno_to_outq,
            on_process_alive=self._processAlive,
            join_exited_workers=self._joinExited,
        )
        self._results.attach(self._board)
        self._aliveTimers: dict[int, Timer] = {}
        self._waiting: deque[Job] = deque()
        self._seats: list[Seat] = []
        # Those that were taken away, and still end what they have.
        self._leaving: list[Seat] = []
        for _ in range(count):
            self._addSeat()
        self._fill()

        tellForks(self)

    # What a pool is asked

    def register_with_event_loop(self, loop: Any) -> None:
        """
        Have a loop do all that is to be done.

        @param loop: a Twisted reactor, an asyncio loop, or any object with
            C{add_reader(fd, callback, *args)} and C{remove_reader(fd)}.
        @raise ImplementationError: it is none of these.
        """
        self._board.register(hubOf(loop))

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
        if self._life is not _Life.RUNNING:
            raise QueueRunError(describeCall(*callTuple)) from self._cause
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
        The process IDs of the children that live.
        """
        return [member.pid for member in self._members()]

    @property
    def size(self) -> int:
        """
        How many processes there are to be.
        """
        return len(self._seats)

    def grow(self, n: int = 1) -> None:
        """
        Have so many processes more.

        @raise ValueError: that is no whole number, or less than 0.
        """
        for _ in range(wholeNumber(n, "n", 0)):
            self._addSeat()
        self._fill()

    def shrink(self, n: int = 1) -> None:
        """
        Have so many processes less. One that is busy ends its call first.

        @raise ValueError: that is no whole number, or less than 0, or none would be left.
        """
        if wholeNumber(n, "n", 0) >= len(self._seats):
            raise ValueError(f"a pool of {len(self._seats)} cannot shrink by {n!r}")
        # Those without work go first.
        seats = sorted(self._seats, key=lambda seat: any(m.held for m in seat.members))
        self._seats = seats[n:]
        for seat in seats[:n]:
            if seat.members:
                self._leaving.append(seat)
            seat.cancel()

    def terminate_job(self, pid: int, signal: int | None = None) -> None:
        """
        Send a signal to the process that makes a call, SIGTERM if nothing else is
        said. The call fails with L{WorkerLostError}; another process takes its
        place.

        @raise ValueError: no process of this pool has this ID.
        """
        for member in self._members():
            if member.pid == pid:
                member.signal(signals.SIGTERM if signal is None else signal)
                return
        raise ValueError(f"{pid!r} is no process of this pool: it has {self.pids()}")

    def maintain(self) -> None:
        """
        Have all processes that there are to be.
        """
        if self._life is not _Life.TERMINATED:
            self._fill()

    def flush(self) -> None:
        """
        Do what can be done at once: send what waits, take what has come.
        """
        for member in self._members():
            member.flush()
        self._board.turn(0)

    def did_start_ok(self) -> bool:
        """
        Whether no process has died as it started.
        """
        return not any(seat.falseStarts for seat in self._seats) and bool(self._members())

    def restart(self) -> AsyncResult:
        """
        Replace all processes by fresh ones, each when it has ended its call.

        @return: the result of a call that is made by a fresh one.
        """
        for seat in self._seats:
            seat.renew()
        self._fill()
        return self.apply_async(_nothing)

    def close(self) -> None:
        """
        Take no more calls.
        """
        if self._life is _Life.RUNNING:
            self._life = _Life.CLOSED
            self._checkClosed()

    def leave(self) -> None:
        """
        Nobody has this pool any more: take no more calls, and wait for nothing. Called by a
        collector of garbage, too. Where no loop drives it, its processes are killed when the
        last result is dropped that a caller may wait for.
        """
        self.close()

    @property
    def isDriven(self) -> bool:
        """
        Whether calls end without somebody who waits for them.
        """
        return self._board.isDriven

    def leaveLoop(self) -> None:
        """
        Have no event loop do anything any more: it may be closed already. What is
        left to be done, L{join} does.
        """
        self._board.unregister()

    def join(self) -> None:
        """
        Wait until all calls have ended and all processes are gone. To be called
        after L{close} or L{terminate}.
        """
        while not self._isOver:
            self._board.turn(None)

    def terminate(self) -> None:
        """
        End all processes at once, also those that were told to end. Calls that wait, or
        have not begun, fail; those that run fail when their processes are gone.
        """
        self._life = _Life.TERMINATED
        members = self._members()
        notBegun = [job for member in members for job in member.takeBack()]
        for seat in (*self._seats, *self._leaving):
            seat.crash("the pool was terminated")
        waiting, self._waiting = self._waiting, deque()
        for job in (*notBegun, *waiting):
            self._turnAway(job)

    def breakDown(self, error: BaseException) -> None:
        """
        What drives the pool has failed: all calls fail because of that, and nothing is
        left of the processes. To be called where that was caught.
        """
        self._life = _Life.TERMINATED
        self._cause = error
        members = self._members()
        jobs = [job for member in members for job in member.held.values()]
        jobs += self._waiting
        self._waiting.clear()
        self._seats, self._leaving = [], []
        for member in members:
            member.signal(signals.SIGKILL)
        for member in members:
            harmless("the end of a process", member.abandon)
        self.fileno_to_outq.clear()
        for job in jobs:
            self._turnAway(job)
        report(error, "driving a pool: it is at its end")

    # CallOwner

    def returned(self, member: Member, job: Job, value: Any) -> None:
        """
        A call returned.
        """
        self._accept(member, job)
        job.stopTimers()
        job.result.succeed(value)
        tell(job.callbacks.returned, value)

    def raised(self, member: Member, job: Job, outcome: Raised) -> None:
        """
        A call raised.
        """
        self._accept(member, job)
        self._fail(job, outcome.localError())

    def iterating(self, member: Member, job: Job, source: MemberSource, text: str) -> None:
        """
        A call returned what cannot be its result here.
        """
        self._accept(member, job)
        source.stop()
        reason = "an iterator stays in the process that made it; return a list"
        self._fail(job, MaybeEncodingError(reason, text))

    def givenBack(self, member: Member, job: Job) -> None:
        """
        A call was taken back, and is made elsewhere.
        """
        self._waitAgain([job])

    def collected(self, member: Member) -> None:
        """
        There may be an idle process.
        """
        if member.held:
            self._accept(member, next(iter(member.held.values())))
        else:
            for seat in (*self._seats, *self._leaving):
                if member in seat.members:
                    seat.weigh(member)
                    seat.rest(member)
            self._fill()
        self._dispatch()
        self._checkClosed()

    # SeatOwner

    def seated(self, seat: Seat) -> None:
        """
        There is a process more.
        """
        self._dispatch()

    def vacated(self, seat: Seat, ending: Ending) -> None:
        """
        There is one less.
        """
        timer = self._aliveTimers.pop(ending.pid, None)
        if timer is not None:
            timer.cancel()
        for descriptor, member in list(self.fileno_to_outq.items()):
            if member.isGone:
                del self.fileno_to_outq[descriptor]
        for job in ending.begun:
            self._lose(job, ending)
        self._waitAgain(self._triedAgain(ending))
        if seat in self._leaving and not seat.members:
            self._leaving.remove(seat)
        code = ending.exitCode if ending.signal is None else -ending.signal
        tell(self._onExit, ending.pid, code)
        self._fill()
        self._dispatch()
        self._checkClosed()

    def handedBack(self, seat: Seat, jobs: Sequence[Job]) -> None:
        """
        A process takes no more, and had not begun these.
        """
        self._waitAgain(jobs)
        self._fill()
        self._dispatch()

    def failing(self, seat: Seat, reason: str) -> None:
        """
        A process ended as it started: what waits is for any of them.
        """

    def hopeless(self, seat: Seat, reason: str) -> None:
        """
        No process can be had.
        """
        waiting, self._waiting = self._waiting, deque()
        for job in waiting:
            self._fail(job, WorkerError(f"{describeCall(*job.callTuple)} was not run: {reason}"))
        self._checkClosed()

    # Within

    def forked(self) -> None:
        """
        The processes are the parent's: here the pool is gone, and nothing comes of its calls.
        """
        self._life = _Life.TERMINATED
        self._isParents = True
        self._board.forked()
        self._waiting.clear()

    def add(self, descriptor: int, member: Member) -> None:
        """
        A process has come: its results are read by the handler.
        """
        self.fileno_to_outq[descriptor] = member
        self._results.watch(descriptor)
        if self._aliveTimeout is not None:
            reason = f"it was not up within {self._aliveTimeout:g} s"
            self._aliveTimers[member.pid] = self._board.callLater(
                self._aliveTimeout, lambda: None if member.isUp else member.kill(reason)
            )

    def _processAlive(self, pid: int) -> None:
        # Only with its initializer it is of use: then the timer looks.
        if pid in self._aliveTimers and not self._initial:
            self._aliveTimers.pop(pid).cancel()

    def _joinExited(self) -> bool:
        for member in self._members():
            member.checkEnded()
        return not self._members()

    @property
    def _isOver(self) -> bool:
        """
        Whether nothing is left to be done.
        """
        return self._life is _Life.TERMINATED and not self._members()

    def _members(self) -> list[Member]:
        return [member for seat in (*self._seats, *self._leaving) for member in seat.members]

    def _addSeat(self) -> None:
        self._seats.append(
            Seat(
                self,
                lambda: self._board,
                self._limits,
                self._initial,
                reader=self,
                spawn=self._spawn,
                now=self._now,
            )
        )

    def _fill(self) -> None:
        if self._life is _Life.RUNNING or (self._life is _Life.CLOSED and self._waiting):
            for seat in self._seats:
                seat.fill()

    def _submit(self, job: Job) -> None:
        if self._life is _Life.TERMINATED:
            # Another thread has done that meanwhile.
            self._turnAway(job)
            return
        self._waiting.append(job)
        self._dispatch()
        if self._waiting:
            self._fill()

    def _dispatch(self) -> None:
        """
        Give jobs to processes that have room, evenly. One that is not up yet gets
        none: a call is timed from the moment in which it is given.
        """
        if self._life is _Life.TERMINATED:
            return
        for most in range(1, self._capacity + 1):
            for seat in self._seats:
                while self._waiting and (member := seat.member) is not None:
                    held = member.held
                    if not member.isUp or len(held) >= most:
                        break
                    if held and self._waiting[0].tries:
                        break
                    self._give(seat, member, self._waiting.popleft())
            if not self._waiting:
                break

    def _give(self, seat: Seat, member: Member, job: Job) -> None:
        isFirst = not member.held
        try:
            job.number = member.call(job, *job.callTuple)
        except BaseException as error:
            # Somebody's objects: whatever their pickling raises. Or who runs the program ends
            # it, and must be heard: here no reactor sees to that.
            self._fail(job, cannotSend(error, job.callTuple, "call"))
            if isInterrupt(error):
                raise
            return
        if isFirst:
            self._accept(member, job)
        seat.given(member)
        if job.tries:
            # It may have ended another one: this one has no other.
            seat.reserve()

    def _accept(self, member: Member, job: Job) -> None:
        """
        A call begins.
        """
        if job.accepted:
            return
        job.accepted = True
        tell(job.callbacks.accepted, member.pid, self._now())
        if job.soft is not None:
            soft = partial(self._softLimit, member, job, job.soft)
            job.timers.append(self._board.callLater(job.soft, soft))
        if job.hard is not None:
            hard = partial(self._hardLimit, member, job, job.hard)
            job.timers.append(self._board.callLater(job.hard, hard))

    def _softLimit(self, member: Member, job: Job, seconds: float) -> None:
        member.interrupt(job.number, seconds)
        tell(job.callbacks.timedOut, True, seconds)

    def _hardLimit(self, member: Member, job: Job, seconds: float) -> None:
        job.exceeded = True
        job.isDeaf = member.isDeaf(job.number)
        tell(job.callbacks.timedOut, False, seconds)
        member.kill(f"a call ran for more than its {seconds:g} s")

    def _lose(self, job: Job, ending: Ending) -> None:
        if job.exceeded and job.hard is not None:
            self._fail(job, TimeLimitExceeded(job.hard, job.isDeaf))
        else:
            what = describeCall(*job.callTuple)
            self._fail(
                job,
                WorkerLostError(ending.pid, ending.exitCode, ending.signal, what, ending.why),
            )

    def _triedAgain(self, ending: Ending) -> list[Job]:
        """
        Those that a process had not begun, without one that none is to try any more.
        """
        poison: Job | None = ending.tried()
        if poison is None:
            return ending.notBegun
        lost = ending.neverBegun(describeCall(*poison.callTuple), poison.tries)
        error = WorkerLostError(
            ending.pid, lost.exitCode, lost.signal, reason=f"{lost.call}: {lost.reason}"
        )
        self._fail(poison, error)
        return []

    def _waitAgain(self, jobs: Sequence[Job]) -> None:
        """
        Have calls that a process has not begun wait before those that wait.
        """
        if self._life is _Life.TERMINATED:
            for job in jobs:
                self._turnAway(job)
        else:
            self._waiting.extendleft(job.notBegun() for job in reversed(jobs))

    def _turnAway(self, job: Job) -> None:
        """
        Fail a call that nobody will make.
        """
        call = describeCall(*job.callTuple)
        if self._cause is None:
            self._fail(job, QueueRunError(call))
            return
        error = WorkerError(
            f"{call} has no result: what drives its pool has failed: {inWords(self._cause)}"
        )
        error.__cause__ = self._cause
        self._fail(job, error)

    def _fail(self, job: Job, error: BaseException) -> None:
        job.stopTimers()
        if not job.result.ready():
            job.result.fail(error)
            tell(job.callbacks.failed, error)

    def _checkClosed(self) -> None:
        """
        When a closed pool has nothing left to do, its processes go.
        """
        if self._life is not _Life.CLOSED or self._waiting:
            return
        if any(member.held for member in self._members()):
            return
        self._life = _Life.TERMINATED
        for seat in (*self._seats, *self._leaving):
            seat.finish()

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
            self._board.turn(left)

    def _checkNoFork(self) -> None:
        if self._isParents:
            raise ForkError("get()", "pool")


def _nothing() -> None:
    """
    What is called to see whether calls are made.
    """
