"""
Failures of calls that were made elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import repeat
from operator import is_
from typing import Any

from twisted.python.failure import Failure

from asynqueue.outcome import Raised, presentable


def failureOf(outcome: Raised) -> Failure:
    """
    The failure of a call that was made elsewhere. It tells where the exception
    was raised, as one does that was raised here: Twisted does not look at the
    C{__cause__}.
    """
    failure = Failure(outcome.localError())
    failure.frames = [(name, file, line, (), ()) for name, file, line in outcome.frames]
    return failure


def caught(error: BaseException) -> Failure:
    """
    The failure of what somebody's code has raised here. To be called where that was caught.
    """
    return Failure(presentable(error))


def anyFailure(values: Iterable[Any]) -> bool:
    """
    Whether there is a C{Failure} among values, which may be of any class: of somebody's
    class neither the comparison nor the hash is asked for. A hot path.
    """
    return any(map(is_, map(type, values), repeat(Failure)))
