"""
Stores in PostgreSQL beside a model, with whatever programs and people may do, in any order.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from twisted.internet.task import Clock

from asynqueue.stores.store import Store
from asynqueue.stores.thread import DirectRunner
from tests.postgres import Server
from tests.storemachine import Storing, fewer
from tests.storemaking import PostgresStores


@pytest.fixture
def stores(runningPostgres: Server) -> Iterator[PostgresStores]:
    """
    Makes empty stores in one database.
    """
    database = runningPostgres.database()
    yield PostgresStores(database)
    database.drop()


@pytest.mark.model
@pytest.mark.bulk
def test_postgres(stores: PostgresStores) -> None:
    """
    A store in PostgreSQL does what the model says.
    """

    class PostgresStoring(Storing):
        def makeStore(self, clock: Clock, runner: DirectRunner) -> Store:
            return stores(clock, runner)

    run_state_machine_as_test(
        PostgresStoring,
        settings=settings(max_examples=fewer(5), stateful_step_count=30, phases=[Phase.generate]),
    )
