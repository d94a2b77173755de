"""
L{WireHub}: hosts that dial in, become workers, and leave.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import gatherResults
from twisted.internet.error import CannotListenError

from asynqueue import AsyncWorker, TaskQueue
from asynqueue.errors import IdentityRequired, WorkerLost
from asynqueue.testing import Gate, RecordingObserver
from asynqueue.wire.client.hub import WireHub
from asynqueue.wire.host.catalog import Catalog
from tests.integration import wire_calls as calls
from tests.integration.process_checks import until
from tests.integration.wire_hosts import Serving, Universe
from tests.integration.wire_raw import dial

KEY = b"a key that both sides have......"


@pytest.fixture
def folder() -> Iterator[str]:
    """
    A folder for sockets, whose name is short.
    """
    with tempfile.TemporaryDirectory() as name:
        yield name


@asynccontextmanager
async def hubIn(folder: str, **options: Any) -> AsyncIterator[tuple[TaskQueue, WireHub, str]]:
    """
    A queue with a hub that listens, and where.
    """
    queue = TaskQueue()
    where = f"unix:{folder}/hub"
    hub = WireHub(queue, where, **options)
    await hub.start()
    try:
        yield queue, hub, where
    finally:
        await hub.stop()
        await queue.shutdown()


def serving(**options: Any) -> Serving:
    """
    A host for some methods, and for any code if nothing else is said.
    """
    return Serving(TaskQueue(AsyncWorker()), Catalog(Universe(), trust="code"), **options)


@ensureDeferred
async def test_hostsBecomeWorkers(folder: str) -> None:
    """
    Each host that dials in is a worker of the queue, which calls its methods by name, and
    leaves with its connection.
    """
    async with hubIn(folder) as (queue, hub, where):
        observer = RecordingObserver()
        queue.addObserver(observer)
        waiting = queue.call("add", 1, two=2)
        hosts = [await serving().dial(where) for _ in range(3)]
        await until(lambda: len(queue) == 3)
        assert await waiting == 3
        assert hub.workers == queue.workers()
        assert all(worker.peer is not None for worker in hub.workers)
        told = json.loads(json.dumps(hub.statistics().as_dict()))
        assert (told["state"], told["unproven"], told["address"]) == ("listening", 0, where)
        assert [worker["state"] for worker in told["workers"]] == ["serving"] * 3
        await hosts[0].close()
        await until(lambda: len(queue) == 2)
        assert await queue.call("add", 2, two=2) == 4
        assert [name for name in observer.names() if name in ("hired", "left")] == [
            *["hired"] * 3,
            "left",
        ]
        for host in hosts[1:]:
            await host.close()


@ensureDeferred
async def test_theyAreQualifiedForWhatTheySay(folder: str) -> None:
    """
    A worker runs the series that its host says, and those that the hub has for all.
    """
    async with hubIn(folder, series=["all"]) as (queue, hub, where):
        host = await serving(qualified=("maps",)).dial(where)
        await until(lambda: len(queue) == 1)
        assert hub.workers[0].iQualified == ["all", "maps"]
        assert await queue.call(abs, -5, series="maps") == 5
        await host.close()


@ensureDeferred
async def test_nobodyWhoDialsHoldsOthersUp(folder: str) -> None:
    """
    Of hundreds that dial in and say nothing the oldest are cut; who has proved itself
    stays, and who does so later is let in.
    """
    async with hubIn(folder, key=KEY) as (queue, _, where):
        hosts = [await serving(key=KEY).dial(where)]
        await until(lambda: len(queue) == 1)
        strangers = []
        for _ in range(300):
            strangers.append(await dial(where))
            # The kernel holds few who were not accepted.
            await strangers[-1].next(b"Greet")
        hosts.append(await serving(key=KEY).dial(where))
        await until(lambda: len(queue) == 2)
        assert [each.lost.called for each in strangers] == [True] * 45 + [False] * 255
        for each in strangers:
            each.transport.abortConnection()
            await each.lost
        for host in hosts:
            await host.close()


@ensureDeferred
async def test_keys(folder: str) -> None:
    """
    A host with another key, or none, is not let in.
    """
    async with hubIn(folder, key=KEY) as (queue, _, where):
        strangers = [
            await serving(key=key).dial(where)
            for key in (None, b"a key that nobody else has......")
        ]
        await until(lambda: all(each.hosts[0].error for each in strangers))
        friend = await serving(key=KEY).dial(where)
        await until(lambda: len(queue) == 1)
        assert await queue.call(abs, -5) == 5
        for each in (*strangers, friend):
            await each.close()


@ensureDeferred
async def test_updates(folder: str) -> None:
    """
    A host runs the updates first that there were before it came; one that cannot is not
    hired, and its connection is cut.
    """
    async with hubIn(folder) as (queue, _, where):
        await queue.update(calls.remember, "hub")
        host = await serving().dial(where)
        await until(lambda: len(queue) == 1)
        assert "hub" in await queue.call(calls.remembered)
        await queue.update(int, "no number").addErrback(lambda failure: failure.trap(ValueError))
        unfit = await serving().dial(where)
        await until(lambda: unfit.hosts[0].error)
        assert len(queue) == 1
        await host.close()
        await unfit.close()


@ensureDeferred
async def test_lossInMidTask(folder: str) -> None:
    """
    A call whose host is cut off fails and names it; with retries another host runs it.
    """
    async with hubIn(folder) as (queue, hub, where):
        first = await serving().dial(where)
        await until(lambda: len(queue) == 1)
        gate = Gate()
        lost = queue.call(calls.waitInThread, gate.token)
        again = queue.call(calls.waitInThread, gate.token, retries=1)
        await gate.arrivals(2 if hub.workers[0].statistics().slots > 1 else 1)
        await first.leave()
        with pytest.raises(WorkerLost, match="HubWorker"):
            await lost
        gate.open()
        second = await serving().dial(where)
        assert await again is None
        await gate.close()
        await first.close()
        await second.close()


@ensureDeferred
async def test_stopping(folder: str) -> None:
    """
    A hub that stops listens no more, lets its hosts end what they run, and the queue goes
    on with its other workers; it can be started again.
    """
    queue = TaskQueue()
    hub = WireHub(queue, f"unix:{folder}/hub")
    assert hub.statistics().state == "idle"
    for _ in range(2):
        address = await hub.start()
        assert address is not None
        assert address == hub.address == await hub.start()
        host = await serving().dial(f"unix:{folder}/hub")
        await until(lambda: len(queue) == 1)
        gate = Gate()
        running = queue.call(calls.waitInThread, gate.token)
        await gate.arrivals()
        stopped = hub.stop()
        assert not stopped.called
        gate.open()
        await gatherResults([running, stopped, hub.stop()])
        assert (len(queue), hub.address) == (0, None)
        assert not os.path.exists(f"{folder}/hub")
        await gate.close()
        await host.close()
    await queue.shutdown()


@ensureDeferred
async def test_afterTheQueueIsDown(folder: str) -> None:
    """
    Who dials in when the queue is shut down is sent away.
    """
    async with hubIn(folder) as (queue, _, where):
        await queue.shutdown()
        host = await serving().dial(where)
        await until(lambda: host.hosts[0].error)
        await host.close()


@ensureDeferred
async def test_aService(folder: str) -> None:
    """
    As a service it listens while that runs.
    """
    queue = TaskQueue()
    hub = WireHub(queue, f"unix:{folder}/hub")
    service = hub.service
    service.startService()
    await until(lambda: hub.address)
    await service.stopService()
    assert hub.address is None
    await queue.shutdown()


@pytest.mark.parametrize(
    ("description", "options", "error"),
    [
        ("tcp:0", {}, IdentityRequired),
        ("nonsense:", {}, ValueError),
        ("unix:/nonexistent/socket", {}, (CannotListenError, OSError)),
        ("unix:/tmp/x", {"keyFile": "/nonexistent"}, OSError),
    ],
)
@ensureDeferred
async def test_whereNobodyCanListen(description: str, options: Any, error: Any) -> None:
    """
    What cannot be listened on, or must not without proof, fails the start.
    """
    queue = TaskQueue()
    hub = WireHub(queue, description, **options)
    for _ in range(2):
        with pytest.raises(error):
            await hub.start()
    await hub.stop()
    await queue.shutdown()


@pytest.mark.parametrize("options", [{"codec": "xml"}, {"N_concurrent": 0}])
def test_optionsWithoutSense(options: Any) -> None:
    """
    Options that no worker can have are refused at once.
    """
    with pytest.raises(ValueError):
        WireHub(TaskQueue(), "unix:/tmp/x", **options)
