"""
Whether a call can change what is called.

Each call is made of what the caller has. What comes in a pickle, and may be changed by
being called (the object of a method, an instance, the list in a partial, what a closure
counts), is therefore made of its pickle again for each call. What stays as it is, is made
once. This module imports no Twisted.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType, NoneType
from typing import Any

from asynqueue.codec import decode, isFromParent, isImportable

_PLAIN = frozenset({bool, bytes, complex, float, int, str, range, NoneType, ModuleType})

# A function that is written in C is bound to its module, or to nothing; others are methods
# of something.
_UNBOUND = frozenset({ModuleType, NoneType})

# By these a function sets a variable of the function around it, or deletes it.
_REBINDING = frozenset({"STORE_DEREF", "DELETE_DEREF"})


# What a decorator adds to a function is not for counting.
_WRAPPED = {"__wrapped__"}


class Constant:
    """
    The base of our own classes whose instances are called, and are not changed by that.
    """


class ClosedCallable:
    """
    A callable as it came, pickled: called, it is unpickled there and then. A worker with a
    process passes the bytes on instead.

    @ivar packed: the bytes.
    """

    __slots__ = ("_decode", "_made", "packed")

    def __init__(self, packed: bytes, decode: Callable[[bytes], Any] = decode) -> None:
        """
        @param decode: makes a callable of the bytes.
        """
        self.packed = packed
        self._decode = decode
        self._made: Callable[..., Any] | None = None

    def opened(self) -> Callable[..., Any]:
        """
        Make the callable: once, or for each call that might change it.

        @raise TypeError: it is none.
        @raise BaseException: whatever its unpickling raises.
        """
        if self._made is not None:
            return self._made
        made = self._decode(self.packed)
        if not callable(made):
            raise TypeError(f"{made!r} cannot be called, and came in the place of a function")
        if isConstant(made):
            self._made = made
        return made  # type: ignore[no-any-return]  # it was looked at just now

    def __call__(self, *args: Any, **kw: Any) -> Any:
        return self.opened()(*args, **kw)

    def __reduce__(self) -> Any:
        return ClosedCallable, (self.packed,)

    def __repr__(self) -> str:
        return "<a callable that came pickled>"


def isUnbound(f: object) -> bool:
    """
    Tell whether this is a function that is written in C, and no method.
    """
    return type(f) is BuiltinFunctionType and type(f.__self__) in _UNBOUND


def isConstant(f: Callable[..., Any]) -> bool:
    """
    Tell whether a callable that was unpickled stays what it is, whatever calls of it do.

    What is found by its name is: each process has one of it. So are classes; and other
    functions, if they set no variable of those around them, nor an attribute, and have in
    these and in their defaults only what cannot change either.
    """
    seen = set()
    left: list[Any] = [f]
    while left:
        each = left.pop()
        kind = type(each)
        if kind in _PLAIN or issubclass(kind, (type, Constant)) or isUnbound(each):
            continue
        if kind is tuple or kind is frozenset:
            left += each
        elif kind is not FunctionType:
            return False
        elif id(each) not in seen and not isImportable(each) and not isFromParent(each):
            seen.add(id(each))
            if vars(each).keys() - _WRAPPED or _rebinds(each.__code__):
                return False
            left += vars(each).values()
            left += each.__defaults__ or ()
            left += (each.__kwdefaults__ or {}).values()
            try:
                left += [cell.cell_contents for cell in each.__closure__ or ()]
            except ValueError:
                # One is empty still.
                return False
    return True


def _rebinds(code: CodeType) -> bool:
    """
    Tell whether a function, or one within it, sets a variable of a function around it.
    """
    inner = [constant for constant in code.co_consts if type(constant) is CodeType]
    if code.co_freevars:
        # A child needs it only for closures.
        for instruction in import_module("dis").get_instructions(code):
            name = instruction.opname
            if name in _REBINDING and instruction.argval in code.co_freevars:
                return True
            if name == "STORE_ATTR":
                # It may be one of a function around it, or of itself.
                return True
    return any(map(_rebinds, inner))
