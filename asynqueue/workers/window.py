"""
How many tasks a worker may hold at once.
"""

from __future__ import annotations

from asynqueue.durations import Durations

# The seconds of work that what is sent ahead may take, about (G6).
AHEAD_SECONDS = 0.005

# If this part of a call fits in there, it is sent all the same: who runs calls of up to 50 ms
# has the next one already, and is not idle until this program, which may be busy, sends it.
_LEAST_PART = 0.1

# Nothing is thought to move after this many times what a call runs, within bounds.
_STALE_CALLS = 1.5
_STALE_LEAST, _STALE_MOST = 2 * AHEAD_SECONDS, 15 * AHEAD_SECONDS


class Window(Durations):
    """
    A window bounded by time: the tasks that run, and as many more as a few
    milliseconds of work, by the measured time of the latest; one more also of calls that run for
    ten times as long.

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
        self.size = self._slots + int(min(self._most, ahead + 1 - _LEAST_PART))

    def staleSeconds(self) -> float:
        """
        Return how many seconds nothing may move before what was sent ahead is handed back.
        """
        return min(max(_STALE_LEAST, _STALE_CALLS * self.mean), _STALE_MOST)

    def close(self) -> None:
        """
        Send nothing ahead until the next measurement.
        """
        self.isClosed = True
        self.size = self._slots
