"""
What L{ProcessQueue} can call: coroutines, and callables of all kinds.
"""

from __future__ import annotations

import asyncio
import functools
import math
import os
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import gatherResults

from asynqueue import ProcessQueue
from asynqueue.processes import callables
from tests.integration import coroutine_calls, process_calls as calls
from tests.integration.process_checks import Used, residentBytes

# Coroutines


@pytest.mark.measured
@ensureDeferred
async def test_coroutines() -> None:
    """
    Coroutine functions are run, one after the other in one event loop; their errors
    and exits are those of their calls.
    """
    queue = ProcessQueue(1)
    loops = await gatherResults([queue.call(coroutine_calls.loopNumber) for _ in range(20)])
    with pytest.raises(LookupError, match="from a coroutine"):
        await queue.call(coroutine_calls.asyncRaise)
    with pytest.raises(SystemExit) as caught:
        await queue.call(coroutine_calls.asyncExit)
    assert caught.value.code == 5
    loops.append(await queue.call(coroutine_calls.loopNumber))
    assert len(set(loops)) == 1
    await queue.shutdown()


@pytest.mark.measured
@ensureDeferred
async def test_asyncGenerators() -> None:
    """
    The items of asynchronous generators come as they are asked for; one that is
    stopped is closed.
    """
    queue = ProcessQueue(1)
    items = [item async for item in await queue.call(coroutine_calls.asyncNumbers, 2000)]
    assert items == list(range(2000))
    assert [item async for item in await queue.call(coroutine_calls.asyncNumbers, 0)] == []
    some = await queue.call(coroutine_calls.asyncNumbers, 10**9)
    assert [await anext(some), await anext(some)] == [0, 1]
    some.stop()
    assert await queue.call(coroutine_calls.loopNumber)
    await queue.shutdown()


@pytest.mark.measured
@ensureDeferred
async def test_coroutinesThatAreSent() -> None:
    """
    Coroutine functions and asynchronous generators that have no name can be called.
    """
    queue = ProcessQueue(1)

    async def wait(number: int) -> int:
        await asyncio.sleep(0)
        return number + 1

    async def iterate(number: int) -> AsyncIterator[int]:
        yield number

    assert await queue.call(wait, 5) == 6
    assert [item async for item in await queue.call(iterate, 5)] == [5]
    await queue.shutdown()


# Callables


@ensureDeferred
async def test_callables() -> None:
    """
    Functions by name, lambdas, closures, partials, methods, instances, classes and
    functions written in C can be called.
    """
    queue = ProcessQueue(1)
    five = 5
    assert await queue.call(math.floor, 5.5) == 5
    assert await queue.call(lambda n: n + five, 1) == 6
    assert await queue.call(functools.partial(pow, 2), 5) == 32
    assert await queue.call(calls.add, [1, 2]) == 8
    assert await queue.call(calls.Counter().get) == 0
    assert await queue.call(calls.Counter(), 3) == 3
    assert await queue.call(str, 5) == "5"
    assert await queue.call("{}!".format, 5) == "5!"
    assert await queue.call(dict.fromkeys, "ab") == {"a": None, "b": None}
    await queue.shutdown()


@ensureDeferred
async def test_whatIsBoundMayChange() -> None:
    """
    Methods, instances and partials are called as they are at the moment of the call,
    also where the method is written in C.
    """
    queue = ProcessQueue(1)
    counter, table, word = calls.Counter(), {"a": 1}, bytearray(b"a")
    bound = functools.partial(sum, [1])
    found = []
    for number in range(3):
        counter.number = table["a"] = number
        word[:] = b"%d" % number
        bound.args[0][:] = [number]
        found.append(
            await gatherResults(
                [
                    queue.call(counter.get),
                    queue.call(counter, 1),
                    queue.call(table.get, "a"),
                    queue.call(word.decode),
                    queue.call(bound),
                ]
            )
        )
    assert found == [[n, n + 1, n, str(n), n] for n in range(3)]
    await queue.shutdown()


@ensureDeferred
async def test_whatACallChangesIsItsOwn() -> None:
    """
    What a call changes in its method's object, in an instance, a partial, or a closure is
    not what the next call gets, also within a map.
    """
    queue = ProcessQueue(1)
    counter = calls.Counter()
    rows: list[int] = []
    n = 0

    def count(_: int = 0) -> int:
        nonlocal n
        n += 1
        return n

    def grow(_: int, rows: list[int] = []) -> int:  # noqa: B006 -- it is about that
        rows.append(1)
        return len(rows)

    callables: list[Any] = [
        counter.increase,
        calls.Falsy(),
        functools.partial(calls.lengthWith, rows),
        count,
        grow,
    ]
    for f in callables:
        assert [await queue.call(f, 1) for _ in range(3)] == [1, 1, 1]
        assert [item async for item in queue.map(f, [1] * 20)] == [1] * 20
    assert (counter.number, rows, n) == (0, [], 0)
    await queue.shutdown()


class Counted:
    """
    In a child it is how often it was made there.
    """

    def __reduce__(self) -> Any:
        return calls.countMade, ()


@ensureDeferred
async def test_sentOnce() -> None:
    """
    A function is sent to a child once, however often it is called.
    """
    queue = ProcessQueue(1)
    counted = Counted()

    def f(number: int) -> Any:
        return counted

    results = await gatherResults([queue.call(f, number) for number in range(100)])
    assert results == [1] * 100
    await queue.shutdown()


@pytest.mark.bulk
@pytest.mark.measured
@ensureDeferred
async def test_manyCallables() -> None:
    """
    Thousands of different functions can be called; old ones are forgotten, and can be
    called again.
    """
    queue = ProcessQueue(1)
    functions = [lambda number=number: number for number in range(3000)]
    assert len(functions) > 2 * callables._MOST
    child = await queue.call(calls.pid)
    assert await gatherResults([queue.call(f) for f in functions]) == list(range(3000))
    before = residentBytes(child)
    for _ in range(2):
        assert await gatherResults([queue.call(f) for f in functions]) == list(range(3000))
    assert residentBytes(child) < before + (16 << 20)
    assert await queue.call(calls.pid) == child
    await queue.shutdown()


# Tasks that use processes themselves


@ensureDeferred
async def test_queueInATask() -> None:
    """
    A task can use a ProcessQueue, in a program that it starts, or in its own process.
    """
    queue = ProcessQueue(1)
    assert await queue.call(calls.ownQueue) == (0, "32\n")
    assert await queue.call(calls.queueWithin) == 32
    assert await queue.call(pow, 2, 5) == 32
    await queue.shutdown()


# Lives


@ensureDeferred
async def test_twoQueues() -> None:
    """
    Two queues in one program do not share processes.
    """
    used = Used()
    first, second = ProcessQueue(1), ProcessQueue(1)
    pids = await gatherResults([each.call(calls.pid) for each in (first, second) * 20])
    assert len(set(pids)) == 2
    await first.shutdown()
    assert await second.call(calls.pid) == pids[1]
    await second.shutdown()
    assert used.more() == {}


@pytest.mark.bulk
@ensureDeferred
async def test_manyLives() -> None:
    """
    Queues that come and go leave nothing behind, wherever they were.
    """
    used = Used()
    for number in range(30):
        queue = ProcessQueue(2, minimum=2, timeout=0.01)
        if number % 3:
            await queue.call(calls.pid)
        if number % 3 == 2:
            queue.call(calls.waitForNothing).addErrback(lambda _: None)
        await queue.shutdown()
    assert used.more() == {}


@pytest.mark.bulk
@ensureDeferred
async def test_hundredThousand() -> None:
    """
    A hundred thousand tasks at once have each its result.
    """
    queue = ProcessQueue(2)
    count = int(os.environ.get("ASYNQUEUE_TEST_TASKS", "100000"))
    results = await gatherResults([queue.call(abs, -number) for number in range(count)])
    assert results == list(range(count))
    await queue.shutdown()
