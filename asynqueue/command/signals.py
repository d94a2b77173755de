"""
Signals, as the reactor reads them.

A signal may come at the very moment when the reactor goes to sleep, or to another
thread, and a handler in Python would not be called before something else wakes
the reactor up. What is written to a pipe wakes it up by itself.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.interfaces import IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer


def _leaveIt(number: int, frame: Any) -> None:
    """
    The handler in Python has nothing to do, but must be there.
    """


@implementer(IReadDescriptor)
class Signals:
    """
    Calls a function, in the reactor, for each signal that this process gets. To
    be made in the main thread.
    """

    def __init__(self, numbers: Iterable[int], reactor: Any, caught: Callable[[int], None]) -> None:
        """
        @param numbers: which signals.
        @param caught: is called with the number of one that came.
        """
        self._numbers = frozenset(numbers)
        self._reactor = reactor
        self._caught = caught
        self._fd, self._end = os.pipe()
        os.set_blocking(self._fd, False)
        os.set_blocking(self._end, False)
        self._wokenBefore = signal.set_wakeup_fd(self._end, warn_on_full_buffer=False)
        self._handlers = {number: signal.signal(number, _leaveIt) for number in self._numbers}
        reactor.addReader(self)

    def close(self) -> None:
        """
        Let signals do what they did before.
        """
        self._reactor.removeReader(self)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wokenBefore)
        os.close(self._fd)
        os.close(self._end)

    def doRead(self) -> None:
        """
        Some signals came.
        """
        for number in os.read(self._fd, 256):
            if number in self._numbers:
                self._caught(number)

    def connectionLost(self, reason: Failure) -> None:
        """
        Nobody can close the other end of the pipe.
        """

    def fileno(self) -> int:
        """
        What the reactor waits for.
        """
        return self._fd

    def logPrefix(self) -> str:
        """
        What this is called in logs.
        """
        return "asynqueue signals"
