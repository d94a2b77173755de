"""
What L{asynqueue.scheduling.backlog} promises: the order of tasks, and fair shares.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import combinations, count
from math import log2
from random import Random
from typing import Any

import pytest
from hypothesis import Phase, given, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from zope.interface import implementer

from asynqueue.errors import ImplementationError
from asynqueue.interfaces import IBacklog
from asynqueue.scheduling.backlog import FairBacklog
from asynqueue.scheduling.flows import FAIR, LAST, NEXT
from asynqueue.scheduling.lanes import Lane, Lanes
from asynqueue.scheduling.options import CallOptions
from asynqueue.scheduling.snapshots import FlowStatistics
from asynqueue.scheduling.task import ENDED, QUEUED
from asynqueue.taskqueue import TaskQueue
from asynqueue.testing import MemoryQueue, MemoryWorker, RecordingBacklog
from tests.doubles import Heard

NICENESS = st.integers(-20, 20)


class Item:
    """
    As much of a task as a backlog looks at.
    """

    def __init__(self, number: int, series: Any = None, niceness: int = 0, **kw: Any) -> None:
        self.ID = number
        self.options = CallOptions(niceness=niceness, series=series, **kw)
        self.state = QUEUED

    @property
    def flow(self) -> tuple[int, Any, int]:
        """
        What names its flow.
        """
        options = self.options
        if options.doNext:
            return NEXT, options.series, 0
        if options.doLast:
            return LAST, options.series, 0
        return FAIR, options.series, options.niceness


def weight(niceness: int) -> float:
    """
    The promised weight.
    """
    return float(2 ** (-niceness / 10))


class Bench:
    """
    A backlog with one lane, and flows that wait.
    """

    def __init__(self, *series: Any) -> None:
        self.backlog = FairBacklog()
        self.lanes = Lanes(self.backlog)
        self.lane = self.lanes.enter(series)
        self._numbers = count(1)

    def push(self, series: Any = None, niceness: int = 0, times: int = 1, **kw: Any) -> list[Item]:
        items = [Item(next(self._numbers), series, niceness, **kw) for _ in range(times)]
        for item in items:
            self.backlog.push(item)
        return items

    def pick(self) -> Any:
        return self.backlog.pick(self.lane)

    def picked(self, times: int) -> list[Any]:
        """
        The series of the next items, in order.
        """
        return [self.pick().options.series for _ in range(times)]

    def again(self) -> Any:
        """
        Pick an item, and put another one at the end of its flow: it stays
        backlogged.
        """
        item = self.pick()
        self.backlog.push(item)
        return item.options.series

    def cancel(self, item: Item) -> None:
        item.state = ENDED
        self.backlog.discard(item)


# The whole, against a model ---------------------------------------------------


class LaneModel:
    """
    Start-time fair queueing as the article has it, with all tags at hand.
    """

    def __init__(self, backlog: FairBacklog, lane: Lane) -> None:
        self.bands = backlog.bands[lane]
        self.lane = lane
        self.time = 0.0
        self.tags: dict[Any, float] = {}

    def has(self, flow: Any) -> bool:
        """
        Whether a flow has kept its place.
        """
        members = self.bands[FAIR].members
        return any((FAIR, each.series, each.niceness) == flow for each in members)

    def arrived(self, flow: Any, stayed: bool) -> None:
        """
        A flow has tasks, and had none.

        @param stayed: whether it has kept its place; or has been given one, as the lane was
            new, for tasks that were cancelled.
        """
        if not stayed or flow not in self.tags:
            self.tags[flow] = max(self.time, self.tags.get(flow, 0.0))

    def check(self, picked: Any, queued: list[Item]) -> None:
        """
        The backlog picked rightly, or picked nothing where nothing was.
        """
        mine = [item for item in queued if self.lane.serves(item.options.series)]
        if not mine:
            assert picked is None
            self.time = max([self.time, *self.tags.values()])
            return
        band = min(item.flow[0] for item in mine)
        mine = [item for item in mine if item.flow[0] == band]
        if band != FAIR:
            assert picked is min(mine, key=lambda item: item.ID)
            if band == LAST:
                self.time = max([self.time, *self.tags.values()])
            return
        tag = self.tags[picked.flow]
        assert tag == min(self.tags[item.flow] for item in mine)
        assert min(item.ID for item in mine if item.flow == picked.flow) == picked.ID
        self.time = max(self.time, tag)
        self.tags[picked.flow] = tag + 1 / weight(picked.options.niceness)


class BacklogMachine(RuleBasedStateMachine):
    """
    A backlog and a list of what is queued live through the same.
    """

    def __init__(self) -> None:
        super().__init__()
        self.backlog = FairBacklog()
        self.theirs = Lanes(self.backlog)
        self.lanes: list[LaneModel] = []
        self.hired: list[LaneModel] = []
        self.queued: list[Item] = []
        self.held: list[tuple[Item, LaneModel]] = []
        self.number = 0

    def _add(self, item: Item, push: Any) -> None:
        new = all(other.flow != item.flow for other in self.queued)
        stayed = {id(model): model.has(item.flow) for model in self.lanes}
        push(item)
        serving = self.theirs.serving(item.options.series)
        assert {id(lane) for lane in serving} == {
            id(model.lane) for model in self.lanes if model.lane.serves(item.options.series)
        }
        self.queued.append(item)
        if new:
            for model in self.lanes:
                model.arrived(item.flow, stayed[id(model)])

    @rule(
        series=st.sampled_from([None, "a", "b"]),
        niceness=st.sampled_from([-20, 0, 9]),
        band=st.sampled_from(["", "", "", "", "doNext", "doLast"]),
        times=st.integers(1, 12),
    )
    def push(self, series: Any, niceness: int, band: str, times: int) -> None:
        for _ in range(times):
            self.number += 1
            options = {band: True} if band else {}
            self._add(Item(self.number, series, niceness, **options), self.backlog.push)

    @precondition(lambda self: self.hired)
    @rule(data=st.data(), times=st.integers(1, 6))
    def pick(self, data: Any, times: int) -> None:
        model = data.draw(st.sampled_from(self.hired))
        for _ in range(times):
            item = self.backlog.pick(model.lane)
            model.check(item, self.queued)
            if item is not None:
                self.queued.remove(item)
                self.held.append((item, model))

    @precondition(lambda self: self.held)
    @rule(data=st.data(), begun=st.booleans())
    def putBack(self, data: Any, begun: bool) -> None:
        item, model = data.draw(st.sampled_from(self.held))
        self.held.remove((item, model))
        charged = None if begun else model.lane
        self._add(item, lambda item: self.backlog.putBack(item, charged))
        if not begun and model in self.lanes and item.flow[0] == FAIR:
            model.tags[item.flow] -= 1 / weight(item.options.niceness)

    @precondition(lambda self: self.queued)
    @rule(data=st.data())
    def cancel(self, data: Any) -> None:
        item = data.draw(st.sampled_from(self.queued))
        self.queued.remove(item)
        item.state = ENDED
        self.backlog.discard(item)

    @precondition(lambda self: len(self.hired) < 3)
    @rule(series=st.sets(st.just("a")))
    def enter(self, series: set[Any]) -> None:
        lane = self.theirs.enter(series)
        model = next((model for model in self.lanes if model.lane is lane), None)
        if model is None:
            model = LaneModel(self.backlog, lane)
            self.lanes.append(model)
            for item in self.queued:
                model.arrived(item.flow, False)
        self.hired.append(model)

    @precondition(lambda self: self.hired)
    @rule(data=st.data())
    def leave(self, data: Any) -> None:
        model = data.draw(st.sampled_from(self.hired))
        self.hired.remove(model)
        self.theirs.leave(model.lane)
        if model not in self.hired:
            self.lanes.remove(model)

    @invariant()
    def nothingIsLostAndNothingTwice(self) -> None:
        assert self.backlog.queued == len(self.queued)
        assert sorted(item.ID for item in self.backlog.tasks()) == sorted(
            item.ID for item in self.queued
        )

    @invariant()
    def statisticsAreExact(self) -> None:
        counts = Counter(item.flow for item in self.queued)
        seen = {
            (flow.band, flow.series, flow.niceness): len(flow.tasks) - flow.dead
            for flow in self.backlog.flows()
        }
        assert seen == dict(counts)

    @invariant()
    def emptyFlowsAreForgotten(self) -> None:
        flows = self.backlog._flows.values()
        assert all(flow.places or flow.first() is not None for flow in flows)

    def teardown(self) -> None:
        for model in self.lanes:
            while (item := self.backlog.pick(model.lane)) is not None:
                model.check(item, self.queued)
                self.queued.remove(item)
            model.check(None, self.queued)
        for item in self.queued:
            item.state = ENDED
            self.backlog.discard(item)
        assert not self.backlog._flows
        assert not any(band.heap for model in self.lanes for band in model.bands)


TestBacklog = BacklogMachine.TestCase
# To make a failing example smaller takes minutes: do it when there is one.
TestBacklog.settings = settings(stateful_step_count=40, phases=[Phase.generate])


# Order ------------------------------------------------------------------------


def test_bandsGoBeforeAndAfterTheFlows() -> None:
    """
    C{doNext} goes before everything, whatever its niceness, and C{doLast} after.
    """
    bench = Bench("a", "b")
    bench.push("a", -20, doLast=True)
    bench.push("b", -20)
    bench.push("a", 20, doNext=True)
    bench.push("b", doNext=True)
    bench.push(None, doLast=True)
    assert bench.picked(5) == ["a", "b", "b", "a", None]


def test_sameOrderAsQueuedWithinAFlow() -> None:
    """
    The tasks of a flow leave in the order they came.
    """
    bench = Bench()
    items = bench.push(times=100)
    assert [bench.pick() for _ in items] == items


def test_whatIsPutBackKeepsItsPlace() -> None:
    """
    Tasks that are put back, in whatever order, go before those queued later.
    """
    bench = Bench()
    items = bench.push(times=5)
    taken = [bench.pick() for _ in range(3)]
    for item in (taken[1], taken[0], taken[2]):
        bench.backlog.putBack(item)
    assert [bench.pick() for _ in items] == items


def test_whatIsPutBackKeepsItsPlaceAmongSeries() -> None:
    """
    In the bands, the place of a task that is put back is that among all series.
    """
    bench = Bench("a", "b")
    items = [bench.push(series, doNext=True)[0] for series in "abab"]
    for item in [bench.pick(), bench.pick()]:
        bench.backlog.putBack(item)
    assert [bench.pick() for _ in items] == items


def test_taskThatNobodyMayTakeDelaysNoOther() -> None:
    """
    A lane passes over the tasks it is not qualified for, in every band.
    """
    bench = Bench("mine")
    for options in ({"doNext": True}, {"niceness": -20}, {"doLast": True}):
        bench.push("others", times=1000, **options)
    bench.push("mine", 20)
    assert bench.picked(1) == ["mine"]
    assert bench.pick() is None
    assert bench.backlog.queued == 3000


def test_laneThatComesLaterFindsWhatWaits() -> None:
    """
    Tasks wait for a lane that is qualified, and are found by it.
    """
    bench = Bench()
    bench.push("a", times=2)
    bench.lane = bench.lanes.enter(["a"])
    assert bench.picked(2) == ["a", "a"]


# Shares -----------------------------------------------------------------------


@pytest.mark.bulk
def test_sharesAreTheWeights() -> None:
    """
    Of 100 backlogged flows of random niceness each gets its weight's part of
    200,000 picks, to 1%.
    """
    random = Random(2)
    niceness = {series: random.randint(-20, 20) for series in range(100)}
    bench = Bench(*niceness)
    for series, nice in niceness.items():
        bench.push(series, nice, times=2)
    picks = 200_000
    served = Counter(bench.again() for _ in range(picks))
    whole = sum(weight(nice) for nice in niceness.values())
    for series, nice in niceness.items():
        due = picks * weight(nice) / whole
        assert abs(served[series] - due) <= 0.01 * due


@given(st.lists(NICENESS, min_size=2, max_size=6))
# No state machine, and each example has 150 steps: whatever the profile, so many are enough.
@settings(max_examples=40)
def test_lagIsBoundedAtEveryMoment(levels: list[int]) -> None:
    """
    Two backlogged flows never differ by more than a task of each, by weight.
    """
    bench = Bench(*range(len(levels)))
    for series, nice in enumerate(levels):
        bench.push(series, nice, times=2)
    costs = [1 / weight(nice) for nice in levels]
    had = [0.0] * len(levels)
    for _ in range(150):
        series = bench.again()
        had[series] += costs[series]
        for i, j in combinations(range(len(levels)), 2):
            assert abs(had[i] - had[j]) <= costs[i] + costs[j] + 1e-9


@given(
    st.lists(NICENESS, min_size=2, max_size=5),
    st.lists(st.lists(st.integers(0, 5), min_size=8, max_size=8), min_size=40, max_size=40),
)
@settings(deadline=None)
def test_lagIsBoundedWhateverIsHandedBack(levels: list[int], fates: list[list[int]]) -> None:
    """
    Workers take eight tasks each time, and hand back, not begun, those of some flows
    always, and of others now and then: what really begins keeps to the shares, within
    what was handed back last.
    """
    bench = Bench(*range(len(levels)))
    for series, nice in enumerate(levels):
        bench.push(series, nice, times=20)
    costs = [1 / weight(nice) for nice in levels]
    had = [0.0] * len(levels)
    for batch in fates:
        held = [bench.pick() for _ in batch]
        for item, fate in zip(held, batch, strict=True):
            series = item.options.series
            if fate == 0 or (fate < 4 and series == 0):
                bench.backlog.putBack(item, bench.lane)
            else:
                had[series] += costs[series]
                bench.push(series, levels[series])
        for i, j in combinations(range(len(levels)), 2):
            assert abs(had[i] - had[j]) <= 9 * max(costs[i], costs[j]) + 1e-9


def test_whatIsHandedBackIsNotChargedTwice() -> None:
    """
    Two flows of one niceness are served alike, though all that one is given is handed
    back once before it begins.
    """
    bench = Bench("slow", "steady")
    bench.push("slow", times=200)
    bench.push("steady", times=200)
    returned: set[int] = set()
    served: Counter[Any] = Counter()
    while sum(served.values()) < 200:
        item = bench.pick()
        if item.options.series == "slow" and item.ID not in returned:
            returned.add(item.ID)
            bench.backlog.putBack(item, bench.lane)
        else:
            served[item.options.series] += 1
    assert served == {"slow": 100, "steady": 100}


def test_tenMoreIsHalfTheRate() -> None:
    """
    A flow of niceness 10 is served once for two times of one of niceness 0.
    """
    bench = Bench("nice", "usual")
    bench.push("nice", 10, times=200)
    bench.push("usual", 0, times=200)
    assert Counter(bench.picked(150)) == {"usual": 100, "nice": 50}


def test_returningFlowHoardsNoCredit() -> None:
    """
    A flow that was away while another was served does not catch up.
    """
    bench = Bench("here", "away")
    bench.push("here", times=2000)
    bench.push("away", times=1)
    bench.picked(1000)
    bench.push("away", times=1000)
    assert Counter(bench.picked(100)) == {"here": 50, "away": 50}


def test_oneAtATimeGainsNothing() -> None:
    """
    A flow that sends its next task when the last one was taken gets no more than
    its share beside one that is backlogged.
    """
    bench = Bench("steady", "drip")
    bench.push("steady", times=1000)
    bench.push("drip")
    served: Counter[Any] = Counter()
    for _ in range(600):
        series = bench.picked(1)[0]
        served[series] += 1
        if series == "drip":
            bench.push("drip")
    assert served == {"steady": 300, "drip": 300}


def test_oneAtATimeGainsNothingByCancelling() -> None:
    """
    A flow whose tasks are cancelled and queued anew gets no more than its share.
    """
    bench = Bench("steady", "restless")
    bench.push("steady", times=1000)
    waiting = bench.push("restless")
    served: Counter[Any] = Counter()
    for _ in range(600):
        series = bench.picked(1)[0]
        served[series] += 1
        if series == "steady":
            bench.cancel(waiting[0])
        waiting = bench.push("restless")
        if series == "restless":
            waiting = waiting[-1:]
            bench.cancel(waiting[0])
            waiting = bench.push("restless")
    assert served["restless"] <= 301


def test_idleLaneStartsAnew() -> None:
    """
    After an idle time nobody owes or is owed anything.
    """
    bench = Bench("a", "b")
    bench.push("a", 20, times=50)
    bench.picked(50)
    assert bench.pick() is None
    bench.push("a", times=100)
    bench.push("b", times=100)
    assert Counter(bench.picked(100)) == {"a": 50, "b": 50}


# Costs ------------------------------------------------------------------------


class Tag(float):
    """
    A tag that counts how often tags are compared.
    """

    compared = 0

    def __add__(self, other: float) -> Tag:
        return Tag(float(self) + other)

    def __lt__(self, other: float) -> bool:
        Tag.compared += 1
        return float(self) < other

    __hash__ = float.__hash__

    def __eq__(self, other: object) -> bool:
        Tag.compared += 1
        return float(self) == other


@pytest.mark.bulk
def test_pickLooksAtFewFlows() -> None:
    """
    With 10,000 flows a task costs a number of comparisons that grows like the
    logarithm of that.
    """
    flows = 10_000
    bench = Bench(*range(flows))
    bench.backlog.bands[bench.lane][FAIR].time = Tag(0.0)
    for series in range(flows):
        bench.push(series, series % 41 - 20, times=2)
    Tag.compared = 0
    for _ in range(1000):
        bench.again()
    assert 0 < Tag.compared / 1000 <= 5 * log2(flows)


def test_bandHasEachFlowOnce() -> None:
    """
    A flow that runs empty and comes back before anybody looks has one place, and
    so has one whose tasks are put back.
    """
    bench = Bench()
    for _ in range(1000):
        bench.push(doNext=True)
        bench.pick()
    assert len(bench.backlog.bands[bench.lane][NEXT].heap) == 1
    bench.push(doNext=True, times=2)
    for _ in range(1000):
        bench.backlog.putBack(bench.pick())
    assert len(bench.backlog.bands[bench.lane][NEXT].heap) <= 2
    bench.picked(2)
    bench.push(times=2)
    for _ in range(1000):
        bench.backlog.putBack(bench.pick(), bench.lane)
    assert len(bench.backlog.bands[bench.lane][FAIR].heap) <= 100


def test_cancelledTasksAreForgotten() -> None:
    """
    Of many cancelled tasks few are kept, though nobody picks.
    """
    bench = Bench()
    items = bench.push(times=10_000)
    for item in items[1:]:
        bench.cancel(item)
    flow = next(bench.backlog.flows())
    assert len(flow.tasks) < 200
    assert bench.pick() is items[0]
    assert bench.pick() is None


def test_flowLeavesWithItsLane() -> None:
    """
    What lies dead in a flow does not outlive the lane that could have seen it.
    """
    bench = Bench()
    items = bench.push(times=2)
    bench.cancel(items[1])
    bench.pick()
    bench.lanes.leave(bench.lane)
    assert not bench.backlog._flows


def test_laterLaneSeesNoDeadFlow() -> None:
    """
    A lane that comes when only cancelled tasks lie in a flow has nothing of it,
    and gets what is queued there next.
    """
    bench = Bench()
    items = bench.push(doLast=True, times=2)
    bench.cancel(items[1])
    bench.pick()
    bench.lane = bench.lanes.enter(["other"])
    assert not bench.backlog.bands[bench.lane][LAST].heap
    later = bench.push(doLast=True)
    assert bench.pick() is later[0]


# A backlog of another kind ----------------------------------------------------


@implementer(IBacklog)
class Stack:
    """
    Whatever came last leaves first.
    """

    def __init__(self) -> None:
        self.waiting: list[Any] = []

    @property
    def queued(self) -> int:
        return len(self.waiting)

    def addLane(self, lane: Any) -> None:
        pass

    def removeLane(self, lane: Any) -> None:
        pass

    def push(self, task: Any) -> None:
        self.waiting.append(task)

    def putBack(self, task: Any, lane: Any = None) -> None:
        self.waiting.append(task)

    def pick(self, lane: Any) -> Any:
        task = next((task for task in reversed(self.waiting) if lane.serves(task.series)), None)
        if task is not None:
            self.waiting.remove(task)
        return task

    def mayPick(self, lane: Any) -> bool:
        return any(lane.serves(task.series) for task in self.waiting)

    def discard(self, task: Any) -> None:
        self.waiting.remove(task)

    def tasks(self) -> Iterator[Any]:
        return iter(self.waiting)

    def statistics(self) -> list[FlowStatistics]:
        series = Counter(task.series for task in self.waiting)
        return [FlowStatistics(each, 0, "stack", count, 1) for each, count in series.items()]


def test_queueTakesItsTasksFromTheBacklogThatItIsGiven() -> None:
    """
    Which call is next says the backlog that a queue was made with, and no other.
    """
    done: list[int] = []
    queue = MemoryQueue(backlog=Stack())
    for n in range(5):
        queue.call(done.append, n)
    queue.finish()
    assert done == [0, 4, 3, 2, 1]


def test_statisticsAndEndsAreThoseOfTheBacklog() -> None:
    """
    What waits in the backlog that a queue was given is counted, cancelled and ended as in
    its own.
    """
    queue = MemoryQueue(backlog=(backlog := RecordingBacklog(Stack())))
    calls = [Heard(queue.call(abs, n, series="a")) for n in range(4)]
    assert queue.statistics().flows == (FlowStatistics("a", 0, "stack", 4, 1),)
    assert queue.statistics().queued == 4
    calls[1].d.cancel()
    assert queue.cancelSeries("a") == 3
    calls.append(Heard(queue.call(abs, 4, series="a")))
    queue.shutdown()
    assert [type(each.error).__name__ for each in calls] == [
        *["CancelledError"] * 4,
        "QueueRunError",
    ]
    assert backlog.faults == []


def test_whatNeedsNotWaitIsNotAskedFor() -> None:
    """
    A call for which a worker waits, while nothing else does, does not go by the backlog.
    """
    backlog = RecordingBacklog()
    queue = MemoryQueue(MemoryWorker(window=9), backlog=backlog)
    before = len(backlog.asked)
    for n in range(9):
        queue.call(abs, n)
    assert {what for what, _ in backlog.asked[before:]} <= {"pick"}
    queue.call(abs, 9)
    assert [what for what, _ in backlog.asked].count("push") == 1


def test_backlogOfNoKindIsRefused() -> None:
    """
    A queue takes nothing for a backlog that does not say that it is one.
    """
    with pytest.raises(ImplementationError, match="is no IBacklog"):
        TaskQueue(backlog=[])  # type: ignore[arg-type]


class Forgetful(Stack):
    """
    Does not hear that a task has ended.
    """

    def discard(self, task: Any) -> None:
        pass


def test_recordingBacklogTellsFaults() -> None:
    """
    The double shows what a backlog does against its interface.
    """
    backlog = RecordingBacklog(Forgetful())
    queue = MemoryQueue(backlog=backlog)
    held, cancelled = queue.call(abs, -1), Heard(queue.call(abs, -2))
    assert backlog.faults == []
    cancelled.d.cancel()
    queue.finish()
    assert held.called
    assert any("was picked, and has ended" in fault for fault in backlog.faults)
