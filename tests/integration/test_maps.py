"""
Maps over real processes: many items travel in one task, and each is on its own.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from threading import Lock
from typing import Any

import psutil
import pytest
import pytest_twisted
from twisted.internet.task import deferLater

from asynqueue import CallOptions, Deferator, ProcessQueue, TaskQueue, ThreadWorker, WorkerLost
from asynqueue.errors import MaybeEncodingError
from asynqueue.mapping.board import ProgressBoard
from asynqueue.mapping.chunks import Chunk, pack
from asynqueue.outcome import Returned
from asynqueue.reactors import theReactor
from asynqueue.testing import RecordingObserver
from asynqueue.workers.process import ProcessWorker
from tests.doubles import outcomes
from tests.integration.map_calls import (
    dieOnce,
    double,
    hang,
    later,
    noted,
    nothing,
    upTo,
    upToLater,
    warn,
)

pytestmark = pytest.mark.skipif(
    not ProgressBoard.isPossible(), reason="memory cannot be shared here"
)


async def allOf(results: Any) -> list[Any]:
    """
    All results of a map, failures as they are.
    """
    return [result async for result in outcomes(results)]


@pytest.mark.parametrize("ordered", [True, False])
@pytest_twisted.ensureDeferred
async def test_manyItemsInFewTasks(ordered: bool) -> None:
    """
    Many cheap items are few tasks, and each has its result, while the queue is observed, too.
    """
    queue, observer = ProcessQueue(2), RecordingObserver()
    queue.addObserver(observer)
    results = await allOf(queue.map(double, range(20_000), ordered=ordered))
    assert results == sorted(results) or not ordered
    assert sorted(results) == list(range(0, 40_000, 2))
    assert observer.names().count("done") == queue.statistics().done < 5000
    await queue.shutdown()


@pytest_twisted.ensureDeferred
async def test_deathCostsOneItem(tmp_path: Path) -> None:
    """
    A process that dies costs the one item that it was at: those before it have
    their results, and those after it are called elsewhere; each is begun once.
    """
    queue = ProcessQueue(2)
    path = tmp_path / "begun"
    results = await allOf(queue.map(noted, range(2000), str(path), deadly=1234))
    lost = results.pop(1234)
    assert isinstance(lost, WorkerLost)
    assert lost.signal == signal.SIGKILL
    assert lost.call.startswith("noted(1234, ")
    assert results == [n for n in range(2000) if n != 1234]
    assert sorted(map(int, path.read_text().split())) == list(range(2000))
    assert queue.statistics().done < 2000
    await queue.shutdown()


@pytest_twisted.ensureDeferred
async def test_closedProcessBeginsNoMore() -> None:
    """
    What a chunk has begun as it is closed is known, while its process goes on: no item that
    is not counted then is begun, wherever that process is.
    """
    queue, board = ProcessQueue(1), ProgressBoard()
    chunk = Chunk(nothing, seconds=60.0)
    packed, together, count = pack([0] * 50_000)
    for least in range(0, 20_000, 1000):
        slot = board.take()
        assert slot is not None
        d = queue.call(chunk, board.name, slot, packed, together)
        while board.begun(slot) <= least and not d.called:
            await deferLater(theReactor(), 0)
        closed = board.close(slot)
        summary = await d
        assert least < closed <= count
        assert closed - summary.ended in (0, 1)
        assert board.outcomes(slot) == [Returned(None)] * summary.ended
        board.give(slot)
    board.shut()
    await queue.shutdown()


@pytest_twisted.ensureDeferred
async def test_lostItemsAreRetried(tmp_path: Path) -> None:
    """
    Items whose process died are called again, if they may be.
    """
    queue = ProcessQueue(2)
    options = CallOptions(retries=1)
    results = await allOf(queue.map(dieOnce, range(2000), str(tmp_path), options=options))
    assert results == list(range(2000))
    await queue.shutdown()


@pytest_twisted.ensureDeferred
async def test_functionsOfThisProgram() -> None:
    """
    A closure may be mapped; what cannot be pickled fails its own item.
    """
    queue = ProcessQueue(2)
    more = 5
    results = await allOf(queue.map(lambda n: n + more, range(500)))
    assert results == list(range(5, 505))
    (result,) = await allOf(queue.map(lambda n: Lock(), [1]))
    assert isinstance(result, MaybeEncodingError)
    await queue.shutdown()


RAW = CallOptions(raw=True)


@pytest.mark.parametrize("function", [upTo, upToLater])
@pytest_twisted.ensureDeferred
async def test_iterators(function: Any) -> None:
    """
    A function that returns iterators, of either kind, gives a Deferator for each.
    """
    queue = ProcessQueue(2)
    sizes = [3, 0, 5, 1] * 5
    deferators = await allOf(queue.map(function, sizes))
    assert all(isinstance(deferator, Deferator) for deferator in deferators)
    assert [await allOf(deferator) for deferator in deferators] == [list(range(n)) for n in sizes]
    await queue.shutdown()


@pytest_twisted.ensureDeferred
async def test_rawIterators() -> None:
    """
    With C{raw}, or in a worker that has it, iterators come as they are.
    """
    for queue, options in [(ProcessQueue(1), RAW), (ProcessQueue(1, raw=True), CallOptions())]:
        results = await allOf(queue.map(iter, [[1, 2], [3]] * 30, options=options))
        assert [list(items) for items in results] == [[1, 2], [3]] * 30
        await queue.shutdown()


@pytest_twisted.ensureDeferred
async def test_coroutines() -> None:
    """
    A coroutine function is run to its end, for each item.
    """
    queue = ProcessQueue(2)
    assert await allOf(queue.map(later, range(50))) == list(range(50))
    await queue.shutdown()


@pytest_twisted.ensureDeferred
async def test_itemThatHangsKeepsNoOther(tmp_path: Path) -> None:
    """
    An item that takes for ever keeps back none of its chunk; and it is ended when
    the map is stopped.
    """
    os.mkfifo(tmp_path / "gate")
    queue = ProcessQueue(2, grace=0.1)
    path = str(tmp_path / "gate")
    results = queue.map(hang, range(1000), path, ordered=False)
    taken = [await anext(results) for _ in range(999)]
    with open(path, encoding="ascii") as file:
        pid = int(file.read())
    assert sorted(taken) == [n for n in range(1000) if n != 300]
    assert psutil.pid_exists(pid)
    results.stop()
    await queue.shutdown()
    assert not psutil.pid_exists(pid)


@pytest_twisted.ensureDeferred
async def test_nothingIsLeftOpen() -> None:
    """
    Maps leave no descriptors behind, neither here nor in the processes.
    """
    queue = ProcessQueue(1)
    await allOf(queue.map(double, range(1000)))
    (pid,) = queue.stats()[0].pids
    here, there = psutil.Process().num_fds(), psutil.Process(pid).num_fds()
    for _ in range(30):
        await allOf(queue.map(double, range(100)))
        queue.map(double, range(100)).stop()
    assert (psutil.Process().num_fds(), psutil.Process(pid).num_fds() <= there + 10) == (here, True)
    await queue.shutdown()


@pytest_twisted.ensureDeferred
async def test_otherWorkersHaveSingleCalls() -> None:
    """
    Where a worker has no process of its own, each call has a time limit, or calls are
    logged, each item is a task.
    """
    queue = TaskQueue(ProcessWorker(), ThreadWorker())
    assert await allOf(queue.map(double, range(100))) == list(range(0, 200, 2))
    assert queue.statistics().done == 100
    await queue.shutdown()
    for logged, timeout in ((False, 60), (True, None)):
        queue = ProcessQueue(1, warn=logged)
        options = CallOptions(timeout=timeout)
        results = await allOf(queue.map(double, range(100), options=options))
        assert results == list(range(0, 200, 2))
        assert queue.statistics().done == 100
        await queue.shutdown()


@pytest_twisted.ensureDeferred
async def test_logsComeAlong(caplog: pytest.LogCaptureFixture) -> None:
    """
    What functions log, each item of a chunk, is logged here.
    """
    queue = ProcessQueue(1)
    await allOf(queue.map(warn, range(300)))
    await queue.shutdown()
    messages = [record.getMessage() for record in caplog.records if record.name == "a map"]
    # Where the process was slow, some may have been taken back and made later.
    assert sorted(messages) == sorted(f"number {n}" for n in range(300))


@pytest_twisted.ensureDeferred
async def test_workerThatCrashes() -> None:
    """
    Of a worker that crashes, the items that were begun are lost, and no more.
    """
    queue = ProcessQueue(2)
    results = queue.map(double, range(50_000))
    taken: list[Any] = [await anext(results) for _ in range(2000)]
    queue.detachWorker(1, crash=True)
    taken += await allOf(results)
    lost = [n for n, result in enumerate(taken) if isinstance(result, WorkerLost)]
    assert len(lost) <= 1
    assert [r for r in taken if not isinstance(r, Exception)] == [
        2 * n for n in range(50_000) if n not in lost
    ]
    await queue.shutdown()
