"""
How much is told of exceptions.
"""

from __future__ import annotations

from twisted.python.failure import Failure

from asynqueue.errors import RemoteError
from asynqueue.outcome import Raised, nameOf, presentable, textOf, traceOf

# So much is told of an exception: the outermost and the innermost of its frames.
_MOST_FRAMES = 100
_LONGEST_TEXT = 10_000
_SHORT_TEXT = 1000


def told(failure: Failure) -> Raised:
    """
    What is to be told of the failure of a call.
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


def shortTold(outcome: Raised) -> Raised:
    """
    The same in few bytes, where all of it is too large to be sent.
    """
    error = outcome.error
    text = f"{textOf(error)[:_SHORT_TEXT]} ... which is too large to be sent"
    return Raised(RemoteError(nameOf(error), text), outcome.trace[-_LONGEST_TEXT:])
