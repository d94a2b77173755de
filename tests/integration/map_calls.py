"""
What the tests of maps have processes do: so processes import it, and it imports little
itself.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path


def nothing(n: int) -> None:
    """
    Return nothing.
    """


def double(n: int) -> int:
    return 2 * n


def noted(n: int, path: str, deadly: int) -> int:
    """
    Say which item was begun; one of them is deadly.
    """
    with open(path, "a", encoding="ascii") as file:
        file.write(f"{n}\n")
    if n == deadly:
        os.kill(os.getpid(), signal.SIGKILL)
    return n


def dieOnce(n: int, folder: str) -> int:
    if n % 500 == 499 and not (mark := Path(folder) / str(n)).exists():
        mark.touch()
        os._exit(3)
    return n


def upTo(n: int) -> Iterator[int]:
    yield from range(n)


async def later(n: int) -> int:
    await asyncio.sleep(0)
    return n


async def upToLater(n: int) -> AsyncIterator[int]:
    for number in range(n):
        yield number


def hang(n: int, path: str) -> int:
    """
    One item never ends, and says where it is.
    """
    if n == 300:
        with open(path, "w", encoding="ascii") as file:
            file.write(f"{os.getpid()}\n")
        signal.pause()
    return n


def warn(n: int) -> int:
    logging.getLogger("a map").warning("number %d", n)
    return n
