"""
The globals of the main modules of other programs, as far as their code needs them here.

A host or an executor's process that runs code of another program has one namespace for it:
what a call sets there, later calls of that program see. What comes with the code is put
there only if it is newer than what came before. This module imports no Twisted.
"""

from __future__ import annotations

import os
from collections import deque
from types import FunctionType
from typing import Any
from uuid import uuid4
from weakref import WeakKeyDictionary, WeakValueDictionary

# Where a namespace says whose it is.
_KEY = "__asynqueue_origin__"

# The namespaces that are kept, if no function needs them.
_KEPT = 16


class Origin:
    """
    A program elsewhere.

    @ivar name: unlike that of any other.
    @ivar about: what imports in its functions depend on.
    @ivar namespace: the globals of its functions.
    @ivar versions: which version of a global was put there, by names.
    @ivar functions: its functions, by their numbers there.
    """

    def __init__(self, name: str, about: dict[str, Any]) -> None:
        self.name = name
        self.about = about
        self.namespace: dict[str, Any] = {**about, _KEY: self}
        self.versions: dict[str, int] = {}
        self.functions: WeakValueDictionary[int, FunctionType] = WeakValueDictionary()

    def update(self, versions: dict[str, int], values: dict[str, Any]) -> None:
        """
        Put globals into the namespace, as far as they are newer.
        """
        for name, value in values.items():
            if versions[name] > self.versions.get(name, -1):
                self.versions[name] = versions[name]
                self.namespace[name] = value


# The name of this program.
_own = [uuid4().hex]

_origins: WeakValueDictionary[str, Origin] = WeakValueDictionary()
_recent: deque[Origin] = deque(maxlen=_KEPT)

# Which version of a class came, and from where.
classes: WeakKeyDictionary[type, tuple[Origin, int]] = WeakKeyDictionary()


def ownName() -> str:
    """
    Return the name of this program as an origin.
    """
    return _own[0]


def _forked() -> None:
    # From now on its globals are others.
    _own[0] = uuid4().hex


os.register_at_fork(after_in_child=_forked)


def originAt(name: str, about: dict[str, Any]) -> Origin:
    """
    Return what there is of a program, by its name.
    """
    known = _origins.get(name)
    if known is None:
        known = _origins[name] = Origin(name, about)
        _recent.append(known)
    return known


def originOf(namespace: dict[str, Any]) -> Origin | None:
    """
    Return whose globals these are; C{None}: no other program's.
    """
    origin: Origin | None = namespace.get(_KEY)
    return origin


def originWith(obj: object) -> tuple[Origin, str] | None:
    """
    Return in which namespace an object is, that says nothing of itself, and its name there.
    """
    for origin in list(_origins.values()):
        for name, value in origin.namespace.items():
            if value is obj:
                return origin, name
    return None
