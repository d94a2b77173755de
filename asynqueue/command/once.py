"""
A reactor that runs for one thing.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import globalLogBeginner
from twisted.python.failure import Failure

from asynqueue.reactors import theReactor


def runOnce(work: Callable[[Any], Coroutine[Deferred[Any], Any, Any]]) -> Any:
    """
    Run the reactor until a coroutine has ended. Nothing is logged meanwhile. This can be
    done once in a process.

    @param work: is called with the reactor.
    @return: what it returns.
    @raise KeyboardInterrupt: a signal came before.
    @raise Exception: what it raises.
    """
    reactor: Any = theReactor()
    outcomes: list[Any] = []
    # What the coroutine says while the reactor stops is not to the point.
    interrupted: list[bool] = []

    def begin() -> None:
        d = Deferred.fromCoroutine(work(reactor))
        d.addBoth(outcomes.append)
        d.addBoth(lambda _: reactor.stop() if reactor.running else None)

    globalLogBeginner.beginLoggingTo([], discardBuffer=True, redirectStandardIO=False)
    reactor.callWhenRunning(begin)
    reactor.addSystemEventTrigger("before", "shutdown", lambda: interrupted.append(not outcomes))
    reactor.run()
    if any(interrupted) or not outcomes:
        raise KeyboardInterrupt
    if isinstance(outcomes[0], Failure):
        outcomes[0].raiseException()
    return outcomes[0]
