"""
What tasks call, in the words of a host.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any

from asynqueue.codec import isImportable
from asynqueue.errors import NoSuchCallable
from asynqueue.methods import isFoundIn
from asynqueue.outcome import shortRepr
from asynqueue.processes.callables import Callables
from asynqueue.wire.protocol.messages import CallFlag, packedCall

# Plain numbers: members of an enumeration are slow to combine.
_THREAD = int(CallFlag.THREAD)
_DEFINED = int(CallFlag.DEFINED)

# What stays what it is, and so has its name once and for all.
_CONSTANT = frozenset({str, FunctionType, BuiltinFunctionType, type})

# The main module of a host is another one, which it says itself.
_MAIN = frozenset({"__main__", "__mp_main__"})

# The most heads of calls that are kept.
_MOST_HEADS = 4096

# The word by which a host says that it takes callables from here.
CODE = "code"


class Naming:
    """
    Names what is called, for one connection to one host. A hot path.

    A string names itself, and a method of the universe has its own name. Other callables
    are defined, where the host takes code; else they have the names of their modules and
    their own, and the host looks whether they may be called.
    """

    def __init__(
        self,
        trust: str,
        names: Collection[str] | None,
        universe: object,
        define: Callable[[int, bytes], Any],
        forget: Callable[[int], Any],
    ) -> None:
        """
        @param trust: what the host takes: "universe", "modules" or "code".
        @param names: what it has by plain names; C{None} if that is not known.
        @param universe: whose methods are meant by their names; or C{None}.
        @param define: sends it a number, and the pickled callable it stands for.
        @param forget: sends it a number that stands for nothing any more.
        """
        self._trust = trust
        self._names = names
        self._universe = universe
        self._callables = Callables(define, forget)
        self._heads: dict[tuple[Any, int], bytes] = {}

    def options(self, f: Any, flags: int, kw: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """
        Return flags and keywords of a call whose keywords have C{thread}: with what is
        called by its name here, that is an option and no keyword.
        """
        if not isinstance(f, str) and not self._isOurs(f):
            return flags, kw
        flags = flags | _THREAD if kw["thread"] else flags & ~_THREAD
        return flags, {name: value for name, value in kw.items() if name != "thread"}

    def head(self, f: Any, flags: int, number: int, oldest: int) -> tuple[bytes, int]:
        """
        Return the beginning of a CALL, before its arguments. A hot path.

        @param number: the number of the call.
        @param oldest: that of the oldest call without outcome.
        @return: that, and the number of the definition that must go before it, or 0.
        @raise NoSuchCallable: the host has nothing of this name.
        @raise Exception: whatever the pickling of a callable raises.
        """
        if type(f) in _CONSTANT:
            known = self._heads.get((f, flags))
            if known is not None:
                return known, 0
        if isinstance(f, str):
            name = self._checked(f)
        elif self._isOurs(f):
            name = self._checked(f.__name__)
        elif self._trust == CODE:
            defined = self._callables.nameOf(f, number, oldest)
            return packedCall(flags | _DEFINED, str(defined), None), defined
        else:
            name = _globalName(f)
        head = packedCall(flags, name, None)
        if type(f) in _CONSTANT:
            if len(self._heads) >= _MOST_HEADS:
                self._heads.clear()
            self._heads[f, flags] = head
        return head, 0

    def _isOurs(self, f: Any) -> bool:
        if type(f) is not MethodType or self._universe is None:
            return False
        return f.__self__ is self._universe or f.__self__ is type(self._universe)

    def _checked(self, name: str) -> str:
        if ":" in name or self._names is None or name in self._names:
            return name
        known = ", ".join(sorted(self._names)[:20]) or "nothing"
        raise NoSuchCallable(name, f"there is {known}")


def _globalName(f: Any) -> str:
    """
    Say where another process finds a callable.

    @raise NoSuchCallable: nowhere, or there is something else by that name.
    """
    if type(f) is MethodType:
        return _nameOfMethod(f)
    module = getattr(f, "__module__", None)
    name = getattr(f, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str) or "<" in name:
        reason = "it has no name, and the host does not take code (trust='code')"
        raise NoSuchCallable(shortRepr(f), reason)
    if type(f) is FunctionType and module not in _MAIN and not isImportable(f):
        reason = f"in {module} that name stands for something else, or for nothing"
        raise NoSuchCallable(f"{module}:{name}", reason)
    return f"{module}:{name}"


def _nameOfMethod(f: MethodType) -> str:
    owner: Any = f.__self__
    if isinstance(owner, type) and isFoundIn(f):
        return f"{owner.__module__}:{owner.__qualname__}.{f.__name__}"
    if getattr(sys.modules.get(f.__module__), f.__name__, None) == f:
        # As those of the module random.
        return f"{f.__module__}:{f.__name__}"
    reason = "it belongs to an object of this program, and the host does not take code"
    raise NoSuchCallable(shortRepr(f), f"{reason} (trust='code')")
