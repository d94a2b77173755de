"""
Durable queues that share a store in PostgreSQL.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import DeferredList, gatherResults

from asynqueue.durable.errors import JobCancelled
from asynqueue.durable.options import JobOptions
from asynqueue.durable.queue import DurableQueue
from asynqueue.stores.postgres.engine import PostgresEngine
from asynqueue.stores.records import JobFilter, JobState
from asynqueue.stores.store import Store
from asynqueue.workers.thread import ThreadWorker
from tests import durablejobs as jobs
from tests.postgres import Database

Make = Callable[..., DurableQueue]


@pytest_twisted.async_yield_fixture
async def make(postgres: Database) -> AsyncIterator[Make]:
    """
    Makes queues on one store, which are stopped after the test.
    """
    made: list[DurableQueue] = []

    def queue(*workers: Any) -> DurableQueue:
        store = Store(PostgresEngine(postgres.conninfo()))
        made.append(DurableQueue(store, *workers, allow=["tests.durablejobs"]))
        return made[-1]

    yield queue
    await DeferredList([each.stop() for each in made])


@pytest_twisted.ensureDeferred
async def test_otherProgramsMakeTheCalls(make: Make) -> None:
    """
    What one program has stored another one calls, and the first has the result.
    """
    one, two = make(), make(ThreadWorker())
    await one.start()
    await two.start()
    assert await one.run(jobs.add, 1, 2) == 3


@pytest_twisted.ensureDeferred
async def test_programsThatComeLaterMakeTheCalls(make: Make) -> None:
    """
    What was stored before a program with workers came is called by it.
    """
    one, two = make(), make(ThreadWorker())
    await one.start()
    stored = await one.enqueueMany([(jobs.add, number, 1) for number in range(100)])
    results = gatherResults([one.result(job.id) for job in stored])
    await two.start()
    assert await results == list(range(1, 101))


@pytest_twisted.ensureDeferred
async def test_everyJobIsOfOneProgram(make: Make) -> None:
    """
    Of several programs that claim jobs, each job is called by one.
    """
    queues = [make(ThreadWorker()) for _ in range(3)]
    for queue in queues:
        await queue.start()
    jobs.CALLS.clear()
    stored = await queues[0].enqueueMany([(jobs.note, number) for number in range(300)])
    await gatherResults([queues[1].result(job.id) for job in stored])
    assert sorted(jobs.CALLS) == list(range(300))


@pytest_twisted.ensureDeferred
async def test_lateJobsAreDueEverywhere(make: Make) -> None:
    """
    A job that is due later is called by a program that was idle when it was stored.
    """
    one, two = make(), make(ThreadWorker())
    await one.start()
    await two.start()
    assert await one.run(jobs.add, 1, 2, options=JobOptions(after=0.2)) == 3


@pytest_twisted.ensureDeferred
async def test_otherProgramsCancelJobs(make: Make) -> None:
    """
    A waiting job that another program cancels has ended for the one that waits for it.
    """
    one, two = make(), make()
    await one.start()
    await two.start()
    job = await one.enqueue(jobs.add, 1, 2)
    result = one.result(job.id)
    assert await two.cancel(JobFilter(ids=frozenset({job.id}))) == 1
    with pytest.raises(JobCancelled):
        await result


@pytest_twisted.ensureDeferred
async def test_keysAreUniqueAcrossPrograms(make: Make) -> None:
    """
    A hundred jobs with five keys, stored by several programs at once, are five.
    """
    queues = [make() for _ in range(3)]
    for queue in queues:
        await queue.start()
    stored = await gatherResults(
        [queues[n % 3].enqueue(jobs.nothing, key=str(n % 5)) for n in range(100)]
    )
    assert len({job.id for job in stored}) == 5
    assert await queues[0].count() == {JobState.WAITING: 5}
