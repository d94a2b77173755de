"""
The functions and classes that can be called by their names, C{module:qualified.name}, for
those who must not have anything imported that nobody has allowed.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from functools import lru_cache, partialmethod, singledispatchmethod
from importlib import import_module
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

from asynqueue.checks import listOf
from asynqueue.errors import NoSuchCallable

_Cached = type(lru_cache(len))

# What makes methods where it stands in a class. A property makes none, and a class that
# stands in another is not meant to be called.
METHODS = (FunctionType, staticmethod, classmethod, partialmethod, singledispatchmethod, _Cached)

# What may be called in a module, besides classes.
_FUNCTIONS = (FunctionType, BuiltinFunctionType, _Cached)


class AllowedModules:
    """
    The modules whose own functions and classes can be called by their names.
    """

    def __init__(self, modules: Iterable[str] = ()) -> None:
        """
        @param modules: which modules' own functions and classes can be called; those
            named C{package.*} with all that is below them. They are imported now, and
            the modules below them when they are asked for.
        @raise TypeError: C{modules} is a string.
        @raise ImportError: there is no such module.
        """
        patterns = listOf(modules, "modules")
        self._modules = frozenset(name for name in patterns if not name.endswith(".*"))
        self._packages = tuple(name[:-2] for name in patterns if name.endswith(".*"))
        for name in (*self._modules, *self._packages):
            import_module(name)

    def allows(self, moduleName: object) -> bool:
        """
        Tell whether a module is allowed, by its name.
        """
        if not isinstance(moduleName, str):
            return False
        return moduleName in self._modules or any(
            moduleName == package or moduleName.startswith(package + ".")
            for package in self._packages
        )

    def resolve(self, name: str) -> Callable[..., Any]:
        """
        Find what is to be called by a name. Modules that are not allowed are not imported.

        @raise NoSuchCallable: nothing is.
        """
        moduleName, _, qualified = name.partition(":")
        parts = [*moduleName.split("."), *qualified.split(".")]
        if not all(part.isidentifier() for part in parts):
            raise NoSuchCallable(name, "that is no name of a function in a module")
        if any(part.startswith("_") for part in parts):
            raise NoSuchCallable(name, "names that begin with an underscore are private")
        if not self.allows(moduleName):
            raise NoSuchCallable(name, f"{moduleName} is none of the modules allowed here")
        try:
            module = import_module(moduleName)
        except Exception as error:
            # The seam to somebody's modules: whatever that raises, there is none.
            reason = f"{moduleName} cannot be imported ({type(error).__name__})"
            raise NoSuchCallable(name, reason) from error
        found = self._walked(module, qualified.split("."))
        if found is None:
            raise NoSuchCallable(name, f"{moduleName} defines no such function or class")
        return found

    def _walked(self, module: ModuleType, parts: list[str]) -> Callable[..., Any] | None:
        """
        Go from a module through its own classes. What it has imported is not its own.
        """
        found: Any = vars(module).get(parts[0])
        for part in parts[1:]:
            if not isinstance(found, type) or not self.allows(found.__module__):
                return None
            # The descriptors of classes are looked at, and not asked.
            static = inspect.getattr_static(found, part, None)
            if not isinstance(static, (*METHODS, type)):
                return None
            found = getattr(found, part)
        isFunction = isinstance(found, (*_FUNCTIONS, type)) or inspect.ismethod(found)
        if isFunction and self.allows(getattr(found, "__module__", None)):
            return found  # type: ignore[no-any-return]  # ruled out just now
        return None
