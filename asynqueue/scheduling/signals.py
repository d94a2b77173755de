"""
Signals to a program whose reactor was told to stop already: whoever sends one more does not
want to wait until all is done.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from typing import Any

from twisted.logger import Logger

_log = Logger()

# The signals on which a reactor stops, and its methods that handle them.
_HANDLERS = {signal.SIGINT: "sigInt", signal.SIGTERM: "sigTerm"}


class SecondSignals:
    """
    Hears the signals that a reactor, while it stops, would take for nothing.

    Only handlers of the reactor itself are replaced: a program that has others knows what
    it does.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._listeners: dict[Callable[[str], None], None] = {}

    def __len__(self) -> int:
        """
        How many hear them.
        """
        return len(self._listeners)

    def hear(self, caught: Callable[[str], None]) -> None:
        """
        Begin to call a function, in the reactor, with what came, in words.
        """
        self._listeners[caught] = None
        if threading.current_thread() is not threading.main_thread():
            # Signals are none of this thread's business.
            return
        for number, name in _HANDLERS.items():
            handler = getattr(self._reactor, name, None)
            if handler is not None and signal.getsignal(number) == handler:
                signal.signal(number, self._caught)

    def ignore(self, caught: Callable[[str], None]) -> None:
        """
        Call it no more. With the last one, the reactor has its handlers back.
        """
        self._listeners.pop(caught, None)
        if self._listeners or threading.current_thread() is not threading.main_thread():
            return
        for number, name in _HANDLERS.items():
            if signal.getsignal(number) == self._caught:
                signal.signal(number, getattr(self._reactor, name))

    def _caught(self, number: int, frame: Any) -> None:
        self._reactor.callFromThread(self._tell, signal.Signals(number).name)

    def _tell(self, name: str) -> None:
        listeners = list(self._listeners)
        if listeners:
            _log.warn("{signal} while the reactor stops: its queues end at once", signal=name)
        for caught in listeners:
            caught(name)


# Those of the reactors that are about to stop.
_ofReactors: dict[int, SecondSignals] = {}


def hearSecondSignals(reactor: Any, caught: Callable[[str], None]) -> Callable[[], None]:
    """
    Hear the signals that come while a reactor stops.

    @param caught: is called in the reactor with the name of the signal.
    @return: what ends that. It may be called more than once.
    """
    signals = _ofReactors.setdefault(id(reactor), SecondSignals(reactor))
    signals.hear(caught)

    def ignore() -> None:
        signals.ignore(caught)
        if not signals:
            _ofReactors.pop(id(reactor), None)

    return ignore
