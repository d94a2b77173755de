"""
The signals that end a program, SIGINT (Ctrl-C) and SIGTERM: who hears them in the place of the
reactor, which knows nothing better than to stop.

Only handlers of the reactor are replaced, so at any time one object hears the signals: a program
that has handlers of its own knows what it does, and what it ignores stays ignored.
"""

from __future__ import annotations

import faulthandler
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from twisted.internet.error import ReactorNotRunning
from twisted.logger import Logger

from asynqueue.reactors import theReactor

_log = Logger()

# The signals on which a reactor stops, and its methods that handle them.
_HANDLERS = {signal.SIGINT: "sigInt", signal.SIGTERM: "sigTerm"}

_STDERR = 2


class EndSignals:
    """
    Hears the signals that a reactor would stop on, while somebody listens. Where the reactor runs
    in another thread than the main one, it hears none.
    """

    def __init__(
        self,
        reactor: Any = None,
        *,
        isEnding: bool = True,
        lastSeconds: float | None = None,
        warning: str = "",
    ) -> None:
        """
        @param reactor: the reactor; C{None} is the installed one.
        @param isEnding: whether the first signal is for the listeners, too. If not, it is the
            reactor's, and a second one means that nobody wants to wait.
        @param lastSeconds: how long the process may still take after a signal that listeners
            hear; then it ends, and says what it was doing. A further signal ends it at once.
            C{None}: as long as it likes.
        @param warning: what is logged of a signal that listeners hear, if anything.
        """
        self._reactor = reactor
        self._isEnding = isEnding
        self._lastSeconds = lastSeconds
        self._warning = warning
        self._listeners: dict[Callable[[signal.Signals], None], None] = {}
        self._before: dict[int, Any] = {}

    def hear(self, listener: Callable[[signal.Signals], None]) -> None:
        """
        Begin to call a function for each signal, in the reactor, which runs or is about to.
        """
        self._listeners[listener] = None
        if threading.current_thread() is not threading.main_thread():
            return
        reactor = theReactor(self._reactor)
        for number, name in _HANDLERS.items():
            handler = getattr(reactor, name, None)
            if handler is not None and signal.getsignal(number) == handler:
                self._before[number] = handler
                signal.signal(number, self._caught)

    def ending(self) -> None:
        """
        Take the next signal for a second one: the program ends, for whatever reason.
        """
        self._isEnding = True

    def stopReactor(self) -> None:
        """
        Stop the reactor, unless the program ends already: a signal may have stopped it, or be about
        to.
        """
        if not self._isEnding:
            self._isEnding = True
            theReactor(self._reactor).stop()

    def ended(self) -> None:
        """
        Call no listener any more: what was to end has ended, and the process is about to. Until
        then, a signal only stops a reactor that still runs.
        """
        self._listeners.clear()
        if self._before and self._lastSeconds is not None:
            faulthandler.cancel_dump_traceback_later()

    def ignore(self, listener: Callable[[signal.Signals], None]) -> bool:
        """
        Call a function no more. With the last one, the reactor has its handlers back.

        @return: whether that was the last.
        """
        self._listeners.pop(listener, None)
        if self._listeners:
            return False
        before, self._before = self._before, {}
        for number, handler in before.items():
            if signal.getsignal(number) in (self._caught, signal.SIG_DFL):
                signal.signal(number, handler)
        if before and self._lastSeconds is not None:
            faulthandler.cancel_dump_traceback_later()
        return True

    def _caught(self, number: int, frame: Any) -> None:
        if not self._listeners:
            theReactor(self._reactor).callFromThread(self._stopOnce)
            return
        if not self._isEnding:
            self._isEnding = True
            self._before[number](number, frame)
            return
        if self._lastSeconds is not None:
            # The reactor may be what hangs: this does not depend on it.
            for each in self._before:
                signal.signal(each, signal.SIG_DFL)
            # By its number: what the logs put in the place of standard error is no file.
            faulthandler.dump_traceback_later(self._lastSeconds, exit=True, file=_STDERR)
        theReactor(self._reactor).callFromThread(self._tell, signal.Signals(number))

    def _stopOnce(self) -> None:
        # It raises where it stops already, and logs that in the last words of the process.
        with suppress(ReactorNotRunning):
            theReactor(self._reactor).stop()

    def _tell(self, number: signal.Signals) -> None:
        listeners = list(self._listeners)
        if listeners and self._warning:
            _log.warn("{signal} {warning}", signal=number.name, warning=self._warning)
        for listener in listeners:
            listener(number)


# Of the reactors that are about to stop, whose queues all want to hear of it.
_ofReactors: dict[int, EndSignals] = {}


def hearSecondSignals(
    reactor: Any, listener: Callable[[signal.Signals], None]
) -> Callable[[], None]:
    """
    Hear the signals that come while a reactor stops.

    @param listener: is called in the reactor with the signal.
    @return: what ends that. It may be called more than once.
    """
    warning = "while the reactor stops: its queues end at once"
    signals = _ofReactors.setdefault(id(reactor), EndSignals(reactor, warning=warning))
    signals.hear(listener)

    def ignore() -> None:
        if signals.ignore(listener):
            _ofReactors.pop(id(reactor), None)

    return ignore
