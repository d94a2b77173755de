"""
From other threads to the reactor: many results, one wake-up.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from asynqueue.forks import tellForks
from asynqueue.interfaces import ITask

T = TypeVar("T")


class Begun:
    """
    A watched task that a thread has begun.
    """

    __slots__ = ("_task",)

    def __init__(self, task: ITask) -> None:
        self._task = task

    def done(self) -> None:
        """
        Tell the task. Runs in the reactor.
        """
        self._task.begin()


class Outbox(Generic[T]):
    """
    Items that any thread puts in, and the reactor takes out.

    The reactor is woken for the first item only; those that come before it has
    looked are there when it does.
    """

    def __init__(self, reactor: Any, collect: Callable[[list[T]], None]) -> None:
        """
        @param reactor: the reactor.
        @param collect: is called with the items, in the reactor's thread.
        """
        self._reactor = reactor
        self._collect = collect
        self._items: deque[T] = deque()
        self._woken = False
        tellForks(self)

    def forked(self) -> None:
        """
        Wake the reactor anew in a fork: a thread of the parent may have been about to wake its own.
        """
        self._reactor.callFromThread(self._empty)

    def put(self, item: T) -> None:
        """
        Hand an item to the reactor. May be called from any thread.
        """
        # First the item, then the look at the flag; L{_empty} does it the other
        # way round, so no item is left behind.
        self._items.append(item)
        if not self._woken:
            self._woken = True
            self._reactor.callFromThread(self._empty)

    def _empty(self) -> None:
        self._woken = False
        take = self._items.popleft
        items = [take() for _ in range(len(self._items))]
        if items:
            self._collect(items)
