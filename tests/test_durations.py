"""
L{Durations}: how long calls run.
"""

from __future__ import annotations

from math import inf

import pytest

from asynqueue.durations import Durations


def test_nothingIsKnownAtFirst() -> None:
    """
    Before a call has ended, as many as there are may run in any time.
    """
    durations = Durations()
    assert (durations.mean, durations.seconds, durations.within(1)) == (0, 0, inf)


def test_theMeanFollowsTheLatest() -> None:
    """
    A new measurement changes the mean by a quarter of the difference, however many calls it
    was made of; the seconds are those of all calls.
    """
    durations = Durations()
    durations.add(10, 0.1)
    assert durations.mean == pytest.approx(0.01)
    durations.add(1, 0.05)
    assert durations.mean == pytest.approx(0.02)
    assert durations.seconds == pytest.approx(0.15)
    assert durations.within(0.1) == pytest.approx(5)
