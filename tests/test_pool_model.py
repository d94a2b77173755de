"""
A pool on a clock, with children that do as the test wants, in any order.
"""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import Phase, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from twisted.logger import LogEvent, globalLogPublisher

from asynqueue.errors import (
    MaybeEncodingError,
    QueueRunError,
    TaskInterrupted,
    TimeLimitExceeded,
    WorkerError,
    WorkerLostError,
)
from asynqueue.pool.eventpool import EventPool
from asynqueue.pool.results import AsyncResult
from tests.children import ChildDouble, ReadingClock, Unsendable, f

# The name of what prepares a child.
INITIAL = "initial"


class Asked:
    """
    A call that was asked for, and what was heard of it.

    @ivar ends: what its callbacks were called with at its end: values, and exceptions.
    @ivar accepted: the process IDs with which it was accepted, and when.
    @ivar exceeded: the limits that it has exceeded.
    """

    def __init__(self, soft: float | None, hard: float | None, now: Callable[[], float]) -> None:
        self.soft = soft
        self.hard = hard
        self.ends: list[Any] = []
        self.accepted: list[tuple[int, float]] = []
        self.exceeded: list[tuple[bool, float]] = []
        self._now = now

    def callbacks(self) -> dict[str, Any]:
        """
        The callbacks of C{apply_async}.
        """
        return {
            "callback": self.ends.append,
            "error_callback": self.ends.append,
            "accept_callback": lambda pid, now: self.accepted.append((pid, now)),
            "timeout_callback": lambda soft, seconds: self.exceeded.append((soft, seconds)),
        }


class Pool(RuleBasedStateMachine):
    """
    Whatever children do, and whatever is asked of their pool, each call ends once, none begins
    twice, limits are kept, and nothing is left.
    """

    def __init__(self) -> None:
        super().__init__()
        self.clock = ReadingClock()
        self.pool: Any = None
        self.size = 0
        self.capacity = 1
        self.maxTasks: int | None = None
        self.hasInitial = False
        self.isRefused = False
        self.isClosed = False
        self.isTerminated = False
        self.isOnLoop = True
        self.children: list[ChildDouble] = []
        self.asked: list[Asked] = []
        self.results: list[AsyncResult] = []
        self.others: list[AsyncResult] = []
        self.begun: Counter[int] = Counter()
        self.exits: dict[int, Any] = {}
        self.failures: list[Any] = []
        globalLogPublisher.addObserver(self.logged)

    def logged(self, event: LogEvent) -> None:
        """
        Nothing here raises what is only logged.
        """
        if "log_failure" in event:
            self.failures.append(event["log_failure"])

    # What the doubles tell

    def spawn(self, limit: int) -> Any:
        """
        Start a child, unless the system has no room.
        """
        if self.isRefused:
            raise OSError("no room")
        child = ChildDouble(limit, len(self.children), self.begins)
        self.children.append(child)
        return child

    def begins(self, child: ChildDouble, args: Any) -> None:
        """
        A child begins a call.
        """
        name = args[0] if args else None
        if name != INITIAL:
            child.made += 1
        if isinstance(name, int):
            self.begun[name] += 1

    def exited(self, pid: int, code: int | None) -> None:
        """
        The pool tells that a process is gone.
        """
        assert pid not in self.exits, f"{pid} is gone twice"
        self.exits[pid] = code

    # What is asked of the pool

    @initialize(
        size=st.integers(1, 3),
        maxTasks=st.sampled_from([None, None, 1, 2]),
        memory=st.sampled_from([None, None, 100]),
        hard=st.sampled_from([None, None, 7]),
        soft=st.sampled_from([None, None, 4]),
        alive=st.sampled_from([None, None, 5]),
        hasInitial=st.sampled_from([False, False, True]),
        putlocks=st.booleans(),
    )
    def begin(
        self,
        size: int,
        maxTasks: Any,
        memory: Any,
        hard: Any,
        soft: Any,
        alive: Any,
        hasInitial: bool,
        putlocks: bool,
    ) -> None:
        self.size = size
        self.maxTasks = maxTasks
        self.capacity = 1 if putlocks else 16
        self.hasInitial = hasInitial
        self.pool = EventPool(
            size,
            f if hasInitial else None,
            (INITIAL,),
            maxTasks,
            memory,
            hard,
            soft,
            alive,
            self.exited,
            putlocks,
            spawn=self.spawn,
            now=self.clock.seconds,
        )
        self.pool.register_with_event_loop(self.clock)
        self.call(None, None, (), 3, 6)

    @rule(
        soft=st.sampled_from([None, None, 1, 3]),
        hard=st.sampled_from([None, None, 2, 6]),
        more=st.sampled_from([(), (), (), (Unsendable(),)]),
        count=st.integers(1, 5),
        steps=st.integers(0, 6),
    )
    def call(self, soft: Any, hard: Any, more: Any, count: int, steps: int) -> None:
        for _ in range(count):
            asked = Asked(soft or self.pool.soft_timeout, hard or self.pool.timeout, self.now)
            args = (len(self.asked), *more)
            try:
                result = self.pool.apply_async(
                    f, args, None, **asked.callbacks(), soft_timeout=soft, timeout=hard
                )
            except QueueRunError:
                assert self.isClosed
                return
            assert not self.isClosed
            self.asked.append(asked)
            self.results.append(result)
        self.moves(steps)

    def now(self) -> float:
        """
        The time of the clock.
        """
        return float(self.clock.seconds())

    @rule(
        what=st.sampled_from(
            ["grow", "shrink", "restart", "maintain", "flush", "change", "refuse"]
        ),
        n=st.integers(0, 3),
    )
    def manage(self, what: str, n: int) -> None:
        match what:
            case "grow":
                self.pool.grow(n)
                self.size += n
            case "shrink":
                self.shrink(n)
            case "restart" if not self.isClosed:
                old = [child for child in self.poolChildren() if child.calls.held]
                self.others.append(self.pool.restart())
                self.takeNoMore(old)
            case "maintain":
                self.pool.maintain()
            case "flush":
                self.pool.flush()
            case "change":
                self.changeDriver()
            case "refuse":
                # The system has room again after a while.
                self.isRefused = not self.isRefused and n > 1

    def shrink(self, n: int) -> None:
        """
        Have less processes.
        """
        try:
            self.pool.shrink(n)
        except ValueError:
            assert n >= self.size
        else:
            self.size -= n
            for supervisor in self.pool._supervisors._leaving:
                self.takeNoMore(supervisor.children)

    def takeNoMore(self, children: Sequence[Any]) -> None:
        """
        Look whether children that go have only what they may have begun.
        """
        for child in children:
            assert child.isGone or all(number <= child.calls.begun for number in child.calls.held)

    def changeDriver(self) -> None:
        """
        Take the pool from its loop, or give it back.
        """
        self.isOnLoop = not self.isOnLoop
        if self.isOnLoop:
            self.pool.register_with_event_loop(self.clock)
        else:
            self.pool.leaveLoop()

    @precondition(lambda self: self.living())
    @rule(data=st.data(), number=st.sampled_from([signal.SIGTERM, signal.SIGKILL]))
    def terminateJob(self, data: Any, number: int) -> None:
        child = data.draw(st.sampled_from(self.living()))
        try:
            self.pool.terminate_job(child.pid, number)
        except ValueError:
            assert child.pid not in self.pool.pids()
        else:
            if number == signal.SIGTERM and not child.isKilled:
                child.exit(-number)
            assert child.isKilled or child.hasExited

    @precondition(lambda self: len(self.asked) > 30)
    @rule(now=st.booleans())
    def shut(self, now: bool) -> None:
        self.isClosed = True
        if now:
            self.isTerminated = True
            self.pool.terminate()
            left = [child for child in self.living() if child.pid in self.pool.pids()]
            assert all(child.isKilled for child in left)
        else:
            self.pool.close()

    # What children do

    def living(self) -> list[ChildDouble]:
        """
        The children that have not exited.
        """
        return [child for child in self.children if not child.hasExited]

    def poolChildren(self) -> list[Any]:
        """
        What the pool has of its children.
        """
        return list(self.pool._supervisors.children)

    def turn(self) -> None:
        """
        Have the pool, or its loop, read what there is.
        """
        if self.isOnLoop:
            self.clock.turn()
        else:
            self.pool.flush()

    def moves(self, steps: int) -> None:
        """
        Have each child do so many steps.
        """
        for _ in range(steps):
            for child in self.living():
                child.step()
            self.turn()

    @precondition(lambda self: self.living())
    @rule(
        data=st.data(),
        steps=st.integers(0, 8),
        how=st.sampled_from(["returns", "raises", "iterates", "stops"]),
        heard=st.booleans(),
    )
    def step(self, data: Any, steps: int, how: str, heard: bool) -> None:
        child = data.draw(st.sampled_from(self.living()))
        for _ in range(steps):
            child.step(how if child.running is not None else "returns")
            if heard:
                self.turn()

    @precondition(lambda self: self.living())
    @rule(
        data=st.data(),
        steps=st.integers(0, 6),
        what=st.sampled_from([0, 3, -9, -11, 50_000, 150_000, None]),
    )
    def exit(self, data: Any, steps: int, what: int | None) -> None:
        self.moves(steps)
        for child in self.living():
            if child.isKilled:
                child.exit()
        if self.living() and what is not None:
            child = data.draw(st.sampled_from(self.living()))
            if what > 3:
                child.resident = what
            else:
                child.exit(what)

    @rule(
        seconds=st.sampled_from([0, 0.15, 1, 2, 3, 6, 40]),
        steps=st.integers(0, 6),
        isRunning=st.booleans(),
    )
    def advance(self, seconds: float, steps: int, isRunning: bool) -> None:
        self.moves(steps)
        for _ in range(6 * isRunning):
            for child in self.living():
                if child.running is None:
                    child.step()
            self.turn()
        self.turn()
        self.clock.advance(seconds)
        if not self.isOnLoop:
            self.pool.flush()

    # What is always true

    @invariant()
    def allHolds(self) -> None:
        if self.pool is not None:
            self.eachCallEndsOnceAtTheMost()
            self.nothingBeginsTwice()
            self.outcomesAreTrue()
            self.whatHasReturnedIsNotLost()
            self.limitsAreKept()
            self.sizesAgree()
            self.whatIsHeldIsHeldOnce()
            self.exitsAreTold()
            self.nothingIsOnlyLogged()

    def eachCallEndsOnceAtTheMost(self) -> None:
        for asked, result in zip(self.asked, self.results, strict=True):
            assert len(asked.ends) == result.ready()

    def nothingBeginsTwice(self) -> None:
        assert all(times == 1 for times in self.begun.values()), self.begun

    def outcomesAreTrue(self) -> None:
        for name, (asked, result) in enumerate(zip(self.asked, self.results, strict=True)):
            for end in asked.ends:
                if isinstance(end, BaseException):
                    assert not result.successful()
                    self.checkError(name, asked, end)
                else:
                    assert result.get() is end
                    assert end[0] == name
                    assert self.begun[name]
                    assert asked.accepted

    def checkError(self, name: int, asked: Asked, error: BaseException) -> None:
        """
        Look whether an error may be that of a call.
        """
        begun = self.begun[name]
        match error:
            case TimeLimitExceeded():
                assert (False, asked.hard) in asked.exceeded
            case WorkerLostError():
                assert asked.accepted or "ended before they began" in str(error)
            case TaskInterrupted():
                assert begun
                assert asked.accepted
                assert (True, asked.soft) in asked.exceeded
            case MaybeEncodingError():
                assert begun or not asked.accepted
            case QueueRunError():
                assert self.isTerminated
                assert not begun
            case WorkerError():
                assert not begun
            case LookupError() if error.args != ("it stays here",):
                assert error.args[0][0] == name
                assert begun
                assert asked.accepted
            case LookupError():
                assert not begun
            case _:
                raise AssertionError(f"{error!r} came from nowhere")

    def whatHasReturnedIsNotLost(self) -> None:
        for child in self.children:
            for args in child.ended:
                if args and args[0] != INITIAL:
                    for end in self.asked[args[0]].ends:
                        assert not isinstance(end, WorkerError), end

    def limitsAreKept(self) -> None:
        for child in self.children:
            assert self.maxTasks is None or child.made <= self.maxTasks
            if not child.isAlive or child.running is None or not child.running[1]:
                continue
            name = child.running[1][0]
            if name == INITIAL or not self.asked[name].accepted:
                continue
            asked = self.asked[name]
            pid, since = asked.accepted[-1]
            if pid != child.pid:
                continue
            passed = self.now() - since
            assert asked.hard is None or passed < asked.hard
            if asked.soft is not None and passed >= asked.soft:
                assert child.isInterrupted

    def sizesAgree(self) -> None:
        assert self.pool.size == self.size
        assert all(len(child.calls.held) <= self.capacity for child in self.poolChildren())
        supervisors = self.pool._supervisors.present
        assert len(set(supervisors)) == len(supervisors)
        assert self.pool._outputs.pids <= set(self.pool.pids())
        for child in self.poolChildren():
            # One that was told to end has closed its own.
            fileno = child._channel.fileno()
            assert fileno < 0 or self.pool._outputs.byDescriptor[fileno] is child

    def whatIsHeldIsHeldOnce(self) -> None:
        held = [job for child in self.poolChildren() for job in child.calls.held.values() if job]
        waiting = list(self.pool._jobs._waiting)
        assert len({*held, *waiting}) == len(held) + len(waiting)
        assert not any(job.result.ready() for job in (*held, *waiting))
        open_ = sum(not result.ready() for result in (*self.results, *self.others))
        assert len(held) + len(waiting) == open_
        # What waits has no timer, and is not accepted.
        assert not any(job._timers or job._isBegun for job in waiting)

    def exitsAreTold(self) -> None:
        released = {child.pid: child for child in self.children if child.isReleased}
        assert set(self.exits) == set(released)
        for pid, code in self.exits.items():
            if released[pid].hasExited:
                assert code is None or code == released[pid].exitCode

    def nothingIsOnlyLogged(self) -> None:
        assert not self.failures, self.failures[0]

    # The end

    def goOn(self, isOver: Any) -> None:
        """
        Let children do their work, until something is so.
        """
        for _ in range(600):
            if isOver():
                return
            for child in self.living():
                if child.isKilled:
                    child.exit()
                for _ in range(4):
                    child.step()
            self.turn()
            self.advance(0.1, 0, False)
        self.nothingIsOnlyLogged()
        waiting = [name for name, result in enumerate(self.results) if not result.ready()]
        raise AssertionError(f"{waiting} wait")

    def teardown(self) -> None:
        try:
            if self.pool is not None:
                self.end()
        finally:
            globalLogPublisher.removeObserver(self.logged)
            for child in self.children:
                child.exit()
                child.close()

    def end(self) -> None:
        """
        Everything comes to its end, and nothing is left.
        """
        self.isRefused = False
        self.isClosed = True
        self.pool.close()
        self.goOn(lambda: all(result.ready() for result in (*self.results, *self.others)))
        self.goOn(lambda: not self.pool.pids())
        self.pool.join()
        # Those that were given up hang in the kernel.
        assert all(child.isKilled for child in self.living())
        assert all(child.isReleased for child in self.children)
        self.clock.advance(0)
        self.allHolds()
        assert not self.pool._loop._delayed, list(self.pool._loop._delayed)
        assert not self.pool._loop._readable
        assert not self.clock.getReaders()
        assert not self.clock.getDelayedCalls(), self.clock.getDelayedCalls()


TestPool = Pool.TestCase
TestPool.settings = settings(
    stateful_step_count=50,
    phases=[Phase.generate],
)
