"""
The callables that a child knows, by the numbers that stand for them.

A function is sent to a child once. Where that would change what it means, what is
called is sent each time it has changed: a bound method's object, a partial's
arguments, an instance.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from types import FunctionType
from typing import Any

from asynqueue.codec import dumps
from asynqueue.constancy import isUnbound

# A child knows so many callables, of so many bytes together, before those that were
# not used for the longest time are forgotten.
_MOST = 1000
_MOST_BYTES = 64 << 20

# What is the same as long as it is the same object. So are functions written in C.
_CONSTANT = frozenset({FunctionType, type})


class _Known:
    """
    A callable that a child knows.
    """

    __slots__ = ("key", "lastUse", "name", "size")

    def __init__(self, key: Any, name: int, size: int) -> None:
        self.key = key
        self.name = name
        self.size = size
        self.lastUse = 0


class Callables:
    """
    Gives numbers to callables, and has a child told what they stand for.
    """

    def __init__(self, define: Callable[[int, bytes], Any], forget: Callable[[int], Any]) -> None:
        """
        @param define: sends a child a number, and the pickled callable it stands
            for.
        @param forget: sends it a number that stands for nothing any more.
        """
        self._define = define
        self._forget = forget
        self._known: dict[Any, _Known] = {}
        self._bytes = 0
        self._last = 0

    def nameOf(self, f: Callable[..., Any], call: int, oldest: int) -> int:
        """
        The number for a callable. A hot path.

        @param call: the number of the call that it is for.
        @param oldest: the number of the oldest call that may still be made: what
            is used by that or a later one is not forgotten.
        @raise Exception: whatever its pickling raises.
        """
        key: Any = f
        pickled = None
        if type(f) not in _CONSTANT and not isUnbound(f):
            pickled = dumps(f)
            key = blake2b(pickled, digest_size=16).digest()
        known = self._known.get(key)
        if known is None:
            known = self._introduce(key, dumps(f) if pickled is None else pickled, oldest)
        known.lastUse = call
        return known.name

    def _introduce(self, key: Any, pickled: bytes, oldest: int) -> _Known:
        if len(self._known) >= _MOST or self._bytes >= _MOST_BYTES:
            self._forgetSome(oldest)
        self._last += 1
        self._define(self._last, pickled)
        known = self._known[key] = _Known(key, self._last, len(pickled))
        self._bytes += known.size
        return known

    def _forgetSome(self, oldest: int) -> None:
        """
        Forget the half of what is not in use, which was not used for longer.
        """
        unused = [known for known in self._known.values() if known.lastUse < oldest]
        unused.sort(key=lambda known: known.lastUse)
        for known in unused[: len(unused) // 2 + 1]:
            del self._known[known.key]
            self._bytes -= known.size
            self._forget(known.name)
