"""
Iterators that stay in the processes of L{ProcessQueue}.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import gatherResults

from asynqueue import ProcessQueue, WorkerLost
from asynqueue.errors import MaybeEncodingError
from asynqueue.testing import Gate
from asynqueue.testing.calls import CheckedError, numbersForever, numbersThenRaise, numbersTo
from asynqueue.testing.doubles import RecordingConsumer
from tests.integration import process_calls as calls
from tests.integration.process_checks import until

pytestmark = pytest.mark.measured

MB = 1 << 20


async def collect(stream: Any, items: list[Any]) -> None:
    """
    Take all items, as long as there is no failure.
    """
    async for item in stream:
        items.append(item)  # noqa: PERF401


@ensureDeferred
async def test_manyItems() -> None:
    """
    A generator of many numbers gives each of them once, in order.
    """
    queue = ProcessQueue(1)
    total = 0
    async for number in await queue.call(numbersTo, 100_000):
        assert number == total
        total += 1
    assert total == 100_000
    await queue.shutdown()


@ensureDeferred
async def test_severalAtOnce() -> None:
    """
    Several iterators of one child are served in turn, and calls between them.
    """
    queue = ProcessQueue(1)
    streams = await gatherResults([queue.call(numbersTo, 500) for _ in range(5)])
    for expected in range(500):
        for stream in streams:
            assert await anext(stream) == expected
        if expected % 100 == 0:
            assert await queue.call(pow, 2, 5) == 32
    await queue.shutdown()


@ensureDeferred
async def test_largeItemsWait(tmp_path: Path) -> None:
    """
    Of large items only a few megabytes are made before they are consumed.
    """
    queue, path = ProcessQueue(1), tmp_path / "notes"
    stream = await queue.call(calls.largeItems, str(path), MB)
    made = lambda: len(path.read_text().split())  # noqa: E731
    for consumed in range(1, 30):
        assert len(await anext(stream)) == MB
        await queue.call(calls.pid)
        assert made() <= consumed + 8
    stream.stop()
    await queue.shutdown()


@ensureDeferred
async def test_childThatDies() -> None:
    """
    When its child dies, an iteration gives what came before, and fails.
    """
    queue = ProcessQueue(1)
    stream = await queue.call(calls.dyingNumbers, 1000)
    items: list[int] = []
    with pytest.raises(WorkerLost, match="SIGKILL"):
        await collect(stream, items)
    assert items == list(range(len(items)))
    assert await queue.call(pow, 2, 5) == 32
    await queue.shutdown()


@ensureDeferred
async def test_generatorThatRaises() -> None:
    """
    What a generator raises comes in its place, after the items before it.
    """
    queue = ProcessQueue(1)
    items: list[int] = []
    with pytest.raises(CheckedError, match="enough"):
        await collect(await queue.call(numbersThenRaise, 700, "enough"), items)
    assert items == list(range(700))
    await queue.shutdown()


@ensureDeferred
@pytest.mark.parametrize("bad", [0, 1, 300])
async def test_itemThatCannotBePickled(bad: int) -> None:
    """
    An item that cannot be pickled fails in its place; the others come.
    """
    queue = ProcessQueue(1)
    outcomes = []
    for d in await queue.call(calls.badItem, bad, 600):
        try:
            outcomes.append(await d)
        except MaybeEncodingError:
            outcomes.append("bad")
    assert outcomes == [*range(bad), "bad", *range(bad + 1, 600)]
    await queue.shutdown()


@ensureDeferred
async def test_stopped() -> None:
    """
    An iteration that is stopped closes its generator in the child.
    """
    queue, each, end = ProcessQueue(1), Gate(), Gate()
    stream = await queue.call(numbersForever, each.token, end.token)
    assert await anext(stream) == 0
    stream.stop()
    await end.arrivals(1)
    await queue.shutdown()
    await gatherResults([each.close(), end.close()])


@ensureDeferred
async def test_neverFinished() -> None:
    """
    An iteration that nobody goes on with does not keep a queue from ending in time;
    it fails.
    """
    queue = ProcessQueue(1, timeout=0.1)
    stream = await queue.call(calls.counting, 10**9)
    assert await anext(stream) == 0
    await queue.shutdown()
    with pytest.raises(WorkerLost):
        await collect(stream, [])


@ensureDeferred
async def test_cancelledWithConsumer() -> None:
    """
    A task that feeds a consumer can be cancelled in the middle; its generator is
    closed, and its child lives on.
    """
    queue, each, end = ProcessQueue(1), Gate(), Gate()
    first = await queue.call(calls.pid)
    consumer = RecordingConsumer()
    d = queue.call(numbersForever, each.token, end.token, consumer=consumer)
    d.addErrback(lambda _: None)
    await until(lambda: each.arrived > 3)
    d.cancel()
    await end.arrivals(1)
    assert await queue.call(calls.pid) == first
    await queue.shutdown()
    await gatherResults([each.close(), end.close()])


@ensureDeferred
async def test_pausedConsumer() -> None:
    """
    A consumer that pauses its producer pauses the generator in the child; when it
    resumes, it misses nothing.
    """
    queue = ProcessQueue(1)
    consumer = RecordingConsumer()
    written = consumer.write
    pauses = []

    def write(item: int) -> None:
        written(item)
        if item % 500 == 499:
            consumer.producer.pauseProducing()
            pauses.append(queue.call(calls.pid).addCallback(resume))

    def resume(_: int) -> None:
        consumer.producer.resumeProducing()

    consumer.write = write  # type: ignore[method-assign]
    await queue.call(numbersTo, 3000, consumer=consumer)
    assert len(pauses) == 6
    await queue.shutdown()
