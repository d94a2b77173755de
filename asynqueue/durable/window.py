"""
How many jobs a program may have begun and not ended. No I/O, no clock: times are given.
"""

from __future__ import annotations

# The largest part of the time of workers that may be lost while they wait for claims.
_LOSS = 8

# The largest part of itself by which one claim makes the line before the workers shorter.
_SHRINKING = 8

# The most jobs in that line.
_MOST = 1000


class ClaimWindow:
    """
    A window for claims: what workers run at once, and a line before them of what they end in about
    two round trips to the store. By Little's law that keeps them busy; for jobs that take much
    longer than a round trip the line is empty.

    What is in the line has begun as far as the store knows, and is lost with the program: so it is
    never longer than it must be. It is made longer only where workers are seen to lose more
    than an eighth of their time.

    @ivar slots: how many jobs the workers run at once.
    @ivar ahead: how many more are in the line.
    """

    __slots__ = ("_asked", "_cycle", "_ended", "_held", "ahead", "slots")

    def __init__(self, slots: int = 0) -> None:
        self.slots = slots
        self.ahead = 0
        self._asked: float | None = None
        self._cycle = 0.0
        self._held = 0
        self._ended = 0

    @property
    def size(self) -> int:
        """
        How many jobs there may be.
        """
        return self.slots + self.ahead if self.slots else 0

    def asked(self, now: float, held: int) -> None:
        """
        Note that a claim is made.

        @param held: how many jobs there are.
        """
        self._cycle = 0.0 if self._asked is None else now - self._asked
        self._asked = now
        self._held = held
        self._ended = 0

    def ended(self, count: int = 1) -> None:
        """
        Note that jobs have ended. A hot path.
        """
        self._ended += count

    def answered(self, now: float, isAll: bool) -> None:
        """
        Note that the claim was answered.

        @param isAll: whether it has found what it wanted: there may be more.
        """
        assert self._asked is not None
        if not isAll:
            return
        trip = now - self._asked
        # Those that were idle as the claim was made, and those that came to be so meanwhile.
        before = max(0, self.slots - self._held)
        after = max(0, self.slots - self._held + self._ended)
        idle = trip * (before + min(after, self.slots)) / 2
        if idle * _LOSS > self.slots * max(self._cycle, trip) and self._cycle:
            self.ahead = min(_MOST, max(2 * self.ahead, 2 * self._ended, self.slots))
        else:
            least = self.ahead - (self.ahead + _SHRINKING - 1) // _SHRINKING
            self.ahead = min(_MOST, max(least, 2 * self._ended))
