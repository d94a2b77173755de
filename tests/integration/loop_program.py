"""
A program that asyncio runs, with queues and no reactor: does the part that it is told to.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import os
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from asynqueue import (
    AsyncWorker,
    ExecutorWorker,
    NullQueue,
    ProcessQueue,
    TaskQueue,
    ThreadQueue,
    WireServer,
    WireWorker,
    WireWorkerUniverse,
)
from asynqueue.errors import LoopError, TaskTimedOut

variable: contextvars.ContextVar[Any] = contextvars.ContextVar("variable", default=None)


def assertGone(pid: int) -> None:
    """
    There is no such process, nor the remains of one.
    """
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return
    raise AssertionError("the process is left")


class Universe(WireWorkerUniverse):
    """
    What a host runs.
    """

    def square(self, x: int) -> int:
        """
        A call over a wire.
        """
        return x * x


def square(x: int) -> int:
    """
    A plain call.
    """
    return x * x


def executorQueue() -> TaskQueue:
    """
    A queue over an executor, which ends with it.
    """
    return TaskQueue(ExecutorWorker(ThreadPoolExecutor(1), shutdown=True))


async def use(make: Callable[..., TaskQueue], **kw: Any) -> None:
    """
    Make a queue, and use all that needs a reactor.
    """
    queue = make(**kw)
    assert await queue.call(square, 3) == 9
    assert [item async for item in queue.map(square, range(4))] == [0, 1, 4, 9]
    assert await queue.call(square, 2, timeout=30) == 4
    assert [item async for item in await queue.call(iter, [1, 2])] == [1, 2]
    assert set(await queue.update(square, 2)) == {4}
    await queue.shutdown()


def refused(f: Callable[[], Any]) -> str:
    """
    What the error says that a call in the wrong loop raises.
    """
    try:
        f()
    except LoopError as error:
        return str(error)
    raise AssertionError("no LoopError")


async def failing(d: Any) -> str:
    """
    What the error says that a wait in the wrong loop raises.
    """
    try:
        await d
    except LoopError as error:
        return str(error)
    raise AssertionError("no LoopError")


def doRun() -> None:
    """
    Queues of each kind work in asyncio.run, each time that it is called.
    """

    async def main() -> None:
        for make in (ThreadQueue, NullQueue, executorQueue):
            await use(make)
        await use(lambda: ProcessQueue(1))

    asyncio.run(main())
    asyncio.run(main())


def doCoroutines() -> None:
    """
    The coroutines of an AsyncWorker run in the program's loop, and time limits hold.
    """

    async def main() -> None:
        queue = TaskQueue(AsyncWorker())
        assert await queue.call(asyncio.sleep, 0, "slept") == "slept"
        assert await queue.call(asyncio.get_running_loop) is asyncio.get_running_loop()
        try:
            await queue.call(asyncio.Event().wait, timeout=0.01)
        except TaskTimedOut:
            pass
        else:
            raise AssertionError("no TaskTimedOut")
        await queue.shutdown()

    asyncio.run(main())


def doWire() -> None:
    """
    A host and its clients work in asyncio.run.
    """

    async def main(where: str) -> None:
        server = WireServer(where, Universe())
        await server.start()
        queue = TaskQueue(WireWorker(Universe(), where))
        assert await queue.call("square", 3) == 9
        await queue.shutdown()
        await server.stop()

    with TemporaryDirectory() as folder:
        for _ in range(2):
            asyncio.run(main(f"unix:{Path(folder, 'socket')}"))


def doGivenLoop() -> None:
    """
    An asyncio loop may be given as the reactor, before it runs, to queues of each kind.
    """
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        for make in (ThreadQueue, NullQueue):
            runner.run(use(make, reactor=loop))
        runner.run(use(lambda **kw: ProcessQueue(1, **kw), reactor=loop))


def doOutside() -> None:
    """
    A queue that was made outside of a loop belongs to the one that calls it first.
    """
    queue = ThreadQueue()
    processes = ProcessQueue(2, minimum=1)

    async def main() -> None:
        assert await queue.call(square, 3) == 9
        assert await processes.call(square, 3) == 9

    asyncio.run(main())
    assert "has ended" in refused(lambda: queue.call(square, 3))


def doLeftOpen() -> None:
    """
    Queues that are left open end with asyncio.run, after what they had accepted: no
    thread is left, and no process.
    """
    done: list[int] = []

    async def main() -> int:
        threads, processes = ThreadQueue(1), ProcessQueue(1)
        for number in range(4):
            threads.call(time.sleep, 0.01).addCallback(lambda _, n=number: done.append(n))
        pid: int = await processes.call(os.getpid)
        return pid

    pid = asyncio.run(main())
    assert done == [0, 1, 2, 3]
    assert threading.active_count() == 1, threading.enumerate()
    assertGone(pid)


def doClosed() -> None:
    """
    Calls of a queue whose loop was closed are refused by name, also where its end was
    not announced; what was under way fails; and a queue in another loop works.
    """

    async def begin() -> tuple[TaskQueue, TaskQueue, int, Any]:
        queue, processes = ThreadQueue(), ProcessQueue(1)
        await queue.call(square, 3)
        hung = queue.call(threading.Event().wait, 60)
        return queue, processes, await processes.call(os.getpid), hung

    loop = asyncio.new_event_loop()
    queue, processes, pid, hung = loop.run_until_complete(begin())
    loop.close()
    assert "has ended" in refused(lambda: queue.call(square, 3))
    assert "has ended" in refused(lambda: queue.map(square, [3]))
    assert not queue.isRunning()

    async def main() -> None:
        assert "has ended" in refused(lambda: processes.update(square, 3))
        await use(ThreadQueue)
        # Another loop has come, and the children of the closed one are gone.
        assertGone(pid)
        hung.addErrback(lambda failure: None)
        await queue.shutdown()
        await processes.shutdown()

    asyncio.run(main())


def doForeign() -> None:
    """
    What is awaited in another loop than that of its queue raises at once.
    """

    async def begin() -> tuple[TaskQueue, Any]:
        queue = ThreadQueue()
        return queue, queue.call(time.sleep, 0.01)

    async def main(queue: TaskQueue, d: Any) -> None:
        assert "another asyncio loop" in refused(lambda: queue.call(square, 3))
        assert "another asyncio loop" in refused(queue.shutdown)
        assert "another asyncio loop" in await failing(d)

    with asyncio.Runner() as runner:
        asyncio.run(main(*runner.run(begin())))


def doNobody() -> None:
    """
    What a reactor that does not run was to bring is not waited for in asyncio's loop.
    """
    # A call before any loop runs is for the reactor that the program has.
    queue = ThreadQueue()
    d = queue.call(threading.Event().wait, 60)

    async def main() -> None:
        assert "does not run this loop" in await failing(d)

    asyncio.run(main())


def doContexts() -> None:
    """
    Callbacks run in no context of the program, and keep none alive.
    """

    class Value:
        """
        What a context variable of a request has.
        """

    seen: list[Any] = []

    async def request(queue: TaskQueue) -> weakref.ref[Value]:
        value = Value()
        variable.set(value)
        await queue.call(square, 3)
        return weakref.ref(value)

    async def main() -> None:
        for queue in (ThreadQueue(), ProcessQueue(1), NullQueue()):
            alive = await asyncio.create_task(request(queue))
            fired = asyncio.Event()

            def look(_: Any, fired: asyncio.Event = fired) -> None:
                seen.append(variable.get())
                fired.set()

            queue.call(square, 4).addCallback(look)
            await fired.wait()
            gc.collect()
            assert alive() is None, queue
            await queue.shutdown()

    asyncio.run(main())
    assert seen == [None, None, None]


def doSignals() -> None:
    """
    Neither the handler of SIGCHLD nor that of SIGINT is another one than without.
    """
    before = signal.getsignal(signal.SIGCHLD)

    async def main() -> None:
        interrupt = signal.getsignal(signal.SIGINT)
        await use(lambda: ProcessQueue(1))
        assert signal.getsignal(signal.SIGINT) is interrupt

    asyncio.run(main())
    assert signal.getsignal(signal.SIGCHLD) is before


if __name__ == "__main__":
    globals()[f"do{sys.argv[1]}"]()
    if sys.argv[1] != "Nobody":
        assert "twisted.internet.reactor" not in sys.modules
    print("done")
