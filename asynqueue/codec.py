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
from typing import Any, NamedTuple, Protocol

from asynqueue.errors import Unsendable
from asynqueue.mainmodule import MAIN_NAMES, Named, hasBare, isGiven, isThere, namespace
from asynqueue.methods import bound, isFoundIn, pathTo
from asynqueue.unsendable import refuse

# A buffer of fewer bytes is copied into the pickle: a table of buffers costs more.
_OUT_OF_BAND = 1 << 14

_PROTOCOL = 5

# What cannot change, is copied by any pickle of it, and surely is no iterator: what such
# pickles hold is only what every Python has.
PLAIN = frozenset({bool, bytes, complex, float, int, str, type(None)})

# What says nothing of itself: it may be there by a name of the main module.
_UNNAMED = frozenset({Named, object})

# In the pickle of what is found by a name in the main module.
_MAIN = b"main__"


class Names(Protocol):
    """
    Who tells a process the names of the main module that it needs.
    """

    def pickled(self, value: Any, isInBand: Any = None) -> bytes:
        """
        Pickle a value, and tell the names that it needs.

        @raise Exception: whatever the pickling of somebody's objects raises.
        """


class Before:
    """
    The names of the main module that there are now, for a fork that has been made just now.
    """

    def __init__(self) -> None:
        self._names = frozenset(namespace())

    def pickled(self, value: Any, isInBand: Any = None) -> bytes:
        """
        Pickle a value.

        @raise Exception: whatever the pickling of somebody's objects raises.
        """
        definitions = import_module("asynqueue.definitions")
        pickled: bytes = definitions.pickled(value, isInBand, definitions.Shared(self._names))
        return pickled


class NotClosed(Exception):
    """
    What is to be pickled here needs what another process has.
    """


class Away:
    """
    For what goes from a child process to another program, past the parent of the child: the
    names of the main module are the parent's.
    """

    def pickled(self, value: Any, isInBand: Any = None) -> bytes:
        """
        Pickle a value.

        @raise NotClosed: it needs one of those names.
        @raise Exception: whatever the pickling of somebody's objects raises.
        """
        pickled: bytes = import_module("asynqueue.program").AWAY.pickled(value, isInBand)
        return pickled


AWAY = Away()


class Closed(NamedTuple):
    """
    A value as it came, pickled.
    """

    body: Any
    buffers: Sequence[Any] = ()

    def __repr__(self) -> str:
        return f"<{len(self.body):,} pickled bytes>"


class ClosedItems(NamedTuple):
    """
    Items of an iterator as they came: a list, pickled.

    @ivar length: how many they are.
    """

    length: int
    body: Any
    buffers: Sequence[Any] = ()

    def __repr__(self) -> str:
        return f"<{len(self.body):,} pickled bytes>"


class ClosedCall:
    """
    A call whose arguments are as they came, pickled: called without any, it unpickles them,
    there and then. A worker with a process passes the bytes on instead, and so does the
    process with what comes of the call, which is then a L{Closed}, or fails with a
    L{ClosedError<asynqueue.outcome.ClosedError>}.

    @ivar f: what is called.
    @ivar packed: the pickled arguments and keywords; C{None} for none.
    """

    __slots__ = ("_buffers", "f", "packed")

    def __init__(self, f: Callable[..., Any], packed: Any, buffers: Sequence[Any] = ()) -> None:
        self.f = f
        self.packed = packed or None
        self._buffers = buffers

    @property
    def buffers(self) -> Sequence[pickle.PickleBuffer]:
        """
        What belongs to the arguments, to be sent on.
        """
        return list(map(pickle.PickleBuffer, self._buffers))

    def opened(self) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]:
        """
        Unpickle the arguments: this may run any code.

        @return: the function, its arguments and its keywords.
        """
        if self.packed is None:
            return self.f, (), {}
        # Themselves: bytes need no copy.
        args, kw = pickle.loads(self.packed, buffers=self._buffers)
        return self.f, args, kw

    def __call__(self) -> Any:
        f, args, kw = self.opened()
        return f(*args, **kw)

    def __reduce__(self) -> Any:
        return ClosedCall, (self.f, bytes(self.packed or b""), self.buffers)


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

    @ivar goesBack: whether it is the parent who will read this: it has the names that it
        has given.
    """

    goesBack = False

    def reducer_override(self, obj: Any) -> Any:
        """
        Look at each function, class and instance.
        """
        kind = type(obj)
        if kind is MethodType:
            # Its own, as twisted.persisted.styles registers another one for all methods.
            return obj.__reduce__() if isFoundIn(obj) else (bound, (obj.__func__, obj.__self__))
        if kind is FunctionType or issubclass(kind, type):
            if isImportable(obj):
                return NotImplemented
            if self.goesBack and isFromParent(obj):
                if hasBare(obj):
                    # One of them may be what is sent.
                    raise _NamesOnlyThis
                return NotImplemented
            path = None if obj.__module__ in MAIN_NAMES else pathTo(obj)
            if path is None:
                raise _NamesOnlyThis
            return path
        if kind in _UNNAMED:
            raise _NamesOnlyThis
        refuse(obj)
        if issubclass(kind, BaseException):
            return obj.__reduce_ex__(_PROTOCOL)
        return NotImplemented


def isImportable(obj: Any) -> bool:
    """
    Tell whether another process finds a function or class by its name.
    """
    moduleName = obj.__module__
    if moduleName in MAIN_NAMES:
        return False
    found: Any = sys.modules.get(moduleName)
    for name in obj.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is obj


def isFromParent(obj: Any) -> bool:
    """
    Tell whether the parent of this process has given it a function or class, with its name.
    """
    name: str = obj.__qualname__
    if obj.__module__ not in MAIN_NAMES or not isGiven(name.partition(".")[0]):
        return False
    return isThere(name, obj)


def encode(value: Any, names: Names | None = None) -> tuple[bytes, list[pickle.PickleBuffer]]:
    """
    Pickle a value.

    @param names: who tells the other side the names of the main module that the value
        needs; C{None}: the value goes back to the parent, or to nobody that is known.
    @return: the pickle, and the buffers that belong to it and are not in it.
    @raise Exception: whatever the pickling of somebody's objects raises.
    """
    if type(value) in PLAIN:
        return pickle.dumps(value, _PROTOCOL), []
    buffers: list[pickle.PickleBuffer] = []

    def isInBand(buffer: pickle.PickleBuffer) -> bool:
        # The pickler has refused it already if it is not contiguous.
        large = buffer.raw().nbytes >= _OUT_OF_BAND
        if large:
            buffers.append(buffer)
        return not large

    return _pickled(value, isInBand, buffers.clear, names), buffers


def encodeCall(
    args: tuple[Any, ...], kw: dict[str, Any], names: Names | None = None
) -> tuple[bytes | None, Sequence[pickle.PickleBuffer]]:
    """
    Pickle what a function is called with. A hot path.

    @param names: as with L{encode}.
    @return: the pickled C{(args, kw)}, or C{None} for none, and its buffers.
    @raise Exception: whatever the pickling of somebody's objects raises.
    """
    if not kw:
        if not args:
            return None, ()
        for arg in args:
            if type(arg) not in PLAIN:
                break
        else:
            return pickle.dumps((args, kw), _PROTOCOL), ()
    try:
        return encode((args, kw), names)
    except Unsendable as error:
        raise located(error, args, kw, lambda arg: dumps(arg, names)) from None


def located(
    error: Unsendable, args: tuple[Any, ...], kw: dict[str, Any], send: Callable[[Any], Any]
) -> Unsendable:
    """
    Find out which argument of a call cannot be sent.

    @param send: raises the error for that.
    @return: the error, with the place of that argument.
    """
    places = [(f"argument {number}", arg) for number, arg in enumerate(args, 1)]
    places += [(f"the argument {name}=", arg) for name, arg in kw.items()]
    for place, arg in places:
        try:
            send(arg)
        except Unsendable as again:
            return Unsendable(again.what, again.advice, place)
        except Exception:
            # Somebody's objects: what else is wrong with them is not to the point.
            pass
    return error


def dumps(value: Any, names: Names | None = None) -> bytes:
    """
    Pickle a value in one piece. C{pickle.loads} makes it again.

    @param names: as with L{encode}.
    @raise Exception: whatever the pickling of somebody's objects raises.
    """
    if type(value) in PLAIN:
        return pickle.dumps(value, _PROTOCOL)
    return _pickled(value, None, lambda: None, names)


def decode(pickled: Any, buffers: Sequence[Any] = ()) -> Any:
    """
    Make a value again.

    @param pickled: bytes, or a view of such.
    @param buffers: views of the buffers; what is made keeps them, uncopied.
    """
    return pickle.loads(pickled, buffers=buffers)


def _pickled(value: Any, isInBand: Any, again: Callable[[], None], names: Names | None) -> bytes:
    file = BytesIO()
    pickler = _Pickler(file, _PROTOCOL, buffer_callback=isInBand)
    pickler.goesBack = names is None
    try:
        pickler.dump(value)
        pickled = file.getvalue()
        if names is not None and _MAIN in pickled:
            # Not all that goes by its name is a function or a class.
            raise _NamesOnlyThis
    except RecursionError:
        # With what sends code it would be nested even deeper.
        raise
    except Exception:
        # Somebody's objects, or code that must travel: what sends code can do more, and
        # what it raises is the answer.
        again()
        if names is not None:
            return names.pickled(value, isInBand)
        definitions = import_module("asynqueue.definitions")
        byValue: bytes = definitions.pickled(value, isInBand, definitions.Given())
        return byValue
    return pickled
