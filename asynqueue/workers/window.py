"""
How many tasks a worker may hold at once.
"""

from __future__ import annotations

from asynqueue.durations import Durations

# The seconds of work that what is sent ahead may take, about (G6).
AHEAD_SECONDS = 0.005


class Window(Durations):
    """
    A window bounded by time: the tasks that run, and as many more as a few
    milliseconds of work, by the measured time of the latest.

    @ivar size: how many tasks the worker may hold now.
    @ivar isClosed: whether nothing may be sent ahead, until the next measurement.
    """

    __slots__ = ("_most", "_slots", "isClosed", "size")

    def __init__(self, slots: int, most: int) -> None:
        """
        @param slots: how many tasks run at once.
        @param most: the most tasks that may be sent ahead.
        """
        super().__init__()
        self._slots = slots
        self._most = most
        self.size = slots
        self.isClosed = False

    def measured(self, tasks: int, seconds: float) -> None:
        """
        Note how many seconds some tasks ran, all together.
        """
        self.isClosed = False
        self.add(tasks, seconds)
        ahead = self.within(AHEAD_SECONDS) * self._slots
        self.size = self._slots + int(min(self._most, ahead + 0.5))

    def close(self) -> None:
        """
        Send nothing ahead until the next measurement.
        """
        self.isClosed = True
        self.size = self._slots
