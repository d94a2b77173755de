"""
What a child must have of the process that it belongs to, beside what calls bring.

::

    sys.path, plugins, levels of loggers, whether sys.stdout is redirected, the key of
    multiprocessing, its resource tracker
         ─▶ has any changed? ─▶ before the next call: a message, to this child alone

A child starts before the program has all of that. None of it is in an argument of the
program or in its environment, which others can read, and none goes to other hosts. This
module imports no Twisted, logging only in the parent, and multiprocessing only where the
parent has it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module, invalidate_caches
from importlib.machinery import (
    ExtensionFileLoader,
    ModuleSpec,
    PathFinder,
    SourceFileLoader,
    SourcelessFileLoader,
)
from types import ModuleType
from typing import Any, ClassVar

# It brings all that is shared by name, and the managers bring it.
_SHARED = "multiprocessing.shared_memory"
_MANAGERS = "multiprocessing.managers"
_TRACKER = "multiprocessing.resource_tracker"

# By these Python itself loads modules from files.
_LOADERS = {ExtensionFileLoader, SourceFileLoader, SourcelessFileLoader}

_modules = sys.modules


def importPath() -> list[str]:
    """
    Return where modules are looked for. What is no text there has no meaning to imports.
    """
    return [entry for entry in sys.path if isinstance(entry, str)]


class _Loaded:
    """
    The modules that were loaded from files where imports would not find them, as programs
    load their plugins.

    @ivar files: their names and files, in the order in which they were seen.
    """

    def __init__(self) -> None:
        self.files: list[tuple[str, str]] = []
        self._seen: set[str] = set()
        self._last = ""

    def look(self) -> None:
        """
        Look at the modules that are new. A hot path.
        """
        try:
            last = next(reversed(_modules))
        except RuntimeError:
            # Another thread imports in this moment.
            last = ""
        if last != self._last or len(_modules) != len(self._seen):
            names = set(_modules)
            for name in names - self._seen:
                file = _fileOf(name)
                if file is not None:
                    self.files.append((name, file))
            self._seen = names
            self._last = last


def _fileOf(name: str) -> str | None:
    """
    Return the file of a module, unless imports would find it.
    """
    package = name.rpartition(".")[0]
    try:
        spec: Any = _modules[name].__spec__
        if type(spec.loader) not in _LOADERS or spec.name != name:
            return None
        folder = os.path.dirname(spec.origin)
        if spec.submodule_search_locations:
            folder = os.path.dirname(folder)
        places = _modules[package].__path__ if package else sys.path
        return None if folder in places else spec.origin
    except Exception:
        # Somebody's object, which is no module, or one with code of its own.
        return None


class _Levels:
    """
    The levels that loggers have, by name; that of the root has none.

    @ivar known: another object when any has changed.
    """

    def __init__(self) -> None:
        self.known: dict[str, int] = {}
        # Whenever a level is set, those of all loggers are cleared.
        self._cache: dict[int, bool] = {}

    def look(self) -> dict[str, int]:
        """
        Return what is known, after a look whether any has changed. A hot path.
        """
        if not self._cache:
            logging: Any = import_module("logging")
            self._cache = logging.getLogger(__name__)._cache
            # No record has this level. First this: another thread may set one now.
            self._cache[-1] = False
            known = {"": logging.root.level}
            for name, logger in list(logging.root.manager.loggerDict.items()):
                if isinstance(logger, logging.Logger) and logger.level:
                    known[name] = logger.level
            if known != self.known:
                self.known = known
        return self.known


_loaded = _Loaded()
_levels = _Levels()


class Surroundings:
    """
    What a child was told of its parent's.
    """

    def __init__(self) -> None:
        """
        Keep C{sys.path} as it is in this moment: the child is started with that.
        """
        self._path = list(sys.path)
        self._key: bytes | None = None
        self._tracker: int | None = None
        self._files = 0
        self._levels: dict[str, int] | None = None
        self._isRedirected = False

    def news(self) -> dict[str, Any] | None:
        """
        Return what has changed since this was asked last, for L{follow}; or C{None}, if
        nothing has. A hot path.
        """
        _loaded.look()
        levels = _levels.look()
        isRedirected = sys.stdout is not sys.__stdout__
        isSame = sys.path == self._path and len(_loaded.files) == self._files
        isSame = isSame and levels is self._levels and isRedirected is self._isRedirected
        if isSame and _SHARED not in _modules:
            return None
        told: dict[str, Any] = {}
        if len(_loaded.files) != self._files:
            told["files"] = dict(_loaded.files[self._files :])
            self._files = len(_loaded.files)
        if sys.path != self._path:
            told["before"] = self._path
            self._path = list(sys.path)
            told["path"] = importPath()
        if levels is not self._levels:
            self._levels = told["levels"] = levels
        if isRedirected is not self._isRedirected:
            self._isRedirected = told["redirected"] = isRedirected
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
    Finds modules that the parent has loaded from files, and those in folders that were
    not there when they were first looked into: that is remembered, and they would never be
    looked into again. It is asked last.

    @cvar files: the files of modules, by their names.
    """

    files: ClassVar[dict[str, str]] = {}

    @classmethod
    def find_spec(
        cls, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """
        Look again, if there is anything now.
        """
        if name in cls.files:
            util = import_module("importlib.util")
            found: ModuleSpec | None = util.spec_from_file_location(name, cls.files[name])
            return found
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
    Latecomers.files.update(news.get("files", {}))
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


class _Tracking:
    """
    Finds the module of the resource tracker, and has what calls register there told to the
    parent: in a program that shares nothing itself, a tracker of this process would remove
    with it what others use still. It is asked before all others, and until that module comes.
    """

    def __init__(self, tell: Callable[[tuple[str, str, str]], None]) -> None:
        self._tell = tell
        self._process = os.getpid()
        self._tracker: Any = None

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """
        Find that module alone.
        """
        if name != _TRACKER:
            return None
        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(name, path)
        if spec is not None and spec.loader is not None:
            loader: Any = spec.loader
            execute = loader.exec_module

            def executed(module: Any) -> None:
                execute(module)
                self._tracker = module._resource_tracker
                self._tracker._send = self._send

            loader.exec_module = executed
        return spec

    def _send(self, command: str, name: str, kind: str) -> None:
        if os.getpid() != self._process:
            # This is a fork that a call has made, and has a tracker of its own.
            del self._tracker._send
            self._tracker._send(command, name, kind)
        else:
            self._tell((command, name, kind))


def forwardTracking(tell: Callable[[tuple[str, str, str]], None]) -> None:
    """
    Have what is shared in this process tracked by the parent.

    @param tell: is called with a command of the resource tracker, the name of what is shared,
        and its kind.
    """
    sys.meta_path.insert(0, _Tracking(tell))
