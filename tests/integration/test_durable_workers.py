"""
Durable queues with child processes that die.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_twisted

from asynqueue.durable.errors import JobLost
from asynqueue.durable.options import Retry
from asynqueue.durable.queue import DurableQueue
from asynqueue.errors import WorkerLost
from asynqueue.workers.process import ProcessWorker
from tests import durablejobs as jobs


@pytest_twisted.async_yield_fixture
async def queue() -> AsyncIterator[DurableQueue]:
    """
    A queue with a child process.
    """
    queue = DurableQueue("memory:", ProcessWorker(), allow=["tests.durablejobs"])
    await queue.start()
    yield queue
    await queue.stop()


@pytest_twisted.ensureDeferred
async def test_lostProcessesLoseTheirJobs(queue: DurableQueue) -> None:
    """
    A job whose process has died is lost, and the error tells how that ended.
    """
    with pytest.raises(JobLost) as raised:
        await queue.run(jobs.die, 3)
    cause: Any = raised.value.__cause__
    assert isinstance(cause, WorkerLost)
    assert cause.exitCode == 3


@pytest_twisted.ensureDeferred
async def test_lossIsRepeatedAsOftenAsThatIsSaid(queue: DurableQueue) -> None:
    """
    A job that kills its processes is lost after as many attempts as it may have.
    """
    job = await queue.enqueue(jobs.die, 3, retry=Retry(2, loss=True))
    with pytest.raises(JobLost):
        await queue.result(job.id)
    assert (await queue.job(job.id)).attempt == 2


@pytest_twisted.ensureDeferred
async def test_jobsInTheLineAreNotLostWithAProcess(queue: DurableQueue) -> None:
    """
    Jobs that a process had not begun as it died are made by the next one.
    """
    await queue.enqueueMany([(jobs.die, 3)])
    stored = await queue.enqueueMany([(jobs.add, number, 1) for number in range(20)])
    assert [await queue.result(job.id) for job in stored] == list(range(1, 21))
