"""
The same calls through the WireWorker of AsynQueue 0.9.9, in its own interpreter, to two
servers on UNIX sockets.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from time import perf_counter

from twisted.internet import defer, reactor, task
from twisted.python.failure import Failure

from asynqueue import TaskQueue, wire

BURST = 5_000
# With more calls at once it recurses.
WAVE = 50
SECONDS_AT_MOST = 60


class Universe(wire.WireWorkerUniverse):
    """
    Next to nothing.
    """

    def noop(self):
        """
        Nothing.
        """


children = []


@defer.inlineCallbacks
def main():
    assert TaskQueue.__module__ == "asynqueue.base", TaskQueue.__module__
    folder = tempfile.mkdtemp()
    queue = TaskQueue()
    for number in range(2):
        path = os.path.join(folder, str(number))
        children.append(
            subprocess.Popen(
                [sys.executable, os.path.abspath(__file__), f"unix:{path}"],
                stdout=subprocess.PIPE,
            )
        )
        children[-1].stdout.readline()
        worker = wire.WireWorker(Universe(), f"unix:{path}", N_concurrent=WAVE)
        yield queue.attachWorker(worker)
    yield task.deferLater(reactor, 0.2, lambda: None)
    yield defer.gatherResults([queue.call("noop") for _ in range(WAVE)])
    start = perf_counter()
    for _ in range(BURST // WAVE):
        yield defer.gatherResults([queue.call("noop") for _ in range(WAVE)])
    figures = {"calls/s": BURST / (perf_counter() - start), "calls": BURST}
    print(json.dumps(figures), flush=True)


def end(reason=None):
    """
    Leave at once, whatever happened.
    """
    if isinstance(reason, Failure):
        reason.printTraceback(sys.stderr)
    for child in children:
        child.send_signal(signal.SIGKILL)
    sys.stderr.flush()
    os._exit(1 if reason else 0)


def serve(description):
    """
    Be a server.
    """
    server = wire.WireServer(description, "__main__.Universe")
    server.service.startService()
    reactor.callLater(0.2, print, "ready", flush=True)


if len(sys.argv) > 1:
    reactor.callWhenRunning(serve, sys.argv[1])
else:
    reactor.callLater(SECONDS_AT_MOST, end, Failure(TimeoutError("a call never ended")))
    reactor.callWhenRunning(lambda: main().addCallbacks(end, end))
reactor.run()
