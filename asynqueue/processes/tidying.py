"""
The memory for large messages that both ends of a child's channel keep, and when it is let go.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from asynqueue.processes.outlet import Outlet
from asynqueue.processes.protocol import Kind
from asynqueue.segments import Segments
from asynqueue.timers import Timer

# The seconds without a large message for which it is kept.
_KEPT_SECONDS = 1.0


class Tidying:
    """
    Lets the memory for large messages go when there was none for a while.
    """

    def __init__(
        self,
        segments: Segments,
        outlet: Outlet,
        callLater: Callable[[float, Callable[[], None]], Any],
    ) -> None:
        """
        @param segments: those of this end.
        @param outlet: tells the child to let its own go.
        """
        self._segments = segments
        self._outlet = outlet
        self._timer = Timer(callLater)
        self._isOver = False

    def look(self) -> None:
        """
        Begin to wait, if segments were used. A hot path.
        """
        if self._segments.wereUsed and not self._timer.isRunning and not self._isOver:
            self._timer.start(_KEPT_SECONDS, self._tidy)

    def stop(self) -> None:
        """
        Let go nothing more: the child is gone.
        """
        self._isOver = True
        self._timer.stop()

    def _tidy(self) -> None:
        if self._segments.wereUsed:
            self._segments.wereUsed = False
            self._timer.start(_KEPT_SECONDS, self._tidy)
        else:
            self._segments.clear()
            self._outlet.send(Kind.TIDY, 0, b"")
