"""
How the children of L{ProcessQueue} and L{TaskPool} end, as far as that can be known.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import CancelledError

from asynqueue import ProcessQueue, TaskPool, WorkerLost
from asynqueue.pool import WorkerLostError
from asynqueue.testing import Gate
from asynqueue.testing.calls import waitAt
from tests.doubles import Heard
from tests.integration import process_calls as calls
from tests.integration.process_checks import Used, isGone, until

pytestmark = pytest.mark.measured

# Seconds after which something does not happen.
PATIENCE = 60


@contextmanager
def ignored() -> Iterator[None]:
    """
    SIGCHLD is ignored meanwhile: the system releases processes as they end.
    """
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, before)


@ensureDeferred
async def test_endThatIsIgnored() -> None:
    """
    Where SIGCHLD is ignored, nobody can know how a process has ended: its error says
    so, and calls it no exit. The next calls are made.
    """
    used = Used()
    queue = ProcessQueue(1)
    with ignored():
        with pytest.raises(WorkerLost, match="SIGCHLD is ignored") as caught:
            await queue.call(calls.exitAtOnce, 3)
        assert await queue.call(abs, -1) == 1
        await queue.shutdown()
    assert (caught.value.begun, caught.value.exitCode, caught.value.signal) == (True, None, None)
    assert used.more() == {}


@ensureDeferred
async def test_endThatAnotherHasTaken() -> None:
    """
    If something else in the program has waited for a child, the end of that is unknown,
    and the others are no worse off.
    """
    queue, gate = ProcessQueue(1), Gate()
    lost = Heard(queue.call(waitAt, gate.token))
    await gate.arrivals(1)
    (pid,) = queue.workers()[0].pids
    os.kill(pid, signal.SIGKILL)
    assert os.waitpid(pid, 0)[0] == pid
    assert await queue.call(abs, -1) == 1
    assert (lost.error.exitCode, lost.error.signal) == (None, None)
    assert "something else in this program has waited for it" in str(lost.error)
    await queue.shutdown()
    await gate.close()


def test_poolWhereEndsAreIgnored() -> None:
    """
    A pool tells an unknown end as C{None}, to its callback and in its error.
    """
    ends: list[tuple[int, int | None]] = []
    with ignored():
        pool = TaskPool(1, on_process_exit=lambda pid, code: ends.append((pid, code)))
        pool.start()
        lost = pool.apply_async(calls.exitAtOnce, (0,))
        with pytest.raises(WorkerLostError, match="SIGCHLD is ignored") as caught:
            lost.get(PATIENCE)
        assert (caught.value.exitCode, caught.value.signal) == (None, None)
        assert pool.apply_async(abs, (-1,)).get(PATIENCE) == 1
        pool.stop()
    assert ends[0] == (caught.value.pid, None)
    assert len(ends) == 2


@ensureDeferred
async def test_shutdownThatKillsLeavesNothing() -> None:
    """
    Where calls do not end in time, all their processes are killed, and are gone when
    the queue is.
    """
    used = Used()
    queue, gate = ProcessQueue(3, timeout=0.01), Gate()
    held = [Heard(queue.call(waitAt, gate.token)) for _ in range(3)]
    await gate.arrivals(3)
    pids = [pid for worker in queue.workers() for pid in worker.pids]
    await queue.shutdown()
    assert all(isinstance(each.error, WorkerLost) for each in held)
    assert all(isGone(pid) for pid in pids)
    await gate.close()
    assert used.more() == {}


def _noted(path: Path) -> list[int]:
    return [int(line) for line in path.read_text().split()] if path.exists() else []


@ensureDeferred
async def test_killEndsWhatCallsHaveStarted(tmp_path: Path) -> None:
    """
    With a process that is killed, or dies, ends what its calls have started: programs and
    forks. What was started by a process that ends in good order lives on.
    """
    queue, gate, path = ProcessQueue(1), Gate(), tmp_path / "pids"
    left = await queue.call(calls.startHelper, str(tmp_path / "left"))
    await queue.shutdown()
    queue = ProcessQueue(1, grace=0.01)
    held = queue.call(calls.startHelperAndHold, gate.token, str(path))
    await gate.arrivals(1)
    await until(lambda: len(_noted(path)) == 2)
    held.cancel()
    with pytest.raises(CancelledError):
        await held
    await until(lambda: all(isGone(pid) for pid in _noted(path)))
    with ignored(), pytest.raises(WorkerLost):
        await queue.call(calls.startHelperAndExit, str(path), 3)
    with pytest.raises(WorkerLost):
        await queue.call(calls.startHelperAndExit, str(path), 4)
    assert len(_noted(path)) == 4
    await until(lambda: all(isGone(pid) for pid in _noted(path)))
    assert not isGone(left)
    os.kill(left, signal.SIGKILL)
    await queue.shutdown()
    await gate.close()


@ensureDeferred
async def test_crashDoesNotWait() -> None:
    """
    A worker that crashes has its process killed, and tells later when it is gone.
    """
    queue = ProcessQueue(1)
    (worker,) = queue.workers()
    await queue.call(calls.pid)
    worker.crash()
    assert len(worker.pids) == 1
    gone, stopped = Heard(worker.gone()), Heard(worker.stop())
    await queue.shutdown()
    assert worker.pids == []
    assert gone.result is stopped.result is None
