"""
An idle queue costs nothing (G10).
"""

from __future__ import annotations

import json
import subprocess
import sys

PROGRAM = """
import json
from twisted.internet import selectreactor
from twisted.internet.main import installReactor

class CountingReactor(selectreactor.SelectReactor):
    wakeUps = 0

    def doSelect(self, timeout):
        super().doSelect(timeout)
        self.wakeUps += 1

    doIteration = doSelect

reactor = CountingReactor()
installReactor(reactor)

from concurrent.futures import ThreadPoolExecutor
from twisted.internet.defer import gatherResults
from asynqueue import AsyncWorker, ExecutorWorker, TaskQueue, ThreadWorker

workers = AsyncWorker(), ThreadWorker(threads=2), ExecutorWorker(ThreadPoolExecutor(2))
queue = TaskQueue(*workers)
figures = {}

def worked(results):
    # What the workers look after while there is something to do passes first.
    reactor.callLater(0.5, rest)

def rest():
    figures["timers"] = len(reactor.getDelayedCalls())
    figures["wakeUps"] = -reactor.wakeUps
    reactor.callLater(2, end)

def end():
    figures["wakeUps"] += reactor.wakeUps
    queue.shutdown().addBoth(lambda _: reactor.stop())

gatherResults([queue.call(int) for _ in range(2000)]).addCallback(worked)
reactor.run()
print(json.dumps(figures))
"""


def test_idleQueueWakesNothing():
    """
    When all is done there is no timer, and the reactor sleeps until somebody else
    wakes it: here, the program itself, once.
    """
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=True
    )
    assert json.loads(done.stdout) == {"timers": 0, "wakeUps": 1}
