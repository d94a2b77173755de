"""
A program that forks while it has connections. Parent and fork go on side by side, and end.
Both print what became of what they had.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from threading import Thread
from typing import Any

from twisted.internet import asyncioreactor
from twisted.internet.defer import Deferred, ensureDeferred, gatherResults
from twisted.internet.error import ProcessDone
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import deferLater, react
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure

from asynqueue import ServerManager, TaskQueue, WireServer, WireWorker
from asynqueue.pollers import ReactorPoller
from asynqueue.testing import Gate
from asynqueue.testing.calls import waitAt
from asynqueue.wire.client.hub import WireHub
from tests.doubles import Heard, errorOf
from tests.integration.forking import isFork, say
from tests.integration.wire_hosts import Universe

# Seconds after which something does not happen.
PATIENCE = 30

# So many calls show that connections are not mixed up.
CALLS = 200

KEY = b"k" * 32


class Family:
    """
    A fork and its parent, of which each may wait until the other is as far.
    """

    def __init__(self) -> None:
        (self._here, self._fork) = os.pipe(), os.pipe()
        self.pid = 0

    def fork(self) -> None:
        """
        Fork.
        """
        self.pid = os.fork()

    async def meet(self) -> None:
        """
        Wait, in a thread, until the other one is here, too.
        """
        mine, theirs = (self._fork, self._here) if isFork() else (self._here, self._fork)
        os.write(mine[1], b"!")
        await deferToThread(os.read, theirs[0], 1)

    def end(self) -> None:
        """
        In the parent, wait until the fork has ended, and say how.
        """
        if self.pid:
            say("fork ends", os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1]))


async def calls(queue: TaskQueue, name: Any, reactor: Any) -> None:
    """
    Make calls, and look whether each has its own result.
    """
    numbers = range(CALLS) if isFork() else range(-CALLS, 0)
    made = gatherResults([queue.call(name, number) for number in numbers])
    values = await made.addTimeout(PATIENCE, reactor)
    say("calls", values == list(numbers))


async def worker(reactor: Any, family: Family) -> None:
    """
    Fork while a call runs on a host, and another one waits.
    """
    manager = ServerManager(threads=1, grace=1)
    where = manager.newSocket()
    await manager.spawn(where)
    queue = TaskQueue()
    queue.attachWorker(WireWorker(None, where, thread=True, N_concurrent=1))
    gate = Gate()
    runs, waits = Heard(queue.call(waitAt, gate.token)), Heard(queue.call(abs, -1))
    await gate.arrivals(1)
    family.fork()
    if not isFork():
        gate.open()
    await runs.d.addTimeout(PATIENCE, reactor)
    if isFork():
        say("ran", type(runs.error).__name__, "fork" in str(runs.error))
    else:
        say("ran", runs.result)
    await waits.d.addTimeout(PATIENCE, reactor)
    say("waited", waits.result)
    await calls(queue, int, reactor)
    await family.meet()
    await queue.shutdown().addTimeout(PATIENCE, reactor)
    if isFork():
        # The reactor would shut the gate, which is the parent's, too.
        os._exit(0)
    family.end()
    await gate.close()
    await manager.shutdown().addTimeout(PATIENCE, reactor)


async def dialing(reactor: Any, family: Family) -> None:
    """
    Fork when a worker has begun to dial, and has no connection yet.
    """
    manager = ServerManager(grace=1)
    where = manager.newSocket()
    await manager.spawn(where)
    queue = TaskQueue()
    queue.attachWorker(WireWorker(None, where))
    family.fork()
    await calls(queue, int, reactor)
    await family.meet()
    await queue.shutdown().addTimeout(PATIENCE, reactor)
    family.end()
    if not isFork():
        await manager.shutdown().addTimeout(PATIENCE, reactor)


async def spawning(reactor: Any, family: Family) -> None:
    """
    Fork when a server is ready, another one is not, and a third has a connection over its
    standard input and output.
    """
    manager = ServerManager(grace=1)
    first, second = manager.newSocket(), manager.newSocket()
    await manager.spawn(first)
    await manager.spawn("third", stdio=True)
    third = TaskQueue(WireWorker(None, "third"))
    assert await third.call(abs, -3) == 3
    spawned = Heard(manager.spawn(second))
    family.fork()
    await spawned.d.addTimeout(PATIENCE, reactor)
    if isFork():
        say("spawned", type(spawned.error).__name__, manager.pids)
        say("again", type(errorOf(manager.spawn(second))).__name__)
        await manager.shutdown().addTimeout(PATIENCE, reactor)
        os._exit(0)
    family.end()
    say("spawned", spawned.result in manager.pids, len(manager.pids))
    queue = TaskQueue(WireWorker(None, first), WireWorker(None, second))
    await calls(queue, int, reactor)
    await calls(third, int, reactor)
    for each in (queue, third):
        await each.shutdown().addTimeout(PATIENCE, reactor)
    await manager.shutdown().addTimeout(PATIENCE, reactor)


async def server(reactor: Any, family: Family) -> None:
    """
    Fork while a server serves.
    """
    with tempfile.TemporaryDirectory() as folder:
        where = f"unix:{folder}/socket"
        serving = WireServer(where, Universe, key=KEY, grace=1)
        await serving.start()
        queue = TaskQueue(WireWorker(Universe(), where, key=KEY))
        await calls(queue, "same", reactor)
        family.fork()
        if isFork():
            say("has", serving.address)
            await serving.whenStopped().addTimeout(PATIENCE, reactor)
            own = WireServer("tcp:0:interface=127.0.0.1", Universe, key=KEY, grace=1)
            await own.start()
            there = f"tcp:127.0.0.1:{own.address.port}"
            await calls(TaskQueue(WireWorker(Universe(), there, key=KEY)), "same", reactor)
            await own.stop().addTimeout(PATIENCE, reactor)
        await calls(queue, "same", reactor)
        await family.meet()
        await queue.shutdown().addTimeout(PATIENCE, reactor)
        family.end()
        if isFork():
            # The folder is the parent's.
            os._exit(0)
        say("listens", Path(f"{folder}/socket").exists())
        await serving.stop().addTimeout(PATIENCE, reactor)


async def hub(reactor: Any, family: Family) -> None:
    """
    Fork while a hub has a host, which has dialed in from here.
    """
    manager = ServerManager()
    folder = Path(manager.newSocket().removeprefix("unix:")).parent
    where = f"unix:{folder}/hub"
    queue = TaskQueue()
    listening = WireHub(queue, where, key=KEY)
    await listening.start()
    host = WireServer(where, Universe, key=KEY, dial=True, grace=1)
    await host.start()
    await calls(queue, "same", reactor)
    family.fork()
    if isFork():
        say("has", listening.address)
        await host.whenStopped().addTimeout(PATIENCE, reactor)
        for _ in range(CALLS):
            if listening.workers:
                await deferLater(reactor, 0)
        say("workers", len(listening.workers))
    else:
        await calls(queue, "same", reactor)
    await family.meet()
    family.end()
    if not isFork():
        await calls(queue, "same", reactor)
        await host.stop().addTimeout(PATIENCE, reactor)
    await listening.stop().addTimeout(PATIENCE, reactor)
    await queue.shutdown().addTimeout(PATIENCE, reactor)
    await manager.shutdown().addTimeout(PATIENCE, reactor)


class Read:
    """
    A transport on a pipe, which reads a byte.
    """

    connected = True
    poller: Any = None

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.came: Deferred[bytes] = Deferred()

    def handle_connect_event(self) -> None: ...
    def handle_write(self) -> None: ...
    def handle_close(self) -> None: ...
    def handle_error(self) -> None: ...

    def handle_read(self) -> None:
        self.came.callback(os.read(self.descriptor, 1))


class Ends(ProcessProtocol):
    """
    Notices the end of a process.
    """

    def __init__(self) -> None:
        self.ended: Deferred[type[Exception]] = Deferred()

    def processEnded(self, reason: Failure) -> None:
        self.ended.callback(type(reason.value))


async def reactor(reactor: Any, family: Family) -> None:
    """
    Fork when the reactor has much to do: descriptors of a poller, threads, processes.
    """
    reading, writing = os.pipe()
    poller = ReactorPoller()
    transport: Any = Read(reading)
    poller.add_channel(transport)
    await deferToThread(abs, -1)
    # Timed calls come last before the reactor waits.
    await deferLater(reactor, 0)
    called: Deferred[None] = Deferred()
    thread = Thread(target=reactor.callFromThread, args=(called.callback, None))
    thread.start()
    thread.join()
    family.fork()
    late = reactor.callLater(PATIENCE, lambda: None)
    await called
    say("called", reactor.seconds() < late.getTime())
    late.cancel()
    await family.meet()
    if isFork():
        poller.del_channel(transport)
    # Threads and signals wake up their own reactor only.
    for number in range(CALLS):
        assert await deferToThread(abs, -number).addTimeout(PATIENCE, reactor) == number
        if not number % 20:
            protocol = Ends()
            reactor.spawnProcess(protocol, "/bin/true", ["true"], {})
            assert await protocol.ended.addTimeout(PATIENCE, reactor) is ProcessDone
    say("woke up")
    await family.meet()
    if not isFork():
        os.write(writing, b"!")
        say("read", await transport.came.addTimeout(PATIENCE, reactor))
    family.end()


def run(part: Callable[[Any, Family], Awaitable[None]]) -> None:
    """
    Run a part, in both processes to the end.
    """
    react(lambda reactor: ensureDeferred(part(reactor, Family())))  # type: ignore[arg-type]


if __name__ == "__main__":
    PARTS = {each.__name__: each for each in (worker, dialing, spawning, server, hub, reactor)}
    if "asyncio" in sys.argv:
        asyncioreactor.install()
    run(PARTS[sys.argv[1]])
