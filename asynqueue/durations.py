"""
How long calls run.
"""

from __future__ import annotations

# A new measurement counts for so much of the mean.
_WEIGHT = 0.25


class Durations:
    """
    The durations of calls, as far as they were measured. A hot path, once for each batch of
    outcomes.

    @ivar mean: the mean seconds of the latest calls; 0 while none has ended.
    @ivar seconds: how long all of them ran, all together.
    """

    __slots__ = ("mean", "seconds")

    def __init__(self) -> None:
        self.mean = self.seconds = 0.0

    def add(self, calls: int, seconds: float) -> None:
        """
        Take note that some calls ran for some seconds, all together.
        """
        self.seconds += seconds
        mean = seconds / calls
        self.mean = mean if not self.mean else self.mean + _WEIGHT * (mean - self.mean)

    def within(self, seconds: float) -> float:
        """
        Return how many calls run one after the other in some seconds; infinity if they take
        no time, as far as is known.
        """
        return seconds / self.mean if self.mean else float("inf")
