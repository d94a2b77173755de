"""
The guard around what drives a pool.
"""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import Iterator
from threading import Thread
from typing import NoReturn

import pytest
from twisted.logger import LogEvent, globalLogPublisher

from asynqueue.processes.guard import harmless
from tests.doubles import readingLogs


def raising(error: BaseException) -> NoReturn:
    """
    Raise it.
    """
    raise error


@pytest.fixture
def exitingObserver() -> Iterator[None]:
    """
    Somebody observes the log, and exits.
    """

    def observe(event: LogEvent) -> None:
        raise SystemExit("no room in the log")

    globalLogPublisher.addObserver(observe)
    yield
    globalLogPublisher.removeObserver(observe)


@pytest.mark.parametrize(
    "error", [ValueError("no"), SystemExit(1), GeneratorExit(), CancelledError()], ids=repr
)
def test_faultsAreLoggedOnce(error: BaseException) -> None:
    """
    Whatever a callback raises is logged once, and not raised.
    """
    with readingLogs() as logs:
        harmless("trying", raising, error)
    assert logs.errors() == [error]


def test_interruptOfTheProgramGoesOn() -> None:
    """
    Ctrl-C reaches the program.
    """
    with pytest.raises(KeyboardInterrupt):
        harmless("trying", raising, KeyboardInterrupt())


def test_interruptElsewhereIsAFault() -> None:
    """
    In another thread no Ctrl-C arrives: what looks like one is logged.
    """
    error = KeyboardInterrupt()
    with readingLogs() as logs:
        thread = Thread(target=harmless, args=("trying", raising, error))
        thread.start()
        thread.join(60)
    assert logs.errors() == [error]


@pytest.mark.usefixtures("exitingObserver")
def test_observersOfLogsMayExit() -> None:
    """
    Nor does it matter that who observes the log raises.
    """
    harmless("trying", raising, ValueError("no"))
