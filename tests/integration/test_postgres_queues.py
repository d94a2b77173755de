"""
Several programs with durable queues share one store in PostgreSQL, and take over from each other.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_twisted

from asynqueue.durable.errors import JobLost
from asynqueue.durable.options import Job, Retry
from asynqueue.durable.queue import DurableQueue
from asynqueue.stores.postgres.engine import PostgresEngine
from asynqueue.stores.store import Store
from asynqueue.workers.asynchronous import AsyncWorker
from tests import durablejobs as jobs
from tests.postgres import Database

# Begins a job, says so, and never ends it.
PROGRAM = """
import sys
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from asynqueue.durable.queue import DurableQueue
from asynqueue.stores.postgres.engine import PostgresEngine
from asynqueue.stores.store import Store
from asynqueue.workers.asynchronous import AsyncWorker
from tests import durablejobs

def note(what):
    print(what, flush=True)
    return Deferred()

note.__module__ = durablejobs.__name__
durablejobs.note = note
store = Store(PostgresEngine(sys.argv[1]))
queue = DurableQueue(store, AsyncWorker(), allow=["tests.durablejobs"], lease=2)
reactor.callWhenRunning(queue.start)
reactor.run()
"""


def queueOn(database: Database, *workers: AsyncWorker, lease: float = 30) -> DurableQueue:
    """
    Return a queue of another program.
    """
    store = Store(PostgresEngine(database.conninfo()))
    return DurableQueue(store, *workers, allow=["tests.durablejobs"], lease=lease)


@pytest_twisted.async_yield_fixture
async def asking(postgres: Database) -> AsyncIterator[DurableQueue]:
    """
    A queue that runs, without workers, and soon looks after dead programs.
    """
    queue = queueOn(postgres, lease=2)
    await queue.start()
    yield queue
    await queue.stop()


async def test_onesJobsOthersRun(asking: DurableQueue, postgres: Database) -> None:
    """
    A program without workers has the results of jobs that another one runs.
    """
    running = queueOn(postgres, AsyncWorker())
    await running.start()
    added = [await asking.enqueue(jobs.add, number, 1) for number in range(5)]
    assert [await asking.result(job.id) for job in added] == [1, 2, 3, 4, 5]
    await running.stop()


async def begunElsewhere(asking: DurableQueue, postgres: Database, retry: Retry) -> Job:
    """
    Return a job that a program has begun which was killed then.
    """
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, postgres.conninfo()],
        cwd=Path(__file__).parent.parent.parent,
        stdout=subprocess.PIPE,
        text=True,
    )
    with program:
        assert program.stdout is not None
        job = await asking.enqueue(jobs.note, "begun", retry=retry)
        assert program.stdout.readline() == "begun\n"
        program.kill()
    return job


async def test_whatADeadProgramHasBegunIsLost(asking: DurableQueue, postgres: Database) -> None:
    """
    What a program has begun that is killed is lost, as any other one finds when its lease is over.
    """
    job = await begunElsewhere(asking, postgres, Retry(10))
    with pytest.raises(JobLost):
        await asking.result(job.id)


async def test_othersTakeOver(asking: DurableQueue, postgres: Database) -> None:
    """
    What a program has begun that is killed another one begins again, if that is allowed.
    """
    job = await begunElsewhere(asking, postgres, Retry(10, loss=True, delay=0))
    running = queueOn(postgres, AsyncWorker())
    await running.start()
    assert await asking.result(job.id) == "begun"
    await running.stop()
