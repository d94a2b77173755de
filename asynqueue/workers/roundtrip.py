"""
How many calls may be with a host at once.
"""

from __future__ import annotations

from math import inf

# The seconds of work that a host shall have before it, besides what it runs (G6) and what
# it does while new calls are on the way.
AHEAD_SECONDS = 0.003

# The largest part of itself by which one measurement makes the window smaller.
_SHRINKING = 8

# The most calls that may be with one host.
MOST = 5000


class RoundTripWindow:
    """
    A window for calls to a host: as many as that runs at once, and as many more as
    it ends within two round trips and a few milliseconds. By Little's law they are what
    is on the way, and a line at the host, which lasts as long as new calls need to come.

    The rate counts while the window is full; else it tells about the caller, not about
    the host. While the calls do not even fill the half of the line that is meant to be
    there, the window doubles: that is the idea of TCP Vegas (Brakmo and Peterson, 1995).
    The line is as long as that because calls and outcomes travel in bursts: a shorter
    one would be taken for a host at work while that idles between them.

    A hot path once for each batch of outcomes. It knows no clock: times are given.

    @ivar size: how many calls may be with the host now.
    @ivar slots: how many the host runs at once, as it says.
    @ivar rate: the calls that it ended per second, as last measured.
    @ivar rtt: the least round trip in seconds; infinite if none was measured.
    @ivar isClosed: whether nothing may be sent ahead, until a call has ended.
    """

    __slots__ = (
        "_batches",
        "_count",
        "_full",
        "_last",
        "_limit",
        "_most",
        "_since",
        "_start",
        "isClosed",
        "rate",
        "rtt",
        "size",
        "slots",
    )

    def __init__(self, slots: int, most: int = MOST) -> None:
        """
        @param slots: how many calls the host runs at once.
        @param most: the most that may be with it.
        """
        self._most = most
        self._limit: int | None = None
        self._start: float | None = None
        self._since = self._last = 0.0
        self._count = 0
        self._batches = 0
        self._full = 0
        self.slots = slots
        self.rate = 0.0
        self.rtt = inf
        self.isClosed = False
        self.size = min(slots, most)

    def start(self, now: float) -> None:
        """
        Note that a call is made while there is none. If there was none for a while, what is
        measured begins anew.
        """
        self._start = now
        if not 0 <= now - self._last <= AHEAD_SECONDS:
            self._since = now
            self._count = self._batches = self._full = 0

    def heard(self, now: float, rtt: float | None) -> None:
        """
        Outcomes have come, and are going to be told: that may have other calls made.

        @param now: the time in seconds, by any clock.
        @param rtt: the least round trip that was measured otherwise, if there was one.
        """
        if self._start is not None:
            # The first call since a while took a round trip, and what it ran.
            if now > self._start:
                self.rtt = min(self.rtt, now - self._start)
            self._start = None
        if rtt is not None and rtt < self.rtt:
            self.rtt = rtt

    def ended(self, count: int, now: float, full: bool) -> None:
        """
        Calls have ended.

        @param count: how many.
        @param now: when they were heard of.
        @param full: whether the window was full then.
        """
        if self.isClosed or self._limit is not None:
            self._open(count)
        self._last = now
        self._count += count
        self._batches += 1
        self._full += full
        elapsed = now - self._since
        if elapsed < 0 or elapsed >= self.rtt + AHEAD_SECONDS:
            if elapsed > 0:
                self._measured(self._count / elapsed, full and 2 * self._full > self._batches)
            self._since = now
            self._count = self._batches = self._full = 0

    def resize(self, slots: int) -> None:
        """
        Note that the host runs more calls at once, or fewer.
        """
        self.size = self._bounded(max(0, self.size - self.slots) + slots if slots else 0)
        self.slots = slots
        self._limit = None

    def close(self) -> None:
        """
        Send nothing ahead until something has ended: nothing moves.
        """
        self.isClosed = True
        self.size = self._bounded(self.slots)

    def keep(self, held: int) -> None:
        """
        Note how many calls the host kept as it gave back what it had not begun: it does not run
        more at once, whatever it says. If it kept none, it is sent none until L{retry}.
        """
        if held < self.slots:
            self._limit = max(1, held)
            self.size = self._bounded(self.size) if held else 0

    def retry(self) -> None:
        """
        Send one call to a host that kept none.
        """
        if not self.size and self.slots:
            self.size = 1

    def _open(self, count: int) -> None:
        """
        Calls have ended where nothing moved, or where not all slots are in use: a host
        that was seen to run this many at once may have learnt to run more.
        """
        self.isClosed = False
        if self._limit is not None:
            self._limit += count
            if self._limit >= self.slots:
                self._limit = None
        self.size = self._bounded(self.slots)

    def _measured(self, rate: float, full: bool) -> None:
        """
        @param full: whether there was always another call to be made; else the host may
            be faster than that.
        """
        if not full:
            self.rate = max(rate, self.rate)
            return
        self.rate = rate
        line = self.slots + rate * (self.rtt + AHEAD_SECONDS)
        under = rate * self.rtt
        if self.size - under <= line / 2:
            self.size = self._bounded(2 * self.size)
        else:
            # Not much less at once: what was slow for a moment may have been this machine.
            least = self.size - self.size // _SHRINKING
            self.size = self._bounded(max(least, int(line + under + 0.5)))

    def _bounded(self, size: int) -> int:
        limit = self._most if self._limit is None else min(self._limit, self._most)
        return min(size, limit)
