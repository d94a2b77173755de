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
from asynqueue.loops.adapters import Hub, Timer
from asynqueue.outcome import Raised, inWords
from asynqueue.processes.guard import isInterrupt
from asynqueue.processes.limits import MEMORY_SECONDS, Backoff, Limits
from asynqueue.processes.process import Member
from asynqueue.processes.roles import CallOwner, CallTuple, Ending, Reader, Setup
from asynqueue.processes.spawn import Spawned

_log = Logger()


class SeatOwner(CallOwner[Member], Protocol):
    """
    Who has a seat.
    """

    def seated(self, seat: Seat) -> None:
        """
        There is a child that takes calls.
        """

    def vacated(self, seat: Seat, ending: Ending) -> None:
        """
        A child is gone. The seat is filled again when that is wanted.
        """

    def handedBack(self, seat: Seat, jobs: Sequence[Any]) -> None:
        """
        A child takes no more calls, and these have not begun.
        """

    def failing(self, seat: Seat, reason: str) -> None:
        """
        A child ended before it was of use. Another one is tried when that is wanted.
        """

    def hopeless(self, seat: Seat, reason: str) -> None:
        """
        There will be no child soon, as far as can be told.
        """


class Seat:
    """
    Keeps one place filled with a child.

    It alone knows its children: calls are taken back from all of them.

    @ivar member: the child that takes calls, if there is one.
    @ivar preparations: the calls that each child makes first; may be added to.
    @ivar started: how many children were started.
    @ivar lost: how many died of themselves.
    @ivar falseStarts: how many could not be started, or ended before they were of use.
    @ivar isLimited: whether L{given} must be called.
    """

    def __init__(
        self,
        owner: SeatOwner,
        hub: Callable[[], Hub],
        limits: Limits,
        preparations: Sequence[CallTuple] = (),
        largest: int = LARGEST,
        name: Callable[[], str] = lambda: "a pool",
        reader: Reader[Member] | None = None,
        *,
        spawn: Callable[[int], Spawned] = Spawned,
        now: Callable[[], float] = monotonic,
    ) -> None:
        """
        @param hub: gives the event loop, when it is needed.
        @param largest: how many bytes a message may have.
        @param name: names the owner, in messages.
        @param reader: who reads what children send; C{None}: they themselves.
        @param spawn: starts a process; it is given C{largest}.
        @param now: tells the time, in seconds.
        """
        self.member: Member | None = None
        self.preparations = list(preparations)
        self.started = 0
        self.lost = 0
        self.falseStarts = 0
        self._owner = owner
        self._hub = hub
        self._limits = limits
        self._largest = largest
        self._name = name
        self._reader = reader
        # All children that are not gone: one may come, and others go.
        self._members: dict[Member, None] = {}
        self._coming: Member | None = None
        # The one that is given no other call until it has ended those that it has: it is to
        # make no more, or has room for others only then.
        self._full: Member | None = None
        self._spawn = spawn
        self._backoff = Backoff(now)
        # Why there is no child, and will be none; empty while there is hope.
        self._despair = ""
        self._timers: dict[str, Timer] = {}
        # Whether it must be told of each call.
        self.isLimited = limits != Limits()

    @property
    def members(self) -> list[Member]:
        """
        The children that are not gone.
        """
        return list(self._members)

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
                self._timers["start"] = self._hub().callLater(pause, self._start)

    def retry(self) -> None:
        """
        Try to have a child when the pause after the latest failure is over, though there may
        be no hope.
        """
        if self._isVacant:
            self._timers["start"] = self._hub().callLater(self._backoff.leastPause, self._start)

    def given(self, member: Member) -> None:
        """
        The child was given a call.
        """
        self._stopTimer("idle")
        if self._limits.maxTasks is not None and member.made >= self._limits.maxTasks:
            # It makes those that it has, and goes when it has ended them.
            self.member = None
            self._full = member
        if self._limits.maxMemory is not None and "memory" not in self._timers:
            self._timers["memory"] = self._hub().callLater(MEMORY_SECONDS, self._checkMemory)

    def reserve(self) -> None:
        """
        Leave the child to the calls that it has: it takes no other until it has ended them.
        """
        if self.member is not None:
            self._full, self.member = self.member, None

    @property
    def progress(self) -> list[int]:
        """
        How far the calls have come. It changes as one begins, which is known before anything
        is heard of it.
        """
        return [member.begun for member in self._members]

    @property
    def mayBeEnding(self) -> bool:
        """
        Whether a child has begun none of the calls that it has.
        """
        return any(member.isBetween for member in self._members)

    @property
    def hasNews(self) -> bool:
        """
        Whether a child has said what was not read yet.
        """
        return any(member.hasNews for member in self._members)

    def takeBack(self, reserved: bool = True) -> list[Any]:
        """
        Take back all calls that have not begun: they are never made.

        @param reserved: also from a child that is left to those that it has, and may be about
            to end by one of them.
        @return: their jobs, in order.
        """
        full = self._full if self._isReserved else None
        members = [member for member in self._members if reserved or member is not full]
        jobs = [job for member in members for job in member.takeBack()]
        if jobs and self._isReserved:
            # The one that is coming waits, and is next when this one has made its calls.
            self._full, self.member = None, self._full
        return jobs

    def weigh(self, member: Member) -> None:
        """
        The child has ended a call, and is not given another one yet: it may have
        too much memory for that.
        """
        if self._limits.maxMemory is not None and not member.held and self._hasTooMuch(member):
            self.retire(member)

    def rest(self, member: Member) -> None:
        """
        The child holds nothing: it may be time for it to go.
        """
        if member is self._full and not member.held:
            self._full = None
            if self._coming is None and self._hasRoom(member):
                # It was reserved, or gave one back in the moment before it began.
                self.member = member
                self._owner.seated(self)
        self._seatNext()
        if member.held or member.streams:
            return
        if member is not self.member:
            if member is not self._coming:
                member.finish()
        elif self._limits.idleTimeout is not None and "idle" not in self._timers:
            self._timers["idle"] = self._hub().callLater(
                self._limits.idleTimeout, lambda: self._timedOut(member)
            )

    def retire(self, member: Member) -> None:
        """
        The child takes no more calls, and goes when it has ended those that it has
        begun.
        """
        if member in (self.member, self._full):
            self.member = self._full = None
            self._stopTimer("idle")
            jobs = member.takeBack()
            if not member.held and not member.streams:
                member.finish()
            if jobs:
                self._owner.handedBack(self, jobs)

    def renew(self) -> None:
        """
        Have the child take no more calls, also if it would only later; it goes when it has
        ended those that it has begun.
        """
        member = self._full if self.member is None else self.member
        if member is not None:
            self.retire(member)

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
        self.member = self._coming = self._full = None
        for member in self.members:
            member.finish()

    def crash(self, reason: str) -> None:
        """
        End all children at once. The owner is told of each when it is gone.
        """
        self._stopTimers()
        self.member = self._coming = self._full = None
        for member in self.members:
            member.kill(reason)

    # LifeOwner

    def up(self, member: Member) -> None:
        """
        A child is set up and prepared.
        """
        self._backoff.succeeded()
        self._despair = ""
        self._seatNext()

    def unfit(self, member: Member, what: str, outcome: Raised) -> None:
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
        member.kill(reason)
        self._owner.hopeless(self, reason)

    def ended(self, member: Member, ending: Ending) -> None:
        """
        A child is gone.
        """
        del self._members[member]
        falseStart = not member.isUp and member in (self.member, self._coming, self._full)
        if member is self.member:
            self.member = None
            self._stopTimer("idle")
        if not any(other.held for other in self._members):
            self._stopTimer("memory")
        if member is self._coming:
            self._coming = None
        if member is self._full:
            self._full = None
        if ending.isFailure:
            self.lost += 1
        if falseStart:
            self._falseStart(ending)
        self._owner.vacated(self, ending)
        self._seatNext()

    # Within

    def _start(self) -> None:
        self._timers.pop("start", None)
        setup = Setup(self._largest, self.preparations)
        try:
            member = Member(self._hub(), self._owner, self, setup, self._reader, spawn=self._spawn)
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
        self._members[member] = None
        # After a failure, nothing is given to one that may fail, too.
        if member.accepts and not self._backoff.starts and not self._isBusy:
            self._seat(member)
        else:
            self._coming = member

    @property
    def _isVacant(self) -> bool:
        """
        Whether there is no child, now or soon, that takes calls.
        """
        isVacant = self.member is None and self._coming is None and "start" not in self._timers
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
        return any(member.held for member in self._members)

    def _seatNext(self) -> None:
        """
        Let the one that is coming take calls, when it is time: those before it have
        ended theirs, as calls are made one after the other.
        """
        coming = self._coming
        if coming is not None and coming.isUp and self.member is None and not self._isBusy:
            self._seat(coming)

    def _hasRoom(self, member: Member) -> bool:
        """
        Whether a child that is not to go may make more calls.
        """
        most = self._limits.maxTasks
        return member.accepts and (most is None or member.made < most)

    def _hasTooMuch(self, member: Member) -> bool:
        """
        Whether a child has more memory than it may have. A fresh one never has:
        another one would have as much.
        """
        return member.made > 0 and self._limits.isSpent(0, member.resident)

    def _sayHopeless(self) -> None:
        """
        Tell the owner that there will be no child, but not within its call.
        """

        def say() -> None:
            del self._timers["hopeless"]
            # A child may have come up since: then there is no reason to tell.
            if self._despair:
                self._owner.hopeless(self, self._despair)

        if "hopeless" not in self._timers:
            self._timers["hopeless"] = self._hub().callLater(0, say)

    def _seat(self, member: Member) -> None:
        self._coming = None
        self.member = member
        self._owner.seated(self)
        self.rest(member)

    def _falseStart(self, ending: Ending) -> None:
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
            self._owner.hopeless(self, self._despair)
        else:
            self._owner.failing(self, reason)

    def _timedOut(self, member: Member) -> None:
        self._timers.pop("idle", None)
        if member is self.member and not member.held and not member.streams:
            self.retire(member)

    def _checkMemory(self) -> None:
        self._timers.pop("memory", None)
        busy = [member for member in self._members if member.held]
        for member in busy:
            resident = member.resident
            if self._limits.isExcessive(resident):
                most = self._limits.maxMemory
                member.kill(f"it used {resident:,} bytes of memory, where maxMemory is {most:,}")
            elif self._limits.isSpent(0, resident):
                self.retire(member)
        if busy and "memory" not in self._timers:
            self._timers["memory"] = self._hub().callLater(MEMORY_SECONDS, self._checkMemory)

    def _stopTimer(self, name: str) -> None:
        if name in self._timers:
            self._timers.pop(name).cancel()

    def _stopTimers(self) -> None:
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
