"""
Functions and classes that were sent by value, as they are made again here.

L{asynqueue.definitions} names these functions in its pickles. This module imports no
Twisted.
"""

from __future__ import annotations

import functools
import pickle
from collections.abc import Callable
from types import CellType, CodeType, FunctionType
from typing import Any
from weakref import WeakKeyDictionary, WeakSet, WeakValueDictionary

from cloudpickle import cloudpickle as internals

from asynqueue.mainmodule import find, namespace
from asynqueue.origins import classes, originAt, originOf, ownName

PROTOCOL = 5

# What cloudpickle has made here, and what of that has no attributes yet.
received: WeakSet[type] = WeakSet()
_bare: WeakSet[type] = WeakSet()

# What attributes have come for classes.
_came: WeakKeyDictionary[type, dict[str, tuple[Any, Any]]] = WeakKeyDictionary()

# Functions that came from the main module of the parent, by their numbers there.
_functions: WeakValueDictionary[int, FunctionType] = WeakValueDictionary()


def made(make: Callable[..., type], args: Any, name: str = "") -> type:
    """
    Return a class that has, or will be given, its attributes.
    """
    cls: type | None = internals._DYNAMIC_CLASS_TRACKER_BY_ID.get(args[-2])
    if cls is None:
        # Not for nothing: a base class may keep what is made.
        cls = make(*args)
        received.add(cls)
        _bare.add(cls)
    if name:
        namespace()[name] = cls
    return cls


def updated(cls: type, state: Any) -> type:
    """
    Give a class its attributes. One that has come before, and is still the same where it
    came from, stays as calls have made it here.
    """
    _bare.discard(cls)
    attributes, slots = state
    known = _came.get(cls, {})
    came = _came[cls] = {name: _mark(value) for name, value in attributes.items()}
    for name in known:
        if name not in came and name in vars(cls):
            delattr(cls, name)
    changed = {
        name: value
        for name, value in attributes.items()
        if name not in known or known[name][0] != came[name][0]
    }
    internals._class_setstate(cls, (changed, slots))
    return cls


def _mark(value: Any) -> tuple[Any, Any]:
    """
    Return what tells an attribute that has come from another one, and what keeps it so.
    """
    if issubclass(type(value), (FunctionType, type)):
        return id(value), value
    try:
        data = pickle.dumps(value, PROTOCOL)
        return (len(data), hash(data)), None
    except Exception:
        # Somebody's objects; or a descriptor, which may be another one each time.
        return id(value), value


def completed(cls: type, state: Any) -> type:
    """
    Give a class its attributes, unless it has them.
    """
    return updated(cls, state) if cls in _bare else cls


def renewed(cls: type, state: Any) -> type:
    """
    Give a class its attributes, if these are newer.
    """
    attributes, name, about, version = state
    known = classes.get(cls)
    if name == ownName() or (known is not None and known[1] >= version and cls not in _bare):
        return cls
    classes[cls] = originAt(name, about), version
    return updated(cls, attributes)


def functionOf(
    name: str,
    about: dict[str, Any],
    number: int,
    code: CodeType,
    cells: tuple[CellType, ...] | None,
) -> FunctionType:
    """
    Return a function of another program: the one that it was before, if it can be.
    """
    origin = originAt(name, about)
    return _same(origin.functions, origin.namespace, number, code, cells)


def functionSet(f: FunctionType, state: Any) -> None:
    """
    Give a function of another program its attributes and globals.
    """
    usual, versions, values = state
    internals._function_setstate(f, usual)
    origin = originOf(f.__globals__)
    if origin is not None:
        origin.update(versions, values)


def sentinelOf(name: str, about: dict[str, Any], path: str, kind: type) -> object:
    """
    Return what means something only as the value of a name.
    """
    if name == ownName():
        return find(path)
    there = originAt(name, about).namespace
    found = there.get(path)
    if type(found) is not kind:
        found = there[path] = object.__new__(kind)
    return found


def valueAt(name: str, about: dict[str, Any], path: str, version: int, value: Any) -> Any:
    """
    Return what a name of the main module of another program stands for.
    """
    origin = originAt(name, about)
    origin.update({path: version}, {path: value})
    return origin.namespace[path]


def function(
    number: int, code: CodeType, cells: tuple[CellType, ...] | None, name: str
) -> FunctionType:
    """
    Return a function of the main module: the one that it was before, if it can be.
    """
    f = _same(_functions, namespace(), number, code, cells)
    if name:
        namespace()[name] = f
    return f


def _same(
    functions: WeakValueDictionary[int, FunctionType],
    main: dict[str, Any],
    number: int,
    code: CodeType,
    cells: tuple[CellType, ...] | None,
) -> FunctionType:
    known = functions.get(number)
    if known is not None and len(known.__code__.co_freevars) == len(code.co_freevars):
        known.__code__ = code
        return known
    f = functions[number] = FunctionType(code, main, closure=cells)
    return f


def code(reduced: Any, filename: str) -> CodeType:
    make, args = reduced
    there: CodeType = make(*args)
    return there.replace(co_filename=filename)


def cachedProperty(f: Callable[..., Any], name: str) -> Any:
    attribute: Any = functools.cached_property(f)
    attribute.__set_name__(None, name)
    return attribute


def cached(f: Callable[..., Any], maxsize: int | None, typed: bool) -> Callable[..., Any]:
    return functools.lru_cache(maxsize, typed)(f)
