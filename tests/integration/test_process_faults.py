"""
L{ProcessQueue} while its processes die, stop, or will not end.
"""

from __future__ import annotations

import os
import random
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import DeferredList, gatherResults
from twisted.internet.task import LoopingCall

from asynqueue import ProcessQueue, ProcessWorker, TaskQueue, TaskTimedOut, WorkerLost
from asynqueue.testing import Gate
from asynqueue.testing.calls import waitAt
from tests.doubles import Heard
from tests.integration import process_calls as calls
from tests.integration.process_checks import Used, children, isGone, until

# How many tasks there are while children are killed; more for a long trial.
MANY = int(os.environ.get("ASYNQUEUE_TEST_KILLS", "200"))

# Seconds between kills.
INTERVAL = 0.02


class Killer:
    """
    Kills one of the children that have begun to work, again and again.

    @ivar kills: how often it did.
    """

    def __init__(self, queue: ProcessQueue) -> None:
        self.kills = 0
        self._queue = queue
        self._known: set[int] = set()
        self._random = random.Random(5)
        self._loop = LoopingCall(self._kill)
        self._loop.start(INTERVAL, now=False)

    def know(self, result: tuple[int, int]) -> tuple[int, int]:
        """
        A task has ended in this process.
        """
        self._known.add(result[1])
        return result

    def _kill(self) -> None:
        pids = [pid for worker in self._queue.workers() for pid in worker.pids]
        found = [pid for pid in pids if pid in self._known]
        if found:
            self.kills += 1
            victim = self._random.choice(found)
            self._known.discard(victim)
            os.kill(victim, signal.SIGKILL)

    def stop(self) -> None:
        """
        Kill no more.
        """
        self._loop.stop()


async def manyWhileKilled(path: Path, retries: int) -> tuple[list[Heard], int]:
    """
    Make many calls while children are killed.

    @return: what the Deferreds fired with, and the number of kills.
    """
    queue = ProcessQueue(2)
    killer = Killer(queue)
    heard = []
    for number in range(MANY):
        d = queue.call(calls.notedNumber, str(path), number, retries=retries)
        heard.append(Heard(d.addCallback(killer.know)))
    await DeferredList([each.d for each in heard])
    killer.stop()
    await queue.shutdown()
    return heard, killer.kills


@pytest.mark.bulk
@ensureDeferred
async def test_killedWithRetries(tmp_path: Path) -> None:
    """
    While children are killed all the time, tasks that may be repeated give each
    its own result, once, and nothing is left of the children.
    """
    used = Used()
    heard, kills = await manyWhileKilled(tmp_path / "begun", retries=1000)
    assert [each.result[0] for each in heard] == list(range(MANY))
    assert kills > 5
    assert used.more() == {}


@pytest.mark.bulk
@ensureDeferred
async def test_killedWithoutRetries(tmp_path: Path) -> None:
    """
    A child that is killed costs one task at the most, one that it had begun; and
    no task is begun twice.
    """
    used = Used()
    path = tmp_path / "begun"
    heard, kills = await manyWhileKilled(path, retries=0)
    begun = Counter(int(line) for line in path.read_text().split())
    failed = [number for number, each in enumerate(heard) if not isinstance(each.result, tuple)]
    assert all(isinstance(heard[number].error, WorkerLost) for number in failed)
    assert {heard[number].error.signal for number in failed} <= {signal.SIGKILL}
    assert [each.result[0] for each in heard if isinstance(each.result, tuple)] == [
        number for number in range(MANY) if number not in failed
    ]
    assert len(failed) <= kills
    assert max(begun.values()) == 1
    # It may have been killed in the moment between.
    assert len([number for number in failed if number not in begun]) <= kills // 5
    assert used.more() == {}


@ensureDeferred
async def test_killedAsItStarts() -> None:
    """
    A child that is killed before it is up costs no task.
    """
    queue = ProcessQueue(1)
    waiting = [queue.call(pow, 2, number) for number in range(5)]
    (pid,) = queue.workers()[0].pids
    os.kill(pid, signal.SIGKILL)
    assert await gatherResults(waiting) == [1, 2, 4, 8, 16]
    await queue.shutdown()


@ensureDeferred
async def test_stoppedChild() -> None:
    """
    What a child that does not go on was sent, and has not begun, is run by another;
    and shutdown with a timeout ends it.
    """
    queue = ProcessQueue(2, timeout=0.1)
    await gatherResults([queue.call(calls.pid) for _ in range(500)])
    gate = Gate()
    held = Heard(queue.call(waitAt, gate.token))
    await gate.arrivals(1)
    pids = {pid for worker in queue.workers() for pid in worker.pids}
    (busy,) = pids - {await queue.call(calls.pid)}
    os.kill(busy, signal.SIGSTOP)
    assert set(await gatherResults([queue.call(calls.pid) for _ in range(500)])).isdisjoint({busy})
    await queue.shutdown()
    assert isinstance(held.error, WorkerLost)
    assert isGone(busy)
    await gate.close()


ENDS: dict[str, tuple[Callable[..., Any], tuple[Any, ...], str]] = {
    "exit": (calls.exitAtOnce, (3,), "exit code 3"),
    "exitWell": (calls.exitAtOnce, (0,), "exit code 0"),
    "abort": (calls.abort, (), "killed by SIGABRT"),
    "segfault": (calls.crashInC, (), "killed by SIGSEGV"),
    "kill": (os.kill, (0, signal.SIGTERM), "killed by SIGTERM"),
    "closeAll": (calls.closeAll, (), "exit code|killed by"),
}


@ensureDeferred
@pytest.mark.parametrize("end", ENDS)
async def test_taskThatEndsItsProcess(end: str) -> None:
    """
    A task that ends its process is lost, and tells how; those before and after it
    are not concerned.
    """
    f, args, how = ENDS[end]
    queue = ProcessQueue(1)
    if end == "kill":
        args = (await queue.call(calls.pid), signal.SIGTERM)
    before = [queue.call(pow, 2, number) for number in range(20)]
    lost = queue.call(f, *args)
    after = [queue.call(pow, 2, number) for number in range(20)]
    with pytest.raises(WorkerLost, match=how) as caught:
        await lost
    assert caught.value.begun
    expected = [2**number for number in range(20)]
    assert await gatherResults(before) == await gatherResults(after) == expected
    await queue.shutdown()


@ensureDeferred
@pytest.mark.parametrize("close", [calls.closeOutputs, calls.closeStreams])
async def test_outputsClosed(close: Callable[[], None]) -> None:
    """
    A task that closes its outputs harms neither itself nor those after it.
    """
    queue = ProcessQueue(1)
    assert await queue.call(close) is None
    first = await queue.call(calls.pid)
    assert await queue.call(calls.pid) == first
    await queue.shutdown()


@ensureDeferred
async def test_recursionWithoutEnd() -> None:
    """
    A recursion that is too deep is an error of its task.
    """
    queue = ProcessQueue(1)
    first = await queue.call(calls.pid)
    with pytest.raises(RecursionError):
        await queue.call(calls.recurse)
    with pytest.raises(Exception, match=r"cannot be sent.*RecursionError"):
        await queue.call(calls.nested, 100_000)
    with pytest.raises(RecursionError):
        await queue.call(len, calls.nested(100_000))
    assert await queue.call(calls.pid) == first
    await queue.shutdown()


@ensureDeferred
@pytest.mark.parametrize("hang", [calls.loopForever, calls.holdForever, calls.lockForever])
async def test_callThatNeverReturns(hang: Callable[..., None]) -> None:
    """
    A call that never returns ends at its timeout; if it cannot be interrupted its
    child is replaced, and no other child.
    """
    gate = Gate()
    queue = TaskQueue(ProcessWorker(series=["stuck"], grace=0.05), ProcessWorker())
    # Both are there, and know the module: that takes its time, too.
    await queue.update(calls.pid, ephemeral=True)
    stuck = queue.call(hang, gate.token, timeout=0.5, series="stuck")
    other = queue.call(waitAt, gate.token)
    await gate.arrivals(2)
    first, second = (set(worker.pids) for worker in queue.workers())
    with pytest.raises(TaskTimedOut):
        await stuck
    gate.open()
    await other
    if hang is not calls.loopForever:
        await until(lambda: first.isdisjoint(children()))
    await gatherResults([queue.call(calls.pid) for _ in range(20)])
    assert set(queue.workers()[1].pids) == second
    await queue.shutdown()
    await gate.close()


@ensureDeferred
async def test_longLivedChildAfterInterrupt() -> None:
    """
    A task that ends when it is interrupted costs nothing else: its child lives on.
    """
    gate = Gate()
    queue = ProcessQueue(1)
    first = await queue.call(calls.pid)
    with pytest.raises(TaskTimedOut):
        await queue.call(calls.loopForever, gate.token, timeout=0.1)
    assert await queue.call(calls.pid) == first
    await queue.shutdown()
    await gate.close()


@pytest.mark.measured
@ensureDeferred
async def test_forks() -> None:
    """
    A task may fork, and its fork is nothing to the queue, even if it returns.
    """
    queue = ProcessQueue(1)
    assert await queue.call(calls.forkAndWait, 6) == 6
    forks = await gatherResults([queue.call(calls.forkAndReturn) for _ in range(10)])
    assert all(forks)
    assert len(set(await gatherResults([queue.call(calls.pid) for _ in range(50)]))) == 1
    await until(lambda: all(isGone(pid) for pid in forks))
    await queue.shutdown()
