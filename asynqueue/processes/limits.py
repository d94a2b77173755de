"""
When a child is to be replaced, and how soon after a failure another one is tried.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any, Generic, Protocol, TypeVar

import psutil
from attrs import frozen

from asynqueue.checks import secondsOrNone, wholeNumber
from asynqueue.timers import Timer

# A child that fails as it starts: how many may do so before there is a pause, and of how many
# seconds, which then doubles, up to the longest.
_FREE_STARTS = 3
_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 5.0

# The least number of seconds before another start where no call waits for a child.
_LEAST_PAUSE = 0.05

# The seconds and the times without one that has come up after which it is given up for now.
_HOPELESS_SECONDS = 30.0
_HOPELESS_STARTS = 5

# One that uses this many times what it may use is ended in the middle of its task, if
# nothing else is said.
_EXCESS = 2.0

# The seconds between looks at the memory of a child that works.
MEMORY_SECONDS = 0.1


def residentBytes(pid: int) -> int:
    """
    Return how much memory a process has, 0 if it is gone.
    """
    try:
        resident: int = psutil.Process(pid).memory_info().rss
    except psutil.Error:
        return 0
    return resident


@frozen
class Limits:
    """
    How long a child may live.

    @ivar maxTasks: how many calls it makes, before it is replaced by a fresh one.
    @ivar maxMemory: how many bytes of memory it may have when a task ends, before
        it is replaced.
    @ivar idleTimeout: how many seconds it lives without work.
    @ivar excess: one that has this many times C{maxMemory} in the middle of a task is
        ended at once; C{None}: none is.
    """

    maxTasks: int | None = None
    maxMemory: int | None = None
    idleTimeout: float | None = None
    excess: float | None = _EXCESS

    def __attrs_post_init__(self) -> None:
        for name in ("maxTasks", "maxMemory"):
            value = getattr(self, name)
            if value is not None:
                wholeNumber(value, name)
        secondsOrNone(self.idleTimeout, "idleTimeout")

    def isSpent(self, calls: int, resident: int) -> bool:
        """
        Tell whether a child has lived long enough.

        @param calls: how many calls it was given.
        @param resident: how many bytes of memory it has, as far as known.
        """
        return (self.maxTasks is not None and calls >= self.maxTasks) or (
            self.maxMemory is not None and resident > self.maxMemory
        )

    def isExcessive(self, resident: int) -> bool:
        """
        Tell whether a child must be ended in the middle of a task.
        """
        if self.maxMemory is None or self.excess is None:
            return False
        return resident > self.excess * self.maxMemory


class LimitedChild(Protocol):
    """
    A child process, as far as its limits are concerned.
    """

    @property
    def resident(self) -> int:
        """
        How many bytes of memory it has; 0 if it is gone.
        """

    def kill(self, reason: str) -> None:
        """
        End it at once.
        """


_Child = TypeVar("_Child", bound=LimitedChild)


class MemoryCheck(Generic[_Child]):
    """
    Looks at the memory of children while they make calls.
    """

    def __init__(
        self,
        limits: Limits,
        callLater: Callable[[float, Callable[[], None]], Any],
        busy: Callable[[], Sequence[_Child]],
        spent: Callable[[_Child], None],
    ) -> None:
        """
        @param callLater: makes a call after some seconds; what it returns can be cancelled.
        @param busy: gives the children that make calls.
        @param spent: is called with one that shall take no more calls. One that has far too
            much memory is killed.
        """
        self._limits = limits
        self._busy = busy
        self._spent = spent
        self._timer = Timer(callLater)

    def start(self) -> None:
        """
        Look from now on, for as long as there are such children.
        """
        if self._limits.maxMemory is not None and not self._timer.isRunning:
            self._timer.start(MEMORY_SECONDS, self._look)

    def stop(self) -> None:
        """
        Look no more.
        """
        self._timer.stop()

    def _look(self) -> None:
        busy = self._busy()
        for child in busy:
            resident = child.resident
            if self._limits.isExcessive(resident):
                most = self._limits.maxMemory
                child.kill(f"it used {resident:,} bytes of memory, where maxMemory is {most:,}")
            elif self._limits.isSpent(0, resident):
                self._spent(child)
        if busy:
            self.start()


class Backoff:
    """
    How long to wait before a child is started, after others failed as they started.
    """

    def __init__(self, now: Callable[[], float] = monotonic) -> None:
        """
        @param now: tells the time, in seconds.
        """
        self._now = now
        self._starts = 0
        self._since = 0.0
        self._latest = 0.0

    def failed(self) -> None:
        """
        Another one failed.
        """
        if not self._starts:
            self._since = self._now()
        self._starts += 1
        self._latest = self._now()

    def succeeded(self) -> None:
        """
        Note that a child is up.
        """
        self._starts = 0

    @property
    def starts(self) -> int:
        """
        How many have failed in a row.
        """
        return self._starts

    @property
    def pause(self) -> float:
        """
        How many seconds to wait now.
        """
        steps = self._starts - _FREE_STARTS
        return 0.0 if steps < 0 else min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(steps, 20))

    @property
    def leastPause(self) -> float:
        """
        How many seconds to wait where nobody waits for one: some always.
        """
        return max(self.pause, _LEAST_PAUSE)

    @property
    def isOver(self) -> bool:
        """
        Whether these seconds have passed since the latest failed.
        """
        return self._now() >= self._latest + self.pause

    @property
    def isHopeless(self) -> bool:
        """
        Whether those who wait for one should be told that there will be none.
        """
        return self._starts >= _HOPELESS_STARTS and self._now() - self._since > _HOPELESS_SECONDS
