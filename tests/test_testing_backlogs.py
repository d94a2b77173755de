"""
What L{asynqueue.testing.backlogchecks} promises: each backlog of ours keeps what a backlog
promises, and one that does not is told.
"""

from __future__ import annotations

from typing import Any

import pytest

from asynqueue.scheduling.backlog import FairBacklog
from asynqueue.testing import RecordingBacklog, backlogChecks, checkBacklog


@pytest.mark.parametrize("check", backlogChecks(FairBacklog), ids=str)
def test_fairBacklog(check: Any) -> None:
    """
    The backlog of queues keeps each promise.
    """
    check()


def test_recordingBacklog() -> None:
    """
    The double keeps all promises, and has seen nothing that it may not be asked.
    """
    made = []

    def make() -> RecordingBacklog:
        made.append(RecordingBacklog())
        return made[-1]

    assert checkBacklog(make) == len(backlogChecks(make)) == len(made)
    assert [backlog.faults for backlog in made] == [[]] * len(made)


class Losing(FairBacklog):
    """
    Forgets what is put back.
    """

    def putBack(self, task: Any, lane: Any = None) -> None:
        pass


class Doubling(FairBacklog):
    """
    Gives each task twice.
    """

    def pick(self, lane: Any) -> Any:
        task = super().pick(lane)
        if task is not None and task.attempt == 1:
            task.attempt = 2
            super().putBack(task, lane)
        return task


class Reordering(FairBacklog):
    """
    Puts tasks back behind the others.
    """

    def putBack(self, task: Any, lane: Any = None) -> None:
        self.push(task)


class Remembering(FairBacklog):
    """
    Counts what was discarded.
    """

    def discard(self, task: Any) -> None:
        pass


class Confusing(FairBacklog):
    """
    Gives tasks to lanes that may not have them.
    """

    def addLane(self, lane: Any) -> None:
        lane.qualified |= {"other"}
        super().addLane(lane)


class Blind(FairBacklog):
    """
    Sees nothing that waits.
    """

    def mayPick(self, lane: Any) -> bool:
        return False


class Silent(FairBacklog):
    """
    Counts nothing.
    """

    def statistics(self) -> Any:
        return ()


@pytest.mark.parametrize(
    "kind", [Losing, Doubling, Reordering, Remembering, Confusing, Blind, Silent, object]
)
def test_faultIsTold(kind: type) -> None:
    """
    A backlog that breaks a promise does not pass.
    """
    with pytest.raises(AssertionError):
        checkBacklog(kind)
