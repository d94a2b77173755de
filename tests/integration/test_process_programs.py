"""
Whole programs with a L{ProcessQueue}<asynqueue.queues.ProcessQueue>: however they
end, no child is left (G11, G12).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pytest_twisted import ensureDeferred

from tests.integration.process_checks import PATIENCE, isGone, until

PROGRAM = Path(__file__).with_name("process_program.py")

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}


@contextmanager
def program(part: str) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """
    The program while it runs, and its children.
    """
    process = subprocess.Popen(
        [sys.executable, str(PROGRAM), part],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=ENVIRONMENT,
        text=True,
        start_new_session=True,
    )
    with process:
        try:
            assert process.stdout is not None
            pids = [int(word) for word in process.stdout.readline().split()]
            assert len(pids) == 2
            yield process, pids
        finally:
            process.kill()


@ensureDeferred
@pytest.mark.parametrize(
    "part", ["Idle", "Starting", "Looping", "Holding", "Forked", "Loaded", "Helped"]
)
async def test_parentKilled(part: str) -> None:
    """
    When the parent is killed no child outlives it, whatever it was doing.
    """
    with program(part) as (process, pids):
        process.kill()
        await until(lambda: all(isGone(pid) for pid in pids))


@ensureDeferred
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("part", ["Idle", "Starting", "Looping", "Loaded"])
async def test_parentTold(part: str, number: int) -> None:
    """
    A program that is told to end does so, and takes its children with it.
    """
    with program(part) as (process, pids):
        process.send_signal(number)
        process.wait(PATIENCE)
        await until(lambda: all(isGone(pid) for pid in pids))


@ensureDeferred
@pytest.mark.parametrize("part", ["Looping", "Loaded"])
async def test_interruptOfAll(part: str) -> None:
    """
    Ctrl-C at a terminal, which goes to all processes, ends the program and its
    children, and nothing is said of it.
    """
    with program(part) as (process, pids):
        os.killpg(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=PATIENCE)
        assert "KeyboardInterrupt" not in said
        await until(lambda: all(isGone(pid) for pid in pids))


@ensureDeferred
async def test_toldWhileDraining() -> None:
    """
    A program that waits for its last tasks can be told to end, too.
    """
    with program("Draining") as (process, pids):
        process.terminate()
        process.wait(PATIENCE)
        await until(lambda: all(isGone(pid) for pid in pids))


@ensureDeferred
async def test_droppedQueue() -> None:
    """
    A queue that nobody shuts down neither keeps the interpreter nor leaves a child.
    """
    with program("Dropped") as (process, pids):
        _, said = process.communicate(timeout=PATIENCE)
        assert (process.returncode, said) == (0, "")
        await until(lambda: all(isGone(pid) for pid in pids))


def run(part: str) -> str:
    """
    What a part of the program prints.
    """
    done = subprocess.run(
        [sys.executable, str(PROGRAM), part],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.measured
def test_functionsOfMain() -> None:
    """
    What the main program defines can be called.
    """
    assert run("Main") == "6 6\n"


@pytest.mark.measured
def test_tooFewDescriptors() -> None:
    """
    Where a child cannot be started for want of descriptors, tasks fail, nothing
    leaks, and when there are enough the queue serves.
    """
    assert run("Few") == "WorkerLost done\n"


@pytest.mark.measured
def test_workersWithoutRoomKeepNoTasks() -> None:
    """
    Workers for which no process can be started leave the calls to one that has its own, and
    have processes as soon as there is room.
    """
    ran = subprocess.run(
        [sys.executable, str(PROGRAM.with_name("failing_program.py"))],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        timeout=PATIENCE,
        check=True,
    )
    by, well, last = ran.stdout.splitlines()
    assert by == well
    assert last == "all"
