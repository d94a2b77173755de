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

# How often a worker is looked at again that may move without being heard of.
_MOST_LOOKS = 100


class StaleCheck:
    """
    Looks at a worker while tasks are lined up, and tells it when nothing has moved between
    two looks.

    @ivar isRunning: whether there is to be another look.
    """

    def __init__(
        self,
        callLater: Callable[[float, Callable[[], None]], Any],
        isLinedUp: Callable[[], bool],
        progress: Callable[[], Any],
        stale: Callable[[], None],
        mayMove: Callable[[], bool] = lambda: False,
    ) -> None:
        """
        @param callLater: makes a call after some seconds; what it returns can be cancelled.
        @param isLinedUp: tells whether tasks are lined up behind those that run.
        @param progress: tells how far the tasks have come: it changes when one moves.
        @param stale: is called when nothing has moved.
        @param mayMove: tells whether there is a reason to wait for some time, though nothing
            has moved.
        """
        self.isRunning = False
        self._isLinedUp = isLinedUp
        self._progress = progress
        self._stale = stale
        self._mayMove = mayMove
        self._timer = Timer(callLater)
        self._before: Any = None
        self._looks = 0

    def start(self) -> None:
        """
        Look from now on, for as long as tasks are lined up.
        """
        self._before = self._progress()
        self.isRunning = True
        self._timer.start(STALE_SECONDS, self._look)

    def stop(self) -> None:
        """
        Look no more.
        """
        self.isRunning = False
        self._timer.stop()

    def _look(self) -> None:
        self.isRunning = False
        if self._progress() != self._before:
            self._looks = 0
        elif self._looks < _MOST_LOOKS and self._mayMove():
            self._looks += 1
        else:
            self._looks = 0
            self._stale()
            return
        if self._isLinedUp():
            self.start()
