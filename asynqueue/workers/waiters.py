"""
Those who wait for the end of something.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred


class Waiters:
    """
    Deferreds that fire together, each with C{None}.
    """

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: list[Deferred[None]] = []

    def wait(self) -> Deferred[None]:
        """
        Return a Deferred for one more that waits. It cannot be cancelled: it fires all the same.
        """
        d: Deferred[None] = Deferred(lambda _: None)
        self._waiting.append(d)
        return d

    @property
    def isEmpty(self) -> bool:
        """
        Whether nobody waits.
        """
        return not self._waiting

    def fire(self) -> None:
        """
        Fire all that wait: it has come to its end.
        """
        waiting, self._waiting = self._waiting, []
        for d in waiting:
            if not d.called:
                d.callback(None)
