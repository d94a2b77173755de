"""
Objects and exceptions that raise when they are looked at: each is the outcome of its own call,
in every kind of worker, whatever it is to that call.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from asynqueue import (
    AsyncWorker,
    ExecutorWorker,
    ProcessWorker,
    TaskPool,
    TaskQueue,
    ThreadWorker,
    WireServer,
    WireWorker,
    WireWorkerUniverse,
)
from asynqueue.errors import ImplementationError, WorkerError, WorkerLost
from asynqueue.iteration import Deferator, ListConsumer
from asynqueue.reactors import theReactor
from tests.integration import oddities

# No wait here may be a hang.
PATIENCE = 20

NUMBERS = range(len(oddities.OBJECTS))


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """
    What an object raises as it goes away is told to nobody.
    """
    with monkeypatch.context() as patch:
        patch.setattr(sys, "unraisablehook", lambda unraisable: None)
        yield
        gc.collect()


class Universe(WireWorkerUniverse):
    """
    The same functions, on a host.
    """

    take = staticmethod(oddities.take)
    give = staticmethod(oddities.give)
    fail = staticmethod(oddities.fail)
    failLater = staticmethod(oddities.failLater)
    items = staticmethod(oddities.items)
    plain = staticmethod(oddities.plain)


class Bench:
    """
    A queue, and what it calls these functions.
    """

    def __init__(self, queue: TaskQueue, isWire: bool = False) -> None:
        self.queue = queue
        self._isWire = isWire

    def f(self, name: str) -> Any:
        """
        What is called.
        """
        return name if self._isWire else getattr(oddities, name)

    def call(self, name: str, *args: Any, **kw: Any) -> Deferred[Any]:
        """
        Call it.
        """
        return self.queue.call(self.f(name), *args, **kw)


@asynccontextmanager
async def local(kind: Callable[[], Any], folder: Path) -> AsyncIterator[Bench]:
    """
    A queue with a worker of this program.
    """
    queue = TaskQueue(kind())
    yield Bench(queue)
    await soon(queue.shutdown())


@asynccontextmanager
async def wire(codec: str, folder: Path) -> AsyncIterator[Bench]:
    """
    A queue whose worker is a host, here as well.
    """
    where = f"unix:{folder}/host"
    server = WireServer(where, Universe(), codec=codec)
    await soon(server.start())
    queue = TaskQueue(WireWorker(Universe(), where, codec=codec))
    yield Bench(queue, True)
    await soon(queue.shutdown())
    await soon(server.stop())


KINDS: dict[str, Callable[[Path], Any]] = {
    "async": lambda folder: local(AsyncWorker, folder),
    "thread": lambda folder: local(ThreadWorker, folder),
    "process": lambda folder: local(ProcessWorker, folder),
    "executor": lambda folder: local(
        lambda: ExecutorWorker(ThreadPoolExecutor(1), shutdown=True), folder
    ),
    "executor of processes": lambda folder: local(
        lambda: ExecutorWorker(ProcessPoolExecutor(1), shutdown=True), folder
    ),
    "pickle": lambda folder: wire("pickle", folder),
    "cbor": lambda folder: wire("cbor", folder),
}


def soon(d: Any) -> Any:
    """
    The same, but not for ever.
    """
    return d.addTimeout(PATIENCE, theReactor())


async def ended(d: Deferred[Any]) -> Any:
    """
    What has come of a call: whether it is an outcome of its own.
    """
    came: list[Any] = []
    await soon(d.addBoth(came.append))
    (outcome,) = came
    if type(outcome) is Failure:
        return isOwn(outcome.value)
    if type(outcome) is not Deferator:
        return True
    return all([await ended(d) for d in outcome])


def isOwn(error: Any) -> bool:
    """
    Whether an exception tells of an odd object, and not of the loss of a worker, nor of a wait.
    """
    return not issubclass(type(error), (WorkerLost, TimeoutError))


class Line:
    """
    Calls with odd objects, each between two others.
    """

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        #: What went wrong.
        self.wrong: list[str] = []

    async def check(self, what: str, make: Callable[[], Deferred[Any]]) -> None:
        """
        Make an odd call.
        """
        before = self.bench.call("plain", 1)
        odd = make()
        after = self.bench.call("plain", 2)
        if not await ended(odd):
            self.wrong.append(what)
        del odd
        (first, pid), (second, same) = [await soon(d) for d in (before, after)]
        if (first, second, same) != (1, 2, pid):
            self.wrong.append(f"beside {what}")


@pytest.mark.parametrize("kind", KINDS)
@ensureDeferred
async def test_oddObjectsHarmTheirOwnCalls(kind: str, tmp_path: Path) -> None:
    """
    Arguments, results, exceptions and items that raise when they are looked at end their own
    calls, with a value or an error that is not the loss of the worker; calls beside them are
    made by the same process.
    """
    async with KINDS[kind](tmp_path) as bench:
        line = Line(bench)
        for number in NUMBERS:
            odd, exception = oddities.OBJECTS[number], oddities.EXCEPTIONS[number]
            await line.check(f"argument: {odd}", partial(bench.call, "take", odd()))
            for name, what in (
                ("give", odd),
                ("fail", exception),
                ("failLater", exception),
                ("items", odd),
            ):
                await line.check(f"{name}: {what}", partial(bench.call, name, number))
        assert line.wrong == []


@pytest.mark.parametrize("kind", ["thread", "process", "pickle"])
@ensureDeferred
async def test_oddObjectsInMaps(kind: str, tmp_path: Path) -> None:
    """
    In a map they are outcomes of their items, and the others have their results.
    """
    async with KINDS[kind](tmp_path) as bench:
        for name in ("give", "fail"):
            for outcome in await outcomes(bench.queue.map(bench.f(name), NUMBERS)):
                assert type(outcome) is not Failure or isOwn(outcome.value)
        given = [each for odd in oddities.OBJECTS for each in (odd(), 1)]
        came = await outcomes(bench.queue.map(bench.f("take"), iter(given)))
        assert came[1::2] == ["taken"] * len(oddities.OBJECTS)


async def outcomes(results: Deferator) -> list[Any]:
    """
    What has come of each item.
    """
    came: list[Any] = []
    for d in results:
        await soon(d.addBoth(came.append))
    return came


@pytest.mark.parametrize("kind", ["thread", "process"])
@ensureDeferred
async def test_oddUpdates(kind: str, tmp_path: Path) -> None:
    """
    An update with one of them fails, or does not, and the worker goes on.
    """
    async with KINDS[kind](tmp_path) as bench:
        line, f = Line(bench), bench.f("take")
        for odd in oddities.OBJECTS:
            update = partial(bench.queue.update, f, odd(), ephemeral=True)
            await line.check(f"update: {odd}", update)
        assert line.wrong == []


def returned(d: Deferred[Any]) -> Deferred[Any]:
    """
    The same.
    """
    return d


def consuming(kind: type[Any]) -> Any:
    """
    A consumer that raises when it is looked at.
    """
    both: type[Any] = type(kind.__name__, (kind, ListConsumer), {})
    return both


@pytest.mark.parametrize("kind", ["async", "thread", "process"])
@ensureDeferred
async def test_oddConsumers(kind: str, tmp_path: Path) -> None:
    """
    A consumer that is odd gets its items, or its call fails or is refused.
    """
    async with KINDS[kind](tmp_path) as bench:
        line = Line(bench)
        for odd in oddities.OBJECTS:
            consumer = consuming(odd)()
            try:
                d = bench.call("items", NUMBERS[-1], consumer=consumer)
            except ImplementationError:
                continue
            await line.check(f"consumer: {odd}", partial(returned, d))
        assert line.wrong == []


def told(result: Any) -> str:
    """
    What a result of a TaskPool is, or the name of the type of what it raises.
    """
    try:
        return str(result.get(PATIENCE))
    except BaseException as error:
        return type(error).__name__


def test_oddObjectsInAPool() -> None:
    """
    In a TaskPool, too, they harm their own calls only.
    """
    pool = TaskPool(1)
    pool.start()
    first = told(pool.apply_async(oddities.plain, (1,)))
    for number in NUMBERS:
        odd = [
            pool.apply_async(oddities.take, (oddities.OBJECTS[number](),)),
            pool.apply_async(oddities.give, (number,)),
            pool.apply_async(oddities.fail, (number,)),
        ]
        after = pool.apply_async(oddities.plain, (1,))
        assert not {"WorkerLostError", "TimeoutError"} & {*map(told, odd)}
        assert told(after) == first
    pool.stop()


@pytest.mark.parametrize("error", [ValueError, SystemExit])
def test_anInitializerThatCannotBePickled(error: type[BaseException]) -> None:
    """
    A pool that cannot start a process with it says that to those that call.
    """
    (odd,) = [
        kind
        for kind in oddities.OBJECTS
        if kind.__name__.endswith(f"{error.__name__} when it is pickled")
    ]
    pool = TaskPool(1, initializer=oddities.take, initargs=(odd(),))
    pool.start()
    with pytest.raises(WorkerError, match=f"no process can be started: {error.__name__}: odd"):
        pool.apply_async(oddities.plain, (1,)).get(PATIENCE)
    pool.terminate()
