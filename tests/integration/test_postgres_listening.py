"""
Programs on one store in PostgreSQL hear of what others change.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest
from psycopg import sql
from twisted.internet.defer import Deferred

from asynqueue.stores.operations import (
    Act,
    ActOn,
    Add,
    Claim,
    Count,
    End,
    Ended,
    Operation,
    Register,
    Want,
)
from asynqueue.stores.postgres.engine import PostgresEngine
from asynqueue.stores.records import ALL, Flow, StoreEvent
from asynqueue.stores.store import Store
from tests.jobs import DONE, node, someJobs
from tests.postgres import Database, Server

UNKNOWN = StoreEvent(isUnknown=True)

# The backends that hear.
TERMINATE = "SELECT pg_terminate_backend(pid) FROM asynqueue.listener"

# A fork has a connection of its own, and leaves that of its parent alone.
FORKING = """
import os, sys
from asynqueue.stores.operations import Add, Count
from asynqueue.stores.postgres.engine import PostgresEngine
from tests.jobs import someJobs

engine = PostgresEngine(sys.argv[1])
engine.subscribe(print)
engine.open()
[before] = engine._connection.execute("SELECT pg_backend_pid()").fetchone()
jobs = someJobs(2)
if not os.fork():
    engine.execute([Add(jobs[:1])])
    engine.close()
    engine.open()
    engine.execute([Add(jobs[1:])])
    engine.close()
    os._exit(0)
os.wait()
[after] = engine._connection.execute("SELECT pg_backend_pid()").fetchone()
print(before == after, sum(engine.execute([Count()])[0][0].values()))
engine.close()
"""


class Hearing:
    """
    An open engine, and what it has heard.
    """

    def __init__(self, conninfo: str) -> None:
        self.heard: SimpleQueue[StoreEvent] = SimpleQueue()
        self.engine = PostgresEngine(conninfo)
        self.engine.subscribe(self.heard.put)
        self.engine.open()

    def do(self, operation: Operation[Any]) -> Any:
        """
        Do one operation.
        """
        [answer], _ = self.engine.execute([operation])
        return answer

    def next(self) -> StoreEvent:
        """
        Return what is heard next.
        """
        return self.heard.get(timeout=60)


@pytest.fixture
def hear(postgres: Database) -> Iterator[Callable[[], Hearing]]:
    """
    Makes engines on one store that hear.
    """
    made: list[Hearing] = []

    def hearing() -> Hearing:
        made.append(Hearing(postgres.conninfo()))
        return made[-1]

    yield hearing
    for each in made:
        each.engine.close()


def test_othersHear(hear: Callable[[], Hearing]) -> None:
    """
    What a program changes others hear of, as its own store tells it; it does not hear itself.
    """
    ours, theirs = hear(), hear()
    jobs = someJobs(3, flow=Flow('a "b"', -3))
    told = []

    def do(operation: Operation[Any]) -> Any:
        [answer], event = ours.engine.execute([operation])
        if event != StoreEvent():
            told.append(event)
        return answer

    do(Add((*jobs, *someJobs(1, after=60))))
    do(Register(node("n"), 60))
    claimed = do(Claim("n", (Want(jobs[0].flow, 2),), begin=True)).claimed
    do(End("n", (Ended(claimed[0].attempt, DONE),)))
    do(ActOn(Act.CANCEL, ALL))
    assert len(told) == 3
    assert [theirs.next() for _ in told] == told
    theirs.do(Add(someJobs(1)))
    assert ours.next() == StoreEvent((Flow(),))


def test_nobodySpeaksToHimself(hear: Callable[[], Hearing], postgres: Database) -> None:
    """
    Where no other program hears nothing is said: that would cost each commit.
    """
    alone = hear()
    said: list[str] = []
    with postgres.connect() as connection:
        connection.add_notify_handler(lambda notify: said.append(notify.payload))
        connection.execute(
            sql.SQL("LISTEN {}").format(sql.Identifier(f"asynqueue_{alone.engine._lock}"))
        )
        alone.do(Add(someJobs(1)))
        connection.execute("SELECT 1")
        assert said == []
        other = hear()
        alone.do(Add(someJobs(1)))
        connection.execute("SELECT 1")
        assert len(said) == 1
        assert other.next() == StoreEvent((Flow(),))


def test_tooMuchIsUnknown(hear: Callable[[], Hearing]) -> None:
    """
    Of more changes than PostgreSQL passes on it is heard that there are some.
    """
    ours, theirs = hear(), hear()
    jobs = someJobs(1000)
    ours.do(Add(jobs))
    assert theirs.next() == StoreEvent((Flow(),))
    ours.do(ActOn(Act.CANCEL, ALL))
    assert theirs.next() == UNKNOWN


def test_whatCannotBeUnderstoodIsUnknown(hear: Callable[[], Hearing], postgres: Database) -> None:
    """
    What a stranger says under the name of the store may mean anything.
    """
    theirs = hear()
    channel = f"asynqueue_{theirs.engine._lock}"
    with postgres.connect() as connection:
        for text in ("", "junk", "[]", '{"flows": [1]}', '{"flows": [["", 0, 9]]}'):
            connection.execute("SELECT pg_notify(%s, %s)", [channel, text])
            assert theirs.next() == UNKNOWN


def test_lostConnectionIsMadeAnew(hear: Callable[[], Hearing], postgres: Database) -> None:
    """
    When the connection that hears is lost, it is made anew, and then anything may have changed.
    """
    ours, theirs = hear(), hear()
    with postgres.connect() as connection:
        for _ in range(3):
            connection.execute(TERMINATE)
            assert (ours.next(), theirs.next()) == (UNKNOWN, UNKNOWN)
            ours.do(Add(someJobs(1)))
            assert theirs.next() == StoreEvent((Flow(),))


def test_restartedServerIsHeardAgain(postgresServer: Server) -> None:
    """
    When a server that was killed is back, anything may have changed, and what changes then is
    heard.
    """
    conninfo = postgresServer.database().conninfo()
    ours, theirs = Hearing(conninfo), Hearing(conninfo)
    postgresServer.kill()
    postgresServer.start()
    assert (ours.next(), theirs.next()) == (UNKNOWN, UNKNOWN)
    ours.do(Add(someJobs(1)))
    assert theirs.next() == StoreEvent((Flow(),))
    for each in ours, theirs:
        each.engine.close()


def test_closedEngineIsGone(hear: Callable[[], Hearing], postgres: Database) -> None:
    """
    An engine that is closed leaves no thread, no connection and no trace in the store; those that
    have died are forgotten when the next one comes.
    """
    before = set(threading.enumerate())
    died = hear()
    with postgres.connect() as connection:
        connection.execute("UPDATE asynqueue.listener SET id = 'dead', pid = 1")
        hear().engine.close()
        died.engine.close()
        assert connection.execute("SELECT id FROM asynqueue.listener").fetchall() == []
    assert set(threading.enumerate()) == before


def test_missingRightsAreSaidAtOnce(postgres: Database, hear: Callable[[], Hearing]) -> None:
    """
    A program that cannot be heard of what others change is not opened.
    """
    hear()
    with postgres.connect() as connection:
        connection.execute("REVOKE ALL ON asynqueue.listener FROM PUBLIC")
        connection.execute("CREATE ROLE deaf LOGIN")
        connection.execute("GRANT USAGE ON SCHEMA asynqueue TO deaf")
        connection.execute("GRANT SELECT ON asynqueue.meta TO deaf")
        engine = PostgresEngine(postgres.conninfo(user="deaf"))
        engine.subscribe(lambda event: None)
        with pytest.raises(ConnectionError, match="permission denied for table listener"):
            engine.open()
        connection.execute("DROP OWNED BY deaf")
        connection.execute("DROP ROLE deaf")


def test_forksLeaveConnectionsAlone(postgres: Database) -> None:
    """
    A fork of a program connects anew, and its parent's connection goes on.
    """
    said = subprocess.run(
        [sys.executable, "-c", FORKING, postgres.conninfo()],
        cwd=Path(__file__).parent.parent.parent,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        timeout=120,
    ).stdout
    assert said.splitlines()[-1] == "True 2"


async def test_storesTellOfOthers(postgres: Database) -> None:
    """
    A store calls its listeners, in the reactor's thread, with what others have changed.
    """
    ours, theirs = (Store(PostgresEngine(postgres.conninfo())) for _ in range(2))
    heard: Deferred[tuple[StoreEvent, threading.Thread]] = Deferred()
    theirs.listen(lambda event: heard.callback((event, threading.current_thread())))
    await ours.open()
    await theirs.open()
    await ours.do(Add(someJobs(1)))
    assert await heard == (StoreEvent((Flow(),)), threading.current_thread())
    assert await theirs.do(Count())
    await ours.close()
    await theirs.close()
