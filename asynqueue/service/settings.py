"""
What a service can be told, and how: one table, of which the options of C{asynqueue
worker}, those of the twistd plugin and the keys of configuration files are made.

It knows neither reactors nor argument parsers.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from math import inf
from pathlib import Path
from re import sub as replaced
from typing import Any

from attrs import field, fields, frozen

from asynqueue.cores import cores
from asynqueue.errors import AsynQueueError

TRUST = ("universe", "modules", "code")
CODECS = ("pickle", "cbor")
LEVELS = ("critical", "error", "warn", "info", "debug")

_KEY = "asynqueue-option"


class SettingsError(AsynQueueError, ValueError):
    """
    A service cannot be what it is told to be: the message says which setting is wrong,
    where it stands, and what it should be.
    """


@frozen
class ValueType:
    """
    What a setting takes.

    @ivar metavar: what stands for it in help; empty for a flag, which is given or not.
    @ivar read: makes a value of the text of a command line. A C{ValueError} says what it
        should be.
    @ivar check: makes a value of what a file has, or raises L{SettingsError}.
    @ivar many: whether it may be given more than once.
    """

    metavar: str
    read: Callable[[str], Any]
    check: Callable[[Any], Any]
    many: bool = False


def text(metavar: str) -> ValueType:
    """
    Return the type of some characters.
    """
    return ValueType(metavar, _someText, _someText)


def words(metavar: str) -> ValueType:
    """
    Several words: on a command line separated by commas, or given one by one.
    """

    def read(given: str) -> tuple[str, ...]:
        return tuple(_someText(word.strip()) for word in given.split(","))

    def check(given: Any) -> tuple[str, ...]:
        if isinstance(given, str):
            return read(given)
        if not isinstance(given, (list, tuple)):
            raise ValueError('a list such as ["one", "two"]')
        return tuple(_someText(word) for word in given)

    return ValueType(metavar, read, check, many=True)


def choice(*names: str) -> ValueType:
    """
    Return the type of one of these names.
    """

    def check(given: Any) -> str:
        if given not in names:
            raise ValueError(f"one of {', '.join(names)}")
        return str(given)

    return ValueType("|".join(names), check, check)


def whole(least: int) -> ValueType:
    """
    Return the type of a whole number.

    @param least: it is not less.
    """
    what = f"a whole number, {least} or more"

    def check(given: Any) -> int:
        if type(given) is not int or given < least:
            raise ValueError(what)
        return given

    return ValueType("N", lambda given: check(_made(int, given, what)), check)


def seconds() -> ValueType:
    """
    Return the type of a time in seconds, which may be 0, and not infinite.
    """
    what = "a number of seconds, 0 or more"

    def check(given: Any) -> float:
        if type(given) not in (int, float) or not 0 <= given < inf:
            raise ValueError(what)
        return float(given)

    return ValueType("SECONDS", lambda given: check(_made(float, given, what)), check)


def flag() -> ValueType:
    """
    Yes or no.
    """

    def check(given: Any) -> bool:
        if type(given) is not bool:
            raise ValueError("true or false")
        return given

    return ValueType("", lambda given: True, check)


def _someText(given: Any) -> str:
    if not isinstance(given, str) or not given:
        raise ValueError("some text")
    return given


def _made(maker: Callable[[str], Any], given: str, what: str) -> Any:
    try:
        return maker(given)
    except ValueError:
        raise ValueError(what) from None


@frozen
class Option:
    """
    A row of the table.

    @ivar name: C{--name} on command lines, C{name} in files.
    @ivar attribute: its attribute of L{Settings}.
    @ivar takes: what it takes.
    @ivar help: what it is good for, in a sentence.
    @ivar default: what holds if nothing is said.
    @ivar inFile: whether it may stand in a file.
    """

    name: str
    attribute: str
    takes: ValueType
    help: str
    default: Any
    inFile: bool

    def read(self, given: Iterable[str] | str) -> Any:
        """
        Return the value that a command line gives: of one text, or of several where there may be
        more.

        @raise SettingsError: it is none for this option.
        """
        try:
            if self.takes.many and not isinstance(given, str):
                return tuple(word for part in given for word in self.takes.read(part))
            return self.takes.read(str(given))
        except ValueError as error:
            raise SettingsError(f"--{self.name} takes {error}, not {given!r}") from None

    def fullHelp(self) -> str:
        """
        Return the help, with the default.
        """
        if self.default in (None, (), False):
            return self.help
        shown = f"{self.default:g}" if isinstance(self.default, float) else self.default
        return f"{self.help}  [default: {shown}]"


def _option(takes: ValueType, help: str, default: Any = None, inFile: bool = True) -> Any:
    """
    Return a field of L{Settings}, with what its option says.
    """
    if takes.many:
        default = ()
    elif not takes.metavar:
        default = False
    return field(default=default, metadata={_KEY: (takes, help, inFile)})


@frozen(kw_only=True)
class Settings:
    """
    What a service is to be: the table of its options.
    """

    config: str | None = _option(
        text("FILE"),
        "Settings in TOML, under the same names; what the command line says wins.",
        inFile=False,
    )
    listen: str | None = _option(
        text("ENDPOINT"),
        "Where queues connect to, such as tcp:4000:interface=127.0.0.1, unix:/run/crew.sock,"
        " tls:4000:certificate=FILE:privateKey=FILE, or systemd:domain=UNIX:index=0.",
    )
    connect: str | None = _option(
        text("ENDPOINT"),
        "A queue to serve, which listens with a WireHub, such as tls:queue.example.org:4000."
        " It is dialed again whenever the connection is lost.",
    )
    universe: str | None = _option(
        text("MODULE.CLASS"), "A WireWorkerUniverse: its public methods may be called by name."
    )
    allow: tuple[str, ...] = _option(
        words("MODULE,..."),
        "Modules whose own public functions may be called by name; pkg.* means a package"
        " and all below it.",
    )
    trust: str | None = _option(
        choice(*TRUST),
        "What may be called: methods of the universe; functions of the allowed modules, too;"
        " or any code that a queue sends."
        "  [default: modules with --allow, else universe]",
    )
    processes: int | None = _option(
        whole(0),
        "How many processes make the calls; with 0 the reactor makes them, where nothing may"
        " block.  [default: one for each core where functions may be called; 0 where methods"
        " only]",
    )
    threads: int | None = _option(
        whole(1),
        "How many threads there are for calls that ask for one (thread=True)."
        "  [default: one for each core]",
    )
    concurrent: int = _option(
        whole(1), "Without processes: how many calls may wait in the reactor at once.", 100
    )
    series: tuple[str, ...] = _option(
        words("NAME,..."), "Series that the queues may send here, besides those without."
    )
    keyFile: str | None = _option(
        text("FILE"),
        "The key with which both sides prove themselves, made by `asynqueue keys`."
        "  [default: what ASYNQUEUE_KEY_FILE names]",
    )
    codec: str = _option(
        choice(*CODECS),
        "How arguments and results are written; with cbor, nothing that comes can be code.",
        "pickle",
    )
    heartbeat: float = _option(
        seconds(), "After so long a silence the other side is asked; 0 asks never.", 10.0
    )
    grace: float = _option(
        seconds(),
        "How long running calls may go on after SIGTERM or Ctrl-C; a second one ends all.",
        10.0,
    )
    logLevel: str | None = _option(
        choice(*LEVELS), "The least level of what is logged.  [default: info]"
    )
    logJson: bool = _option(flag(), "Log one line of JSON for each event.")


def _table() -> tuple[Option, ...]:
    rows = []
    for attribute in fields(Settings):
        takes, help, inFile = attribute.metadata[_KEY]
        name = replaced("[A-Z]", lambda match: f"-{match[0].lower()}", attribute.name)
        rows.append(Option(name, attribute.name, takes, help, attribute.default, inFile))
    return tuple(rows)


OPTIONS = _table()
"""All options, in the order in which help lists them."""


def settingsOf(given: Mapping[str, Any]) -> Settings:
    """
    Return the settings of a command line, and of the file that it names.

    @param given: values by the names of options, as L{Option.read} makes them: only what
        the command line says.
    @raise SettingsError: a value is none for its option, or they do not fit together.
    """
    path = given.get("config")
    merged = {**(fileSettings(Path(path)) if path is not None else {}), **given}
    attributes = {option.name: option.attribute for option in OPTIONS}
    settings = Settings(**{attributes[name]: value for name, value in merged.items()})
    _check(settings)
    return settings


def fileSettings(path: Path) -> dict[str, Any]:
    """
    Return what a file in TOML says, by the names of options. Paths of files in it are relative to
    its folder.

    @raise SettingsError: it cannot be read, or a value in it is none for its option.
    """
    try:
        with path.open("rb") as file:
            content = tomllib.load(file)
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is no TOML: {error}") from error
    known = {option.name: option for option in OPTIONS if option.inFile}
    values = {}
    for name, value in content.items():
        if name not in known:
            raise SettingsError(f"{path} has an unknown key {name!r}{_perhaps(name, known)}")
        try:
            values[name] = known[name].takes.check(value)
        except ValueError as error:
            raise SettingsError(f"{path}: {name} takes {error}, not {value!r}") from None
    if "key-file" in values:
        values["key-file"] = os.fspath(path.parent / Path(values["key-file"]).expanduser())
    return values


def _perhaps(name: str, known: Iterable[str]) -> str:
    names = sorted(known)
    near = get_close_matches(name.replace("_", "-").lower(), names, 1)
    return f": is it {near[0]!r}?" if near else f"; known are {', '.join(names)}"


def _check(settings: Settings) -> None:
    """
    @raise SettingsError: what is said does not fit together.
    """
    if (settings.listen is None) == (settings.connect is None):
        raise SettingsError(
            "say where to listen for queues (--listen ENDPOINT), or which queue to serve"
            " (--connect ENDPOINT)" + ("" if settings.listen is None else ", not both")
        )
    trust = trustOf(settings)
    if settings.universe is None and not settings.allow and trust != "code":
        raise SettingsError(
            "nothing could be called: name a --universe MODULE.CLASS, or --allow MODULE, or"
            " trust those who connect with --trust code"
        )
    if trust == "universe" and settings.allow:
        raise SettingsError(
            "--trust universe is for methods only: leave --allow out, or say --trust modules"
        )
    if trust == "modules" and not settings.allow:
        raise SettingsError("--trust modules needs --allow MODULE")
    if trust == "code" and settings.codec == "cbor":
        raise SettingsError("--codec cbor sends no code: --trust code needs --codec pickle")


def processesOf(settings: Settings) -> int:
    """
    Return how many processes make the calls. Functions may block or compute for long; methods of a
    universe were written for a host.
    """
    if settings.processes is not None:
        return settings.processes
    return 0 if trustOf(settings) == "universe" else cores()


def trustOf(settings: Settings) -> str:
    """
    Return what may be called, in one word.
    """
    return settings.trust or ("modules" if settings.allow else "universe")
