"""
Workers of the same qualification, and which of them wait for a task.
"""

from __future__ import annotations

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
        self.idle: dict[Any, None] = {}
        self.workers = 0

    def serves(self, series: Hashable) -> bool:
        """
        Return whether the workers of this lane may run a series.
        """
        return series is None or series in self.qualified


class Lanes:
    """
    The lanes that the workers of a queue have.
    """

    def __init__(self, backlog: IBacklog) -> None:
        """
        @param backlog: hears which lanes there are.
        """
        self._backlog = backlog
        # A list: it is gone through for each task that is queued.
        self._lanes: list[Lane] = []

    def enter(self, qualified: Iterable[Hashable]) -> Lane:
        """
        Count one more worker of a qualification.

        @return: the lane that it chooses from.
        """
        series = frozenset(qualified)
        lane = next((lane for lane in self._lanes if lane.qualified == series), None)
        if lane is None:
            lane = Lane(series)
            self._lanes.append(lane)
            self._backlog.addLane(lane)
        lane.workers += 1
        return lane

    def leave(self, lane: Lane) -> None:
        """
        Count one worker less in a lane.
        """
        lane.workers -= 1
        if not lane.workers:
            self._lanes.remove(lane)
            self._backlog.removeLane(lane)

    def serving(self, series: Hashable) -> list[Lane]:
        """
        Return the lanes whose workers may run a series.
        """
        return [lane for lane in self._lanes if lane.serves(series)]

    def takeIdle(self, series: Hashable) -> Any:
        """
        Take out the record of the worker that has waited the longest in the first lane of
        those that may run a series, where one waits; C{None} if none does. A hot path.
        """
        for lane in self._lanes:
            idle = lane.idle
            if idle and (series is None or series in lane.qualified):
                for record in idle:
                    del idle[record]
                    return record
        return None

    def takeWanted(self) -> Any:
        """
        Take out the record of a worker that waits while there may be a task for it; C{None}
        if there is none.
        """
        for lane in self._lanes:
            if lane.idle and self._backlog.mayPick(lane):
                record = next(iter(lane.idle))
                del lane.idle[record]
                return record
        return None
