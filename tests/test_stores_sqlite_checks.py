"""
A store in a file keeps what every store promises.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from asynqueue.stores.sqlite.engine import SQLiteEngine
from asynqueue.stores.store import Store
from asynqueue.stores.thread import DirectRunner
from asynqueue.testing import StoreCheck, storeChecks

_numbers = count()


class Folder:
    """
    Where the stores of these tests are.

    @ivar path: of the folder, while the tests of this module run.
    """

    path: Path


@pytest.fixture(scope="module", autouse=True)
def _folder() -> Iterator[None]:
    """
    Make the folder, and remove it with all that is in it.
    """
    with tempfile.TemporaryDirectory() as path:
        Folder.path = Path(path)
        yield


def engine(clock: Clock) -> SQLiteEngine:
    """
    Make an engine on a new file.
    """
    return SQLiteEngine(Folder.path / f"{next(_numbers)}.db", clock=clock.seconds)


MAKERS: list[Callable[[Clock], Any]] = [
    lambda clock: Store(engine(clock)),
    lambda clock: Store(engine(clock), DirectRunner()),
]

CHECKS = [check for make in MAKERS for check in storeChecks(make)]


@pytest.mark.parametrize("check", CHECKS, ids=str)
def test_conforms(check: StoreCheck) -> Deferred[None]:
    """
    It keeps the promise, in a thread or without one.
    """
    return check()
