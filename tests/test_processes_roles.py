"""
What L{asynqueue.processes.roles} promises of the ends of children.
"""

from __future__ import annotations

from typing import Any

import pytest

from asynqueue.processes.roles import MOST_TRIES, ExitReport
from asynqueue.testing import MemoryTask


def ended(begun: list[Any], notBegun: list[Any], wasUp: bool = True) -> ExitReport:
    """
    The end of a child that had these tasks.
    """
    return ExitReport(1, None, 9, "", "", begun, notBegun, wasUp)


def test_oneThatWasAloneIsGivenUpAfterSomeTries() -> None:
    """
    Each child that has ended with a call counts, the last one if it had only that.
    """
    poison, other = MemoryTask(abs), MemoryTask(abs)
    assert ended([], [poison, other]).tried() is None
    for _ in range(MOST_TRIES - 2):
        assert ended([], [poison]).tried() is None
    assert ended([], [other, poison]).tried() is None
    assert ended([], [poison]).tried() is poison
    assert (poison.tries, other.tries) == (MOST_TRIES + 1, 2)


@pytest.mark.parametrize("how", ["another had begun", "it was not up"])
def test_whatTheChildDidNotComeToCountsNot(how: str) -> None:
    """
    A child that had begun a call died of that, and one that was not up of something else.
    """
    task = MemoryTask(abs)
    begun = [MemoryTask(abs)] if how == "another had begun" else []
    for _ in range(MOST_TRIES + 1):
        assert ended(begun, [task], wasUp=bool(begun)).tried() is None
    assert task.tries == 0


def test_whatWasTakenBackFromItCounts() -> None:
    """
    A child may have ended by a call that it has no more, unless it was told to end.
    """
    suspect, other = MemoryTask(abs), MemoryTask(abs)
    assert ExitReport(1, None, 9, "", "", [], [other], True, [suspect, other]).tried() is None
    assert ExitReport(1, 0, None, "", "", [], [], True, [suspect]).tried() is None
    assert ExitReport(1, None, 9, "", "", [MemoryTask(abs)], [], True, [suspect]).tried() is None
    assert (suspect.tries, other.tries) == (1, 1)


def test_poisonEndsWithTheLastThatHadIt() -> None:
    """
    What nobody is to try any more is lost with the process that had it last, and is not to be
    given to another one; the error says that none had begun it.
    """
    poison = MemoryTask(abs, -1)
    for _ in range(MOST_TRIES - 1):
        ending = ended([], [poison]).settled()
        assert (ending.losses, ending.notBegun) == ([], [poison])
    ending = ended([], [poison]).settled()
    assert (ending.losses, ending.notBegun) == ([poison], [])
    error = ending.errorFor(poison)
    assert (error.call, error.begun) == ("abs(-1)", False)
    assert f"{MOST_TRIES} processes ended before they began it" in error.reason


def test_whatHadBegunIsLost() -> None:
    """
    The error for a call that the process had begun says so.
    """
    begun = MemoryTask(abs, -1)
    ending = ended([begun], []).settled()
    assert ending.losses == [begun]
    assert ending.errorFor(begun).begun
