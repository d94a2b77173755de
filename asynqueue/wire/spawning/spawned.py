"""
A server that this process has spawned.

::

    ServerManager ─▶ SpawnedServer ── stdin, stdout: nothing, or a connection ──▶ python -m
                         ◀── a line when it is ready, an end when it is gone ──    asynqueue.wire
                         ◀── what it writes to standard error ──────────────────
                         ── a pipe that ends with this process ────────────────▶
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from enum import Enum
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from asynqueue.descriptors import holdStandard
from asynqueue.errors import ForkError, WorkerLostError
from asynqueue.loops.adapters import LoopAdapter
from asynqueue.processes.groups import killGroup, reap
from asynqueue.processes.passing import Errors
from asynqueue.timers import Timer
from asynqueue.wire.transport.stdio import StdioServer
from asynqueue.workers.waiters import Waiters

_log = Logger()

_PIECE = 1 << 16


class _State(Enum):
    STARTING = "starts"
    READY = "serves"
    ENDING = "is told to end"
    ENDED = "has ended"


class SpawnedServer:
    """
    A process, and this process' ends of all that leads to it.

    @ivar description: where it listens.
    @ivar pid: its process ID.
    @ivar where: what is to be dialed, when it is ready.
    @ivar stdio: the connection with it, if it has one from the beginning.
    @ivar ready: fires with this server when it is ready. Fails with L{WorkerLostError
        <asynqueue.pool.WorkerLostError>} if it ends before that.
    """

    def __init__(
        self,
        description: str,
        arguments: Sequence[str],
        stdio: bool,
        hub: LoopAdapter,
        reactor: Any,
        ended: Callable[[SpawnedServer], None],
    ) -> None:
        """
        @param arguments: those of C{asynqueue.wire}.
        @param stdio: whether it has a connection over standard input and output.
        @param ended: is called when the process is gone.
        @raise OSError: there is no room for another process, or for its descriptors.
        """
        self.description = description
        self.where = description
        self.stdio: StdioServer | None = None
        self.ready: Deferred[SpawnedServer] = Deferred(lambda _: self.kill("nobody waits for it"))
        self._hub = hub
        self._ended = ended
        self._state = _State.STARTING
        self._line = b""
        self._errors = Errors()
        self._reason = ""
        self._timer = Timer(hub.callLater)
        self._gone = Waiters()
        holdStandard()
        with ExitStack() as passed, ExitStack() as kept:
            report, there = os.pipe()
            kept.callback(os.close, report)
            passed.callback(os.close, there)
            lifeline, here = os.pipe()
            passed.callback(os.close, lifeline)
            kept.callback(os.close, here)
            streams: Any = subprocess.DEVNULL, None
            if stdio:
                ours, theirs = socket.socketpair()
                kept.callback(ours.close)
                passed.callback(theirs.close)
                ours.setblocking(False)
                self.stdio = StdioServer(description, ours, reactor)
                streams = theirs, theirs
            pipes = ["--ready", str(there), "--lifeline", str(lifeline)]
            self._process = _start([*pipes, *arguments], streams, (there, lifeline))
            kept.pop_all()
        self.pid = self._process.pid
        if self.stdio is not None:
            self.stdio.pid = self.pid
        assert self._process.stderr is not None
        self._report, self._lifeline = report, here
        self._stderr = self._process.stderr.fileno()
        os.set_blocking(report, False)
        os.set_blocking(self._stderr, False)
        self._watch()

    @property
    def isReady(self) -> bool:
        """
        Whether it serves.
        """
        return self._state is _State.READY

    def end(self, grace: float) -> Deferred[None]:
        """
        Tell it to end, and kill it if it has not done so after some seconds.

        @return: a Deferred that fires when it is gone.
        """
        gone = self._gone.wait()
        if self._state in (_State.STARTING, _State.READY):
            self._state = _State.ENDING
            self._watch()
            self._process.send_signal(signal.SIGTERM)
            self.limit(grace, "it did not end when it was told to")
        elif self._state is _State.ENDED:
            self._gone.fire()
        return gone

    def limit(self, seconds: float, reason: str) -> None:
        """
        Kill it after a time, if it is not ready or gone by then.

        @param reason: why, for messages.
        """
        self._timer.start(seconds, lambda: self.kill(reason))

    def kill(self, reason: str) -> None:
        """
        End it at once.
        """
        if self._state is not _State.ENDED:
            self._reason = self._reason or reason
            self._state = _State.ENDING
            self._watch()
            killGroup(self.pid)

    def forked(self) -> None:
        """
        In a fork of the process that has spawned it, neither keep it alive nor read what it
        says.
        """
        self._state = _State.ENDED
        self._timer.stop()
        for descriptor in (self._report, self._stderr):
            self._hub.letGo(descriptor)
        self._close()
        self._hub.callLater(0, self._saysNothing)
        # It cannot be waited for here, and nobody is to complain.
        self._process.returncode = 0

    def _saysNothing(self) -> None:
        """
        End the waiting of those who wait for it in a fork.
        """
        if not self.ready.called:
            self.ready.errback(ForkError(f"spawning {self.description}", "server"))

    # Reading

    def _watch(self) -> None:
        """
        Hear of it from now on; also where somebody has taken all readers out of the reactor,
        as trial does after each of its tests.
        """
        self._hub.watch(self._report, self._readReport)
        self._hub.watch(self._stderr, self._readStderr)

    def _readReport(self) -> None:
        """
        Read that it is ready, or gone.
        """
        try:
            data = os.read(self._report, _PIECE)
        except BlockingIOError:
            return
        if not data:
            self._isGone()
            return
        self._line += data
        if self._state is _State.STARTING and self._line.endswith(b"\n"):
            self._state = _State.READY
            self._timer.stop()
            self.where = self._line.decode().removeprefix("ready ").strip()
            self.ready.callback(self)

    def _readStderr(self) -> None:
        """
        Pass on what is there.
        """
        if not self._errors.passOn(self._stderr):
            self._hub.unwatch(self._stderr)

    # The end

    def _isGone(self) -> None:
        """
        End what the process has left: it has closed its end, and has ended or is about to.
        """
        self._hub.unwatch(self._report)
        with suppress(ProcessLookupError):
            # Whatever made it close that: it can tell us nothing any more.
            os.kill(self.pid, signal.SIGKILL)
        try:
            self._process.returncode = reap(self.pid)
        except ChildProcessError:
            # Something else in this program has waited for it, or ignores SIGCHLD.
            pass
        status = self._process.wait()
        while self._errors.passOn(self._stderr) > 0:
            pass
        self._hub.unwatch(self._stderr)
        self._timer.stop()
        self._close()
        wasToEnd = self._state is _State.ENDING and not self._reason
        self._state = _State.ENDED
        error = self._error(status)
        self._ended(self)
        if not self.ready.called:
            self.ready.errback(error)
        elif status and not wasToEnd:
            _log.error("{error}", error=error)
        self._gone.fire()

    def _error(self, status: int) -> WorkerLostError:
        tail = self._errors.tail.decode(errors="replace").strip()
        return WorkerLostError(
            self.pid,
            exitCode=status if status >= 0 else None,
            signal=-status if status < 0 else None,
            doing=f"asynqueue.wire {self.description}",
            reason="\n".join(filter(None, [self._reason, tail])),
        )

    def _close(self) -> None:
        os.close(self._report)
        os.close(self._lifeline)
        assert self._process.stderr is not None
        self._process.stderr.close()
        if self.stdio is not None:
            self.stdio.close()


def _start(
    arguments: Sequence[str], streams: tuple[Any, Any], passed: tuple[int, ...]
) -> subprocess.Popen[bytes]:
    """
    Start the process.

    @param streams: standard input and output.
    @param passed: the descriptors that it inherits.
    """
    # What is no text there has no meaning to imports.
    path = [entry for entry in sys.path if isinstance(entry, str)]
    code = f"import sys; sys.path[:] = {path!r}; from asynqueue.wire.__main__ import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdin=streams[0],
        stdout=streams[1],
        stderr=subprocess.PIPE,
        pass_fds=passed,
        # Ctrl-C is for this process, which then ends the servers in good order.
        start_new_session=True,
    )
