"""
Iterators that are open as their queue is shut down, or their worker crashes: wherever they
run, in each state.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import wraps
from typing import Any

import pytest
from twisted.internet.defer import Deferred, gatherResults

from asynqueue import (
    ExecutorWorker,
    ProcessQueue,
    ProcessWorker,
    TaskQueue,
    ThreadQueue,
    ThreadWorker,
    WireWorker,
    WorkerLost,
)
from asynqueue.iteration import Deferator
from asynqueue.reactors import theReactor
from asynqueue.testing import Gate, RecordingConsumer
from asynqueue.testing.calls import CheckedError, numbersForever, numbersThenRaise, numbersTo
from asynqueue.wire.host.catalog import Catalog
from tests.doubles import Heard
from tests.integration import process_calls as calls
from tests.integration.wire_hosts import Serving

# Seconds after which a test has failed. None waits so long.
PATIENCE = 30

Workers = Callable[[], Any]


@asynccontextmanager
async def host(queue: TaskQueue) -> AsyncIterator[Workers]:
    """
    Workers before a host here, which runs what it is sent in a queue.
    """
    serving = await Serving(queue, Catalog(None, trust="code")).listen()
    try:
        yield lambda: WireWorker(None, serving.description)
    finally:
        await serving.close()


@asynccontextmanager
async def here(workers: Workers) -> AsyncIterator[Workers]:
    """
    Workers that need nothing else.
    """
    yield workers


KINDS: dict[str, Callable[[], Any]] = {
    "thread": lambda: here(ThreadWorker),
    "executor": lambda: here(lambda: ExecutorWorker(ThreadPoolExecutor(1), shutdown=True)),
    "process": lambda: here(ProcessWorker),
    "host with threads": lambda: host(ThreadQueue(3)),
    "host with processes": lambda: host(ProcessQueue(2)),
}

inEachPlace = pytest.mark.parametrize("kind", KINDS)


def bounded(test: Callable[..., Any]) -> Callable[..., Deferred[Any]]:
    """
    A test as a function that returns a Deferred, which fails if it does not fire.
    """

    @wraps(test)
    def run(*args: Any, **kw: Any) -> Deferred[Any]:
        return Deferred.fromCoroutine(test(*args, **kw)).addTimeout(PATIENCE, theReactor())

    return run


async def takenFrom(deferator: Deferator) -> list[Any]:
    """
    All items of an iteration that ends well.
    """
    return [item async for item in deferator]


async def collect(deferator: Deferator, items: list[Any]) -> None:
    """
    Take all items, as long as there is no failure.
    """
    async for item in deferator:
        items.append(item)  # noqa: PERF401 -- those before a failure count


async def takenUntilLost(deferator: Deferator) -> list[Any]:
    """
    The items before an iteration fails, since its worker is lost.
    """
    items: list[Any] = []
    consuming = collect(deferator, items)
    with pytest.raises(WorkerLost):
        await consuming
    return items


async def shutDownInEachState(kind: str) -> None:
    """
    Shut down a queue, and see what becomes of iterators in each state.
    """
    async with KINDS[kind]() as workers:
        queue, each, end = TaskQueue(workers()), Gate(), Gate()
        unread = await queue.call(numbersForever, each.token, end.token)
        begun = await queue.call(numbersForever, each.token, end.token)
        assert [await anext(begun) for _ in range(3)] == [0, 1, 2], kind
        ended = await queue.call(numbersTo, 3)
        assert await takenFrom(ended) == [0, 1, 2], kind
        failed = await queue.call(numbersThenRaise, 3, "in the middle")
        with pytest.raises(CheckedError):
            await takenFrom(failed)
        await queue.shutdown()
        await end.arrivals(2)
        for deferator, first in ((unread, 0), (begun, 3)):
            items = await takenUntilLost(deferator)
            assert items[:1] == [first], kind
            assert items == list(range(first, first + len(items))), kind
        assert await takenFrom(ended) == await takenFrom(failed) == [], kind
        await gatherResults([each.close(), end.close()])


@pytest.mark.bulk
@bounded
async def test_shutdownInEachStateOfAnIterator() -> None:
    """
    A queue that is shut down closes the iterators that nobody reads, and who reads them
    afterwards gets what had come, and a C{WorkerLost}. Those that have ended, or failed, are
    as they were. That takes its time: all kinds of workers have it at once.
    """
    await gatherResults([Deferred.fromCoroutine(shutDownInEachState(kind)) for kind in KINDS])


@inEachPlace
@bounded
async def test_shutdownWaitsForReaders(kind: str) -> None:
    """
    A queue that is shut down waits for those who read an iterator: one who goes on and on,
    and a consumer that has paused. Neither loses an item.
    """
    async with KINDS[kind]() as workers:
        queue = TaskQueue(workers())
        consumer = RecordingConsumer(pauseAfter=10)
        consumed = queue.call(numbersTo, 2000, consumer=consumer)
        await consumer.written(10)
        reading = await queue.call(numbersTo, 2000)
        down = Heard(queue.shutdown())
        assert await takenFrom(reading) == list(range(2000))
        assert down.results == []
        consumer.producer.resumeProducing()
        assert await consumed is consumer
        assert consumer.items == list(range(2000))
        await down.d


@inEachPlace
@bounded
async def test_shutdownWaitsForAnItem(kind: str) -> None:
    """
    A queue that is shut down waits for an item that somebody waits for, and then for those
    after it.
    """
    async with KINDS[kind]() as workers:
        queue, gate = TaskQueue(workers()), Gate()
        waiting = await queue.call(calls.numbersBehind, gate.token, 2000)
        assert await anext(waiting) == 0
        waited = Deferred.fromCoroutine(takenFrom(waiting))
        await gate.arrivals()
        down = Heard(queue.shutdown())
        gate.open()
        assert await waited == list(range(1, 2000))
        await down.d
        await gate.close()


@inEachPlace
@bounded
async def test_crashWithOpenIterators(kind: str) -> None:
    """
    When a worker crashes, who waits for an item of its iterator has a C{WorkerLost}, and
    the generator is closed, unless its process was killed.
    """
    async with KINDS[kind]() as workers:
        worker = workers()
        queue, gate, each, end = TaskQueue(worker), Gate(), Gate(), Gate()
        held = await queue.call(numbersForever, each.token, end.token)
        waiting = await queue.call(calls.numbersBehind, gate.token, 2000)
        assert await anext(waiting) == 0
        waited = Deferred.fromCoroutine(takenUntilLost(waiting))
        await gate.arrivals()
        queue.detachWorker(worker, crash=True)
        assert await waited == []
        items = await takenUntilLost(held)
        assert items == list(range(len(items)))
        gate.open()
        if kind != "process":
            await end.arrivals()
        await queue.shutdown()
        await gatherResults([gate.close(), each.close(), end.close()])


@bounded
async def test_codeThatDoesNotComeToAnEnd() -> None:
    """
    An iterator that nobody reads, and whose code is in the middle of an item for long, is
    interrupted in its process, and the queue is shut down; but not if the code is that of
    another iterator, for which somebody waits.
    """
    queue, awaited, gate = ProcessQueue(1), ProcessQueue(1, grace=0.0), Gate()
    unread = await awaited.call(numbersTo, 2000)
    waiting = await awaited.call(calls.numbersBehind, gate.token, 2000)
    waited = Deferred.fromCoroutine(takenFrom(waiting))
    stuck = await queue.call(calls.numbersBehind, gate.token, 2000)
    assert await anext(stuck) == 0
    await gate.arrivals(2)
    down = Heard(awaited.shutdown())
    await queue.shutdown()
    assert await takenUntilLost(stuck) == []
    assert down.results == []
    gate.open()
    assert await waited == list(range(2000))
    await takenUntilLost(unread)
    await down.d
    await gate.close()
