"""
Calls that travel closed: a host with processes passes on what comes and goes as it came. The
host is in this process, so whatever it would unpickle were unpickled here.
"""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import CancelledError, Deferred

from asynqueue import ExecutorWorker, ThreadWorker
from asynqueue.errors import MaybeEncodingError, RemoteError, RemoteTraceback, WorkerLost
from asynqueue.framing import LARGEST
from asynqueue.reactors import theReactor
from asynqueue.taskqueue import TaskQueue
from asynqueue.wire.client.worker import WireWorker
from asynqueue.wire.host.catalog import Catalog, WireWorkerUniverse
from asynqueue.wire.host.server import WireServer
from tests.integration.process_checks import PATIENCE, until
from tests.integration.travellers import Journeys, Trap, Traveller, TravellingError, fail, hang
from tests.integration.wire_hosts import Serving
from tests.mains import mainOf

# The items of a test are fewer.
MOST = 10_000

PROGRAM = """
from asynqueue import WireWorkerUniverse

class Point:
    x = 5

class PointError(Exception):
    pass

class Points(WireWorkerUniverse):
    def points(self):
        yield 1
        yield Point()
        yield Point()
        raise PointError("no point")

    def point(self):
        return Point()

    def fails(self):
        raise PointError("no point")
"""


@asynccontextmanager
async def journeys(
    folder: Path,
    universe: type[WireWorkerUniverse] = Journeys,
    largest: int = LARGEST,
    **options: Any,
) -> AsyncIterator[TaskQueue]:
    """
    A queue whose calls are made by a host in this process.
    """
    where = f"unix:{folder}/socket"
    server = WireServer(where, universe, **options)
    await server.start()
    queue = TaskQueue(WireWorker(universe(), where, largest=largest))
    try:
        yield queue
    finally:
        await leave(queue)
        await queue.shutdown()
        await server.stop(0)


async def leave(queue: TaskQueue) -> None:
    """
    Cut the connections of a queue.
    """
    for worker in queue.workers():
        await queue.detachWorker(worker, crash=True)


async def soon(d: Any) -> Any:
    """
    What a call returns, which must not take long.
    """
    return await d.addTimeout(PATIENCE, theReactor())


@ensureDeferred
async def test_theHostOpensNothing(tmp_path: Path) -> None:
    """
    Arguments, results and exceptions are unpickled where the call is made and where it came
    from, and not on the way between.
    """
    here = os.getpid()
    async with journeys(tmp_path, processes=1) as queue:
        there = await soon(queue.call("pid"))
        assert (await soon(queue.call("same", Traveller()))).pids == [there, here]
        value = await soon(queue.call("same", (os.urandom(1 << 20), Traveller())))
        assert value[1].pids == [there, here]
        with pytest.raises(TravellingError) as caught:
            await soon(queue.call("raises"))
        assert caught.value.args[0].pids == [here]
        assert isinstance(caught.value.__cause__, RemoteTraceback)
        assert "in raises" in str(caught.value.__cause__)


@ensureDeferred
async def test_valuesOfAllSizes(tmp_path: Path) -> None:
    """
    What was sent comes back the same, whatever its size, and whether it is beside the pickle.
    """
    async with journeys(tmp_path, processes=1) as queue:
        for size in (0, 1, 1 << 13, 1 << 15, 1 << 17, 1 << 20):
            data = os.urandom(size)
            array = bytearray(data)
            assert await soon(queue.call("same", data)) == data
            assert await soon(queue.call("same", [array, data], other=array)) == [array, data]


@ensureDeferred
async def test_argumentsThatHang(tmp_path: Path) -> None:
    """
    Arguments whose unpickling hangs occupy one process of the host: the calls of others go on,
    and a cancellation ends it.
    """
    path = tmp_path / "hangs"
    async with journeys(tmp_path, processes=2) as queue:
        hanging = queue.call("same", Trap(hang, str(path)))
        await until(path.exists)
        for number in range(10):
            assert await soon(queue.call("same", number)) == number
        hanging.cancel()
        with pytest.raises(CancelledError):
            await soon(hanging)
        pids = {await soon(queue.call("pid")) for _ in range(10)}
        assert os.getpid() not in pids


@ensureDeferred
async def test_argumentsAndResultsThatFail(tmp_path: Path) -> None:
    """
    Arguments that raise or end the process as they are unpickled, and results that cannot be
    pickled or unpickled, fail their own call only.
    """
    async with journeys(tmp_path, processes=1) as queue:
        with pytest.raises(ValueError, match="as it is read"):
            await soon(queue.call("same", Trap(fail, "as it is read")))
        with pytest.raises(WorkerLost, match="same"):
            await soon(queue.call("same", Trap(signal.raise_signal, signal.SIGKILL)))
        with pytest.raises(MaybeEncodingError, match="lock"):
            await soon(queue.call("unpicklable"))
        with pytest.raises(MaybeEncodingError, match="not here"):
            await soon(queue.call("unreadable"))
        assert await soon(queue.call("same", 1)) == 1


@ensureDeferred
async def test_exceptionsThatAreTooLarge(tmp_path: Path) -> None:
    """
    Of an exception that is larger than a message may be, its name, the begin of what it
    says and its traceback arrive.
    """
    async with journeys(tmp_path, largest=1 << 20, processes=1) as queue:
        for size in (1 << 17, 1 << 20):
            with pytest.raises((ValueError, RemoteError), match="much") as caught:
                await soon(queue.call("fails", "much", size // 4))
            assert isinstance(caught.value, RemoteError) == (size == 1 << 20)
            assert "ValueError" in repr(caught.value)
            assert isinstance(caught.value.__cause__, RemoteTraceback)


@ensureDeferred
async def test_whatOnlyTheProgramOfTheHostHas(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Results and exceptions that need the main module of the host arrive, too: the host opens
    them.
    """
    main = mainOf(PROGRAM, monkeypatch)
    async with journeys(tmp_path, main["Points"], processes=1) as queue:
        assert (await soon(queue.call("point"))).x == 5
        with pytest.raises(main["PointError"], match="no point"):
            await soon(queue.call("fails"))
        one, *points, error = await itemsOf(queue.call("points"))
        assert (one, [point.x for point in points]) == (1, [5, 5])
        assert isinstance(error, main["PointError"])


async def itemsOf(call: Any) -> list[Any]:
    """
    The items of a call, and failures in their places.
    """
    found: list[Any] = []
    deferator = await soon(call)
    while len(found) < MOST:
        try:
            found.append(await soon(Deferred.fromCoroutine(anext(deferator))))
        except StopAsyncIteration:
            return found
        except Exception as error:
            # Whatever has come in the place of an item.
            found.append(error)
    raise AssertionError(f"more than {MOST:,} items")


@ensureDeferred
async def test_callsBehindOneThatEndsTheProcess(tmp_path: Path) -> None:
    """
    Calls that were sent to a process, and not begun as it ended, are made by the next one, with
    their arguments as they came.
    """
    async with journeys(tmp_path, processes=1) as queue:
        large = bytearray(os.urandom(1 << 18))
        calls: list[Any] = [queue.call("same", [number, large]) for number in range(10)]
        deadly = queue.call("same", Trap(signal.raise_signal, signal.SIGKILL))
        calls += [queue.call("same", [number, large]) for number in range(10, 20)]
        with pytest.raises(WorkerLost):
            await soon(deadly)
        assert [await soon(call) for call in calls] == [[number, large] for number in range(20)]


@ensureDeferred
async def test_theHostOpensNoItems(tmp_path: Path) -> None:
    """
    Items of iterators, and what iterators raise, are unpickled where they are read only.
    """
    here = os.getpid()
    async with journeys(tmp_path, processes=1) as queue:
        for number in (0, 1, 1000):
            *items, error = await itemsOf(queue.call("items", number))
            assert [item.pids for item in items] == [[here]] * number
            assert isinstance(error, TravellingError)
            assert error.args[0].pids == [here]


@ensureDeferred
async def test_itemsOfAllKinds(tmp_path: Path) -> None:
    """
    Items come all and in order, with failures in the places of those that cannot be sent, or be
    read here.
    """
    async with journeys(tmp_path, processes=1, largest=1 << 20) as queue:
        for number in (0, 1, 2, 3, 5000):
            assert await itemsOf(queue.call("numbers", number)) == list(range(number))
        assert await itemsOf(queue.call("slowly", 100)) == list(range(100))
        for size, kind in ((10, bytes), (1 << 19, bytes), (1 << 21, MaybeEncodingError)):
            items = await itemsOf(queue.call("mixed", size))
            kinds = [int, MaybeEncodingError, kind, MaybeEncodingError, int]
            assert [type(item) for item in items] == kinds
        *items, error = await itemsOf(queue.call("lost", 100))
        assert items == list(range(len(items)))
        assert isinstance(error, WorkerLost)
        assert await soon(queue.call("same", 1)) == 1


@ensureDeferred
async def test_anIteratorThatIsClosed(tmp_path: Path) -> None:
    """
    An iterator that nobody reads any more is closed in its process, which makes other calls
    meanwhile; so is one whose reader is gone with its connection.
    """
    path = tmp_path / "closed"
    async with journeys(tmp_path, processes=1) as queue:
        deferator = await soon(queue.call("forever", str(path)))
        assert [await soon(Deferred.fromCoroutine(anext(deferator))) for _ in range(3000)] == list(
            range(3000)
        )
        assert await soon(queue.call("same", 1)) == 1
        deferator.stop()
        await until(path.exists)
        assert await soon(queue.call("same", 1)) == 1
        lost = tmp_path / "lost"
        deferator = await soon(queue.call("forever", str(lost)))
        await soon(Deferred.fromCoroutine(anext(deferator)))
        await leave(queue)
        await until(lost.exists)


@ensureDeferred
async def test_theHostOpensNoCallables(tmp_path: Path) -> None:
    """
    A callable that a queue sends is unpickled where it is called, too, with the object that it
    belongs to; it is made anew for each call that might change it.
    """
    here = os.getpid()
    path = tmp_path / "hangs"
    async with journeys(tmp_path, trust="code", processes=2) as queue:
        there = await soon(queue.call(os.getpid))
        assert there != here
        hanging = queue.call(partial(len, Trap(hang, str(path))))
        await until(path.exists)
        traveller = Traveller()
        for _ in range(3):
            (found,) = await soon(queue.call(traveller.whereabouts))
            assert found != here
        assert await soon(queue.call(lambda: [os.getpid()])) != [here]
        hanging.cancel()
        with pytest.raises(CancelledError):
            await soon(hanging)


@ensureDeferred
async def test_overTwoHosts(tmp_path: Path) -> None:
    """
    A host that has another one make the calls, or an executor, passes on arguments and code,
    too.
    """
    universe = Journeys()
    inner = await Serving(TaskQueue(ThreadWorker()), Catalog(universe, trust="code")).listen()
    with ThreadPoolExecutor(1) as pool:
        for worker in (WireWorker(universe, inner.description), ExecutorWorker(pool)):
            outer = await Serving(TaskQueue(worker), Catalog(universe, trust="code")).listen()
            queue = TaskQueue(WireWorker(universe, outer.description))
            assert await soon(queue.call("same", [1], other=2)) == [1]
            assert await soon(queue.call(lambda value: value + 1, 5)) == 6
            assert await soon(queue.call(partial(len, "three"))) == 5
            await queue.shutdown()
            await outer.close()
    await inner.close()


@ensureDeferred
async def test_threadsOpenWhatTheyCall(tmp_path: Path) -> None:
    """
    A call in a thread of the host has its arguments unpickled in that thread.
    """
    async with journeys(tmp_path, processes=1) as queue:
        value = await soon(queue.call("same", Traveller(), thread=True))
        (pid, first), (_, second) = value.places
        assert pid == os.getpid()
        assert first != second
