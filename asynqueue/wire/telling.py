"""
What is told of exceptions and values whose own code may do anything as they are looked at.
"""

from __future__ import annotations

import traceback
from typing import Any

from twisted.python.failure import Failure

from asynqueue.errors import RemoteError
from asynqueue.outcome import Raised, shortRepr

# So much is told of an exception: the end of its traceback, and the outermost and the
# innermost of its frames. That of an endless recursion is as long as its limit.
_LONGEST_TRACE = 1 << 16
_MOST_FRAMES = 100
_LONGEST_TEXT = 10_000
_SHORT_TEXT = 1000


def told(failure: Failure) -> Raised:
    """
    What is to be told of the failure of a call.
    """
    error = failure.value
    assert error is not None
    frames = tuple((name, file, line) for name, file, line, *_ in failure.frames)
    if len(frames) > _MOST_FRAMES:
        half = _MOST_FRAMES // 2
        frames = frames[:half] + frames[-half:]
    try:
        # Where the failure has passed through Deferreds it may have kept the frames only.
        if error.__traceback__ is None and frames:
            trace = failure.getTraceback()
        else:
            trace = "".join(traceback.format_exception(error))
    except BaseException:
        # Somebody's __str__, or worse: whatever it raises, an exit too, the type remains.
        trace = f"{nameOf(error)}\n"
    return Raised(error, trace[-_LONGEST_TRACE:], frames)


def shortTold(outcome: Raised) -> Raised:
    """
    The same in few bytes, where all of it is too large to be sent.
    """
    error = outcome.error
    text = f"{textOf(error)[:_SHORT_TEXT]} ... which is too large to be sent"
    return Raised(RemoteError(nameOf(error), text), outcome.trace[-_LONGEST_TEXT:])


def nameOf(error: BaseException) -> str:
    """
    The full name of the type of an exception; of a builtin one, without its module.
    """
    try:
        name = f"{type(error).__module__}.{type(error).__qualname__}"
    except BaseException:
        # Even that may be somebody's code, in a metaclass.
        name = "an exception"
    return name.removeprefix("builtins.")


def textOf(error: BaseException) -> str:
    """
    What an exception says, whatever its C{__str__} does.
    """
    try:
        return str(error)[:_LONGEST_TEXT]
    except BaseException:
        # Somebody's code, an exit included: the type's name has to do.
        return ""


def reprOf(value: Any) -> str:
    """
    What a value looks like, in short, whatever its C{__repr__} does.
    """
    try:
        return shortRepr(value)
    except BaseException:
        # As above.
        return "<an object without words>"
