"""
What the tests of faults on the wire share: a host that can be harmed, and what is to be
counted.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from time import monotonic
from typing import Any

from pytest_twisted import async_yield_fixture
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import globalLogBeginner, textFileLogObserver

from asynqueue.reactors import theReactor
from asynqueue.taskqueue import TaskQueue
from asynqueue.wire.client.worker import WireWorker
from asynqueue.wire.host.catalog import WireWorkerUniverse
from asynqueue.wire.host.server import WireServer
from tests.integration.process_checks import Used, until

KEY = b"a key that two sides have, and nobody else"

# Within so many seconds after a test, all that it had is gone.
_TIDY = 15
_TURN = 0.01

_ROOT = Path(__file__).parents[2]


class Faults(WireWorkerUniverse):
    """
    What is called on hosts that come to harm.
    """

    def __init__(self) -> None:
        self._held: list[Deferred[str]] = []
        self._cancelled = 0
        self._iterators = 0

    def square(self, number: int) -> int:
        """
        Be quick.
        """
        return number * number

    def note(self, path: str, number: int) -> int:
        """
        Be quick, and leave a trace.
        """
        with open(path, "ab", buffering=0) as file:
            file.write(b"%d %d\n" % (number, os.getpid()))
        return number * number

    def hold(self) -> Deferred[str]:
        """
        Wait until L{letGo}.
        """
        d: Deferred[str] = Deferred(self._count)
        self._held.append(d)
        return d

    def readFrom(self, path: str) -> bytes:
        """
        Wait in a thread until somebody has written to a pipe.
        """
        with open(path, "rb") as pipe:
            return pipe.read()

    def letGo(self) -> int:
        """
        Let those who wait go on.

        @return: how many waited.
        """
        held, self._held = self._held, []
        for d in held:
            d.callback("let go")
        return len(held)

    def held(self) -> int:
        """
        How many wait.
        """
        return len(self._held)

    def cancelled(self) -> int:
        """
        How many of those who waited were cancelled.
        """
        return self._cancelled

    def endless(self) -> Iterator[int]:
        """
        All numbers.
        """
        self._iterators += 1
        try:
            yield from count()
        finally:
            self._iterators -= 1

    def iterators(self) -> int:
        """
        How many have begun to take all numbers, and not ended.
        """
        return self._iterators

    def blobs(self) -> Iterator[bytes]:
        """
        Many bytes, again and again.
        """
        return (bytes(1 << 20) for _ in count())

    def megabyte(self) -> bytes:
        """
        Many bytes.
        """
        return bytes(1 << 20)

    def blob(self, size: int) -> bytes:
        """
        Many bytes.
        """
        return bytes(size)

    def size(self, data: bytes) -> int:
        """
        How many bytes came.
        """
        return len(data)

    def pid(self) -> int:
        """
        Who this is.
        """
        return os.getpid()

    def _count(self, d: Deferred[str]) -> None:
        self._held.remove(d)
        self._cancelled += 1


class Harmed:
    """
    A host in a process of its own, which serves when this is made. It ends with this
    process.

    @ivar description: what is to be dialed.
    """

    def __init__(
        self, description: str, log: str, prefix: tuple[str, ...] = (), **options: Any
    ) -> None:
        """
        @param description: where it listens.
        @param log: the path of its log.
        @param prefix: the command that starts it in another place.
        @param options: of the L{WireServer}.
        """
        self.description = description
        self._log = Path(log)
        with self._log.open("ab") as stderr:
            self._process = subprocess.Popen(
                [*prefix, sys.executable, __file__, description, json.dumps(options)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env={**os.environ, "PYTHONPATH": str(_ROOT), "ASYNQUEUE_KEY_FILE": ""},
            )
        assert self._process.stdout is not None
        self.description = self._process.stdout.readline().decode().strip()
        assert self.description, self.log()

    @property
    def pid(self) -> int:
        """
        Its process ID.
        """
        return self._process.pid

    @property
    def isGone(self) -> bool:
        """
        Whether it has ended.
        """
        return self._process.poll() is not None

    def log(self) -> str:
        """
        What it has logged.
        """
        return self._log.read_text()

    def signal(self, number: signal.Signals) -> None:
        """
        Send it a signal.
        """
        self._process.send_signal(number)

    def kill(self) -> None:
        """
        End it as nobody wants to be ended.
        """
        self._process.kill()
        self._tidyUp()

    async def end(self) -> int:
        """
        End it as it wants to be ended.

        @return: the exit status.
        """
        self.signal(signal.SIGTERM)
        await until(lambda: self.isGone)
        self._tidyUp()
        return self._process.returncode

    def close(self) -> None:
        """
        Leave nothing behind.
        """
        self.kill()

    def _tidyUp(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
        self._process.wait()


class Caller:
    """
    A queue in a process of its own, which has a host hold a call, and take from an endless
    iterator.
    """

    def __init__(self, description: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, "call", description],
            stdin=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(_ROOT)},
        )

    def signal(self, number: signal.Signals) -> None:
        """
        Send it a signal.
        """
        self._process.send_signal(number)

    def close(self) -> None:
        """
        Leave nothing behind.
        """
        self._process.kill()
        self._process.communicate()


class Hosts:
    """
    Some hosts, and the folder that their sockets are in.
    """

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._hosts: list[Harmed] = []
        self._callers: list[Caller] = []

    def path(self, name: str) -> str:
        """
        A path in the folder, short enough for a socket.
        """
        return f"{self._folder.name}/{name}"

    def key(self) -> str:
        """
        The path of a key file.
        """
        path = Path(self.path("key"))
        if not path.exists():
            path.touch(mode=0o600)
            path.write_bytes(KEY)
        return str(path)

    def start(self, description: str = "", prefix: tuple[str, ...] = (), **options: Any) -> Harmed:
        """
        Start one.

        @param description: where it listens; if nothing is said, at a new UNIX socket.
        """
        number = len(self._hosts)
        description = description or f"unix:{self.path(str(number))}"
        host = Harmed(description, self.path(f"{number}.log"), prefix, **options)
        self._hosts.append(host)
        return host

    def caller(self, description: str) -> Caller:
        """
        Start a queue elsewhere that calls a host.
        """
        caller = Caller(description)
        self._callers.append(caller)
        return caller

    def close(self) -> None:
        """
        End all of them. None may have logged an error that nobody has foreseen.
        """
        for caller in self._callers:
            caller.close()
        logs = []
        for host in self._hosts:
            logs.append(host.log())
            host.close()
        self._folder.cleanup()
        for log in logs:
            assert "Traceback" not in log, log


async def _hosts() -> Any:
    """
    Hosts, after which this process has what it had before: no more descriptors, no more
    children, no more timers.
    """
    used = Used()
    reactor: Any = theReactor()
    timers = set(reactor.getDelayedCalls())
    made = Hosts()
    yield made
    made.close()
    end = monotonic() + _TIDY
    while (left := (used.more(), _timers(reactor) - timers)) != ({}, set()):
        assert monotonic() < end, f"{left} are left"
        # No timer of this wait is counted.
        await deferLater(reactor, _TURN)


hosts = async_yield_fixture(_hosts)
moduleHosts = async_yield_fixture(scope="module")(_hosts)


def _timers(reactor: Any) -> set[Any]:
    return set(reactor.getDelayedCalls())


def notes(path: str) -> Counter[int]:
    """
    How often each number was noted.
    """
    with open(path) as file:
        return Counter(int(line.split()[0]) for line in file)


def notedBy(path: str, pid: int) -> set[int]:
    """
    The numbers that a host has noted.
    """
    with open(path) as file:
        pairs = [line.split() for line in file]
    return {int(number) for number, who in pairs if int(who) == pid}


def callHost(description: str) -> None:
    """
    Be a queue that calls a host, until nobody holds the standard input.
    """
    reactor = theReactor()

    async def begin() -> None:
        queue = TaskQueue(WireWorker(None, description))
        queue.call("hold")
        deferator = await queue.call("endless")
        await next(deferator)
        # It is kept, and not taken from any more.
        await Deferred().addBoth(lambda _: deferator)

    def watch() -> None:
        sys.stdin.read()
        os._exit(0)

    reactor.callWhenRunning(lambda: Deferred.fromCoroutine(begin()))
    reactor.callInThread(watch)
    reactor.run()


def main() -> None:
    """
    Be a host, or a queue.
    """
    if sys.argv[1] == "call":
        callHost(sys.argv[2])
        return
    description, options = sys.argv[1], json.loads(sys.argv[2])
    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stderr)], redirectStandardIO=False)
    reactor = theReactor()
    server = WireServer(description, Faults(), **options)

    def ready(_: Any) -> None:
        host = getattr(server.address, "host", None)
        where = description if host is None else f"tcp:{host}:{server.address.port}"
        print(where, flush=True)

    def watch() -> None:
        sys.stdin.read()
        os._exit(0)

    def start() -> None:
        serving = server.start()
        if options.get("dial"):
            # The other side waits for this.
            ready(None)
        else:
            serving.addCallback(ready)

    reactor.callWhenRunning(start)
    reactor.callInThread(watch)
    signal.signal(signal.SIGTERM, lambda *_: reactor.callFromThread(stop))

    def stop() -> None:
        server.stop().addBoth(lambda _: os._exit(0))

    reactor.run(installSignalHandlers=False)


if __name__ == "__main__":
    main()
