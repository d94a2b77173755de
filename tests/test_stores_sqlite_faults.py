"""
L{asynqueue.stores.sqlite}: who owns a file, and what is refused or fails.
"""

from __future__ import annotations

import os
import shutil
import socket
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from asynqueue.stores.errors import (
    StoreBusy,
    StoreDamaged,
    StoreError,
    StoreLost,
    StoreUnavailable,
    StoreVersionRefused,
)
from asynqueue.stores.operations import (
    Add,
    Count,
    Find,
    Flows,
    Operation,
    Register,
)
from asynqueue.stores.records import (
    JobState,
    NewJob,
)
from asynqueue.stores.sqlite.engine import SQLiteEngine
from asynqueue.stores.sqlite.faults import inOurs, mayBeCommitted
from tests.storefiles import NODE, File


@pytest.fixture
def unopened(tmp_path: Path) -> Iterator[File]:
    """
    A store that is not open yet.
    """
    file = File(tmp_path / "jobs.db")
    yield file
    file.engine.close()


@pytest.fixture
def file(unopened: File) -> File:
    """
    A store that is open, with a node.
    """
    unopened.engine.open()
    unopened.do(Register(NODE, 60))
    return unopened


# Who owns the file


def test_oneOwner(file: File) -> None:
    """
    A file that a store has open cannot be opened by another one, which says whose it is.
    """
    with pytest.raises(StoreBusy, match="belongs to the process") as caught:
        file.another().open()
    assert caught.value.pid == os.getpid()


def test_oneOwnerByAnyName(file: File, tmp_path: Path) -> None:
    """
    A link to the file leads to the same owner.
    """
    (tmp_path / "link.db").symlink_to(file.path)
    with pytest.raises(StoreBusy):
        SQLiteEngine(tmp_path / "link.db").open()


def test_whatIsClosedCanBeOwned(file: File) -> None:
    """
    A file that is closed can be opened by another store, and then again by the first.
    """
    file.engine.close()
    other = file.another()
    other.open()
    with pytest.raises(StoreBusy):
        file.engine.open()
    other.close()
    file.engine.open()


def test_whatFailsToOpenIsNotOwned(unopened: File) -> None:
    """
    A store that could not be opened does not keep others from the file.
    """
    unopened.path.write_bytes(b"no database" * 500)
    with pytest.raises(StoreUnavailable):
        unopened.engine.open()
    unopened.path.unlink()
    other = unopened.another()
    other.open()
    other.close()


def test_aRemovedLockIsMadeAnew(file: File, tmp_path: Path) -> None:
    """
    Who removes the file beside it does not keep the next owner from it.
    """
    file.engine.close()
    (tmp_path / "jobs.db-owner").unlink()
    file.engine.open()
    with pytest.raises(StoreBusy):
        file.another().open()


def test_aForkHasNoPartInIt(file: File) -> None:
    """
    In a fork the engine does nothing, and says whose it is; the parent's is as it was.
    """
    file.add("1")
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            file.do(Count())
        except StoreUnavailable as error:
            os.write(writer, str(error).encode())
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with open(reader, "rb") as said:
        assert f"process {os.getpid()}, of which process {child} is a fork" in said.read().decode()
    assert file.do(Count()) == {JobState.WAITING: 1}


def test_aForkDoesNotOwnIt(file: File) -> None:
    """
    A fork that lives on does not keep the file from the next owner.
    """
    ours, theirs = socket.socketpair()
    child = os.fork()
    if not child:
        theirs.send(b"!")
        ours.close()
        theirs.recv(1)
        os._exit(0)
    ours.recv(1)
    theirs.close()
    file.engine.close()
    other = file.another()
    try:
        other.open()
    finally:
        ours.close()
        os.waitpid(child, 0)
        other.close()


# What is refused


def refusal(engine: SQLiteEngine) -> str:
    """
    What an engine says that cannot be opened.
    """
    with pytest.raises(StoreUnavailable) as caught:
        engine.open()
    return str(caught.value)


def test_noFolder(tmp_path: Path) -> None:
    """
    A folder that is missing is named.
    """
    said = refusal(SQLiteEngine(tmp_path / "none" / "jobs.db"))
    assert f"there is no folder {tmp_path / 'none'}" in said


def test_aFolderIsNoFile(tmp_path: Path) -> None:
    """
    A folder in the place of the file is refused.
    """
    assert "is a folder" in refusal(SQLiteEngine(tmp_path))


def test_noDatabase(unopened: File) -> None:
    """
    A file that is something else is refused, and stays as it is.
    """
    unopened.path.write_bytes(b"something else\n" * 500)
    assert "is no database of SQLite" in refusal(unopened.engine)
    assert unopened.path.read_bytes() == b"something else\n" * 500


def foreign(path: Path, *statements: str) -> bytes:
    """
    Make a database by these statements, and return its bytes.
    """
    other = sqlite3.connect(path, isolation_level=None)
    for statement in statements:
        other.execute(statement)
    other.close()
    return path.read_bytes()


@pytest.mark.parametrize(
    "statement",
    ["CREATE TABLE customer (id)", "PRAGMA application_id = 7", "PRAGMA user_version = 1"],
)
def test_anotherDatabase(unopened: File, statement: str) -> None:
    """
    The database of another application is refused, and stays as it is.
    """
    before = foreign(unopened.path, statement, "PRAGMA journal_mode = DELETE")
    assert "that of another application" in refusal(unopened.engine)
    assert unopened.path.read_bytes() == before


def test_newerSchema(file: File) -> None:
    """
    A database with a newer schema is refused by its version, and stays as it is.
    """
    file.engine.close()
    before = foreign(file.path, "PRAGMA user_version = 99")
    with pytest.raises(StoreVersionRefused, match="version 99"):
        file.engine.open()
    assert file.path.read_bytes() == before


def test_damagedPage(file: File) -> None:
    """
    What needs a page that is damaged fails, and says so.
    """
    file.add(*(str(n) for n in range(2000)))
    pages = dict(file.ask("SELECT name, rootpage FROM sqlite_schema"))
    file.engine.close()
    with open(file.path, "r+b") as database:
        database.seek((pages["job"] - 1) * 4096)
        database.write(b"\x77" * 4096)
    file.engine.open()
    with pytest.raises(StoreDamaged, match="is damaged"):
        file.do(Find())
    assert file.do(Flows())[0].waiting == 2000


@pytest.mark.parametrize("make", [Path.unlink, lambda path: shutil.move(path, f"{path}2")])
def test_aFileThatIsGone(file: File, make: Callable[[Path], Any]) -> None:
    """
    When the file is removed or moved nothing more is done, as it would be lost.
    """
    make(file.path)
    with pytest.raises(StoreUnavailable, match="was removed or replaced"):
        file.do(Count())


def test_lockedByAnother(file: File) -> None:
    """
    When another program keeps the database locked nothing is done, and the store serves on.
    """
    file.engine._checked().execute("PRAGMA busy_timeout = 1")
    other = sqlite3.connect(file.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable, match="another program keeps it locked"):
        file.add("1")
    other.execute("ROLLBACK")
    other.close()
    file.add("1")
    assert file.claim(1) == ["1"]


def test_aFullDisk(file: File) -> None:
    """
    When there is no room nothing is done and what there is stays; when there is room again, the
    store goes on.
    """
    connection = file.engine._checked()
    file.add("1")
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StoreUnavailable, match="there is no room on the disk"):
        file.add(*(str(n) for n in range(2, 1000)))
    connection.execute("PRAGMA max_page_count = 1000000")
    file.add("2")
    assert file.claim(9) == ["1", "2"]


def test_unopened(unopened: File) -> None:
    """
    An engine that is not open says so.
    """
    with pytest.raises(StoreUnavailable, match="it is not open"):
        unopened.do(Count())


# Transactions


def test_aFailedTransactionChangesNothing(file: File) -> None:
    """
    When one operation raises, those before it are undone.
    """

    class Unknown(Operation[None]):
        pass

    with pytest.raises(TypeError, match="Unknown is no operation"):
        file.engine.execute([Add((NewJob(id="1", name="m:f", payload=b""),)), Unknown()])
    assert file.do(Count()) == {}


@pytest.mark.parametrize(
    "job",
    [
        NewJob(id="2", name="\ud800", payload=b""),
        NewJob(id="2", name="m:f", payload=b"", attempts=2**80),
        NewJob(id="2", name="m:f", payload=object()),  # type: ignore[arg-type]
        NewJob(id="2", name=None, payload=b""),  # type: ignore[arg-type]
    ],
    ids=["surrogate", "number", "object", "none"],
)
def test_whatCannotBeStored(file: File, job: NewJob) -> None:
    """
    What SQLite cannot store raises, nothing is done, and the next transaction is.
    """
    with pytest.raises(Exception) as caught:
        file.do(Add((NewJob(id="1", name="m:f", payload=b""), job)))
    assert not isinstance(caught.value, StoreError)
    assert file.do(Count()) == {}


class Failing:
    """
    A connection whose commit fails.
    """

    def __init__(self, connection: Any, error: sqlite3.Error) -> None:
        self._connection = connection
        self._error = error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def execute(self, statement: str, *parameters: Any) -> Any:
        """
        Execute it, unless it is a commit.
        """
        if statement == "COMMIT":
            raise self._error
        return self._connection.execute(statement, *parameters)


def sqliteError(code: int) -> sqlite3.OperationalError:
    """
    An error as SQLite raises it.
    """
    error = sqlite3.OperationalError("of a test")
    error.sqlite_errorcode = code
    return error


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (sqlite3.SQLITE_FULL, StoreUnavailable),
        (sqlite3.SQLITE_IOERR_WRITE, StoreUnavailable),
        (sqlite3.SQLITE_IOERR_FSYNC, StoreLost),
        (sqlite3.SQLITE_IOERR, StoreLost),
    ],
)
def test_failingCommits(file: File, code: int, kind: type[StoreError]) -> None:
    """
    A commit that fails says whether it may be found after a restart, and is undone now.
    """
    connection: Any = file.engine._connection
    file.engine._connection = Failing(connection, sqliteError(code))  # type: ignore[assignment]
    with pytest.raises(kind):
        file.add("1")
    file.engine._connection = connection
    assert file.do(Count()) == {}


def test_faultsOfOneOperationAreLeftAsTheyAre() -> None:
    """
    What one operation is to blame for is no fault of the store.
    """
    error = sqliteError(sqlite3.SQLITE_CONSTRAINT)
    assert inOurs("s", error) is error
    assert not mayBeCommitted(error)
