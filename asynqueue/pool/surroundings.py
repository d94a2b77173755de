"""
What a child must have of the process that it belongs to, beside what calls bring.

::

    sys.path, the key of multiprocessing, its resource tracker ─▶ has any changed?
         ─▶ before the next call: a message, to this child alone

A child starts before the program has all of that. None of it is in an argument of the
program or in its environment, which others can read, and none goes to other hosts. This
module imports no Twisted, and multiprocessing only where the parent has it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module, invalidate_caches
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

# It brings all that is shared by name, and the managers bring it.
_SHARED = "multiprocessing.shared_memory"
_MANAGERS = "multiprocessing.managers"
_TRACKER = "multiprocessing.resource_tracker"

_modules = sys.modules


def importPath() -> list[str]:
    """
    Return where modules are looked for. What is no text there has no meaning to imports.
    """
    return [entry for entry in sys.path if isinstance(entry, str)]


class Surroundings:
    """
    What a child was told of its parent's.
    """

    def __init__(self) -> None:
        """
        The child is started with C{sys.path} as it is in this moment.
        """
        self._path = list(sys.path)
        self._key: bytes | None = None
        self._tracker: int | None = None

    def news(self) -> dict[str, Any] | None:
        """
        Return what has changed since this was asked last, for L{follow}; or C{None}, if
        nothing has. A hot path.
        """
        if sys.path == self._path and _SHARED not in _modules:
            return None
        told: dict[str, Any] = {}
        if sys.path != self._path:
            told["before"] = self._path
            self._path = list(sys.path)
            told["path"] = importPath()
        if _MANAGERS in _modules:
            key = _modules["multiprocessing.process"].current_process().authkey
            if key != self._key:
                self._key = told["key"] = bytes(key)
        if _SHARED in _modules:
            tracker = _trackerHere()
            if tracker != self._tracker:
                self._tracker = tracker
                told["tracker"] = f"/proc/{os.getpid()}/fd/{tracker}"
        return told or None


def _trackerHere() -> int | None:
    """
    Return the descriptor by which the resource tracker of this program is told what there
    is; it is started if it does not run.
    """
    tracker: Any = import_module(_TRACKER)
    descriptor: int | None = tracker._resource_tracker._fd
    if descriptor is None:
        try:
            descriptor = tracker.getfd()
        except OSError:
            # There is no room for it: the child has its own.
            return None
    return descriptor


class Latecomers:
    """
    Finds modules in folders that were not there when they were first looked into: that
    is remembered, and they would never be looked into again. It is asked last.
    """

    @classmethod
    def find_spec(
        cls, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """
        Look again, if there is anything now.
        """
        cache = sys.path_importer_cache
        late = [entry for entry in path or sys.path if entry in cache and cache[entry] is None]
        late = [entry for entry in late if os.path.exists(entry)]
        for entry in late:
            del cache[entry]
        return PathFinder.find_spec(name, late) if late else None


def follow(news: dict[str, Any]) -> None:
    """
    Make what the parent has told that of this process.
    """
    if "path" in news:
        # What calls have added here stays.
        ours = [entry for entry in sys.path if entry not in news["before"]]
        sys.path[:] = [*(entry for entry in ours if entry not in news["path"]), *news["path"]]
        invalidate_caches()
    if "key" in news:
        import_module("multiprocessing.process").current_process().authkey = news["key"]
    if "tracker" in news:
        _useTracker(news["tracker"])


def _useTracker(path: str) -> None:
    """
    Share the resource tracker of the parent, which outlives this process: one of its own
    would remove with this process what others use still.
    """
    tracker: Any = import_module(_TRACKER)._resource_tracker
    if tracker._pid is not None:
        # It has begun to track something by itself.
        return
    try:
        descriptor = os.open(path, os.O_WRONLY)
    except OSError:
        # This system does not give descriptors to others.
        return
    before, tracker._fd = tracker._fd, descriptor
    if before is not None:
        os.close(before)
