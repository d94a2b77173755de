"""
Where other processes find methods, and functions that are not where their names say.

A method says of itself only how its function is called. In the class that name may be
another (C{__private} is C{_Class__private} there), stand for something else (a decorated
function, a property), or be that of a method that a subclass has put in its place. So
names are looked up here before they are sent. This module imports no Twisted.
"""

from __future__ import annotations

import sys
from functools import cached_property, partialmethod, singledispatchmethod
from types import FunctionType, MethodType
from typing import Any

# Where wrappers, descriptors and bound methods have what they are made of.
_WITHIN: dict[type, tuple[str, ...]] = {
    MethodType: ("__func__",),
    property: ("fget", "fset", "fdel"),
    cached_property: ("func",),
    partialmethod: ("func",),
    singledispatchmethod: ("func",),
}

# What is wrapped may be wrapped again: the deepest nesting that is looked into.
_DEEPEST = 8

_ABSENT = object()


def isFoundIn(method: MethodType) -> bool:
    """
    Tell whether a method is what its object has by the name of its function. To find that out,
    nothing of the object is run.
    """
    function: Any = method.__func__
    owner: Any = method.__self__
    name: Any = getattr(function, "__name__", None)
    kind: Any = type(owner)
    places: tuple[type, ...] = kind.__mro__
    if issubclass(kind, type):
        places = (*owner.__mro__, *places)
    elif kind.__getattribute__ is not object.__getattribute__ or _hasOwn(owner, name):
        return False
    for place in places:
        found = vars(place).get(name, _ABSENT)
        if found is not _ABSENT:
            if type(found) is classmethod:
                found = found.__func__
            return found is function
    return False


def bound(function: Any, owner: object) -> MethodType:
    """
    Make a method of what it consists of. C{MethodType} itself has no name to be found by.
    """
    return MethodType(function, owner)


def _hasOwn(owner: object, name: str) -> bool:
    try:
        return name in object.__getattribute__(owner, "__dict__")
    except AttributeError:
        # It has slots.
        return False


def pathTo(obj: FunctionType | type) -> str | None:
    """
    Return the path to a function or class in its module, if its qualified name does not lead there:
    it is private in a class, or within a wrapper, a property or a method.

    @return: names with dots between them; C{None} if there is no such path.
    """
    module: Any = obj.__module__
    found: Any = sys.modules.get(module)
    path: list[str] = []
    outer = ""
    for name in obj.__qualname__.split("."):
        step = name
        if name.startswith("__") and not hasattr(found, name):
            # What is private in a class has its name, too.
            step = f"_{outer}{name}"
        found = getattr(found, step, None)
        if found is None:
            return None
        outer = name.lstrip("_")
        path.append(step)
    return _pathWithin(found, obj, ".".join(path), _DEEPEST)


def _pathWithin(found: Any, obj: FunctionType | type, path: str, most: int) -> str | None:
    if found is obj:
        return path
    if found is None or not most:
        return None
    for name in _WITHIN.get(type(found), ("__wrapped__",)):
        within = _pathWithin(getattr(found, name, None), obj, f"{path}.{name}", most - 1)
        if within is not None:
            return within
    return None
