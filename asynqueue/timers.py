"""
Calls that are due later.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Context
from typing import Any


class Timer:
    """
    At most one call that is due later.

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


class Due:
    """
    A call that a reactor is to make.
    """

    __slots__ = ("_delayed",)

    def __init__(self, delayed: Any) -> None:
        """
        @param delayed: an C{IDelayedCall}.
        """
        self._delayed = delayed

    def cancel(self) -> None:
        """
        Do not make the call, if it was not made. Somebody else may have cancelled it: after
        each of its tests trial cancels all that is due.
        """
        if self._delayed.active():
            self._delayed.cancel()


def later(reactor: Any, seconds: float, f: Callable[..., Any], *args: Any) -> Due:
    """
    Call C{f} after a time, in an empty context: on asyncio the reactor would keep the
    context variables of the code that asks for it, and run the call with those of any other.
    """
    return Due(Context().run(reactor.callLater, seconds, Context().run, f, *args))
