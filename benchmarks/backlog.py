"""
A long backlog: what a queued task costs in memory and time.
"""

from __future__ import annotations

import resource
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from time import perf_counter

from asynqueue.scheduling.flows import Scheduler
from asynqueue.taskqueue import TaskQueue

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


def pickCost(scheduler: Scheduler, lane, picks: int) -> float:
    """
    The seconds of one dispatch, of so many.
    """
    start = perf_counter()
    for _ in range(picks):
        scheduler.pick(lane)
    return (perf_counter() - start) / picks


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


def dispatchCost(tasks: int) -> float:
    """
    The seconds of one dispatch out of a backlog of so many tasks, each series
    with its share.
    """
    from benchmarks.fairness import FakeTask

    series = max(1, tasks * SERIES // TASKS)
    scheduler = Scheduler()
    names = [f"series {number}" for number in range(series)]
    lane = scheduler.enter(names)
    for number in range(tasks):
        scheduler.push(FakeTask(number, names[number % series], 0))
    picks = min(tasks, 100_000)
    return pickCost(scheduler, lane, picks)


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
