"""
What L{asynqueue.iteration.Delay} promises.
"""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IReactorCore
from twisted.internet.task import Clock
from zope.interface import directlyProvides

from asynqueue.iteration import Delay, deferToDelay
from tests.iterations import outcomeOf


def shuttingClock() -> Any:
    """
    A clock that knows of the reactor's shutdown.
    """
    clock: Any = Clock()
    clock.triggers = []
    clock.addSystemEventTrigger = lambda *args: clock.triggers.append(args) or args
    clock.removeSystemEventTrigger = clock.triggers.remove
    directlyProvides(clock, IReactorCore)
    return clock


def test_aDelayFiresAfterItsTime() -> None:
    """
    It fires after the seconds that are given, or else after C{interval}.
    """
    clock = Clock()
    delay = Delay(interval=2, reactor=clock)
    long, usual = delay(3), delay()
    clock.advance(2)
    assert outcomeOf(usual) is None
    assert not long.called
    clock.advance(1)
    assert outcomeOf(long) is None


def test_aDelayOfNothingWaitsForTheReactor() -> None:
    """
    With 0 it fires in the next turn, not at once.
    """
    clock = Clock()
    d = Delay(reactor=clock)(0)
    assert not d.called
    clock.advance(0)
    assert d.called


def test_deferToDelayFiresAfterItsTime() -> None:
    """
    It is a delay of its own.
    """
    clock = Clock()
    d = deferToDelay(1.5, reactor=clock)
    clock.advance(1.4)
    assert not d.called
    clock.advance(0.2)
    assert outcomeOf(d) is None


@pytest_twisted.inlineCallbacks
def test_theInstalledReactorIsTheDefault() -> Any:
    """
    Without a reactor the installed one is used.
    """
    assert (yield deferToDelay(0)) is None


def test_aCancelledDelayLeavesNoTimer() -> None:
    """
    Cancelling a delay removes it from the reactor.
    """
    clock = Clock()
    d = Delay(reactor=clock)(1)
    d.cancel()
    assert outcomeOf(d).check(CancelledError)
    assert clock.getDelayedCalls() == []


@pytest.mark.parametrize("backoff", [0.99, 1.31, 0, -1])
def test_anUnworkableBackoffIsRefused(backoff: float) -> None:
    """
    It is between 1.0 and 1.3.
    """
    with pytest.raises(ValueError):
        Delay(backoff=backoff, reactor=Clock())


def test_anEventThatHasHappenedIsNotWaitedFor() -> None:
    """
    C{untilEvent} fires at once if the check is true already.
    """
    assert outcomeOf(Delay(reactor=Clock()).untilEvent(lambda: 1)) is True


def test_theCheckIsCalledLessAndLessOften() -> None:
    """
    Each interval is longer than the one before by the backoff.
    """
    clock = Clock()
    times: list[float] = []

    def check(limit: int, *, more: int) -> bool:
        times.append(clock.seconds())
        return len(times) >= limit + more

    d = Delay(1, 1.2, reactor=clock).untilEvent(check, 3, more=2)
    clock.pump([0, 1, 1.2, 1.44])
    assert outcomeOf(d) is True
    assert times == pytest.approx([0, 0, 1, 2.2, 3.64])


def test_theTimeoutEndsTheWait() -> None:
    """
    C{untilEvent} is False when the timeout has passed, and not later.
    """
    clock = Clock()
    d = Delay(2, timeout=5, reactor=clock).untilEvent(lambda: False)
    clock.pump([0, 2, 2.2])
    assert not d.called
    clock.advance(0.8)
    assert outcomeOf(d) is False
    assert clock.getDelayedCalls() == []


@pytest.mark.parametrize("good", [0, 1])
def test_aCheckThatRaisesEndsTheWait(good: int) -> None:
    """
    C{untilEvent} is None if the check raised, at first or later.
    """
    clock = Clock()
    answers = [False] * good
    d = Delay(reactor=clock).untilEvent(answers.pop)
    clock.advance(0)
    assert outcomeOf(d) is None


def test_aCheckMustBeCallable() -> None:
    """
    Something else is a C{TypeError}.
    """
    with pytest.raises(TypeError):
        Delay(reactor=Clock()).untilEvent(True)  # type: ignore[arg-type]


def test_aCancelledWaitChecksNoMore() -> None:
    """
    Cancelling C{untilEvent} leaves no timer.
    """
    clock = Clock()
    d = Delay(reactor=clock).untilEvent(lambda: False)
    d.cancel()
    assert outcomeOf(d).check(CancelledError)
    assert clock.getDelayedCalls() == []


def test_shutdownEndsAllWaits() -> None:
    """
    Delays fire, those that come later too, and C{untilEvent} goes on.
    """
    clock = Clock()
    delay = Delay(reactor=clock)
    waits = [delay(1), delay(2)]
    event = delay.untilEvent(lambda: False)
    delay.shutdown()
    assert [outcomeOf(d) for d in waits] == [None, None]
    assert outcomeOf(event) is True
    assert outcomeOf(delay(3)) is None
    assert outcomeOf(delay.untilEvent(lambda: False)) is True
    assert clock.getDelayedCalls() == []


def test_shutdownMeetsADelayThatEndsAnother() -> None:
    """
    What happens as one delay ends may end the next.
    """
    delay = Delay(reactor=Clock())
    first, second = delay(1), delay(2)
    first.addCallback(lambda _: second.cancel())
    delay.shutdown()
    assert outcomeOf(second).check(CancelledError)


def test_noDelayOutlivesTheReactor() -> None:
    """
    The shutdown of the reactor ends the delays; it knows only of those that run.
    """
    clock = shuttingClock()
    delay = Delay(reactor=clock)
    assert clock.triggers == []
    delay(1)
    clock.advance(1)
    assert clock.triggers == []
    waits = [delay(1), delay(2)]
    ((phase, event, f),) = clock.triggers
    assert (phase, event) == ("before", "shutdown")
    f()
    assert all(d.called for d in waits)
