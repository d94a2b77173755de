"""
When children are replaced, and how soon they are started again.
"""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import pairwise
from typing import Any

import pytest
from twisted.internet.task import Clock

from asynqueue.processes.limits import Backoff, Limits, residentBytes

# Limits


@pytest.mark.parametrize("name", ["maxTasks", "maxMemory", "idleTimeout"])
@pytest.mark.parametrize("value", [0, -1])
def test_limitsAreMoreThanNothing(name: str, value: int) -> None:
    """
    A limit that no child could keep is refused, by its name.
    """
    with pytest.raises(ValueError, match=f"{name} must be a .* not {value}"):
        Limits(**{name: value})


def test_withoutLimitsNothingIsSpent() -> None:
    """
    A child without limits may live for ever.
    """
    limits = Limits()
    assert not limits.isSpent(10**9, 10**15)
    assert not limits.isExcessive(10**15)


@pytest.mark.parametrize(("calls", "spent"), [(2, False), (3, True), (4, True)])
def test_callsSpendAChild(calls: int, spent: bool) -> None:
    """
    One that has made so many calls has lived long enough.
    """
    assert Limits(maxTasks=3).isSpent(calls, 10**15) is spent


@pytest.mark.parametrize(("resident", "spent"), [(1000, False), (1001, True)])
def test_memorySpendsAChild(resident: int, spent: bool) -> None:
    """
    One that has more memory than it may have, has lived long enough, too.
    """
    assert Limits(maxMemory=1000).isSpent(10**9, resident) is spent


@pytest.mark.parametrize(
    ("words", "resident", "excessive"),
    [({}, 2000, False), ({}, 2001, True), ({"excess": None}, 10**15, False)],
)
def test_muchMemoryEndsAChildAtOnce(words: Any, resident: int, excessive: bool) -> None:
    """
    With twice as much it is ended in the middle of its task, unless that is not
    wanted.
    """
    assert Limits(maxMemory=1000, **words).isExcessive(resident) is excessive


def test_memoryOfAProcess() -> None:
    """
    A process that runs has some memory, one that is gone has none.
    """
    gone = subprocess.Popen([sys.executable, "-S", "-c", ""])
    gone.wait()
    assert residentBytes(os.getpid()) > 1 << 20
    assert residentBytes(gone.pid) == 0


# Backoff


def failTimes(backoff: Backoff, count: int) -> list[float]:
    """
    Let so many starts fail.

    @return: the pause after each.
    """
    pauses = []
    for _ in range(count):
        backoff.failed()
        pauses.append(backoff.pause)
    return pauses


def test_theFirstFailuresCostNothing() -> None:
    """
    A start that fails, or two, is tried again at once.
    """
    backoff = Backoff()
    assert backoff.pause == 0
    assert failTimes(backoff, 2) == [0, 0]
    assert backoff.starts == 2


def test_pausesDoubleUpToTheLongest() -> None:
    """
    After those, each pause is twice the one before, up to five seconds.
    """
    pauses = failTimes(Backoff(), 100)[2:]
    assert pauses[0] > 0
    assert pauses[-1] == 5
    assert all(later in (2 * before, 5) for before, later in pairwise(pauses))


def test_successEndsTheRow() -> None:
    """
    When one is up, all failures before are forgotten.
    """
    backoff = Backoff()
    failTimes(backoff, 10)
    backoff.succeeded()
    assert (backoff.starts, backoff.pause) == (0, 0)


def test_aPauseIsOverInTime() -> None:
    """
    A pause begins with the latest failure.
    """
    clock = Clock()
    backoff = Backoff(clock.seconds)
    (*_, pause) = failTimes(backoff, 4)
    assert not backoff.isOver
    clock.advance(pause / 2)
    assert not backoff.isOver
    clock.advance(pause)
    assert backoff.isOver


def test_hopeEndsWithTimeAndTrials() -> None:
    """
    Only after half a minute, and five failures in it, there is no hope; one
    success brings it back.
    """
    clock = Clock()
    backoff = Backoff(clock.seconds)
    failTimes(backoff, 20)
    assert not backoff.isHopeless
    clock.advance(31)
    assert backoff.isHopeless
    backoff.succeeded()
    assert not backoff.isHopeless
    failTimes(backoff, 4)
    clock.advance(31)
    assert not backoff.isHopeless
    backoff.failed()
    assert backoff.isHopeless
