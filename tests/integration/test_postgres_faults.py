"""
What is stored in PostgreSQL stays stored, and what is not is said not to be, when connections and
servers are killed.
"""

from __future__ import annotations

from collections.abc import Iterator
from queue import SimpleQueue
from threading import Event, Thread
from typing import Any

import pytest

from asynqueue.stores.errors import StoreLost, StoreUnavailable
from asynqueue.stores.operations import Add, Claim, Count, Find, Operation, Register, Want
from asynqueue.stores.postgres.engine import PostgresEngine
from asynqueue.stores.records import Flow, JobState
from tests.jobs import node, someJobs
from tests.postgres import Database, Server
from tests.postgresproxy import Proxy


def do(engine: PostgresEngine, operation: Operation[Any]) -> Any:
    """
    Have an engine do one operation.
    """
    [answer], _ = engine.execute([operation])
    return answer


@pytest.fixture
def engine(postgres: Database) -> Iterator[PostgresEngine]:
    """
    An open engine.
    """
    engine = PostgresEngine(postgres.conninfo())
    engine.open()
    yield engine
    engine.close()


@pytest.fixture
def proxy(postgres: Database) -> Iterator[Proxy]:
    """
    What stands between.
    """
    proxy = Proxy(postgres.server.folder)
    yield proxy
    proxy.close()


@pytest.fixture
def proxied(postgres: Database, proxy: Proxy) -> Iterator[PostgresEngine]:
    """
    An open engine behind a proxy.
    """
    engine = PostgresEngine(postgres.conninfo(host=proxy.folder, sslmode="disable"))
    engine.open()
    yield engine
    engine.close()


def test_terminatedConnectionIsMadeAnew(engine: PostgresEngine, postgres: Database) -> None:
    """
    A connection that the server has ended since the last call is made anew with the next one,
    and nobody hears of it.
    """
    with postgres.connect() as connection:
        for _ in range(3):
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE pid <> pg_backend_pid() AND datname = current_database()"
            )
            do(engine, Add(someJobs(2)))
    assert do(engine, Count()) == {JobState.WAITING: 6}


def test_terminatedTransactionIsDoneAgain(engine: PostgresEngine, postgres: Database) -> None:
    """
    A connection that ends before anything was committed costs nothing: what was asked is done
    once, on a new one.
    """
    with postgres.connect() as connection:
        connection.execute("CREATE SEQUENCE calls")
        connection.execute(
            "CREATE FUNCTION terminated() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            " IF nextval('public.calls') = 1 THEN PERFORM pg_terminate_backend(pg_backend_pid());"
            " END IF; RETURN NEW; END $$"
        )
        connection.execute(
            "CREATE TRIGGER terminated BEFORE INSERT ON asynqueue.waiting"
            " EXECUTE FUNCTION terminated()"
        )
        jobs = someJobs(3)
        assert [each.id for each in do(engine, Add(jobs))] == [job.id for job in jobs]
        assert connection.execute("SELECT last_value FROM calls").fetchone() == (2,)
    assert do(engine, Count()) == {JobState.WAITING: 3}


def test_answerOfCommitIsLost(proxied: PostgresEngine, proxy: Proxy) -> None:
    """
    If the connection is lost after the commit and before its answer, it is unknown whether the
    jobs are stored. Adding them again adds none.
    """
    jobs = someJobs(5)
    proxy.cuts = True
    with pytest.raises(StoreLost):
        do(proxied, Add(jobs))
    assert do(proxied, Count()) == {JobState.WAITING: 5}
    assert {each.id for each in do(proxied, Add(jobs))} == {job.id for job in jobs}
    assert do(proxied, Count()) == {JobState.WAITING: 5}


def test_commitIsLost(proxied: PostgresEngine, proxy: Proxy) -> None:
    """
    If the connection is lost as a commit is sent, that is unknown as well, and adding the jobs
    again adds them.
    """
    jobs = someJobs(5)
    proxy.cuts, proxy.isAsked = True, False
    with pytest.raises(StoreLost):
        do(proxied, Add(jobs))
    assert do(proxied, Count()) == {}
    do(proxied, Add(jobs))
    assert do(proxied, Count()) == {JobState.WAITING: 5}


def test_stoppedServerIsUnavailableUntilItIsBack(postgresServer: Server) -> None:
    """
    While there is no server it is said surely that nothing is done; when it is back, all is as
    before.
    """
    engine = PostgresEngine(postgresServer.database().conninfo())
    engine.open()
    do(engine, Add(someJobs(3)))
    postgresServer.stop()
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            do(engine, Add(someJobs(1)))
    postgresServer.start()
    assert do(engine, Count()) == {JobState.WAITING: 3}
    engine.close()


class Adding(Thread):
    """
    Adds jobs until it is stopped, and notes those of which it has heard that they are stored.
    """

    def __init__(self, conninfo: str, isUp: Event, told: SimpleQueue[int]) -> None:
        super().__init__()
        self.stored: set[str] = set()
        self.isStopped = False
        self._engine = PostgresEngine(conninfo)
        self._isUp = isUp
        self._told = told

    def run(self) -> None:
        self._engine.open()
        while not self.isStopped:
            self._addSurely(Add(someJobs(10)))
        self._engine.close()

    def _addSurely(self, operation: Add) -> None:
        """
        Add jobs, and ask again until it is known that they are stored.
        """
        while True:
            self._isUp.wait()
            try:
                do(self._engine, operation)
            except (StoreUnavailable, StoreLost):
                continue
            self.stored |= {job.id for job in operation.jobs}
            self._told.put(1)
            return


def test_killedServerLosesNothing(postgresServer: Server) -> None:
    """
    Of a server that is killed three times while four programs add jobs, all that was said to be
    stored is there, once.
    """
    conninfo = postgresServer.database().conninfo()
    isUp, told = Event(), SimpleQueue[int]()
    isUp.set()
    first = PostgresEngine(conninfo)
    first.open()
    adding = [Adding(conninfo, isUp, told) for _ in range(4)]
    for thread in adding:
        thread.start()
    for _ in range(3):
        for _ in range(40):
            told.get(timeout=120)
        isUp.clear()
        postgresServer.kill()
        postgresServer.start()
        isUp.set()
    for thread in adding:
        thread.isStopped = True
    for thread in adding:
        thread.join()
    stored = set().union(*(thread.stored for thread in adding))
    found = [each.job.id for each in do(first, Find(count=1_000_000))]
    assert sorted(found) == sorted(stored)
    do(first, Register(node("n"), 60))
    claimed = do(first, Claim("n", (Want(Flow(), 1_000_000),))).claimed
    assert {each.job.id for each in claimed} == stored
    first.close()
