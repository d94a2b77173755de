"""
A double for backlogs: it shows what a queue asks, and whether that is what it may ask.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from zope.interface import implementer

from asynqueue.interfaces import IBacklog
from asynqueue.scheduling.backlog import FairBacklog


@implementer(IBacklog)
class RecordingBacklog:
    """
    Notes what a queue asks of its backlog, and leaves it to another one.

    @ivar asked: tuples: the name of the method ("addLane", "removeLane", "push", "putBack",
        "pick" or "discard") and the lane or the task, of C{pick} the task that it gave.
    @ivar faults: what the queue, or the other backlog, did against
        L{IBacklog<asynqueue.interfaces.IBacklog>}, in words.
    """

    def __init__(self, other: Any = None) -> None:
        """
        @param other: the backlog that does the work; C{None}: one with fair shares.
        """
        self.asked: list[tuple[str, Any]] = []
        self.faults: list[str] = []
        self._other: IBacklog = FairBacklog() if other is None else other
        self._lanes: list[Any] = []
        # What waits, by the numbers of the calls.
        self._waiting: dict[int, Any] = {}
        self._picked: set[int] = set()

    @property
    def queued(self) -> int:
        queued: int = self._other.queued
        self._expect(queued == len(self._waiting), f"{queued} tasks wait, not as many as came")
        return queued

    def addLane(self, lane: Any) -> None:
        self._expect(lane not in self._lanes, f"{lane} was added twice")
        self._lanes.append(lane)
        self.asked.append(("addLane", lane))
        self._other.addLane(lane)

    def removeLane(self, lane: Any) -> None:
        self._expect(lane in self._lanes, f"{lane} was removed, and is not there")
        self._lanes.remove(lane)
        self.asked.append(("removeLane", lane))
        self._other.removeLane(lane)

    def push(self, task: Any) -> None:
        self._expect(task.ID not in self._picked, f"{task} was pushed, and had been picked")
        self._enter("push", task)
        self._other.push(task)

    def putBack(self, task: Any, lane: Any = None) -> None:
        self._expect(
            lane is None or task.ID in self._picked,
            f"{task} was put back for a lane that had not picked it",
        )
        self._enter("putBack", task)
        self._other.putBack(task, lane)

    def pick(self, lane: Any) -> Any:
        self._expect(lane in self._lanes, f"{lane} picks, and is not there")
        task = self._other.pick(lane)
        self.asked.append(("pick", task))
        if task is None:
            self._expect(not self._other.mayPick(lane), f"{lane} may pick what is not there")
        else:
            self._expect(not task.ended, f"{task} was picked, and has ended")
            self._expect(lane.serves(task.series), f"{task} was picked for workers of others")
            self._expect(self._waiting.pop(task.ID, None) is task, f"{task} did not wait")
            self._picked.add(task.ID)
        return task

    def mayPick(self, lane: Any) -> bool:
        self._expect(lane in self._lanes, f"{lane} may pick, and is not there")
        may: bool = self._other.mayPick(lane)
        isThere = any(lane.serves(task.series) for task in self._waiting.values())
        self._expect(may or not isThere, f"{lane} may not pick what waits for it")
        return may

    def discard(self, task: Any) -> None:
        self._expect(task.ended, f"{task} was discarded, and has not ended")
        self._expect(self._waiting.pop(task.ID, None) is task, f"{task} did not wait")
        self.asked.append(("discard", task))
        self._other.discard(task)

    def tasks(self) -> Iterator[Any]:
        tasks = list(self._other.tasks())
        self._expect({*tasks} == {*self._waiting.values()}, "others wait than came")
        return iter(tasks)

    def statistics(self) -> Sequence[Any]:
        statistics = self._other.statistics()
        queued = sum(each.queued for each in statistics)
        self._expect(queued == len(self._waiting), f"{queued} are counted, not as many as came")
        return statistics

    def _enter(self, name: str, task: Any) -> None:
        self._expect(not task.ended, f"{task} has ended, and is to wait")
        self._expect(task.ID not in self._waiting, f"{task} waits twice")
        self._waiting[task.ID] = task
        self.asked.append((name, task))

    def _expect(self, isSo: bool, fault: str) -> None:
        if not isSo:
            self.faults.append(fault)
