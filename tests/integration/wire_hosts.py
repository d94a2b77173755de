"""
Hosts for the tests of workers over connections: in this process, and in others.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from importlib import import_module
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IAddress

from asynqueue.reactors import theReactor
from asynqueue.taskqueue import TaskQueue
from asynqueue.wire.host.catalog import Catalog, WireWorkerUniverse
from asynqueue.wire.host.sessions import HostSession
from asynqueue.wire.protocol.codecs import codecNamed
from asynqueue.wire.transport.connecting import ConnectionFactory, RefusalLog
from asynqueue.wire.transport.connection import Connection
from asynqueue.wire.transport.endpoints import clientEndpoint, serverEndpoint
from asynqueue.workers.asynchronous import AsyncWorker
from asynqueue.workers.thread import ThreadWorker

_PROGRAM = Path(__file__)


class Universe(WireWorkerUniverse):
    """
    Some methods.
    """

    def add(self, one: int, two: int = 0) -> int:
        """
        A sum.
        """
        return one + two

    def thread(self) -> int:
        """
        In which thread this runs.
        """
        return threading.get_ident()

    def same(self, value: Any) -> Any:
        """
        What it is given.
        """
        return value

    def zeros(self, size: int) -> bytes:
        """
        So many bytes.
        """
        return bytes(size)


class Serving:
    """
    Hosts in this process, before a queue that is theirs.

    @ivar description: where they are reached.
    @ivar hosts: all that there were, the newest last.
    @ivar connections: likewise.
    @ivar queue: makes the calls.
    """

    def __init__(
        self,
        queue: TaskQueue,
        catalog: Catalog,
        description: str | None = None,
        *,
        key: bytes | None = None,
        codec: str = "pickle",
        heartbeat: float | None = None,
        series: str | None = None,
        threadSeries: str = "thread",
        qualified: tuple[str, ...] = (),
        reactor: Any = None,
    ) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self.description = description or f"unix:{self._folder.name}/socket"
        self.queue = queue
        self.hosts: list[HostSession] = []
        self.connections: list[Connection] = []
        self._catalog = catalog
        self._key = key
        self._codec = codec
        self._heartbeat = heartbeat
        self._options: dict[str, Any] = {
            "series": series,
            "threadSeries": threadSeries,
            "qualified": qualified,
        }
        self._refusals = RefusalLog(theReactor())
        self._port: Any = None

    async def listen(self) -> Serving:
        """
        Have connections come.
        """
        endpoint = serverEndpoint(theReactor(), self.description)
        self._port = await endpoint.listen(ConnectionFactory(self._make))
        return self

    async def dial(self, description: str) -> Serving:
        """
        Make a connection.
        """
        await clientEndpoint(theReactor(), description).connect(
            ConnectionFactory(lambda address: self._make(address, dialed=True))
        )
        return self

    async def close(self) -> None:
        """
        Leave nothing behind: the queue, too, is shut down.
        """
        await self.leave()
        await self.queue.shutdown()
        self._folder.cleanup()

    async def leave(self) -> None:
        """
        Listen no more, and cut all connections.
        """
        port, self._port = self._port, None
        if port is not None:
            await maybeDeferred(port.stopListening)
        for connection in self.connections:
            connection.abort()

    def sessionOpened(self, session: HostSession) -> None:
        """
        One more queue is served.
        """

    def sessionLost(self, session: HostSession, error: Exception) -> None:
        """
        One less is.
        """

    def _make(self, address: IAddress, dialed: bool = False) -> Connection:
        host = HostSession(
            self, self.queue, self._catalog, codec=codecNamed(self._codec), **self._options
        )
        connection = host.connect(
            dialed,
            key=self._key,
            heartbeat=self._heartbeat,
            onRefused=None if dialed else self._refusals.add,
        )
        self.hosts.append(host)
        self.connections.append(connection)
        return connection


class HostProcess:
    """
    A host in a process of its own, which listens when this is made.

    @ivar description: where it is reached.
    """

    def __init__(self, description: str, threads: int = 0) -> None:
        """
        @param threads: how many calls run at once, each in a thread; 0: in its reactor.
        """
        self.description = description
        self._process = subprocess.Popen(
            [sys.executable, str(_PROGRAM), description, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(_PROGRAM.parents[2])},
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"listening\n"

    @property
    def pid(self) -> int:
        """
        Its process ID.
        """
        return self._process.pid

    def kill(self) -> None:
        """
        End it as nobody wants to be ended.
        """
        self._process.kill()
        self._process.communicate()

    def signal(self, number: signal.Signals) -> None:
        """
        Send it a signal.
        """
        self._process.send_signal(number)


def main() -> None:
    """
    Be a host that runs whatever it is sent, until nobody holds its standard input.
    """
    description, threads = sys.argv[1], int(sys.argv[2])
    # What a first call would have imported.
    for module in ("cloudpickle", "asynqueue.testing.calls"):
        import_module(module)
    reactor = theReactor()
    worker: Any = ThreadWorker(threads=threads) if threads else AsyncWorker(concurrent=100)
    serving = Serving(TaskQueue(worker), Catalog(None, trust="code"), description)

    def listening(_: Any) -> None:
        print("listening", flush=True)

    def start() -> None:
        Deferred.fromCoroutine(serving.listen()).addCallback(listening)

    def watch() -> None:
        sys.stdin.read()
        os._exit(0)

    reactor.callWhenRunning(start)
    reactor.callInThread(watch)
    reactor.run()


if __name__ == "__main__":
    main()
