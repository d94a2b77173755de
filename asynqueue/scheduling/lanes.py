"""
Workers of the same qualification, and which of them wait for a task.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable
from typing import Any

from asynqueue.interfaces import IBacklog


class Lane:
    """
    What workers of the same qualification choose from.

    @ivar qualified: the series they may run, besides C{None}.
    @ivar idle: the records of those of them that are ready and found nothing, longest first.
    @ivar workers: how many there are.
    """

    __slots__ = ("idle", "qualified", "workers")

    def __init__(self, qualified: frozenset[Hashable]) -> None:
        self.qualified = qualified
        self.idle: deque[Any] = deque()
        self.workers = 0

    def serves(self, series: Hashable) -> bool:
        """
        Return whether the workers of this lane may run a series.
        """
        return series is None or series in self.qualified

    def forget(self, record: Any) -> None:
        """
        Take a record out of those that wait, if it is there. Mostly it is the first.
        """
        if record in self.idle:
            self.idle.remove(record)


class Lanes:
    """
    The lanes that the workers of a queue have.

    @ivar each: all of them. A list: it is gone through for each task that is queued.
    """

    def __init__(self, backlog: IBacklog) -> None:
        """
        @param backlog: hears which lanes there are.
        """
        self._backlog = backlog
        self.each: list[Lane] = []

    def enter(self, qualified: Iterable[Hashable]) -> Lane:
        """
        Count one more worker of a qualification.

        @return: the lane that it chooses from.
        """
        series = frozenset(qualified)
        lane = next((lane for lane in self.each if lane.qualified == series), None)
        if lane is None:
            lane = Lane(series)
            self.each.append(lane)
            self._backlog.addLane(lane)
        lane.workers += 1
        return lane

    def leave(self, lane: Lane) -> None:
        """
        Count one worker less in a lane.
        """
        lane.workers -= 1
        if not lane.workers:
            self.each.remove(lane)
            self._backlog.removeLane(lane)

    def serving(self, series: Hashable) -> list[Lane]:
        """
        Return the lanes whose workers may run a series.
        """
        return [lane for lane in self.each if lane.serves(series)]

    def idle(self, series: Hashable) -> Any:
        """
        Return the record of the worker that has waited the longest in the first lane of those
        that may run a series, where one waits; C{None} if none does.
        """
        for lane in self.each:
            if lane.idle and lane.serves(series):
                return lane.idle[0]
        return None

    def wanted(self) -> Any:
        """
        Return the record of a worker that waits while there may be a task for it; C{None}
        if there is none.
        """
        for lane in self.each:
            if lane.idle and self._backlog.mayPick(lane):
                return lane.idle[0]
        return None
