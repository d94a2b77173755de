"""
Which task comes next: start-time fair queueing over flows.

A I{flow} is the tasks of one series and one niceness, first in first out. A
I{lane} is what one set of equally qualified workers chooses from. In each lane
backlogged flows are served in proportion to their weights,
C{2 ** (-niceness / 10)}, by start-time fair queueing (P. Goyal, H. M. Vin,
H. Cheng, "Start-time Fair Queueing", SIGCOMM 1996): a flow has a virtual start
tag, the lowest tag is served, and by that the flow's tag grows by one over its
weight. The virtual time of a lane is the tag served last; a flow that comes
back starts there, or at the tag that it had earned, whichever is later. A task that
was handed to a worker and comes back, not begun, is taken off its flow's tag again.

Around the flows lie two bands, C{doNext} and C{doLast}, first come first served
over all series.

A lane keeps its flows in heaps, each flow once, by a tag that may be out of
date; it is put right when it comes to the top. A flow that has run empty stays
in its place until then, for its tag says what it has had already. So a task
costs O(log flows), and so does the memory of a flow end by itself.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable, Iterator
from heapq import heapify, heappop, heappush, heapreplace
from itertools import count
from typing import Any

from asynqueue.scheduling.task import ENDED, Task

# What one task of a niceness costs in virtual time: one over its weight.
_COSTS = {niceness: 2.0 ** (niceness / 10) for niceness in range(-20, 21)}

# The bands in the order they are served.
NEXT, FAIR, LAST = range(3)

# So many ended tasks may lie in a flow before it is worth a look.
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
        The task to do next. Ended ones before it are let go.
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
        A flow has tasks again. If it still has a place, its tag there stands.
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
        A flow has tasks again, or an earlier one than before.
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


class Lane:
    """
    What workers of the same qualification choose from.

    @ivar qualified: the series they may run, besides C{None}.
    @ivar idle: those of them that are ready and found nothing, longest first.
    @ivar workers: how many there are.
    """

    def __init__(self, qualified: frozenset[Hashable]) -> None:
        self.qualified = qualified
        self.idle: dict[Any, None] = {}
        self.workers = 0
        self.bands: tuple[FifoBand, FairBand, FifoBand] = (FifoBand(), FairBand(), FifoBand())

    def serves(self, series: Hashable) -> bool:
        """
        Whether the workers of this lane may run a series.
        """
        return series is None or series in self.qualified

    def wanted(self) -> bool:
        """
        Whether one of its workers is idle while there may be a task for it.
        """
        return bool(self.idle) and any(band.heap for band in self.bands)


class Scheduler:
    """
    The tasks that wait, and the order they leave in.

    @ivar queued: how many tasks wait.
    """

    def __init__(self) -> None:
        self.queued = 0
        self._flows: dict[tuple[Hashable, int, int], Flow] = {}
        self._lanes: dict[frozenset[Hashable], Lane] = {}
        self._withoutPlace: list[Flow] = []

    def enter(self, qualified: Iterable[Hashable]) -> Lane:
        """
        One more worker of this qualification.

        @return: the lane that it chooses from.
        """
        key = frozenset(qualified)
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = Lane(key)
            for flow in self._flows.values():
                if lane.serves(flow.series):
                    flow.lanes.append(lane)
                    if flow.tasks:
                        lane.bands[flow.band].add(flow)
        lane.workers += 1
        return lane

    def leave(self, lane: Lane) -> None:
        """
        One worker less in a lane.
        """
        lane.workers -= 1
        if lane.workers:
            return
        del self._lanes[lane.qualified]
        for flow in list(self._flows.values()):
            if lane in flow.lanes:
                flow.lanes.remove(lane)
                if flow in lane.bands[flow.band].members:
                    flow.places -= 1
                self._forget(flow)

    def takeIdle(self, series: Hashable) -> Any:
        """
        Take out the worker that has waited the longest of those that may run a
        series; C{None} if none waits.
        """
        for lane in self._lanes.values():
            if lane.idle and (series is None or series in lane.qualified):
                record = next(iter(lane.idle))
                del lane.idle[record]
                return record
        return None

    def push(self, task: Task) -> list[Lane]:
        """
        Queue a task.

        @return: the lanes whose workers may run it.
        """
        flow = self._flowOf(task)
        self.queued += 1
        tasks = flow.tasks
        tasks.append(task)
        # A flow that has tasks already has its places.
        if len(tasks) == 1:
            for lane in flow.lanes:
                lane.bands[flow.band].add(flow)
        return flow.lanes

    def putBack(self, task: Task, charged: Lane | None = None) -> list[Lane]:
        """
        Queue a task again, in the place that it had.

        @param charged: the lane that it was picked from, if it was not begun: its flow is
            not to be charged for it twice.
        @return: the lanes whose workers may run it.
        """
        flow = self._flowOf(task)
        self.queued += 1
        flow.insert(task)
        for lane in flow.lanes:
            lane.bands[flow.band].add(flow)
        if charged is not None and flow.band == FAIR and charged in flow.lanes:
            _, fair, _ = charged.bands
            fair.refund(flow)
        return flow.lanes

    def pick(self, lane: Lane) -> Task | None:
        """
        Take out the task that a worker of this lane is to run next.
        """
        ended = self._withoutPlace
        task = None
        for band in lane.bands:
            if band.heap:
                task = band.pick(ended)
                if task is not None:
                    self.queued -= 1
                    break
        while ended:
            self._forget(ended.pop())
        return task

    def discard(self, task: Task) -> None:
        """
        A queued task is ending. It leaves the structures later.
        """
        self.queued -= 1
        flow = self._flowOf(task)
        flow.dead += 1
        flow.compact()
        self._forget(flow)

    def flows(self) -> Iterator[Flow]:
        """
        The flows in which tasks wait.
        """
        return (flow for flow in self._flows.values() if len(flow.tasks) > flow.dead)

    def tasks(self) -> Iterator[Task]:
        """
        The tasks that wait, flow by flow.
        """
        for flow in self.flows():
            for task in flow.tasks:
                if task.state is not ENDED:
                    yield task

    def wantedLane(self) -> Lane | None:
        """
        A lane with an idle worker for which there may be a task.
        """
        if self.queued:
            for lane in self._lanes.values():
                if lane.wanted():
                    return lane
        return None

    def lanes(self, series: Hashable) -> list[Lane]:
        """
        The lanes whose workers may run a series.
        """
        return [lane for lane in self._lanes.values() if lane.serves(series)]

    def _flowOf(self, task: Task) -> Flow:
        options = task.options
        if options.doNext:
            key = options.series, NEXT, 0
        elif options.doLast:
            key = options.series, LAST, 0
        else:
            key = options.series, FAIR, options.niceness
        flow = self._flows.get(key)
        if flow is None:
            series, band, niceness = key
            flow = self._flows[key] = Flow(series, band, niceness, self.lanes(series))
        return flow

    def _forget(self, flow: Flow) -> None:
        """
        Let a flow go that has neither a task nor a place.
        """
        if not flow.places and flow.first() is None:
            self._flows.pop((flow.series, flow.band, flow.niceness), None)
