"""
What a fork of this process has to let go, or to begin anew.

A fork has copies of all objects, but no other thread than that which forked, and what
leads to children and to other programs it shares with its parent. It must write to none
of that, nor wait for any of it.

This module imports no Twisted.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from typing import Protocol
from weakref import WeakSet


class Inherited(Protocol):
    """
    What cannot be used in a fork as it is.
    """

    def forked(self) -> None:
        """
        Let go, in a fork, what is the parent's, without touching it. Called in the only thread that
        there is, wherever that was; it must neither wait nor call anybody's code.
        """


_inherited: WeakSet[Inherited] = WeakSet()
_first: list[Callable[[], None]] = []


def beforeOthers(f: Callable[[], None]) -> None:
    """
    Have a function called in each fork of this process, before any object is told.
    """
    _first.append(f)


def tellForks(object: Inherited) -> None:
    """
    Have an object told, in each fork of this process, that it is in a fork. It is not kept
    alive for that.
    """
    _inherited.add(object)


def isParents(process: int) -> str:
    """
    Say in words that something belongs to the process of which this one is a fork.

    @param process: that process' ID.
    """
    return f"it belongs to process {process}, of which process {os.getpid()} is a fork"


def _forked() -> None:
    with ExitStack() as stack:
        # All are told, whatever one of them raises. The last is called first.
        for each in list(_inherited):
            stack.callback(each.forked)
        for f in _first:
            stack.callback(f)


os.register_at_fork(after_in_child=_forked)
