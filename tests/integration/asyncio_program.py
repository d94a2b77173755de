"""
A program on asyncio's loop, with the queue: runs the part that it is told to.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import sys
import threading
import weakref
from typing import Any

from twisted.internet import asyncioreactor

asyncioreactor.install()

from twisted.internet.defer import Deferred, gatherResults  # noqa: E402
from twisted.internet.task import react  # noqa: E402

from asynqueue import (  # noqa: E402
    AsyncWorker,
    NullQueue,
    ProcessQueue,
    TaskQueue,
    ThreadQueue,
    ThreadWorker,
)

variable: contextvars.ContextVar[Any] = contextvars.ContextVar("variable", default=None)


def asTask(coroutine: Any) -> Deferred[Any]:
    """
    Run a coroutine as a task of asyncio.
    """
    return Deferred.fromFuture(asyncio.ensure_future(coroutine))


async def both(coroutineFunction: Any) -> None:
    """
    Run a coroutine in Twisted's way and in asyncio's.
    """
    await Deferred.fromCoroutine(coroutineFunction())
    await asTask(coroutineFunction())


async def doAwait() -> None:
    """
    A call can be awaited by coroutines of both worlds, also when it has ended.
    """

    async def main() -> None:
        queue = ThreadQueue()
        assert await queue.call(pow, 2, 5) == 32
        d = queue.call(pow, 2, 6)
        await queue.call(pow, 2, 7)
        assert await d == 64
        try:
            await queue.call(int, "five")
        except ValueError:
            pass
        else:
            raise AssertionError("no ValueError")
        await queue.shutdown()

    await both(main)


async def doLoop() -> None:
    """
    An asynchronous loop over a Deferator, and over a map, works in both worlds.
    """

    async def main() -> None:
        queue = ThreadQueue()
        items = [item async for item in await queue.call(iter, range(200))]
        assert items == list(range(200))
        lengths = [length async for length in queue.map(len, ["a", "bb", "ccc"])]
        assert lengths == [1, 2, 3]
        await queue.shutdown()

    await both(main)


async def doGather() -> None:
    """
    Calls can be gathered by asyncio.gather and by gatherResults.
    """
    queue = ThreadQueue(threads=2)
    results = await gatherResults([queue.call(pow, 2, n) for n in range(5)])
    assert results == [1, 2, 4, 8, 16]

    async def call(n: int) -> Any:
        return await queue.call(pow, 2, n)

    async def main() -> None:
        assert await asyncio.gather(*map(call, range(5))) == [1, 2, 4, 8, 16]

    await asTask(main())
    await queue.shutdown()


async def doTimeout() -> None:
    """
    asyncio.timeout around a call cancels it: its coroutine is left.
    """
    queue = NullQueue()
    left = []

    async def hang() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            left.append(True)

    async def main() -> None:
        try:
            async with asyncio.timeout(0.05):
                await queue.call(hang)
        except TimeoutError:
            pass
        else:
            raise AssertionError("no TimeoutError")
        assert await queue.call(pow, 2, 5) == 32

    await asTask(main())
    assert left == [True]
    await queue.shutdown()


async def doFutures() -> None:
    """
    A task may be an asyncio future, a coroutine that awaits what is asyncio's or
    Twisted's, or both.
    """
    queue = NullQueue(concurrent=2)
    loop = asyncio.get_event_loop()

    async def mixed() -> list[Any]:
        await asyncio.sleep(0)
        fired: Deferred[str] = Deferred()
        loop.call_soon(fired.callback, "Twisted's")
        return [await fired, await queue.call(pow, 2, 5)]

    future = loop.create_future()
    loop.call_soon(future.set_result, "asyncio's")
    assert await queue.call(lambda: future) == "asyncio's"
    assert await queue.call(mixed) == ["Twisted's", 32]
    await queue.shutdown()


async def doGenerator() -> None:
    """
    An asynchronous generator that awaits asyncio becomes a Deferator.
    """
    queue = NullQueue()
    left = []

    async def numbers() -> Any:
        try:
            for number in range(100):
                await asyncio.sleep(0)
                yield number
        finally:
            left.append(True)

    deferator = await queue.call(numbers)
    items = []
    async for item in deferator:
        items.append(item)
        if item == 3:
            break
    deferator.stop()
    assert items == [0, 1, 2, 3]
    items = [item async for item in await queue.call(numbers)]
    assert items == list(range(100))
    assert left == [True, True]
    await queue.shutdown()


async def doCancel() -> None:
    """
    Cancelling an asyncio task cancels the call that it waits for, and the queue
    serves on.
    """
    begun, release = threading.Event(), threading.Event()

    def hold() -> None:
        begun.set()
        release.wait(30)

    queue = TaskQueue(ThreadWorker(), AsyncWorker())

    async def main() -> None:
        task = asyncio.ensure_future(asWaiter())
        while not begun.is_set():
            await queue.call(pow, 2, 5, series="async")
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            pass
        else:
            raise AssertionError("it was not cancelled")

    async def asWaiter() -> None:
        await queue.call(hold, series="thread")

    await asTask(main())
    release.set()
    assert await queue.call(pow, 2, 5, series="thread") == 32
    await queue.shutdown()


async def doContexts() -> None:
    """
    Callbacks run in no context of the program, and keep none alive.
    """

    class Value:
        """
        What a context variable of a request has.
        """

    seen = []

    async def request(queue: TaskQueue) -> Any:
        value = Value()
        variable.set(value)
        await queue.call(pow, 2, 5)
        return weakref.ref(value)

    for queue in (ThreadQueue(), ProcessQueue(1), NullQueue()):
        alive = await asTask(request(queue))
        await queue.call(pow, 2, 6).addCallback(lambda _: seen.append(variable.get()))
        gc.collect()
        assert alive() is None, queue
        await queue.shutdown()
    assert seen == [None, None, None]


async def run(reactor: Any) -> None:
    """
    Do what the command line says.
    """
    await globals()[f"do{sys.argv[1]}"]()
    print("done")


if __name__ == "__main__":
    react(run)
