"""
Durable queues of real programs, on a file, that are killed.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from asynqueue.stores.operations import Find
from asynqueue.stores.records import JobRecord, JobState
from asynqueue.stores.sqlite.engine import SQLiteEngine

ROOT = Path(__file__).parent.parent.parent
POINTS = [f"{kind}-{when}" for kind in ("Add", "Claim", "End") for when in ("before", "after")]
JOBS = 6


def run(folder: Path, worker: str, point: str = "none", number: int = 1, jobs: int = 0) -> int:
    """
    Run a program to its end, and return its exit code.
    """
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.integration.durable_program",
            *(str(folder), worker, point, str(number), str(jobs)),
        ],
        cwd=ROOT,
        check=False,
        timeout=120,
    ).returncode


def records(folder: Path) -> list[JobRecord]:
    """
    Return all jobs of the store of programs that have ended.
    """
    engine = SQLiteEngine(folder / "jobs.db")
    engine.open()
    try:
        [found], _ = engine.execute([Find()])
        return list(found)
    finally:
        engine.close()


def lines(path: Path) -> list[str]:
    """
    Return the lines of a file, which may be missing.
    """
    return path.read_text().split() if path.exists() else []


@pytest.mark.parametrize("number", [1, 3])
@pytest.mark.parametrize("point", POINTS)
def test_everyJobHasOneOutcomeWhereverTheProgramIsKilled(
    tmp_path: Path, point: str, number: int
) -> None:
    """
    Whenever a program is killed, what it said is stored is there, each job ends once, and none is
    called more often than it may be.
    """
    assert run(tmp_path, "thread", point, number, JOBS) == -signal.SIGKILL
    assert run(tmp_path, "thread") == 0
    found = records(tmp_path)
    assert set(lines(tmp_path / "stored")) <= {record.job.id for record in found}
    runs = Counter(lines(tmp_path / "runs"))
    for record in found:
        assert record.outcome is not None
        assert record.job.key is not None
        called = runs[record.job.key]
        if record.job.loss:
            assert record.state is JobState.DONE
            assert 1 <= called <= 2
        elif record.state is JobState.DONE:
            assert called == 1
        else:
            assert record.state is JobState.LOST
            assert called <= 1


def test_processesAreNoExceptions(tmp_path: Path) -> None:
    """
    The same holds for jobs in child processes, of which several programs in a row were killed.
    """
    assert run(tmp_path, "process", "End-before", 2, JOBS) == -signal.SIGKILL
    for _ in range(2):
        # If nothing is left that can be called again, it lives.
        assert run(tmp_path, "process", "End-before") in (0, -signal.SIGKILL)
    assert run(tmp_path, "process") == 0
    runs = Counter(lines(tmp_path / "runs"))
    for record in records(tmp_path):
        assert record.job.key is not None
        assert record.state in (JobState.DONE, JobState.LOST)
        assert runs[record.job.key] <= (3 if record.job.loss else 1)
