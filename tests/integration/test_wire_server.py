"""
Servers over real sockets, in this process and in others: who is let in, who is not, and
how they end.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import ensureDeferred

from asynqueue.errors import IdentityRefused, IdentityRequired, WireError, WorkerLost
from asynqueue.reactors import theReactor
from asynqueue.taskqueue import TaskQueue
from asynqueue.wire.client.hub import WireHub
from asynqueue.wire.client.worker import WireWorker
from asynqueue.wire.host.server import WireServer
from asynqueue.wire.transport.certificates import makeKeys
from asynqueue.wire.transport.endpoints import ENVIRONMENT, dialedAs
from tests.integration.process_checks import PATIENCE, Used, isGone, until
from tests.integration.wire_universe import Trouble, Universe

# Twisted hands them over, and pyOpenSSL says that it will have to learn it in a new way.
pytestmark = pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning")

ROOT = Path(__file__).parents[2]

KEY = b"k" * 32

FQN = "tests.integration.wire_universe.Universe"

LOOPBACK = "tcp:0:interface=127.0.0.1"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """
    Keys and certificates of this crew ...
    """
    directory = tmp_path_factory.mktemp("ours")
    makeKeys(directory)
    return directory


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """
    ... of another crew ...
    """
    directory = tmp_path_factory.mktemp("theirs")
    makeKeys(directory)
    return directory


@pytest.fixture(scope="module")
def expired(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """
    ... and of one that was.
    """
    directory = tmp_path_factory.mktemp("old")
    makeKeys(directory, days=1, now=datetime.now(UTC) - timedelta(days=2))
    return directory


@pytest.fixture(autouse=True)
def _noKeyAround(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENVIRONMENT, raising=False)


def listens(directory: Path, mutual: Path | None = None) -> str:
    """
    Where a server with TLS listens.

    @param directory: whose certificate it shows.
    @param mutual: whose it wants to see.
    """
    trusted = "" if mutual is None else f":trustRoots={mutual}/trust"
    return (
        f"tls:0:interface=127.0.0.1:certificate={directory}/server.pem"
        f":privateKey={directory}/server.key{trusted}"
    )


def dials(port: int, trusted: Path, shown: Path | None = None) -> str:
    """
    How a server with TLS is dialed.

    @param trusted: whose certificate it must have.
    @param shown: whose it is shown.
    """
    pair = "" if shown is None else f":certificate={shown}/client.pem:privateKey={shown}/client.key"
    return f"tls:127.0.0.1:{port}:trustRoots={trusted}/trust{pair}"


@asynccontextmanager
async def serving(description: str, **options: Any) -> AsyncIterator[WireServer]:
    """
    A server while it runs.
    """
    server = WireServer(description, Universe, **options)
    await server.start()
    try:
        yield server
    finally:
        await server.stop(0)


@asynccontextmanager
async def connected(description: str, **options: Any) -> AsyncIterator[TaskQueue]:
    """
    A queue with a worker on the other side.
    """
    worker = WireWorker(Universe(), description, **options)
    await worker.whenConnected()
    queue = TaskQueue(worker)
    try:
        yield queue
    finally:
        await queue.detachWorker(worker, crash=True)
        await queue.shutdown()


async def refusalOf(description: str, **options: Any) -> str:
    """
    What a queue is told that is not let in.
    """
    worker = WireWorker(Universe(), description, **options)
    try:
        with pytest.raises(IdentityRefused) as caught:
            await worker.whenConnected().addTimeout(PATIENCE, theReactor())
    finally:
        worker.crash()
    return str(caught.value)


async def check(queue: TaskQueue) -> None:
    """
    See that all kinds of calls are made.
    """
    assert await queue.call("add", 1, 2) == 3
    data = os.urandom(1 << 20)
    assert await queue.call("add", data, b"") == data
    with pytest.raises(Trouble, match="as it should"):
        await queue.call("trouble")
    items = await queue.call("items", 100)
    assert [item async for item in items] == list(range(100))


# Who is let in


@ensureDeferred
async def test_unix(tmp_path: Path) -> None:
    """
    Over a UNIX socket, which only its owner can use, calls are made, and it leaves nothing
    behind.
    """
    path = tmp_path / "socket"
    async with serving(f"unix:{path}"), connected(f"unix:{path}") as queue:
        assert path.stat().st_mode & 0o777 == 0o600
        await check(queue)
        assert await queue.call("pid", thread=True) == os.getpid()
    assert not list(tmp_path.iterdir())


@ensureDeferred
@pytest.mark.parametrize("key", [None, KEY])
async def test_tcp(key: bytes | None) -> None:
    """
    Over TCP of this machine they are, with a key and without.
    """
    async with (
        serving(LOOPBACK, key=key) as server,
        connected(dialedAs(LOOPBACK, server.address), key=key) as queue,
    ):
        await check(queue)


@ensureDeferred
async def test_tlsWithKey(made: Path) -> None:
    """
    Over TLS, with a key that both sides read from its file.
    """
    keyFile = made / "shared.key"
    async with (
        serving(listens(made), keyFile=keyFile) as server,
        connected(dials(server.address.port, made), keyFile=keyFile) as queue,
    ):
        await check(queue)


@ensureDeferred
@pytest.mark.parametrize("key", [None, KEY])
async def test_mutualTLS(made: Path, key: bytes | None) -> None:
    """
    Over TLS with certificates of both sides, which are enough by themselves.
    """
    async with (
        serving(listens(made, made), key=key) as server,
        connected(dials(server.address.port, made, made), key=key) as queue,
    ):
        await check(queue)


@ensureDeferred
async def test_keyOfTheEnvironment(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A key file that the environment names serves both sides, and lets a server listen
    everywhere.
    """
    with pytest.raises(IdentityRequired):
        await WireServer("tcp:0", Universe).start()
    monkeypatch.setenv(ENVIRONMENT, str(made / "shared.key"))
    async with serving("tcp:0") as server, connected(dialedAs("tcp:0", server.address)) as queue:
        assert await queue.call("add", 1, 2) == 3


# Who is not


@ensureDeferred
async def test_wrongKey() -> None:
    """
    Another key is refused, and the message says that keys differ; who has the right one
    is served afterwards.
    """
    async with serving(LOOPBACK, key=KEY) as server:
        where = dialedAs(LOOPBACK, server.address)
        assert "key" in await refusalOf(where, key=b"other" * 8)
        async with connected(where, key=KEY) as queue:
            assert await queue.call("add", 1, 2) == 3


@ensureDeferred
@pytest.mark.parametrize(("ours", "theirs"), [(KEY, None), (None, KEY)])
async def test_keyOnOneSide(ours: bytes | None, theirs: bytes | None) -> None:
    """
    If only one side has a key the message says how the other gets it.
    """
    async with serving(LOOPBACK, key=ours) as server:
        told = await refusalOf(dialedAs(LOOPBACK, server.address), key=theirs)
    assert "key" in told.lower()
    assert "file" in told.lower()


@ensureDeferred
async def test_foreignServer(made: Path, foreign: Path) -> None:
    """
    A server whose certificate is signed by somebody else is not talked to.
    """
    async with serving(listens(foreign), key=KEY) as server:
        await refusalOf(dials(server.address.port, made), key=KEY)


@ensureDeferred
async def test_expiredServer(expired: Path) -> None:
    """
    Nor is one whose certificate does not hold any more.
    """
    async with serving(listens(expired), key=KEY) as server:
        await refusalOf(dials(server.address.port, expired), key=KEY)


@ensureDeferred
async def test_serverOfAnotherName(made: Path) -> None:
    """
    Nor one that is not whom we have dialed.
    """
    async with serving(listens(made), key=KEY) as server:
        port = server.address.port
        where = dials(port, made).replace("tls:127.0.0.1", "tls:db.example.org")
        await refusalOf(f"{where}:endpoint=tcp\\:127.0.0.1\\:{port}", key=KEY)


@ensureDeferred
@pytest.mark.parametrize("who", ["foreign", "expired", "nobody"])
async def test_clientThatIsNotKnown(who: str, made: Path, foreign: Path, expired: Path) -> None:
    """
    Where certificates are wanted, a foreign one, an old one and none are refused.
    """
    trusted = {"foreign": made, "expired": expired, "nobody": made}[who]
    shown = {"foreign": foreign, "expired": expired, "nobody": None}[who]
    async with serving(listens(made, trusted)) as server:
        await refusalOf(dials(server.address.port, made, shown))


# Processes of a server


@ensureDeferred
async def test_processes(tmp_path: Path) -> None:
    """
    With processes the calls are made there, each has a universe of its own, and one that
    dies is replaced.
    """
    where = f"unix:{tmp_path}/socket"
    async with serving(where, processes=2), connected(where) as queue:
        await check(queue)
        counts: dict[int, list[int]] = {}
        for _ in range(20):
            pid, count = await queue.call("count")
            counts.setdefault(pid, []).append(count)
        assert os.getpid() not in counts
        assert all(found == list(range(1, len(found) + 1)) for found in counts.values())
        with pytest.raises(WorkerLost):
            await queue.call("die")
        assert await queue.call("add", 1, 2) == 3
        assert await queue.call("pid", thread=True) == os.getpid()


@ensureDeferred
async def test_instanceInProcesses(tmp_path: Path) -> None:
    """
    An instance that was given is copied to the processes as it is.
    """

    class Local(Universe):
        def __init__(self, word: str) -> None:
            super().__init__()
            self._word = word

        def word(self) -> str:
            return self._word

    where = f"unix:{tmp_path}/socket"
    server = WireServer(where, Local("ours"), processes=1)
    await server.start()
    worker = WireWorker(Local(""), where)
    await worker.whenConnected()
    queue = TaskQueue(worker)
    assert await queue.call("word") == "ours"
    await queue.shutdown()
    await server.stop()


@ensureDeferred
async def test_nothingIsLeft(tmp_path: Path) -> None:
    """
    A server that has stopped leaves no process, no descriptor and no file.
    """
    where = f"unix:{tmp_path}/socket"
    async with serving(where, processes=1), connected(where) as queue:
        await queue.call("pid")
    used = Used()
    async with serving(where, processes=2), connected(where) as queue:
        await queue.call("pid")
    assert not used.more()
    assert not list(tmp_path.iterdir())


# A hub


@ensureDeferred
@pytest.mark.parametrize("key", [None, KEY])
async def test_hub(tmp_path: Path, key: bytes | None) -> None:
    """
    A server that dials a hub is hired by the queue there, and leaves it in good order.
    """
    where = f"unix:{tmp_path}/socket"
    queue = TaskQueue()
    hub = WireHub(queue, where, key=key)
    await hub.start()
    async with serving(where, dial=True, key=key):
        await until(lambda: len(queue) == 1)
        await check(queue)
    await until(lambda: len(queue) == 0)
    await hub.stop()
    await queue.shutdown()


@ensureDeferred
async def test_hubWithMutualTLS(made: Path) -> None:
    """
    Over TLS the hub shows the certificate of a server, and the server that of a client.
    """
    queue = TaskQueue()
    hub = WireHub(queue, listens(made, made))
    await hub.start()
    async with serving(dials(hub.address.port, made, made), dial=True):
        await until(lambda: len(queue) == 1)
        await check(queue)
    await hub.stop()
    await queue.shutdown()


@ensureDeferred
async def test_hubRefuses(tmp_path: Path) -> None:
    """
    A server that the hub does not want is told why.
    """
    where = f"unix:{tmp_path}/socket"
    queue = TaskQueue()
    hub = WireHub(queue, where, key=KEY)
    await hub.start()
    with pytest.raises(IdentityRefused, match="key"):
        await WireServer(where, Universe, dial=True, key=b"other" * 8).start()
    await hub.stop()
    await queue.shutdown()


@ensureDeferred
async def test_hubThatComesBack(tmp_path: Path) -> None:
    """
    A hub that was gone finds its hosts again: it need not be there first.
    """
    where = f"unix:{tmp_path}/socket"
    server = WireServer(where, Universe, dial=True)
    starting = server.start()
    for _ in range(2):
        queue = TaskQueue()
        hub = WireHub(queue, where)
        await hub.start()
        await starting
        await until(lambda queue=queue: len(queue) == 1)
        assert await queue.call("add", 1, 2) == 3
        await hub.stop()
        await queue.shutdown()
    await server.stop()


# Programs


class Program:
    """
    C{python -m asynqueue.wire}.
    """

    def __init__(self, *arguments: str, prefix: tuple[str, ...] = ()) -> None:
        self.process = subprocess.Popen(
            [*prefix, sys.executable, "-m", "asynqueue.wire", *arguments],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._line: str | None = None

    @property
    def where(self) -> str:
        """
        What it says is to be dialed, when it is ready; nothing if it ends before that.
        """
        if self._line is None:
            assert self.process.stdout is not None
            self._line = self.process.stdout.readline()
        return self._line.removeprefix("ready").strip()

    async def end(self, *signals: int) -> tuple[int, str]:
        """
        Send it signals, and wait for its end: not in a way that keeps this process from
        taking part in it.

        @return: its exit status, and what it wrote to standard error.
        """
        for number in signals:
            self.process.send_signal(number)
        await until(lambda: self.process.poll() is not None)
        _, error = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, error


@contextmanager
def program(*arguments: str, prefix: tuple[str, ...] = ()) -> Iterator[Program]:
    """
    A program while it runs.
    """
    started = Program(*arguments, prefix=prefix)
    try:
        yield started
    finally:
        if started.process.poll() is None:
            started.process.kill()
            started.process.communicate()
        for stream in (started.process.stdout, started.process.stderr):
            assert stream is not None
            stream.close()


@ensureDeferred
async def test_program(made: Path) -> None:
    """
    It says when it is ready and what to dial, serves in its process, and ends by SIGTERM
    with status 0.
    """
    keyFile = str(made / "shared.key")
    with program("tcp:0", FQN, "--key-file", keyFile) as host:
        async with connected(host.where, keyFile=keyFile) as queue:
            assert await queue.call("pid") == host.process.pid
        assert await host.end(signal.SIGTERM) == (0, "")


@ensureDeferred
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_signalDrains(number: int, tmp_path: Path) -> None:
    """
    What runs when the signal comes ends, and its result arrives; then the program ends,
    and its socket is gone.
    """
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    with program(f"unix:{tmp_path}/socket", FQN) as host:
        async with connected(host.where) as queue:
            result = queue.call("pipe", str(gate), thread=True)
            await until((tmp_path / "gate.begun").exists)
            host.process.send_signal(number)
            await until(lambda: not (tmp_path / "socket").exists())
            gate.write_text("done")
            assert await result == "done"
        assert (await host.end())[0] == 0


@ensureDeferred
async def test_graceEnds(tmp_path: Path) -> None:
    """
    What does not end within the grace is lost, and the program ends.
    """
    with program(f"unix:{tmp_path}/socket", FQN, "--grace", "0.2") as host:
        async with connected(host.where) as queue:
            result = queue.call("hang", f"{tmp_path}/it", thread=True)
            await until((tmp_path / "it.begun").exists)
            host.process.send_signal(signal.SIGTERM)
            with pytest.raises(WorkerLost):
                await result
        assert (await host.end())[0] == 0


@ensureDeferred
@pytest.mark.parametrize("thread", [True, False])
async def test_secondSignal(thread: bool, tmp_path: Path) -> None:
    """
    A second signal ends the program at once, whatever it runs: also in its reactor.
    """
    with program(f"unix:{tmp_path}/socket", FQN, "--grace", "1000") as host:
        async with connected(host.where) as queue:
            result = queue.call("hang", f"{tmp_path}/it", thread=thread)
            await until((tmp_path / "it.begun").exists)
            host.process.send_signal(signal.SIGTERM)
            # Another one: of two that are the same, and come at once, one is lost.
            host.process.send_signal(signal.SIGINT)
            with pytest.raises(WorkerLost):
                await result
        await host.end()


@ensureDeferred
async def test_killedAndRestarted(tmp_path: Path) -> None:
    """
    A server that was killed takes its processes with it, and another can listen at the
    same UNIX socket.
    """
    where = f"unix:{tmp_path}/socket"
    with program(where, FQN, "--processes", "1") as host:
        async with connected(host.where) as queue:
            child = await queue.call("pid")
        assert child != host.process.pid
        await host.end(signal.SIGKILL)
    await until(lambda: isGone(child))
    with program(where, FQN) as host:
        async with connected(host.where) as queue:
            assert await queue.call("pid") == host.process.pid


@ensureDeferred
async def test_socketOfSystemd(tmp_path: Path) -> None:
    """
    A socket that systemd has opened is served, as it is one of this machine.
    """
    listening = f"""
import os, socket, sys
s = socket.socket(socket.AF_UNIX)
s.bind({str(tmp_path / "socket")!r})
s.listen()
os.dup2(s.fileno(), 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()), LISTEN_FDNAMES="crew")
os.execv(sys.executable, sys.argv[1:])
"""
    prefix = (sys.executable, "-c", listening)
    with program("systemd:domain=UNIX:index=0", FQN, prefix=prefix) as host:
        async with connected(host.where) as queue:
            assert await queue.call("pid") == host.process.pid


@ensureDeferred
async def test_programThatDials(tmp_path: Path) -> None:
    """
    A program can dial a hub, with a series that it is hired for.
    """
    where = f"unix:{tmp_path}/socket"
    queue = TaskQueue()
    hub = WireHub(queue, where)
    await hub.start()
    with program(where, FQN, "--dial", "--series", "gpu") as host:
        await until(lambda: len(queue) == 1)
        assert await queue.call("pid", series="gpu") == host.process.pid
        # Not before: reading what it says keeps the hub from answering it.
        assert host.where == where
        await hub.stop()
        await queue.shutdown()


@ensureDeferred
async def test_programThatFindsNoHub(tmp_path: Path) -> None:
    """
    One that dials a hub which is not there can be told to end.
    """
    with program(f"unix:{tmp_path}/socket", FQN, "--dial", "--log-level", "info") as host:
        assert host.process.stderr is not None
        said = host.process.stderr.readline()
        assert f"dialing unix:{tmp_path}/socket: no such file or directory, next try in" in said
        assert (await host.end(signal.SIGTERM))[0] == 0


@ensureDeferred
async def test_stopWaitsForThreads(tmp_path: Path) -> None:
    """
    A thread that runs on though nobody waits for its result is given the grace, and no
    more than is wanted.
    """
    where = f"unix:{tmp_path}/socket"
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    server = WireServer(where, Universe, grace=1000)
    await server.start()
    async with connected(where) as queue:
        result = queue.call("pipe", str(gate), thread=True)
        result.addErrback(lambda _: None)
        await until((tmp_path / "gate.begun").exists)
    stopping = server.stop()
    await server.stop(0)
    await stopping
    await server.whenStopped()
    gate.write_text("at last")


@ensureDeferred
@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (["tcp:0", FQN], 1, "asynqueue keys DIRECTORY"),
        (["unix:/nowhere/socket", FQN], 1, "/nowhere/socket"),
        (["tcp", FQN], 1, "is no endpoint"),
        (["tcp:0", FQN, "--key-file", "/nowhere/key"], 1, "/nowhere/key"),
        (["tcp:0", "nowhere.Universe"], 2, "nowhere"),
        (["tcp:0", "os.path"], 2, "no instance"),
        (["tcp:0"], 2, "nothing could be called"),
        (["unix:/x", FQN, "--trust", "everybody"], 2, "everybody"),
    ],
)
async def test_programThatCannotServe(arguments: list[str], status: int, told: str) -> None:
    """
    What is wrong is said in one line, without a traceback, and with an exit status.
    """
    with program(*arguments) as host:
        assert host.where == ""
        found, error = await host.end()
    assert found == status
    assert told in error
    assert "Traceback" not in error


@pytest.mark.measured
@ensureDeferred
async def test_keyThatOthersCanRead(tmp_path: Path) -> None:
    """
    A key file of others is refused, and the message has the remedy.
    """
    path = tmp_path / "key"
    path.write_bytes(KEY)
    path.chmod(0o644)
    with program("tcp:0", FQN, "--key-file", str(path)) as host:
        status, error = await host.end()
    assert status == 1
    assert f"chmod 600 {path}" in error


@ensureDeferred
async def test_shortKey() -> None:
    """
    A key that can be guessed is refused.
    """
    with pytest.raises(WireError, match="16 bytes"):
        await WireServer(LOOPBACK, Universe, key=b"secret").start()
