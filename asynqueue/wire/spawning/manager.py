"""
Servers on this machine, spawned and ended as they are needed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.interfaces import IReactorCore

from asynqueue.awaitable import AwaitableDeferred, bothWorlds
from asynqueue.checks import listOf
from asynqueue.descriptors import holdStandard
from asynqueue.errors import WireError
from asynqueue.forks import tellForks
from asynqueue.loops.adapters import LoopAdapter, adapterOf
from asynqueue.reactors import checkedReactor, theReactor
from asynqueue.wire.spawning.spawned import SpawnedServer
from asynqueue.wire.transport.certificates import newKey, writeSecret
from asynqueue.wire.transport.endpoints import clientEndpoint, forget, know

# The most characters that the path of a UNIX socket has, its lock file included.
_LONGEST_PATH = 100

# Waits until this process is gone, however that came, and removes what it has left.
_JANITOR = 'read nothing; rm -rf -- "$1"'


class _Folder:
    """
    A private folder, which is removed with this process at the latest.

    @ivar path: where it is.
    """

    def __init__(self) -> None:
        """
        @raise OSError: there is no room for it.
        """
        self.path = Path(tempfile.mkdtemp(prefix="asynqueue-"))
        if len(str(self.path)) > _LONGEST_PATH - 20:
            self.path.rmdir()
            self.path = Path(tempfile.mkdtemp(prefix="asynqueue-", dir="/tmp"))
        holdStandard()
        nobody, self._lifeline = os.pipe()
        try:
            self._janitor = subprocess.Popen(
                ["/bin/sh", "-c", _JANITOR, "asynqueue-janitor", str(self.path)],
                stdin=nobody,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                # Signals of a terminal are not meant for it.
                start_new_session=True,
            )
        except BaseException:
            os.close(self._lifeline)
            self.path.rmdir()
            raise
        finally:
            os.close(nobody)

    def remove(self) -> None:
        """
        Remove it now.
        """
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lifeline)
        self._janitor.wait()

    def forked(self) -> None:
        """
        Keep it no more, in a fork.
        """
        os.close(self._lifeline)
        self._janitor.returncode = 0


class ServerManager:
    """
    Spawns servers on this machine, in processes of their own, which end with this one.

    They share a key with the workers of this process that dial them: with those that are
    given the description with which a server was or will be spawned, or its address. Nobody
    has to make it::

        manager = ServerManager("crew.Universe")
        where = manager.newSocket()
        pid = await manager.spawn(where)
        queue.attachWorker(WireWorker(Universe(), where))
    """

    def __init__(
        self,
        wwuFQN: str | None = None,
        *,
        trust: str | None = None,
        allow: Iterable[str] = (),
        codec: str = "pickle",
        processes: int = 0,
        threads: int | None = None,
        grace: float = 10.0,
        patience: float = 60.0,
        margin: float = 3.0,
        logLevel: str = "warn",
        reactor: Any = None,
    ) -> None:
        """
        @param wwuFQN: the dotted name of the universe of the servers, or of its class.
            C{None}: they have none, and run any code that this process sends.
        @param trust: what may be called, as L{WireServer<asynqueue.wire.host.server.WireServer>}
            has it.
        @param allow: the names of the modules whose functions may be called.
        @param codec: how arguments and results are encoded.
        @param processes: how many processes each server has.
        @param threads: how many threads each server has; C{None}: one for each core.
        @param grace: the seconds that calls have to end when a server is told to end.
        @param patience: the seconds that a server has to get ready.
        @param margin: how many seconds after its grace a server is killed that was told to
            end.
        @param logLevel: what servers log, on the standard error of this process.
        @param reactor: the reactor; C{None} is the installed one.
        @raise TypeError: C{allow} is a string.
        """
        if trust is None:
            trust = "universe" if wwuFQN is not None or allow else "code"
        self._arguments = ["--trust", trust, "--codec", codec, "--processes", str(processes)]
        for module in listOf(allow, "allow"):
            self._arguments += ["--allow", module]
        if threads is not None:
            self._arguments += ["--threads", str(threads)]
        self._arguments += ["--grace", str(grace), "--log-level", logLevel]
        self._universe = wwuFQN
        self._grace = grace
        self._patience = patience
        self._margin = margin
        self._reactor = checkedReactor(reactor)
        self._hub: LoopAdapter | None = None
        self._folder: _Folder | None = None
        self._key = newKey().strip()
        self._sockets = 0
        # The descriptions that have this key.
        self._known: set[str] = set()
        self._servers: dict[int, SpawnedServer] = {}
        self._isOpen = True
        self._trigger: Any = None
        tellForks(self)

    @property
    def pids(self) -> list[int]:
        """
        The process IDs of the servers that are there.
        """
        return list(self._servers)

    def newSocket(self) -> str:
        """
        Return the description of a UNIX socket that is not used yet, in a private folder: to
        spawn a server, and to dial it.

        @raise OSError: there is no room for the folder.
        @raise WireError: the manager is shut down.
        """
        self._sockets += 1
        description = f"unix:{self._private().path}/{self._sockets}.sock"
        # A worker may dial before there is a server.
        self._know(description)
        return description

    def spawn(
        self, description: str, stdio: bool = False, niceness: int = 0
    ) -> AwaitableDeferred[Any]:
        """
        Spawn a server.

        @param description: where it listens, as an endpoint string.
        @param stdio: whether it has one connection, over its standard input and output,
            instead of listening. The description is then only a name, with which a worker
            dials it.
        @param niceness: is added to that of this process, as by nice(1).
        @return: a Deferred that fires when the server is ready, with its process ID; with
            C{stdio}, with a L{StdioServer<asynqueue.wire.transport.stdio.StdioServer>}, which has
            it as C{pid}. It fails with L{WorkerLostError
            <asynqueue.pool.WorkerLostError>}, which has the last lines that the server
            wrote to standard error, if it ends or does not get ready in time; and with
            C{OSError}, if there is no room for a process.
        """
        return bothWorlds(maybeDeferred(self._spawn, description, stdio, niceness))

    def done(self, pid: int | None = None) -> AwaitableDeferred[None]:
        """
        End a server that is not needed any more: it ends what it runs, within its grace.

        @param pid: its process ID; C{None}: that of all servers.
        @return: a Deferred that fires when it is gone. It is gone if it is not known.
        """
        if pid is None:
            servers = list(self._servers.values())
        else:
            servers = [self._servers[pid]] if pid in self._servers else []
        ended = [server.end(self._grace + self._margin) for server in servers]
        return bothWorlds(gatherResults(ended).addCallback(lambda _: None))

    def shutdown(self) -> AwaitableDeferred[None]:
        """
        End all servers, and spawn none any more.

        @return: a Deferred that fires when nothing is left of them.
        """
        self._isOpen = False
        return bothWorlds(self.done().addCallback(self._tidyUp))

    # Within

    def _private(self) -> _Folder:
        if not self._isOpen:
            raise WireError("the manager is shut down, and spawns no servers: make another one")
        if self._folder is None:
            self._folder = _Folder()
            try:
                writeSecret(self._folder.path / "key", self._key)
            except BaseException:
                self._folder.remove()
                self._folder = None
                raise
            reactor = theReactor(self._reactor)
            if IReactorCore.providedBy(reactor):
                self._trigger = reactor.addSystemEventTrigger(
                    "before", "shutdown", self._reactorStops
                )
        return self._folder

    def _spawn(self, description: str, stdio: bool, niceness: int) -> Deferred[Any]:
        folder = self._private()
        reactor = theReactor(self._reactor)
        if self._hub is None:
            self._hub = adapterOf(reactor)
        arguments = [*self._arguments, "--niceness", str(niceness)]
        arguments += ["--key-file", str(folder.path / "key")]
        arguments += ["--", "stdio:" if stdio else description]
        if self._universe is not None:
            arguments.append(self._universe)
        server = SpawnedServer(description, arguments, stdio, self._hub, reactor, self._ended)
        self._servers[server.pid] = server
        self._know(description, server.stdio)
        server.limit(self._patience, f"it was not ready within {self._patience:g} s")
        return server.ready.addCallback(self._ready)

    def _ready(self, server: SpawnedServer) -> Any:
        if server.stdio is not None:
            return server.stdio
        if server.where != server.description:
            # How one listens is not how the other dials.
            self._know(server.where)
            endpoint = clientEndpoint(theReactor(self._reactor), server.where)
            self._know(server.description, endpoint)
        return server.pid

    def _ended(self, server: SpawnedServer) -> None:
        """
        Forget a server that is gone. Its description has a meaning all the same: workers may
        dial it until another server has taken its place.
        """
        del self._servers[server.pid]

    def _know(self, description: str, endpoint: Any = None) -> None:
        know(description, self._key, endpoint)
        self._known.add(description)

    def _tidyUp(self, result: Any) -> None:
        for description in self._known:
            forget(description)
        self._known.clear()
        folder, self._folder = self._folder, None
        if folder is not None:
            folder.remove()
        if self._trigger is not None:
            theReactor(self._reactor).removeSystemEventTrigger(self._trigger)
            self._trigger = None

    def _reactorStops(self) -> Deferred[None]:
        # The trigger that is being run cannot be removed.
        self._trigger = None
        return self.shutdown()

    def forked(self) -> None:
        """
        Forget the servers in a fork of the process that has them.
        """
        for server in self._servers.values():
            server.forked()
        self._servers.clear()
        folder, self._folder = self._folder, None
        if folder is not None:
            folder.forked()
        self._isOpen = False
