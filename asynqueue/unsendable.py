"""
What stays where it was made: a result that was not waited for, and generators.

Some of these can even be pickled, and would be dead where they arrive. So they are refused,
with the one line that helps. This module imports no Twisted.
"""

from __future__ import annotations

import sys
from abc import ABC
from collections.abc import Coroutine
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import Any

from asynqueue.errors import Unsendable

_AWAIT = "await it first, and pass what comes of it"
_LIST = "pass a list of its items, or the function that makes it"

_KINDS: dict[type, tuple[str, str]] = {
    AsyncGeneratorType: ("an asynchronous generator", _LIST),
    CoroutineType: ("a coroutine", _AWAIT),
    GeneratorType: ("a generator", _LIST),
}


class _Staying(ABC):  # noqa: B024 -- its hook says what is one
    """
    The class of all that stays. It remembers of each class whether it is one of these.
    """

    @classmethod
    def __subclasshook__(cls, kind: type) -> bool:
        return _about(kind) is not None


def refuse(obj: object) -> None:
    """
    Look at something that is to be sent. A hot path.

    @raise Unsendable: it stays where it was made.
    """
    kind = type(obj)
    about = _about(kind) if issubclass(kind, _Staying) else None
    if about is not None:
        what, advice = about
        name = getattr(obj, "__qualname__", None)
        raise Unsendable(f"{what} ({name})" if isinstance(name, str) else what, advice)


def _about(kind: type) -> tuple[str, str] | None:
    """
    Return what something of a class is called, and what to do with it; C{None}: it can be sent.
    """
    if kind in _KINDS:
        return _KINDS[kind]
    if hasattr(kind, "_asyncio_future_blocking"):
        return f"an asyncio {kind.__name__}", _AWAIT
    if issubclass(kind, Coroutine):
        return "a coroutine", _AWAIT
    # There is none where these were not imported.
    if _isOf(kind, "twisted.internet.defer", "Deferred"):
        return "a Deferred", _AWAIT
    if _isOf(kind, "asynqueue.iteration.deferator", "Deferator"):
        return "a Deferator", "pass a list of its items"
    if _isOf(kind, "concurrent.futures", "Future"):
        return "a Future", "pass what its result() gives"
    return None


def _isOf(kind: type, module: str, name: str) -> bool:
    base: Any = getattr(sys.modules.get(module), name, None)
    return base is not None and issubclass(kind, base)
