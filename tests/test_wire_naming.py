"""
What tasks call, in the words of a host.
"""

from __future__ import annotations

import functools
import math
import os.path
import random
from typing import Any

import pytest

from asynqueue.errors import NoSuchCallable
from asynqueue.wire.client.naming import Naming
from asynqueue.wire.host.catalog import WireWorkerUniverse, methodNames
from asynqueue.wire.protocol.messages import CallFlag, unpackedCall


class Universe(WireWorkerUniverse):
    """
    Some methods.
    """

    def add(self, one: int, two: int) -> int:
        """
        A sum.
        """
        return one + two

    @classmethod
    def make(cls) -> str:
        """
        A name.
        """
        return cls.__name__


class Names:
    """
    A naming, and what it had the host told.
    """

    def __init__(self, trust: str = "modules", universe: Any = None) -> None:
        self.told: list[tuple[Any, ...]] = []
        self._last = 0
        self.naming = Naming(
            trust,
            None if universe is None else frozenset(methodNames(type(universe))),
            universe,
            lambda number, pickled: self.told.append(("define", number)),
            lambda number: self.told.append(("forget", number)),
        )

    def of(self, f: Any, flags: int = 0) -> tuple[int, str, int]:
        """
        The flags and the name of a call, and behind which definition it must stay.
        """
        self._last += 1
        head, definition = self.naming.head(f, flags, self._last, self._last)
        flags, name, rest = unpackedCall(head)
        assert not rest
        return flags, name, definition


def test_aStringIsAName() -> None:
    """
    A string names what the host has, with a colon also in a module.
    """
    names = Names()
    assert names.of("method") == (0, "method", 0)
    assert names.of("module:f", 3) == (3, "module:f", 0)


def test_theUniverseSaysWhatThereIs() -> None:
    """
    With a universe, a name that it does not have is refused at once, and the error tells
    those there are; names with a colon are for the host to judge.
    """
    names = Names(universe=Universe())
    assert names.of("add") == (0, "add", 0)
    with pytest.raises(NoSuchCallable, match="add, make"):
        names.of("subtract")
    assert names.of("asynqueue:status") == (0, "asynqueue:status", 0)


def test_methodsOfTheUniverse() -> None:
    """
    A method of the universe has its own name, whatever the host trusts.
    """
    universe = Universe()
    for trust in ("universe", "modules", "code"):
        names = Names(trust, universe)
        assert names.of(universe.add) == (0, "add", 0)
        assert names.of(universe.make) == (0, "make", 0)
        assert names.told == []


def test_ofAnotherUniverseTheyAreFunctions() -> None:
    """
    The method of another instance is called with that.
    """
    names = Names("code", Universe())
    flags, _, definition = names.of(Universe().add)
    assert (flags, definition) == (CallFlag.DEFINED, 1)


def test_functionsByTheirPlace() -> None:
    """
    A host that takes no code is told where it finds a function, a class or anything that
    has such a name.
    """
    names = Names()
    assert names.of(math.floor)[1] == "math:floor"
    assert names.of(os.path.join)[1] == "posixpath:join"
    assert names.of(dict)[1] == "builtins:dict"
    assert names.of(Universe.add)[1] == f"{__name__}:Universe.add"
    wrapped = functools.update_wrapper(functools.partial(math.floor), math.floor)
    assert names.of(wrapped)[1] == "math:floor"


class Sub(Universe):
    """
    Inherits a method of the class.
    """


def test_methodsByTheirPlace() -> None:
    """
    A method of a class is named by the class that it is called with, and one of an object
    that its module has under that name by that.
    """
    names = Names()
    assert names.of(Universe.make)[1] == f"{__name__}:Universe.make"
    assert names.of(Sub.make)[1] == f"{__name__}:Sub.make"
    assert names.of(random.randint)[1] == "random:randint"


def test_methodsOfObjectsAreNotFunctions() -> None:
    """
    A host that takes no code has not the object of a method, and is not asked to call the
    function without it.
    """
    with pytest.raises(NoSuchCallable, match=r"object of this program.*trust='code'"):
        Names().of(Universe().add)


def test_namesOfOthersAreNotTaken() -> None:
    """
    A function by whose name the module has another one is not called by it.
    """

    @functools.wraps(os.path.join)
    def other() -> None:
        """
        It does nothing.
        """

    with pytest.raises(NoSuchCallable, match="stands for something else"):
        Names().of(other)


@pytest.mark.parametrize("f", [lambda: 0, functools.partial(abs)])
def test_noNameNoCall(f: Any) -> None:
    """
    What has no name cannot be called on such a host, and the error says what could be
    done.
    """
    with pytest.raises(NoSuchCallable, match="trust='code'"):
        Names().of(f)


def test_codeIsDefinedOnce() -> None:
    """
    A host that takes code is sent a function once, and told its number from then on.
    """
    names = Names("code")
    f = lambda: 0  # noqa: E731
    assert names.of(f) == (CallFlag.DEFINED, "1", 1)
    assert names.of(f, CallFlag.RAW) == (CallFlag.DEFINED | CallFlag.RAW, "1", 1)
    assert names.of(math.floor) == (CallFlag.DEFINED, "2", 2)
    assert names.told == [("define", 1), ("define", 2)]


@pytest.mark.bulk
def test_codeIsForgotten() -> None:
    """
    Of thousands of functions a host is told to forget the older ones.
    """
    names = Names("code")
    for number in range(3000):
        names.of(lambda number=number: number)
    assert ("forget", 1) in names.told


def test_threadIsAnOption() -> None:
    """
    In a call by name C{thread} says where it is run, and is not passed on; the keywords
    of the caller are left as they were.
    """
    universe = Universe()
    naming = Names(universe=universe).naming
    kw = {"thread": True, "one": 1}
    assert naming.options("add", 0, kw) == (CallFlag.THREAD, {"one": 1})
    assert naming.options(universe.add, CallFlag.RAW, kw) == (
        CallFlag.THREAD | CallFlag.RAW,
        {"one": 1},
    )
    assert naming.options("add", CallFlag.THREAD, {"thread": False}) == (0, {})
    assert kw == {"thread": True, "one": 1}


def test_functionsMayHaveThatKeyword() -> None:
    """
    The keyword C{thread} of a function is its own.
    """
    kw = {"thread": True}
    assert Names().naming.options(math.floor, 0, kw) == (0, kw)


def test_whatIsCachedDoesNotGrow() -> None:
    """
    Names without end do not fill the memory.
    """
    names = Names()
    for number in range(10_000):
        names.of(f"method{number}")
    assert len(names.naming._heads) <= 4096
