"""
A place for a child: it is filled when that is wanted, whatever became of those
before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any, Protocol

from asynqueue.framing import LARGEST
from asynqueue.loops.adapters import LoopAdapter
from asynqueue.outcome import Raised
from asynqueue.processes.children import Children
from asynqueue.processes.guard import isInterrupt
from asynqueue.processes.limits import Limits, MemoryCheck
from asynqueue.processes.process import ChildProcess
from asynqueue.processes.protocol import KEPT
from asynqueue.processes.roles import CallDelegate, CallTuple, ExitReport, Reader, Setup
from asynqueue.processes.starts import Starts
from asynqueue.timers import Timer


class SupervisorDelegate(CallDelegate[ChildProcess], Protocol):
    """
    Who has a supervisor keep a child, and is told of it.
    """

    def filled(self, supervisor: Supervisor) -> None:
        """
        Hear that there is a child that takes calls.
        """

    def exited(self, supervisor: Supervisor, ending: ExitReport) -> None:
        """
        Hear that a child is gone. L{Supervisor.fill} has another one started.
        """

    def failing(self, supervisor: Supervisor, reason: str, isHopeless: bool) -> None:
        """
        Hear that a child ended before it was of use. Another one is tried when that is wanted.

        @param isHopeless: whether there will be no child soon, as far as can be told.
        """


class Supervisor:
    """
    Keeps one place filled with a child.

    It alone knows its children: calls are taken back from all of them.

    @ivar child: the child that takes calls, if there is one.
    @ivar children: all that are not gone.
    @ivar preparations: the calls that each child makes first; see L{prepare}.
    @ivar started: how many children were started.
    @ivar lost: how many died of themselves.
    @ivar starts: when children are started, and which starts were false.
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
        start: Callable[..., ChildProcess] = ChildProcess,
        now: Callable[[], float] = monotonic,
    ) -> None:
        """
        @param loop: gives the event loop, when it is needed.
        @param largest: how many bytes a message may have.
        @param name: names the delegate, in messages.
        @param reader: who reads what children send; C{None}: they themselves.
        @param start: starts a child; it is given what L{ChildProcess} is.
        @param now: tells the time, in seconds.
        """
        self.child: ChildProcess | None = None
        self.preparations = list(preparations)
        self.started = 0
        self.lost = 0
        self._delegate = delegate
        self._loop = loop
        self._limits = limits
        self._largest = largest
        self._reader = reader
        self.children = Children()
        self._coming: ChildProcess | None = None
        # The one that is given no other call until it has ended those that it has: it is to
        # make no more, or has room for others only then.
        self._full: ChildProcess | None = None
        # The one that another was started ahead of.
        self._preceding: ChildProcess | None = None
        self._startChild = start

        def callLater(seconds: float, f: Callable[[], None]) -> Any:
            return loop().callLater(seconds, f)

        self.starts = Starts(
            callLater,
            self._start,
            self._giveUp,
            name,
            now,
        )
        self._idle = Timer(callLater)
        self._memory = MemoryCheck(limits, callLater, lambda: self.children.busy, self.retire)
        # Whether it must be told of each call.
        self.isLimited = limits != Limits()

    def fill(self) -> None:
        """
        Have a child soon. It may be there at once.
        """
        if self._isVacant:
            self.starts.soon()

    def retry(self) -> None:
        """
        Try to have a child when the pause after the latest failure is over, though there may
        be no hope.
        """
        if self._isVacant:
            self.starts.later()

    def given(self, child: ChildProcess) -> None:
        """
        Note that the child was given a call. If it is soon to have made its last one, the next
        child is started ahead.
        """
        self._idle.stop()
        if self._limits.maxTasks is not None:
            left = self._limits.maxTasks - child.calls.made
            if left <= 0:
                # It makes those that it has, and goes when it has ended them.
                self.child = None
                self._full = child
            isTime = self.starts.isTime(left + len(child.calls.held))
            if isTime and self._coming is None and self._preceding is not child:
                # Only once: one that ends before its time must be wanted to be replaced.
                self._preceding = child
                self.starts.soon()
        self._memory.start()

    def prepare(self, callTuple: CallTuple) -> None:
        """
        Have all children that come make a call first.
        """
        self.preparations.append(callTuple)
        # It has not made that, and may be up.
        self._dropComing()

    def reserve(self) -> None:
        """
        Leave the child to the calls that it has: it takes no other until it has ended them.
        """
        if self.child is not None:
            self._full, self.child = self.child, None

    def takeBack(self, reserved: bool = True) -> list[Any]:
        """
        Take back all calls that have not begun: they are never made.

        @param reserved: also from a child that is left to those that it has, and may be about
            to end by one of them.
        @return: their jobs, in order.
        """
        jobs = self.children.takeBack(None if reserved or not self._isReserved else self._full)
        if jobs and self._isReserved:
            # The one that is coming waits, and is next when this one has made its calls.
            self._full, self.child = None, self._full
        return jobs

    def checkMemory(self, child: ChildProcess) -> None:
        """
        Look whether a child has too much memory for another call, as it has ended one.
        """
        calls = child.calls
        # A fresh one never has: another one would have as much.
        isBetween = self._limits.maxMemory is not None and calls.made > 0 and not calls.held
        if isBetween and self._limits.isSpent(0, child.resident):
            self.retire(child)

    def onIdle(self, child: ChildProcess) -> None:
        """
        Let a child go that holds nothing, if it is time for that.
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
        elif self._limits.idleTimeout is not None and not self._idle.isRunning:
            self._idle.start(self._limits.idleTimeout, self.renew)

    def retire(self, child: ChildProcess) -> None:
        """
        Give the child no more calls: it goes when it has ended those that it has begun.
        """
        if child in (self.child, self._full):
            self.child = self._full = None
            self._idle.stop()
            jobs = child.calls.takeBack()
            if not child.calls.held and not child.calls.streams:
                child.finish()
            if jobs:
                self._delegate.handedBack(jobs)

    def renew(self) -> None:
        """
        Have the child take no more calls, also if it would only later; it goes when it has
        ended those that it has begun. One that is coming goes at once.
        """
        self._dropComing()
        child = self._full if self.child is None else self.child
        if child is not None:
            self.retire(child)

    def cancel(self) -> None:
        """
        Have no child: those that there are go as in L{renew}.
        """
        self.starts.stop()
        self.renew()

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
        End all children at once. The delegate is told of each when it is gone. What they had
        not begun was taken back, and is not to blame for their ends.
        """
        self._stopTimers()
        self.child = self._coming = self._full = None
        for child in self.children:
            child.calls.suspects.clear()
            child.kill(reason)

    # LifeDelegate

    def up(self, child: ChildProcess) -> None:
        """
        Hear that a child is set up and prepared.
        """
        self.starts.succeeded()
        self._admitNext()

    def unfit(self, child: ChildProcess, what: str, outcome: Raised) -> None:
        """
        Give up children that cannot prepare. Nor could another one, as far as can be told. One that
        was to go, and did not live to hear of it, concerns nobody.
        """
        if child not in (self.child, self._coming, self._full):
            child.kill(f"it was to go, and cannot prepare: {what} raised")
            return
        reason = self.starts.unfit(what, outcome)
        child.kill(reason)
        self._giveUp(reason)

    def ended(self, child: ChildProcess, ending: ExitReport) -> None:
        """
        Hear that a child is gone.
        """
        self.children.remove(child)
        falseStart = not child.calls.isUp and child in (self.child, self._coming, self._full)
        if child is self.child:
            self.child = None
            self._idle.stop()
        if not self.children.busy:
            self._memory.stop()
        if child is self._coming:
            self._coming = None
        if child is self._full:
            self._full = None
        if child is self._preceding:
            self._preceding = None
        if ending.isFailure:
            self.lost += 1
        if falseStart:
            reason = self.starts.failed(ending)
            if self.starts.despair:
                self._giveUp(self.starts.despair)
            elif self.child is None:
                self._delegate.failing(self, reason, isHopeless=False)
        self._delegate.exited(self, ending.settled())
        self._admitNext()

    # Within

    def _start(self) -> None:
        # What is kept counts as memory of the child.
        kept = KEPT if self._limits.maxMemory is None else 0
        setup = Setup(self._largest, self.preparations, kept)
        try:
            child = self._startChild(self._loop(), self._delegate, self, setup, self._reader)
        except BaseException as error:
            # No room for another process, or somebody's preparations that cannot be
            # pickled, whatever that raises: it is not this call that must fail.
            self.starts.refused(error)
            if isInterrupt(error):
                raise
            return
        self.started += 1
        self.children.add(child)
        self._coming = child
        self._admitNext()

    def _dropComing(self) -> None:
        """
        Have the one that is coming end.
        """
        coming, self._coming, self._preceding = self._coming, None, None
        if coming is not None:
            coming.finish()

    def _giveUp(self, reason: str) -> None:
        """
        Tell that there will be no child, unless there is one, and only the next one cannot be had.
        """
        if self.child is None:
            self._delegate.failing(self, reason, isHopeless=True)

    @property
    def _isVacant(self) -> bool:
        """
        Whether there is no child, now or soon, that takes calls.
        """
        isVacant = self.child is None and self._coming is None and not self.starts.isDue
        return isVacant and not self._isReserved

    @property
    def _isReserved(self) -> bool:
        """
        Whether there is a child that is to take other calls when it has ended its present ones.
        """
        return self._full is not None and self._hasRoom(self._full)

    def _admitNext(self) -> None:
        """
        Let the one that is coming take calls, when it is time: those before it have
        ended theirs, as calls are made one after the other. After a failure, nothing is given
        to one that may fail, too, before it is up.
        """
        coming = self._coming
        if coming is None or self.child is not None or not coming.accepts:
            return
        if (coming.calls.isUp or not self.starts.areFailing) and not self.children.busy:
            self._coming, self.child = None, coming
            self._delegate.filled(self)
            self.onIdle(coming)

    def _hasRoom(self, child: ChildProcess) -> bool:
        """
        Tell whether a child that is not to go may make more calls.
        """
        most = self._limits.maxTasks
        return child.accepts and (most is None or child.calls.made < most)

    def _stopTimers(self) -> None:
        self.starts.stop()
        self._idle.stop()
        self._memory.stop()
