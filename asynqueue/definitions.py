"""
Functions and classes by value: how they get to a process that cannot import them.

What belongs to the main program goes by its name, where the other side has that name or
is given it (L{Scope<asynqueue.mainmodule.Scope>}); everything else as cloudpickle has it.
A class that came from elsewhere, and goes back, leaves that which is there as it is.

This module imports no Twisted. It is imported when it is needed first: cloudpickle takes
its time.
"""

from __future__ import annotations

import functools
import typing
from copyreg import __newobj__  # type: ignore[attr-defined]
from io import BytesIO
from itertools import count
from types import CellType, CodeType, FunctionType, ModuleType
from typing import Any
from weakref import WeakKeyDictionary

import cloudpickle
from cloudpickle import cloudpickle as internals

from asynqueue import making
from asynqueue.mainmodule import (
    MAIN_NAMES,
    Named,
    Scope,
    described,
    find,
    isBare,
    isGiven,
    isThere,
    nameOf,
    namespace,
)
from asynqueue.methods import pathTo
from asynqueue.origins import classes, originOf, originWith, ownName
from asynqueue.unsendable import refuse

PROTOCOL = 5

# Functions of this main module that were sent, by numbers.
_count = count(1)
_numbers: WeakKeyDictionary[FunctionType, int] = WeakKeyDictionary()

_CACHE = type(functools.cache(abs))

_USUAL: Any = (object.__reduce_ex__, object.__reduce__)

# What is made of its name alone.
_NAMED = tuple(
    getattr(typing, name) for name in ("ParamSpec", "TypeVarTuple") if hasattr(typing, name)
)

# What is the same wherever it is, or has its name already.
_NEVER_SHARED = frozenset(
    {bool, bytes, complex, float, frozenset, int, str, tuple, type, type(None)}
    | {FunctionType, ModuleType}
)


class Given(Scope):
    """
    The scope of what goes back: the names that the parent has given, it has itself.
    """

    goesBack = True

    def hasName(self, root: str) -> bool:
        return isGiven(root)


class Shared(Given):
    """
    The scope of a fork: the names that there were before it, it has, too.
    """

    def __init__(self, names: frozenset[str]) -> None:
        self._names = names

    def hasName(self, root: str) -> bool:
        return root in self._names


class _Shared:
    """
    Stands for what a name of the main module stands for.
    """

    def __init__(self, reduced: Any) -> None:
        self.reduced = reduced


class DefinitionPickler(cloudpickle.Pickler):  # type: ignore[misc]
    """
    A pickler that can send everything that has code.
    """

    def __init__(self, file: Any, scope: Scope, isInBand: Any = None) -> None:
        super().__init__(file, PROTOCOL, isInBand)
        self._scope = scope
        self._own = namespace() if scope.own else None
        # The names of what can change within itself, by identities; made when needed.
        self._names: dict[int, str] | None = None

    def reducer_override(self, obj: Any) -> Any:
        """
        Look at each function, class and instance.
        """
        kind = type(obj)
        if issubclass(kind, type):
            return self._class(obj)
        if kind is FunctionType:
            return self._function(obj)
        refuse(obj)
        if kind is _Shared:
            return obj.reduced
        if kind is CellType:
            make, contents = internals._cell_reduce(obj)
            return make, tuple(map(self._shared, contents))
        if kind is CodeType:
            # Tracebacks tell where it stands.
            return making.code, (internals._code_reduce(obj), obj.co_filename)
        if kind is Named:
            for name in obj.names:
                self._scope.needs(name)
            return bytes, (bytes(obj),)
        if kind is WeakKeyDictionary:
            # Functions by singledispatch have one.
            return WeakKeyDictionary, (dict(obj),)
        if kind is functools.cached_property:
            # Before Python 3.12 it has a lock.
            return making.cachedProperty, (obj.func, obj.attrname)
        if issubclass(kind, BaseException):
            return obj.__reduce_ex__(PROTOCOL)
        if kind in self.dispatch_table:
            return NotImplemented
        if (kind.__reduce_ex__, kind.__reduce__) == _USUAL:
            return self._sentinel(obj) if isBare(obj) else NotImplemented
        reduced = obj.__reduce_ex__(PROTOCOL)
        if not isinstance(reduced, str) or getattr(obj, "__module__", None) not in MAIN_NAMES:
            return reduced
        return reduced if self._isByName(obj, reduced) else self._rebuilt(obj)

    def _isByName(self, obj: Any, path: str) -> bool:
        root = path.partition(".")[0]
        if not isThere(path, obj):
            return False
        self._scope.needs(root)
        if not self._scope.hasName(root):
            return False
        self._scope.named(path, obj)
        return True

    def _class(self, obj: Any) -> Any:
        if obj.__module__ not in MAIN_NAMES:
            reduced = internals._class_reduce(obj)
            if not isinstance(reduced, tuple) or len(reduced) != 6:
                return reduced
        elif self._isByName(obj, obj.__qualname__):
            return obj.__qualname__
        else:
            reduced = internals._dynamic_class_reduce(obj)
        self._scope.defined(obj)
        make, args, state, _, _, _ = reduced
        if make is internals._make_skeleton_class and vars(obj).get("__slots__"):
            # They are slots only if they are there from the beginning.
            args[3]["__slots__"] = obj.__slots__
        if make is internals._make_skeleton_class:
            state = self._allShared(state[0]), state[1]
        made = making.made, (make, args, self._nameOf(obj))
        scope = self._scope
        # A class that came here may have another state here by now, of which the process
        # that it came from shall know nothing.
        if scope.goesBack or (obj in making.received and not scope.own):
            return *made, state, None, None, making.completed
        origin, version = classes.get(obj, (None, None))
        if origin is not None:
            return *made, (state, origin.name, origin.about, version), None, None, making.renewed
        if obj.__module__ in MAIN_NAMES and isThere(obj.__qualname__, obj):
            version = scope.versionOf(obj.__qualname__.partition(".")[0])
            if version is not None:
                return *made, (state, ownName(), described(), version), None, None, making.renewed
        return *made, state, None, None, making.updated

    def _function(self, obj: Any) -> Any:
        if obj.__module__ not in MAIN_NAMES:
            reduced = self._function_reduce(obj)
            path = pathTo(obj) if isinstance(reduced, tuple) else None
            if path is not None:
                return path
            if not isinstance(reduced, tuple):
                return reduced
        elif self._isByName(obj, obj.__qualname__):
            return obj.__qualname__
        else:
            reduced = self._dynamic_function_reduce(obj)
        scope = self._scope
        scope.defined(obj)
        _, args, (attributes, slots), *rest = reduced
        attributes = self._allShared(attributes)
        if slots["__defaults__"]:
            slots["__defaults__"] = tuple(map(self._shared, slots["__defaults__"]))
        if slots["__kwdefaults__"]:
            slots["__kwdefaults__"] = self._allShared(slots["__kwdefaults__"])
        values = slots["__globals__"]
        if obj.__globals__ is self._own:
            for name in values:
                scope.needs(name)
            slots["__globals__"] = {}
            return (
                making.function,
                (_numberOf(obj), args[0], args[-1], self._nameOf(obj)),
                (attributes, slots),
                *rest,
            )
        reduced = (*reduced[:2], (attributes, slots), *rest)
        if scope.goesBack:
            return reduced
        origin = originOf(obj.__globals__)
        if origin is not None:
            where = origin.name, origin.about
            versions = {name: origin.versions.get(name, 0) for name in values}
        elif obj.__globals__ is namespace() and scope.versionOf("__name__") is not None:
            where = ownName(), described()
            versions = {name: scope.versionOf(name) or 0 for name in values}
        else:
            return reduced
        slots["__globals__"] = {}
        make = *where, _numberOf(obj), args[0], args[-1]
        state = (attributes, slots), versions, values
        return making.functionOf, make, state, None, None, making.functionSet

    def _nameOf(self, obj: Any) -> str:
        """
        Return the name under which a function or class is there as soon as it is made, before it
        has its attributes: another that is made may use it.
        """
        name: str = obj.__qualname__
        if obj.__module__ in MAIN_NAMES and self._scope.isTold(name) and isThere(name, obj):
            return name
        return ""

    def _shared(self, value: Any) -> Any:
        """
        Return what is sent in the place of something that a definition holds: its name, if
        it is what a name of the main module stands for. So it is one object there, too.
        """
        scope = self._scope
        if type(value) in _NEVER_SHARED or scope.goesBack:
            return value
        if self._names is None:
            main = namespace()
            self._names = {id(main[name]): name for name in main if name[:2] != "__"}
        name = self._names.get(id(value))
        if name is None:
            return value
        scope.needs(name)
        if scope.hasName(name):
            scope.shares(name, value)
            return _Shared((find, (name,)))
        version = scope.versionOf(name)
        if version is None:
            return value
        where = ownName(), described()
        return _Shared((making.valueAt, (*where, name, version, value)))

    def _allShared(self, attributes: dict[str, Any]) -> dict[str, Any]:
        return {name: self._shared(value) for name, value in attributes.items()}

    def _sentinel(self, obj: Any) -> Any:
        """
        Return what is nothing but itself, and means something as the value of a name.
        """
        name = nameOf(obj)
        if name is not None:
            self._scope.needs(name)
            if self._scope.hasName(name):
                return find, (name,)
            if self._scope.versionOf(name) is not None:
                return making.sentinelOf, (ownName(), described(), name, type(obj))
        known = originWith(obj)
        if known is not None:
            origin, name = known
            return making.sentinelOf, (origin.name, origin.about, name, type(obj))
        return NotImplemented

    def _rebuilt(self, obj: Any) -> Any:
        """
        Return how to make again what goes by its name everywhere else.
        """
        if type(obj) is _CACHE:
            parameters = obj.cache_parameters()
            return making.cached, (obj.__wrapped__, parameters["maxsize"], parameters["typed"])
        if isinstance(obj, _NAMED):
            return type(obj), (obj.__name__,)
        return __newobj__, (type(obj),), object.__getstate__(obj)


def pickled(value: Any, isInBand: Any, scope: Scope) -> bytes:
    """
    Pickle a value.

    @raise Exception: whatever the pickling of somebody's objects raises.
    """
    file = BytesIO()
    DefinitionPickler(file, scope, isInBand).dump(value)
    return file.getvalue()


def globalNames(f: FunctionType) -> list[str]:
    """
    Return the names of globals that a function uses.
    """
    return list(internals._extract_code_globals(f.__code__))


def _numberOf(f: FunctionType) -> int:
    number = _numbers.get(f)
    if number is None:
        number = _numbers[f] = next(_count)
    return number
