"""
L{ProcessWorker}, what every worker promises, over real processes, and what it leaves.
"""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred

from asynqueue import ProcessWorker
from asynqueue.errors import TaskInterrupted
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
