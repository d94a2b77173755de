"""
The processes in which calls are made: how they start, and how they end.

They are fresh interpreters, no forks of one with threads and a reactor, and one
each to an executor, so that one that dies harms no other. This module imports
no Twisted.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.connection import wait
from multiprocessing.context import SpawnContext, SpawnProcess
from time import monotonic
from types import ModuleType
from typing import Any

from asynqueue.command.job import findFunction, obeyLimits

# The seconds that a process has to end after it was told to.
_PATIENCE = 1.0


class _Process(SpawnProcess):
    """
    A process that is not hit by Ctrl-C, not even while it starts, and that does
    not import the program which started it.
    """

    def start(self) -> None:
        """
        Called in the reactor's thread, the main one: what is put aside here is
        not looked at by anybody meanwhile.
        """
        program = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            super().start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            sys.modules["__main__"] = program


class _Context(SpawnContext):
    """
    Starts processes, and remembers them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.started: list[_Process] = []

    def Process(self, *args: Any, **kw: Any) -> _Process:  # type: ignore[override]
        """
        What C{ProcessPoolExecutor} gets its processes from.
        """
        process = _Process(*args, **kw)
        self.started.append(process)
        return process


class OneProcess(ProcessPoolExecutor):
    """
    An executor with one process, of which it can be said how it ended.
    """

    def __init__(self, limited: bool) -> None:
        """
        @param limited: whether calls have time limits.
        """
        self._context = _Context()
        super().__init__(1, self._context, initializer=prepare, initargs=(limited,))

    def processes(self) -> list[_Process]:
        """
        What was started and may still be alive: nothing, or one process.
        """
        return [process for process in self._context.started if process.pid is not None]

    def howEnded(self) -> str:
        """
        How the process ended, in words; empty if that is not known. Waits for the
        end of a process that is ending.
        """
        for process in self.processes():
            if wait([process.sentinel], _PATIENCE):
                # The executor has a thread that reaps the process, and then ends.
                self.shutdown(wait=True)
                code = process.exitcode
                if code is not None:
                    return _inWords(code)
        return ""


def _inWords(code: int) -> str:
    """
    The exit code of a process, or minus the signal that ended it.
    """
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def endAll(executors: Iterable[OneProcess]) -> None:
    """
    End processes at once, whatever they do, and wait until they are gone.
    """
    living = [process for executor in executors for process in executor.processes()]
    for end in (_Process.terminate, _Process.kill):
        for process in living:
            end(process)
        deadline = monotonic() + _PATIENCE
        while living and monotonic() < deadline:
            ended = wait([process.sentinel for process in living], _PATIENCE)
            living = [process for process in living if process.sentinel not in ended]


# What runs in the processes --------------------------------------------------


def prepare(limited: bool) -> None:
    """
    The first thing that is done in a new process. It must not raise.
    """
    # A handler that does nothing, rather than SIG_IGN: programs that functions
    # start would inherit that.
    signal.signal(signal.SIGINT, lambda signum, frame: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    # Standard output is for the results; what a function prints stands beside it.
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    if limited:
        obeyLimits()
    threading.Thread(target=_endWithParent, name="asynqueue parent", daemon=True).start()


def _endWithParent() -> None:
    """
    Nobody else tells a process that its parent was killed: it holds the writing
    end of its own queue of tasks, so that never ends.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def ready(where: str) -> None:
    """
    Called in each process before it gets inputs: have the function at hand.
    """
    findFunction(where)
