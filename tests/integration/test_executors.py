"""
L{ExecutorWorker} over executors with processes: those of the standard library,
loky's, and Dask's.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import ExitStack
from typing import Any

import dask
import distributed
import loky
import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.threads import deferToThread

from asynqueue import ExecutorWorker, TaskQueue, WorkerLost
from asynqueue.testing import Gate, WorkerCheck, workerChecks
from asynqueue.testing.calls import nextNumber, waitAt, whereAmI
from asynqueue.workers.executorcalls import executorWorkers

# Neither a fork of a process with threads, nor an import of the main program.
CONTEXT = multiprocessing.get_context("forkserver")


class Executors:
    """
    One executor of each kind, made when it is first needed.
    """

    def __init__(self) -> None:
        self._exits = ExitStack()
        self._made: dict[str, Executor] = {}

    def get(self, kind: str) -> Executor:
        """
        The executor of a kind, with one worker.
        """
        if kind not in self._made:
            self._made[kind] = getattr(self, f"_{kind}")()
        return self._made[kind]

    def _process(self) -> Executor:
        return self._exits.enter_context(ProcessPoolExecutor(1, mp_context=CONTEXT))

    def _loky(self) -> Executor:
        return self._exits.enter_context(loky.ProcessPoolExecutor(1))

    def _dask(self) -> Executor:
        client = distributed.Client(n_workers=1, threads_per_worker=1, dashboard_address=":0")
        self._exits.callback(client.close)
        executor: Executor = client.get_executor()
        return executor

    def close(self) -> None:
        """
        Shut all down.
        """
        self._exits.close()


EXECUTORS = Executors()


def checksOf(kind: str) -> Iterator[Any]:
    """
    The checks of a worker over one kind of executor.
    """

    def makeWorker() -> ExecutorWorker:
        return ExecutorWorker(EXECUTORS.get(kind))

    # A burst through Dask takes seconds where nothing else runs.
    for check in workerChecks(makeWorker, place="process", streams=False, limit=180.0):
        yield pytest.param(check, id=f"{kind}-{check}")


@pytest.fixture(scope="module", autouse=True)
def executors() -> Iterator[None]:
    """
    The executors of the checks end with this module.
    """
    yield
    EXECUTORS.close()


@pytest.mark.bulk
@pytest.mark.parametrize("check", [*checksOf("process"), *checksOf("loky"), *checksOf("dask")])
def test_conforms(check: WorkerCheck) -> Deferred[None]:
    """
    The worker keeps what IWorker promises, whatever the executor is.
    """
    return check()


def die() -> None:
    """
    End the process, as a crash in C code would.
    """
    os._exit(3)


@ensureDeferred
@pytest.mark.parametrize("kind", ["process", "loky"])
async def test_processThatDies(kind: str) -> None:
    """
    When a process of an executor dies, the executor is broken: its worker leaves,
    what it ran is lost, or is tried again by another, and the queue goes on.
    """

    def make() -> Any:
        if kind == "loky":
            return loky.ProcessPoolExecutor(1)
        return ProcessPoolExecutor(1, mp_context=CONTEXT)

    with make() as breaks, make() as other:
        queue = TaskQueue(ExecutorWorker(breaks))
        lost = queue.call(die)
        again = queue.call(whereAmI, retries=1)
        with pytest.raises(WorkerLost, match="die"):
            await lost
        await queue.attachWorker(ExecutorWorker(other))
        assert (await again)[0] != os.getpid()
        assert len(queue) == 1
        await queue.shutdown()


@ensureDeferred
async def test_lokyResizes() -> None:
    """
    The worker follows the size of loky's reusable executor.
    """
    # It belongs to the thread that asks for it.
    executor = loky.get_reusable_executor(max_workers=1)
    queue, gate = TaskQueue(ExecutorWorker(executor)), Gate()
    await queue.call(whereAmI)
    assert loky.get_reusable_executor(max_workers=2) is executor
    waiting = [queue.call(waitAt, gate.token) for _ in range(2)]
    await gate.arrivals(2)
    gate.open()
    await gatherResults(waiting)
    await queue.shutdown()
    await gate.close()
    await deferToThread(executor.shutdown)


@ensureDeferred
async def test_equalCallsOfDask() -> None:
    """
    Calls that are equal are made each, though Dask would take them for one.
    """
    queue = TaskQueue(ExecutorWorker(EXECUTORS.get("dask")))
    numbers = await gatherResults([queue.call(nextNumber) for _ in range(5)])
    assert len(set(numbers)) == 5
    await queue.shutdown()


@ensureDeferred
async def test_workersOfDaskComeAndGo() -> None:
    """
    The worker follows the threads that a cluster has.
    """
    client = distributed.Client(
        n_workers=1, threads_per_worker=2, dashboard_address=":0", set_as_default=False
    )
    executor = client.get_executor()
    assert executorWorkers(executor) == 2
    await deferToThread(client.cluster.scale, 2)
    await deferToThread(client.wait_for_workers, 2)
    # The client is told every two seconds, or when it asks.
    await deferToThread(client.scheduler_info)
    assert executorWorkers(executor) == 4
    queue, gate = TaskQueue(ExecutorWorker(executor)), Gate()
    waiting = [queue.call(waitAt, gate.token) for _ in range(4)]
    await gate.arrivals(4)
    gate.open()
    await gatherResults(waiting)
    await queue.shutdown()
    await gate.close()
    await deferToThread(client.close)


def allowFailures(number: int, dask_scheduler: Any = None) -> None:
    """
    Have the scheduler of Dask try calls again whose workers die.
    """
    dask_scheduler.allowed_failures = number


@pytest.mark.measured
@ensureDeferred
async def test_daskWorkerThatDies() -> None:
    """
    A call that kills the worker of a cluster is lost; the cluster has another,
    and the queue goes on.
    """
    # What Dask logs of its deaths goes to the standard error.
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    with dask.config.set({"distributed.scheduler.allowed-failures": 0}):
        client = distributed.Client(
            n_workers=1, threads_per_worker=1, dashboard_address=":0", set_as_default=False
        )
    queue = TaskQueue(ExecutorWorker(client.get_executor()))
    with pytest.raises(WorkerLost, match="KilledWorker"):
        await queue.call(die)
    # A worker that begins anew on a busy machine may fail once more: then Dask tries again.
    await deferToThread(client.run_on_scheduler, allowFailures, 10)
    assert (await queue.call(whereAmI))[0] != os.getpid()
    assert len(queue) == 1
    await queue.shutdown()
    await deferToThread(client.close)
