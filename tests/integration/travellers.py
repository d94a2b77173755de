"""
Objects that note where they are unpickled, or do something bad there, and what is called
with them on a host.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import AsyncIterator, Iterator
from itertools import count
from typing import Any

from asynqueue.wire.host.catalog import WireWorkerUniverse

# What hands back values in a thread of the same process would find them changed.
Place = tuple[int, int]


class Traveller:
    """
    Notes where it is unpickled.

    @ivar places: process and thread of each time.
    """

    def __init__(self) -> None:
        self.places: list[Place] = []

    @property
    def pids(self) -> list[int]:
        """
        The processes.
        """
        return [pid for pid, _ in self.places]

    def whereabouts(self) -> list[int]:
        """
        The processes, also for who sends the method.
        """
        return self.pids

    def __setstate__(self, state: dict[str, Any]) -> None:
        here = os.getpid(), threading.get_ident()
        self.places = [*state["places"], here]


class TravellingError(Exception):
    """
    Takes a traveller along.
    """


class Trap:
    """
    Calls a function as it is unpickled.
    """

    def __init__(self, f: Any, *args: Any) -> None:
        self._call = f, args

    def __reduce__(self) -> Any:
        return self._call


def hang(path: str) -> None:
    """
    Say so in a file, and never return.
    """
    with open(path, "w") as file:
        file.write("here")
    while True:
        signal.pause()


def fail(text: str) -> None:
    """
    Raise.
    """
    raise ValueError(text)


def failElsewhere(pid: int) -> int:
    """
    Raise, but not in this process.
    """
    if os.getpid() != pid:
        raise ValueError("not here")
    return pid


class Journeys(WireWorkerUniverse):
    """
    What is called with them.
    """

    def same(self, value: Any, *, other: Any = None) -> Any:
        """
        What it is given.
        """
        return value

    def raises(self) -> None:
        """
        Fail with a traveller.
        """
        raise TravellingError(Traveller())

    def fails(self, text: str, times: int = 1) -> None:
        """
        Fail with a text.
        """
        raise ValueError(text * times)

    def unpicklable(self) -> Any:
        """
        What cannot be sent.
        """
        return threading.Lock()

    def unreadable(self) -> Any:
        """
        What can be unpickled here only.
        """
        return Trap(failElsewhere, os.getpid())

    def pid(self) -> int:
        """
        Where this runs.
        """
        return os.getpid()

    def items(self, number: int) -> Iterator[Traveller]:
        """
        Some travellers, and an error that has one.
        """
        for _ in range(number):
            yield Traveller()
        raise TravellingError(Traveller())

    def numbers(self, number: int) -> Iterator[int]:
        """
        Some numbers.
        """
        yield from range(number)

    async def slowly(self, number: int) -> AsyncIterator[int]:
        """
        The same, asynchronously.
        """
        for each in range(number):
            yield each

    def mixed(self, size: int) -> Iterator[Any]:
        """
        Items some of which cannot be sent, or not be read elsewhere.
        """
        yield from (1, threading.Lock(), bytes(size), Trap(failElsewhere, os.getpid()), 5)

    def lost(self, number: int) -> Iterator[int]:
        """
        Some numbers, and the end of the process.
        """
        yield from range(number)
        os._exit(3)

    def forever(self, path: str) -> Iterator[int]:
        """
        Numbers without end, until it is closed, which a file says.
        """
        try:
            yield from count()
        finally:
            with open(path, "w") as file:
                file.write("closed")
