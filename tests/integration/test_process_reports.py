"""
What tasks in the processes of L{ProcessQueue} print, log and warn of.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import redirect_stdout
from io import StringIO
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import gatherResults

from asynqueue import ProcessQueue
from asynqueue.pool import SoftTimeLimitExceeded, TaskPool
from asynqueue.testing import Gate
from tests.integration import process_calls as calls
from tests.integration.process_checks import PATIENCE, until

pytestmark = pytest.mark.measured


@pytest.mark.parametrize("unbuffered", ["", "1"])
@ensureDeferred
async def test_printing(
    unbuffered: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    What tasks print to either output comes out of the parent's, in whole lines, and
    harms no result; also where Python is told not to buffer.
    """
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    queue = ProcessQueue(2)
    words = [str(number) * 50 for number in range(40)]
    assert await gatherResults([queue.call(calls.sayAll, word) for word in words]) == [None] * 40
    await queue.shutdown()
    out, err = capfd.readouterr()
    assert sorted(out.splitlines()) == sorted(f"out {word}" for word in words)
    assert sorted(err.splitlines()) == sorted(f"err {word}" for word in words)


@ensureDeferred
async def test_printingIsRedirected(capsys: pytest.CaptureFixture[str]) -> None:
    """
    While C{sys.stdout} is redirected, what calls print goes there before their results do,
    text and bytes, however much; and no line is broken by another child's.
    """
    queue = ProcessQueue(2)
    await queue.call(calls.printBoth, "before")
    assert capsys.readouterr().out == "beforeä\n"
    here = StringIO()
    with redirect_stdout(here):
        await queue.call(print, "no end", end="")
        assert here.getvalue() == "no end"
        assert [n async for n in await queue.call(calls.printItems, 3)] == [0, 1, 2]
        assert here.getvalue() == "no end0\n1\n2\nend\n"
        await queue.call(print, "x" * 100_000)
        await gatherResults([queue.call(calls.printLines, 300, letter * 40) for letter in "abcd"])
    lines = here.getvalue().splitlines()[4:]
    assert lines.pop(0) == "x" * 100_000
    assert sorted(lines) == [letter * 80 for letter in "abcd" for _ in range(300)]
    await queue.shutdown()


@ensureDeferred
async def test_printingInAFork() -> None:
    """
    What a fork of a call prints goes to the descriptor: it must not speak for the child.
    """
    queue, here = ProcessQueue(1), StringIO()
    with redirect_stdout(here):
        await queue.call(calls.printInAFork)
        assert await queue.call(pow, 2, 5) == 32
    assert here.getvalue() == "child\n"
    await queue.shutdown()


def test_printingThatIsInterrupted() -> None:
    """
    What was printed before an interrupt is printed once.
    """
    pool, here = TaskPool(1), StringIO()
    pool.start()
    with redirect_stdout(here):
        for _ in range(10):
            result = pool.apply_async(calls.printForever, soft_timeout=0.02, timeout=PATIENCE)
            with pytest.raises(SoftTimeLimitExceeded):
                result.get(timeout=PATIENCE)
            numbers = [int(word) for word in here.getvalue().split()]
            assert numbers == list(range(len(numbers)))
            here.seek(0)
            here.truncate()
    pool.stop()


@ensureDeferred
async def test_outputThatRaises() -> None:
    """
    A standard output that a call has put there, and that raises, harms no other call.
    """
    queue = ProcessQueue(1)
    first = await queue.call(calls.replaceOutput)
    for _ in range(3):
        assert await queue.call(calls.pid) == first
    await queue.shutdown()


@ensureDeferred
async def test_printingMuch(capfd: pytest.CaptureFixture[str]) -> None:
    """
    However much is printed, no character is broken.
    """
    queue = ProcessQueue(1)
    await queue.call(calls.sayMuch, 5000)
    await queue.shutdown()
    assert set(capfd.readouterr().err.splitlines()) == {"äöüß€" * 20}


@ensureDeferred
async def test_logging(caplog: pytest.LogCaptureFixture) -> None:
    """
    Records of C{logging} reach the parent, with name, level, message and traceback,
    from the level on that the parent has.
    """
    queue = ProcessQueue(1)
    with caplog.at_level(logging.INFO):
        await queue.call(calls.logAll, "some.name")
        await queue.call(calls.logObjects, "objects")
    first, second, third = caplog.records
    assert (first.name, first.levelno, first.getMessage()) == (
        "some.name",
        logging.WARNING,
        "beware of this",
    )
    assert second.getMessage() == "it failed"
    assert "ValueError: invalid literal" in str(second.exc_text)
    assert third.getMessage().startswith("a lock: <unlocked")
    assert third.plain == 5  # type: ignore[attr-defined]
    await queue.shutdown()


@pytest.fixture
def loggers() -> Iterator[tuple[logging.Logger, ...]]:
    """
    Some loggers, which have no levels.
    """
    loggers = tuple(logging.getLogger(f"reports.{name}") for name in ("a", "b", "c"))
    yield loggers
    for logger in loggers:
        logger.setLevel(logging.NOTSET)


@ensureDeferred
async def test_loggersWithLevels(
    loggers: tuple[logging.Logger, ...], caplog: pytest.LogCaptureFixture
) -> None:
    """
    A logger that is more verbose than the root is so in children, too, from the next call
    on; one that is less, sends nothing; and what a task sets itself stays.
    """
    first, second, third = loggers
    names = [logger.name for logger in loggers]
    queue = ProcessQueue(1)
    first.setLevel(logging.DEBUG)
    await queue.call(calls.logAt, *names)
    second.setLevel(logging.DEBUG)
    first.setLevel(logging.NOTSET)
    await queue.call(calls.logAt, *names)
    assert [record.name for record in caplog.records] == [first.name, second.name]
    await queue.call(calls.setLevel, third.name, logging.DEBUG)
    second.setLevel(logging.WARNING)
    assert await queue.call(calls.levelsOf, *names) == [30, 30, logging.DEBUG]
    with caplog.at_level(logging.NOTSET):
        assert await queue.call(calls.levelsOf, "some") == [0]
    await queue.shutdown()


@ensureDeferred
async def test_loggingThatIsImportedLate(caplog: pytest.LogCaptureFixture) -> None:
    """
    The first record counts, too, of a task that imports C{logging} itself.
    """
    queue = ProcessQueue(1)

    def log() -> None:
        __import__("logging").getLogger("late").warning("imported here")

    log.__module__ = "__main__"
    await queue.call(log)
    assert [record.getMessage() for record in caplog.records] == ["imported here"]
    await queue.shutdown()


@ensureDeferred
async def test_loggingInAFork(caplog: pytest.LogCaptureFixture, capfd: Any) -> None:
    """
    What a fork of a task logs is written to the standard error: it must not speak for
    the child.
    """
    queue = ProcessQueue(1)
    assert await queue.call(calls.forkAndLog) == 0
    assert await queue.call(pow, 2, 5) == 32
    await queue.shutdown()
    assert "from a fork" in capfd.readouterr().err
    assert caplog.records == []


@ensureDeferred
async def test_warnings() -> None:
    """
    Warnings are given in the parent, with their category; one that is very large is
    given in short.
    """
    queue = ProcessQueue(1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        await queue.call(calls.warn, "mind the gap")
        await queue.call(calls.warn, "x" * 200_000)
    first, second = caught
    assert (str(first.message), first.category) == ("mind the gap", calls.OwnWarning)
    assert first.filename == calls.__file__
    assert str(second.message).startswith("xxx")
    await queue.shutdown()


@ensureDeferred
async def test_threadThatChatters(caplog: pytest.LogCaptureFixture, capfd: Any) -> None:
    """
    A thread that a task leaves behind may log and print: results are not harmed, and
    the child can end.
    """
    queue, gate = ProcessQueue(1), Gate()
    await queue.call(calls.chatter, gate.token)
    await gate.arrivals(1)
    numbers = [queue.call(abs, -number) for number in range(300)]
    assert await gatherResults(numbers) == list(range(300))
    await until(lambda: "it begins" in caplog.text)
    await queue.shutdown()
    await gate.close()
    assert set(capfd.readouterr().out.split()) == {"chatter"}


@ensureDeferred
async def test_finalizersThatLog(caplog: pytest.LogCaptureFixture) -> None:
    """
    A finalizer may log whenever it is called, also as a result is being sent.
    """
    queue = ProcessQueue(1)
    await queue.call(calls.collectOften)
    results = await gatherResults([queue.call(calls.makeGarbage, n) for n in range(500)])
    assert results == list(range(500))
    assert any(record.name == "garbage" for record in caplog.records)
    await queue.shutdown()


@ensureDeferred
async def test_finalizersAtTheEnd(capfd: pytest.CaptureFixture[str]) -> None:
    """
    A finalizer may log, warn and print also when nobody hears it any more: no error is shown.
    """
    queue = ProcessQueue(1)
    with redirect_stdout(StringIO()):
        await queue.call(calls.collectAtExit)
        await queue.shutdown()
    assert capfd.readouterr().err == ""
