"""
The same calls through the ProcessQueue of AsynQueue 0.9.9, in its own
interpreter. Its processes are forked.
"""

import json
import multiprocessing
import os
import sys
from time import perf_counter

from process_calls import identity, noop
from process_figures import MEGA, WORKERS, percentiles, thereAndBack
from twisted.internet import defer, reactor
from twisted.python.failure import Failure

from asynqueue import ProcessQueue

# It is slow, so parts of the work have to do; the rate is what counts.
BURST = 5_000
# With more calls at once it recurses, and now and then too deeply, for ever after.
WAVE = 50
ONE_BY_ONE = 1_000
MEGABYTES = 50
SECONDS_AT_MOST = 30


@defer.inlineCallbacks
def main():
    # The new one has the same name, and would be found by a PYTHONPATH.
    assert ProcessQueue.__module__ == "asynqueue.process", ProcessQueue.__module__
    queue = ProcessQueue(WORKERS)
    yield defer.gatherResults([queue.call(noop) for _ in range(WAVE)])
    start = perf_counter()
    for _ in range(BURST // WAVE):
        yield defer.gatherResults([queue.call(noop) for _ in range(WAVE)])
    rate = BURST / (perf_counter() - start)
    times = []
    for _ in range(ONE_BY_ONE):
        start = perf_counter()
        yield queue.call(noop)
        times.append(perf_counter() - start)
    figures = {"calls/s": rate, "calls": BURST, **percentiles(times)}
    data = bytes(MEGA)
    start = perf_counter()
    for _ in range(MEGABYTES):
        yield queue.call(identity, data)
    figures |= thereAndBack(MEGABYTES, MEGA, perf_counter() - start)
    print(json.dumps(figures), flush=True)


def end(reason=None):
    """
    Leave at once, whatever happened: its shutdown may wait for its children, and
    they for it, for ever.
    """
    if isinstance(reason, Failure):
        reason.printTraceback(sys.stderr)
    for child in multiprocessing.active_children():
        child.kill()
    sys.stderr.flush()
    os._exit(1 if reason else 0)


def begin():
    reactor.callLater(SECONDS_AT_MOST, end, Failure(TimeoutError("a call never ended")))
    main().addCallbacks(end, end)


reactor.callWhenRunning(begin)
reactor.run()
