"""
L{asynqueue.wire.host.catalog}: what may be called, and that nothing else can be.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from functools import lru_cache, partial, partialmethod
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from asynqueue.errors import NoSuchCallable, RemoteProtocolError
from asynqueue.wire.host.catalog import Catalog, Definitions, WireWorkerUniverse


class Mixin:
    """
    Not a universe by itself.
    """

    def mixed(self) -> str:
        return "mixed"


class Universe(Mixin, WireWorkerUniverse):
    """
    Has one of each.
    """

    constant = 3
    shell = os.system
    popen = subprocess.Popen
    asynchronous = partial(print)

    def __init__(self, wireServer: Any = None) -> None:
        super().__init__(wireServer)
        self.attribute = lambda: "an attribute of the instance"
        self.asked = 0

    def method(self) -> str:
        return "method"

    @staticmethod
    def static() -> str:
        return "static"

    @classmethod
    def ofClass(cls) -> str:
        return cls.__name__

    @lru_cache  # noqa: B019
    def cached(self) -> str:
        return "cached"

    def double(self, n: int) -> int:
        return 2 * n

    four = partialmethod(double, 2)

    async def coroutine(self) -> None:
        """
        A coroutine function.
        """

    def generate(self) -> Iterator[int]:
        yield 1

    @property
    def ask(self) -> Any:
        self.asked += 1
        return os.system

    def _private(self) -> None:
        """
        Not for others.
        """

    class Nested:
        """
        Not for others either.
        """


class Sub(Universe):
    """
    Takes a method away.
    """

    method = None  # type: ignore[assignment]  # what it is about


METHODS = [
    "cached",
    "coroutine",
    "double",
    "four",
    "generate",
    "method",
    "mixed",
    "ofClass",
    "static",
]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """
    A package to be allowed: the name of it. It has what it defines, what it imports, and
    modules below it.
    """
    (tmp_path / "wired").mkdir()
    (tmp_path / "wiredtoo.py").write_text("def other(): pass\n")
    (tmp_path / "wired" / "__init__.py").write_text(
        "import os, subprocess, sys\n"
        "from os import system\n"
        "from subprocess import run, Popen\n"
        "from functools import partial, lru_cache\n"
        "from wiredtoo import other\n"
        "import wiredtoo as too\n"
        "def own(): return 'own'\n"
        "@lru_cache\n"
        "def kept(): return 'kept'\n"
        "def _hidden(): pass\n"
        "hook = partial(system)\n"
        "alias = system\n"
        "class Open(Popen): pass\n"
        "class Tool:\n"
        "    instance = None\n"
        "    imported = run\n"
        "    module = os\n"
        "    theirs = Popen\n"
        "    def make(self): return 'made'\n"
        "    @staticmethod\n"
        "    def static(): return 'static'\n"
        "    @staticmethod\n"
        "    def leak(): pass\n"
        "    leak = staticmethod(system)\n"
        "    @classmethod\n"
        "    def ofClass(cls): return cls.__name__\n"
        "    def _hidden(self): pass\n"
        "    @property\n"
        "    def asked(self): raise SystemExit\n"
        "    class Inner:\n"
        "        def deep(self): return 'deep'\n"
        "class Meta(type):\n"
        "    def __getattr__(cls, name): return system\n"
        "class Magic(metaclass=Meta): pass\n"
        "class Call:\n"
        "    def __call__(self): pass\n"
        "called = Call()\n"
        "def __getattr__(name): return system\n"
        "Tool.instance = Tool()\n"
    )
    (tmp_path / "wired" / "below.py").write_text("from wired import own\ndef low(): return 'low'\n")
    (tmp_path / "wired" / "_private.py").write_text("def low(): pass\n")
    (tmp_path / "wired" / "broken.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "wired"
    for name in [name for name in sys.modules if name.partition(".")[0] in ("wired", "wiredtoo")]:
        del sys.modules[name]


# The universe -----------------------------------------------------------------


def test_publicMethodsAreNamed() -> None:
    """
    The methods of the subclass, of any kind and inherited ones too, can be called.
    """
    assert Catalog(Universe()).names == METHODS


@pytest.mark.parametrize(
    ("name", "result"),
    [
        ("method", "method"),
        ("static", "static"),
        ("ofClass", "Universe"),
        ("cached", "cached"),
        ("four", 4),
        ("mixed", "mixed"),
    ],
)
def test_methodsAreFoundByName(name: str, result: Any) -> None:
    """
    A method is found by its name, bound to the universe, and found again the same.
    """
    catalog = Catalog(Universe())
    assert catalog.resolve(name)() == result
    assert catalog.resolve(name) is catalog.resolve(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "check",
        "wireServer",
        "constant",
        "shell",
        "popen",
        "asynchronous",
        "attribute",
        "ask",
        "Nested",
        "Nested.__init__",
        "_private",
        "__init__",
        "__class__",
        "__reduce__",
        "__subclasshook__",
        "method.__func__",
        "method.__globals__",
        "mro",
        "os:system",
        "builtins:eval",
        "unknown",
    ],
)
def test_nothingElseOfAUniverseIsFound(name: str) -> None:
    """
    Attributes, properties, classes, private and dunder names, the methods of the base and
    whatever is in modules cannot be called.
    """
    universe = Universe()
    with pytest.raises(NoSuchCallable) as caught:
        Catalog(universe).resolve(name)
    assert caught.value.name == name
    assert universe.asked == 0


def test_anAttributeDoesNotTakeAMethodsPlace() -> None:
    """
    What an instance has under the name of a method is not called by others.
    """
    universe = Universe()
    universe.method = os.getcwd  # type: ignore[method-assign]
    assert Catalog(universe).resolve("method")() == "method"


def test_aSubclassTakesAMethodAway() -> None:
    """
    What a subclass has replaced by something else is not found behind it.
    """
    catalog = Catalog(Sub())
    assert "method" not in catalog.names
    with pytest.raises(NoSuchCallable):
        catalog.resolve("method")


def test_theErrorSaysWhatThereIs() -> None:
    """
    Who asks for an unknown method is told the methods.
    """
    with pytest.raises(NoSuchCallable, match="cached, coroutine, double"):
        Catalog(Universe()).resolve("metod")


def test_withoutUniverseThereIsNoMethod() -> None:
    """
    A host without universe says so.
    """
    catalog = Catalog()
    assert catalog.names == []
    with pytest.raises(NoSuchCallable, match="no universe"):
        catalog.resolve("method")


def test_checkTellsUniverses() -> None:
    """
    An instance of a subclass is a universe; anything else is a TypeError.
    """
    assert WireWorkerUniverse.check(Universe()) is True
    for wrong in (None, Universe, object(), "Universe"):
        with pytest.raises(TypeError, match="no instance"):
            WireWorkerUniverse.check(wrong)


def test_aUniverseKnowsItsServer() -> None:
    """
    The server that a universe was made with is an attribute, also where a subclass does
    not ask the base.
    """

    class Forgetful(WireWorkerUniverse):
        def __init__(self) -> None:
            """
            Does not ask.
            """

    assert Universe("server").wireServer == "server"
    assert Forgetful().wireServer is None


@given(name=st.text(max_size=30) | st.from_regex(r"[a-z_.:]{0,30}", fullmatch=True))
def test_anyOtherNameIsNoSuchCallable(name: str) -> None:
    """
    Whatever a stranger sends as a name, it is one of the methods or an error of ours.
    """
    catalog = Catalog(Universe(), ["json"], "modules")
    try:
        found = catalog.resolve(name)
    except NoSuchCallable:
        return
    assert name in METHODS or found.__module__ == "json"


# Modules ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "result"),
    [
        ("wired:own", "own"),
        ("wired:kept", "kept"),
        ("wired:Tool.static", "static"),
        ("wired:Tool.ofClass", "Tool"),
    ],
)
def test_functionsOfAModuleAreFound(package: str, name: str, result: str) -> None:
    """
    What an allowed module defines at its top, and in its classes, can be called.
    """
    assert Catalog(None, [package], "modules").resolve(name)() == result


def test_classesOfAModuleAreFound(package: str) -> None:
    """
    A class can be called, and its functions with an instance.
    """
    catalog = Catalog(None, [package], "modules")
    tool = catalog.resolve("wired:Tool")()
    assert catalog.resolve("wired:Tool.make")(tool) == "made"
    inner = catalog.resolve("wired:Tool.Inner")()
    assert catalog.resolve("wired:Tool.Inner.deep")(inner) == "deep"


@pytest.mark.parametrize(
    "name",
    [
        "os:system",
        "wired:os.system",
        "wired:system",
        "wired:alias",
        "wired:hook",
        "wired:run",
        "wired:Popen",
        "wired:Open.communicate",
        "wired:other",
        "wired:too.other",
        "wiredtoo:other",
        "wired:sys.modules",
        "wired:partial",
        "wired:called",
        "wired:called.__call__",
        "wired:dynamic",
        "wired:_hidden",
        "wired:__getattr__",
        "wired:own.__globals__",
        "wired:own.__code__",
        "wired:Tool.imported",
        "wired:Tool.module",
        "wired:Tool.module.system",
        "wired:Tool.theirs",
        "wired:Tool.theirs.communicate",
        "wired:Tool.leak",
        "wired:Tool.instance",
        "wired:Tool.instance.make",
        "wired:Tool.asked",
        "wired:Tool._hidden",
        "wired:Tool.__init__",
        "wired:Tool.__subclasses__",
        "wired:Tool.mro",
        "wired:Magic.system",
        "wired:Meta.mro",
        "wired.below:low",
        "wired._private:low",
        "wired",
        "wired:",
        ":own",
        ":",
        "wired:own:own",
        "wired:.own",
        "wired..below:low",
        ".wired:own",
        "wired:own ",
        "wired:own\n",
        "../wired:own",
        "wired:Tool.",
        "wired\0:own",
    ],
)
def test_nothingElseOfAModuleIsFound(package: str, name: str) -> None:
    """
    What a module has imported, objects, partials, private names, modules below or beside
    it, and whatever is no name cannot be called.
    """
    with pytest.raises(NoSuchCallable):
        Catalog(None, [package], "modules").resolve(name)


def test_modulesBelowAPackageAreFound(package: str) -> None:
    """
    With C{package.*} the modules below are allowed as well, and what they share.
    """
    catalog = Catalog(None, ["wired.*"], "modules")
    assert catalog.resolve("wired:own")() == "own"
    assert catalog.resolve("wired.below:low")() == "low"
    assert catalog.resolve("wired.below:own")() == "own"


@pytest.mark.parametrize(
    "name", ["wired._private:low", "wired.broken:low", "wired.missing:low", "wiredtoo:other"]
)
def test_privateAndBrokenModulesAreNotFound(package: str, name: str) -> None:
    """
    Private modules, those that cannot be imported, and those whose names only begin alike
    have nothing to call.
    """
    with pytest.raises(NoSuchCallable):
        Catalog(None, ["wired.*"], "modules").resolve(name)


def test_onlyAllowedModulesAreImported(package: str) -> None:
    """
    To ask for what is not allowed imports nothing.
    """
    catalog = Catalog(None, [package], "modules")
    for name in ("wired.below:low", "wired.broken:low", "this:that"):
        with pytest.raises(NoSuchCallable):
            catalog.resolve(name)
    assert not {"wired.below", "wired.broken", "this"} & sys.modules.keys()


def test_functionsWrittenInCAreFound() -> None:
    """
    What a module defines in C can be called.
    """
    assert Catalog(None, ["math"], "modules").resolve("math:sqrt")(9) == 3


def test_notEveryNameIsKept() -> None:
    """
    What is found by ever longer names, as classes that hold each other have them, is found,
    and not kept without end.
    """
    catalog = Catalog(Universe(), mostKept=1)
    assert catalog.resolve("method") is catalog.resolve("method")
    assert catalog.resolve("double") is not catalog.resolve("double")


@pytest.mark.parametrize(
    ("args", "error"),
    [
        ((None, ["math"], "universe"), ValueError),
        ((None, [], "modules"), ValueError),
        ((None, [], "everybody"), ValueError),
        ((None, "math", "modules"), TypeError),
        ((None, ["no.such.module"], "modules"), ImportError),
        ((object(), [], "universe"), TypeError),
        ((Universe, [], "universe"), TypeError),
    ],
)
def test_whatHasNoSenseIsRefused(args: Any, error: type[Exception]) -> None:
    """
    A catalog that would allow nothing of what it names, or more than it says, is not made.
    """
    with pytest.raises(error):
        Catalog(*args)


# Code -------------------------------------------------------------------------


def definitions(trusted: bool = True, **limits: int) -> Definitions:
    """
    Where what is defined is a number, and makes a function that gives it.
    """
    return Definitions(trusted, lambda body: partial(int, body), **limits)


def test_definedFunctionsAreMadeOnce() -> None:
    """
    A function that was defined is made when it is called first, and then is the same.
    """
    ours = Definitions(True, lambda body: lambda: 12)
    ours.define(7, b"")
    assert ours.defined("7")() == 12
    assert ours.defined("7").opened() is ours.defined("7").opened()


def test_whatACallMayChangeIsMadeAnew() -> None:
    """
    What has a state is made for each call, as it was defined.
    """
    ours = Definitions(True, lambda body: [].append)
    ours.define(7, b"")
    ours.defined("7")(1)
    added: Any = ours.defined("7").opened()
    assert added.__self__ == []


def test_definitionsAreReplacedAndForgotten() -> None:
    """
    A number stands for what was defined last, and for nothing when it is forgotten.
    """
    ours = definitions()
    ours.define(7, b"12")
    assert ours.defined("7")() == 12
    ours.define(7, b"13")
    assert ours.defined("7")() == 13
    ours.forget(7)
    ours.forget(8)
    for name in ("7", "8", "x", "", "-1", "1e3"):
        with pytest.raises(NoSuchCallable):
            ours.defined(name)


def test_codeIsTakenWithTrustOnly() -> None:
    """
    A host that does not trust code takes none.
    """
    with pytest.raises(RemoteProtocolError, match="trust='code'"):
        definitions(trusted=False).define(1, b"1")


def test_definitionsHaveALimit() -> None:
    """
    Too many callables, or too large ones, are an error; forgotten ones do not count.
    """
    ours = definitions(most=2, mostBytes=10)
    for number in range(20):
        ours.define(number, b"12")
        ours.forget(number - 1)
    ours.define(20, b"1")
    with pytest.raises(RemoteProtocolError):
        ours.define(21, b"1")
    with pytest.raises(RemoteProtocolError):
        definitions(mostBytes=10).define(1, b"1" * 11)
