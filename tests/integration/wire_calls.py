"""
What the tests of workers over connections have hosts do.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from asynqueue.testing.calls import Token, echo, numbersTo, waitAt

__all__ = ["echo", "numbersTo", "waitAt"]

_words: list[str] = []
_lock = threading.Lock()
_now: list[int] = []


def remember(word: str) -> int:
    """
    Remember a word.

    @return: how many are remembered.
    """
    _words.append(word)
    return len(_words)


def remembered() -> list[str]:
    """
    All that was remembered.
    """
    return _words


def tell() -> int:
    """
    In which process this is.
    """
    return os.getpid()


def waitAndTell(gate: Token) -> int:
    """
    Wait, then tell in which process this is.
    """
    gate.wait()
    return os.getpid()


def waitInThread(gate: Token) -> Deferred[Any]:
    """
    Wait without keeping the reactor.
    """
    return deferToThread(gate.wait)


def atOnce() -> int:
    """
    How many calls of this run at once.
    """
    with _lock:
        _now.append(1)
        most = len(_now)
    time.sleep(0.001)
    with _lock:
        _now.pop()
    return most


def growing(count: int) -> Iterator[bytes]:
    """
    Items that double.
    """
    for number in range(count):
        yield bytes(1 << number)
