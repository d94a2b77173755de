"""
The names of the main program that calls need, and what each process was told of them.

::

    call ─▶ closure: the names that it needs, directly or not ─▶ has any of them changed?
         ─▶ Told, one for each process: the changed ones, in one pickle ─▶ the call

This module imports no Twisted.
"""

from __future__ import annotations

import linecache
import pickle
import sys
from collections.abc import Callable, Iterable, Iterator
from io import BytesIO
from itertools import count
from threading import RLock
from types import FunctionType, ModuleType
from typing import Any
from weakref import WeakKeyDictionary

from asynqueue.codec import NotClosed, dumps, isImportable
from asynqueue.freshness import ABSENT, Unit, Within, definitions
from asynqueue.mainmodule import MAIN_NAMES, Named, Scope, isThere
from asynqueue.outcome import inWords

_modules = sys.modules

# The closures that are kept.
_MOST_CLOSURES = 4096

# The pickled functions that are kept.
_MOST_KEPT = 256


class Closure:
    """
    All that something needs of the main program, as it is now.

    @ivar units: what they are, by their names; C{""} is that of a function without.
    @ivar stamp: another one whenever any of that has changed.
    """

    __slots__ = (
        "_bindings",
        "_epoch",
        "_fields",
        "_functions",
        "_leaves",
        "_program",
        "stamp",
        "units",
    )

    def __init__(self, program: _Program, units: dict[str, Unit]) -> None:
        self.units = units
        self.stamp = max((unit.version for unit in units.values()), default=0)
        self._program = program
        self._epoch = program.epoch
        self._bindings = [(name, unit.value) for name, unit in units.items() if name]
        self._functions = [each for unit in units.values() for each in unit.functions]
        self._fields = [each for unit in units.values() for each in unit.fields]
        self._leaves = [unit for unit in units.values() if unit.leaves]

    def holds(self) -> bool:
        """
        Tell whether nothing of that has changed. A hot path.
        """
        program = self._program
        main = program.main
        if program.epoch != self._epoch or _modules["__main__"].__dict__ is not main:
            return False
        get = main.get
        for name, value in self._bindings:
            if get(name, ABSENT) is not value:
                return False
        for f, code, defaults in self._functions:
            if f.__code__ is not code or f.__defaults__ is not defaults:
                return False
        for isSame, obj, before in self._fields:
            if not isSame(obj, before):
                return False
        return not self._leaves or all(unit.leavesHold() for unit in self._leaves)

    def versionOf(self, f: Any) -> int:
        """
        Return the version of the function or class whose closure this is; another one each
        time if it has no name, and so what it refers to within itself.
        """
        if "" in self.units:
            return self.stamp
        return self.units[f.__qualname__.partition(".")[0]].version


class _Program:
    """
    The names of one main module.
    """

    def __init__(self, main: dict[str, Any]) -> None:
        self.main = main
        self._units: dict[str, Unit] = {}
        self._closures: dict[frozenset[str], Closure] = {}
        self.epoch = 0

    def closure(self, names: frozenset[str]) -> Closure:
        """
        Return what some names need.

        @raise pickle.PicklingError: some of that cannot be pickled.
        """
        known = self._closures.get(names)
        if known is None or not known.holds():
            if len(self._closures) >= _MOST_CLOSURES:
                self._closures.clear()
            known = self._closures[names] = self._collected({}, names)
        return known

    def closureOf(self, f: Any, known: Closure | None) -> Closure:
        """
        Return what a function or class needs that cannot be imported.

        @param known: what it needed when that was asked last; or C{None}.
        @raise Exception: whatever the pickling of somebody's objects raises.
        """
        if f.__module__ in MAIN_NAMES and isThere(f.__qualname__, f):
            return self.closure(frozenset({f.__qualname__.partition(".")[0]}))
        before = None if known is None else known.units.get("")
        return self._collected({"": self._looked(before, "", f)})

    def version(self, name: str) -> int:
        """
        Return the version of what a name stands for now.

        @raise Exception: whatever the pickling of somebody's objects raises.
        """
        return self._unit(name, None).version

    def _collected(self, units: dict[str, Unit], names: Iterable[str] = ()) -> Closure:
        """
        Look at names, and at all that they need.

        @param units: what has been looked at.
        """
        looked = set(units)
        # What each needs is told before it: to make a class may be to call its functions.
        path: list[tuple[Unit | None, Iterator[str]]] = [(None, iter(names))]
        path += [(unit, iter(unit.needs)) for unit in units.values()]
        while path:
            user, needs = path[-1]
            name = next(needs, None)
            if name is None:
                path.pop()
                if user is not None:
                    units[user.name] = user
            elif name not in looked:
                looked.add(name)
                unit = self._unit(name, user)
                path.append((unit, iter(unit.needs)))
        return Closure(self, units)

    def _unit(self, name: str, user: Unit | None) -> Unit:
        value = self.main.get(name, ABSENT)
        try:
            unit = self._units[name] = self._looked(self._units.get(name), name, value)
        except Exception as error:
            # Somebody's objects: whatever their pickling raises.
            if user is None:
                raise
            raise pickle.PicklingError(
                f"{user.userOf(name)} uses the global {name} of the main program, which cannot"
                f" be pickled ({inWords(error)}). Have each process make its own, with an"
                " initializer or update(), or make it within the function"
            ) from error
        return unit

    def _looked(self, known: Unit | None, name: str, value: Any) -> Unit:
        if known is not None and known.value is value and known.holds():
            return known
        unit = Unit(name, value)
        unit.look(self.main)
        if known is not None and value is not ABSENT and unit.isLike(known):
            unit.version = known.version
        elif known is not None or value is not ABSENT:
            unit.version = next(_versions)
            self.epoch += bool(name)
        return unit


_versions = count(1)
_lock = RLock()

# In a notebook there may be several, one after another.
_programs: WeakKeyDictionary[ModuleType, _Program] = WeakKeyDictionary()


def _theProgram() -> _Program:
    module = sys.modules["__main__"]
    known = _programs.get(module)
    if known is None:
        known = _programs[module] = _Program(vars(module))
    return known


def closureOf(f: Any, known: Closure | None) -> Closure:
    """
    Return what a function or class needs that cannot be imported.

    @param known: what it needed when that was asked last; or C{None}.
    @raise Exception: whatever the pickling of somebody's objects raises.
    """
    with _lock:
        return _theProgram().closureOf(f, known)


class _Elsewhere(Scope):
    """
    The other side has no names of this program: it is sent what they stand for. It keeps
    them for this program, so they have versions.
    """

    def versionOf(self, name: str) -> int | None:
        with _lock:
            return _theProgram().version(name)

    def pickled(self, value: Any, isInBand: Any = None) -> bytes:
        pickled: bytes = definitions().pickled(value, isInBand, self)
        return pickled


# For programs that are not started by this one, or not by us.
ELSEWHERE = _Elsewhere()


class _Away(_Elsewhere):
    """
    See L{Away<asynqueue.codec.Away>}.
    """

    def versionOf(self, name: str) -> int | None:
        raise NotClosed(name)


AWAY = _Away()


class _Kept:
    """
    A function or class that is pickled already.
    """

    def __init__(self, closure: Closure, pickled: bytes) -> None:
        self.closure = closure
        self._pickled = pickled

    def __reduce__(self) -> Any:
        return pickle.loads, (self._pickled,)


_kept: dict[Any, _Kept] = {}


def keptElsewhere(f: Any) -> Any:
    """
    Return what is pickled for elsewhere in the place of something that is called: much
    faster, as long as that has not changed. A hot path.

    @raise Exception: whatever the pickling of somebody's objects raises.
    """
    if type(f) is not FunctionType or isImportable(f):
        return f
    known = _kept.get(f)
    if known is None or not known.closure.holds():
        closure = closureOf(f, None if known is None else known.closure)
        while len(_kept) >= _MOST_KEPT:
            del _kept[next(iter(_kept))]
        known = _kept[f] = _Kept(closure, dumps(f, ELSEWHERE))
    return known


class _Needing:
    """
    Pickles, and keeps what names of the main program that needs.
    """

    def __init__(self) -> None:
        self.names: set[str] = set()

    def pickled(self, value: Any, isInBand: Any = None) -> bytes:
        """
        Pickle a value.

        @raise Exception: whatever the pickling of somebody's objects raises.
        """
        scope = Within("")
        pickled: bytes = definitions().pickled(value, isInBand, scope)
        self.names |= scope.needed
        return pickled


def named(value: Any) -> bytes:
    """
    Pickle a value for later: as L{Named}, if it needs names of the main program.

    @raise Exception: whatever the pickling of somebody's objects raises.
    """
    needing = _Needing()
    pickled = dumps(value, needing)
    return withNames(pickled, needing.names) if needing.names else pickled


def withNames(pickled: bytes, names: Iterable[str]) -> Named:
    """
    Return a pickle with the names of the main program that it needs.
    """
    made = Named(pickled)
    made.names = frozenset(names)
    return made


class Told:
    """
    What one process was told of the names of the main program.
    """

    def __init__(self, tell: Callable[[bytes], Any]) -> None:
        """
        @param tell: tells it what L{asynqueue.mainmodule.learn} takes.
        """
        self._tell = tell
        self._versions: dict[str, int] = {}
        self._files: set[str] = set()

    def pickled(self, value: Any, isInBand: Any = None) -> bytes:
        """
        Pickle a value, and tell the names that it needs.

        @raise Exception: whatever the pickling of somebody's objects raises.
        """
        needing = _Needing()
        pickled = needing.pickled(value, isInBand)
        self._settled(needing.names)
        return pickled

    def dumps(self, value: Any) -> tuple[bytes, int]:
        """
        Pickle a value in one piece, as fast as can be, and tell the names that it needs.

        @return: the pickle, and the stamp of what it needs.
        @raise Exception: whatever the pickling of somebody's objects raises.
        """
        needing = _Needing()
        pickled = dumps(value, needing)
        return pickled, self._settled(needing.names)

    def _settled(self, names: set[str]) -> int:
        if not names:
            return 0
        with _lock:
            closure = _theProgram().closure(frozenset(names))
            self.settle(closure)
        return closure.stamp

    def settle(self, closure: Closure) -> None:
        """
        Tell what has changed, if anything has.

        @raise Exception: whatever the pickling of somebody's objects raises.
        """
        versions = self._versions
        changed = {
            name: unit
            for name, unit in closure.units.items()
            if name and versions.get(name, 0) != unit.version
        }
        if not changed:
            return
        self._tell(self._pickledUnits(changed))
        for name, unit in changed.items():
            versions[name] = unit.version

    def _pickledUnits(self, changed: dict[str, Unit]) -> bytes:
        file = BytesIO()
        pickler = definitions().DefinitionPickler(file, _Without(changed))
        pickler.dump(list(changed))
        files = self._newFiles(changed)
        if files:
            pickler.dump(("", files))
        for name, unit in changed.items():
            pickler.dump(name if unit.value is ABSENT else (name, unit.value))
        pickler.dump(None)
        return file.getvalue()

    def _newFiles(self, changed: dict[str, Unit]) -> dict[str, Any]:
        """
        Return the texts of files that only this process has, as the cells of a notebook.
        """
        files = {}
        for unit in changed.values():
            for _, code, _ in unit.functions:
                name = code.co_filename
                entry = linecache.cache.get(name)
                # One that is on the disk has the time of its last change.
                if name not in self._files and entry and len(entry) == 4 and entry[1] is None:
                    files[name] = entry
        self._files.update(files)
        return files


class _Without(Within):
    """
    The scope of units that are told together: only what is none of them goes by name.
    """

    def __init__(self, changed: Iterable[str]) -> None:
        super().__init__("")
        self._changed = frozenset(changed)

    def hasName(self, root: str) -> bool:
        return root not in self._changed

    def isTold(self, name: str) -> bool:
        return name in self._changed
