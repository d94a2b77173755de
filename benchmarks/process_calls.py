"""
What the benchmarks of processes call in the children.

Children of every contender import this module, so it imports next to nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from time import monotonic, perf_counter, sleep, thread_time
from typing import Any


def noop(*args: Any) -> None:
    """
    Nothing.
    """


def identity(thing: Any) -> Any:
    """
    There and back.
    """
    return thing


def burn(seconds: float) -> None:
    """
    Use so much time of a CPU.
    """
    end = thread_time() + seconds
    while thread_time() < end:
        pass


def spin(seconds: float) -> None:
    """
    Be busy for so long, whatever else the CPU has to do.
    """
    end = perf_counter() + seconds
    while perf_counter() < end:
        pass


def countUp(count: int) -> Iterator[int]:
    """
    A generator of integers.
    """
    yield from range(count)


def began() -> float:
    """
    When this call began. All processes of a machine have the same clock for it.
    """
    return monotonic()


def pause() -> None:
    """
    Long enough for another child to get the next call.
    """
    sleep(0.01)
