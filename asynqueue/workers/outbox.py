"""
From other threads to the reactor: many results, one wake-up.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from asynqueue.forks import tellForks
from asynqueue.interfaces import ITask
from asynqueue.timers import Timer, later

T = TypeVar("T")

# Items that nobody is in a hurry for are looked at together, after these seconds.
GATHER_SECONDS = 0.001


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
    looked are there when it does. After a look it may say that the next items are in no hurry:
    then it is woken for none of them, and looks again a little later, or when there are many.
    """

    def __init__(
        self,
        reactor: Any,
        collect: Callable[[list[T]], None],
        unhurried: Callable[[], int] = lambda: 0,
    ) -> None:
        """
        @param reactor: the reactor.
        @param collect: is called with the items, in the reactor's thread.
        @param unhurried: tells, after items were collected, how many of the next ones are to be
            there before they are collected at once; fewer are after C{GATHER_SECONDS}. 0: at the
            first one.
        """
        self._reactor = reactor
        self._collect = collect
        self._unhurried = unhurried
        self._items: deque[T] = deque()
        # Whether the reactor looks though the next item does not wake it.
        self._woken = False
        # How many items are too many to be left there until then.
        self._many = 0
        self._timer = Timer(lambda seconds, f: later(reactor, seconds, f))
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
            self._wake()
        elif len(self._items) == self._many:
            self._reactor.callFromThread(self.hurry)

    def hurry(self) -> None:
        """
        Look now, if that was to be done a little later.
        """
        if self._timer.isRunning:
            self._timer.stop()
            self._empty()

    def _empty(self) -> None:
        # First the flag, or the timer, and then the items: what is called as they are collected
        # may have the reactor look, and wait for others.
        if self._many:
            self._timer.start(GATHER_SECONDS, self._empty)
        else:
            self._woken = False
        take = self._items.popleft
        items = [take() for _ in range(len(self._items))]
        if items:
            self._collect(items)
        self._many = self._unhurried() if items else 0
        if self._timer.isRunning:
            if not self._many:
                self._timer.stop()
                self._woken = False
                if self._items:
                    self._wake()
        elif self._many and not self._woken:
            self._woken = True
            self._timer.start(GATHER_SECONDS, self._empty)

    def _wake(self) -> None:
        self._woken = True
        self._reactor.callFromThread(self._empty)
