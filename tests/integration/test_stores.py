"""
What L{asynqueue.testing.stores} checks: stores in databases keep what every store promises.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from asynqueue.testing.stores import storeChecks
from tests.postgres import Server
from tests.storemaking import PostgresStores, SQLiteStores


def makeNone(clock: Clock) -> Any:
    raise NotImplementedError("each test brings what makes its stores")


CHECKS = storeChecks(makeNone)


@pytest.mark.parametrize("check", CHECKS, ids=str)
def test_sqlite(check: Any, tmp_path: Path) -> Deferred[None]:
    """
    A store in a file keeps each promise.
    """
    return evolve(check, makeStore=SQLiteStores(tmp_path))()


@pytest.fixture(scope="module")
def stores(_postgresServer: Server) -> Iterator[PostgresStores]:
    """
    Makes empty stores in one database.
    """
    database = _postgresServer.database()
    yield PostgresStores(database)
    database.drop()


@pytest.mark.parametrize("check", CHECKS, ids=str)
def test_postgres(check: Any, stores: PostgresStores) -> Deferred[None]:
    """
    A store in PostgreSQL keeps each promise.
    """
    return evolve(check, makeStore=stores)()
