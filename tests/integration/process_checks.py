"""
What the tests of processes look at, and wait for.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall

from asynqueue.reactors import theReactor

# Seconds after which something does not happen.
PATIENCE = 60

_INTERVAL = 0.01

_SLOW = re.compile(r"Executing <.*> took [0-9.]+ seconds$")


def until(condition: Callable[[], Any]) -> Deferred[Any]:
    """
    A Deferred that fires when the condition holds.
    """
    waiting = LoopingCall(lambda: condition() and waiting.stop())
    return waiting.start(_INTERVAL).addTimeout(PATIENCE, theReactor())


def complaints(errors: str) -> str:
    """
    What a program wrote to its standard error in the development mode of Python, without
    what asyncio says there of slow callbacks: that depends on what else the machine does.
    """
    lines = errors.splitlines(keepends=True)
    return "".join(line for line in lines if not _SLOW.match(line))


def children() -> set[int]:
    """
    The process IDs of all children of this process, zombies among them.
    """
    return {child.pid for child in psutil.Process().children(recursive=True)}


def isGone(pid: int) -> bool:
    """
    Whether there is no such process, or only its remains.
    """
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def descriptors() -> dict[int, str]:
    """
    The open descriptors, and what they are.
    """
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            # That of the listing itself.
            pass
    return found


def sharedMemory(pid: int) -> int:
    """
    How many pieces of anonymous shared memory a process has open.
    """
    links = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            links.append(os.readlink(entry))
        except FileNotFoundError:
            pass
    return sum("memfd:asynqueue" in link for link in links)


def residentBytes(pid: int) -> int:
    """
    How much memory a process has.
    """
    resident: int = psutil.Process(pid).memory_info().rss
    return resident


class Used:
    """
    What this process has, to see later whether it has more.
    """

    def __init__(self) -> None:
        self._children = children()
        self._descriptors = descriptors()
        self._named = set(os.listdir("/dev/shm"))

    def more(self) -> dict[str, Any]:
        """
        What there is now, and was not.
        """
        more = {
            "children": children() - self._children,
            "descriptors": [
                what for what in descriptors().values() if what not in self._descriptors.values()
            ],
            "named": {
                name for name in set(os.listdir("/dev/shm")) - self._named if "asynqueue" in name
            },
        }
        return {name: found for name, found in more.items() if found}
