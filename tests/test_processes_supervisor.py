"""
A supervisor, with children that do as the test wants, on a clock.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.task import Clock

from asynqueue.loops.adapters import Timer
from asynqueue.outcome import raised
from asynqueue.processes.limits import Limits
from asynqueue.processes.roles import ExitReport
from asynqueue.processes.supervisor import Supervisor
from asynqueue.testing import MemoryTask
from tests.doubles import readingLogs

MEGABYTE = 1 << 20


class ClockAdapter:
    """
    An adapter that has only timers.
    """

    def __init__(self) -> None:
        self.clock = Clock()

    def callLater(self, seconds: float, f: Callable[[], None]) -> Timer:
        """
        Call it when the clock says so.
        """
        timer: Timer = self.clock.callLater(seconds, f)
        return timer


class Child:
    """
    Stands for a L{ChildProcess<asynqueue.processes.process.ChildProcess>}, and for its calls.

    @ivar asked: what it was asked to do, in order.
    @ivar resident: how many bytes it has.
    """

    def __init__(
        self, adapter: Any, owner: Any, life: Any, setup: Any, reader: Any, **kw: Any
    ) -> None:
        self.pid = 0
        self.held: dict[int, str] = {}
        self.streams: dict[int, Any] = {}
        self.calls = self
        self.given = len(setup.preparations)
        self.accepts = not setup.preparations
        self.isUp = False
        self.asked: list[str] = []
        self.resident = MEGABYTE
        self.back: list[str] = []
        self.suspects: list[Any] = []
        self.made = 0
        self._supervisor = life

    def give(self, job: str) -> None:
        """
        Have it make a call.
        """
        self.given += 1
        self.made += 1
        self.held[self.given] = job
        self._supervisor.given(self)

    def end(self) -> None:
        """
        It ends its calls.
        """
        self.held.clear()
        self._supervisor.checkMemory(self)
        self._supervisor.onIdle(self)

    def comeUp(self) -> None:
        """
        It is set up and prepared.
        """
        self.isUp = self.accepts = True
        self._supervisor.up(self)

    def die(self, code: int = 0, signal: int | None = None, words: str = "") -> None:
        """
        It is gone.
        """
        self.accepts = False
        exitCode = None if signal else code
        begun = list(self.held.values())
        self.held.clear()
        self._supervisor.ended(
            self,
            ExitReport(self.pid, exitCode, signal, "", words, begun, [], suspects=self.suspects),
        )

    def takeBack(self) -> list[str]:
        """
        Give back what has not begun.
        """
        back, self.back = self.back, []
        self.made -= len(back)
        for job in back:
            self.held = {number: held for number, held in self.held.items() if held != job}
        return back

    def finish(self) -> None:
        """
        Note it.
        """
        self.asked.append("finish")

    def kill(self, reason: str) -> None:
        """
        Note it.
        """
        self.asked.append(reason)


class House:
    """
    A supervisor with all that belongs to it.

    @ivar children: all that were started.
    @ivar told: what its owner was told.
    @ivar refusal: what the start of a child raises.
    """

    def __init__(self) -> None:
        self.adapter: Any = ClockAdapter()
        self.children: list[Child] = []
        self.told: list[Any] = []
        self.refusal: Exception | None = None
        self.supervisor: Supervisor

    def build(self, limits: Limits | None = None, preparations: Any = ()) -> Supervisor:
        """
        Make the supervisor.
        """
        owner: Any = self
        start: Any = self.start
        self.supervisor = Supervisor(
            owner,
            lambda: self.adapter,
            limits or Limits(),
            preparations,
            start=start,
            now=self.adapter.clock.seconds,
        )
        return self.supervisor

    def start(self, *args: Any, **kw: Any) -> Child:
        """
        Start a child.
        """
        if self.refusal is not None:
            raise self.refusal
        child = Child(*args, **kw)
        child.pid = len(self.children)
        self.children.append(child)
        return child

    @property
    def child(self) -> Child:
        """
        The latest.
        """
        return self.children[-1]

    def advance(self, seconds: float) -> None:
        """
        Let time pass.
        """
        self.adapter.clock.advance(seconds)

    # SupervisorDelegate

    def filled(self, supervisor: Supervisor) -> None:
        self.told.append("filled")

    def exited(self, supervisor: Supervisor, ending: ExitReport) -> None:
        self.told.append(("exited", ending.pid))

    def handedBack(self, jobs: Any) -> None:
        self.told.append(("handedBack", *jobs))

    def failing(self, supervisor: Supervisor, reason: str, isHopeless: bool) -> None:
        self.told.append(("hopeless" if isHopeless else "failing", reason))


@pytest.fixture
def house() -> House:
    """
    A house without a supervisor yet.
    """
    return House()


# Filling


def test_aSeatIsFilledOnce(house: House) -> None:
    """
    To fill a supervisor starts one child, which takes calls at once if it need not be
    prepared.
    """
    supervisor = house.build()
    supervisor.fill()
    supervisor.fill()
    assert len(house.children) == supervisor.started == 1
    assert supervisor.child is house.child  # type: ignore[comparison-overlap]
    assert house.told == ["filled"]


def test_aChildIsPreparedFirst(house: House) -> None:
    """
    One that must be prepared takes calls when it is.
    """
    supervisor = house.build(preparations=[(abs, (1,), {})])
    supervisor.fill()
    supervisor.fill()
    assert (supervisor.child, len(supervisor.children)) == (None, 1)
    house.child.comeUp()
    assert supervisor.child is house.child  # type: ignore[comparison-overlap]
    assert house.told == ["filled"]


def test_aLostChildIsReplaced(house: House) -> None:
    """
    When a child dies, the owner hears of it, and may fill the supervisor again.
    """
    supervisor = house.build()
    supervisor.fill()
    house.child.comeUp()
    house.child.die(signal=9)
    assert (supervisor.child, len(supervisor.children)) == (None, 0)
    assert house.told == ["filled", ("exited", 0)]
    supervisor.fill()
    assert len(house.children) == 2
    assert (supervisor.lost, supervisor.starts.falseStarts) == (1, 0)


# Starts that fail


def test_startsThatFailAreTriedLater(house: House) -> None:
    """
    After some that died as they started there is a pause; all are counted.
    """
    supervisor = house.build(preparations=[(abs, (1,), {})])
    with readingLogs() as logs:
        for _ in range(3):
            supervisor.fill()
            house.child.die(3, words="no database")
        supervisor.fill()
        supervisor.fill()
    assert (len(house.children), supervisor.starts.falseStarts) == (3, 3)
    (said,) = logs.said()
    assert "3 times in a row" in said
    assert "no database" in said
    house.advance(1)
    assert len(house.children) == 4
    house.child.comeUp()
    assert supervisor.child is house.child  # type: ignore[comparison-overlap]


def test_startsThatAreRefusedAreHopeless(house: House) -> None:
    """
    If none can be started, the owner hears why, but not within its call.
    """
    house.refusal = OSError("too many")
    supervisor = house.build()
    with readingLogs() as logs:
        supervisor.fill()
    assert house.told == []
    house.advance(0)
    assert house.told == [("hopeless", "no process can be started: OSError: too many")]
    assert "OSError: too many" in logs.said()[0]
    house.refusal = None
    supervisor.fill()
    assert len(house.children) == 1
    assert supervisor.starts.falseStarts == 1


def test_hopeThatIsBackIsNotDenied(house: House) -> None:
    """
    If a child came up in the meantime, the owner hears of no failure.
    """
    house.refusal = OSError("too many")
    supervisor = house.build()
    supervisor.fill()
    house.refusal = None
    supervisor.fill()
    house.child.comeUp()
    house.advance(0)
    assert house.told == ["filled"]


def test_childrenThatCannotPrepareAreHopeless(house: House) -> None:
    """
    If a preparation raises, the child is ended, and the owner hears why.
    """
    supervisor = house.build(preparations=[(abs, (1,), {})])
    supervisor.fill()
    with readingLogs() as logs:
        supervisor.unfit(house.child, "abs(1)", raised(LookupError("no database")))  # type: ignore[arg-type]
    (reason,) = house.child.asked
    assert reason == "its process cannot prepare: abs(1) raised LookupError: no database"
    assert house.told == [("hopeless", reason)]
    assert "LookupError" in logs.said()[0]


def test_oneThatIsToGoNeedNotPrepare(house: House) -> None:
    """
    That a child cannot prepare concerns nobody if a crash has ended it: another one is had.
    """
    supervisor = house.build(preparations=[(abs, (1,), {})])
    supervisor.fill()
    first = house.child
    supervisor.crash("of a test")
    supervisor.fill()
    supervisor.unfit(first, "abs(1)", raised(LookupError("no database")))  # type: ignore[arg-type]
    assert house.told == []
    house.child.comeUp()
    assert house.told == ["filled"]
    assert first.asked[0] == "of a test"


def test_aFalseStartOfOneThatMakesOneCall(house: House) -> None:
    """
    A child that was given all calls that it may make, and ends as it starts, counts, too.
    """
    supervisor = house.build(Limits(maxTasks=1))
    with readingLogs() as logs:
        for _ in range(3):
            supervisor.fill()
            house.child.give("one")
            house.child.die(3)
        supervisor.fill()
    assert (len(house.children), supervisor.starts.falseStarts) == (3, 3)
    assert "3 times in a row" in logs.said()[0]


# Children that are reserved


def test_aReservedChildTakesNoOtherCall(house: House) -> None:
    """
    A child that is left to its calls takes others when it has ended them, and no other child
    takes them until then.
    """
    supervisor = house.build()
    supervisor.fill()
    child = house.child
    child.comeUp()
    child.give("one")
    child.back = ["one"]
    supervisor.reserve()
    supervisor.fill()
    assert (supervisor.child, len(house.children)) == (None, 1)
    assert supervisor.takeBack(reserved=False) == []
    child.end()
    assert house.told == ["filled", "filled"]
    assert supervisor.child is child  # type: ignore[comparison-overlap]
    assert child.asked == []


def test_aReservedChildThatHasNothingLeft(house: House) -> None:
    """
    When what it had is taken back it takes other calls.
    """
    supervisor = house.build()
    supervisor.fill()
    house.child.comeUp()
    house.child.give("one")
    house.child.back = ["one"]
    supervisor.reserve()
    assert supervisor.takeBack() == ["one"]
    assert supervisor.child is house.child  # type: ignore[comparison-overlap]


def test_aReservedChildThatDies(house: House) -> None:
    """
    The supervisor is filled anew.
    """
    supervisor = house.build()
    supervisor.fill()
    house.child.comeUp()
    house.child.give("one")
    supervisor.reserve()
    house.child.die(signal=9)
    supervisor.fill()
    assert len(house.children) == 2
    assert supervisor.child is house.child  # type: ignore[comparison-overlap]


@pytest.mark.parametrize("end", ["renew", "cancel"])
def test_aReservedChildThatIsNotWanted(house: House, end: str) -> None:
    """
    It goes when it has ended its calls.
    """
    supervisor = house.build()
    supervisor.fill()
    child = house.child
    child.comeUp()
    child.give("one")
    supervisor.reserve()
    getattr(supervisor, end)()
    assert child.asked == []
    child.end()
    assert child.asked == ["finish"]
    assert supervisor.child is None


# Children that are replaced


def test_maxTasks(house: House) -> None:
    """
    After so many calls, preparations not among them, a child takes no more; it goes
    when it has ended them.
    """
    supervisor = house.build(Limits(maxTasks=2), [(abs, (1,), {})])
    supervisor.fill()
    first = house.child
    first.comeUp()
    first.give("one")
    assert supervisor.child is first  # type: ignore[comparison-overlap]
    first.give("two")
    assert supervisor.child is None
    assert first.asked == []
    first.end()
    assert first.asked == ["finish"]


def test_maxTasksCountsWhatIsMade(house: House) -> None:
    """
    Calls that a child has not begun are taken back also after its last was given; it may
    make others in their place, before the next child has its turn.
    """
    supervisor = house.build(Limits(maxTasks=3))
    supervisor.fill()
    first = house.child
    first.comeUp()
    for job in ("one", "two", "three"):
        first.give(job)
    supervisor.fill()
    house.child.comeUp()
    first.back = ["two", "three"]
    assert supervisor.takeBack() == ["two", "three"]
    assert supervisor.child is first  # type: ignore[comparison-overlap]
    first.end()
    assert (supervisor.child, first.asked) == (first, [])  # type: ignore[comparison-overlap]
    first.give("two")
    first.give("three")
    assert supervisor.child is None
    first.end()
    assert first.asked == ["finish"]
    assert supervisor.child is house.child  # type: ignore[comparison-overlap]


def test_theNextOneWaitsForTheLastCall(house: House) -> None:
    """
    A child that is ready takes calls when the one before has ended its last.
    """
    supervisor = house.build(Limits(maxTasks=1))
    supervisor.fill()
    first = house.child
    first.comeUp()
    first.give("one")
    supervisor.fill()
    house.child.comeUp()
    assert supervisor.child is None
    first.end()
    assert supervisor.child is house.child


def test_maxMemoryAtTheEndOfACall(house: House) -> None:
    """
    One that has too much memory as it ends a call goes; a fresh one stays, however
    much it has.
    """
    supervisor = house.build(Limits(maxMemory=MEGABYTE))
    supervisor.fill()
    child = house.child
    child.resident = 3 * MEGABYTE // 2
    child.comeUp()
    supervisor.checkMemory(child)  # type: ignore[arg-type]
    assert child.asked == []
    child.give("one")
    child.end()
    assert set(child.asked) == {"finish"}
    assert supervisor.child is None


@pytest.mark.parametrize(
    ("limits", "memory", "asked"),
    [
        (Limits(maxMemory=MEGABYTE), MEGABYTE, []),
        (Limits(maxMemory=MEGABYTE), 3 * MEGABYTE, ["it used 3,145,728 bytes of memory"]),
        (Limits(maxMemory=MEGABYTE, excess=None), 3 * MEGABYTE, []),
    ],
)
def test_muchMemoryInACall(house: House, limits: Limits, memory: int, asked: list[str]) -> None:
    """
    One that has far too much in the middle of a call is ended, if that is wanted.
    """
    supervisor = house.build(limits)
    supervisor.fill()
    house.child.comeUp()
    house.child.give("one")
    house.child.resident = memory
    house.advance(0.15)
    assert [said[:33] for said in house.child.asked] == asked


def test_tooMuchMemoryInACall(house: House) -> None:
    """
    One that has too much takes no more calls: what it had not begun is handed back.
    """
    supervisor = house.build(Limits(maxMemory=MEGABYTE))
    supervisor.fill()
    child = house.child
    child.comeUp()
    child.give("one")
    child.resident = 3 * MEGABYTE // 2
    child.back = ["two", "three"]
    house.advance(0.15)
    assert supervisor.child is None
    assert house.told[-1] == ("handedBack", "two", "three")
    child.end()
    house.advance(0.15)
    assert child.asked == ["finish"]
    assert house.adapter.clock.getDelayedCalls() == []


@pytest.mark.parametrize("end", ["cancel", "renew"])
def test_nobodyLooksAtTheMemoryOfOneThatIsGone(house: House, end: str) -> None:
    """
    Nothing is due any more when a child has died that was not wanted any more.
    """
    supervisor = house.build(Limits(maxTasks=1, maxMemory=MEGABYTE))
    supervisor.fill()
    child = house.child
    child.comeUp()
    child.give("one")
    getattr(supervisor, end)()
    child.die(signal=9)
    assert house.adapter.clock.getDelayedCalls() == []


def test_idleTimeout(house: House) -> None:
    """
    One without work goes after its time; work begins that time anew.
    """
    supervisor = house.build(Limits(idleTimeout=10))
    supervisor.fill()
    house.child.comeUp()
    house.advance(9)
    house.child.give("one")
    house.advance(9)
    house.child.end()
    house.advance(9)
    assert house.child.asked == []
    house.advance(1)
    assert house.child.asked == ["finish"]


def test_theNextOneHasItsOwnIdleTime(house: House) -> None:
    """
    When a child is replaced, the time of the next one begins with it.
    """
    supervisor = house.build(Limits(idleTimeout=10))
    supervisor.fill()
    first = house.child
    first.comeUp()
    house.advance(9)
    supervisor.retire(first)  # type: ignore[arg-type]
    supervisor.fill()
    house.child.comeUp()
    house.advance(9)
    assert house.child.asked == []
    house.advance(1)
    assert house.child.asked == ["finish"]


@pytest.mark.parametrize("limits", [Limits(idleTimeout=10), Limits(maxMemory=2 * MEGABYTE)])
def test_theDeadLeaveNoTimer(house: House, limits: Limits) -> None:
    """
    What was due for a child is not, when that is gone; and is due again for the next one.
    """
    supervisor = house.build(limits)
    for _ in range(2):
        supervisor.fill()
        house.child.comeUp()
        house.child.give("one")
        house.child.end()
        if limits.maxMemory is not None:
            house.child.give("another")
        assert len(house.adapter.clock.getDelayedCalls()) == 1
        house.child.die(signal=9)
        assert house.adapter.clock.getDelayedCalls() == []
        house.advance(0)


# The next child, started ahead


def startAhead(house: House, limits: Limits | None = None, preparations: Any = ()) -> Child:
    """
    Have the next child started while the present one, which is returned, makes the third of five
    calls.
    """
    house.build(limits or Limits(maxTasks=5), preparations).fill()
    first = house.child
    house.advance(1)
    first.comeUp()
    for job in ("one", "two"):
        first.give(job)
        house.advance(1)
        first.end()
    assert len(house.children) == 1
    first.give("three")
    assert len(house.children) == 2
    assert house.supervisor.child is first  # type: ignore[comparison-overlap]
    return first


def test_theNextOneIsReadyAtTheChange(house: House) -> None:
    """
    The next child is started while the present one makes its last calls, as early as it takes,
    and only once; it makes calls when all those are made.
    """
    first = startAhead(house)
    supervisor = house.supervisor
    house.child.comeUp()
    for job in ("four", "five"):
        house.advance(1)
        first.end()
        assert supervisor.child is first  # type: ignore[comparison-overlap]
        first.give(job)
    assert (supervisor.child, supervisor.started, len(supervisor.children)) == (None, 2, 2)
    first.end()
    assert first.asked == ["finish"]
    assert supervisor.child is house.child
    assert house.told == ["filled", "filled"]


def test_nobodyIsStartedAheadOfRareCalls(house: House) -> None:
    """
    Where calls are so rare that the next child would only wait, none is started ahead.
    """
    supervisor = house.build(Limits(maxTasks=2))
    supervisor.fill()
    house.advance(1)
    house.child.comeUp()
    for job in ("one", "two"):
        house.child.give(job)
        house.advance(0.1)
        house.child.end()
        house.advance(60)
    assert (supervisor.started, house.child.asked) == (1, ["finish"])


def test_theNextOneDiesBeforeItsTurn(house: House) -> None:
    """
    A child that was started ahead and dies is replaced when one is wanted.
    """
    first = startAhead(house)
    house.child.comeUp()
    house.child.die(signal=9)
    house.told.clear()
    for job in ("four", "five"):
        first.end()
        first.give(job)
    assert (len(house.children), house.told) == (2, [])
    first.end()
    house.supervisor.fill()
    assert (len(house.children), house.supervisor.lost) == (3, 1)
    assert house.supervisor.child is house.child  # type: ignore[comparison-overlap]


def test_theNextOneCannotPrepare(house: House) -> None:
    """
    While there is a child, the owner hears nothing of one that was started ahead and is of no
    use; it hears of the next one that it wants.
    """
    first = startAhead(house, preparations=[(abs, (1,), {})])
    supervisor = house.supervisor
    reason = "its process cannot prepare: abs(1) raised LookupError: no database"
    with readingLogs():
        for _ in range(2):
            supervisor.unfit(house.child, "abs(1)", raised(LookupError("no database")))  # type: ignore[arg-type]
            assert house.child.asked == [reason]
            house.child.die(signal=9)
            if supervisor.child is not None:
                assert house.told == ["filled", ("exited", 1)]
                for job in ("four", "five"):
                    first.end()
                    first.give(job)
                assert len(house.children) == 2
                supervisor.fill()
    assert house.told[2:] == [("hopeless", reason), ("hopeless", reason), ("exited", 2)]


def test_theNextOneEndsAsItStarts(house: House) -> None:
    """
    While there is a child, the owner does not hear that one that was started ahead failed.
    """
    startAhead(house)
    house.child.die(3)
    assert house.told == ["filled", ("exited", 1)]
    assert house.supervisor.starts.falseStarts == 1


def test_thereIsNoRoomForTheNextOne(house: House) -> None:
    """
    While there is a child, the owner does not hear that no other can be started.
    """
    house.build(Limits(maxTasks=2)).fill()
    house.advance(1)
    house.child.comeUp()
    house.refusal = OSError("too many")
    with readingLogs() as logs:
        for job in ("one", "two"):
            house.child.back = [job]
            house.child.give(job)
    assert house.supervisor.takeBack() == ["two"]
    house.advance(0)
    assert "OSError: too many" in logs.said()[0]
    assert house.told == ["filled"]


def test_theNextOneKnowsWhatIsToPrepareIt(house: House) -> None:
    """
    A child that is coming is replaced when there is a preparation that it was not given.
    """
    first = startAhead(house)
    house.supervisor.prepare((abs, (1,), {}))
    assert house.child.asked == ["finish"]
    house.child.die()
    first.end()
    first.give("four")
    assert (len(house.children), house.child.given) == (3, 1)
    assert house.supervisor.starts.falseStarts == 0


@pytest.mark.parametrize("end", ["renew", "cancel", "idleTimeout"])
def test_theNextOneGoesWithThePresent(house: House, end: str) -> None:
    """
    When the present child is not wanted any more, nor is the one that was started ahead.
    """
    first = startAhead(house, Limits(maxTasks=5, idleTimeout=30))
    house.child.comeUp()
    first.end()
    if end == "idleTimeout":
        house.advance(30)
    else:
        getattr(house.supervisor, end)()
    assert [child.asked for child in house.children] == [["finish"], ["finish"]]
    assert house.supervisor.child is None


# The end


def test_cancelEndsWhoIsComing(house: House) -> None:
    """
    A supervisor that is not wanted any more has the one that is coming end; that is no
    failure of it.
    """
    supervisor = house.build(preparations=[(abs, (1,), {})])
    supervisor.fill()
    supervisor.cancel()
    supervisor.cancel()
    assert house.child.asked == ["finish"]
    house.child.die()
    assert (supervisor.starts.falseStarts, supervisor.lost) == (0, 0)


def test_finishEndsAll(house: House) -> None:
    """
    All children are let go, and no timer is left.
    """
    supervisor = house.build(Limits(maxTasks=1, idleTimeout=5))
    supervisor.fill()
    first = house.child
    first.comeUp()
    first.give("one")
    supervisor.fill()
    supervisor.finish()
    assert [child.asked for child in house.children] == [["finish"], ["finish"]]
    assert supervisor.child is None
    assert house.adapter.clock.getDelayedCalls() == []


def test_crashEndsAllAtOnce(house: House) -> None:
    """
    All children are killed, and none is waited for: the owner hears of each when it is
    gone.
    """
    supervisor = house.build(Limits(maxTasks=1))
    supervisor.fill()
    house.child.comeUp()
    house.child.give("one")
    supervisor.fill()
    supervisor.crash("of a test")
    assert [child.asked for child in house.children] == [["of a test"], ["of a test"]]
    assert len(supervisor.children) == 2
    for child in house.children:
        child.die(signal=9)
    assert len(supervisor.children) == 0
    assert house.told[-2:] == [("exited", 0), ("exited", 1)]
    assert supervisor.starts.falseStarts == 0


def test_whatACrashHasTakenBackIsNotToBlame(house: House) -> None:
    """
    What was taken back from a child that is ended by a crash is not counted as tried by it.
    """
    supervisor, task = house.build(), MemoryTask(abs)
    supervisor.fill()
    house.child.comeUp()
    house.child.suspects.append(task)
    supervisor.crash("of a test")
    house.child.die(signal=9)
    assert task.tries == 0
