"""
The main module of this process, and the names in it that another process gave.

A child has no program of its own. Its C{__main__} is filled with what its parent's has, as
far as calls need that: so a name means one object in a child, and what comes back to the
parent under that name is the parent's own.

This module imports no Twisted.
"""

from __future__ import annotations

import linecache
import os
import pickle
import sys
from io import BytesIO
from typing import Any

# What a main module is called; the second name is that of multiprocessing.
MAIN_NAMES = frozenset({"__main__", "__mp_main__"})


class Named(bytes):
    """
    A pickle that names things of the main module, on its way within another one.

    @ivar names: which.
    """

    names: frozenset[str] = frozenset()


class Scope:
    """
    What goes by name as a value is pickled, and who is told of it. By itself this one has no
    names, and notes nothing.

    @cvar goesBack: whether classes that the other side has stay there as they are.
    @cvar own: whether functions of the main program find their globals in the main module
        of the other side; else they bring them along.
    """

    goesBack = False
    own = False

    def versionOf(self, name: str) -> int | None:
        """
        Return the version of what a name of the main module stands for, where the other side
        keeps a namespace for this program; else C{None}.
        """
        return None

    def hasName(self, root: str) -> bool:
        """
        Tell whether a name of the main module is sent as such.
        """
        return False

    def needs(self, name: str) -> None:
        """
        Note that the other side needs a name of the main module.
        """

    def named(self, path: str, obj: Any) -> None:
        """
        Note that something goes by its name.
        """

    def shares(self, name: str, obj: Any) -> None:
        """
        Note that what a definition holds goes by a name, which stands for it.
        """

    def isTold(self, name: str) -> bool:
        """
        Tell whether the other side is told just now what a name stands for.
        """
        return False

    def defined(self, obj: Any) -> None:
        """
        Note that a function or class goes by value.
        """


# The names that this process was given by its parent ...
_given: set[str] = set()

# ... and why it does not have others.
_missing: dict[str, BaseException] = {}

_ABSENT = object()


def namespace() -> dict[str, Any]:
    """
    Return the globals of the main module.
    """
    return vars(sys.modules["__main__"])


def adopt(about: dict[str, Any]) -> None:
    """
    Let the main module of this process stand for that of another one.

    @param about: what L{described} has returned there.
    """
    module = sys.modules["__main__"]
    for name in [name for name in vars(module) if not name.startswith("__")]:
        # What this process was started with is nothing of the program's.
        delattr(module, name)
    vars(module).update(about)
    sys.modules[about["__name__"]] = module


def described() -> dict[str, Any]:
    """
    Return what imports within functions of the main module depend on.
    """
    main = namespace()
    return {name: main.get(name) for name in ("__name__", "__package__")}


def learn(body: Any) -> None:
    """
    Take over names of the main module of the parent, each with what it stands for.

    Where that raises something, those that follow are missing.

    @param body: pickles of one pickler: first a list of the names; then pairs of a name and
        its object, or a name alone, if it stands for nothing any more; and C{None} after
        the last.
    """
    unpickler = pickle.Unpickler(BytesIO(body))
    main = namespace()
    left = dict.fromkeys(unpickler.load())
    try:
        while (given := unpickler.load()) is not None:
            if isinstance(given, str):
                del left[given]
                main.pop(given, None)
            elif given[0]:
                del left[given[0]]
                main[given[0]] = given[1]
                _given.add(given[0])
                _missing.pop(given[0], None)
            else:
                # The text of files that are not on the disk, as the cells of a notebook.
                linecache.cache.update(given[1])
    except BaseException as error:
        # Somebody's objects: whatever their unpickling raises. Calls that need what is
        # missing will say it.
        for name in left:
            main.pop(name, None)
            _missing[name] = error


def whyMissing(error: BaseException) -> BaseException:
    """
    Return why a name is missing, if that is what an exception says; else itself.
    """
    if _missing and type(error) in (AttributeError, NameError):
        for name, reason in _missing.items():
            if repr(name) in str(error):
                return reason
    return error


def isGiven(root: str) -> bool:
    """
    Tell whether the parent of this process has given it a name.
    """
    return root in _given


def _forked() -> None:
    """
    Take what the main module of the parent had then for what the parent of this fork has.
    """
    _given.update(namespace())


os.register_at_fork(after_in_child=_forked)


def find(path: str) -> Any:
    """
    Return what a path of names in the main module stands for.

    @raise AttributeError: it stands for nothing.
    """
    found: Any = sys.modules["__main__"]
    for name in path.split("."):
        found = getattr(found, name)
    return found


def isThere(path: str, obj: object) -> bool:
    """
    Tell whether a path of names in the main module stands for an object.
    """
    root, *names = path.split(".")
    found = namespace().get(root, _ABSENT)
    for name in names:
        found = getattr(found, name, _ABSENT)
    return found is obj


def isBare(obj: Any) -> bool:
    """
    Tell whether an object is nothing but itself: it has no state, and equals nothing else. Many say
    so that a value is missing.
    """
    kind: Any = type(obj)
    if kind is object:
        return True
    usual: Any = object
    return (
        # What C code defines has its state where nobody sees it.
        (bool(kind.__dictoffset__) or "__slots__" in vars(kind))
        and kind.__eq__ is usual.__eq__
        and kind.__reduce_ex__ is usual.__reduce_ex__
        and kind.__reduce__ is usual.__reduce__
        and kind.__getstate__ is usual.__getstate__
        and obj.__getstate__() is None
    )


def hasBare(kind: Any) -> bool:
    """
    Tell whether a name of the main module stands for a bare object of a class.
    """
    return any(type(value) is kind and isBare(value) for value in list(namespace().values()))


def nameOf(obj: object) -> str | None:
    """
    Return a name of the main module that stands for an object, which says nothing of itself.
    """
    for name, value in list(namespace().items()):
        if value is obj:
            return name
    return None
