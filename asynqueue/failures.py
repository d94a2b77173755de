"""
Failures of calls that were made elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import repeat
from operator import is_
from typing import Any

from twisted.python.failure import Failure

from asynqueue.errors import RemoteError
from asynqueue.outcome import Raised, cannotSend, nameOf, presentable, textOf, traceOf

# So much is told of an exception: the outermost and the innermost of its frames.
_MOST_FRAMES = 100
_LONGEST_TEXT = 10_000
_SHORT_TEXT = 1000


def failureOf(outcome: Raised) -> Failure:
    """
    Return the failure of a call that was made elsewhere. It tells where the exception was raised,
    as one does that was raised here: Twisted does not look at the C{__cause__}.
    """
    failure = Failure(outcome.localError())
    failure.frames = [(name, file, line, (), ()) for name, file, line in outcome.frames]
    return failure


def raisedOf(failure: Failure) -> Raised:
    """
    Return the failure of a call as an outcome that can be sent.
    """
    error = failure.value
    assert error is not None
    error = presentable(error)
    frames = tuple((name, file, line) for name, file, line, *_ in failure.frames)
    if len(frames) > _MOST_FRAMES:
        half = _MOST_FRAMES // 2
        frames = frames[:half] + frames[-half:]
    # Where the failure has passed through Deferreds it may have kept the frames only.
    if error.__traceback__ is None and frames:
        trace = failure.getTraceback()
    else:
        trace = traceOf(error)
    return Raised(error, trace, frames)


def shortened(outcome: Raised) -> Raised:
    """
    Return the same in few bytes, where all of it is too large to be sent.
    """
    error = outcome.error
    if isinstance(error, RemoteError):
        name, text = error.typeName, error.message
    else:
        name, text = nameOf(error), textOf(error)
    text = f"{text[:_SHORT_TEXT]} ... which is too large to be sent"
    return Raised(RemoteError(name, text), outcome.trace[-_LONGEST_TEXT:])


def caught(error: BaseException) -> Failure:
    """
    Return the failure of what somebody's code has raised here. To be called where that was caught.
    """
    return Failure(presentable(error))


def isOf(value: Any, kind: type) -> bool:
    """
    Tell whether a value is of a class, as C{isinstance} has it, which asks the value itself. So
    does a Deferred, which cannot carry a value that this raises for. A hot path.

    @raise MaybeEncodingError: it does not say of what class it is.
    """
    try:
        return isinstance(value, kind)
    except BaseException as error:
        # Somebody's class, such as that of a proxy of what is gone.
        raise cannotSend(error, value) from None


def anyFailure(values: Iterable[Any]) -> bool:
    """
    Tell whether there is a C{Failure} among values, which may be of any class: of somebody's class
    neither the comparison nor the hash is asked for. A hot path.
    """
    return any(map(is_, map(type, values), repeat(Failure)))


def areOrdinary(values: Iterable[Any]) -> bool:
    """
    Tell whether all values say of what class they are, and none is a C{Failure}: whether L{isOf}
    is false of each. A hot path.
    """
    try:
        return not any(map(isinstance, values, repeat(Failure)))
    except BaseException:
        # Somebody's class, such as that of a proxy of what is gone.
        return False
