"""
Somebody's objects, each of which raises where it is looked at in one way: so children can
import it, and it imports little itself.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

# What is done with an object, and the methods that this asks.
LOOKS: dict[str, tuple[str, ...]] = {
    "pickled": ("__reduce__", "__reduce_ex__"),
    "read": ("__getstate__",),
    "made again": ("__setstate__",),
    "asked for its class": ("__class__",),
    "asked for an attribute": ("__getattr__",),
    "asked for anything": ("__getattribute__",),
    "shown": ("__repr__", "__str__"),
    "compared": ("__eq__", "__ne__"),
    "hashed": ("__hash__",),
    "measured": ("__len__",),
    "tested": ("__bool__",),
    "iterated": ("__iter__",),
    "dropped": ("__del__",),
}

ERRORS = (ValueError, SystemExit, KeyboardInterrupt)


def raiser(error: type[BaseException]) -> Any:
    """
    A method that raises, whatever it is called with.
    """

    def method(self: Any, *args: Any) -> Any:
        raise error("odd")

    return method


def _kinds(base: type, place: str) -> list[type[Any]]:
    """
    One class for each look, and each error that it raises. Pickle finds them by their names
    in this module.
    """
    kinds = []
    for look, methods in LOOKS.items():
        for error in ERRORS:
            body: dict[str, Any] = {each: raiser(error) for each in methods}
            if "__class__" in body:
                body["__class__"] = property(body["__class__"])
            if "__setstate__" in body:
                body["__getstate__"] = lambda self: {"a": 1}
            name = f"{place} that raises {error.__name__} when it is {look}"
            kind: type[Any] = type(name, (base,), {**body, "__module__": __name__})
            globals()[name] = kind
            kinds.append(kind)
    return kinds


OBJECTS = _kinds(object, "an object")
EXCEPTIONS = _kinds(Exception, "an exception")


def take(value: Any) -> str:
    """
    Have an odd argument.
    """
    return "taken"


def give(number: int) -> Any:
    """
    Have an odd result.
    """
    return OBJECTS[number]()


def fail(number: int) -> Any:
    """
    Raise an odd exception.
    """
    raise EXCEPTIONS[number]


async def failLater(number: int) -> Any:
    """
    Raise an odd exception in a coroutine.
    """
    raise EXCEPTIONS[number]


def items(number: int) -> Iterator[Any]:
    """
    Have an odd item between others.
    """
    yield 1
    yield OBJECTS[number]()
    yield 2


def plain(number: int) -> tuple[int, int]:
    """
    Be a call beside odd ones.

    @return: the number, and that of the process.
    """
    return number, os.getpid()
