"""
A program with a ProcessQueue: does what it is told to, and prints the process IDs of
its children when it has come so far.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater

from asynqueue import ProcessQueue
from asynqueue.reactors import theReactor
from asynqueue.testing import Gate
from tests.integration import process_calls as calls

loop = theReactor()


def say(queue: ProcessQueue, *others: int) -> None:
    """
    Print the process IDs of the children, and of others.
    """
    print(*(pid for worker in queue.workers() for pid in worker.pids), *others, flush=True)


async def begun(queue: ProcessQueue, f: Any, count: int = 2) -> None:
    """
    Wait until so many calls have begun.
    """
    gate = Gate()
    for _ in range(count):
        queue.call(f, gate.token).addErrback(lambda _: None)
    await gate.arrivals(count)


async def doIdle() -> None:
    """
    The children have nothing to do.
    """
    queue = ProcessQueue(2, minimum=2)
    await gatherResults([queue.call(calls.pid) for _ in range(100)])
    say(queue)


async def doStarting() -> None:
    """
    The children are just being started.
    """
    queue = ProcessQueue(2, minimum=2)
    queue.call(calls.pid).addErrback(lambda _: None)
    say(queue)


async def doLooping() -> None:
    """
    The children are in loops of Python.
    """
    queue = ProcessQueue(2, timeout=0.5)
    await begun(queue, calls.loopForever)
    say(queue)


async def doHolding() -> None:
    """
    The children are in calls of C that never return.
    """
    queue = ProcessQueue(2, timeout=0.5)
    await begun(queue, calls.holdForever)
    say(queue)


async def doForked() -> None:
    """
    The children have calls, and a fork of the parent lives on until its input ends.
    """
    queue = ProcessQueue(2)
    await begun(queue, calls.holdForever)
    _reading, writing = os.pipe()
    if not os.fork():
        os.close(writing)
        os.close(1)
        os.close(2)
        os.read(0, 1)
        os._exit(0)
    say(queue)


async def doHelped() -> None:
    """
    A child has started another program, which never ends, and waits for ever.
    """
    queue, gate = ProcessQueue(1), Gate()
    pid = await queue.call(calls.startHelper, os.devnull)
    queue.call(calls.lockForever, gate.token).addErrback(lambda _: None)
    await gate.arrivals(1)
    say(queue, pid)


async def doLoaded() -> None:
    """
    There is always more to do.
    """
    queue = ProcessQueue(2, timeout=0.5)

    def again(_: Any) -> None:
        # It ends with the queue.
        queue.call(calls.notedNumber, os.devnull, 5).addCallback(again).addErrback(lambda _: None)

    for _ in range(200):
        again(None)
    await gatherResults([queue.call(calls.pid) for _ in range(100)])
    say(queue)


async def doDraining() -> None:
    """
    The queue is being shut down.
    """
    queue = ProcessQueue(2, timeout=2)
    await begun(queue, calls.loopForever)
    queue.shutdown()
    say(queue)


async def doDropped() -> None:
    """
    The program ends without a shutdown of anything.
    """
    queue = ProcessQueue(2)
    await begun(queue, calls.loopForever)
    say(queue)
    loop.crash()


async def doMain() -> None:
    """
    Functions of the program itself are called.
    """
    queue = ProcessQueue(1)
    print(await queue.call(ofMain, 5), await queue.call(OfMain(6).get))
    await queue.shutdown()
    loop.stop()


async def doFew() -> None:
    """
    There are too few descriptors for another child, and then enough.
    """
    import resource

    was = resource.getrlimit(resource.RLIMIT_NOFILE)
    outcomes = []
    # It is fork and exec that fail, or what comes before or after.
    for more in range(14):
        queue = ProcessQueue(1)
        used = len(os.listdir("/proc/self/fd")) - 1
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + more, was[1]))
        outcomes.append(await outcome(queue))
        resource.setrlimit(resource.RLIMIT_NOFILE, was)
        if outcomes[-1] == "done":
            break
        assert len(os.listdir("/proc/self/fd")) - 1 == used
        while (last := await outcome(queue)) != "done":
            # It tries again when a while has passed.
            assert last == "WorkerLost"
            await deferLater(loop, 0.01)
        await queue.shutdown()
    print(*sorted(set(outcomes)))
    await queue.shutdown()
    loop.stop()


async def outcome(queue: ProcessQueue) -> str:
    """
    What comes of a call.
    """
    try:
        return "done" if await queue.call(pow, 2, 5) == 32 else "wrong"
    except Exception as error:
        return type(error).__name__


def ofMain(number: int) -> int:
    """
    A function of the main program.
    """
    return number + ONE


class OfMain:
    """
    A class of the main program.
    """

    def __init__(self, number: int) -> None:
        self.number = number

    def get(self) -> int:
        """
        Its number.
        """
        return self.number


ONE = 1


def main() -> None:
    """
    Do what the command line says.
    """
    d = Deferred.fromCoroutine(globals()[f"do{sys.argv[1]}"]())
    d.addErrback(lambda failure: (failure.printTraceback(), loop.stop()))


if __name__ == "__main__":
    loop.callWhenRunning(main)
    loop.run()
