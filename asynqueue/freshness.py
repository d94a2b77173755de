"""
What a name of the main program stands for, and whether that has changed.

That is seen by the identities of what functions and classes consist of; only what can
change within itself (lists, dictionaries, instances) is pickled for it. This module
imports no Twisted.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable
from functools import cache, cached_property, partial
from hashlib import blake2b
from importlib import import_module
from io import BytesIO
from logging import Logger
from operator import is_
from re import Pattern
from types import (
    BuiltinFunctionType,
    CellType,
    CodeType,
    FunctionType,
    GetSetDescriptorType,
    MemberDescriptorType,
    ModuleType,
    WrapperDescriptorType,
)
from typing import Any, NewType, TypeVar

from asynqueue.mainmodule import Scope, isThere

# For what a name stands that is not there.
ABSENT = object()

# A name of every module that says nothing of the program.
_NOBODYS = frozenset({"__builtins__", "__name__"})

# What these hold never changes.
_CONSTANT = frozenset(
    {
        bool,
        bytes,
        complex,
        float,
        int,
        str,
        range,
        slice,
        type(None),
        type(...),
        type(NotImplemented),
        CodeType,
        FunctionType,
        GetSetDescriptorType,
        MemberDescriptorType,
        ModuleType,
        WrapperDescriptorType,
        type,
    }
)

# And these have nothing but functions, which are looked at by themselves.
_WRAPPERS = frozenset({classmethod, property, staticmethod, cached_property, type(cache(abs))})

# What cannot be changed by usual means.
_FROZEN = frozenset({Logger, NewType, Pattern, TypeVar})

_EMPTY = CellType()


def _isConstant(value: Any) -> bool:
    kind = type(value)
    if kind in _CONSTANT or kind in _WRAPPERS or kind in _FROZEN or issubclass(kind, type):
        return True
    if kind is BuiltinFunctionType:
        return type(value.__self__) in (ModuleType, type(None))
    return kind in (tuple, frozenset) and all(map(_isConstant, value))


def _cells(f: FunctionType) -> list[Any]:
    contents = []
    for cell in f.__closure__ or ():
        try:
            contents.append(cell.cell_contents)
        except ValueError:
            contents.append(_EMPTY)
    return contents


def _attributes(f: FunctionType) -> list[Any]:
    return [*(f.__kwdefaults__ or {}).values(), *vars(f).values()]


def _globals(names: list[str], f: FunctionType) -> list[Any]:
    found = f.__globals__
    return [found.get(name, ABSENT) for name in names]


def _keysAndValues(dictionary: Any) -> tuple[list[Any], list[Any]]:
    return list(dictionary), list(dictionary.values())


def _areItems(items: Any, before: list[Any]) -> bool:
    return len(items) == len(before) and all(map(is_, items, before))


def _areKeysAndValues(items: Any, before: tuple[list[Any], list[Any]]) -> bool:
    keys, values = before
    return (
        len(items) == len(keys)
        and all(map(is_, items.values(), values))
        and all(map(is_, items, keys))
    )


class _LeafPickler(pickle.Pickler):
    """
    A pickler that notes which functions and classes it names: under the same name there may
    be another one.
    """

    def __init__(self, file: Any, protocol: int) -> None:
        super().__init__(file, protocol)
        self.named: list[Any] = []

    def reducer_override(self, obj: Any) -> Any:
        """
        Look at each function, class and instance.
        """
        if issubclass(type(obj), (FunctionType, type)):
            self.named.append(obj)
        return NotImplemented


_NO_LEAVES: tuple[int, int, list[Any]] = (0, 0, [])


class Unit:
    """
    A name of the main program, or a function that has none there, with what it stood for
    when it was looked at last.

    @ivar version: another one whenever that has changed.
    @ivar needs: the names that it needs directly.
    """

    def __init__(self, name: str, value: Any) -> None:
        self.name = name
        self.value = value
        self.version = 0
        self.needs: set[str] = set()
        self.digest = b""
        # Whether something in it goes by a name, and is told anew when it has changed.
        self.isSharing = False
        # What it refers to by name, and these names.
        self.named: list[Any] = []
        self.paths: list[str] = []
        self.functions: list[tuple[FunctionType, CodeType, Any]] = []
        # Whether something has still these parts.
        self.fields: list[tuple[Callable[[Any, Any], bool], Any, Any]] = []
        self.leaves: list[Any] = []
        self.leavesBefore = _NO_LEAVES

    def look(self, main: dict[str, Any]) -> None:
        """
        Look at what it stands for, and at what that consists of.

        @raise Exception: whatever the pickling of somebody's objects raises.
        """
        if self.value is ABSENT:
            return
        scope = Within(self.name)
        self.digest = _digest(definitions().pickled(self.value, None, scope))
        self.named = scope.objectsNamed
        self.paths = scope.paths
        self.needs = scope.needed - {self.name}
        self.isSharing = scope.isSharing
        self._note([self.value])
        for obj in scope.objects:
            if type(obj) is FunctionType:
                self._noteFunction(obj, main)
            else:
                self._noteClass(obj)
        self.leavesBefore = self._lookThrough() if self.leaves else _NO_LEAVES

    def _noteFunction(self, f: FunctionType, main: dict[str, Any]) -> None:
        self.functions.append((f, f.__code__, f.__defaults__))
        self._note(f.__defaults__ or ())
        if f.__closure__:
            self._noteField(_cells, f)
        if f.__kwdefaults__ or vars(f):
            self._noteField(_attributes, f)
        names = definitions().globalNames(f)
        if f.__globals__ is main:
            self.needs.update(name for name in names if name not in _NOBODYS)
            self.needs.discard(self.name)
        elif names:
            self._noteField(partial(_globals, names), f)

    def _noteField(self, fetch: Callable[[Any], list[Any]], obj: Any) -> None:
        values = fetch(obj)
        self.fields.append((lambda obj, before: _areItems(fetch(obj), before), obj, values))
        self._note(values)

    def _noteClass(self, cls: type) -> None:
        members = vars(cls)
        self.fields.append((_areKeysAndValues, members, _keysAndValues(members)))
        # What its machinery keeps there follows from the rest.
        self._note([value for name, value in members.items() if not _isMachinery(name)])

    def _note(self, values: Iterable[Any]) -> None:
        for value in values:
            kind = type(value)
            if _isConstant(value):
                continue
            if kind is dict and all(map(_isConstant, [*value, *value.values()])):
                self.fields.append((_areKeysAndValues, value, _keysAndValues(value)))
            elif kind in (list, set) and all(map(_isConstant, value)):
                self.fields.append((_areItems, value, list(value)))
            else:
                self.leaves.append(value)

    def _lookThrough(self) -> tuple[int, int, list[Any]]:
        file = BytesIO()
        pickler = _LeafPickler(file, 5)
        try:
            pickler.dump(self.leaves)
            pickled = file.getvalue()
            named = pickler.named
        except Exception:
            # Code in them: it is slower, but it can be compared, too.
            scope = Within(self.name)
            pickled = definitions().pickled(self.leaves, None, scope)
            named = scope.objectsNamed
        # A hash is faster than a digest, where nobody looks for two with the same.
        return len(pickled), hash(pickled), named

    def isLike(self, other: Unit) -> bool:
        """
        Tell whether what this stands for is made in the same way, of the same objects.
        """
        if self.isSharing or other.isSharing:
            return False
        return self.digest == other.digest and _areItems(self.named, other.named)

    def userOf(self, name: str) -> str:
        """
        Return which function it is that uses a global, as far as can be told.
        """
        for f, _, _ in self.functions:
            if name in definitions().globalNames(f):
                return f"{f.__qualname__}()"
        return self.name

    def holds(self) -> bool:
        """
        Tell whether what it stands for is still the same within.
        """
        for f, code, defaults in self.functions:
            if f.__code__ is not code or f.__defaults__ is not defaults:
                return False
        for isSame, obj, before in self.fields:
            if not isSame(obj, before):
                return False
        if not all(map(isThere, self.paths, self.named)):
            # It goes by this name no more.
            return False
        return not self.leaves or self.leavesHold()

    def leavesHold(self) -> bool:
        """
        Tell whether what can change within itself has not.
        """
        try:
            size, value, named = self._lookThrough()
        except Exception:
            # Somebody's objects, in which there is something new.
            return False
        before = self.leavesBefore
        return size == before[0] and value == before[1] and _areItems(named, before[2])


def _isMachinery(name: str) -> bool:
    return name[:1] == name[-1:] == "_" or name == "_abc_impl"


def _digest(pickled: bytes) -> bytes:
    return blake2b(pickled, digest_size=16).digest()


def definitions() -> Any:
    # It is needed when there is something to send, and takes its time.
    return import_module("asynqueue.definitions")


class Within(Scope):
    """
    The scope of a unit alone: everything else goes by name.
    """

    own = True

    def __init__(self, name: str) -> None:
        self._name = name
        self.needed: set[str] = set()
        self.objects: list[Any] = []
        self.objectsNamed: list[Any] = []
        self.paths: list[str] = []
        self.isSharing = False

    def hasName(self, root: str) -> bool:
        return root != self._name

    def needs(self, name: str) -> None:
        self.needed.add(name)

    def named(self, path: str, obj: Any) -> None:
        self.paths.append(path)
        self.objectsNamed.append(obj)

    def shares(self, name: str, obj: Any) -> None:
        self.isSharing = True
        self.named(name, obj)

    def defined(self, obj: Any) -> None:
        self.objects.append(obj)
