"""
What the tests of interrupts have children do.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import time
from importlib import import_module
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from asynqueue.testing.calls import Token
from tests.integration.process_calls import note

#: The source of a module that waits while it is imported, and cannot be imported twice.
WAITING = """
import sys
sys.modules.pop("waits at").wait()
value = 42
"""


def importAndGoOn(gate: Token, directory: str, path: str, isOneLine: bool) -> None:
    """
    Import a module that waits at a gate, and go on for ever.
    """
    sys.path.insert(0, directory)
    sys.modules["waits at"] = gate  # type: ignore[assignment]
    try:
        __import__("waiting") and isOneLine and signal.pause()  # type: ignore[func-returns-value]
        while True:
            pass
    except BaseException as error:
        note(path, type(error).__name__)
        raise


def imported() -> tuple[int, int]:
    """
    The process, and what that module has.
    """
    return os.getpid(), import_module("waiting").value


def importInVain() -> None:
    """
    Do nothing but import what is not there.
    """
    while True:
        try:
            import_module("asynqueue.nowhere")
        except ImportError:
            pass


def importInSecret(gate: Token) -> None:
    """
    Be in the middle of an import that nobody can see.
    """
    module = ModuleType("secret")
    spec: Any = ModuleSpec("secret", None)
    spec._initializing = True
    module.__spec__ = spec
    sys.modules["secret"] = module
    gate.wait()


def makeDeaf(how: str) -> int:
    """
    Have the signal of interrupts do nothing from now on.
    """
    match how:
        case "ignored":
            signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        case "blocked":
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
        case "in C":
            faulthandler.register(signal.SIGUSR1)
        case "reset":
            signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    return os.getpid()


def deafLoop(how: str) -> None:
    """
    Go on for ever after that.
    """
    makeDeaf(how)
    while True:
        time.sleep(0.01)


def writeWaiting(directory: Path) -> str:
    """
    Write the module that waits.
    """
    (directory / "waiting.py").write_text(WAITING)
    return str(directory)
