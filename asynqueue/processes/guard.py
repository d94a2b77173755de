"""
The guard around what drives a pool: other people's callbacks, and the system.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import current_thread, main_thread
from typing import Any

from twisted.logger import Logger

_log = Logger()


def isInterrupt(error: BaseException) -> bool:
    """
    Tell whether an exception may come from Ctrl-C: a C{KeyboardInterrupt} in the thread in which
    that is raised.
    """
    return isinstance(error, KeyboardInterrupt) and current_thread() is main_thread()


def report(error: BaseException, what: str) -> None:
    """
    Log an exception with its traceback. To be called where it was caught.

    @param what: what was being done.
    @raise KeyboardInterrupt: it is one, in the thread that Ctrl-C interrupts.
    """
    if isInterrupt(error):
        raise error
    try:
        _log.failure("{what}", what=what)
    except BaseException:
        # The seam to observers of logs, which may exit: nothing is left to say it to.
        pass


def harmless(what: str, f: Callable[..., Any], *args: Any) -> None:
    """
    Call a function whose exceptions must not reach the caller: they are logged. Exits are,
    too: they would end only the thread, or the call of the event loop, in which they strike.

    @param what: what is done, for the log.
    @raise KeyboardInterrupt: as L{report} raises it.
    """
    try:
        f(*args)
    except BaseException as error:
        # The seam to other people's code.
        report(error, what)
