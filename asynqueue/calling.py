"""
Makes calls in a process or thread where there is nothing else of ours, as under executors.

This module imports no Twisted: it runs where there is none.
"""

from __future__ import annotations

import pickle
from importlib import import_module
from types import CoroutineType
from typing import Any

from asynqueue.codec import PLAIN, dumps
from asynqueue.errors import MaybeEncodingError
from asynqueue.outcome import Returned, cannotSend, presented, raised, shapeOf, shortRepr


def settled(value: Any) -> Any:
    """
    Return what a call has returned; or, if that is a coroutine, what comes of it: it is run in an
    asyncio loop of its own. To be called in the thread and the context of the call.

    @raise BaseException: whatever the coroutine raises.
    """
    if type(value) is CoroutineType:
        return import_module("asyncio").run(presented(value))
    return value


def perform(payload: bytes, number: object = None) -> bytes | tuple[Any]:
    """
    Make a pickled call (f, args, kw) here. A hot path.

    Whatever the call does, this returns; so an executor of any kind never sees
    an exception, and never has to carry one.

    @param number: makes this call unlike any other: some executors take equal
        calls for one.
    @return: its outcome, pickled; or its value, in a tuple, if every Python has that.
    """
    try:
        f, args, kw = pickle.loads(payload)
        value = settled(f(*args, **kw))
        return (value,) if type(value) in PLAIN else _packed(value)
    except BaseException as error:
        # The seam between user code and an executor: exits and interrupts of the
        # task are outcomes, too, as they are in every worker.
        return dumps(raised(error))


def performNamed(
    module: str, name: str, args: tuple[Any, ...], number: object = None
) -> bytes | tuple[Any]:
    """
    Call what has a name in a module, as L{perform} makes a call: for what the executor cannot
    fail to pickle. A hot path.

    @param name: the name, with those of the classes that it is in.
    """
    try:
        f: Any = import_module(module)
        for part in name.split("."):
            f = getattr(f, part)
        value = settled(f(*args))
        return (value,) if type(value) in PLAIN else _packed(value)
    except BaseException as error:
        # See above.
        return dumps(raised(error))


def _packed(value: Any) -> bytes:
    if shapeOf(value) is not None:
        reason = "an iterator stays in the process that made it; return a list"
        raise MaybeEncodingError(reason, shortRepr(value))
    try:
        return dumps(Returned(value))
    except BaseException as error:
        # Pickling runs other people's code, and may raise anything, an exit too.
        raise cannotSend(error, value) from None
