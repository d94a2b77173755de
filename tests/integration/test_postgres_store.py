"""
A store in PostgreSQL keeps all that stores promise.
"""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.task import Clock

from asynqueue.stores.postgres.engine import PostgresEngine
from asynqueue.stores.store import Store
from asynqueue.testing.stores import storeChecks
from tests.postgres import Database


def makeStore(clock: Clock) -> Any:
    """
    Stand for what makes a store: each test has a database of its own.
    """
    raise NotImplementedError


@pytest.mark.parametrize("name", [check.name for check in storeChecks(makeStore)])
def test_store(name: str, postgres: Database) -> Any:
    """
    A store in PostgreSQL keeps each promise.
    """

    def make(clock: Clock) -> Store:
        return Store(PostgresEngine(postgres.conninfo(), clock=clock.seconds))

    [check] = [each for each in storeChecks(make) if each.name == name]
    return check()
