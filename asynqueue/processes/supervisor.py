"""
A place for a child: it is filled when that is wanted, whatever became of those
before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any, Protocol

from twisted.logger import Logger

from asynqueue.framing import LARGEST
from asynqueue.loops.adapters import LoopAdapter, Timer
from asynqueue.outcome import Raised, inWords
from asynqueue.processes.guard import isInterrupt
from asynqueue.processes.limits import MEMORY_SECONDS, Backoff, Limits
from asynqueue.processes.process import ChildProcess
from asynqueue.processes.roles import CallDelegate, CallTuple, ExitReport, Reader, Setup
from asynqueue.processes.spawn import Spawned

_log = Logger()


class SupervisorDelegate(CallDelegate[ChildProcess], Protocol):
    """
    Who has a supervisor keep a child, and is told of it.
    """

    def filled(self, supervisor: Supervisor) -> None:
        """
        There is a child that takes calls.
        """

    def exited(self, supervisor: Supervisor, ending: ExitReport) -> None:
        """
        A child is gone. L{Supervisor.fill} has another one started.
        """

    def handedBack(self, supervisor: Supervisor, jobs: Sequence[Any]) -> None:
        """
        A child takes no more calls, and these have not begun.
        """

    def failing(self, supervisor: Supervisor, reason: str) -> None:
        """
        A child ended before it was of use. Another one is tried when that is wanted.
        """

    def onGivenUp(self, supervisor: Supervisor, reason: str) -> None:
        """
        There will be no child soon, as far as can be told.
        """


class Supervisor:
    """
    Keeps one place filled with a child.

    It alone knows its children: calls are taken back from all of them.

    @ivar child: the child that takes calls, if there is one.
    @ivar preparations: the calls that each child makes first; may be added to.
    @ivar started: how many children were started.
    @ivar lost: how many died of themselves.
    @ivar falseStarts: how many could not be started, or ended before they were of use.
    @ivar isLimited: whether L{given} must be called.
    """

    def __init__(
        self,
        delegate: SupervisorDelegate,
        loop: Callable[[], LoopAdapter],
        limits: Limits,
        preparations: Sequence[CallTuple] = (),
        largest: int = LARGEST,
        name: Callable[[], str] = lambda: "a pool",
        reader: Reader[ChildProcess] | None = None,
        *,
        spawn: Callable[[int], Spawned] = Spawned,
        now: Callable[[], float] = monotonic,
    ) -> None:
        """
        @param loop: gives the event loop, when it is needed.
        @param largest: how many bytes a message may have.
        @param name: names the delegate, in messages.
        @param reader: who reads what children send; C{None}: they themselves.
        @param spawn: starts a process; it is given C{largest}.
        @param now: tells the time, in seconds.
        """
        self.child: ChildProcess | None = None
        self.preparations = list(preparations)
        self.started = 0
        self.lost = 0
        self.falseStarts = 0
        self._delegate = delegate
        self._loop = loop
        self._limits = limits
        self._largest = largest
        self._name = name
        self._reader = reader
        # All children that are not gone: one may come, and others go.
        self._children: dict[ChildProcess, None] = {}
        self._coming: ChildProcess | None = None
        # The one that is given no other call until it has ended those that it has: it is to
        # make no more, or has room for others only then.
        self._full: ChildProcess | None = None
        self._spawn = spawn
        self._backoff = Backoff(now)
        # Why there is no child, and will be none; empty while there is hope.
        self._despair = ""
        self._timers: dict[str, Timer] = {}
        # Whether it must be told of each call.
        self.isLimited = limits != Limits()

    @property
    def children(self) -> list[ChildProcess]:
        """
        The children that are not gone.
        """
        return list(self._children)

    def fill(self) -> None:
        """
        Have a child soon. It may be there at once.
        """
        if self._isVacant:
            pause = self._backoff.pause
            if not pause or (self._despair and self._backoff.isOver):
                self._start()
            elif self._despair:
                self._sayHopeless()
            else:
                self._timers["start"] = self._loop().callLater(pause, self._start)

    def retry(self) -> None:
        """
        Try to have a child when the pause after the latest failure is over, though there may
        be no hope.
        """
        if self._isVacant:
            self._timers["start"] = self._loop().callLater(self._backoff.leastPause, self._start)

    def given(self, child: ChildProcess) -> None:
        """
        The child was given a call.
        """
        self._stopTimer("idle")
        if self._limits.maxTasks is not None and child.calls.made >= self._limits.maxTasks:
            # It makes those that it has, and goes when it has ended them.
            self.child = None
            self._full = child
        if self._limits.maxMemory is not None and "memory" not in self._timers:
            self._timers["memory"] = self._loop().callLater(MEMORY_SECONDS, self._checkBusy)

    def reserve(self) -> None:
        """
        Leave the child to the calls that it has: it takes no other until it has ended them.
        """
        if self.child is not None:
            self._full, self.child = self.child, None

    @property
    def progress(self) -> list[int]:
        """
        How far the calls have come. It changes as one begins, which is known before anything
        is heard of it.
        """
        return [child.calls.begun for child in self._children]

    @property
    def mayBeEnding(self) -> bool:
        """
        Whether a child has begun none of the calls that it has.
        """
        return any(child.calls.isBetween for child in self._children)

    @property
    def hasNews(self) -> bool:
        """
        Whether a child has said what was not read yet.
        """
        return any(child.hasNews for child in self._children)

    def takeBack(self, reserved: bool = True) -> list[Any]:
        """
        Take back all calls that have not begun: they are never made.

        @param reserved: also from a child that is left to those that it has, and may be about
            to end by one of them.
        @return: their jobs, in order.
        """
        full = self._full if self._isReserved else None
        children = [child for child in self._children if reserved or child is not full]
        jobs = [job for child in children for job in child.calls.takeBack()]
        if jobs and self._isReserved:
            # The one that is coming waits, and is next when this one has made its calls.
            self._full, self.child = None, self._full
        return jobs

    def checkMemory(self, child: ChildProcess) -> None:
        """
        The child has ended a call, and is not given another one yet: it may have
        too much memory for that.
        """
        if self._limits.maxMemory is not None and not child.calls.held and self._hasTooMuch(child):
            self.retire(child)

    def onIdle(self, child: ChildProcess) -> None:
        """
        The child holds nothing: it may be time for it to go.
        """
        if child is self._full and not child.calls.held:
            self._full = None
            if self._coming is None and self._hasRoom(child):
                # It was reserved, or gave one back in the moment before it began.
                self.child = child
                self._delegate.filled(self)
        self._admitNext()
        if child.calls.held or child.calls.streams:
            return
        if child is not self.child:
            if child is not self._coming:
                child.finish()
        elif self._limits.idleTimeout is not None and "idle" not in self._timers:
            self._timers["idle"] = self._loop().callLater(
                self._limits.idleTimeout, lambda: self._timedOut(child)
            )

    def retire(self, child: ChildProcess) -> None:
        """
        The child takes no more calls, and goes when it has ended those that it has
        begun.
        """
        if child in (self.child, self._full):
            self.child = self._full = None
            self._stopTimer("idle")
            jobs = child.calls.takeBack()
            if not child.calls.held and not child.calls.streams:
                child.finish()
            if jobs:
                self._delegate.handedBack(self, jobs)

    def renew(self) -> None:
        """
        Have the child take no more calls, also if it would only later; it goes when it has
        ended those that it has begun.
        """
        child = self._full if self.child is None else self.child
        if child is not None:
            self.retire(child)

    def cancel(self) -> None:
        """
        Have no child: one that is coming ends, and the present one as in L{renew}.
        """
        self._stopTimer("start")
        self._stopTimer("hopeless")
        self.renew()
        coming, self._coming = self._coming, None
        if coming is not None:
            coming.finish()

    def finish(self) -> None:
        """
        Let all children go, and have no more. They hold nothing.
        """
        self._stopTimers()
        self.child = self._coming = self._full = None
        for child in self.children:
            child.finish()

    def crash(self, reason: str) -> None:
        """
        End all children at once. The delegate is told of each when it is gone.
        """
        self._stopTimers()
        self.child = self._coming = self._full = None
        for child in self.children:
            child.kill(reason)

    # LifeDelegate

    def up(self, child: ChildProcess) -> None:
        """
        A child is set up and prepared.
        """
        self._backoff.succeeded()
        self._despair = ""
        self._admitNext()

    def unfit(self, child: ChildProcess, what: str, outcome: Raised) -> None:
        """
        A child cannot prepare. Nor could another one, as far as can be told.
        """
        error = outcome.localError()
        reason = f"its process cannot prepare: {what} raised {inWords(error)}"
        if reason != self._despair:
            _log.error(
                "{name}: {reason}\n{trace}", name=self._name(), reason=reason, trace=outcome.trace
            )
        self._despair = reason
        child.kill(reason)
        self._delegate.onGivenUp(self, reason)

    def ended(self, child: ChildProcess, ending: ExitReport) -> None:
        """
        A child is gone.
        """
        del self._children[child]
        falseStart = not child.calls.isUp and child in (self.child, self._coming, self._full)
        if child is self.child:
            self.child = None
            self._stopTimer("idle")
        if not any(other.calls.held for other in self._children):
            self._stopTimer("memory")
        if child is self._coming:
            self._coming = None
        if child is self._full:
            self._full = None
        if ending.isFailure:
            self.lost += 1
        if falseStart:
            self._falseStart(ending)
        self._delegate.exited(self, ending)
        self._admitNext()

    # Within

    def _start(self) -> None:
        self._timers.pop("start", None)
        setup = Setup(self._largest, self.preparations)
        try:
            child = ChildProcess(
                self._loop(), self._delegate, self, setup, self._reader, spawn=self._spawn
            )
        except BaseException as error:
            # No room for another process, or somebody's preparations that cannot be
            # pickled, whatever that raises: it is not this call that must fail.
            self.falseStarts += 1
            self._backoff.failed()
            reason = f"no process can be started: {inWords(error)}"
            if reason != self._despair:
                _log.error("{name}: {reason}", name=self._name(), reason=reason)
            self._despair = reason
            self._sayHopeless()
            if isInterrupt(error):
                raise
            return
        self.started += 1
        self._children[child] = None
        # After a failure, nothing is given to one that may fail, too.
        if child.accepts and not self._backoff.starts and not self._isBusy:
            self._admit(child)
        else:
            self._coming = child

    @property
    def _isVacant(self) -> bool:
        """
        Whether there is no child, now or soon, that takes calls.
        """
        isVacant = self.child is None and self._coming is None and "start" not in self._timers
        return isVacant and not self._isReserved

    @property
    def _isReserved(self) -> bool:
        """
        Whether there is a child that is to take other calls when it has ended its present ones.
        """
        return self._full is not None and self._hasRoom(self._full)

    @property
    def _isBusy(self) -> bool:
        """
        Whether a child makes calls, if only the last that it makes.
        """
        return any(child.calls.held for child in self._children)

    def _admitNext(self) -> None:
        """
        Let the one that is coming take calls, when it is time: those before it have
        ended theirs, as calls are made one after the other.
        """
        coming = self._coming
        if coming is not None and coming.calls.isUp and self.child is None and not self._isBusy:
            self._admit(coming)

    def _hasRoom(self, child: ChildProcess) -> bool:
        """
        Whether a child that is not to go may make more calls.
        """
        most = self._limits.maxTasks
        return child.accepts and (most is None or child.calls.made < most)

    def _hasTooMuch(self, child: ChildProcess) -> bool:
        """
        Whether a child has more memory than it may have. A fresh one never has:
        another one would have as much.
        """
        return child.calls.made > 0 and self._limits.isSpent(0, child.resident)

    def _sayHopeless(self) -> None:
        """
        Tell the delegate that there will be no child, but not within its call.
        """

        def say() -> None:
            del self._timers["hopeless"]
            # A child may have come up since: then there is no reason to tell.
            if self._despair:
                self._delegate.onGivenUp(self, self._despair)

        if "hopeless" not in self._timers:
            self._timers["hopeless"] = self._loop().callLater(0, say)

    def _admit(self, child: ChildProcess) -> None:
        self._coming = None
        self.child = child
        self._delegate.filled(self)
        self.onIdle(child)

    def _falseStart(self, ending: ExitReport) -> None:
        """
        A child has ended before it was of use.
        """
        self.falseStarts += 1
        self._backoff.failed()
        said = f"; the last that it wrote: {ending.lastWords}" if ending.lastWords else ""
        reason = f"processes end as they start ({ending.inWords()}){said}"
        if self._backoff.pause:
            _log.warn(
                "{name}: {starts} times in a row {reason}",
                name=self._name(),
                starts=self._backoff.starts,
                reason=reason,
            )
        if self._backoff.isHopeless:
            self._despair = reason
        if self._despair:
            self._delegate.onGivenUp(self, self._despair)
        else:
            self._delegate.failing(self, reason)

    def _timedOut(self, child: ChildProcess) -> None:
        self._timers.pop("idle", None)
        if child is self.child and not child.calls.held and not child.calls.streams:
            self.retire(child)

    def _checkBusy(self) -> None:
        self._timers.pop("memory", None)
        busy = [child for child in self._children if child.calls.held]
        for child in busy:
            resident = child.resident
            if self._limits.isExcessive(resident):
                most = self._limits.maxMemory
                child.kill(f"it used {resident:,} bytes of memory, where maxMemory is {most:,}")
            elif self._limits.isSpent(0, resident):
                self.retire(child)
        if busy and "memory" not in self._timers:
            self._timers["memory"] = self._loop().callLater(MEMORY_SECONDS, self._checkBusy)

    def _stopTimer(self, name: str) -> None:
        if name in self._timers:
            self._timers.pop(name).cancel()

    def _stopTimers(self) -> None:
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
