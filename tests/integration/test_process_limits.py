"""
How long the children of L{ProcessQueue} live and how much they may use; how they are
prepared, and how tasks in them are cancelled.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import CancelledError, Deferred, DeferredList, gatherResults

from asynqueue import ProcessQueue, ProcessWorker, TaskQueue, WorkerLost
from asynqueue.testing import Gate
from asynqueue.testing.calls import nextNumber, waitAt
from tests.doubles import Heard, readingLogs
from tests.integration import coroutine_calls, process_calls as calls
from tests.integration.process_checks import Used, until

MB = 1 << 20


def impatient(count: int = 1, **options: Any) -> TaskQueue:
    """
    Make a queue that gives children up that fail as they start, after a moment.
    """
    workers = [ProcessWorker(now=lambda: 1000 * monotonic(), **options) for _ in range(count)]
    return TaskQueue(*workers)


# Cancelling


@ensureDeferred
@pytest.mark.parametrize(
    ("wait", "error"),
    [
        (calls.waitInterrupted, "TaskInterrupted"),
        (coroutine_calls.waitCancelled, "asyncio.exceptions.CancelledError"),
    ],
)
async def test_cancelled(wait: Any, error: str, tmp_path: Path) -> None:
    """
    A task that is cancelled gets an exception, can clean up, and its child lives on.
    """
    queue, gate, path = ProcessQueue(1), Gate(), tmp_path / "notes"
    first = await queue.call(calls.pid)
    for number in range(1, 6):
        d = queue.call(wait, gate.token, str(path))
        await gate.arrivals(number)
        d.cancel()
        with pytest.raises(CancelledError):
            await d
    assert await queue.call(calls.pid) == first
    assert path.read_text().split() == [error, "finally"] * 5
    await queue.shutdown()
    await gate.close()


@ensureDeferred
@pytest.mark.parametrize("swallow", [calls.swallowForever, coroutine_calls.swallowCancelled])
async def test_cancelledInVain(swallow: Any) -> None:
    """
    A task that will not end when it is cancelled is killed after the grace; only its
    child is replaced, and nothing that had not begun there is lost.
    """
    queue = TaskQueue(ProcessWorker(grace=0.05), ProcessWorker(series=["other"]))
    gate = Gate()
    other = await queue.call(calls.pid, series="other")
    d = queue.call(swallow, gate.token)
    after = [queue.call(calls.pid) for _ in range(10)]
    await gate.arrivals(1)
    d.cancel()
    with pytest.raises(CancelledError):
        await d
    await gatherResults(after)
    assert await queue.call(calls.pid, series="other") == other
    await until(lambda: sum(worker.stats().lost for worker in queue.workers()) == 1)
    await queue.shutdown()
    await gate.close()


@ensureDeferred
async def test_cancelledBeforeItBegins(tmp_path: Path) -> None:
    """
    A task that has not begun when it is cancelled never runs, also when it was sent
    to the child already.
    """
    queue, gate, path = ProcessQueue(1), Gate(), tmp_path / "notes"
    path.touch()
    await gatherResults([queue.call(calls.pid) for _ in range(500)])
    held = queue.call(waitAt, gate.token)
    await gate.arrivals(1)
    waiting = [Heard(queue.call(calls.note, str(path), str(n))) for n in range(20)]
    for each in waiting[::2]:
        each.d.cancel()
    gate.open()
    await held
    await DeferredList([each.d for each in waiting])
    assert path.read_text().split() == [str(number) for number in range(1, 20, 2)]
    assert all(isinstance(each.error, CancelledError) for each in waiting[::2])
    await queue.shutdown()
    await gate.close()


@ensureDeferred
async def test_cancelledInTheLastBatch(tmp_path: Path) -> None:
    """
    A task that is lined up in a child's last batch is cancelled without harm to the one
    that runs, and the others are made once, by another child where there is one.
    """
    queue, gate, path = ProcessQueue(1, maxTasks=40), Gate(), tmp_path / "notes"
    path.touch()
    for _ in range(5):
        await gatherResults([queue.call(calls.pid) for _ in range(7)])
    first = queue.call(waitAt, gate.token)
    await gate.arrivals(1)
    waiting = [Heard(queue.call(calls.note, str(path), str(number))) for number in range(6)]
    waiting[1].d.cancel()
    idle = ProcessWorker()
    await queue.attachWorker(idle)
    await DeferredList([each.d for each in waiting])
    assert idle.stats().tasks == 5
    gate.open()
    await first
    assert path.read_text().split() == ["0", "2", "3", "4", "5"]
    assert isinstance(waiting[1].error, CancelledError)
    assert sum(worker.stats().lost for worker in queue.workers()) == 0
    await queue.shutdown()
    await gate.close()


# Memory, and the number of tasks


@ensureDeferred
async def test_tooMuchMemory() -> None:
    """
    A task that takes memory without end is killed, and its error says why.
    """
    queue = ProcessQueue(1, maxMemory=100 * MB)
    with pytest.raises(WorkerLost, match=r"bytes of memory, where maxMemory is 104,857,600"):
        await queue.call(calls.allocateForever)
    assert await queue.call(pow, 2, 5) == 32
    await queue.shutdown()


@ensureDeferred
async def test_leakingChild() -> None:
    """
    A child that has too much memory when a task ends is replaced, and no task is lost.
    """
    queue = ProcessQueue(1, maxMemory=100 * MB)
    pids = await gatherResults([queue.call(calls.leak, 30 * MB) for _ in range(12)])
    pids += [await queue.call(calls.leak, 30 * MB) for _ in range(6)]
    assert len(set(pids)) >= 3
    await queue.shutdown()


@ensureDeferred
@pytest.mark.parametrize("initializer", [None, calls.prepare])
async def test_maxTasks(initializer: Any) -> None:
    """
    A child makes as many calls as it may, and is replaced.
    """
    initargs = () if initializer is None else ("word",)
    queue = ProcessQueue(1, maxTasks=3, initializer=initializer, initargs=initargs)
    pids = [await queue.call(calls.pid) for _ in range(9)]
    assert Counter(pids) == dict.fromkeys(pids, 3)
    many = Counter(await gatherResults([queue.call(calls.pid) for _ in range(30)]))
    assert max(many.values()) <= 3
    await queue.shutdown()


@ensureDeferred
async def test_theNextChildIsThereInTime() -> None:
    """
    While a child makes the last of its calls the next one starts, and makes those that follow;
    it knows also what was to prepare it meanwhile.
    """
    queue, gate = ProcessQueue(1, maxTasks=3), Gate()
    (first,) = {await queue.call(calls.pid) for _ in range(2)}
    waiting = queue.call(waitAt, gate.token)
    await gate.arrivals(1)
    (stats,) = queue.stats()
    assert (stats.started, len(stats.pids)) == (2, 2)
    following = queue.call(calls.pid)
    gate.open()
    await waiting
    assert {first, await following} == set(stats.pids)
    await queue.call(calls.pid)
    assert await queue.update(calls.prepare, "late") == [None]
    assert (await queue.call(calls.preparedWith))[1] == ["late"]
    await queue.shutdown()
    await gate.close()


@ensureDeferred
async def test_oneAfterTheOther(tmp_path: Path) -> None:
    """
    While children are replaced, tasks of one worker still run one after the other.
    """
    queue, path = ProcessQueue(1, maxTasks=5), tmp_path / "notes"
    await gatherResults([queue.call(calls.notedSpan, str(path)) for _ in range(60)])
    assert path.read_text().split() == ["begin", "end"] * 60
    await queue.shutdown()


@ensureDeferred
async def test_idleChildrenEnd() -> None:
    """
    Children beyond the minimum end when they have had nothing to do for a while, and
    come back with work.
    """
    queue, gate = ProcessQueue(2, minimum=1, idleTimeout=0.1), Gate()
    waiting = [queue.call(waitAt, gate.token) for _ in range(2)]
    await gate.arrivals(2)
    gate.open()
    await gatherResults(waiting)
    await until(lambda: [len(each.pids) for each in queue.stats()] == [1, 0])
    assert await gatherResults([queue.call(pow, 2, n) for n in range(20)])
    await queue.shutdown()
    await gate.close()


@ensureDeferred
async def test_minimumIsThereAtOnce() -> None:
    """
    A minimum of children is started before there is any task; none, without.
    """
    queue, lazy = ProcessQueue(3, minimum=2), ProcessQueue(3)
    assert [len(each.pids) for each in queue.stats()] == [1, 1, 0]
    assert [each.started for each in lazy.stats()] == [0, 0, 0]
    await queue.shutdown()
    await lazy.shutdown()


@ensureDeferred
async def test_statisticsHaveTheLatestCall() -> None:
    """
    When a call has its result, its time is in the statistics, too.
    """
    queue = ProcessQueue(1)
    for number in range(1, 6):
        before = queue.stats()[0].seconds
        await queue.call(calls.aTick)
        (after,) = queue.stats()
        assert (after.tasks, after.seconds > before) == (number, True)
    await queue.shutdown()


# Preparations


@ensureDeferred
async def test_preparedOnce() -> None:
    """
    The initializer runs once in each child, and so do updates, also in those that
    come later.
    """
    queue = ProcessQueue(1, initializer=calls.prepare, initargs=["first"])
    assert await queue.update(calls.prepare, "second") == [None]
    before, words = await queue.call(calls.preparedWith)
    assert words == ["first", "second"]
    await queue.update(calls.prepare, "ephemeral", ephemeral=True)
    with pytest.raises(WorkerLost):
        await queue.call(calls.exitAtOnce, 1)
    after, words = await queue.call(calls.preparedWith)
    assert words == ["first", "second"]
    assert before != after
    await queue.shutdown()


@ensureDeferred
async def test_initializerThatRaises() -> None:
    """
    Where the initializer raises, tasks fail and are told so: none hangs, however
    many there are.
    """
    used = Used()
    queue = impatient(2, initializer=calls.refuse)
    heard = [Heard(queue.call(nextNumber)) for _ in range(500)]
    with readingLogs() as logs:
        await DeferredList([each.d for each in heard])
    for each in heard:
        assert isinstance(each.error, WorkerLost)
        assert "refuse() raised LookupError: no database today" in str(each.error)
        assert not each.error.begun
    assert any("no database today" in text for text in logs.said())
    await queue.shutdown()
    assert used.more() == {}


@ensureDeferred
async def test_initializerThatCannotBePickled() -> None:
    """
    Where the initializer cannot be sent, tasks fail and are told so; no process is
    left of the attempts.
    """
    used = Used()
    queue = impatient(initializer=calls.prepare, initargs=[calls.makeLock()])
    for _ in range(5):
        with pytest.raises(WorkerLost, match="cannot pickle"):
            await queue.call(pow, 2, 5)
    assert used.more() == {}
    await queue.shutdown()


@ensureDeferred
async def test_initializerThatEndsItsProcess() -> None:
    """
    Where children die as they start, there are some attempts, and then the tasks fail
    with the reason.
    """
    queue = impatient(initializer=calls.exitAtOnce, initargs=[9])
    heard = [Heard(queue.call(nextNumber)) for _ in range(50)]
    await DeferredList([each.d for each in heard])
    assert all("exit code 9" in str(each.error) for each in heard)
    await queue.shutdown()


@ensureDeferred
async def test_childrenThatCannotStart(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Where children cannot even import, tasks fail with what they said last; when that
    is mended, the queue serves.
    """
    queue = impatient()
    with monkeypatch.context() as broken:
        broken.setattr(sys, "path", ["/nowhere", Path("/nowhere")])
        broken.delenv("PYTHONPATH", raising=False)
        heard = [Heard(queue.call(nextNumber)) for _ in range(20)]
        await DeferredList([each.d for each in heard])
    assert all("exit code 1" in str(each.error) for each in heard)
    assert any("ModuleNotFoundError" in str(each.error) for each in heard)
    served: list[Any] = []

    def attempt() -> bool:
        d: Deferred[Any] = queue.call(pow, 2, 5)
        d.addCallbacks(served.append, lambda _: None)
        return bool(served)

    await until(attempt)
    await queue.shutdown()
