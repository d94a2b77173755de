"""
Signals that come while a service ends.

The first SIGTERM or Ctrl-C is the reactor's: it stops, and the service with it. A second
one means that nobody wants to wait.
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
    Hears signals on behalf of a service that ends. It is for a process that is nothing
    but that service, and is used in its main thread.
    """

    def __init__(self, reactor: Any = None) -> None:
        self._reactor = reactor
        self._before: dict[int, Any] = {}
        self._interrupted: Callable[[], None] | None = None

    def hear(self, interrupted: Callable[[], None]) -> None:
        """
        From now on, call this in the reactor when a signal comes. If the process has not
        ended two seconds later, it does then, and says what it was doing; a further
        signal ends it like any other process.
        """
        if self._interrupted is None:
            self._before = {number: signal.signal(number, self._caught) for number in _SIGNALS}
        self._interrupted = interrupted

    def close(self) -> None:
        """
        Signals do again what they did before.
        """
        if self._interrupted is not None:
            self._interrupted = None
            faulthandler.cancel_dump_traceback_later()
            for number, handler in self._before.items():
                signal.signal(number, handler)

    def _caught(self, number: int, frame: Any) -> None:
        # The reactor may be what hangs: this does not depend on it.
        for signum in _SIGNALS:
            signal.signal(signum, signal.SIG_DFL)
        # By its number: what the logs put in the place of standard error is no file.
        faulthandler.dump_traceback_later(_LAST_SECONDS, exit=True, file=_STDERR)
        if self._interrupted is not None:
            theReactor(self._reactor).callFromThread(self._interrupted)
