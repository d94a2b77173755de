"""
Values to bytes and back.

Pickle, protocol 5, does it; where that cannot, or would name what only this
program has (functions and classes of C{__main__}, lambdas, closures), cloudpickle
does, which sends code. Large buffers (of arrays and the like) can stay out of
the pickle and travel beside it without being copied, as PEP 574 has it.

This module imports no Twisted, and cloudpickle only when it is needed: a child
process that never needs it starts faster.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from io import BytesIO
from types import FunctionType, MethodType
from typing import Any

from asynqueue.methods import bound, isFoundIn, pathTo

# A buffer of fewer bytes is copied into the pickle: a table of buffers costs more.
_OUT_OF_BAND = 1 << 14

_PROTOCOL = 5

# What pickles of these types can hold is only what every Python has.
_PLAIN = frozenset({bool, bytes, complex, float, int, str, type(None)})

# Their code is sent, not their name: the other side has another main module.
_ELSEWHERE = frozenset({"__main__", "__mp_main__"})


class _NamesOnlyThis(Exception):
    """
    There is something to pickle that other processes cannot import.
    """


class _Pickler(pickle.Pickler):
    """
    A pickler that stops at what must travel by value.

    Exceptions are pickled as they themselves want. Libraries (tblib, which Dask brings)
    register how all of them are to be, with their tracebacks: then C{SystemExit} loses
    its code, and a deep recursion can no more be pickled.
    """

    def reducer_override(self, obj: Any) -> Any:
        """
        Look at each function, class and instance.
        """
        kind = type(obj)
        if kind is MethodType:
            return NotImplemented if isFoundIn(obj) else (bound, (obj.__func__, obj.__self__))
        if isinstance(obj, (FunctionType, type)) and not isImportable(obj):
            path = None if obj.__module__ in _ELSEWHERE else pathTo(obj)
            if path is None:
                raise _NamesOnlyThis
            return path
        if issubclass(kind, BaseException):
            return obj.__reduce_ex__(_PROTOCOL)
        return NotImplemented


def isImportable(obj: Any) -> bool:
    """
    Whether another process finds a function or class by its name.
    """
    moduleName = obj.__module__
    if moduleName in _ELSEWHERE:
        return False
    found: Any = sys.modules.get(moduleName)
    for name in obj.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is obj


def encode(value: Any) -> tuple[bytes, list[pickle.PickleBuffer]]:
    """
    Pickle a value.

    @return: the pickle, and the buffers that belong to it and are not in it.
    @raise Exception: whatever the pickling of somebody's objects raises.
    """
    if type(value) in _PLAIN:
        return pickle.dumps(value, _PROTOCOL), []
    buffers: list[pickle.PickleBuffer] = []

    def isInBand(buffer: pickle.PickleBuffer) -> bool:
        # The pickler has refused it already if it is not contiguous.
        large = buffer.raw().nbytes >= _OUT_OF_BAND
        if large:
            buffers.append(buffer)
        return not large

    return _pickled(value, isInBand, buffers.clear), buffers


def encodeCall(
    args: tuple[Any, ...], kw: dict[str, Any]
) -> tuple[bytes | None, Sequence[pickle.PickleBuffer]]:
    """
    Pickle what a function is called with. A hot path.

    @return: the pickled C{(args, kw)}, or C{None} for none, and its buffers.
    @raise Exception: whatever the pickling of somebody's objects raises.
    """
    if not kw:
        if not args:
            return None, ()
        for arg in args:
            if type(arg) not in _PLAIN:
                break
        else:
            return pickle.dumps((args, kw), _PROTOCOL), ()
    return encode((args, kw))


def dumps(value: Any) -> bytes:
    """
    Pickle a value in one piece. C{pickle.loads} makes it again.

    @raise Exception: whatever the pickling of somebody's objects raises.
    """
    if type(value) in _PLAIN:
        return pickle.dumps(value, _PROTOCOL)
    return _pickled(value, None, lambda: None)


def decode(pickled: Any, buffers: Sequence[Any] = ()) -> Any:
    """
    Make a value again.

    @param pickled: bytes, or a view of such.
    @param buffers: views of the buffers; what is made keeps them, uncopied.
    """
    return pickle.loads(pickled, buffers=buffers)


def _pickled(value: Any, isInBand: Any, again: Callable[[], None]) -> bytes:
    file = BytesIO()
    try:
        _Pickler(file, _PROTOCOL, buffer_callback=isInBand).dump(value)
    except RecursionError:
        # With what sends code it would be nested even deeper.
        raise
    except Exception:
        # Somebody's objects, or code that must travel: cloudpickle can do more,
        # and what it raises is the answer.
        again()
        byValue: bytes = import_module("cloudpickle").dumps(
            value, _PROTOCOL, buffer_callback=isInBand
        )
        return byValue
    return file.getvalue()
