"""
The checks of numbers that callers give.
"""

from __future__ import annotations

from math import inf, nan
from typing import Any

import pytest

from asynqueue.checks import secondsOrNone, wholeNumber


@pytest.mark.parametrize("value", [0, -1, True, 1.0, nan, "1", None])
def test_whatIsNoCount(value: Any) -> None:
    """
    It is refused by its name and value.
    """
    with pytest.raises(ValueError, match="threads is a whole number, 1 or more, not "):
        wholeNumber(value, "threads")


def test_aWholeNumberIsReturned() -> None:
    """
    From the least on all are allowed.
    """
    assert wholeNumber(1, "threads") == 1
    assert wholeNumber(0, "retries", least=0) == 0


@pytest.mark.parametrize("value", [0, -1, True, nan, -inf, "1"])
def test_whatIsNoTimeLimit(value: Any) -> None:
    """
    It is refused by its name and value.
    """
    with pytest.raises(ValueError, match="timeout is a number of seconds above 0, or None, not "):
        secondsOrNone(value, "timeout")


@pytest.mark.parametrize("value", [None, 0.5, 3, inf])
def test_aTimeLimitIsReturned(value: Any) -> None:
    """
    As it was given; it may be infinite, or none.
    """
    assert secondsOrNone(value, "timeout") == value
