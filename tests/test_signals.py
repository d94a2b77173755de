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
from twisted.internet.error import ReactorNotRunning
from twisted.internet.testing import MemoryReactorClock

from asynqueue.signals import EndSignals

PROGRAMS = Path(__file__).parent / "integration"


def ran(program: str, *args: str) -> subprocess.CompletedProcess[bytes]:
    """
    Run a program to its end.
    """
    return subprocess.run(
        [sys.executable, str(PROGRAMS / program), *args],
        capture_output=True,
        timeout=60,
        check=False,
    )


class Reactor(MemoryReactorClock):
    """
    A reactor that calls at once what signals have it call, and notes signals of its own. It stops
    only once, as every reactor does.
    """

    def __init__(self) -> None:
        super().__init__()
        self.own: list[int] = []
        self.stops = 0

    def stop(self) -> None:
        if self.hasStopped:
            raise ReactorNotRunning
        super().stop()
        self.stops += 1

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
    done = ran("signals_program.py")
    assert (done.returncode, done.stdout) == (0, b"SIGTERM True\nTrue True\n"), done.stderr


def test_reactorStopsOnce(owner: Reactor) -> None:
    """
    The program stops its reactor itself where no signal does: after a first signal, which the
    reactor may still have to handle, and after another reason to end, it does not.
    """
    for before in (lambda signals: signal.raise_signal(signal.SIGTERM), EndSignals.ending):
        owner.takeSignals()
        signals = EndSignals(owner, isEnding=False)
        signals.hear(print)
        before(signals)
        signals.stopReactor()
        assert not owner.hasStopped
        signals.ignore(print)
    signals = EndSignals(owner, isEnding=False)
    signals.stopReactor()
    signals.stopReactor()
    assert owner.stops == 1


def test_signalAfterTheEndOnlyStops(owner: Reactor) -> None:
    """
    When all has ended, no listener is called and nothing kills the process in some seconds: signals
    stop the reactor, if it still runs.
    """
    owner.takeSignals()
    heard: list[int] = []
    signals = EndSignals(owner, isEnding=False, lastSeconds=1000)
    signals.hear(heard.append)
    signals.ended()
    for _ in range(2):
        signal.raise_signal(signal.SIGTERM)
    assert (owner.stops, owner.own, heard) == (1, [], [])
    assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL


@pytest.mark.parametrize("when", ["before", "after", "late"])
def test_signalAtTheEndIsQuiet(when: str) -> None:
    """
    A signal that comes to a host just before it stops by itself, just after, or when all has ended
    but the process, changes nothing and is not logged as an error.
    """
    done = ran("late_signal_program.py", when)
    assert (done.returncode, done.stderr) == (0, b"")
