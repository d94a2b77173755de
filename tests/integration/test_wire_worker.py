"""
L{WireWorker}, over real connections.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred

from asynqueue import ProcessQueue
from asynqueue.testing import WorkerCheck, workerChecks
from asynqueue.wire.catalog import Catalog
from asynqueue.wire.worker import WireWorker
from tests.integration.wire_hosts import HostProcess, Serving

# What every worker promises

# The sockets that the hosts of a module listen on.
_sockets: dict[str, str] = {}


@pytest.fixture(scope="module")
def far() -> Iterator[None]:
    """
    A host in a process of its own, whose calls run in two threads.
    """
    with tempfile.TemporaryDirectory() as folder:
        _sockets["far"] = f"unix:{folder}/far"
        host = HostProcess(_sockets["far"], threads=2)
        yield
        host.kill()


@pytest.mark.parametrize(
    "check",
    workerChecks(lambda: WireWorker(None, _sockets["far"]), place="process", slots=2, window=700),
    ids=str,
)
@pytest.mark.usefixtures("far")
def test_conformsToAnotherProcess(check: WorkerCheck) -> Deferred[None]:
    """
    The worker keeps what IWorker promises, where the host is another process.
    """
    return check()


@pytest.mark.parametrize(
    "check",
    workerChecks(
        lambda: WireWorker(None, _sockets["near"]), place="process", cancels=True, window=1300
    ),
    ids=str,
)
@ensureDeferred
async def test_conformsBeforeAProcessQueue(check: WorkerCheck) -> None:
    """
    The worker keeps what IWorker promises, where the host is here and has a
    L{ProcessQueue} behind it.
    """
    serving = await Serving(ProcessQueue(1), Catalog(None, trust="code")).listen()
    _sockets["near"] = serving.description
    try:
        await check()
    finally:
        await serving.close()
