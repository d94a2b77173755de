"""
What children do with what has a name that all processes know.
"""

from __future__ import annotations

import multiprocessing
from multiprocessing.resource_tracker import _resource_tracker  # type: ignore[attr-defined]
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import psutil


def read(name: str) -> bytes:
    """
    What is in the memory of a name.
    """
    memory = SharedMemory(name)
    found = bytes(memory.buf[:4])
    memory.close()
    return found


def create(content: bytes) -> str:
    """
    Make memory, and return its name.
    """
    memory = SharedMemory(create=True, size=len(content))
    memory.buf[: len(content)] = content
    memory.close()
    return memory.name


def remove(name: str) -> None:
    """
    Remove the memory of a name.
    """
    memory = SharedMemory(name)
    memory.close()
    memory.unlink()


def helpers() -> int:
    """
    How many processes this one has started.
    """
    return len(psutil.Process().children())


def ownsTracker() -> bool:
    """
    Whether this process has a resource tracker of its own.
    """
    return _resource_tracker._pid is not None


def doubled(table: Any, key: str) -> None:
    """
    Write into a table of a manager.
    """
    table[key] = key * 2


def keyOf() -> bytes:
    """
    The key that this process shows to others.
    """
    return bytes(multiprocessing.current_process().authkey)
