"""
The same faults over TLS, where more lies between a connection and its socket.
"""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import async_yield_fixture, ensureDeferred

from asynqueue import TaskQueue, WireWorker, WorkerLost
from asynqueue.wire.transport.certificates import makeKeys
from tests.doubles import Heard
from tests.integration.process_checks import residentBytes, until
from tests.integration.wire_faults import KEY, Faults, Harmed, Hosts, hosts
from tests.integration.wire_raw import CALL, RawPeer, call, dial, frame

__all__ = ["hosts"]

# Twisted's own code has its certificates made by pyOpenSSL.
pytestmark = pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning")

BEAT = 0.25
SIZE = 24 << 20

# So much more memory may a host have.
SLACK = 150 << 20


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """
    Certificates.
    """
    directory = tmp_path_factory.mktemp("keys")
    makeKeys(directory)
    return directory


class Channel:
    """
    A host that is reached through TLS, and knows its callers by certificates and by a key.
    """

    def __init__(self, hosts: Hosts, made: Path, port: int = 0, keyed: bool = True) -> None:
        self._hosts = hosts
        self._made = made
        self._keyed = keyed
        self.host: Harmed
        self.port = port
        self.start()
        self.description = (
            f"tls:127.0.0.1:{self.port}:trustRoots={made}/trust"
            f":certificate={made}/client.pem:privateKey={made}/client.key"
        )

    def start(self) -> None:
        """
        Start it, or start it again.
        """
        options: dict[str, Any] = {"keyFile": self._hosts.key()} if self._keyed else {}
        self.host = self._hosts.start(
            f"tls:{self.port}:interface=127.0.0.1:certificate={self._made}/server.pem"
            f":privateKey={self._made}/server.key:trustRoots={self._made}/trust",
            heartbeat=BEAT,
            **options,
        )
        self.port = int(self.host.description.rpartition(":")[2])

    def worker(self) -> WireWorker:
        """
        Somebody who may call it.
        """
        return WireWorker(
            Faults(), self.description, key=KEY if self._keyed else None, heartbeat=BEAT
        )


@async_yield_fixture
async def channel(hosts: Hosts, made: Path) -> Any:
    """
    A host that was reached already.
    """
    yield Channel(hosts, made)


@ensureDeferred
async def test_killedInTransfers(channel: Channel) -> None:
    """
    A host that is killed in the middle of transfers and comes back makes those again that
    may be repeated; the others fail.
    """
    worker = channel.worker()
    queue = TaskQueue(worker)
    await queue.call("square", 1)
    again = [
        Heard(queue.call("size", bytes(SIZE), retries=9)),
        Heard(queue.call("blob", SIZE, retries=9)),
    ]
    once = [Heard(queue.call("hold")), Heard(queue.call("size", bytes(SIZE)))]
    await until(lambda: worker.statistics().held >= 2)
    channel.host.kill()
    channel.start()
    await until(lambda: all(each.results for each in again + once[:1]))
    assert again[0].result == SIZE
    assert again[1].result == bytes(SIZE)
    assert isinstance(once[0].error, WorkerLost)
    await until(lambda: once[1].results)
    assert once[1].result == SIZE or isinstance(once[1].error, WorkerLost)
    await queue.shutdown()


@ensureDeferred
async def test_frozen(channel: Channel) -> None:
    """
    A host that freezes is found by its heartbeat, and used again when it moves.
    """
    queue = TaskQueue(channel.worker())
    held = Heard(queue.call("hold"))
    assert await queue.call("held") == 1
    channel.host.signal(signal.SIGSTOP)
    data = Heard(queue.call("size", bytes(SIZE), retries=9))
    await until(lambda: held.results)
    assert isinstance(held.error, WorkerLost)
    channel.host.signal(signal.SIGCONT)
    await until(lambda: data.results)
    assert data.result == SIZE
    while await queue.call("held"):
        pass
    await queue.shutdown()


@pytest.mark.parametrize("name", ["megabyte", "blobs"])
@ensureDeferred
async def test_nobodyReads(name: str, hosts: Hosts, made: Path) -> None:
    """
    What is not read takes bounded memory of the host, and others are served.
    """
    channel = Channel(hosts, made, keyed=False)
    queue = TaskQueue(channel.worker())
    await queue.call("square", 1)
    before = residentBytes(channel.host.pid)
    peer = await (await dial(channel.description)).open()
    credit = frame(6, 1, (10**6).to_bytes(8, "little"))
    peer.send(frame(CALL, 1, call(name)), credit)
    peer.transport.pauseProducing()
    if name == "megabyte":
        peer.send(*(frame(CALL, n, call(name)) for n in range(2, 1000)))
    for number in range(300):
        assert await queue.call("square", number) == number * number
        assert residentBytes(channel.host.pid) - before < SLACK
    peer.transport.abortConnection()
    await peer.lost
    await queue.shutdown()


@ensureDeferred
async def test_garbageInTheHandshake(channel: Channel) -> None:
    """
    Who speaks no TLS, or leaves in the middle of the handshake, or says nothing, does no harm.
    """
    queue = TaskQueue(channel.worker())
    silent = []
    for size in (0, 1, 5, 100, 10_000):
        for _ in range(5):
            with socket.create_connection(("127.0.0.1", channel.port)) as stranger:
                stranger.sendall(os.urandom(size))
        silent.append(socket.create_connection(("127.0.0.1", channel.port)))
    for number in range(50):
        assert await queue.call("square", number) == number * number
    for stranger in silent:
        stranger.close()
    await queue.shutdown()


@ensureDeferred
async def test_plainBoxesToTLS(channel: Channel) -> None:
    """
    Who speaks the protocol without TLS where TLS is wanted is let go.
    """
    peer: RawPeer = await dial(f"tcp:127.0.0.1:{channel.port}")
    peer.greet()
    await peer.lost
    queue = TaskQueue(channel.worker())
    assert await queue.call("square", 4) == 16
    await queue.shutdown()


@ensureDeferred
async def test_toldToEnd(channel: Channel) -> None:
    """
    A host that is told to end ends what it has, and its goodbye is heard through TLS.
    """
    queue = TaskQueue(channel.worker())
    heard = [Heard(queue.call("square", number)) for number in range(3000)]
    await until(lambda: heard[100].results)
    assert await channel.host.end() == 0
    channel.start()
    await until(lambda: all(each.results for each in heard))
    assert [each.result for each in heard] == [number * number for number in range(3000)]
    await queue.shutdown()
