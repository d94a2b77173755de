"""
What L{IBacklog<asynqueue.interfaces.IBacklog>} promises, as checks for any backlog.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import field, frozen

from asynqueue.interfaces import IBacklog
from asynqueue.scheduling.lanes import Lane
from asynqueue.scheduling.options import CallOptions
from asynqueue.scheduling.task import ENDED, QUEUED, State
from asynqueue.testing.doubles import MemoryTask
from asynqueue.testing.trials import expect, require


class _WaitingTask(MemoryTask):
    """
    A task with a number of its own.
    """

    def __init__(self, number: int, **options: Any) -> None:
        super().__init__(abs, number, options=CallOptions(**options))
        self.ID = number

    def __repr__(self) -> str:
        return f"task {self.ID}"

    @property
    def state(self) -> State:
        """
        How far it is: it waits, or it was cancelled.
        """
        return ENDED if self.ended else QUEUED


class BacklogTrial:
    """
    An empty backlog with one lane, whose workers may run all series but "other".

    @ivar lane: the lane.
    @ivar others: a lane that is not there, whose workers may run "other", too.
    """

    def __init__(self, backlog: IBacklog) -> None:
        self.backlog = backlog
        self.lane = Lane(frozenset({"a", "b"}))
        self.others = Lane(frozenset({"other"}))
        self._count = 0
        self.add(self.lane)

    def add(self, lane: Lane) -> None:
        """
        Add a lane, with one worker.
        """
        lane.workers = 1
        self.backlog.addLane(lane)

    def push(self, **options: Any) -> Any:
        """
        Push a new task.
        """
        self._count += 1
        task = _WaitingTask(self._count, **options)
        self.backlog.push(task)
        return task

    def end(self, task: Any) -> None:
        """
        Have a task that waits end, and be discarded.
        """
        task.callback(None)
        self.backlog.discard(task)

    def picked(self, lane: Lane | None = None) -> list[Any]:
        """
        Pick all that a lane may have.
        """
        lane = self.lane if lane is None else lane
        tasks: list[Any] = []
        while (task := self.backlog.pick(lane)) is not None:
            require(len(tasks) < self._count, "more tasks are picked than were pushed")
            tasks.append(task)
        require(not self.backlog.mayPick(lane), "a lane that found nothing may not pick")
        return tasks


Body = Callable[[BacklogTrial], None]
_CHECKS: list[Body] = []


def _check(body: Body) -> Body:
    _CHECKS.append(body)
    return body


@_check
def eachTaskLeavesOnce(trial: BacklogTrial) -> None:
    """
    Each task that is pushed is picked once, and is counted until then.
    """
    tasks = [trial.push(series=series, niceness=n) for series in (None, "a", "b") for n in (0, 5)]
    expect(trial.backlog.queued, 6, "the number of tasks that wait")
    require(trial.backlog.mayPick(trial.lane), "a lane may pick what waits for it")
    picked = trial.picked()
    expect(sorted(task.ID for task in picked), [task.ID for task in tasks], "what was picked")
    expect(trial.backlog.queued, 0, "the number of tasks that wait")


@_check
def aKindKeepsItsOrder(trial: BacklogTrial) -> None:
    """
    Tasks of one series, niceness and band leave in the order of their numbers.
    """
    options: list[dict[str, Any]] = [
        {},
        {"series": "a"},
        {"niceness": 9},
        {"doNext": True},
        {"doLast": True},
    ]
    kinds: list[list[Any]] = [[] for _ in options]
    for _ in range(4):
        for kind, each in zip(kinds, options, strict=True):
            kind.append(trial.push(**each))
    picked = trial.picked()
    for kind in kinds:
        expect([task for task in picked if task in kind], kind, "the order of one kind")


@_check
def theBandsGoBeforeAndAfter(trial: BacklogTrial) -> None:
    """
    Tasks with C{doNext} are picked before all others, and those with C{doLast} after them.
    """
    last, fair, following = trial.push(doLast=True), trial.push(), trial.push(doNext=True)
    expect(trial.picked(), [following, fair, last], "what was picked")


@_check
def whatIsPutBackHasItsOldPlace(trial: BacklogTrial) -> None:
    """
    A task that is put back is picked before those of its kind that have higher numbers, whatever
    the order in which several are put back.
    """
    tasks = [trial.push() for _ in range(5)]
    taken = [trial.backlog.pick(trial.lane) for _ in range(3)]
    expect(taken, tasks[:3], "what was picked")
    for task in (taken[1], taken[2], taken[0]):
        trial.backlog.putBack(task, trial.lane)
    expect(trial.backlog.queued, 5, "the number of tasks that wait")
    expect(trial.picked(), tasks, "what was picked")


@_check
def whatIsPutBackWakesALane(trial: BacklogTrial) -> None:
    """
    A lane that has found nothing may pick again once a task is put back, or pushed.
    """
    task = trial.push()
    trial.picked()
    trial.backlog.putBack(task)
    require(trial.backlog.mayPick(trial.lane), "a lane may pick what was put back")
    trial.picked()
    trial.push(series="b")
    require(trial.backlog.mayPick(trial.lane), "a lane may pick what was pushed")


@_check
def whatIsDiscardedIsGone(trial: BacklogTrial) -> None:
    """
    A task that has ended while it waited is not picked, nor counted, nor shown.
    """
    tasks = [trial.push(series=series) for series in ("a", "a", "b", "a")]
    trial.end(tasks[0])
    trial.end(tasks[2])
    expect(trial.backlog.queued, 2, "the number of tasks that wait")
    expect(list(trial.backlog.tasks()), [tasks[1], tasks[3]], "the tasks that wait")
    expect(trial.picked(), [tasks[1], tasks[3]], "what was picked")


@_check
def whatIsPutBackMayBeDiscarded(trial: BacklogTrial) -> None:
    """
    A task that was put back and ends is gone, and those after it keep their order.
    """
    tasks = [trial.push() for _ in range(3)]
    first = trial.backlog.pick(trial.lane)
    trial.backlog.putBack(first, trial.lane)
    trial.end(first)
    expect(trial.picked(), tasks[1:], "what was picked")
    expect(trial.backlog.queued, 0, "the number of tasks that wait")


@_check
def aLanePicksWhatItServes(trial: BacklogTrial) -> None:
    """
    A lane is given no task of a series that its workers may not run; that task delays no other.
    """
    other, task = trial.push(series="other"), trial.push()
    expect(trial.picked(), [task], "what was picked")
    expect(trial.backlog.queued, 1, "the number of tasks that wait")
    trial.add(trial.others)
    expect(trial.picked(trial.others), [other], "what a lane that came later has picked")


@_check
def lanesShareWhatBothServe(trial: BacklogTrial) -> None:
    """
    A task that several lanes may have is picked for one of them.
    """
    trial.add(trial.others)
    tasks = [trial.push() for _ in range(6)]
    picked = [trial.backlog.pick(lane) for _ in range(3) for lane in (trial.lane, trial.others)]
    expect(sorted(task.ID for task in picked), [task.ID for task in tasks], "what was picked")
    expect(trial.picked() + trial.picked(trial.others), [], "what was picked then")


@_check
def tasksOutliveTheirLane(trial: BacklogTrial) -> None:
    """
    What waits when a lane is removed is there for the next one.
    """
    tasks = [trial.push(series="a") for _ in range(3)]
    taken = trial.backlog.pick(trial.lane)
    trial.backlog.removeLane(trial.lane)
    trial.backlog.putBack(taken, trial.lane)
    expect(trial.backlog.queued, 3, "the number of tasks that wait")
    later = Lane(frozenset({"a"}))
    trial.add(later)
    expect(trial.picked(later), tasks, "what was picked")


@_check
def statisticsCountEachKind(trial: BacklogTrial) -> None:
    """
    The snapshots say of each kind how many of its tasks wait.
    """
    trial.push(series="a", niceness=3)
    trial.end(trial.push(series="a", niceness=3))
    trial.push(doNext=True)
    trial.push(doNext=True)
    counted = {(each.series, each.band): each.queued for each in trial.backlog.statistics()}
    expect(counted, {("a", "fair"): 1, (None, "doNext"): 2}, "what is counted")


@_check
def manyComeAndGo(trial: BacklogTrial) -> None:
    """
    Of thousands of tasks, some of which are put back and some discarded, each of the others is
    picked once.
    """
    waiting = {trial.push(series=("a", "b", None)[n % 3], niceness=n % 5) for n in range(3000)}
    for round_ in range(3):
        for _ in range(300):
            task = trial.backlog.pick(trial.lane)
            trial.backlog.putBack(task, trial.lane)
        for task in sorted(waiting, key=lambda task: task.ID)[round_::7]:
            trial.end(task)
            waiting.remove(task)
    expect(trial.backlog.queued, len(waiting), "the number of tasks that wait")
    picked = trial.picked()
    expect((len(picked), set(picked)), (len(waiting), waiting), "what was picked")


@frozen
class BacklogCheck:
    """
    One promise of a backlog, to be checked by a call, which raises C{AssertionError} if it is not
    kept.

    @ivar name: its name, which is also its text.
    @ivar promise: what is promised, in a sentence.
    """

    name: str
    promise: str
    _body: Body = field(repr=False)
    _makeBacklog: Callable[[], Any] = field(repr=False)

    def __str__(self) -> str:
        return self.name

    def __call__(self) -> None:
        """
        Make a new backlog and check it.
        """
        backlog = self._makeBacklog()
        require(IBacklog.providedBy(backlog), f"{backlog!r} provides IBacklog")
        self._body(BacklogTrial(backlog))


def backlogChecks(makeBacklog: Callable[[], Any]) -> list[BacklogCheck]:
    """
    Return the checks of what a backlog promises. Shares between kinds are its own affair: none of
    these is about them.

    @param makeBacklog: makes a new, empty backlog, one for each check.
    """
    return [
        BacklogCheck(body.__name__, " ".join((body.__doc__ or "").split()), body, makeBacklog)
        for body in _CHECKS
    ]


def checkBacklog(makeBacklog: Callable[[], Any]) -> int:
    """
    Check all that a backlog promises.

    @param makeBacklog: makes a new, empty backlog, one for each check.
    @return: how many promises were checked.
    @raise AssertionError: one of them is not kept.
    """
    checks = backlogChecks(makeBacklog)
    for check in checks:
        check()
    return len(checks)
