"""
What may be called on a host, by which names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from asynqueue.allowed import METHODS, AllowedModules
from asynqueue.checks import listOf
from asynqueue.codec import decode
from asynqueue.constancy import ClosedCallable
from asynqueue.errors import NoSuchCallable, RemoteProtocolError

#: What a host trusts those with who have proved themselves.
TRUSTS = ("universe", "modules", "code")

# The most names that are told of in a message.
_TOLD = 12


class WireWorkerUniverse:
    """
    What others may call here: subclass it. The methods of your subclass whose names do
    not begin with an underscore, inherited ones included, can be called by name from
    other hosts, and nothing else of it can.

    @ivar wireServer: the server that runs the methods, where there is one.
    """

    wireServer: Any = None

    def __init__(self, wireServer: Any = None) -> None:
        """
        @param wireServer: the server that runs the methods.
        """
        self.wireServer = wireServer

    @classmethod
    def check(cls, instance: Any) -> bool:
        """
        Make sure that an object is an instance of this class.

        @return: C{True}.
        @raise TypeError: it is none.
        """
        if not isinstance(instance, cls):
            raise TypeError(
                f"{instance!r} is no instance of a subclass of {cls.__qualname__}: derive its class"
                " from that"
            )
        return True


def methodNames(universe: type[WireWorkerUniverse]) -> list[str]:
    """
    Return the names of the methods of a universe that can be called, sorted.
    """
    return [name for name in sorted(dir(universe)) if isMethod(universe, name)]


def isMethod(universe: type[WireWorkerUniverse], name: str) -> bool:
    """
    Return whether a name is that of a method that can be called.
    """
    return _method(universe, name) is not None


def _method(universe: type[WireWorkerUniverse], name: str) -> Any:
    """
    Find a method as it stands in the class, if it can be called.
    """
    if not name.startswith("_"):
        for each in universe.__mro__:
            if name in vars(each):
                found = vars(each)[name]
                ours = each is WireWorkerUniverse
                return found if isinstance(found, METHODS) and not ours else None
    return None


class Catalog:
    """
    Finds what is to be called by the names that a queue sends: C{method} for a method of
    the universe, C{module:qualified.name} for a function or class of an allowed module.

    @ivar trust: one of L{TRUSTS}: methods of the universe can be called with all of them,
        those of allowed modules with C{"modules"} and C{"code"}, and any code that the
        queue sends with C{"code"}.
    @ivar names: the names of the methods of the universe.
    """

    def __init__(
        self,
        universe: WireWorkerUniverse | None = None,
        modules: Iterable[str] = (),
        trust: str = "universe",
        *,
        mostKept: int = 10_000,
    ) -> None:
        """
        @param universe: whose methods can be called.
        @param modules: which modules' own functions and classes can be called; those
            named C{package.*} with all that is below them. They are imported now, and
            the modules below them when they are asked for.
        @param mostKept: how many callables are kept by their names: classes that hold each
            other have no end of them.
        @raise TypeError: the universe is none, or C{modules} is a string.
        @raise ValueError: the words do not fit together.
        @raise ImportError: there is no such module.
        """
        if universe is not None:
            WireWorkerUniverse.check(universe)
        if trust not in TRUSTS:
            raise ValueError(f"trust must be one of {', '.join(TRUSTS)}, not {trust!r}")
        patterns = listOf(modules, "modules")
        if patterns and trust == "universe":
            raise ValueError(
                "functions of modules can be called with trust='modules' or 'code' only: give that"
            )
        if trust == "modules" and not patterns:
            raise ValueError("trust='modules' needs the names of the modules that are allowed")
        self.trust = trust
        self._allowed = AllowedModules(patterns)
        self._mostKept = mostKept
        self._universe = universe
        self.names = [] if universe is None else methodNames(type(universe))
        # What was found is found again at once: a hot path.
        self._found: dict[str, Callable[..., Any]] = {}

    def resolve(self, name: str) -> Callable[..., Any]:
        """
        Find what is to be called by a name. A hot path.

        @raise NoSuchCallable: nothing is.
        """
        found = self._found.get(name)
        if found is None:
            if ":" in name:
                found = self._ofModule(name)
            else:
                found = self._ofUniverse(name)
            if len(self._found) < self._mostKept:
                self._found[name] = found
        return found

    def _ofUniverse(self, name: str) -> Callable[..., Any]:
        universe = self._universe
        if universe is None:
            raise NoSuchCallable(name, "this host has no universe")
        method = _method(type(universe), name)
        if method is None:
            more = ", ..." if len(self.names) > _TOLD else ""
            known = ", ".join(self.names[:_TOLD]) or "none"
            raise NoSuchCallable(name, f"the methods of its universe are {known}{more}")
        # Not by getattr: what the instance has put in its place is no method.
        found: Callable[..., Any] = method.__get__(universe, type(universe))
        return found

    def _ofModule(self, name: str) -> Callable[..., Any]:
        if self.trust == "universe":
            raise NoSuchCallable(name, "this host runs the methods of its universe only")
        return self._allowed.resolve(name)


class Definitions:
    """
    The callables that one queue has defined for a host that trusts its code.
    """

    def __init__(
        self,
        trusted: bool,
        decode: Callable[[bytes], Any] = decode,
        *,
        most: int = 10_000,
        mostBytes: int = 256 << 20,
    ) -> None:
        """
        @param trusted: whether there may be any.
        @param decode: makes a callable of what defines it.
        @param most: how many there may be at once.
        @param mostBytes: how many bytes they may have together.
        """
        self._trusted = trusted
        self._decode = decode
        self._most = most
        self._mostBytes = mostBytes
        self._defined: dict[int, ClosedCallable] = {}
        self._bytes = 0

    def define(self, number: int, body: bytes) -> None:
        """
        Have this number be a callable from now on. It is made when it is called.

        @raise RemoteProtocolError: that is not allowed.
        """
        if not self._trusted:
            raise RemoteProtocolError("code was sent to a host that takes none: trust='code'")
        self.forget(number)
        self._defined[number] = ClosedCallable(body, self._decode)
        self._bytes += len(body)
        if len(self._defined) > self._most or self._bytes > self._mostBytes:
            raise RemoteProtocolError(f"{len(self._defined):,} callables are too many")

    def forget(self, number: int) -> None:
        """
        Have this number be no callable any more.
        """
        closed = self._defined.pop(number, None)
        if closed is not None:
            self._bytes -= len(closed.packed)

    def defined(self, name: str) -> ClosedCallable:
        """
        Return the callable of a number, in digits, as it was defined. A hot path.

        @raise NoSuchCallable: there is none.
        """
        try:
            return self._defined[int(name)]
        except (ValueError, KeyError):
            raise NoSuchCallable(name, "no callable was defined by this number") from None
