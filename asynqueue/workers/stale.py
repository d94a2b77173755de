"""
Whether what is lined up in a worker moves (G6).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from asynqueue.timers import Timer
from asynqueue.workers.window import AHEAD_SECONDS

# What is lined up and does not move for this long is handed back.
STALE_SECONDS = 2 * AHEAD_SECONDS

# So often is it handed back, after twice the time each.
_MOST_TIMES = 8


class StaleCheck:
    """
    Looks at a worker while tasks are lined up, and tells it when nothing has moved between
    two looks.

    @ivar isRunning: whether there is to be another look.
    """

    __slots__ = (
        "_before",
        "_isLinedUp",
        "_looks",
        "_patience",
        "_progress",
        "_seconds",
        "_stale",
        "_timer",
        "_times",
        "isRunning",
    )

    def __init__(
        self,
        callLater: Callable[[float, Callable[[], None]], Any],
        isLinedUp: Callable[[], bool],
        progress: Callable[[], Any],
        stale: Callable[[], None],
        patience: Callable[[int], float] = lambda looks: 0.0,
        seconds: Callable[[], float] = lambda: STALE_SECONDS,
    ) -> None:
        """
        @param callLater: makes a call after some seconds; what it returns can be cancelled.
        @param isLinedUp: tells whether tasks are lined up behind those that run.
        @param progress: tells how far the tasks have come: it changes when one moves.
        @param stale: is called when nothing has moved. If tasks are lined up all the same, it
            is called again some times, after longer and longer.
        @param patience: tells how many seconds to wait before nothing is thought to have moved,
            since it may have without being heard of; 0: none. It is given how often it was
            asked since something moved.
        @param seconds: tells how long nothing may move.
        """
        self.isRunning = False
        self._isLinedUp = isLinedUp
        self._progress = progress
        self._stale = stale
        self._patience = patience
        self._seconds = seconds
        self._timer = Timer(callLater)
        self._before: Any = None
        self._looks = 0
        self._times = 0

    def start(self) -> None:
        """
        Look from now on, for as long as tasks are lined up.
        """
        self._before = self._progress()
        self._looks = self._times = 0
        self._lookAfter(self._seconds())

    def stop(self) -> None:
        """
        Look no more.
        """
        self.isRunning = False
        self._timer.stop()

    def _lookAfter(self, seconds: float) -> None:
        self.isRunning = True
        self._timer.start(seconds, self._look)

    def _look(self) -> None:
        self.isRunning = False
        if not self._isLinedUp():
            return
        if self._progress() != self._before:
            self.start()
            return
        patience = self._patience(self._looks)
        if patience:
            self._looks += 1
            self._lookAfter(patience)
            return
        self._looks = 0
        self._times += 1
        self._stale()
        if self._times < _MOST_TIMES and self._isLinedUp() and not self.isRunning:
            self._lookAfter(self._seconds() * 2**self._times)
