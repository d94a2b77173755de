"""
A program without standard descriptors, in which code in C prints all the same::

    python closed_program.py start|later report
"""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Any

from twisted.internet.task import react

from asynqueue import ProcessQueue

# What travels through shared memory.
LARGE = bytes(range(256)) * 1000


def chatter(value: Any) -> Any:
    """
    Print as code in C does, to all three, and return the value.
    """
    for number in range(3):
        ctypes.CDLL(None).write(number, b"progress " * 10, 90)
    return value


async def main(reactor: Any, when: str, report: str) -> None:
    """
    Report which results came back as they were sent.
    """
    queue = ProcessQueue(1)
    await queue.call(pow, 2, 5)
    if when == "later":
        os.closerange(0, 3)
    kept = [await queue.call(chatter, LARGE) for _ in range(3)]
    await queue.update(chatter, None)
    chatter(None)
    await queue.shutdown()
    another = ProcessQueue(1)
    kept.append(await another.call(chatter, LARGE))
    await another.shutdown()
    chatter(None)
    with open(report, "w") as file:
        file.write(repr([each == LARGE for each in kept]))


if __name__ == "__main__":
    react(main, sys.argv[1:])
