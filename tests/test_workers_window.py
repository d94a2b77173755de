"""
L{Window}: how many tasks a worker may hold.
"""

from __future__ import annotations

from asynqueue.workers.window import AHEAD_SECONDS, Window


def test_beginsWithItsSlots() -> None:
    """
    Before anything is known, only as many as run.
    """
    assert Window(3, 500).size == 3


def test_isBoundedByTime() -> None:
    """
    What is sent ahead takes a few milliseconds, by the time that tasks took.
    """
    window = Window(2, 500)
    window.measured(10, 10 * AHEAD_SECONDS / 8)
    assert window.size == 2 + 8 * 2


def test_isBoundedByCount() -> None:
    """
    However short tasks are, no more than a number is sent ahead.
    """
    window = Window(1, 500)
    window.measured(1000, 0.0)
    assert window.size == 501


def test_longTasksHaveNoneAhead() -> None:
    """
    Nothing is sent ahead of tasks that take longer than that time.
    """
    window = Window(4, 500)
    for _ in range(30):
        window.measured(1, 1.0)
    assert window.size == 4


def test_hasNoneAheadThatUrgentTasksWouldWaitFor() -> None:
    """
    A task of more than twice that time has none ahead: an urgent one is given to a worker that is
    ready, and would begin behind both.
    """
    window = Window(1, 500)
    window.measured(1, 2.2 * AHEAD_SECONDS)
    assert window.size == 1


def test_followsTheLatest() -> None:
    """
    The mean moves towards what was measured last.
    """
    window = Window(1, 500)
    window.measured(1, 0.001)
    before = window.mean
    window.measured(1, 0.002)
    assert before < window.mean < 0.002


def test_closes() -> None:
    """
    A closed window has nothing ahead, until the next measurement.
    """
    window = Window(2, 500)
    window.measured(1, 0.0)
    window.close()
    assert window.size == 2
    window.measured(1, 0.0)
    assert window.size > 2
