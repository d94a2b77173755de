"""
A program that forks while its queue, or its pool, works. The fork goes on, and ends; then its
parent goes on. Both print what became of the calls.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from multiprocessing import get_context
from typing import Any

from twisted.internet.task import react

from asynqueue import ExecutorWorker, ProcessQueue, TaskPool, TaskQueue, ThreadQueue
from asynqueue.testing import Gate
from asynqueue.testing.calls import waitAt
from tests.doubles import Heard

# Seconds after which something does not happen.
PATIENCE = 30

_PARENT = os.getpid()


def say(*words: Any) -> None:
    """
    Print a line, at once.
    """
    print(*(["fork"] if os.getpid() != _PARENT else []), *words, flush=True)


def forkedHere() -> bool:
    """
    Fork, and wait in the parent until the fork has ended.

    @return: whether this is the fork.
    """
    pid = os.fork()
    if not pid:
        return True
    say("exit", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    return False


def whatComes(function: Any, *args: Any) -> Any:
    """
    What a function returned, or the name of what it raised.
    """
    try:
        return function(*args)
    except Exception as error:
        # Whatever it is, its name is printed.
        return type(error).__name__


async def fork(
    reactor: Any,
    queue: TaskQueue,
    executor: Callable[[], Executor] | None = None,
    another: Callable[[], Executor] | None = None,
) -> None:
    """
    Fork while a call runs and another one waits.

    @param executor: makes what makes the calls, if the queue has no workers of its own.
    @param another: the same, in the fork; C{None}: in the same way.
    """
    # Or, where coverage is measured, Python 3.11 can wait for ever: see tests/conftest.py.
    signal.siginterrupt(signal.SIGCHLD, True)
    own = None
    if executor is not None:
        queue.attachWorker(ExecutorWorker(executor()))
    gate = Gate()
    runs = Heard(queue.call(waitAt, gate.token))
    waits = Heard(queue.call(abs, -1))
    await gate.arrivals(1)
    isFork = forkedHere()
    if not isFork:
        gate.open()
    elif executor is not None:
        own = (another or executor)()
        queue.attachWorker(ExecutorWorker(own))
    say("next", await queue.call(abs, -2).addTimeout(PATIENCE, reactor))
    say("waited", waits.result)
    await runs.d.addTimeout(PATIENCE, reactor)
    say("ran", type(runs.error).__name__ if isFork else runs.result)
    await queue.shutdown().addTimeout(PATIENCE, reactor)
    if own is not None:
        own.shutdown()
    if isFork:
        # The end of the reactor would shut the gate, which is the parent's, too.
        os._exit(0)
    await gate.close()


def forkPool(threads: bool) -> None:
    """
    Fork while a pool makes a call, and another one waits.
    """
    pool = TaskPool(1, threads=threads)
    pool.start()
    assert pool.apply_async(abs, (-1,)).get(PATIENCE) == 1
    runs, waits = pool.apply_async(time.sleep, (0.5,)), pool.apply_async(abs, (-1,))
    if forkedHere():
        say("runs", whatComes(runs.get))
        say("waits", whatComes(waits.get))
        say("next", whatComes(pool.apply_async, abs, (-2,)))
        pool.stop()
        pool.start()
        say("anew", pool.apply_async(abs, (-3,)).get(PATIENCE))
    else:
        say("ran", runs.get(PATIENCE), waits.get(PATIENCE), pool.apply_async(abs, (-2,)).get())
    pool.stop()


if __name__ == "__main__":
    match sys.argv[1]:
        case "processes":
            react(lambda reactor: fork(reactor, ProcessQueue(1)))
        case "threads":
            react(lambda reactor: fork(reactor, ThreadQueue()))
        case "threadexecutor":
            react(lambda reactor: fork(reactor, TaskQueue(), partial(ThreadPoolExecutor, 1)))
        case "processexecutor":
            # In the fork it starts anew: forked from there, it would have copies of all locks that
            # threads of the parent had in that moment, and may wait for one of them for ever.
            anew = partial(ProcessPoolExecutor, 1, mp_context=get_context("spawn"))
            here = partial(ProcessPoolExecutor, 1)
            react(lambda reactor: fork(reactor, TaskQueue(), here, anew))
        case "pool":
            forkPool(True)
        case "turned":
            forkPool(False)
