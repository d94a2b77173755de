"""
How a child makes a call: what interrupts it, and what it may return.

This module imports no Twisted, and asyncio only when a call needs it.
"""

from __future__ import annotations

import signal
import sys

# Those of C{signal} make enumerations of all that they return: too slow for each call.
from _signal import (  # type: ignore[import-not-found]  # in C
    getsignal,
    pthread_sigmask,
    signal as setHandler,
)
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from importlib import import_module
from os import getpid
from types import CoroutineType, FrameType, ModuleType
from typing import Any

from asynqueue.errors import SoftTimeLimitExceeded, TaskInterrupted
from asynqueue.processes import printing
from asynqueue.processes.protocol import INTERRUPT_SIGNAL, SharedState

# Those that must not be blocked.
_OURS = (INTERRUPT_SIGNAL,)

_CHANGED = (
    "A task in process %d has blocked %s, or has changed what it does. That is undone: by this"
    " signal limits and cancellations interrupt tasks. Use another one."
)

# Python itself ignores these.
_IGNORED = {signal.SIGPIPE, signal.SIGXFSZ}

# Where the code of Python's import system says that it stands, and that below C{print}, which
# would print again what it has printed.
_WHOLE = ("<frozen importlib", "<frozen zipimport", printing.__file__)


def resetSignals() -> None:
    """
    Ignore no signal that the parent ignores, and block none. Ctrl-C is the parent's affair.
    """
    for number in signal.valid_signals() - _IGNORED:
        # What the parent ignores is inherited, and is not ours to ignore.
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    # A handler that does nothing, rather than SIG_IGN: programs that tasks start
    # would inherit that.
    signal.signal(signal.SIGINT, lambda signum, frame: None)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


class Performer:
    """
    Runs user code in the main thread, one call at a time, and raises in it what
    the parent wants to be raised.

    No import is interrupted: it would leave modules of which a half is missing, for all
    calls that follow, and code in C that cannot bear that. The interrupt comes as soon as
    the outermost import is done.

    @ivar hasInterrupted: whether a call was interrupted, since this was set to C{False}.
    """

    def __init__(self, shared: SharedState) -> None:
        self._shared = shared
        # The number of the call that may be interrupted, 0 while there is none.
        self._number = 0
        # Cancels the coroutine that runs, while one does.
        self._wake: Callable[[], None] | None = None
        self._runner: Any = None
        self.hasInterrupted = False
        self._handler = self._signalled
        signal.signal(INTERRUPT_SIGNAL, self._handler)

    def perform(self, number: int, f: Callable[..., Any], args: Any, kw: Any) -> Any:
        """
        Make a call, and run what it returns if that is a coroutine.

        @raise BaseException: whatever the call raises.
        """
        if getsignal(INTERRUPT_SIGNAL) is not self._handler:
            self.renew()
        try:
            self._number = number
            if self._shared.isInterrupted(number):
                self._shared.hear()
                self._raise()
            value = f(*args, **kw)
            if type(value) is CoroutineType:
                value = self.run(number, value)
        finally:
            self._number = 0
        return value

    def run(self, number: int, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """
        Run a coroutine in the event loop of this child.
        """
        if self._runner is None:
            self._runner = import_module("asyncio").Runner()
        self._number = 0
        value, error = self._runner.run(self._interruptible(number, coroutine))
        if error is None:
            return value
        if type(error).__name__ == "CancelledError" and self._shared.isInterrupted(number):
            self._raise()
        raise error

    @contextmanager
    def shielded(self) -> Iterator[None]:
        """
        Keep what is done in here from being interrupted; the interrupt comes after it.
        """
        number, self._number = self._number, 0
        try:
            yield
        finally:
            self._number = number
        if number and self._shared.isInterrupted(number):
            # This may be in an import, too.
            signal.raise_signal(INTERRUPT_SIGNAL)

    def renew(self) -> None:
        """
        Have the signal interrupt calls, whatever those before have made of it: what code
        in C has done, cannot be seen.
        """
        isBlocked = INTERRUPT_SIGNAL in pthread_sigmask(signal.SIG_UNBLOCK, _OURS)
        isOther = setHandler(INTERRUPT_SIGNAL, self._handler) is not self._handler
        if isBlocked or isOther:
            logging: Any = import_module("logging")
            logging.getLogger("asynqueue").warning(_CHANGED, getpid(), INTERRUPT_SIGNAL.name)

    def close(self) -> None:
        """
        End what runs: the child ends.
        """
        if self._runner is not None:
            self._runner.close()

    async def _interruptible(
        self, number: int, coroutine: Coroutine[Any, Any, Any]
    ) -> tuple[Any, BaseException | None]:
        """
        In a loop the signal cancels: an exception from a handler would hit the
        loop itself.
        """
        asyncio = sys.modules["asyncio"]
        task = asyncio.create_task(_outcome(coroutine))
        loop = asyncio.get_running_loop()
        self._wake = lambda: loop.call_soon_threadsafe(self._cancel, number, task)
        self._cancel(number, task)
        try:
            outcome: tuple[Any, BaseException | None] = await task
        except asyncio.CancelledError as error:
            return None, error
        else:
            return outcome
        finally:
            self._wake = None

    def _cancel(self, number: int, task: Any) -> None:
        if self._shared.isInterrupted(number):
            task.cancel()

    def _signalled(self, signum: int, frame: FrameType | None) -> None:
        number = self._number
        self._shared.hear()
        if self._wake is not None:
            self._wake()
        elif number and self._shared.isInterrupted(number):
            waiting = _waitingFrame(frame)
            if waiting is None:
                self._interrupt()
            else:
                self._interruptAt(waiting, number)

    def _interruptAt(self, waiting: FrameType, number: int) -> None:
        """
        Interrupt a call as soon as a frame goes on.
        """
        others = sys.gettrace()

        def trace(frame: FrameType, event: str, arg: Any) -> Any:
            sys.settrace(others)
            frame.f_trace = None
            frame.f_trace_opcodes = False
            if self._number == number:
                self._interrupt()

        waiting.f_trace = trace
        # The line that it is in may go on for long.
        waiting.f_trace_opcodes = True
        # Without this no frame is traced; those that begin are not.
        sys.settrace(_traceNothing)

    def _interrupt(self) -> None:
        # Once only: what cleans up must not be interrupted, too.
        self._number = 0
        self._raise()

    def _raise(self) -> None:
        self.hasInterrupted = True
        limit = self._shared.softLimit
        if limit:
            raise SoftTimeLimitExceeded(limit)
        raise TaskInterrupted


def _waitingFrame(frame: FrameType | None) -> FrameType | None:
    """
    Return the frame that waits until an import is done, or until something is printed, if a frame
    is part of that.
    """
    found = None
    while frame is not None:
        if frame.f_code.co_filename.startswith(_WHOLE):
            found = frame.f_back or frame
        frame = frame.f_back
    return found


def _traceNothing(frame: FrameType, event: str, arg: Any) -> None:
    """
    Trace no frame that begins.
    """


def halfImported() -> list[str]:
    """
    Return the names of the modules whose import has begun, and has not ended.
    """
    return [
        name
        for name, module in list(sys.modules.items())
        # Others may be loaded by a look at them.
        if type(module) is ModuleType
        and getattr(module.__dict__.get("__spec__"), "_initializing", False)
    ]


async def _outcome(coroutine: Coroutine[Any, Any, Any]) -> tuple[Any, BaseException | None]:
    """
    Return what comes of a coroutine. An exit that it raises must not end the loop.
    """
    try:
        return await coroutine, None
    except Exception as error:
        # The seam to user code; a cancellation is told apart by who asked for it.
        return None, error
    except (KeyboardInterrupt, SystemExit) as error:
        return None, error
