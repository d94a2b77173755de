"""
What ends by the wrong exception, or by one that ends programs: processes import it, so it
imports little itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def leaving(error: BaseException) -> Iterator[int]:
    """
    Iterate, and raise what ends programs.
    """
    yield from range(3)
    raise error


class Odd:
    """
    An iterator that ends by the wrong exception.
    """

    def __init__(self, error: type[Exception]) -> None:
        self.error = error
        self.left = 2

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> int:
        self.left -= 1
        if self.left < 0:
            raise self.error
        return self.left


class OddAsynchronous(Odd):
    """
    The same, asynchronously.
    """

    __iter__ = None  # type: ignore[assignment]
    __next__ = None  # type: ignore[assignment]

    def __aiter__(self) -> Any:
        return self

    async def __anext__(self) -> int:
        return Odd.__next__(self)


def raises(error: type[BaseException]) -> Any:
    """
    Raise it.
    """
    raise error("of a call")
