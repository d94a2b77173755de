"""
The IDs of jobs and nodes: UUIDs of version 7 (RFC 9562), in the order of time.
"""

from __future__ import annotations

import random
import time

# What a fraction of a millisecond is counted in: twelve bits.
_PARTS = 4096

# The bits that say what kind of UUID it is.
_VARIANT = 0b10 << 62


class Ids:
    """
    Makes UUIDs. Each is greater than those that were made before it here, also where the clock
    is set back. A hot path.
    """

    __slots__ = ("_last",)

    def __init__(self) -> None:
        # In parts of a millisecond since the epoch.
        self._last = 0

    def make(self) -> str:
        """
        Return the next one, in its canonical form.
        """
        # The collector of garbage and threads make no difference: it is called in the reactor.
        last = self._last = max(self._last + 1, time.time_ns() * _PARTS // 1_000_000)
        text = f"{last // _PARTS:012x}7{last % _PARTS:03x}{_VARIANT | random.getrandbits(62):016x}"
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


newId = Ids().make


def createdOf(id: str) -> float:
    """
    Return when a UUID of version 7 was made, in seconds since the epoch by the clock of who made
    it; 0 for any other text.
    """
    try:
        return int(id[:8] + id[9:13], 16) / 1000 if id[14] == "7" else 0.0
    except (ValueError, IndexError):
        return 0.0
