"""
What the hosts of the benchmarks of the wire can be asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from asynqueue.wire import WireWorkerUniverse


class Universe(WireWorkerUniverse):
    """
    Next to nothing.
    """

    def noop(self) -> None:
        """
        Nothing.
        """

    def identity(self, thing: Any) -> Any:
        """
        There and back.
        """
        return thing

    def countUp(self, count: int) -> Iterator[int]:
        """
        A generator of integers.
        """
        return iter(range(count))
