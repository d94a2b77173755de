"""
Whole programs with a store in a file: whatever ends them, nothing that was acknowledged is lost.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from asynqueue.stores.errors import StoreBusy, StoreError
from asynqueue.stores.operations import Count, Find, Operation, Register, Rescue
from asynqueue.stores.records import JobRecord, JobState, NodeRecord
from asynqueue.stores.sqlite.engine import SQLiteEngine

PROGRAM = Path(__file__).with_name("sqlite_program.py")

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}

# Seconds after which a test has failed. None waits so long.
PATIENCE = 120

# Who has no rights, where tests run with all of them.
NOBODY = 65534


@contextmanager
def program(part: str, path: Path) -> Iterator[subprocess.Popen[str]]:
    """
    The program while it runs.
    """
    process = subprocess.Popen(
        [sys.executable, str(PROGRAM), part, str(path)],
        stdout=subprocess.PIPE,
        env=ENVIRONMENT,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def lines(process: subprocess.Popen[str], count: int) -> list[str]:
    """
    Wait for so many lines of a program.
    """
    assert process.stdout is not None
    found = [process.stdout.readline() for _ in range(count)]
    assert all(found), "the program has ended"
    return found


@contextmanager
def opened(path: Path) -> Iterator[SQLiteEngine]:
    """
    An engine on the file.
    """
    engine = SQLiteEngine(path)
    engine.open()
    try:
        yield engine
    finally:
        engine.close()


def records(engine: SQLiteEngine) -> dict[str, JobRecord]:
    """
    All jobs, by their IDs.
    """
    [found], _ = engine.execute([Find(count=1_000_000)])
    return {record.job.id: record for record in found}


def said(text: list[str], what: str) -> set[str]:
    """
    The IDs of which a program has said something.
    """
    return {words[1] for words in map(str.split, text) if words[0] == what}


def isWhole(path: Path) -> bool:
    """
    Tell whether SQLite finds no fault with the database.
    """
    with opened(path) as engine:
        check = engine._checked().execute("PRAGMA integrity_check").fetchall()
    return check == [("ok",)]


@pytest.mark.parametrize("count", [1, 20, 21, 333, 1500])
def test_nothingAddedIsLost(tmp_path: Path, count: int) -> None:
    """
    When a program is killed as it commits, all jobs that it was told are stored are there.
    """
    path = tmp_path / "jobs.db"
    with program("add", path) as process:
        text = lines(process, count)
        process.kill()
        assert process.stdout is not None
        text += process.stdout.readlines()
    added = said(text, "added")
    assert len(added) >= count
    with opened(path) as engine:
        found = records(engine)
    assert added <= found.keys()
    assert {record.state for record in found.values()} == {JobState.WAITING}
    assert isWhole(path)


@pytest.mark.parametrize("count", [3, 10, 100, 1001])
def test_noStepIsLost(tmp_path: Path, count: int) -> None:
    """
    When a program is killed, each job is as far as the program was told, or further: what had
    begun ends as lost, and what had not waits.
    """
    path = tmp_path / "jobs.db"
    with program("live", path) as process:
        text = lines(process, count)
        process.kill()
        assert process.stdout is not None
        text += process.stdout.readlines()
    with opened(path) as engine:
        before = records(engine)
        node = NodeRecord(id="next", name="n", host="h", pid=1)
        operations: list[Operation[object]] = [Register(node, 60), Rescue(others="next")]
        [_, rescued], _ = engine.execute(operations)
        after = records(engine)
    assert said(text, "added") <= before.keys()
    assert {before[id].state for id in said(text, "ended")} <= {JobState.DONE}
    assert {before[id].state for id in said(text, "begun")} <= {JobState.DONE, JobState.RUNNING}
    became = {state: set[JobState]() for state in JobState}
    for id, record in before.items():
        became[record.state].add(after[id].state)
    assert became[JobState.RUNNING] <= {JobState.LOST}
    assert became[JobState.CLAIMED] <= {JobState.WAITING}
    assert became[JobState.WAITING] <= {JobState.WAITING}
    assert became[JobState.DONE] <= {JobState.DONE}
    assert rescued.nodes == ("n",)


def test_oneProgramOwnsAFile(tmp_path: Path) -> None:
    """
    A file that another program has open is refused with that program's ID, until it is killed.
    """
    path = tmp_path / "jobs.db"
    with program("hold", path) as process:
        lines(process, 1)
        with pytest.raises(StoreBusy) as caught:
            SQLiteEngine(path).open()
        assert caught.value.pid == process.pid
        process.kill()
        process.wait(PATIENCE)
        with opened(path) as engine:
            assert engine.execute([Count()])[0] == [{}]


def test_programEndsWithAnOpenStore(tmp_path: Path) -> None:
    """
    A store that is open does not keep a program from ending, and what it has acknowledged stays.
    """
    path = tmp_path / "jobs.db"
    with program("leave", path) as process:
        assert process.stdout is not None
        text = process.stdout.readlines()
        assert process.wait(PATIENCE) == 0
    with opened(path) as engine:
        assert said(text, "added") <= records(engine).keys()
    assert isWhole(path)


def test_filesThatMayNotGrow(tmp_path: Path) -> None:
    """
    When there is no room an operation fails and says so; what was stored stays, and when there is
    room again the store goes on.
    """
    path = tmp_path / "jobs.db"
    with program("fill", path) as process:
        assert process.stdout is not None
        text = process.stdout.readlines()
        assert process.wait(PATIENCE) == 0
    assert len([line for line in text if line.startswith("full")]) == 1
    assert text[-1].startswith("added")
    with opened(path) as engine:
        assert said(text, "added") == records(engine).keys()


def asNobody(f: Callable[[], object]) -> str:
    """
    Return what a call raises that is made by somebody who owns nothing.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            if not os.getuid():
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
            f()
        except StoreError as error:
            os.write(writer, str(error).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader) as text:
        os.waitpid(child, 0)
        return text.read()


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """
    A folder that everybody may look into, and nobody write to.
    """
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o555)
    yield folder
    folder.chmod(0o700)
    shutil.rmtree(folder)


def test_aFolderThatCannotBeWritten(open_folder: Path) -> None:
    """
    A folder to which the program may not write is named, and nothing is made in it.
    """
    path = open_folder / "jobs.db"
    assert f"{path}-owner cannot be opened: Permission denied" in asNobody(SQLiteEngine(path).open)
    assert list(open_folder.iterdir()) == []


def test_aFileThatCannotBeWritten(open_folder: Path) -> None:
    """
    A file to which the program may not write is named, and stays as it is.
    """
    open_folder.chmod(0o777)
    path = open_folder / "jobs.db"
    with opened(path):
        pass
    path.chmod(0o444)
    Path(f"{path}-owner").chmod(0o666)
    before = path.read_bytes()
    assert f"{path} cannot be opened: Permission denied" in asNobody(SQLiteEngine(path).open)
    assert path.read_bytes() == before
