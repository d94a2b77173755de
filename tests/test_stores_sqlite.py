"""
L{asynqueue.stores.sqlite}: what only a store in a file promises.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from asynqueue.stores.operations import (
    Act,
    ActOn,
    Add,
    Begin,
    Claim,
    Count,
    End,
    Ended,
    Find,
    Pause,
    Register,
    Ripen,
    Want,
)
from asynqueue.stores.records import (
    Flow,
    JobFilter,
    JobState,
    NewJob,
    Outcome,
    StoreEvent,
)
from asynqueue.stores.sqlite import attempts, people, schema
from asynqueue.stores.sqlite.engine import SQLiteEngine
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


# What is kept


def test_jobsOutliveTheEngine(file: File) -> None:
    """
    Another engine on the same file has the jobs, as they were.
    """
    job = NewJob(
        id="1",
        name="m:f",
        payload=b"\0\xff",
        codec="pickle",
        options=b"\1",
        flow=Flow("s", -3),
        attempts=4,
        loss=True,
        key="k",
        after=0.1,
        expires=1 / 3,
        keep=0.7,
        keepDead=1e9,
        trace="t",
        parent="0",
    )
    file.do(Add((job,)))
    file.engine.close()
    file.engine = file.another()
    file.engine.open()
    [record] = file.do(Find())
    assert record.job == job
    assert record.due == 1000.1


def test_everyCommitIsSynced(file: File) -> None:
    """
    The log is written through to the disk at each commit, unless the store is told not to.
    """
    assert file.engine._checked().execute("PRAGMA synchronous").fetchone() == (2,)
    assert file.engine._checked().execute("PRAGMA journal_mode").fetchone() == ("wal",)
    lazy = SQLiteEngine(f"{file.path}2", synchronous="normal")
    lazy.open()
    assert lazy._checked().execute("PRAGMA synchronous").fetchone() == (1,)
    lazy.close()


def test_othersCannotReadTheFile(file: File) -> None:
    """
    A new file can be read and written by its user only: it has the arguments of calls.
    """
    modes = {name: os.stat(f"{file.path}{name}").st_mode & 0o777 for name in ("", "-wal", "-owner")}
    assert modes == {"": 0o600, "-wal": 0o600, "-owner": 0o600}


def test_nothingIsLeftOfALogThatIsClosed(file: File, tmp_path: Path) -> None:
    """
    When it is closed all is in the database itself, which can be copied.
    """
    file.add("1")
    file.engine.close()
    assert {path.name for path in tmp_path.iterdir()} == {"jobs.db", "jobs.db-owner"}
    assert file.ask("SELECT id FROM job") == [("1",)]


def test_othersCanReadWhileItIsOpen(file: File) -> None:
    """
    People can look into the database with SQLite's own tools while it is used.
    """
    file.add("1", "2")
    assert file.ask("SELECT id FROM job JOIN place USING (n) WHERE state = 0 ORDER BY seq") == [
        ("1",),
        ("2",),
    ]


def test_relativePathsAreThoseOfTheirTime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A relative path means the working directory as it was when the engine was made.
    """
    monkeypatch.chdir(tmp_path)
    engine = SQLiteEngine("jobs.db")
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    engine.open()
    engine.close()
    assert (tmp_path / "jobs.db").exists()


def test_synchronousIsOneOfTwoWords(tmp_path: Path) -> None:
    """
    What C{synchronous} cannot mean is refused.
    """
    with pytest.raises(ValueError, match="'off' is neither"):
        SQLiteEngine(tmp_path / "jobs.db", synchronous="off")  # type: ignore[arg-type]


# Migrations


def test_migrationsAreDoneOnce(tmp_path: Path) -> None:
    """
    A schema is brought from its version to the newest, step by step, and what it has stays.
    """
    connection = sqlite3.connect(tmp_path / "x.db", isolation_level=None)
    first, second = "CREATE TABLE a (x);\n", "CREATE TABLE b (y);\nINSERT INTO b VALUES (1);\n"
    schema.migrate(connection, "s", (first,))
    connection.execute("INSERT INTO a VALUES (7)")
    for _ in range(2):
        schema.migrate(connection, "s", (first, second))
    assert connection.execute("SELECT * FROM a, b").fetchall() == [(7, 1)]
    assert schema.checkVersion(connection, "s", (first, second)) == 2
    connection.close()


def test_aMigrationThatFailsChangesNothing(tmp_path: Path) -> None:
    """
    When a step fails the schema is as it was before all of them.
    """
    connection = sqlite3.connect(tmp_path / "x.db", isolation_level=None)
    with pytest.raises(sqlite3.OperationalError):
        schema.migrate(connection, "s", ("CREATE TABLE a (x);\n", "CREATE TABLE a (y);\n"))
    assert connection.execute("SELECT * FROM sqlite_schema").fetchall() == []
    assert schema.checkVersion(connection, "s") == 0
    connection.close()


# How it looks for what it needs


def plan(file: File, statement: str) -> str:
    """
    How SQLite would find what a statement asks for.
    """
    connection = file.engine._checked()
    marks = [None] * statement.count("?")
    rows = connection.execute(f"EXPLAIN QUERY PLAN {statement}", marks)
    return "\n".join(row[3] for row in rows)


@pytest.mark.parametrize("statement", [attempts._FIRST, attempts._TAKE, attempts._TAKE_BEGUN])
def test_claimsReadNoMoreThanTheyTake(file: File, statement: str) -> None:
    """
    What is claimed is found by the index of its flow, in its order.
    """
    said = plan(file, statement)
    assert "USING INDEX place_flow (series=? AND niceness=? AND band=?" in said
    assert "SCAN" not in said
    assert "TEMP B-TREE" not in said


@pytest.mark.parametrize(
    ("statement", "index"),
    [(people.DEAD_JOBS, "outcome_dead"), (people.HELD_JOBS, "place_held")],
)
def test_fewAreFoundAmongMany(file: File, statement: str, index: str) -> None:
    """
    What is dead, or with a node, is found without a look at what is not.
    """
    assert plan(file, statement).endswith(f"USING INDEX {index}")


def test_claimsTakeBoundedBytes(file: File) -> None:
    """
    A claim takes less than was wanted rather than more than about 16 MB.
    """
    for id in "123":
        file.do(Add((NewJob(id=id, name="m:f", payload=bytes(9_000_000)),)))
    assert [file.claim(3), file.claim(3), file.claim(3)] == [["1", "2"], ["3"], []]


def test_placesAreKeptInTheFile(file: File) -> None:
    """
    What waits again goes behind what came before, also after a restart.
    """
    file.add("1", "2")
    assert file.claim(1) == ["1"]
    file.do(ActOn(Act.CANCEL, JobFilter(ids=frozenset("1"))))
    file.do(ActOn(Act.RETRY, JobFilter(ids=frozenset("1"))))
    file.engine.close()
    file.engine.open()
    file.add("3")
    assert file.claim(9) == ["2", "1", "3"]


def test_auditSaysWhoHasDoneWhat(file: File) -> None:
    """
    What people do is noted, with the filter in JSON and how many jobs it was done to.
    """
    file.add("1", "2")
    file.do(ActOn(Act.CANCEL, JobFilter(ids=frozenset("12"), states=frozenset({JobState.WAITING}))))
    file.do(Pause("s", "ann"))
    [first, second] = file.ask("SELECT at, who, act, jobs, count FROM audit ORDER BY n")
    assert json.loads(first[3]) == {"ids": ["1", "2"], "states": ["waiting"]}
    assert (first[:3], first[4]) == ((1000.0, "", "cancel"), 2)
    assert second == (1000.0, "ann", "pause", "s", 1)


def test_auditIsBounded(file: File) -> None:
    """
    The latest 10,000 notes are kept.
    """
    file.engine.execute([Pause("s", str(n)) for n in range(10_010)])
    assert file.ask("SELECT min(who + 0), count(*) FROM audit") == [(10, 10_000)]


def test_manyThatAreDueRipenInTurns(file: File) -> None:
    """
    At most 10,000 jobs come to be due in one transaction; the store says that there are more.
    """
    file.add(*(f"{n:05}" for n in range(10_001)), after=5)
    file.now += 5
    assert [file.do(Ripen()).next, file.do(Ripen()).next] == [0.0, None]
    assert file.do(Count()) == {JobState.WAITING: 10_001}


def test_manyOperationsAreOne(file: File) -> None:
    """
    Operations of one kind that come together are done together, each with its own answer.
    """
    file.engine.execute([Add((NewJob(id=str(n), name="m:f", payload=b""),)) for n in range(5)])
    claims = file.do(Claim("n", (Want(Flow(), 5),)))
    fences = [each.attempt for each in claims.claimed]
    answers, _ = file.engine.execute([Begin("n", (fence,)) for fence in fences])
    assert answers == [{fence} for fence in fences]
    done = Outcome(kind=JobState.DONE)
    answers, event = file.engine.execute([End("n", (Ended(fence, done),)) for fence in fences])
    assert answers == [{fence} for fence in fences]
    assert event == StoreEvent(ended=("0", "1", "2", "3", "4"))


def test_aTransactionThatChangesNothingWritesNothing(file: File) -> None:
    """
    To look is not to write: nothing is synced.
    """
    before = os.stat(f"{file.path}-wal").st_size
    file.do(Find())
    file.do(Ripen())
    file.claim(3)
    assert os.stat(f"{file.path}-wal").st_size == before
