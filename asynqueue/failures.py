"""
Failures of calls that were made elsewhere.
"""

from __future__ import annotations

from twisted.python.failure import Failure

from asynqueue.outcome import Raised


def failureOf(outcome: Raised) -> Failure:
    """
    The failure of a call that was made elsewhere. It tells where the exception
    was raised, as one does that was raised here: Twisted does not look at the
    C{__cause__}.
    """
    failure = Failure(outcome.localError())
    failure.frames = [(name, file, line, (), ()) for name, file, line in outcome.frames]
    return failure
