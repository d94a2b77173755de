"""
Faults on this side of a process: of what reads it, and of what is told.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from typing import Any

import pytest
from pytest_twisted import ensureDeferred

from asynqueue import ProcessQueue, ProcessWorker, TaskQueue, WorkerLost
from asynqueue.errors import MaybeEncodingError
from asynqueue.reactors import theReactor
from tests.doubles import readingLogs
from tests.integration import process_calls as calls
from tests.integration.process_checks import PATIENCE

pytestmark = pytest.mark.measured


class Console:
    """
    Standard error that nobody can write to.
    """

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def write(self, text: str) -> int:
        """
        Fail.
        """
        raise self._error

    def flush(self) -> None:
        """
        Do nothing.
        """


def closedStream() -> io.StringIO:
    """
    A stream that is closed.
    """
    stream = io.StringIO()
    stream.close()
    return stream


class FaultyWorker(ProcessWorker):
    """
    A worker in which what is told of its child fails, once.

    @ivar faulty: the name of the method that fails next.
    """

    faulty = ""

    def _fail(self, name: str) -> None:
        if name == self.faulty:
            self.faulty = ""
            raise GeneratorExit(f"a fault in {name}")

    def returned(self, child: Any, job: Any, value: Any) -> None:
        """
        A call returned.
        """
        self._fail("returned")
        super().returned(child, job, value)

    def raised(self, child: Any, job: Any, outcome: Any) -> None:
        """
        A call raised.
        """
        self._fail("raised")
        super().raised(child, job, outcome)

    def iterating(self, child: Any, job: Any, source: Any) -> None:
        """
        A call returned an iterator.
        """
        self._fail("iterating")
        super().iterating(child, job, source)


@ensureDeferred
async def test_standardErrorOfAnyKind(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Whatever stands for standard error here, and whatever it raises, calls of processes
    that write there go on; a fault is logged once for a process.
    """
    queue = ProcessQueue(1)
    first = await queue.call(calls.pid)
    with readingLogs() as logs:
        for stream in (
            Console(RuntimeError("deleted")),
            Console(SystemExit("closed")),
            Console(BrokenPipeError()),
            Console(UnicodeEncodeError("ascii", "e", 0, 1, "no")),
            closedStream(),
            None,
        ):
            monkeypatch.setattr(sys, "stderr", stream)
            for size in (10, 100_000):
                said = queue.call(calls.sayMuch, size // 10)
                await said.addTimeout(PATIENCE, theReactor())
        pid = await queue.call(calls.pid)
    monkeypatch.undo()
    await queue.shutdown()
    assert pid == first
    assert [str(error) for error in logs.errors()] == ["deleted"]


@ensureDeferred
async def test_tooManyFilesAreOpen(fewFiles: Callable[[int], None]) -> None:
    """
    While no more files may be open, a large result fails by itself; with one, it comes.
    Calls beside it are unharmed.
    """
    queue = ProcessQueue(1)
    first = await queue.call(calls.pid)
    fewFiles(0)
    large = queue.call(bytes, 1_000_000)
    beside = queue.call(calls.pid)
    with pytest.raises(MaybeEncodingError, match="too many files"):
        await large.addTimeout(PATIENCE, theReactor())
    assert await beside.addTimeout(PATIENCE, theReactor()) == first
    fewFiles(1)
    assert len(await queue.call(bytes, 1_000_000).addTimeout(PATIENCE, theReactor())) == 1_000_000
    fewFiles(16)
    await queue.shutdown()


@pytest.mark.parametrize(
    ("name", "call"),
    [("returned", (pow, 2, 5)), ("raised", (pow, 0, -1)), ("iterating", (calls.counting, 3))],
)
@ensureDeferred
async def test_faultOfWhatIsTold(name: str, call: tuple[Any, ...]) -> None:
    """
    When this side cannot deal with what a process tells, the process is lost with that
    call, the fault is logged once, and the next call is made by another.
    """
    worker = FaultyWorker()
    queue = TaskQueue()
    await queue.attachWorker(worker)
    first = await queue.call(calls.pid)
    worker.faulty = name
    with readingLogs() as logs:
        with pytest.raises(WorkerLost, match=f"could not be dealt with.*a fault in {name}"):
            await queue.call(*call).addTimeout(PATIENCE, theReactor())
        assert await queue.call(calls.pid).addTimeout(PATIENCE, theReactor()) != first
    await queue.shutdown()
    assert [type(error) for error in logs.errors()].count(GeneratorExit) == 1
