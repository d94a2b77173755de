"""
The callables that a child knows, by the numbers that stand for them.

A function is sent to a child once, and again when what it consists of or needs of the main
program has changed. So is what is called otherwise: a bound method's object, a partial's
arguments, an instance.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from types import BuiltinFunctionType, FunctionType
from typing import Any

from asynqueue.codec import dumps, isImportable
from asynqueue.constancy import ClosedCallable, isUnbound
from asynqueue.program import ELSEWHERE, Closure, Told, closureOf

# The callables that a child knows, and the bytes of these together, before those that were
# not used for the longest time are forgotten.
_MOST = 1000
_MOST_BYTES = 64 << 20

# What is the same as long as it is the same object. So are functions written in C.
_CONSTANT = frozenset({FunctionType, type})

# What may be looked up among the callables that are known: nobody's code is asked for that.
HASHABLE = _CONSTANT | {BuiltinFunctionType}


class Known:
    """
    A callable that a child knows.

    @ivar name: the number that stands for it.
    @ivar closure: what it needs of the main program, as it was told; C{None}: it can be
        imported.
    @ivar lastUse: the number of the latest call of it.
    """

    __slots__ = ("closure", "key", "lastUse", "name", "size")

    def __init__(self, key: Any, name: int, size: int, closure: Closure | None) -> None:
        self.key = key
        self.closure = closure
        self.name = name
        self.size = size
        self.lastUse = 0


class Callables:
    """
    Gives numbers to callables, and has a child told what they stand for.

    @ivar known: what the child knows. What is the same as long as it is the same object, is
        there by itself.
    """

    def __init__(
        self,
        define: Callable[[int, bytes], Any],
        forget: Callable[[int], Any],
        told: Told | None = None,
        *,
        mostBytes: int = _MOST_BYTES,
    ) -> None:
        """
        @param define: sends a child a number, and the pickled callable it stands
            for.
        @param forget: sends it a number that stands for nothing any more.
        @param told: tells it what a callable needs of the main program; C{None}: each has
            that with it.
        @param mostBytes: how many bytes all that the child knows may have, before those that
            were not used for the longest time are forgotten.
        """
        self._told = told
        self._mostBytes = mostBytes
        self._define = define
        self._forget = forget
        self.known: dict[Any, Known] = {}
        self._bytes = 0
        self._last = 0

    def nameOf(self, f: Callable[..., Any], call: int, oldest: int) -> int:
        """
        Return the number for a callable.

        @param call: the number of the call that it is for.
        @param oldest: see L{find}.
        @raise Exception: whatever its pickling raises.
        """
        known = self.find(f, oldest)
        known.lastUse = call
        return known.name

    def find(self, f: Callable[..., Any], oldest: int) -> Known:
        """
        Return what a child knows a callable as. It is to be given its last use then.

        @param oldest: the number of the oldest call that may still be made: what
            is used by that or a later one is not forgotten.
        @raise Exception: whatever its pickling raises.
        """
        if type(f) in _CONSTANT or isUnbound(f):
            known = self.known.get(f)
            if known is None or (known.closure is not None and not known.closure.holds()):
                known = self._renewed(f, known, oldest)
        elif type(f) is ClosedCallable:
            known = self.known.get(f) or self._introduce(f, f.packed, oldest)
        else:
            if self._told is None:
                pickled, stamp = dumps(f, ELSEWHERE), 0
            else:
                pickled, stamp = self._told.dumps(f)
            key = blake2b(pickled, digest_size=16).digest(), stamp
            known = self.known.get(key)
            if known is None:
                known = self._introduce(key, pickled, oldest)
        return known

    def _renewed(self, f: Any, known: Known | None, oldest: int) -> Known:
        """
        Make known a function or class that is new, or needs something that has changed.
        """
        if type(f) not in _CONSTANT or isImportable(f):
            return self._introduce(f, dumps(f), oldest)
        closure = closureOf(f, None if known is None else known.closure)
        told = self._told
        if told is not None:
            told.settle(closure)
        if known is not None and known.closure is not None:
            before = known.closure
            known.closure = closure
            if closure.stamp == before.stamp:
                # Something else has changed.
                return known
            if told is not None and closure.versionOf(f) == before.versionOf(f):
                # It finds there what has changed.
                return known
        return self._introduce(
            f, dumps(f, ELSEWHERE) if told is None else told.pickled(f), oldest, closure
        )

    def _introduce(
        self, key: Any, pickled: bytes, oldest: int, closure: Closure | None = None
    ) -> Known:
        if len(self.known) >= _MOST or self._bytes >= self._mostBytes:
            self._forgetSome(oldest)
        former = self.known.pop(key, None)
        self._last += 1
        self._define(self._last, pickled)
        known = self.known[key] = Known(key, self._last, len(pickled), closure)
        self._bytes += known.size
        if former is not None:
            # Calls that are under way may still name it.
            former.key = self._last, former.name
            self.known[former.key] = former
        return known

    def _forgetSome(self, oldest: int) -> None:
        """
        Forget the half of what is not in use, which was not used for longer.
        """
        unused = [known for known in self.known.values() if known.lastUse < oldest]
        unused.sort(key=lambda known: known.lastUse)
        for known in unused[: len(unused) // 2 + 1]:
            del self.known[known.key]
            self._bytes -= known.size
            self._forget(known.name)
