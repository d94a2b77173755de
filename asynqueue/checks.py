"""
Numbers and collections that callers give: the checks that more than one module makes.

This module imports no Twisted.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

_T = TypeVar("_T")


def wholeNumber(value: Any, name: str, least: int = 1) -> int:
    """
    Return a whole number that a caller gave.

    @param name: what it is called, for the error.
    @raise ValueError: it is no whole number, or less than C{least}.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} must be a whole number, {least} or more, not {value!r}")
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
        raise ValueError(f"{name} must be a number of seconds above 0, or None, not {value!r}")
    return value


def listOf(given: Iterable[_T], name: str) -> list[_T]:
    """
    Return what a caller gave as a collection.

    @param name: what the argument is called, for the error.
    @raise TypeError: it is a string, whose items would be its letters, or nothing that has
        items.
    """
    if isinstance(given, str | bytes | bytearray):
        shown = f'"{given}"' if isinstance(given, str) else repr(given)
        raise TypeError(f"{name} is a string: give a list, [{shown}]")
    if not isinstance(given, Iterable):
        raise TypeError(f"{name} must be a list, not {given!r}")
    return list(given)
