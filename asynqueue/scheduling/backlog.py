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

from collections.abc import Hashable, Iterator

from zope.interface import implementer

from asynqueue.interfaces import IBacklog
from asynqueue.scheduling.flows import FAIR, LAST, NEXT, FairBand, FifoBand, Flow
from asynqueue.scheduling.lanes import Lane
from asynqueue.scheduling.snapshots import FlowStatistics
from asynqueue.scheduling.task import ENDED, Task

_BAND_NAMES = {NEXT: "doNext", FAIR: "fair", LAST: "doLast"}


@implementer(IBacklog)
class FairBacklog:
    """
    The tasks that wait in memory, and the order they leave in.

    @ivar bands: those of each lane, in the order they are served.
    """

    def __init__(self) -> None:
        self.queued = 0
        self._flows: dict[tuple[Hashable, int, int], Flow] = {}
        self._withoutPlace: list[Flow] = []
        self.bands: dict[Lane, tuple[FifoBand, FairBand, FifoBand]] = {}

    def addLane(self, lane: Lane) -> None:
        bands = self.bands[lane] = FifoBand(), FairBand(), FifoBand()
        for flow in self._flows.values():
            if lane.serves(flow.series):
                flow.lanes.append(lane)
                if flow.tasks:
                    bands[flow.band].add(flow)

    def removeLane(self, lane: Lane) -> None:
        bands = self.bands.pop(lane)
        for flow in list(self._flows.values()):
            if lane in flow.lanes:
                flow.lanes.remove(lane)
                if flow in bands[flow.band].members:
                    flow.places -= 1
                self._forget(flow)

    def push(self, task: Task) -> None:
        flow = self._flowOf(task)
        self.queued += 1
        tasks = flow.tasks
        tasks.append(task)
        # A flow that has tasks already has its places.
        if len(tasks) == 1:
            for lane in flow.lanes:
                self.bands[lane][flow.band].add(flow)

    def putBack(self, task: Task, lane: Lane | None = None) -> None:
        flow = self._flowOf(task)
        self.queued += 1
        flow.insert(task)
        for each in flow.lanes:
            self.bands[each][flow.band].add(flow)
        if lane is not None and flow.band == FAIR and lane in flow.lanes:
            _, fair, _ = self.bands[lane]
            fair.refund(flow)

    def pick(self, lane: Lane) -> Task | None:
        ended = self._withoutPlace
        task = None
        for band in self.bands[lane]:
            if band.heap:
                task = band.pick(ended)
                if task is not None:
                    self.queued -= 1
                    break
        while ended:
            self._forget(ended.pop())
        return task

    def mayPick(self, lane: Lane) -> bool:
        return any(band.heap for band in self.bands[lane])

    def discard(self, task: Task) -> None:
        # It leaves the structures later.
        self.queued -= 1
        flow = self._flowOf(task)
        flow.dead += 1
        flow.compact()
        self._forget(flow)

    def flows(self) -> Iterator[Flow]:
        """
        Yield the flows in which tasks wait.
        """
        return (flow for flow in self._flows.values() if len(flow.tasks) > flow.dead)

    def tasks(self) -> Iterator[Task]:
        for flow in self.flows():
            for task in flow.tasks:
                if task.state is not ENDED:
                    yield task

    def statistics(self) -> tuple[FlowStatistics, ...]:
        return tuple(
            FlowStatistics(
                flow.series,
                flow.niceness,
                _BAND_NAMES[flow.band],
                len(flow.tasks) - flow.dead,
                sum(lane.workers for lane in flow.lanes),
            )
            for flow in self.flows()
        )

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
            lanes = [lane for lane in self.bands if lane.serves(series)]
            flow = self._flows[key] = Flow(series, band, niceness, lanes)
        return flow

    def _forget(self, flow: Flow) -> None:
        """
        Let a flow go that has neither a task nor a place.
        """
        if not flow.places and flow.first() is None:
            self._flows.pop((flow.series, flow.band, flow.niceness), None)
