"""
The checks of numbers and collections that callers give.
"""

from __future__ import annotations

from math import inf, nan
from typing import Any

import pytest

from asynqueue.checks import listOf, secondsOrNone, wholeNumber


@pytest.mark.parametrize("value", [0, -1, True, 1.0, nan, "1", None])
def test_whatIsNoCount(value: Any) -> None:
    """
    It is refused by its name and value.
    """
    with pytest.raises(ValueError, match="threads must be a whole number, 1 or more, not "):
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
    with pytest.raises(
        ValueError, match="timeout must be a number of seconds above 0, or None, not "
    ):
        secondsOrNone(value, "timeout")


@pytest.mark.parametrize("value", [None, 0.5, 3, inf])
def test_aTimeLimitIsReturned(value: Any) -> None:
    """
    As it was given; it may be infinite, or none.
    """
    assert secondsOrNone(value, "timeout") == value


@pytest.mark.parametrize("given", ["", "disk", b"disk", bytearray(b"disk")])
def test_stringIsNoList(given: Any) -> None:
    """
    The letters of a string are not what its giver means.
    """
    with pytest.raises(TypeError, match="names is a string: give a list"):
        listOf(given, "names")


@pytest.mark.parametrize("given", [None, 5, print])
def test_whatHasNoItemsIsNoList(given: Any) -> None:
    """
    What cannot be iterated over is refused with the name of the argument.
    """
    with pytest.raises(TypeError, match="names must be a list, not"):
        listOf(given, "names")


@pytest.mark.parametrize("given", [["a", 1], ("a", 1), {"a": 2, 1: 3}, iter(["a", 1])])
def test_collectionsAreLists(given: Any) -> None:
    """
    Any other collection is as good as a list.
    """
    assert listOf(given, "names") == ["a", 1]
