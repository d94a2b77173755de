"""
Twisted and asyncio in one program, with one queue.

Twisted's asyncio reactor runs both on one loop. What the queue returns can be
awaited in the coroutines of both, and its workers run functions of both.
"""

import asyncio

from twisted.internet import asyncioreactor

loop = asyncio.new_event_loop()
asyncioreactor.install(loop)

# The reactor has to be installed before anything else imports it.
from twisted.internet.defer import Deferred, ensureDeferred  # noqa: E402
from twisted.internet.task import deferLater, react  # noqa: E402

from asynqueue import AsyncWorker, TaskQueue, ThreadWorker  # noqa: E402


def fibonacci(count):
    """
    Runs in a thread, as far ahead as somebody reads.
    """
    a, b = 0, 1
    for _ in range(count):
        yield a
        a, b = b, a + b


async def napOfAsyncio(seconds):
    await asyncio.sleep(seconds)
    return "asyncio slept"


def napOfTwisted(reactor, seconds):
    return deferLater(reactor, seconds, lambda: "Twisted slept")


async def inTwisted(reactor, queue):
    """
    A coroutine that Twisted drives.
    """
    print("twisted:", await queue.call(napOfAsyncio, 0.02, series="async"))
    async for number in await queue.call(fibonacci, 5, series="thread"):
        print("twisted:", number)


async def inAsyncio(reactor, queue):
    """
    A coroutine that asyncio drives: all that asyncio has is there.
    """
    async with asyncio.timeout(5):
        print("asyncio:", await queue.call(napOfTwisted, reactor, 0.02, series="async"))
    async for number in await queue.call(fibonacci, 5, series="thread"):
        print("asyncio:", number)
    powers = await asyncio.gather(*[queue.call(pow, 2, n) for n in range(6)])
    print("asyncio:", powers)
    assert powers == [1, 2, 4, 8, 16, 32]


async def main(reactor):
    queue = TaskQueue(AsyncWorker(concurrent=10), ThreadWorker(threads=2))
    twisted = ensureDeferred(inTwisted(reactor, queue))
    await Deferred.fromFuture(loop.create_task(inAsyncio(reactor, queue)))
    await twisted
    await queue.shutdown()


if __name__ == "__main__":
    react(main)
