"""
The same calls through the ThreadQueue of AsynQueue 0.9.9, in its own
interpreter.
"""

import json
from time import perf_counter

from twisted.internet import defer, reactor

from asynqueue import ThreadQueue

# It is slow, so a part of the burst has to do; the rate is what counts.
BURST = 10000
ONE_BY_ONE = 1000


def noop():
    pass


@defer.inlineCallbacks
def main():
    queue = ThreadQueue()
    yield queue.call(noop)
    start = perf_counter()
    yield defer.gatherResults([queue.call(noop) for _ in range(BURST)])
    rate = BURST / (perf_counter() - start)
    times = []
    for _ in range(ONE_BY_ONE):
        start = perf_counter()
        yield queue.call(noop)
        times.append(perf_counter() - start)
    times.sort()
    p50, p99 = times[ONE_BY_ONE // 2], times[ONE_BY_ONE * 99 // 100]
    print(json.dumps({"calls/s": rate, "p50 us": p50 * 1e6, "p99 us": p99 * 1e6}))
    yield queue.shutdown()
    reactor.stop()


reactor.callWhenRunning(main)
reactor.run()
