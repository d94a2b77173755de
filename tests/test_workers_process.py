"""
L{ProcessWorker}, what every worker promises, over real processes, and what it leaves.
"""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred

from asynqueue import ProcessWorker
from asynqueue.errors import TaskInterrupted
from asynqueue.testing import MemoryTask, WorkerCheck, workerChecks
from tests.children import ChildDouble, ReadingClock
from tests.doubles import Heard, errorOf

CHECKS = workerChecks(ProcessWorker, place="process", cancels=True, window=512)


@pytest.mark.parametrize("check", CHECKS, ids=str)
def test_conforms(check: WorkerCheck) -> Deferred[None]:
    """
    The worker keeps what IWorker promises.
    """
    return check()


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
