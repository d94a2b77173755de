"""
Coroutine functions and asynchronous generators in the workers of this process.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from pytest_twisted import ensureDeferred

from asynqueue import AsyncWorker, Deferator, ExecutorWorker, TaskQueue, ThreadWorker
from asynqueue.errors import LoopError
from asynqueue.reactors import theReactor

# No wait here may be a hang.
PATIENCE = 20


def inExecutor(**kw: Any) -> ExecutorWorker:
    """
    A worker with a thread of an executor.
    """
    return ExecutorWorker(ThreadPoolExecutor(1), shutdown=True, **kw)


THREADED = pytest.mark.parametrize("kind", [ThreadWorker, inExecutor])
EVERY = pytest.mark.parametrize("kind", [AsyncWorker, ThreadWorker, inExecutor])

colour = contextvars.ContextVar("colour", default="none")


async def around() -> tuple[bool, bool, str]:
    """
    Whether this runs in a loop of asyncio, and in the main thread; and a context variable.
    """
    await asyncio.sleep(0)
    isMain = threading.current_thread() is threading.main_thread()
    return asyncio.get_running_loop().is_running(), isMain, colour.get()


async def fail(error: type[BaseException]) -> Any:
    """
    Raise it.
    """
    raise error("of a coroutine")


async def numbers(end: int) -> AsyncIterator[int]:
    """
    Count.
    """
    for number in range(end):
        yield number


async def awaiting(queue: TaskQueue) -> Any:
    """
    Wait for what this thread's loop does not drive.
    """
    return await queue.call(abs, -1)


def soon(d: Any) -> Any:
    """
    The same, but not for ever.
    """
    return d.addTimeout(PATIENCE, theReactor())


@THREADED
@ensureDeferred
async def test_coroutinesRunInTheThread(kind: Callable[[], Any]) -> None:
    """
    A coroutine has a loop of asyncio there, and the context of the caller.
    """
    queue = TaskQueue(kind())
    colour.set("blue")
    assert await soon(queue.call(around)) == (True, False, "blue")
    await soon(queue.shutdown())


@EVERY
@pytest.mark.parametrize("error", [LookupError, SystemExit, KeyboardInterrupt, GeneratorExit])
@ensureDeferred
async def test_whatACoroutineRaises(kind: Callable[[], Any], error: type[BaseException]) -> None:
    """
    It is the outcome of its call, and the worker goes on.
    """
    queue = TaskQueue(kind())
    failures: list[Any] = []
    await soon(queue.call(fail, error).addErrback(failures.append))
    assert failures[0].type is error
    assert await soon(queue.call(abs, -1)) == 1
    await soon(queue.shutdown())


@EVERY
@ensureDeferred
async def test_asynchronousGeneratorsAreIterated(kind: Callable[[], Any]) -> None:
    """
    One is a Deferator for its caller, as a generator is.
    """
    queue = TaskQueue(kind())
    items = await soon(queue.call(numbers, 100))
    assert type(items) is Deferator
    assert [await soon(d) for d in items] == list(range(100))
    await soon(queue.shutdown())


@EVERY
@ensureDeferred
async def test_asynchronousGeneratorsAsTheyAre(kind: Callable[..., Any]) -> None:
    """
    A raw call returns the generator itself.
    """
    queue = TaskQueue(kind(raw=True))
    items = await soon(queue.call(numbers, 3))
    assert [item async for item in items] == [0, 1, 2]
    await soon(queue.shutdown())


@THREADED
@ensureDeferred
async def test_aThreadDrivesNoQueue(kind: Callable[[], Any]) -> None:
    """
    A coroutine that waits there for a call fails, and does not wait for ever.
    """
    queue, other = TaskQueue(kind()), TaskQueue(AsyncWorker())
    with pytest.raises(LoopError):
        await soon(queue.call(awaiting, other))
    await soon(queue.shutdown())
    await soon(other.shutdown())
