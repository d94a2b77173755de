"""
Makers of stores in databases, each of them empty, by the clock of the test.
"""

from __future__ import annotations

from itertools import count
from pathlib import Path

from twisted.internet.task import Clock

from asynqueue.stores.postgres.engine import PostgresEngine
from asynqueue.stores.sqlite.engine import SQLiteEngine
from asynqueue.stores.store import Store
from asynqueue.stores.thread import Runner
from tests.postgres import Database


class SQLiteStores:
    """
    Makes stores in files of a folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = count(1)

    def __call__(self, clock: Clock, runner: Runner | None = None) -> Store:
        """
        Make one.

        @param runner: what calls its engine; C{None}: a thread.
        """
        path = self._folder / f"{next(self._numbers)}.db"
        # Nothing here outlives a power cut.
        engine = SQLiteEngine(path, synchronous="normal", clock=clock.seconds)
        return Store(engine, runner)


class PostgresStores:
    """
    Makes stores in one database, one after the other: what is in its tables is deleted first, as to
    make them anew takes longer.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def __call__(self, clock: Clock, runner: Runner | None = None) -> Store:
        """
        Make one.

        @param runner: what calls its engine; C{None}: a thread.
        """
        with self._database.connect() as connection:
            tables = connection.execute(
                "SELECT tablename FROM pg_tables"
                " WHERE schemaname = 'asynqueue' AND tablename <> 'meta'"
            ).fetchall()
            for [table] in tables:
                connection.execute(f'DELETE FROM asynqueue."{table}"')  # type: ignore[call-overload]
        engine = PostgresEngine(self._database.conninfo(), clock=clock.seconds)
        return Store(engine, runner)
