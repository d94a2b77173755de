"""
What an idle queue costs: nothing. Wake-ups of the reactor are counted.
"""

from __future__ import annotations

from time import process_time

from twisted.internet.epollreactor import EPollReactor
from twisted.internet.main import installReactor

SECONDS = 10


class CountingReactor(EPollReactor):
    """
    A reactor that counts how often it wakes up.
    """

    wakeUps = 0

    def doPoll(self, timeout):
        super().doPoll(timeout)
        self.wakeUps += 1

    doIteration = doPoll


def idleQueue():
    """
    A queue with a worker of each kind, which has done something, for ten seconds.
    """
    reactor = CountingReactor()
    installReactor(reactor)
    from asynqueue.taskqueue import TaskQueue
    from asynqueue.workers.asynchronous import AsyncWorker
    from asynqueue.workers.thread import ThreadWorker

    figures = {}
    queue = TaskQueue(AsyncWorker(), ThreadWorker(threads=2))

    def begin():
        # After a while that lets everything of the first tasks pass.
        figures["wake-ups"] = -reactor.wakeUps
        figures["cpu ms"] = -process_time() * 1e3
        reactor.callLater(SECONDS, end)

    def end():
        # The one that brings us here is not the queue's.
        figures["wake-ups"] += reactor.wakeUps - 1
        figures["cpu ms"] += process_time() * 1e3
        queue.shutdown().addBoth(lambda _: reactor.stop())

    def start():
        for _ in range(1000):
            queue.call(int)
        reactor.callLater(1, begin)

    reactor.callWhenRunning(start)
    reactor.run()
    return figures
