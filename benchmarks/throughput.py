"""
How many calls a second, and how long one takes.
"""

from __future__ import annotations

from time import perf_counter

from twisted.internet.defer import gatherResults, succeed
from twisted.internet.threads import deferToThread
from zope.interface import implementer

from asynqueue.interfaces import IWorker
from asynqueue.queues import NullQueue, ThreadQueue
from asynqueue.taskqueue import TaskQueue

BURST = 100_000
ONE_BY_ONE = 5_000


def noop():
    """
    The work.
    """


async def measureCalls(call):
    """
    The rate of a burst of calls, and the time of one call at a time.
    """
    await call(noop)
    start = perf_counter()
    await gatherResults([call(noop) for _ in range(BURST)])
    rate = BURST / (perf_counter() - start)
    times = []
    for _ in range(ONE_BY_ONE):
        start = perf_counter()
        await call(noop)
        times.append(perf_counter() - start)
    times.sort()
    return {
        "calls/s": rate,
        "p50 us": times[len(times) // 2] * 1e6,
        "p99 us": times[len(times) * 99 // 100] * 1e6,
    }


async def threadQueue(reactor):
    """
    Calls through our ThreadQueue.
    """
    queue = ThreadQueue(1)
    figures = await measureCalls(queue.call)
    await queue.shutdown()
    return figures


async def twistedThreads(reactor):
    """
    Calls through Twisted's deferToThread.
    """
    return await measureCalls(deferToThread)


async def nullQueue(reactor):
    """
    Calls through our NullQueue, whose worker runs in the reactor.
    """
    queue = NullQueue()
    figures = await measureCalls(queue.call)
    await queue.shutdown()
    return figures


@implementer(IWorker)
class InstantWorker:
    """
    Ends tasks at once, without running them.
    """

    cQualified: list = []

    def __init__(self):
        self.iQualified = []

    def setResignator(self, callableObject):
        pass

    def run(self, task):
        task.callback(None)
        return READY

    def stop(self):
        return succeed(None)

    def crash(self):
        return []


READY = succeed(None)


async def queueAlone(reactor):
    """
    The queue and nothing else: a worker that ends tasks at once.
    """
    queue = TaskQueue(InstantWorker())
    figures = await measureCalls(queue.call)
    await queue.shutdown()
    return figures
