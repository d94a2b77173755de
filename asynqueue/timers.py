"""
Calls that are due later.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Context
from typing import Any


class Timer:
    """
    One call at the most that is due later.

    Stop it in any state, also within the call that it makes: that call is not due any
    more when it begins. Reactors and event loops raise an error where a call that they have
    made is cancelled, and a call often ends what would cancel it.
    """

    __slots__ = ("_callLater", "_due")

    def __init__(self, callLater: Callable[[float, Callable[[], None]], Any]) -> None:
        """
        @param callLater: makes a call after some seconds, as that of a reactor; what it
            returns can be cancelled before that.
        """
        self._callLater = callLater
        self._due: Any = None

    @property
    def isRunning(self) -> bool:
        """
        Whether a call is due.
        """
        return self._due is not None

    def start(self, seconds: float, f: Callable[[], Any]) -> None:
        """
        Call C{f} after some seconds, instead of what is due now.
        """
        self.stop()
        self._due = self._callLater(seconds, lambda: self._ring(f))

    def stop(self) -> None:
        """
        Make no call.
        """
        due, self._due = self._due, None
        if due is not None:
            due.cancel()

    def _ring(self, f: Callable[[], Any]) -> None:
        self._due = None
        f()


def later(reactor: Any, seconds: float, f: Callable[..., Any], *args: Any) -> Any:
    """
    Call C{f} after a time, in an empty context: on asyncio the reactor would keep the
    context variables of the code that asks for it, and run the call with those of any other.

    @return: an C{IDelayedCall}.
    """
    return Context().run(reactor.callLater, seconds, Context().run, f, *args)
