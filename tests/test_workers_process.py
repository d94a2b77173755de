"""
L{ProcessWorker}, what every worker promises, over real processes, and what it leaves.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from asynqueue import ProcessWorker
from asynqueue.errors import TaskInterrupted, WorkerLost
from asynqueue.processes.protocol import SharedState
from asynqueue.taskqueue import TaskQueue
from asynqueue.testing import MemoryTask, WorkerCheck, workerChecks
from tests.children import ChildDouble, ReadingClock
from tests.doubles import Heard, errorOf, readingLogs

CHECKS = workerChecks(ProcessWorker, place="process", cancels=True, window=512)


@pytest.mark.parametrize("check", CHECKS, ids=str)
def test_conforms(check: WorkerCheck) -> Deferred[None]:
    """
    The worker keeps what IWorker promises.
    """
    return check()


def test_aFalseStartOfANewcomer() -> None:
    """
    A worker whose first children end as they start is hired with the one that makes the
    queue's updates, and with those made meanwhile.
    """
    clock = ReadingClock()
    children: list[ChildDouble] = []
    begun: list[Any] = []

    def spawn(limit: int) -> Any:
        children.append(ChildDouble(limit, len(children), lambda child, args: begun.append(args)))
        return children[-1]

    queue = TaskQueue(reactor=clock)
    queue.update(abs, 1)
    hired = Heard(queue.attachWorker(ProcessWorker(reactor=clock, spawn=spawn, now=clock.seconds)))
    called, updated = Heard(queue.call(abs, 3)), Heard(queue.update(abs, 2))
    with readingLogs():
        for _ in range(20):
            if len(children) < 5:
                children[-1].exit(3)
            clock.turn()
            clock.advance(0.5)
    for _ in range(20):
        children[-1].step()
        clock.turn()
    assert (hired.result, called.result) == (1, (3,))
    assert updated.result == [(2,)]
    assert begun == [(1,), (2,), (3,)]
    ended = Heard(queue.shutdown())
    children[-1].step()
    clock.turn()
    assert ended.results


class Stage:
    """
    A worker with a child that is up, and two tasks that the child has not looked at.

    @ivar back: the tasks that the worker has handed back.
    """

    def __init__(self) -> None:
        self.clock = ReadingClock()
        self.children: list[ChildDouble] = []
        self.back: list[Any] = []
        self.worker = ProcessWorker(reactor=self.clock, spawn=self.spawn, now=self.clock.seconds)
        self.worker.setReturner(self.back.extend)
        self.worker.start()
        self.child.step()
        self.clock.turn()
        self.tasks = [MemoryTask(abs, -n) for n in range(2)]
        for task in self.tasks:
            self.worker.run(task)
        self.clock.advance(0)

    def spawn(self, limit: int) -> Any:
        """
        Start a child.
        """
        self.children.append(ChildDouble(limit, len(self.children), lambda child, args: None))
        return self.child

    @property
    def shared(self) -> Any:
        """
        What the parent shares with the latest child.
        """
        return self.child.shared

    @property
    def child(self) -> ChildDouble:
        """
        The latest child.
        """
        return self.children[-1]

    def end(self) -> None:
        """
        The child dies, and the worker crashes.
        """
        self.child.exit(-9)
        self.clock.turn()
        self.worker.crash()


class Looking:
    """
    Memory that parent and child share, of which the parent reads around each step of the child.
    """

    def __init__(self, memory: Any, look: Callable[[], Any]) -> None:
        self.memory = memory
        self.look = look

    def __getitem__(self, index: int) -> Any:
        self.look()
        return self.memory[index]

    def __setitem__(self, index: int, value: Any) -> None:
        self.look()
        self.memory[index] = value
        self.look()


def test_noTimeIsLostWhileTheChildNotesIt() -> None:
    """
    The seconds of a call are in the statistics with the call, and stay, whenever they are read
    while the child writes them.
    """
    stage = Stage()
    seen: list[tuple[int, float]] = []

    def look() -> None:
        stage.worker.stats()
        seen.append((stage.shared.measured()[0], stage.worker.stats().seconds))

    shared = SharedState.__new__(SharedState)
    shared.numbers = Looking(stage.shared.numbers, look)
    shared.floats = Looking(stage.shared.floats, look)
    for _ in range(3):
        shared.ended(0.5)
    look()
    assert all(seconds >= 0.5 * calls for calls, seconds in seen)
    assert seen[-1] == (3, 1.5)
    stage.end()


def test_aCancelHidesNoDeath() -> None:
    """
    A call that was taken back because another one was cancelled may be what the child died of.
    """
    stage = Stage()
    stage.worker.cancel(stage.tasks[1])
    assert stage.back == stage.tasks[:1]
    stage.end()
    assert stage.tasks[0].tries == 1


def test_aChildThatHasReadItDidNotDieOfIt() -> None:
    """
    A call that the child has read when it was taken back does not count.
    """
    stage = Stage()
    stage.worker.cancel(stage.tasks[1])
    stage.child.step()
    stage.clock.turn()
    stage.end()
    assert stage.tasks[0].tries == 0


def test_aDeathThatTakesLongIsCounted() -> None:
    """
    Calls that a child does not begin are left to it for a while, then others have them; if it
    was about to end by one of them, that counts all the same.
    """
    stage = Stage()
    for _ in range(50):
        stage.clock.advance(0.01)
    assert stage.back == []
    for _ in range(100):
        stage.clock.advance(0.01)
    assert stage.back == stage.tasks
    stage.end()
    assert [task.tries for task in stage.tasks] == [1, 1]


def test_whatMayHaveEndedAChildIsAlone() -> None:
    """
    It waits until the child has ended what it has, and others wait until it has ended.
    """
    stage = Stage()
    suspect, other = MemoryTask(abs, -2), MemoryTask(abs, -3)
    suspect.tries = 1
    ended: list[list[bool]] = []
    for task in (suspect, other):
        stage.worker.run(task)
    for _ in range(40):
        stage.child.step()
        stage.clock.turn()
        stage.clock.advance(0)
        everyone = [task.ended for task in (*stage.tasks, suspect, other)]
        assert stage.child.running is None or stage.child.running[1] == (-everyone.index(False),)
        ended.append(everyone)
    assert ended[-1] == [True] * 4
    assert stage.back == []
    stage.end()


class Asking:
    """
    As it is pickled, it has the worker run a task.
    """

    def __init__(self, stage: Stage, task: MemoryTask) -> None:
        self.stage = stage
        self.task = task

    def __reduce__(self) -> Any:
        self.stage.worker.run(self.task)
        return int, ()


@pytest.mark.parametrize("isCalled", [False, True])
def test_picklingMayHaveOtherCallsMade(isCalled: bool) -> None:
    """
    A call that is made while another one is pickled takes nothing from that.
    """
    stage = Stage()
    inner = MemoryTask(abs, -3)
    asking = Asking(stage, inner)
    outer = MemoryTask(partial(abs, asking)) if isCalled else MemoryTask(abs, asking)
    stage.worker.run(outer)
    for _ in range(40):
        stage.child.step()
        stage.clock.turn()
        stage.clock.advance(0)
    assert [task.ended for task in (*stage.tasks, inner, outer)] == [True] * 4
    stage.end()


def test_nothingIsDueWhenTheChildIsGone() -> None:
    """
    A worker that has interrupted a call has no timer left when it has stopped.
    """
    clock = ReadingClock()
    children: list[ChildDouble] = []

    def spawn(limit: int) -> Any:
        children.append(ChildDouble(limit, 0, lambda child, args: None))
        return children[0]

    worker = ProcessWorker(grace=30, reactor=clock, spawn=spawn)
    task = MemoryTask(abs, -1)
    worker.run(task)
    (child,) = children
    for _ in range(3):
        child.step()
    assert child.running is not None
    worker.cancel(task)
    child.step("stops")
    clock.turn()
    stopped = Heard(worker.stop())
    child.step()
    clock.turn()
    assert stopped.result is None
    assert isinstance(errorOf(task.d), TaskInterrupted)
    assert clock.getDelayedCalls() == []


@pytest.mark.parametrize("isBackwards", [False, True])
def test_whatTheDeadHaveSentIsRead(isBackwards: bool) -> None:
    """
    The result of a call that a child has sent before its end is not lost, also if the end is
    seen first; the call that it has begun since is.
    """
    clock = ReadingClock()
    children: list[ChildDouble] = []

    def spawn(limit: int) -> Any:
        children.append(ChildDouble(limit, len(children), lambda child, args: None))
        return children[-1]

    worker = ProcessWorker(reactor=clock, spawn=spawn)
    first, second = MemoryTask(abs, -1), MemoryTask(abs, -2)
    worker.run(first)
    worker.run(second)
    clock.advance(0)
    (child,) = children
    while child.running is None or child.running[1] != (-2,):
        child.step()
    child.exit(-11)
    clock.turn(isBackwards)
    assert Heard(first.d).result == (-1,)
    lost = errorOf(second.d)
    assert isinstance(lost, WorkerLost)
    assert (lost.signal, lost.begun) == (11, True)
    worker.crash()
    for each in children:
        each.exit()
    clock.turn()
