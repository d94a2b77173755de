"""
What tasks do that is odd: so children can import it, and it imports little itself.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any, NoReturn

from asynqueue.processes import child


def socketsThatDoNotBlock() -> list[int]:
    """
    The descriptors of the sockets of this process that do not block.
    """
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            isSocket = stat.S_ISSOCK(os.fstat(int(name)).st_mode)
        except OSError:
            # That of the listing itself.
            continue
        if isSocket and not os.get_blocking(int(name)):
            found.append(int(name))
    return found


def raiseSyntaxError() -> NoReturn:
    """
    Fail as parsers of templates, configuration or SQL do: no line of Python is meant.
    """
    raise SyntaxError("unexpected token", ("query.sql", 1, "3", "SELECT"))


class NoNext:
    """
    An iterator whose method to go on raises when it is looked at.
    """

    def __iter__(self) -> NoNext:
        return self

    @property
    def __next__(self) -> Any:
        raise RuntimeError("no next today")


class NoClass:
    """
    An iterator that raises when it is asked for its class.
    """

    def __init__(self) -> None:
        self._numbers = iter(range(3))

    @property
    def __class__(self) -> Any:
        raise RuntimeError("no class today")

    def __iter__(self) -> NoClass:
        return self

    def __next__(self) -> int:
        return next(self._numbers)


class Unwilling:
    """
    Raises as it is pickled.
    """

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def __reduce__(self) -> NoReturn:
        raise self._error


def makeIterator(kind: type[Any]) -> Any:
    """
    An iterator.
    """
    return kind()


def someUnwilling() -> Iterator[Any]:
    """
    Items of which some cannot be pickled.
    """
    yield from (0, 1, Unwilling(FileNotFoundError("no file")), 3, Unwilling(SystemExit(4)), 5)


def breakTheLoop() -> None:
    """
    Have what runs in this process fail, as a bug of it would: not the task.
    """

    def fail(*args: Any) -> NoReturn:
        raise RuntimeError("a bug")

    child.Child._returned = fail  # type: ignore[method-assign]


def onlyThere(bad: int, end: int) -> Iterator[Any]:
    """
    Numbers, and instead of one of them an object of a module that only this process has.
    """
    module = ModuleType("only_there")
    exec("class Thing:\n    pass\n", vars(module))
    sys.modules["only_there"] = module
    for number in range(end):
        yield (module.Thing(), number) if number == bad else number
