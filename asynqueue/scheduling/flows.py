"""
The flows of waiting tasks, and the bands in which they take turns: see
L{asynqueue.scheduling.backlog}.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from heapq import heapify, heappop, heappush, heapreplace
from itertools import count
from typing import Any

from asynqueue.scheduling.lanes import Lane
from asynqueue.scheduling.task import ENDED, Task

# What one task of a niceness costs in virtual time: one over its weight.
_COSTS = {niceness: 2.0 ** (niceness / 10) for niceness in range(-20, 21)}

# The bands in the order they are served.
NEXT, FAIR, LAST = range(3)

# The ended tasks that may lie in a flow before it is worth a look.
_DEAD_ENOUGH = 64

_order = count()


class Flow:
    """
    Tasks that are done in the order they were queued.

    @ivar series: their series.
    @ivar niceness: their niceness; 0 for the bands.
    @ivar tasks: those queued, ended ones among them.
    @ivar dead: how many of them have ended, being cancelled.
    @ivar lanes: the lanes whose workers may run them.
    @ivar places: in how many lanes the flow has a place.
    """

    __slots__ = ("band", "cost", "dead", "lanes", "niceness", "order", "places", "series", "tasks")

    def __init__(self, series: Hashable, band: int, niceness: int, lanes: list[Lane]) -> None:
        self.series = series
        self.band = band
        self.niceness = niceness
        self.cost = _COSTS[niceness]
        self.order = next(_order)
        self.tasks: deque[Task] = deque()
        self.dead = 0
        self.places = 0
        self.lanes = lanes

    def first(self) -> Task | None:
        """
        Return the task to do next. Ended ones before it are let go.
        """
        tasks = self.tasks
        while tasks:
            task = tasks[0]
            if task.state is not ENDED:
                return task
            tasks.popleft()
            self.dead -= 1
        return None

    def insert(self, task: Task) -> None:
        """
        Put a task back in its place: before all that were queued after it.
        """
        place = 0
        for other in self.tasks:
            if other.ID > task.ID:
                break
            place += 1
        self.tasks.insert(place, task)

    def compact(self) -> None:
        """
        Let go of ended tasks once they are the larger part, or all there is.
        """
        if self.dead == len(self.tasks):
            self.tasks.clear()
            self.dead = 0
        elif self.dead > _DEAD_ENOUGH and self.dead * 2 > len(self.tasks):
            self.tasks = deque(task for task in self.tasks if task.state is not ENDED)
            self.dead = 0


class FairBand:
    """
    The flows of one lane by start-time fair queueing.

    @ivar heap: entries: a tag, a number that decides between equal tags, and the flow;
        C{None} for the flow in an entry that was replaced by one with an earlier tag.
    @ivar members: the flows that have a place, each with the entry that counts.
    @ivar time: the virtual time, the latest tag that was served.
    """

    def __init__(self) -> None:
        self.heap: list[list[Any]] = []
        self.members: dict[Flow, list[Any]] = {}
        self.time = 0.0

    def add(self, flow: Flow) -> None:
        """
        Put in a flow that has tasks again. If it still has a place, its tag there stands.
        """
        if flow not in self.members:
            flow.places += 1
            self._enter(flow, self.time)

    def refund(self, flow: Flow) -> None:
        """
        Take back the charge for a task that was picked and not begun. The flow has a
        place.
        """
        entry = self.members[flow]
        entry[2] = None
        self._enter(flow, entry[0] - flow.cost)
        if len(self.heap) > 2 * len(self.members) + _DEAD_ENOUGH:
            self.heap = [entry for entry in self.heap if entry[2] is not None]
            heapify(self.heap)

    def _enter(self, flow: Flow, tag: float) -> None:
        entry = self.members[flow] = [tag, next(_order), flow]
        heappush(self.heap, entry)

    def pick(self, ended: list[Flow]) -> Task | None:
        """
        Take the next task out. Flows that lose their place are noted.
        """
        heap = self.heap
        while heap:
            entry = heap[0]
            tag, _, flow = entry
            if flow is None:
                heappop(heap)
                continue
            if tag > self.time:
                self.time = tag
            task: Task | None = flow.first()
            if task is not None:
                flow.tasks.popleft()
                entry[0] = tag + flow.cost
                heapreplace(heap, entry)
                return task
            heappop(heap)
            del self.members[flow]
            flow.places -= 1
            ended.append(flow)
        return None


class FifoBand:
    """
    The flows of one lane, first come, first served: the tag of a flow is the
    number of its first task.

    @ivar heap: the flows with their tags; a flow that was given an earlier tag
        has its later one there, too, until that comes to the top.
    @ivar members: the flows that have a place, and the one that counts.
    """

    def __init__(self) -> None:
        self.heap: list[tuple[int, int, Flow]] = []
        self.members: dict[Flow, tuple[int, int, Flow]] = {}

    def add(self, flow: Flow) -> None:
        """
        Put in a flow that has tasks again, or an earlier one than before.
        """
        task = flow.first()
        if task is None:
            return
        place = self.members.get(flow)
        if place is None:
            flow.places += 1
        elif place[0] <= task.ID:
            # It comes to the top in time, and is put right there.
            return
        place = self.members[flow] = (task.ID, flow.order, flow)
        heappush(self.heap, place)

    def pick(self, ended: list[Flow]) -> Task | None:
        """
        Take the next task out. Flows that lose their place are noted.
        """
        heap = self.heap
        while heap:
            place = heap[0]
            tag, order, flow = place
            if self.members.get(flow) is not place:
                heappop(heap)
                continue
            task = flow.first()
            if task is None:
                heappop(heap)
                del self.members[flow]
                flow.places -= 1
                ended.append(flow)
            elif tag != task.ID:
                place = self.members[flow] = (task.ID, order, flow)
                heapreplace(heap, place)
            else:
                flow.tasks.popleft()
                return task
        return None
