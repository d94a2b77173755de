"""
Where calls in the processes of L{ProcessQueue} and L{TaskPool} may be interrupted.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import CancelledError, gatherResults

from asynqueue import ProcessQueue
from asynqueue.errors import TaskTimedOut
from asynqueue.pool import SoftTimeLimitExceeded, TaskPool, TimeLimitExceeded, WorkerLostError
from asynqueue.reactors import theReactor
from asynqueue.testing import Gate
from tests.integration import interrupt_calls as calls
from tests.integration.process_calls import pid
from tests.integration.process_checks import PATIENCE, until

pytestmark = pytest.mark.measured


@pytest.mark.parametrize("isOneLine", [False, True])
@ensureDeferred
async def test_importsAreNotInterrupted(tmp_path: Path, isOneLine: bool) -> None:
    """
    A call that is cancelled while it imports a module is interrupted as soon as that is
    imported, also within the line that imports it, and later calls in that process have the
    whole module.
    """
    queue, gate, path = ProcessQueue(1, grace=PATIENCE), Gate(), tmp_path / "notes"
    first = await queue.call(pid)
    directory = calls.writeWaiting(tmp_path)
    d = queue.call(calls.importAndGoOn, gate.token, directory, str(path), isOneLine)
    await gate.arrivals(1)
    d.cancel()
    with pytest.raises(CancelledError):
        await d
    gate.open()
    assert await queue.call(calls.imported) == (first, 42)
    assert path.read_text().split() == ["TaskInterrupted"]
    await queue.shutdown()
    await gate.close()


def test_importsInALoop() -> None:
    """
    A call that does nothing but import is interrupted at its soft limit between two
    imports.
    """
    pool = TaskPool(1)
    pool.start()
    before = pool.apply_async(pid).get(timeout=PATIENCE)
    result = pool.apply_async(calls.importInVain, soft_timeout=0.05, timeout=PATIENCE)
    with pytest.raises(SoftTimeLimitExceeded):
        result.get(timeout=PATIENCE)
    assert pool.apply_async(pid).get(timeout=PATIENCE) == before
    pool.stop()


def test_interruptsThatCallsPrevent(caplog: pytest.LogCaptureFixture) -> None:
    """
    Whatever earlier calls have made of the signal by which calls are interrupted, soft
    limits interrupt those that come later, and a warning tells of it where that can be seen.
    """
    pool = TaskPool(1)
    pool.start()
    pids = set()
    for how in ("ignored", "blocked", "in C", "reset"):
        pids.add(pool.apply_async(calls.makeDeaf, (how,)).get(timeout=PATIENCE))
        result = pool.apply_async(time.sleep, (PATIENCE,), soft_timeout=0.05, timeout=PATIENCE)
        with pytest.raises(SoftTimeLimitExceeded):
            result.get(timeout=PATIENCE)
    pool.stop()
    assert len(pids) == 1
    told = [record.getMessage() for record in caplog.records if record.name == "asynqueue"]
    assert len(told) == 3
    assert all("has blocked SIGUSR1, or has changed what it does" in text for text in told)


@ensureDeferred
async def test_theNextCallCanBeInterrupted() -> None:
    """
    What a call makes of the signal holds for itself alone, also where the next one has come
    with it.
    """
    queue = ProcessQueue(1, grace=PATIENCE)
    first = await queue.call(pid)
    # The next ones are sent while many short calls are made.
    many = [queue.call(abs, number) for number in range(200)]
    deaf = queue.call(calls.makeDeaf, "ignored")
    hangs = queue.call(time.sleep, PATIENCE, timeout=0.05)
    await gatherResults(many)
    assert await deaf == first
    with pytest.raises(TaskTimedOut):
        await hangs
    assert await queue.call(pid).addTimeout(PATIENCE / 2, theReactor()) == first
    await queue.shutdown()


@pytest.mark.parametrize("how", ["ignored", "blocked", "in C"])
def test_callsThatCannotBeInterrupted(how: str) -> None:
    """
    The error of a hard limit tells that the soft limit did not reach the call.
    """
    pool = TaskPool(1)
    pool.start()
    pool.apply_async(pid).get(timeout=PATIENCE)
    result = pool.apply_async(calls.deafLoop, (how,), soft_timeout=0.2, timeout=0.4)
    with pytest.raises(TimeLimitExceeded, match="its soft limit did not reach it") as raised:
        result.get(timeout=PATIENCE)
    assert raised.value.isDeaf
    pool.stop()


def test_limitsWithoutAnInterrupt() -> None:
    """
    The error of a hard limit tells nothing of a soft limit that had not passed.
    """
    pool = TaskPool(1)
    pool.start()
    result = pool.apply_async(time.sleep, (PATIENCE,), soft_timeout=PATIENCE, timeout=0.1)
    with pytest.raises(TimeLimitExceeded, match=r"was ended$"):
        result.get(timeout=PATIENCE)
    pool.stop()


def test_callsThatResetTheSignal() -> None:
    """
    Where the signal of a soft limit ends the process, the error says how that came.
    """
    pool = TaskPool(1)
    pool.start()
    pool.apply_async(pid).get(timeout=PATIENCE)
    result = pool.apply_async(calls.deafLoop, ("reset",), soft_timeout=0.2, timeout=PATIENCE)
    with pytest.raises(WorkerLostError, match="a call has changed what that does"):
        result.get(timeout=PATIENCE)
    pool.stop()


@ensureDeferred
async def test_halfImportedModules(capfd: pytest.CaptureFixture[str]) -> None:
    """
    A process in which a call was interrupted in the middle of an import that could not be
    seen is replaced, and no other call is lost.
    """
    queue, gate = ProcessQueue(1, grace=PATIENCE), Gate()
    first = await queue.call(pid)
    d = queue.call(calls.importInSecret, gate.token)
    after = [queue.call(pid) for _ in range(5)]
    await gate.arrivals(1)
    d.cancel()
    with pytest.raises(CancelledError):
        await d
    for each in after:
        assert await each != first
    await until(lambda: "the import of secret has not ended" in capfd.readouterr().err)
    await queue.shutdown()
    await gate.close()
