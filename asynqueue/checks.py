"""
Numbers that callers give: the checks that more than one module makes.

This module imports no Twisted.
"""

from __future__ import annotations

from typing import Any


def wholeNumber(value: Any, name: str, least: int = 1) -> int:
    """
    Return a whole number that a caller gave.

    @param name: what it is called, for the error.
    @raise ValueError: it is no whole number, or less than C{least}.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} is a whole number, {least} or more, not {value!r}")
    return value


def secondsOrNone(value: Any, name: str) -> float | None:
    """
    Return a time limit that a caller gave: a number of seconds above 0, which may be
    infinite, or C{None}.

    @param name: what it is called, for the error.
    @raise ValueError: it is no number, or not above 0.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise ValueError(f"{name} is a number of seconds above 0, or None, not {value!r}")
    return value
