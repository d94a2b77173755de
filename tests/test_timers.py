"""
L{Timer}.
"""

from __future__ import annotations

from contextvars import ContextVar

from twisted.internet.task import Clock

from asynqueue.timers import Timer, later


def test_aTimerCallsOnce() -> None:
    """
    What is started is called once, when its time has come.
    """
    clock = Clock()
    timer = Timer(clock.callLater)
    calls: list[float] = []
    timer.start(2.0, lambda: calls.append(clock.seconds()))
    assert timer.isRunning
    clock.pump([1.0] * 5)
    assert calls == [2.0]
    assert not timer.isRunning


def test_aTimerMayBeStoppedInAnyState() -> None:
    """
    A timer may be stopped before it was started, while it runs, within the call that it
    makes, and after that.
    """
    clock = Clock()
    timer = Timer(clock.callLater)
    timer.stop()
    timer.start(1.0, lambda: None)
    timer.stop()
    timer.start(1.0, timer.stop)
    clock.advance(1.0)
    timer.stop()
    assert not timer.isRunning
    assert clock.getDelayedCalls() == []


def test_aTimerMayBeStartedAgain() -> None:
    """
    The last start counts, also within the call that the timer makes.
    """
    clock = Clock()
    timer = Timer(clock.callLater)
    calls: list[str] = []
    timer.start(1.0, lambda: calls.append("never"))
    timer.start(2.0, lambda: timer.start(1.0, lambda: calls.append("last")))
    clock.pump([1.0] * 3)
    assert calls == ["last"]


def test_whatIsDueMayBeCancelledInAnyState() -> None:
    """
    It may have been made, or somebody else may have cancelled all that is due.
    """
    clock = Clock()
    calls: list[str] = []
    made = later(clock, 1.0, calls.append, "made")
    clock.advance(1.0)
    made.cancel()
    due = later(clock, 1.0, calls.append, "never")
    [delayed] = clock.getDelayedCalls()
    delayed.cancel()
    due.cancel()
    due.cancel()
    clock.advance(1.0)
    assert calls == ["made"]


def test_whatIsDueHasNoContext() -> None:
    """
    A call that is due has the context variables of nobody.
    """
    clock = Clock()
    seen: list[str] = []
    variable: ContextVar[str] = ContextVar("variable", default="nobody's")
    later(clock, 1.0, lambda: seen.append(variable.get()))
    token = variable.set("somebody's")
    clock.advance(1.0)
    variable.reset(token)
    assert seen == ["nobody's"]
