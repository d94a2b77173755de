"""
What the PostgreSQL servers of the tests promise to the tests.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import psycopg
import pytest
from psycopg import sql

from tests.postgres import PASSWORD, SECRETIVE, Database, Server

ROOT = Path(__file__).parent.parent.parent

# Starts a server and tells where and which; then waits to be killed.
PROGRAM = """
import sys
from pathlib import Path
from tests.postgres import Server

server = Server()
server.copy(Path(sys.argv[1]))
server.start()
print(server.folder, server.pid, flush=True)
sys.stdin.read()
"""


def test_databaseIsEmptyAndOnesOwn(postgres: Database) -> None:
    """
    A test has a database that has no tables, and no other test uses.
    """
    with postgres.connect() as connection:
        (count,) = (
            connection.execute(
                "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace"
            ).fetchone()
            or ()
        )
        (name,) = connection.execute("SELECT current_database()").fetchone() or ()
    assert (count, name) == (0, postgres.name)


def test_serverIsNotOfTheTestsUserIfThatIsRoot(postgres: Database) -> None:
    """
    The server never runs as root.
    """
    assert postgres.server.pid is not None
    assert Path(f"/proc/{postgres.server.pid}").stat().st_uid != 0


def test_passwordIsAskedOfOneUser(postgres: Database) -> None:
    """
    One user needs a password, so that tests can have a wrong one.
    """
    with postgres.connect() as connection:
        connection.execute(
            sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(SECRETIVE), PASSWORD)
        )
        postgres.connect(user=SECRETIVE, password=PASSWORD).close()
        with pytest.raises(psycopg.OperationalError, match="password"):
            postgres.connect(user=SECRETIVE, password="wrong")
        connection.execute(f"DROP ROLE {SECRETIVE}")


def test_killedServerStartsAgainWithWhatWasCommitted(postgresServer: Server) -> None:
    """
    A server that was killed has all its processes gone, and recovers when it is started.
    """
    database = postgresServer.database()
    with database.connect() as connection:
        connection.execute("CREATE TABLE t AS SELECT 1 AS n")
    postgresServer.kill()
    with pytest.raises(psycopg.OperationalError):
        database.connect()
    postgresServer.start()
    with database.connect() as connection:
        assert connection.execute("SELECT n FROM t").fetchall() == [(1,)]


def test_stopDoesNotWaitForClients(postgresServer: Server) -> None:
    """
    A server that is stopped disconnects its clients.
    """
    connection = postgresServer.database().connect()
    postgresServer.stop()
    with pytest.raises(psycopg.OperationalError):
        connection.execute("SELECT 1")
    connection.close()


def test_serverEndsWithItsTests(emptyPostgres: Path) -> None:
    """
    When the tests are killed, their server is gone, and so is its folder.
    """
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(emptyPostgres)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert program.stdout is not None
    folder, pid = program.stdout.readline().split()
    guard = psutil.Process(int(pid)).parent()
    assert guard is not None
    program.kill()
    program.communicate()
    # It leaves when it has removed the folder, and that when the server is gone.
    guard.wait(60)
    assert not psutil.pid_exists(int(pid))
    assert not Path(folder).exists()


def test_serverThatCannotStartSaysWhy(emptyPostgres: Path) -> None:
    """
    What the server has said is in the error when it does not start.
    """
    server = Server(max_connections="none")
    try:
        server.copy(emptyPostgres)
        with pytest.raises(RuntimeError, match='"max_connections"'):
            server.start()
    finally:
        server.remove()
