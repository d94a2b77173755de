"""
Somebody between a queue and a host, who has a certificate that the queue believes, but
not the key.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure

from asynqueue.errors import IdentityRefused
from asynqueue.reactors import theReactor
from asynqueue.taskqueue import TaskQueue
from asynqueue.wire.client.worker import WireWorker
from asynqueue.wire.host.server import WireServer
from asynqueue.wire.transport.certificates import makeKeys
from asynqueue.wire.transport.endpoints import clientEndpoint, serverEndpoint
from tests.integration.process_checks import PATIENCE
from tests.integration.wire_universe import Universe

# Twisted hands them over, and pyOpenSSL says that it will have to learn it in a new way.
pytestmark = pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning")

KEY = b"a key that only two sides have.."


class Half(Protocol):
    """
    One of the two connections of somebody between.

    @ivar other: the other one.
    @ivar waiting: what came before there was one.
    """

    transport: Any

    def __init__(self) -> None:
        self.other: Half | None = None
        self.waiting: list[bytes] = []
        self.isLost = False

    def join(self, other: Half) -> None:
        """
        Pass on all that comes.
        """
        self.other = other
        other.transport.write(b"".join(self.waiting))

    def dataReceived(self, data: bytes) -> None:
        if self.other is None:
            self.waiting.append(data)
        else:
            self.other.transport.write(data)

    def connectionLost(self, reason: Failure | None = None) -> None:
        self.isLost = True
        if self.other is not None:
            self.other.transport.loseConnection()


class Between(Factory):
    """
    Listens, and dials somebody else for each who comes.
    """

    noisy = False

    def __init__(self, description: str) -> None:
        """
        @param description: whom to dial.
        """
        self._endpoint = clientEndpoint(theReactor(), description)
        self.halves: list[Half] = []

    def buildProtocol(self, address: Any) -> Half:
        near = Half()
        self.halves.append(near)

        def join(far: Any) -> None:
            self.halves.append(far)
            near.join(far)
            far.join(near)

        dialed = Factory.forProtocol(Half)
        dialed.noisy = False
        self._endpoint.connect(dialed).addCallback(join)
        return near


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """
    Certificates that all believe.
    """
    directory = tmp_path_factory.mktemp("keys")
    makeKeys(directory)
    return directory


def listens(made: Path) -> str:
    """
    A TLS port.
    """
    return f"tls:0:interface=127.0.0.1:certificate={made}/server.pem:privateKey={made}/server.key"


def dials(port: int, made: Path) -> str:
    """
    To dial it.
    """
    return f"tls:127.0.0.1:{port}:trustRoots={made}/trust"


async def called(description: str) -> int:
    """
    The result of a call over there.
    """
    worker = WireWorker(Universe(), description, key=KEY)
    try:
        await worker.whenConnected().addTimeout(PATIENCE, theReactor())
        queue = TaskQueue(worker)
        result: int = await queue.call("add", 1, 2)
        await queue.shutdown()
        return result
    finally:
        worker.crash()


@ensureDeferred
@pytest.mark.parametrize("opens", [False, True], ids=["passes on", "opens the channel"])
async def test_somebodyBetween(opens: bool, made: Path) -> None:
    """
    Who just passes TLS on does no harm; who opens it, with a certificate that is believed,
    and has a channel to each side, is found out by both, without a call.
    """
    server = WireServer(listens(made), Universe, key=KEY)
    await server.start()
    port = server.address.port
    between = Between(dials(port, made) if opens else f"tcp:127.0.0.1:{port}")
    here = listens(made) if opens else "tcp:0:interface=127.0.0.1"
    listening = await serverEndpoint(theReactor(), here).listen(between)
    try:
        description = dials(listening.getHost().port, made)
        if opens:
            with pytest.raises(IdentityRefused, match="somebody is between"):
                await called(description)
        else:
            assert await called(description) == 3
        assert len(between.halves) == 2
    finally:
        await listening.stopListening()
        for half in between.halves:
            if not half.isLost:
                half.transport.abortConnection()
        await server.stop(0)
