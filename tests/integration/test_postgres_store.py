"""
A store in PostgreSQL keeps all that stores promise.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.task import Clock

from asynqueue.stores.postgres.engine import PostgresEngine
from asynqueue.stores.store import Store
from asynqueue.testing.stores import storeChecks
from tests.postgres import Database, Server


def makeStore(clock: Clock) -> Any:
    """
    Stand for what makes a store: what that is is known when there is a database.
    """
    raise NotImplementedError


NAMES = [check.name for check in storeChecks(makeStore)]


@pytest.fixture(scope="module")
def database(runningPostgres: Server) -> Iterator[Database]:
    """
    A database for all checks, of which each has a schema of its own.
    """
    database = runningPostgres.database()
    yield database
    database.drop()


@pytest.mark.parametrize("number", range(len(NAMES)), ids=NAMES)
def test_store(number: int, database: Database) -> Any:
    """
    A store in PostgreSQL keeps each promise.
    """

    def make(clock: Clock) -> Store:
        schema = f"{NAMES[number]} {number}"
        return Store(PostgresEngine(database.conninfo(), schema, clock=clock.seconds))

    return storeChecks(make)[number]()
