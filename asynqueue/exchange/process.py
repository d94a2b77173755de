"""
Processes by fork: how they begin, how they end, and that none is left behind.

A child begins with a copy of all that its parent has, and must not act in the
parent's place: it loses the parent's signal handlers and exit functions here, and it
leaves by C{os._exit}. This module imports no Twisted.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import select
import signal
import sys
import threading
from time import monotonic, sleep
from typing import NoReturn

# Where there is no descriptor of a process, it is looked at so often.
_INTERVAL = 0.005

_SET_DEATH_SIGNAL = 1
_prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None


class Process:
    """
    A process that is watched until it ends, mostly a child of this one.

    @ivar pid: its process ID.
    @ivar exitCode: how it ended; negative for a signal. C{None} before that, and if
        it cannot be known: it is no child of ours, or somebody else has waited for it.
    """

    def __init__(self, pid: int, watched: bool = True) -> None:
        """
        @param watched: whether to have a descriptor for it, where the system can.
        """
        self.pid = pid
        self.exitCode: int | None = None
        self._isGone = False
        self._descriptor = _descriptorOf(pid) if watched else -1

    def fileno(self) -> int:
        """
        Return a descriptor that is readable when it has ended; -1 if there is none.
        """
        return self._descriptor

    def hasEnded(self) -> bool:
        """
        Tell whether it has ended. If so, nothing of it is left.
        """
        if not self._isGone:
            self._check(os.WNOHANG)
        return self._isGone

    def wait(self, seconds: float | None = None) -> int | None:
        """
        Wait until it has ended.

        @param seconds: the longest time to wait; C{None} for as long as it takes.
        @return: its exit code, as far as that is known.
        """
        if seconds is None:
            if not self._isGone:
                self._check(0)
        elif self._descriptor >= 0:
            if not self.hasEnded():
                isReadable(self._descriptor, seconds)
                self.hasEnded()
        else:
            deadline = monotonic() + seconds
            while not self.hasEnded() and monotonic() < deadline:
                sleep(_INTERVAL)
        return self.exitCode

    def close(self) -> None:
        """
        Close the descriptor. It can still be waited for.
        """
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _check(self, options: int) -> None:
        try:
            pid, status = os.waitpid(self.pid, options)
        except ChildProcessError:
            # Not ours, or no longer: then only its descriptor tells.
            if self._descriptor < 0 or isReadable(self._descriptor, None if not options else 0):
                self._isGone = True
        else:
            if not pid:
                return
            self._isGone = True
            self.exitCode = os.waitstatus_to_exitcode(status)
        if self._isGone:
            children.pop(self.pid, None)


# The children that nobody has seen end.
children: dict[int, Process] = {}
# Those of its parent are not a fork's.
os.register_at_fork(after_in_child=children.clear)


def _descriptorOf(pid: int) -> int:
    try:
        return os.pidfd_open(pid) if hasattr(os, "pidfd_open") else -1
    except OSError:
        # An old kernel, or nothing of the process is there any more.
        return -1


def isReadable(descriptor: int, seconds: float | None) -> bool:
    """
    Tell whether a descriptor is readable, or becomes so within some seconds.
    """
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(None if seconds is None else seconds * 1000))


def processOf(pid: int) -> Process | None:
    """
    Return the process with this ID; C{None} for 0.
    """
    if not pid:
        return None
    return children[pid] if pid in children else Process(pid)


def fork(bound: bool = True) -> Process | None:
    """
    Begin a child, which goes on from here.

    @param bound: whether it ends with this process, whatever ends that. It is so
        where the system can do it (Linux), for what the main thread begins.
    @return: the child; C{None} in the child.
    @raise OSError: there is no room for one.
    """
    for child in list(children.values()):
        child.hasEnded()
    flush()
    parent = os.getpid()
    bound = bound and threading.current_thread() is threading.main_thread()
    # No handler of ours may run in the child, nor interrupt us before it is known.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        pid = os.fork()
        if pid:
            children[pid] = child = Process(pid)
            return child
        _beginAnew(parent if bound else 0)
        return None
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _beginAnew(parent: int) -> None:
    """
    Forget what is the parent's, and end with the process C{parent}, unless that is 0.
    """
    atexit._clear()
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            ours = number == signal.SIGINT
            signal.signal(number, signal.default_int_handler if ours else signal.SIG_DFL)
    if parent and _prctl is not None:
        _prctl(_SET_DEATH_SIGNAL, int(signal.SIGTERM), 0, 0, 0)
        if os.getppid() != parent:
            leave(1)


def flush() -> None:
    """
    Write what is printed and not written yet, so that a child has no copy of it.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):
            # There is none, or it was closed.
            pass


def leave(code: int) -> NoReturn:
    """
    End this process, which was forked: nothing of its parent's code runs.
    """
    try:
        flush()
    finally:
        os._exit(code)
