"""
The signals that end a program: who hears the first, the second and the last.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.testing import MemoryReactorClock

from asynqueue.signals import EndSignals

PROGRAM = Path(__file__).parent / "integration" / "signals_program.py"


class Reactor(MemoryReactorClock):
    """
    A reactor that calls at once what signals have it call, and notes signals of its own.
    """

    def __init__(self) -> None:
        super().__init__()
        self.own: list[int] = []

    def sigInt(self, number: int, frame: Any) -> None:
        self.own.append(number)

    sigTerm = sigInt

    def takeSignals(self) -> None:
        """
        Handle signals from now on: the reactor of the tests does, when it starts.
        """
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self.sigInt)

    def callFromThread(self, f: Any, *args: Any, **kw: Any) -> None:
        f(*args, **kw)


@pytest.fixture
def owner() -> Iterator[Reactor]:
    """
    A reactor that may take the signals, as long as the test runs.
    """
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield Reactor()
    for number, handler in before.items():
        signal.signal(number, handler)


def test_firstSignalIsOfTheReactorTheSecondIsNot(owner: Reactor) -> None:
    """
    Who wants second signals leaves the first one to the reactor.
    """
    owner.takeSignals()
    heard: list[int] = []
    signals = EndSignals(owner, isEnding=False)
    signals.hear(heard.append)
    signal.raise_signal(signal.SIGTERM)
    assert (owner.own, heard) == ([signal.SIGTERM], [])
    signal.raise_signal(signal.SIGINT)
    assert (owner.own, heard) == ([signal.SIGTERM], [signal.SIGINT])
    assert signals.ignore(heard.append)
    assert signal.getsignal(signal.SIGINT) == owner.sigInt


def test_endForAnotherReasonCountsAsTheFirst(owner: Reactor) -> None:
    """
    Where the program ends anyway, the first signal is a second one.
    """
    owner.takeSignals()
    heard: list[int] = []
    signals = EndSignals(owner, isEnding=False)
    signals.hear(heard.append)
    signals.ending()
    signal.raise_signal(signal.SIGTERM)
    assert (owner.own, heard) == ([], [signal.SIGTERM])
    signals.ignore(heard.append)


def test_lastSecondsAreGivenBack(owner: Reactor) -> None:
    """
    A process that ends in time has its signals as before, and nothing waits to end it.
    """
    owner.takeSignals()
    heard: list[int] = []
    signals = EndSignals(owner, lastSeconds=1000)
    signals.hear(heard.append)
    signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL
    signals.ignore(heard.append)
    assert heard == [signal.SIGTERM]
    assert signal.getsignal(signal.SIGTERM) == owner.sigTerm


def test_whatIsIgnoredStaysIgnored(owner: Reactor) -> None:
    """
    Signals that the program ignores, or handles itself, go on to be.
    """
    owner.takeSignals()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signals = EndSignals(owner)
    signals.hear(print)
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    signals.ignore(print)
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_signalToAnotherThreadWakesTheReactor() -> None:
    """
    A signal that comes to another thread, while the reactor sleeps, is heard in the reactor.
    Afterwards signals do what they did before.
    """
    done = subprocess.run(
        [sys.executable, str(PROGRAM)], capture_output=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, b"SIGTERM True\nTrue True\n"), done.stderr
