"""
How many calls may be with a host at once.
"""

from __future__ import annotations

# A host shall have so many seconds of work before it, besides what it runs (G6).
AHEAD_SECONDS = 0.003

# So many calls may be with one host at the most.
MOST = 5000


class RoundTripWindow:
    """
    A window for calls to a host: as many as that runs at once, and as many more as
    it ends within a round trip and a few milliseconds. By Little's law they are what
    is on the way, and a short line at the host.

    The rate is measured while the window is full; else it tells about the caller, not
    about the host. While the calls do not even fill the half of the line that is meant
    to be there, the window doubles: over a long way, a line that is one millisecond
    longer says little. This is the idea of TCP Vegas (Brakmo and Peterson, 1995).

    A hot path once for each batch of outcomes. It knows no clock: times are given.

    @ivar size: how many calls may be with the host now.
    @ivar slots: how many the host runs at once, as it says.
    @ivar rate: the calls that it ended per second, as last measured.
    @ivar isClosed: whether nothing may be sent ahead, until a call has ended.
    """

    __slots__ = ("_count", "_limit", "_most", "_since", "isClosed", "rate", "size", "slots")

    def __init__(self, slots: int, most: int = MOST) -> None:
        """
        @param slots: how many calls the host runs at once.
        @param most: how many may be with it at the most.
        """
        self._most = most
        self._limit: int | None = None
        self._since = 0.0
        self._count = 0
        self.slots = slots
        self.rate = 0.0
        self.isClosed = False
        self.size = min(slots, most)

    def start(self, now: float) -> None:
        """
        Calls are made again, after a time without any.
        """
        self._since = now
        self._count = 0

    def ended(self, count: int, now: float, full: bool, rtt: float) -> None:
        """
        Calls have ended.

        @param count: how many.
        @param now: the time in seconds, by any clock.
        @param full: whether the window was full when they had come.
        @param rtt: the least round trip to the host, in seconds.
        """
        if self._limit is not None:
            # What the host was seen to run at once, it may have learnt to exceed.
            self._limit += count
            if self._limit >= self.slots:
                self._limit = None
        reopened, self.isClosed = self.isClosed, False
        if not full:
            self.start(now)
        else:
            self._count += count
            elapsed = now - self._since
            if elapsed >= rtt + AHEAD_SECONDS:
                self._measured(self._count / elapsed, rtt)
                self.start(now)
                return
            if elapsed < 0:
                # A clock that was set back.
                self.start(now)
        if reopened or self._limit is not None:
            self.size = self._bounded(self.slots)

    def resize(self, slots: int) -> None:
        """
        The host runs more calls at once, or fewer.
        """
        self.size = self._bounded(max(0, self.size - self.slots) + slots if slots else 0)
        self.slots = slots
        self._limit = None

    def close(self) -> None:
        """
        Nothing moves: send nothing ahead until something has ended.
        """
        self.isClosed = True
        self.size = self._bounded(self.slots)

    def keep(self, held: int) -> None:
        """
        The host gave back what it had not begun, and kept so many: more than that it
        does not run at once, whatever it says.
        """
        if held < self.slots:
            self._limit = max(1, held)
            self.size = self._bounded(self.size)

    def _measured(self, rate: float, rtt: float) -> None:
        self.rate = rate
        line = self.slots + rate * AHEAD_SECONDS
        if self.size - rate * rtt <= line / 2:
            self.size = self._bounded(2 * self.size)
        else:
            self.size = self._bounded(int(line + rate * rtt + 0.5))

    def _bounded(self, size: int) -> int:
        limit = self._most if self._limit is None else min(self._limit, self._most)
        return min(size, limit)
