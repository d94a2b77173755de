"""
L{asynqueue.stores.parsing}.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.endpoints import _parse, quoteStringArgument
from zope.interface.verify import verifyObject

from asynqueue.stores.errors import StoreStringRefused, StoreUnavailable
from asynqueue.stores.interfaces import IStore
from asynqueue.stores.parsing import parsed, storeFromString
from tests.doubles import resultOf
from twisted import plugins

PLUGIN = """
from twisted.plugin import IPlugin
from zope.interface import implementer
from asynqueue.stores.interfaces import IStoreParser

@implementer(IPlugin, IStoreParser)
class Parser:
    prefix = "shelf"

    def parseStore(self, reactor, *args, **named):
        return reactor, args, named

parser = Parser()
"""


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """
    A plugin for strings that begin with C{shelf:}.
    """
    (tmp_path / "asynqueue_tests_shelf.py").write_text(PLUGIN)
    monkeypatch.setattr(plugins, "__path__", [*plugins.__path__, str(tmp_path)])
    return iter([None])


def refusal(description: str) -> str:
    """
    What is said of a string that means no store.
    """
    with pytest.raises(StoreStringRefused) as caught:
        storeFromString(description)
    return str(caught.value)


@pytest.mark.parametrize(
    "description",
    ["a:b", "a:b:c=d", "a:b=c:d", "a:", "a::b", r"a:C\:\\x", "a:b=c=d", r"a:b\=c", "a:=b", "a:b="],
)
def test_parsesAsEndpointsAre(description: str) -> None:
    """
    Strings are put together as Twisted's endpoints.
    """
    (prefix, *args), named = _parse(description)  # type: ignore[no-untyped-call]
    assert parsed(description) == (prefix, args, named)


def test_quotedPaths() -> None:
    """
    A path that Twisted has quoted is read as it was.
    """
    path = "C:\\jobs:old.db"
    quoted = quoteStringArgument(path)  # type: ignore[no-untyped-call]
    assert parsed(f"sqlite:{quoted}") == ("sqlite", [path], {})


@pytest.mark.parametrize(
    ("description", "name", "isShared"),
    [
        ("memory:", "memory:", False),
        ("sqlite:/x/jobs.db", "sqlite:/x/jobs.db", False),
        ("sqlite:/x/jobs.db:synchronous=normal", "sqlite:/x/jobs.db", False),
        ("postgresql:service=shop", "postgresql:service=shop", True),
        ("postgresql:host=/run:dbname=a b", "postgresql:host=/run:dbname=a b", True),
        ("postgresql:dbname=x:password=hush:schema=s", "postgresql:dbname=x:schema=s", True),
    ],
)
def test_stores(description: str, name: str, isShared: bool) -> None:
    """
    A string becomes a store that is not open.
    """
    store = storeFromString(description)
    assert verifyObject(IStore, store)
    assert (store.name, store.isShared) == (name, isShared)


def test_memoryNeedsNoThread() -> None:
    """
    A store in memory opens at once.
    """
    assert resultOf(storeFromString("memory:").open()) is None


@pytest.mark.parametrize(
    ("description", "said"),
    [
        ("jobs.db", "write a prefix, such as sqlite:, before 'jobs.db'"),
        ("", "write a prefix, such as sqlite:, before it"),
        (":x", "write a prefix, such as sqlite:, before it"),
        ("sqlite:x\\", "nothing follows the backslash"),
        ("sqlite:", "sqlite: means no store: write sqlite:PATH[:synchronous=normal] (the path"),
        ("sqlite:x:y", "write sqlite:PATH[:synchronous=normal] (too many positional arguments)"),
        ("sqlite:x:mode=rw", "got an unexpected keyword argument 'mode'"),
        ("sqlite:x:synchronous=off", "'off' is neither 'full' nor 'normal'"),
        ("memory:x", "write memory: (it has no arguments)"),
        ("postgresql:shop", "write postgresql:service=NAME, or host=HOST:dbname=NAME (too many"),
        ("postgresql:hots=here", 'dbname=NAME (invalid connection option "hots")'),
    ],
)
def test_whatMeansNoStore(description: str, said: str) -> None:
    """
    What cannot be understood is said with how it is written.
    """
    assert said in refusal(description)


def test_missingLibraryIsNamed(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Without psycopg a store in PostgreSQL cannot be used, and what to install is said.
    """
    monkeypatch.delitem(sys.modules, "asynqueue.stores.postgres.engine", raising=False)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(StoreUnavailable, match=r"install asynqueue\[postgresql\]"):
        storeFromString("postgresql:service=shop")


def test_unknownPrefix() -> None:
    """
    An unknown prefix is refused with those that are known, and the rest of the string is not said.
    """
    said = refusal("mysql:host=db:password=secret")
    assert said.startswith("mysql: means no store: no store has this prefix; those that are there")
    assert "memory:" in said
    assert "sqlite:" in said
    assert "secret" not in said


@pytest.mark.usefixtures("shelf")
def test_plugins() -> None:
    """
    Other prefixes come with plugins of Twisted.
    """
    store: Any = storeFromString("shelf:one:two=3", reactor := object())
    assert store == (reactor, ("one",), {"two": "3"})


@pytest.mark.usefixtures("shelf")
def test_pluginsAreNamed() -> None:
    """
    Prefixes of plugins are among those that are known.
    """
    assert "shelf:" in refusal("mysql:x")
