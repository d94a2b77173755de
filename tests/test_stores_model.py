"""
Stores of this program alone beside a model, with whatever programs and people may do, in any order.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import Phase, settings
from twisted.internet.task import Clock

from asynqueue.stores.memory import MemoryEngine
from asynqueue.stores.store import Store
from asynqueue.stores.thread import DirectRunner
from tests.storemachine import Storing, fewer
from tests.storemaking import SQLiteStores


class MemoryStoring(Storing):
    """
    The store in memory.
    """

    def makeStore(self, clock: Clock, runner: DirectRunner) -> Store:
        return Store(MemoryEngine(clock.seconds), runner)


class SQLiteStoring(Storing):
    """
    A store in a file.
    """

    def __init__(self) -> None:
        self.folder = TemporaryDirectory()
        super().__init__()

    def makeStore(self, clock: Clock, runner: DirectRunner) -> Store:
        return SQLiteStores(Path(self.folder.name))(clock, runner)

    def teardown(self) -> None:
        super().teardown()
        self.folder.cleanup()


TestMemoryStoring = MemoryStoring.TestCase
TestSQLiteStoring = SQLiteStoring.TestCase


TestMemoryStoring.settings = settings(stateful_step_count=30, phases=[Phase.generate])
TestSQLiteStoring.settings = settings(TestMemoryStoring.settings, max_examples=fewer(2))
