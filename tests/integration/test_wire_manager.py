"""
Servers that are spawned: they start or say why not, serve, and are gone when they shall
be, whatever happens to them or to this process.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from platform import python_version
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.error import ConnectError
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import LogLevel

from asynqueue.errors import IdentityRefused, WireError, WorkerLost, WorkerLostError
from asynqueue.reactors import theReactor
from asynqueue.taskqueue import TaskQueue
from asynqueue.wire.client.worker import WireWorker
from asynqueue.wire.spawning.manager import ServerManager
from asynqueue.wire.transport.endpoints import ENVIRONMENT, clientEndpoint, keyFor
from tests.doubles import Heard, readingLogs
from tests.integration.process_checks import PATIENCE, Used, isGone, until
from tests.integration.wire_universe import Universe

ROOT = Path(__file__).parents[2]

PROGRAM = Path(__file__).with_name("wire_manager_program.py")

FQN = "tests.integration.wire_universe.Universe"

# What the universe of a server does as its module is imported.
BROKEN = {
    "raises": "raise RuntimeError('no gears today')",
    "leaves": "import os; os.write(2, b'I go'); os._exit(7)",
    "dies": "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
    "hangs": "import time; time.sleep(1000)",
}


@pytest.fixture(autouse=True)
def _noKeyAround(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENVIRONMENT, raising=False)


@asynccontextmanager
async def managing(*args: Any, **options: Any) -> AsyncIterator[ServerManager]:
    """
    A manager while there is one. Nothing of it is left.
    """
    used = Used()
    manager = ServerManager(*(args or (FQN,)), **options)
    folder = Path(manager.newSocket().removeprefix("unix:")).parent
    try:
        yield manager
    finally:
        await manager.shutdown()
        assert not folder.exists()
        assert not manager.pids
        assert not used.more()


@asynccontextmanager
async def connected(description: str, universe: Any = None) -> AsyncIterator[TaskQueue]:
    """
    A queue with a worker on the other side.
    """
    worker = WireWorker(universe or Universe(), description)
    await worker.whenConnected().addTimeout(PATIENCE, theReactor())
    queue = TaskQueue(worker)
    try:
        yield queue
    finally:
        await queue.detachWorker(worker, crash=True)
        await queue.shutdown()


def broken(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """
    The name of a universe that cannot be imported.
    """
    module = f"broken_universe_{name}"
    (folder / f"{module}.py").write_text(BROKEN[name])
    monkeypatch.syspath_prepend(str(folder))
    return f"{module}.Universe"


# They serve


@ensureDeferred
async def test_spawned() -> None:
    """
    When it is ready, the process ID is known, and a worker that is given the description
    is let in; another process has no key, and is not.
    """
    async with managing() as manager:
        where = manager.newSocket()
        pid = await manager.spawn(where)
        assert manager.pids == [pid]
        async with connected(where) as queue:
            assert await queue.call("pid") == pid
            assert await queue.call("add", 1, 2) == 3
        stranger = WireWorker(Universe(), where, key=b"x" * 32)
        with pytest.raises(IdentityRefused):
            await stranger.whenConnected()
        stranger.crash()


@ensureDeferred
async def test_manyAtOnce() -> None:
    """
    Several can be spawned at once, each at a socket of its own, in a folder and with a key
    that nobody else can read.
    """
    async with managing() as manager:
        places = [manager.newSocket() for _ in range(3)]
        assert len(set(places)) == 3
        pids = [await spawning for spawning in [manager.spawn(where) for where in places]]
        assert manager.pids == pids
        folder = Path(places[0].removeprefix("unix:")).parent
        assert folder.stat().st_mode & 0o777 == 0o700
        assert {path.stat().st_mode & 0o777 for path in folder.glob("*.sock")} == {0o600}
        assert (folder / "key").stat().st_mode & 0o777 == 0o600


@ensureDeferred
async def test_port() -> None:
    """
    One that listens at any free port is dialed with the description that it was spawned
    with, or with the address that it has.
    """
    async with managing() as manager:
        await manager.spawn("tcp:0:interface=127.0.0.1")
        async with connected("tcp:0:interface=127.0.0.1") as queue:
            assert await queue.call("add", 1, 2) == 3


@ensureDeferred
async def test_processesAndNiceness() -> None:
    """
    A server may be nice, and have processes that are as nice.
    """
    async with managing(FQN, processes=1, threads=1) as manager:
        where = manager.newSocket()
        pid = await manager.spawn(where, niceness=5)
        async with connected(where) as queue:
            assert await queue.call("pid") != pid
            assert await queue.call("niceness") == os.nice(0) + 5


@ensureDeferred
async def test_anyCode() -> None:
    """
    Without a universe servers run what this process sends them.
    """
    async with managing(None) as manager:
        where = manager.newSocket()
        pid = await manager.spawn(where)
        worker = WireWorker(None, where)
        await worker.whenConnected()
        queue = TaskQueue(worker)
        assert await queue.call(lambda: [os.getpid()]) == [pid]
        await queue.shutdown()


@ensureDeferred
async def test_functionsOfModules() -> None:
    """
    Or functions of the modules that are allowed.
    """
    async with managing(None, allow=["platform"]) as manager:
        where = manager.newSocket()
        await manager.spawn(where)
        worker = WireWorker(None, where)
        await worker.whenConnected()
        queue = TaskQueue(worker)
        assert await queue.call("platform:python_version") == python_version()
        await queue.shutdown()


# Over standard input and output


@pytest.mark.measured
@ensureDeferred
async def test_stdio(capfd: pytest.CaptureFixture[str]) -> None:
    """
    A server may have one connection, over its standard input and output; what its methods
    print disturbs nothing, and goes to standard error.
    """
    async with managing() as manager:
        where = manager.newSocket()
        spawned = await manager.spawn(where, stdio=True)
        assert manager.pids == [spawned.pid]
        async with connected(where) as queue:
            assert await queue.call("pid") == spawned.pid
            await queue.call("say", "chatter")
            data = os.urandom(1 << 20)
            assert await queue.call("add", data, b"") == data
        with pytest.raises(ConnectError):
            await clientEndpoint(theReactor(), where).connect(Factory.forProtocol(Protocol))
    assert "chatter" in capfd.readouterr().err


@ensureDeferred
async def test_stdioEndsWithItsConnection() -> None:
    """
    When that is closed the server can be reached no more, and goes; that is no error.
    """
    async with managing() as manager:
        where = manager.newSocket()
        await manager.spawn(where, stdio=True)
        with readingLogs() as logs:
            async with connected(where) as queue:
                await queue.call("pid")
            await until(lambda: not manager.pids)
    assert not [event for event in logs.events if event["log_level"] == LogLevel.error]


@ensureDeferred
async def test_stdioThatNobodyUses() -> None:
    """
    It may end without having been connected.
    """
    async with managing() as manager:
        await manager.spawn("a name", stdio=True)


# They do not start


@ensureDeferred
@pytest.mark.parametrize(
    ("name", "told"), [("raises", "no gears today"), ("leaves", "I go"), ("dies", "SIGKILL")]
)
async def test_diesAtStart(
    name: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    One that dies as it starts is an error that says how, with the last that it wrote.
    """
    async with managing(broken(name, tmp_path, monkeypatch)) as manager:
        where = manager.newSocket()
        with pytest.raises(WorkerLostError, match=told) as caught:
            await manager.spawn(where)
        assert where in str(caught.value)
        assert isGone(caught.value.pid)
        assert not manager.pids


@ensureDeferred
async def test_exitCodeAtStart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The exit code is known.
    """
    async with managing(broken("leaves", tmp_path, monkeypatch)) as manager:
        with pytest.raises(WorkerLostError) as caught:
            await manager.spawn(manager.newSocket())
        assert caught.value.exitCode == 7


@ensureDeferred
@pytest.mark.parametrize("where", ["unix:/nowhere/socket", "tcp:0", "nonsense"])
async def test_cannotListen(where: str) -> None:
    """
    One that cannot listen says why.
    """
    async with managing() as manager:
        if where == "tcp:0":
            # There is a key: it may listen everywhere.
            assert await manager.spawn(where)
        else:
            with pytest.raises(WorkerLostError, match=where.removeprefix("unix:")):
                await manager.spawn(where)


@ensureDeferred
async def test_neverReady(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    One that does not get ready is killed when the patience is over, and that is the error.
    """
    name = broken("hangs", tmp_path, monkeypatch)
    async with managing(name, patience=0.5) as manager:
        with pytest.raises(WorkerLostError, match=r"not ready within 0\.5 s"):
            await manager.spawn(manager.newSocket())


@ensureDeferred
async def test_nobodyWaits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    One that nobody waits for any more is killed.
    """
    async with managing(broken("hangs", tmp_path, monkeypatch)) as manager:
        spawning = manager.spawn(manager.newSocket())
        (pid,) = manager.pids
        heard = Heard(spawning)
        spawning.cancel()
        await until(lambda: isGone(pid))
        await until(lambda: heard.results)


@ensureDeferred
async def test_shutdownWhileItStarts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A shutdown does not wait for one that starts, and who waits for that is told.
    """
    async with managing(broken("hangs", tmp_path, monkeypatch)) as manager:
        heard = Heard(manager.spawn(manager.newSocket()))
        await manager.shutdown()
        assert isinstance(heard.error, WorkerLostError)


# They end


@ensureDeferred
async def test_doneDrains(tmp_path: Path) -> None:
    """
    One that is done ends what it runs, leaves nothing, and the others live on.
    """
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    async with managing() as manager:
        first, second = manager.newSocket(), manager.newSocket()
        pid, other = await manager.spawn(first), await manager.spawn(second)
        async with connected(first) as queue:
            result = queue.call("pipe", str(gate), thread=True)
            await until((tmp_path / "gate.begun").exists)
            done = Heard(manager.done(pid))
            await until(lambda: not Path(first.removeprefix("unix:")).exists())
            assert not done.results
            gate.write_text("well")
            assert await result == "well"
        await until(lambda: done.results)
        assert isGone(pid)
        assert manager.pids == [other]
        await manager.done(pid)


@ensureDeferred
async def test_doneHasAnEnd(tmp_path: Path) -> None:
    """
    One that cannot be told anything is killed a little after its grace, with what its calls
    have started.
    """
    async with managing(FQN, grace=0.2, margin=0.2) as manager:
        where = manager.newSocket()
        pid = await manager.spawn(where)
        async with connected(where) as queue:
            helper = await queue.call("help")
            hanging = Heard(queue.call("hang", f"{tmp_path}/it"))
            await until((tmp_path / "it.begun").exists)
            with readingLogs() as logs:
                await manager.done()
            assert isGone(pid)
            await until(lambda: isGone(helper))
            await until(lambda: hanging.results)
            assert isinstance(hanging.error, WorkerLost)
    assert any("did not end when it was told" in said for said in logs.said())


@ensureDeferred
async def test_killed() -> None:
    """
    One that is killed loses what it ran, with what its calls have started; that is logged,
    and another can take its place.
    """
    async with managing() as manager:
        where = manager.newSocket()
        pid = await manager.spawn(where)
        async with connected(where) as queue:
            helper = await queue.call("help")
            with readingLogs() as logs:
                with pytest.raises(WorkerLost):
                    await queue.call("die")
                await until(lambda: not manager.pids and isGone(helper))
        assert any(f"process {pid} was killed by SIGKILL" in said for said in logs.said())
        assert await manager.spawn(where) != pid
        async with connected(where) as queue:
            assert await queue.call("add", 1, 2) == 3


@ensureDeferred
async def test_workerThatIsThereFirst() -> None:
    """
    A worker may dial before there is a server, and after one was lost, until another has
    taken its place.
    """
    async with managing() as manager:
        where = manager.newSocket()
        queue = TaskQueue()
        queue.attachWorker(WireWorker(Universe(), where)).addErrback(lambda _: None)
        first = queue.call("pid")
        pid = await manager.spawn(where)
        assert await first == pid
        os.kill(pid, signal.SIGKILL)
        await until(lambda: not manager.pids and not len(queue))
        second = queue.call("pid")
        pid = await manager.spawn(where)
        assert await second == pid
        await queue.shutdown()


@ensureDeferred
async def test_shutdownIsTheEnd() -> None:
    """
    After it nothing is spawned, and asked again it does nothing.
    """
    async with managing() as manager:
        where = manager.newSocket()
        await manager.spawn(where)
        assert keyFor(where) is not None
        await manager.shutdown()
        await manager.shutdown()
        assert keyFor(where) is None
        with pytest.raises(WireError, match="shut down"):
            manager.newSocket()
        with pytest.raises(WireError, match="shut down"):
            await manager.spawn("unix:/x")


@ensureDeferred
async def test_longNameOfTheFolder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Sockets have short names: where the folder for temporary files has a long one, another
    is taken.
    """
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    async with managing() as manager:
        assert await manager.spawn(manager.newSocket())
    assert not list(long.iterdir())


@pytest.mark.measured
@ensureDeferred
async def test_forkHasNoServers() -> None:
    """
    A fork of this process has nothing to do with its servers.
    """
    async with managing() as manager:
        pid = await manager.spawn(manager.newSocket())
        fork = os.fork()
        if fork == 0:
            os._exit(len(manager.pids))
        await until(lambda: isGone(fork))
        assert os.waitpid(fork, 0)[1] == 0
        assert manager.pids == [pid]


@ensureDeferred
@pytest.mark.parametrize("byKernel", [True, False])
async def test_lifeline(byKernel: bool, tmp_path: Path) -> None:
    """
    A server dies with the pipe to its parent, also where the kernel offers less help.
    """
    without = "" if byKernel else "import fcntl; del fcntl.F_SETSIG; "
    there, here = os.pipe()
    arguments = ["--lifeline", str(there), "--trust", "code", f"unix:{tmp_path}/socket"]
    code = f"import sys; {without}sys.argv[1:] = {arguments!r}"
    code += "; from asynqueue.wire.__main__ import main; main()"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, cwd=ROOT, pass_fds=[there], stdout=subprocess.PIPE) as process:
        os.close(there)
        assert process.stdout is not None
        process.stdout.readline()
        assert process.poll() is None
        os.close(here)
        assert process.wait(PATIENCE) == -signal.SIGKILL


# Whole programs


@contextmanager
def program(part: str) -> Iterator[tuple[subprocess.Popen[str], Path, list[int]]]:
    """
    The program while it runs, the folder of its servers, and them and their processes.
    """
    process = subprocess.Popen(
        [sys.executable, str(PROGRAM), part],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
    )
    with process:
        try:
            assert process.stdout is not None
            folder, *pids = process.stdout.readline().split()
            assert len(pids) == 4
            yield process, Path(folder), [int(pid) for pid in pids]
        finally:
            process.kill()


@ensureDeferred
@pytest.mark.parametrize("part", ["Idle", "Hanging", "Forked"])
async def test_parentKilled(part: str) -> None:
    """
    When the parent is killed no server outlives it, nor a process of one, whatever they
    do; and their folder goes with them.
    """
    with program(part) as (process, folder, pids):
        assert not any(isGone(pid) for pid in pids)
        process.kill()
        await until(lambda: all(isGone(pid) for pid in pids))
        await until(lambda: not folder.exists())


@ensureDeferred
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_parentTold(number: int) -> None:
    """
    A program that is told to end takes its servers with it.
    """
    with program("Idle") as (process, folder, pids):
        process.send_signal(number)
        process.wait(PATIENCE)
        await until(lambda: all(isGone(pid) for pid in pids))
        assert not folder.exists()


@pytest.mark.measured
@ensureDeferred
async def test_reactorStops() -> None:
    """
    So does one whose reactor stops.
    """
    with program("Stopping") as (process, folder, pids):
        process.wait(PATIENCE)
        assert all(isGone(pid) for pid in pids)
        assert not folder.exists()
