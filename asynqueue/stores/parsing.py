"""
Stores from strings, as settings and command lines have them: C{"sqlite:/var/lib/shop/jobs.db"}.

They are put together as Twisted's descriptions of endpoints: a prefix, then arguments with colons
before them, of which those with a name come as C{name=value}; a backslash goes before a colon, an
equals sign, or a backslash, that is part of a value.

  - C{memory:} is a store that ends with the program.
  - C{sqlite:PATH[:synchronous=normal]} is a file, which one program owns.
  - C{postgresql:service=shop} is a database, which programs share; other parameters are those of
    libpq, as C{host=/run/postgresql:dbname=shop}, and C{schema=asynqueue}, which has the tables.

Other prefixes come with plugins of Twisted that provide L{IStoreParser}.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from inspect import signature
from typing import Any

from attrs import frozen
from twisted.plugin import getPlugins

from asynqueue.stores.errors import StoreStringRefused, StoreUnavailable
from asynqueue.stores.interfaces import IStore, IStoreParser
from asynqueue.stores.memory import MemoryEngine
from asynqueue.stores.sqlite.engine import SQLiteEngine
from asynqueue.stores.store import Store
from asynqueue.stores.thread import DirectRunner


def _memory(reactor: Any, nothing: str = "") -> IStore:
    if nothing:
        raise TypeError("it has no arguments")
    return Store(MemoryEngine(), DirectRunner(), reactor=reactor)


def _sqlite(reactor: Any, path: str, *, synchronous: Any = "full") -> IStore:
    if not path:
        raise ValueError("the path is missing")
    return Store(SQLiteEngine(path, synchronous=synchronous), reactor=reactor)


def _postgresql(reactor: Any, /, *, schema: str = "asynqueue", **parameters: str) -> IStore:
    try:
        from asynqueue.stores.postgres.engine import PostgresEngine  # noqa: PLC0415
        from asynqueue.stores.postgres.problems import conninfoOf  # noqa: PLC0415
    except ImportError as error:
        # An extra, which needs a library of PostgreSQL as well.
        raise StoreUnavailable(
            "postgresql:", f"psycopg is missing ({error}): install asynqueue[postgresql]"
        ) from None
    return Store(PostgresEngine(conninfoOf(parameters), schema), reactor=reactor)


@frozen
class _Known:
    """
    A prefix that needs no plugin.

    @ivar usage: how it is written.
    @ivar make: makes the store, from a reactor and the arguments.
    """

    usage: str
    make: Callable[..., IStore]


# One row for each store of this package. What is optional is imported by C{make}, which
# then raises StoreUnavailable with the extra that is to be installed.
_KNOWN = {
    "memory": _Known("memory:", _memory),
    "postgresql": _Known("postgresql:service=NAME, or host=HOST:dbname=NAME", _postgresql),
    "sqlite": _Known("sqlite:PATH[:synchronous=normal]", _sqlite),
}


def storeFromString(description: str, reactor: Any = None) -> IStore:
    """
    Return the store that a string means. It is not opened, and nothing of it is looked up.

    @param reactor: the reactor, or an asyncio loop; C{None}: the one that runs when the store is
        opened.
    @raise StoreStringRefused: it means none.
    """
    prefix, args, named = parsed(description)
    known = _KNOWN.get(prefix)
    if known is None:
        store: IStore = _pluginFor(prefix).parseStore(reactor, *args, **named)
        return store
    try:
        signature(known.make).bind(reactor, *args, **named)
        return known.make(reactor, *args, **named)
    except (TypeError, ValueError) as error:
        raise StoreStringRefused(prefix, f"write {known.usage} ({error})") from error


def parsed(description: str) -> tuple[str, list[str], dict[str, str]]:
    """
    Return the prefix, the arguments without names, and those with names.

    @raise StoreStringRefused: it has no prefix, or ends in a backslash.
    """
    args: list[str] = []
    named: dict[str, str] = {}
    for part in _parts(description):
        if len(part) == 1:
            args.append(part[0])
        else:
            named[part[0]] = part[1]
    prefix, *args = args or [""]
    if not prefix or (not args and not named):
        # The whole may be a path, or have a password.
        raise StoreStringRefused("", f"write a prefix, such as sqlite:, before {_quoted(prefix)}")
    return prefix, args, named


def _parts(description: str) -> Iterator[list[str]]:
    """
    Iterate over what is between colons: each a value, or a name and a value.
    """
    part = [""]
    characters = iter(description)
    for character in characters:
        if character == "\\":
            try:
                part[-1] += next(characters)
            except StopIteration:
                raise StoreStringRefused("", "nothing follows the backslash at its end") from None
        elif character == ":":
            yield part
            part = [""]
        elif character == "=" and len(part) == 1:
            part.append("")
        else:
            part[-1] += character
    yield part


def _quoted(text: str) -> str:
    return repr(text) if text else "it"


def _pluginFor(prefix: str) -> Any:
    plugins = {plugin.prefix: plugin for plugin in getPlugins(IStoreParser)}
    try:
        return plugins[prefix]
    except KeyError:
        known = ", ".join(sorted(f"{each}:" for each in {*_KNOWN, *plugins}))
        raise StoreStringRefused(
            prefix, f"no store has this prefix; those that are there are {known}"
        ) from None
