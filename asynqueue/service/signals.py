"""
Signals to a process that is nothing but a service.

The first SIGTERM or Ctrl-C is the reactor's: it stops, and the service with it. A second
one means that nobody wants to wait; not even for a reactor that hangs.
"""

from __future__ import annotations

import faulthandler
import signal
from collections.abc import Callable
from typing import Any

from asynqueue.reactors import theReactor

_SIGNALS = (signal.SIGINT, signal.SIGTERM)

_STDERR = 2

# Whatever hangs then has so many seconds.
_LAST_SECONDS = 2.0


class Interrupts:
    """
    Hears the signals that end a process. To be used in its main thread.
    """

    def __init__(self, reactor: Any = None) -> None:
        self._reactor = reactor
        self._before: dict[int, Callable[[int, Any], Any]] = {}
        self._interrupted: Callable[[], None] | None = None
        self._isEnding = False

    def hear(self, interrupted: Callable[[], None]) -> None:
        """
        Begin, when the reactor runs: it has put its own handlers by then. What this
        process ignores, it goes on to ignore.

        @param interrupted: is called in the reactor when there is a second signal. If the
            process has not ended two seconds later, it does then, and says what it was
            doing; a further signal ends it like any other process.
        """
        self._isEnding = False
        self._interrupted = interrupted
        for number in _SIGNALS:
            handler = signal.getsignal(number)
            if callable(handler):
                self._before[number] = handler
                signal.signal(number, self._caught)

    def ending(self) -> None:
        """
        The service ends, for whatever reason: the next signal is as good as a second.
        """
        self._isEnding = True

    def close(self) -> None:
        """
        Signals do again what they did before.
        """
        faulthandler.cancel_dump_traceback_later()
        before, self._before = self._before, {}
        for number, handler in before.items():
            signal.signal(number, handler)

    def _caught(self, number: int, frame: Any) -> None:
        if not self._isEnding:
            self._isEnding = True
            self._before[number](number, frame)
            return
        # The reactor may be what hangs: this does not depend on it.
        for signum in self._before:
            signal.signal(signum, signal.SIG_DFL)
        # By its number: what the logs put in the place of standard error is no file.
        faulthandler.dump_traceback_later(_LAST_SECONDS, exit=True, file=_STDERR)
        if self._interrupted is not None:
            theReactor(self._reactor).callFromThread(self._interrupted)
