"""
What it costs to observe a queue: nothing, where no hook is used, and little else.

All that is compared takes turns in one interpreter, a burst of calls each.
"""

from __future__ import annotations

from statistics import median
from time import process_time

from twisted.internet.defer import gatherResults

from asynqueue.queues import ProcessQueue, ThreadQueue
from asynqueue.scheduling.observers import QueueObserver
from asynqueue.taskqueue import TaskQueue
from benchmarks.throughput import InstantWorker, noop

TURNS = 40


class Metric(QueueObserver):
    """
    Counts what happens, on every hook.
    """

    def __init__(self):
        self.queued = self.begun = self.done = self.lost = self.hired = self.left = 0

    def taskQueued(self, task):
        self.queued += 1

    def taskBegun(self, task, worker):
        self.begun += 1

    def taskDone(self, task, outcome, worker):
        self.done += 1

    def taskLost(self, task, worker):
        self.lost += 1

    def workerHired(self, worker):
        self.hired += 1

    def workerLeft(self, worker):
        self.left += 1


class Done(QueueObserver):
    """
    Counts what was done.
    """

    def __init__(self):
        self.done = 0

    def taskDone(self, task, outcome, worker):
        self.done += 1


# What observes the queue: nobody; one who hears nothing; a metric on one hook, or on every hook.
OBSERVERS = {"nobody": None, "no hook": QueueObserver, "one hook": Done, "every hook": Metric}


async def alone(reactor):
    """
    With a worker that ends tasks at once.
    """
    return await observed(lambda: TaskQueue(InstantWorker()), 10_000)


async def threads(reactor):
    """
    With a thread.
    """
    return await observed(lambda: ThreadQueue(1), 10_000)


async def processes(reactor):
    """
    With two processes.
    """
    return await observed(lambda: ProcessQueue(2), 5_000)


async def observed(newQueue, burst):
    """
    The processor time that a call costs this process for each of L{OBSERVERS}, and its median
    ratio to that of an unobserved queue in the same turn.
    """
    queues = {}
    for name, kind in OBSERVERS.items():
        queue = queues[name] = newQueue()
        await queue.call(noop)
        if kind is not None:
            queue.addObserver(kind())
    seconds = {name: [] for name in queues}
    for turn in range(TURNS + 1):
        names = list(queues)
        # Each is at each place as often as the others.
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            call = queues[name].call
            start = process_time()
            await gatherResults([call(noop) for _ in range(burst)])
            seconds[name].append(process_time() - start)
    for each in seconds.values():
        # The first turn warms up.
        del each[0]
    figures = {}
    for name, each in seconds.items():
        figures[f"{name} us"] = median(each) / burst * 1e6
        figures[f"{name} ratio"] = median(
            mine / its for mine, its in zip(each, seconds["nobody"], strict=True)
        )
    for queue in queues.values():
        await queue.shutdown()
    return figures
