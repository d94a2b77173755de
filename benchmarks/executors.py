"""
Calls in executors of others: our ExecutorWorker beside the bare executor. Everybody has two
workers, and calls nothing.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from time import process_time
from typing import Any

from benchmarks import process_peers, process_reactor
from benchmarks.process_calls import noop
from benchmarks.process_figures import WORKERS, Figures
from benchmarks.rounds import runRounds, table

# How many calls there are: about a second of them.
CALLS = {"threads": 60_000, "processes": 20_000, "loky": 20_000, "dask": 3_000}

# How many calls the executor is given ahead; threads say themselves how much is good.
AHEAD = {"threads": None, "processes": 100, "loky": 100, "dask": 1000}


@contextmanager
def dask() -> Iterator[Executor]:
    """
    The executor of a cluster of Dask.
    """
    from distributed import Client, LocalCluster

    with ExitStack() as stack:
        cluster = stack.enter_context(
            LocalCluster(n_workers=WORKERS, threads_per_worker=1, dashboard_address=None)
        )
        client = stack.enter_context(Client(cluster))
        # Equal calls are one to Dask, if they are pure.
        yield client.get_executor(pure=False)


@contextmanager
def loky() -> Iterator[Executor]:
    """
    The reusable executor of loky.
    """
    from loky import get_reusable_executor

    with get_reusable_executor(max_workers=WORKERS) as executor:
        yield executor


def processes() -> Executor:
    """
    Processes of the standard library.
    """
    context = multiprocessing.get_context("forkserver")
    return ProcessPoolExecutor(WORKERS, mp_context=context)


MAKERS: dict[str, Callable[[], Any]] = {
    "threads": partial(ThreadPoolExecutor, WORKERS),
    "processes": processes,
    "loky": loky,
    "dask": dask,
}


def figures(count: int, seconds: float, used: float) -> Figures:
    """
    How many calls were made in some seconds, and the processor time of each in this process.
    """
    return {"calls/s": count / seconds, "calls": count, "CPU us": used / count * 1e6}


class Bare(process_peers.ExecutorPeer):
    """
    An executor of somebody who closes it.
    """

    def close(self) -> None:
        pass


def bare(kind: str) -> Figures:
    """
    Calls of nothing, all at once, given to the executor itself.
    """
    with MAKERS[kind]() as executor:
        peer = Bare(executor)
        process_peers.warm(peer)
        count = CALLS[kind]
        before = process_time()
        seconds = process_peers.callMany(peer, count, noop)
        return figures(count, seconds, process_time() - before)


class Ours(process_reactor.Peer):
    """
    A queue with a worker that has an executor.
    """

    def __init__(self, executor: Executor, ahead: int | None) -> None:
        from asynqueue import ExecutorWorker, TaskQueue

        self.queue = TaskQueue(ExecutorWorker(executor, ahead=ahead))
        self.call = self.queue.call

    async def close(self) -> None:
        await self.queue.shutdown()


async def ours(kind: str, reactor: Any) -> Figures:
    """
    The same calls through a queue.
    """
    with MAKERS[kind]() as executor:
        peer = Ours(executor, AHEAD[kind])
        await process_reactor.warm(peer)
        count = CALLS[kind]
        before = process_time()
        seconds = await process_reactor.callMany(peer.call, count, count, noop)
        used = process_time() - before
        await peer.close()
    return figures(count, seconds, used)


bareThreads, oursThreads = partial(bare, "threads"), partial(ours, "threads")
bareProcesses, oursProcesses = partial(bare, "processes"), partial(ours, "processes")
bareLoky, oursLoky = partial(bare, "loky"), partial(ours, "loky")
bareDask, oursDask = partial(bare, "dask"), partial(ours, "dask")

NAMES = {
    "ThreadPoolExecutor": "Threads",
    "ProcessPoolExecutor (forkserver)": "Processes",
    "loky": "Loky",
    "Dask LocalCluster": "Dask",
}


def executors(rounds: int) -> str:
    """
    Each executor bare, and with our worker.
    """
    contenders = [f"executors:{who}{kind}" for kind in NAMES.values() for who in ("bare", "ours")]
    measured = runRounds(contenders, rounds)
    rows = []
    for name, kind in NAMES.items():
        its, own = (measured[f"executors:{who}{kind}"] for who in ("bare", "ours"))
        row = [f"{each['calls/s']:,.0f}" for each in (its, own)]
        row += [f"{own['calls/s'] / its['calls/s']:.2f}"]
        row += [f"{each['CPU us']:,.0f}" for each in (its, own)]
        row += [f"{its['CPU us'] / own['CPU us']:.2f}"]
        rows.append([name, *row])
    title = "No-op calls in executors of two workers, all at once"
    columns = ["what", "bare calls/s", "ours", "ratio", "bare CPU us each", "ours", "ratio"]
    return table(title, columns, rows)
