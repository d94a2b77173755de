"""
Functions that the tests of durable queues call: jobs are called by their names.
"""

from __future__ import annotations

import os
from typing import Any

from twisted.internet.defer import Deferred

from asynqueue.errors import GiveUp, Snooze

# What was called, in order, and the Deferreds that C{wait} has returned, by their names.
CALLS: list[Any] = []
WAITING: dict[str, Deferred[Any]] = {}


def add(a: int, b: int) -> int:
    """
    Return a sum.
    """
    return a + b


def nothing() -> None:
    """
    Do nothing.
    """


def note(what: Any) -> Any:
    """
    Note that this was called.
    """
    CALLS.append(what)
    return what


def wait(name: str) -> Deferred[Any]:
    """
    Note that this was called, and wait for the test.
    """
    CALLS.append(name)
    d: Deferred[Any] = Deferred()
    WAITING[name] = d
    return d


def fail(text: str = "no") -> None:
    """
    Raise a L{ValueError}.
    """
    CALLS.append(text)
    raise ValueError(text)


def snoozeFirst(seconds: float) -> str:
    """
    Want to be called again, the first time.
    """
    CALLS.append("snoozing")
    if len(CALLS) == 1:
        raise Snooze(seconds)
    return "awake"


def giveUp() -> None:
    """
    Fail for good.
    """
    CALLS.append("giving up")
    raise GiveUp("it is hopeless")


def opaque() -> object:
    """
    Return what cannot be stored.
    """
    return object()


def generate() -> Any:
    """
    Return an iterator.
    """
    yield 1


def die(code: int) -> None:
    """
    End the process that runs this.
    """
    os._exit(code)
