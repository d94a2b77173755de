"""
Where calls in the processes of L{ProcessQueue} and L{TaskPool} may be interrupted.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import CancelledError

from asynqueue import ProcessQueue
from asynqueue.pool import SoftTimeLimitExceeded, TaskPool
from asynqueue.testing import Gate
from tests.integration import interrupt_calls as calls
from tests.integration.process_calls import pid
from tests.integration.process_checks import PATIENCE, until


@ensureDeferred
async def test_importsAreNotInterrupted(tmp_path: Path) -> None:
    """
    A call that is cancelled while it imports a module is interrupted as soon as that is
    imported, and later calls in that process have the whole module.
    """
    queue, gate, path = ProcessQueue(1, grace=PATIENCE), Gate(), tmp_path / "notes"
    first = await queue.call(pid)
    directory = calls.writeWaiting(tmp_path)
    d = queue.call(calls.importAndGoOn, gate.token, directory, str(path))
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
