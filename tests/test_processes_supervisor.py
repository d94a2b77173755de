"""
A seat, with children that do as the test wants, on a clock.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.task import Clock

from asynqueue.loops.adapters import Timer
from asynqueue.outcome import raised
from asynqueue.processes import supervisor
from asynqueue.processes.limits import Limits
from asynqueue.processes.roles import Ending
from asynqueue.processes.supervisor import Seat
from tests.doubles import readingLogs

MEGABYTE = 1 << 20


class ClockHub:
    """
    A hub that has only timers.
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
    Stands for a L{Member<asynqueue.processes.process.Member>}.

    @ivar asked: what it was asked to do, in order.
    @ivar resident: how many bytes it has.
    """

    def __init__(self, hub: Any, owner: Any, life: Any, setup: Any, reader: Any, **kw: Any) -> None:
        self.pid = 0
        self.held: dict[int, str] = {}
        self.streams: dict[int, Any] = {}
        self.prepared = len(setup.preparations)
        self.calls = self.prepared
        self.accepts = not setup.preparations
        self.isUp = False
        self.asked: list[str] = []
        self.resident = MEGABYTE
        self.back: list[str] = []
        self.made = 0
        self._seat = life

    def give(self, job: str) -> None:
        """
        Have it make a call.
        """
        self.calls += 1
        self.made += 1
        self.held[self.calls] = job
        self._seat.given(self)

    def end(self) -> None:
        """
        It ends its calls.
        """
        self.held.clear()
        self._seat.weigh(self)
        self._seat.rest(self)

    def comeUp(self) -> None:
        """
        It is set up and prepared.
        """
        self.isUp = self.accepts = True
        self._seat.up(self)

    def die(self, code: int = 0, signal: int | None = None, words: str = "") -> None:
        """
        It is gone.
        """
        self.accepts = False
        exitCode = None if signal else code
        begun = list(self.held.values())
        self.held.clear()
        self._seat.ended(self, Ending(self.pid, exitCode, signal, "", words, begun, []))

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
    A seat with all that belongs to it.

    @ivar children: all that were started.
    @ivar told: what its owner was told.
    @ivar refusal: what the start of a child raises.
    """

    def __init__(self) -> None:
        self.hub: Any = ClockHub()
        self.children: list[Child] = []
        self.told: list[Any] = []
        self.refusal: Exception | None = None
        self.seat: Seat

    def build(self, limits: Limits | None = None, preparations: Any = ()) -> Seat:
        """
        Make the seat.
        """
        owner: Any = self
        self.seat = Seat(owner, lambda: self.hub, limits or Limits(), preparations)
        return self.seat

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
        self.hub.clock.advance(seconds)

    # SeatOwner

    def seated(self, seat: Seat) -> None:
        self.told.append("seated")

    def vacated(self, seat: Seat, ending: Ending) -> None:
        self.told.append(("vacated", ending.pid))

    def handedBack(self, seat: Seat, jobs: Any) -> None:
        self.told.append(("handedBack", *jobs))

    def failing(self, seat: Seat, reason: str) -> None:
        self.told.append(("failing", reason))

    def hopeless(self, seat: Seat, reason: str) -> None:
        self.told.append(("hopeless", reason))


@pytest.fixture
def house(monkeypatch: pytest.MonkeyPatch) -> House:
    """
    A house without a seat yet.
    """
    house = House()
    monkeypatch.setattr(supervisor, "Member", house.start)
    return house


# Filling


def test_aSeatIsFilledOnce(house: House) -> None:
    """
    To fill a seat starts one child, which takes calls at once if it need not be
    prepared.
    """
    seat = house.build()
    seat.fill()
    seat.fill()
    assert len(house.children) == seat.started == 1
    assert seat.member is house.child  # type: ignore[comparison-overlap]
    assert house.told == ["seated"]


def test_aChildIsPreparedFirst(house: House) -> None:
    """
    One that must be prepared takes calls when it is.
    """
    seat = house.build(preparations=[(abs, (1,), {})])
    seat.fill()
    seat.fill()
    assert (seat.member, len(seat.members)) == (None, 1)
    house.child.comeUp()
    assert seat.member is house.child  # type: ignore[comparison-overlap]
    assert house.told == ["seated"]


def test_aLostChildIsReplaced(house: House) -> None:
    """
    When a child dies, the owner hears of it, and may fill the seat again.
    """
    seat = house.build()
    seat.fill()
    house.child.comeUp()
    house.child.die(signal=9)
    assert (seat.member, seat.members) == (None, [])
    assert house.told == ["seated", ("vacated", 0)]
    seat.fill()
    assert len(house.children) == 2
    assert (seat.lost, seat.falseStarts) == (1, 0)


# Starts that fail


def test_startsThatFailAreTriedLater(house: House) -> None:
    """
    After some that died as they started there is a pause; all are counted.
    """
    seat = house.build(preparations=[(abs, (1,), {})])
    with readingLogs() as logs:
        for _ in range(3):
            seat.fill()
            house.child.die(3, words="no database")
        seat.fill()
        seat.fill()
    assert (len(house.children), seat.falseStarts) == (3, 3)
    (said,) = logs.said()
    assert "3 times in a row" in said
    assert "no database" in said
    house.advance(1)
    assert len(house.children) == 4
    house.child.comeUp()
    assert seat.member is house.child  # type: ignore[comparison-overlap]


def test_startsThatAreRefusedAreHopeless(house: House) -> None:
    """
    If none can be started, the owner hears why, but not within its call.
    """
    house.refusal = OSError("too many")
    seat = house.build()
    with readingLogs() as logs:
        seat.fill()
    assert house.told == []
    house.advance(0)
    assert house.told == [("hopeless", "no process can be started: OSError: too many")]
    assert "OSError: too many" in logs.said()[0]
    house.refusal = None
    seat.fill()
    assert len(house.children) == 1
    assert seat.falseStarts == 1


def test_hopeThatIsBackIsNotDenied(house: House) -> None:
    """
    If a child came up in the meantime, the owner hears of no failure.
    """
    house.refusal = OSError("too many")
    seat = house.build()
    seat.fill()
    house.refusal = None
    seat.fill()
    house.child.comeUp()
    house.advance(0)
    assert house.told == ["seated"]


def test_childrenThatCannotPrepareAreHopeless(house: House) -> None:
    """
    If a preparation raises, the child is ended, and the owner hears why.
    """
    seat = house.build(preparations=[(abs, (1,), {})])
    seat.fill()
    with readingLogs() as logs:
        seat.unfit(house.child, "abs(1)", raised(LookupError("no database")))  # type: ignore[arg-type]
    (reason,) = house.child.asked
    assert reason == "its process cannot prepare: abs(1) raised LookupError: no database"
    assert house.told == [("hopeless", reason)]
    assert "LookupError" in logs.said()[0]


def test_aFalseStartOfOneThatMakesOneCall(house: House) -> None:
    """
    A child that was given all calls that it may make, and ends as it starts, counts, too.
    """
    seat = house.build(Limits(maxTasks=1))
    with readingLogs() as logs:
        for _ in range(3):
            seat.fill()
            house.child.give("one")
            house.child.die(3)
        seat.fill()
    assert (len(house.children), seat.falseStarts) == (3, 3)
    assert "3 times in a row" in logs.said()[0]


# Children that are reserved


def test_aReservedChildTakesNoOtherCall(house: House) -> None:
    """
    A child that is left to its calls takes others when it has ended them, and no other child
    takes them until then.
    """
    seat = house.build()
    seat.fill()
    child = house.child
    child.comeUp()
    child.give("one")
    child.back = ["one"]
    seat.reserve()
    seat.fill()
    assert (seat.member, len(house.children)) == (None, 1)
    assert seat.takeBack(reserved=False) == []
    child.end()
    assert house.told == ["seated", "seated"]
    assert seat.member is child  # type: ignore[comparison-overlap]
    assert child.asked == []


def test_aReservedChildThatHasNothingLeft(house: House) -> None:
    """
    When what it had is taken back it takes other calls.
    """
    seat = house.build()
    seat.fill()
    house.child.comeUp()
    house.child.give("one")
    house.child.back = ["one"]
    seat.reserve()
    assert seat.takeBack() == ["one"]
    assert seat.member is house.child  # type: ignore[comparison-overlap]


def test_aReservedChildThatDies(house: House) -> None:
    """
    The seat is filled anew.
    """
    seat = house.build()
    seat.fill()
    house.child.comeUp()
    house.child.give("one")
    seat.reserve()
    house.child.die(signal=9)
    seat.fill()
    assert len(house.children) == 2
    assert seat.member is house.child  # type: ignore[comparison-overlap]


@pytest.mark.parametrize("end", ["renew", "cancel"])
def test_aReservedChildThatIsNotWanted(house: House, end: str) -> None:
    """
    It goes when it has ended its calls.
    """
    seat = house.build()
    seat.fill()
    child = house.child
    child.comeUp()
    child.give("one")
    seat.reserve()
    getattr(seat, end)()
    assert child.asked == []
    child.end()
    assert child.asked == ["finish"]
    assert seat.member is None


# Children that are replaced


def test_maxTasks(house: House) -> None:
    """
    After so many calls, preparations not among them, a child takes no more; it goes
    when it has ended them.
    """
    seat = house.build(Limits(maxTasks=2), [(abs, (1,), {})])
    seat.fill()
    first = house.child
    first.comeUp()
    first.give("one")
    assert seat.member is first  # type: ignore[comparison-overlap]
    first.give("two")
    assert seat.member is None
    assert first.asked == []
    first.end()
    assert first.asked == ["finish"]


def test_maxTasksCountsWhatIsMade(house: House) -> None:
    """
    Calls that a child has not begun are taken back also after its last was given; it may
    make others in their place, before the next child has its turn.
    """
    seat = house.build(Limits(maxTasks=3))
    seat.fill()
    first = house.child
    first.comeUp()
    for job in ("one", "two", "three"):
        first.give(job)
    seat.fill()
    house.child.comeUp()
    first.back = ["two", "three"]
    assert seat.takeBack() == ["two", "three"]
    assert seat.member is first  # type: ignore[comparison-overlap]
    first.end()
    assert (seat.member, first.asked) == (first, [])  # type: ignore[comparison-overlap]
    first.give("two")
    first.give("three")
    assert seat.member is None
    first.end()
    assert first.asked == ["finish"]
    assert seat.member is house.child  # type: ignore[comparison-overlap]


def test_theNextOneWaitsForTheLastCall(house: House) -> None:
    """
    A child that is ready takes calls when the one before has ended its last.
    """
    seat = house.build(Limits(maxTasks=1))
    seat.fill()
    first = house.child
    first.comeUp()
    first.give("one")
    seat.fill()
    house.child.comeUp()
    assert seat.member is None
    first.end()
    assert seat.member is house.child


def test_maxMemoryAtTheEndOfACall(house: House) -> None:
    """
    One that has too much memory as it ends a call goes; a fresh one stays, however
    much it has.
    """
    seat = house.build(Limits(maxMemory=MEGABYTE))
    seat.fill()
    child = house.child
    child.resident = 3 * MEGABYTE // 2
    child.comeUp()
    seat.weigh(child)  # type: ignore[arg-type]
    assert child.asked == []
    child.give("one")
    child.end()
    assert set(child.asked) == {"finish"}
    assert seat.member is None


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
    seat = house.build(limits)
    seat.fill()
    house.child.comeUp()
    house.child.give("one")
    house.child.resident = memory
    house.advance(0.15)
    assert [said[:33] for said in house.child.asked] == asked


def test_tooMuchMemoryInACall(house: House) -> None:
    """
    One that has too much takes no more calls: what it had not begun is handed back.
    """
    seat = house.build(Limits(maxMemory=MEGABYTE))
    seat.fill()
    child = house.child
    child.comeUp()
    child.give("one")
    child.resident = 3 * MEGABYTE // 2
    child.back = ["two", "three"]
    house.advance(0.15)
    assert seat.member is None
    assert house.told[-1] == ("handedBack", "two", "three")
    child.end()
    house.advance(0.15)
    assert child.asked == ["finish"]
    assert house.hub.clock.getDelayedCalls() == []


@pytest.mark.parametrize("end", ["cancel", "renew"])
def test_nobodyLooksAtTheMemoryOfOneThatIsGone(house: House, end: str) -> None:
    """
    Nothing is due any more when a child has died that was not wanted any more.
    """
    seat = house.build(Limits(maxTasks=1, maxMemory=MEGABYTE))
    seat.fill()
    child = house.child
    child.comeUp()
    child.give("one")
    getattr(seat, end)()
    child.die(signal=9)
    assert house.hub.clock.getDelayedCalls() == []


def test_idleTimeout(house: House) -> None:
    """
    One without work goes after its time; work begins that time anew.
    """
    seat = house.build(Limits(idleTimeout=10))
    seat.fill()
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
    seat = house.build(Limits(idleTimeout=10))
    seat.fill()
    first = house.child
    first.comeUp()
    house.advance(9)
    seat.retire(first)  # type: ignore[arg-type]
    seat.fill()
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
    seat = house.build(limits)
    for _ in range(2):
        seat.fill()
        house.child.comeUp()
        house.child.give("one")
        house.child.end()
        if limits.maxMemory is not None:
            house.child.give("another")
        assert len(house.hub.clock.getDelayedCalls()) == 1
        house.child.die(signal=9)
        assert house.hub.clock.getDelayedCalls() == []
        house.advance(0)


# The end


def test_cancelEndsWhoIsComing(house: House) -> None:
    """
    A seat that is not wanted any more has the one that is coming end; that is no
    failure of it.
    """
    seat = house.build(preparations=[(abs, (1,), {})])
    seat.fill()
    seat.cancel()
    seat.cancel()
    assert house.child.asked == ["finish"]
    house.child.die()
    assert (seat.falseStarts, seat.lost) == (0, 0)


def test_finishEndsAll(house: House) -> None:
    """
    All children are let go, and no timer is left.
    """
    seat = house.build(Limits(maxTasks=1, idleTimeout=5))
    seat.fill()
    first = house.child
    first.comeUp()
    first.give("one")
    seat.fill()
    seat.finish()
    assert [child.asked for child in house.children] == [["finish"], ["finish"]]
    assert seat.member is None
    assert house.hub.clock.getDelayedCalls() == []


def test_crashEndsAllAtOnce(house: House) -> None:
    """
    All children are killed, and none is waited for: the owner hears of each when it is
    gone.
    """
    seat = house.build(Limits(maxTasks=1))
    seat.fill()
    house.child.comeUp()
    house.child.give("one")
    seat.fill()
    seat.crash("of a test")
    assert [child.asked for child in house.children] == [["of a test"], ["of a test"]]
    assert len(seat.members) == 2
    for child in house.children:
        child.die(signal=9)
    assert seat.members == []
    assert house.told[-2:] == [("vacated", 0), ("vacated", 1)]
    assert seat.falseStarts == 0
