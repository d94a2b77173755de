"""
What the engine for PostgreSQL promises beyond what all engines do: of its schema, of what is wrong,
and of several programs on one store.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from psycopg import sql

from asynqueue.stores.errors import StoreUnavailable, StoreVersionRefused
from asynqueue.stores.operations import (
    Act,
    ActOn,
    Add,
    Claim,
    Count,
    End,
    Ended,
    Find,
    Operation,
    Register,
    Rescue,
    Rescued,
    Want,
)
from asynqueue.stores.postgres.engine import PostgresEngine
from asynqueue.stores.records import ALL, Flow, JobFilter, JobState, Outcome
from tests.jobs import DONE, node, someJobs
from tests.postgres import PASSWORD, SECRETIVE, Database

Make = Callable[..., PostgresEngine]


@pytest.fixture
def make(postgres: Database) -> Iterator[Make]:
    """
    Makes open engines on one store, which are closed after the test.
    """
    made: list[PostgresEngine] = []

    def opened(**more: object) -> PostgresEngine:
        made.append(PostgresEngine(postgres.conninfo(**more)))
        made[-1].open()
        return made[-1]

    yield opened
    for engine in made:
        engine.close()


def do(engine: PostgresEngine, operation: Operation[Any]) -> Any:
    """
    Have an engine do one operation.
    """
    [answer], _ = engine.execute([operation])
    return answer


def refusal(conninfo: str) -> str:
    """
    Return what is said when a store cannot be opened: the reason only.
    """
    with pytest.raises(StoreUnavailable) as caught:
        PostgresEngine(conninfo).open()
    assert str(caught.value).count("\n") == 0
    assert PASSWORD not in str(caught.value)
    return caught.value.reason


# The schema


def test_openMakesTheSchemaOnce(make: Make, postgres: Database) -> None:
    """
    The first program makes the schema; others need no right to make anything.
    """
    make()
    with postgres.connect() as connection:
        connection.execute("CREATE ROLE modest LOGIN")
        connection.execute("GRANT USAGE ON SCHEMA asynqueue TO modest")
        for what in "TABLES", "SEQUENCES":
            connection.execute(
                sql.SQL("GRANT ALL ON ALL {} IN SCHEMA asynqueue TO modest").format(sql.SQL(what))
            )
        try:
            modest = make(user="modest")
            do(modest, Add(someJobs(3)))
            modest.close()
        finally:
            connection.execute("DROP OWNED BY modest")
            connection.execute("DROP ROLE modest")


def test_severalProgramsMakeTheSchemaAtOnce(postgres: Database) -> None:
    """
    Programs that find no schema at the same time wait for the one that makes it.
    """
    engines = [PostgresEngine(postgres.conninfo()) for _ in range(6)]
    with ThreadPoolExecutor(len(engines)) as pool:
        list(pool.map(PostgresEngine.open, engines))
    assert do(engines[0], Count()) == {}
    for engine in engines:
        engine.close()


def test_schemasAreStoresOfTheirOwn(postgres: Database) -> None:
    """
    Stores in schemas with any names do not know of each other.
    """
    first, second = (PostgresEngine(postgres.conninfo(), name) for name in ("asynqueue", 'My "b"'))
    for engine in (first, second):
        engine.open()
    do(first, Add(someJobs(3)))
    assert do(second, Count()) == {}
    assert second.name.endswith('schema=My "b"')
    for engine in (first, second):
        engine.close()


def test_newerSchemaIsRefused(make: Make, postgres: Database) -> None:
    """
    A schema that a newer version has made is named, and left alone.
    """
    make()
    with postgres.connect() as connection:
        connection.execute("UPDATE asynqueue.meta SET version = 99")
    with pytest.raises(StoreVersionRefused, match="is 99"):
        make()


@pytest.mark.parametrize("made", ["CREATE TABLE other (n int)", "CREATE TABLE meta (n int)"])
def test_strangeSchemaIsRefused(make: Make, postgres: Database, made: str) -> None:
    """
    A schema with tables of something else is left alone.
    """
    with postgres.connect() as connection:
        connection.execute("CREATE SCHEMA asynqueue")
        connection.execute("SET search_path TO asynqueue")
        connection.execute(made)  # type: ignore[call-overload]
        with pytest.raises(StoreVersionRefused, match="not one of AsynQueue"):
            make()
        tables = connection.execute(
            "SELECT count(*) FROM pg_tables WHERE schemaname = 'asynqueue'"
        ).fetchone()
    assert tables == (1,)


# What is wrong


def test_nameHasNoPassword(postgres: Database) -> None:
    """
    The name says where the store is, and keeps passwords for itself; so does what is said of a
    string that cannot be understood.
    """
    engine = PostgresEngine("host=here dbname=shop password=hush sslpassword=hush")
    assert engine.name == "postgresql:host=here:dbname=shop"
    assert PostgresEngine("postgresql://me:hush@here/shop").name.count("hush") == 0
    with pytest.raises(ValueError, match="cannot be understood") as caught:
        PostgresEngine("host=here password=hush hush hush")
    assert "hush" not in str(caught.value)


def test_noSuchServer(postgres: Database) -> None:
    """
    A server that is not there is said to be not there, in a line.
    """
    assert "No such file" in refusal(postgres.conninfo(host="/nowhere"))
    assert "resolve" in refusal(postgres.conninfo(host="nowhere.invalid"))


def test_noSuchDatabase(postgres: Database) -> None:
    """
    A database that is not there is named.
    """
    assert refusal(postgres.conninfo(dbname="none")) == 'database "none" does not exist'


def test_wrongPassword(postgres: Database) -> None:
    """
    A wrong password is said to be wrong, and not said.
    """
    with postgres.connect() as connection:
        connection.execute(
            sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'x'").format(sql.Identifier(SECRETIVE))
        )
        reason = refusal(postgres.conninfo(user=SECRETIVE, password=PASSWORD))
        connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(SECRETIVE)))
    assert reason == f'password authentication failed for user "{SECRETIVE}"'


def test_noRights(postgres: Database) -> None:
    """
    A user who may not make the schema is told so.
    """
    with postgres.connect() as connection:
        connection.execute("CREATE ROLE nobody_special LOGIN")
        reason = refusal(postgres.conninfo(user="nobody_special"))
        connection.execute("DROP ROLE nobody_special")
    assert reason == f"permission denied for database {postgres.name}"


def test_readOnly(make: Make, postgres: Database) -> None:
    """
    A server that only can be read is said to be so.
    """
    make()
    engine = make(options="-c default_transaction_read_only=on")
    with pytest.raises(StoreUnavailable, match="can only be read"):
        do(engine, Add(someJobs(1)))


def test_fullDisk(make: Make, postgres: Database) -> None:
    """
    A full disk is said to be full; what was asked is not done, and the next thing is when there is
    place.
    """
    engine = make()
    with postgres.connect() as connection:
        connection.execute(
            "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = '53100'; END $$"
        )
        connection.execute(
            "CREATE TRIGGER full_disk BEFORE INSERT ON asynqueue.waiting"
            " EXECUTE FUNCTION full_disk()"
        )
        with pytest.raises(StoreUnavailable, match="its disk is full"):
            do(engine, Add(someJobs(1)))
        connection.execute("DROP TRIGGER full_disk ON asynqueue.waiting")
    do(engine, Add(someJobs(2)))
    assert do(engine, Count()) == {JobState.WAITING: 2}


def test_whatCannotBeStoredHarmsNothing(make: Make) -> None:
    """
    An operation that PostgreSQL cannot do leaves nothing behind, and the connection in use.
    """
    engine = make()
    with pytest.raises(psycopg.DataError):
        engine.execute([Add(someJobs(2)), Add(someJobs(1, name="with \0"))])
    with pytest.raises(psycopg.DataError):
        do(engine, Add(someJobs(1, flow=Flow("", 100_000))))
    assert do(engine, Count()) == {}


def test_lockedStore(make: Make, postgres: Database) -> None:
    """
    A store that stays locked for longer than the server is told to wait cannot be used for now.
    """
    engine = make(options="-c lock_timeout=1")
    with postgres.connect() as connection, connection.transaction():
        connection.execute("LOCK TABLE asynqueue.job")
        with pytest.raises(StoreUnavailable, match="lock_timeout"):
            do(engine, Add(someJobs(1)))
    do(engine, Add(someJobs(2)))
    assert do(engine, Count()) == {JobState.WAITING: 2}


def test_databaseWithoutAnEncoding(postgres: Database) -> None:
    """
    Names come back as they were from a database that does not know of encodings.
    """
    job = someJobs(1, name="shop.tasks:größe €")[0]
    with postgres.connect() as connection:
        connection.execute("CREATE DATABASE plain ENCODING 'SQL_ASCII' TEMPLATE template0")
        engine = PostgresEngine(postgres.conninfo(dbname="plain"))
        engine.open()
        do(engine, Add((job,)))
        [found] = do(engine, Find())
        engine.close()
        connection.execute("DROP DATABASE plain WITH (FORCE)")
    assert found.job == job


# Several programs


def test_noJobIsClaimedTwice(make: Make) -> None:
    """
    Programs that claim the same jobs at once have each of 10,000 jobs once, in their order.
    """
    flows = [Flow(str(number)) for number in range(10)]
    engines = [make() for _ in range(4)]
    for flow in flows:
        do(engines[0], Add(someJobs(1000, flow=flow)))

    def claimAll(number: int) -> list[Any]:
        engine, name = engines[number], f"node {number}"
        do(engine, Register(node(name), 60))
        claimed: list[Any] = []
        want = Claim(name, tuple(Want(flow, 7) for flow in flows), begin=True)
        while found := do(engine, want).claimed:
            claimed += found
        return claimed

    with ThreadPoolExecutor(len(engines)) as pool:
        shares = list(pool.map(claimAll, range(len(engines))))
    ids = [each.job.id for share in shares for each in share]
    assert (len(ids), len(set(ids))) == (10_000, 10_000)
    for share in shares:
        for flow in flows:
            ofFlow = [each.job.id for each in share if each.job.flow == flow]
            assert ofFlow == sorted(ofFlow)


def test_zombieIsRefused(make: Make) -> None:
    """
    A node that was taken for dead and goes on ends nothing that another one has, and the truth
    of what was lost is taken from it.
    """
    zombie, other = make(), make()
    for engine, name in (zombie, "zombie"), (other, "other"):
        do(engine, Register(node(name), 0 if name == "zombie" else 60))
    lost, repeated = (*someJobs(1, attempts=2), *someJobs(1, attempts=2, loss=True))
    do(zombie, Add((lost, repeated)))
    taken = do(zombie, Claim("zombie", (Want(Flow(), 5),), begin=True)).claimed
    rescued = do(other, Rescue())
    assert rescued == Rescued(("zombie",), (), (repeated.id,), (lost.id,))
    [again] = do(other, Claim("other", (Want(Flow(), 5),), begin=True)).claimed
    ends = tuple(Ended(each.attempt, DONE) for each in taken)
    assert {each.id for each in do(zombie, End("zombie", ends))} == {lost.id}
    assert do(other, End("other", (Ended(again.attempt, DONE),))) == {again.attempt}
    assert do(other, Count()) == {JobState.DONE: 2}


def test_actsAndRescuesAndClaimsNeverDeadlock(make: Make, postgres: Database) -> None:
    """
    Programs that add, claim, end, cancel, retry and rescue the same jobs at once wait for each
    other, never in a circle, and each job is in one state in the end.
    """
    engines = [make() for _ in range(4)]
    failed = Outcome(kind=JobState.FAILED)

    def work(number: int) -> None:
        engine, name = engines[number], f"node {number}"
        for turn in range(25):
            keyed = someJobs(5, key=f"key {(turn + number) % 3}")
            jobs = (*someJobs(20, flow=Flow(str(turn % 3)), loss=True, attempts=3), *keyed)
            do(engine, Register(node(name), 0 if turn % 5 == number else 60))
            engine.execute([Add(jobs), Add(jobs[::-1])])
            wants = tuple(Want(Flow(series), 10) for series in ("", "0", "1", "2"))
            claimed = do(engine, Claim(name, wants, begin=turn % 2 == 0)).claimed
            ends = tuple(Ended(each.attempt, failed) for each in claimed[::2])
            act = Act.CANCEL if turn % 2 else Act.RETRY
            engine.execute([End(name, ends), ActOn(act, ALL), Rescue()])

    with ThreadPoolExecutor(len(engines)) as pool:
        list(pool.map(work, range(len(engines))))
    counted = do(engines[0], Count())
    assert counted == do(engines[0], Count(JobFilter(olderThan=-1e6)))
    found = do(engines[0], Find(count=100_000))
    assert len(found) == sum(counted.values()) == 4 * 25 * 20 + len([f for f in found if f.job.key])
    with postgres.connect() as connection:
        connection.execute("SELECT pg_stat_clear_snapshot()")
        deadlocks = connection.execute(
            "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        ).fetchone()
    assert deadlocks == (0,)
