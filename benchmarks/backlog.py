"""
A long backlog: what a queued task costs in memory and time.
"""

from __future__ import annotations

import resource
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from time import perf_counter

from twisted.internet.task import Clock

from asynqueue.taskqueue import TaskQueue
from benchmarks.throughput import InstantWorker

TASKS = 1_000_000
SERIES = 10_000
FEW = 1_000


def noop():
    """
    The work.
    """


def resident() -> int:
    """
    The resident memory of this process, in bytes.
    """
    if sys.platform == "linux":
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * resource.getpagesize()
    # The most that there was so far, which is what there is while it grows.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def queued():
    """
    A million calls over ten thousand series, with no worker; then dispatches of
    some of them, beside those of a short backlog.
    """
    queue = TaskQueue()
    names = [f"series {number}" for number in range(SERIES)]
    before = resident()
    start = perf_counter()
    kept = [queue.call(noop, series=names[i % SERIES]) for i in range(TASKS)]
    seconds = perf_counter() - start
    used = resident() - before
    long = dispatchCost(TASKS)
    short = dispatchCost(FEW)
    assert len(kept) == TASKS
    return {
        "bytes/task": used / TASKS,
        "call us": seconds / TASKS * 1e6,
        "dispatch us": long * 1e6,
        "dispatch of 1,000 us": short * 1e6,
    }


class CountingWorker(InstantWorker):
    """
    Ends tasks at once, and counts them.
    """

    def __init__(self, series):
        self.iQualified = list(series)
        self.count = 0

    def run(self, task):
        self.count += 1
        return super().run(task)


def dispatchCost(tasks: int, atLeast: int = 100_000) -> float:
    """
    The seconds of one dispatch out of a backlog of so many tasks, spread over ten
    thousand series as far as they go: from the queue to a worker that ends it at
    once.
    """
    names = [f"series {number}" for number in range(SERIES)]
    seconds = 0.0
    done = 0
    while done < atLeast:
        clock = Clock()
        queue = TaskQueue(reactor=clock)
        kept = [queue.call(noop, series=names[number % SERIES]) for number in range(tasks)]
        worker = CountingWorker(names)
        count = min(tasks, atLeast - done)
        start = perf_counter()
        queue.attachWorker(worker)
        while worker.count < count:
            clock.advance(0)
        seconds += perf_counter() - start
        done += worker.count
        assert len(kept) == tasks
    return seconds / done


def threadPoolExecutor():
    """
    A million submits to a ThreadPoolExecutor whose thread is busy.
    """
    executor = ThreadPoolExecutor(1)
    end = Event()
    executor.submit(end.wait)
    before = resident()
    start = perf_counter()
    kept = [executor.submit(noop) for _ in range(TASKS)]
    seconds = perf_counter() - start
    used = resident() - before
    executor.shutdown(wait=False, cancel_futures=True)
    end.set()
    assert len(kept) == TASKS
    return {"bytes/task": used / TASKS, "call us": seconds / TASKS * 1e6}
