"""
How a host gets its universe: from a name, a class or an instance; and how each of its
processes gets one of its own.

::

    host     catalog.resolve("measure") ─▶ a function that any worker may call
                                                  │ sent once to each process
    process  introduce(token, blueprint) ... callIn(token, "measure", args, kw)
                                               makes the universe at the first call
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any
from uuid import uuid4
from weakref import finalize

from attrs import frozen

from asynqueue.codec import decode, isImportable
from asynqueue.errors import WireError
from asynqueue.outcome import inWords, shortRepr
from asynqueue.program import named
from asynqueue.wire.host.catalog import Catalog


@frozen
class Blueprint:
    """
    How a universe is made.

    @ivar name: the name of its class, if there is one that others can import.
    @ivar pickled: else what it is made of, pickled: a class, or the universe itself.
    """

    name: str = ""
    pickled: bytes = b""

    @classmethod
    def of(cls, given: Any) -> Blueprint:
        """
        Return the blueprint of what a user gave: the name of a class, a class, or an instance,
        which is copied as it is now.

        @raise WireError: it is an instance, or a class of this program alone, that cannot
            be pickled.
        """
        if isinstance(given, str):
            return cls(name=given)
        if isinstance(given, type) and isImportable(given):
            return cls(name=f"{given.__module__}:{given.__qualname__}")
        try:
            return cls(pickled=named(given))
        except Exception as error:
            # Somebody's object: whatever its pickling raises.
            raise WireError(
                f"{shortRepr(given)} cannot be copied to other processes"
                f" ({inWords(error)}): give its class, or the name of that"
            ) from error

    def make(self, server: Any = None) -> Any:
        """
        Make the universe here.

        @param server: what its class is called with, if that wants anything.
        @raise Exception: whatever the import of its module or its making raises.
        """
        made = _named(self.name) if self.name else decode(self.pickled)
        return universeOf(made, server)


def universeOf(given: Any, server: Any = None) -> Any:
    """
    Return the universe that a user gave: the dotted name of one, or of its class; a class; or the
    universe itself.

    @param server: what a class is called with, if it wants anything.
    @raise Exception: whatever the import of its module or its making raises.
    """
    if isinstance(given, str):
        given = _named(given)
    if not isinstance(given, type):
        return given
    try:
        inspect.signature(given).bind(server)
    except TypeError:
        return given()
    return given(server)


def _named(name: str) -> Any:
    """
    Return what is found by a name: C{module.name} or C{module:name}.

    @raise ImportError: there is no such module, or it has nothing of this name.
    """
    moduleName, colon, path = name.partition(":")
    if not colon:
        moduleName, _, path = name.rpartition(".")
    if not moduleName or not path:
        raise ImportError(f"{name!r} names no universe: give a name like module.Universe")
    found: Any = import_module(moduleName)
    for part in path.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise ImportError(
                f"the module {moduleName} has no {path}: see to the spelling of both"
            ) from None
    return found


class ChildCatalog(Catalog):
    """
    A catalog for a host with processes, each of which has a universe of its own: what it
    finds for the name of a method is a function that calls the one of the process it runs
    in.

    @ivar initializer: what each process calls first ...
    @ivar initargs: ... with these.
    """

    def __init__(self, given: Any, universe: Any, modules: Iterable[str], trust: str) -> None:
        """
        @param given: what the user gave for the universe.
        @param universe: the universe of this process, where calls in its threads are made.
        @raise WireError: the universe cannot be copied.
        """
        super().__init__(universe, modules, trust)
        token = uuid4().hex
        self.initializer: Callable[[str, Blueprint], None] = introduce
        self.initargs = (token, Blueprint.of(given))
        self._token = token
        self._functions: dict[str, Callable[..., Any]] = {}
        _made[token] = universe
        finalize(self, _made.pop, token, None)

    def resolve(self, name: str) -> Callable[..., Any]:
        """
        Return always the same function for a method: a process is told of it once.
        """
        function = self._functions.get(name)
        if function is None:
            function = super().resolve(name)
            if ":" not in name:
                function = _functionFor(self._token, name, type(_made[self._token]))
            self._functions[name] = function
        return function


# What this process was told of, and what it has made of it.
_introduced: dict[str, Blueprint] = {}
_made: dict[str, Any] = {}


def newCatalog(
    server: Any,
    given: Any,
    allow: tuple[str, ...],
    trust: str,
    processes: int,
    codec: str,
) -> Catalog:
    """
    Return what may be called.

    @param given: what the user gave for the universe.
    @param codec: the name of how arguments and results are encoded.
    """
    if allow and trust == "universe":
        trust = "modules"
    if given is None and trust == "universe":
        raise ValueError(
            "nothing could be called: give a universe, the modules whose functions may be"
            " called (allow=), or trust='code'"
        )
    if trust == "code" and codec != "pickle":
        raise ValueError(f"trust='code' needs codec='pickle', not {codec!r}")
    if given is None:
        return Catalog(None, allow, trust)
    universe = universeOf(given, server)
    if processes:
        return ChildCatalog(given, universe, allow, trust)
    return Catalog(universe, allow, trust)


def introduce(token: str, blueprint: Blueprint) -> None:
    """
    Tell a process how to make its universe. It is made when it is called: what that
    raises is then an outcome of the call.
    """
    _introduced[token] = blueprint


def callIn(token: str, name: str, args: Any, kw: Any) -> Any:
    """
    Call a method of the universe of this process.
    """
    universe = _made.get(token)
    if universe is None:
        universe = _made[token] = _introduced[token].make()
    return getattr(universe, name)(*args, **kw)


def _functionFor(token: str, name: str, universe: type) -> Callable[..., Any]:
    def method(*args: Any, **kw: Any) -> Any:
        return callIn(token, name, args, kw)

    # It is named so in messages.
    method.__name__ = name
    method.__qualname__ = f"{universe.__qualname__}.{name}"
    return method
