"""
How many tasks a worker may hold at once.
"""

from __future__ import annotations

# What is sent ahead may take about so many seconds of work (G6) ...
AHEAD_SECONDS = 0.005

# ... and a new measurement counts for so much of the mean.
_WEIGHT = 0.25


class Window:
    """
    A window bounded by time: the tasks that run, and as many more as a few
    milliseconds of work, by the measured time of the latest.

    @ivar size: how many tasks the worker may hold now.
    @ivar mean: the mean seconds that a task runs, 0 while none has.
    @ivar seconds: how long all tasks ran, all together.
    @ivar isClosed: whether nothing may be sent ahead, until the next measurement.
    """

    __slots__ = ("_most", "_slots", "isClosed", "mean", "seconds", "size")

    def __init__(self, slots: int, most: int) -> None:
        """
        @param slots: how many tasks run at once.
        @param most: the most tasks that may be sent ahead.
        """
        self._slots = slots
        self._most = most
        self.mean = self.seconds = 0.0
        self.size = slots
        self.isClosed = False

    def measured(self, tasks: int, seconds: float) -> None:
        """
        So many tasks ran for so many seconds, all together.
        """
        self.isClosed = False
        self.seconds += seconds
        mean = seconds / tasks
        self.mean = mean if not self.mean else self.mean + _WEIGHT * (mean - self.mean)
        ahead = AHEAD_SECONDS / self.mean * self._slots if self.mean else self._most
        self.size = self._slots + min(self._most, int(ahead + 0.5))

    def close(self) -> None:
        """
        Send nothing ahead until the next measurement.
        """
        self.isClosed = True
        self.size = self._slots
