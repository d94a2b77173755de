"""
How a child process starts.

It is a fresh interpreter, no fork of one with threads and a reactor. It has four descriptors of
the parent: a socket, the writing end of a pipe for what it sends, the memory of the shared state,
and the reading end of a pipe to which nobody ever writes, and which ends with the parent.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack
from time import monotonic
from typing import Any
from weakref import finalize

from asynqueue.channels import Channel
from asynqueue.descriptors import holdStandard
from asynqueue.framing import LARGEST
from asynqueue.processes.groups import killGroup, reap
from asynqueue.processes.limits import residentBytes
from asynqueue.processes.passing import Errors
from asynqueue.processes.protocol import SMALLEST, SharedState
from asynqueue.processes.surroundings import importPath
from asynqueue.segments import anonymousFile

# The seconds between looks at a process whose end nothing tells.
_LOOK_SECONDS = 0.01

# Those in which SIGKILL must have ended a process that nobody has any more.
_KILL_SECONDS = 1.0

# What old kernels and some containers say to the request for a descriptor of a process.
_NO_PIDFD = {errno.ENOSYS, errno.EPERM, errno.EACCES}


class Spawned:
    """
    A child process, and the parent's ends of all that leads to it.

    @ivar pid: its process ID.
    @ivar channel: the channel to it, which does not block.
    @ivar shared: the memory that is shared with it.
    @ivar stderr: the descriptor of what it writes to standard error, which does
        not block.
    @ivar pidfd: a descriptor that is readable when the process has ended, where the
        system has such; or -1.
    @ivar exitCode: its exit code, or minus the number of the signal that ended it.
        C{None} while it lives, and if it cannot be known: something else in this
        program has waited for it, or SIGCHLD is ignored.
    """

    def __init__(self, limit: int = LARGEST) -> None:
        """
        Start a process.

        @param limit: how many bytes the arguments or the result of a call may have.
        @raise OSError: there is no room for another process, or for its
            descriptors.
        """
        _undead[:] = [spawned for spawned in _undead if not spawned.hasEnded()]
        holdStandard()
        with ExitStack() as passed, ExitStack() as kept:
            self._ended = False
            self.exitCode: int | None = None
            here, there = socket.socketpair()
            kept.callback(here.close)
            passed.callback(there.close)
            inlet, outlet = os.pipe()
            kept.callback(os.close, inlet)
            passed.callback(os.close, outlet)
            memory = anonymousFile()
            passed.callback(os.close, memory)
            lifeline, self._lifeline = os.pipe()
            kept.callback(os.close, self._lifeline)
            passed.callback(os.close, lifeline)
            self.shared = SharedState(memory)
            kept.callback(self.shared.close)
            self._process = _start((there.fileno(), outlet, memory, lifeline), limit)
            # The last is undone first.
            kept.callback(self._process.wait)
            kept.callback(self._process.kill)
            assert self._process.stderr is not None
            with self._process.stderr as stderr:
                self.stderr = os.dup(stderr.fileno())
            kept.callback(os.close, self.stderr)
            self.pid = self._process.pid
            self.pidfd = _pidfdOf(self.pid)
            kept.pop_all()
        here.setblocking(False)
        os.set_blocking(inlet, False)
        self.channel = Channel(here, max(limit, SMALLEST), inlet=inlet)
        os.set_blocking(self.stderr, False)
        self._errors = Errors()
        # Where no loop keeps what watches it, nobody may have it any more before it is closed.
        self._dropped = finalize(
            self,
            _release,
            self._process,
            self.channel,
            self.shared,
            self.pidfd,
            (self.stderr, self._lifeline),
        )
        self._dropped.atexit = False

    @property
    def tail(self) -> bytes:
        """
        The last that it wrote to standard error.
        """
        return self._errors.tail

    @property
    def resident(self) -> int:
        """
        How many bytes of memory it has; 0 if it is gone.
        """
        return residentBytes(self.pid)

    def readStderr(self) -> int:
        """
        Read what the process has written to standard error, and pass it on to the
        parent's.

        @return: how many bytes: 0 at the end, -1 if there is nothing now.
        """
        if self.stderr == -1:
            return 0
        return self._errors.passOn(self.stderr)

    def signal(self, number: int) -> None:
        """
        Send a signal to the process, unless it has ended. SIGKILL is for all that its calls
        have started, too.
        """
        if self._ended:
            return
        try:
            if self.pidfd == -1:
                os.kill(self.pid, number)
            else:
                # Never another process: if something else in this program has waited
                # for this one, its process ID may belong to another by now.
                signal.pidfd_send_signal(self.pidfd, number)
            if number == signal.SIGKILL:
                killGroup(self.pid)
        except ProcessLookupError:
            pass

    def hasEnded(self) -> bool:
        """
        Return whether the process has ended, and release it if so.
        """
        if not self._ended:
            try:
                code = reap(self.pid, os.WNOHANG)
            except ChildProcessError:
                # Something else in this program has waited for it, or ignores SIGCHLD.
                self._end(None)
            else:
                if code is not None:
                    self._end(code)
        return self._ended

    def awaitEnd(self, seconds: float) -> bool:
        """
        Wait until the process has ended, or C{seconds} are over.

        @return: whether it has.
        """
        deadline = monotonic() + seconds
        poller = select.poll()
        if self.pidfd != -1:
            poller.register(self.pidfd, select.POLLIN)
        while not self.hasEnded():
            left = deadline - monotonic()
            if left <= 0:
                return False
            # Where nothing tells, look again and again.
            poller.poll(1000 * (left if self.pidfd != -1 else min(left, _LOOK_SECONDS)))
        return True

    def _end(self, code: int | None) -> None:
        self._ended = True
        self.exitCode = code
        # Nobody shall wait for it any more, nor complain that nobody has.
        self._process.returncode = 0 if code is None else code

    def close(self) -> None:
        """
        Close all descriptors. It may be called more than once.

        A process that has not ended in spite of SIGKILL is released when it has, as
        another one starts.
        """
        if not self.hasEnded():
            _undead.append(self)
        self._dropped.detach()
        self.channel.close()
        for name in ("stderr", "pidfd", "_lifeline"):
            descriptor = getattr(self, name)
            if descriptor != -1:
                os.close(descriptor)
                setattr(self, name, -1)

    def forked(self) -> None:
        """
        Give the child up, in a fork of its parent. It sees the end of its parent by its pipe, which
        must be closed here for that, and it cannot be waited for.
        """
        self._end(None)
        self.close()


def _release(
    process: subprocess.Popen[bytes],
    channel: Channel,
    shared: SharedState,
    pidfd: int,
    others: tuple[int, ...],
) -> None:
    """
    End a process that nobody has any more, and close what led to it. Called by a collector of
    garbage.
    """
    killGroup(process.pid)
    options = 0
    if pidfd != -1:
        poller = select.poll()
        poller.register(pidfd, select.POLLIN)
        poller.poll(1000 * _KILL_SECONDS)
        options = os.WNOHANG
        os.close(pidfd)
    try:
        process.returncode = reap(process.pid, options)
    except ChildProcessError:
        # Something else in this program has waited for it, or ignores SIGCHLD: nobody shall
        # wait for it any more.
        process.returncode = 0
    channel.close()
    shared.close()
    for descriptor in others:
        os.close(descriptor)


def _start(passed: tuple[int, ...], limit: int) -> subprocess.Popen[bytes]:
    """
    Start the process of a child.

    @param passed: the descriptors that it inherits.
    """
    numbers = ", ".join(map(str, (*passed, os.getpid(), limit)))
    code = (
        f"import sys; sys.path[:] = {importPath()!r};"
        f" from asynqueue.processes.child import main; main({numbers})"
    )
    # Ctrl-C, which goes to all processes of a terminal, must not hit it before it has a
    # session of its own: it inherits this, until it can do better itself.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return subprocess.Popen(
            [sys.executable, *_flags(), "-c", code],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            pass_fds=passed,
            # It leads a group: what its calls start can be killed with it. With no terminal
            # nothing of that can be stopped for touching one in the background.
            start_new_session=True,
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _pidfdOf(pid: int) -> int:
    """
    Return a descriptor that is readable when a process has ended, or -1 where the
    system has no such.

    @raise OSError: there is no room for another descriptor.
    """
    if not hasattr(os, "pidfd_open"):
        return -1
    try:
        return os.pidfd_open(pid)
    except OSError as error:
        if error.errno in _NO_PIDFD:
            return -1
        raise


# Those that have not ended in spite of SIGKILL: they hang in the kernel.
_undead: list[Spawned] = []


os.register_at_fork(after_in_child=_undead.clear)


def _flags() -> list[str]:
    """
    Return the options of this interpreter, for another one.
    """
    args: Any = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    return list(args)
