"""
What is done with one input, wherever: in a thread, or in a process of its own.

The text of the input comes in, and the line of the output goes out, so that
the process that runs the calls also has the work of reading and writing JSON. A failure
goes out as words: nothing that a function raises has to be sent. This module
imports no Twisted, because the processes import it.
"""

from __future__ import annotations

import faulthandler
import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib import import_module
from typing import Any, NoReturn

from attrs import frozen

from asynqueue.calling import settled
from asynqueue.constancy import Constant
from asynqueue.errors import AsynQueueError, MaybeEncodingError, TaskTimedOut
from asynqueue.outcome import describeCall, nameOf, shortRepr, textOf, traceOf

# The seconds after its time is up in which a call that cannot be interrupted, because it is deep
# in a library, ends with its process.
_GRACE = 2.0

# And one that goes on after it was interrupted is interrupted again.
_AGAIN = 0.5


class NoSuchFunction(AsynQueueError, LookupError):
    """
    C{MODULE:FUNCTION} names nothing that can be called.
    """


class NoJSON(AsynQueueError, ValueError):
    """
    An input that ought to be JSON is not.
    """


@frozen
class JobFailure:
    """
    Why there is no result, in words.

    @ivar kind: the type of the exception, with its module unless it is builtin.
    @ivar message: its text.
    @ivar trace: where it was raised.
    @ivar badInput: whether the function was not even called.
    """

    kind: str
    message: str
    trace: str = ""
    badInput: bool = False

    def oneLine(self, most: int = 400) -> str:
        """
        Type and message, without line ends, and not too long.
        """
        text = " ".join(f"{self.kind}: {self.message}".split()).removesuffix(":")
        return text if len(text) <= most else text[: most - 3] + "..."

    def asJSON(self, text: str, withTrace: bool) -> bytes:
        """
        Return the line that stands in the place of the result.

        @param text: the input.
        """
        error = {"type": self.kind, "message": self.message}
        if withTrace:
            error["traceback"] = self.trace
        return toJSON({"input": text, "error": error})


@frozen
class LineJob(Constant):
    """
    Calls a function with one input.

    @ivar where: the function, as C{MODULE:FUNCTION}.
    @ivar parse: whether the input is JSON, or a plain string.
    @ivar limit: the seconds that the call may take. It is for the main thread of
        a process that has called L{obeyLimits}.
    """

    where: str
    parse: bool = False
    limit: float | None = None

    def __call__(self, text: str) -> bytes | JobFailure:
        """
        Whatever the function does, this returns: its result in JSON, or what went
        wrong.
        """
        try:
            argument = parsed(text) if self.parse else text
            function = findFunction(self.where)
            if self.limit is None:
                return toJSON(settled(function(argument)))
            with _limited(function, argument, self.limit):
                value = settled(function(argument))
            return toJSON(value)
        except BaseException as error:
            # The seam to user code: exits and interrupts of the call are outcomes.
            return failed(error)


def failed(error: BaseException) -> JobFailure:
    """
    Return an exception that was caught just now, in words.
    """
    kind = nameOf(error)
    if isinstance(error, AsynQueueError):
        kind = type(error).__name__
    # The first frame is the one that caught it.
    inner = error.__traceback__ and error.__traceback__.tb_next
    return JobFailure(kind, textOf(error), traceOf(error, inner), isinstance(error, NoJSON))


@lru_cache(maxsize=8)
def findFunction(where: str) -> Callable[[Any], Any]:
    """
    Import a function.

    @param where: C{MODULE:FUNCTION}; the function may be an attribute of a class.
    @raise NoSuchFunction: there is none. What the module raises goes through.
    """
    moduleName, colon, path = where.partition(":")
    if not (moduleName and colon and path):
        raise NoSuchFunction(f"give a function as MODULE:FUNCTION, like json:loads, not {where!r}")
    try:
        found: Any = import_module(moduleName)
    except ModuleNotFoundError as error:
        # If it is another one that is missing, the module is there and broken.
        if error.name is not None and f"{moduleName}.".startswith(f"{error.name}."):
            raise NoSuchFunction(f"there is no module {error.name!r}") from None
        raise
    except (TypeError, ValueError):
        raise NoSuchFunction(f"{moduleName!r} is not the name of a module") from None
    for name in path.split("."):
        try:
            found = getattr(found, name)
        except AttributeError:
            raise NoSuchFunction(f"module {moduleName!r} has no {path!r}") from None
    if not callable(found):
        raise NoSuchFunction(f"{where} is {shortRepr(found)}, which cannot be called")
    return found  # type: ignore[no-any-return]


def _noConstant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_decode = json.JSONDecoder(parse_constant=_noConstant).decode
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode
_encodeToASCII = json.JSONEncoder(allow_nan=False).encode


def parsed(text: str) -> Any:
    """
    Return the value of an input that is JSON.

    @raise NoJSON: it is not.
    """
    try:
        return _decode(text)
    except (ValueError, RecursionError) as error:
        raise NoJSON(str(error)) from None


def toJSON(value: Any) -> bytes:
    """
    Return a value as one line of JSON, in UTF-8.

    @raise MaybeEncodingError: JSON cannot carry it.
    """
    try:
        text = _encode(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise MaybeEncodingError(str(error), shortRepr(value)) from None
    try:
        return text.encode()
    except UnicodeEncodeError:
        # Lone surrogates: of file names that are no UTF-8, for instance.
        return _encodeToASCII(value).encode()


class _TimeIsUp(BaseException):
    """
    Interrupts a call. Not an C{Exception}, which functions catch.
    """


def _timeIsUp(signum: int, frame: Any) -> NoReturn:
    raise _TimeIsUp


def obeyLimits() -> None:
    """
    Let time limits work in this process. Called in its main thread.
    """
    signal.signal(signal.SIGALRM, _timeIsUp)


@lru_cache(maxsize=1)
def _nowhere() -> int:
    return os.open(os.devnull, os.O_WRONLY)


def _disarm() -> None:
    signal.setitimer(signal.ITIMER_REAL, 0)
    faulthandler.cancel_dump_traceback_later()


@contextmanager
def _limited(function: Callable[[Any], Any], argument: Any, seconds: float) -> Iterator[None]:
    """
    Interrupt what runs within after a time; if that is of no use, end the
    process.
    """
    try:
        try:
            faulthandler.dump_traceback_later(seconds + _GRACE, exit=True, file=_nowhere())
            signal.setitimer(signal.ITIMER_REAL, seconds, _AGAIN)
            yield
        finally:
            _disarm()
    except _TimeIsUp:
        # The interrupt may have come in the middle of the disarming.
        _disarm()
        call = describeCall(function, (argument,), {})
        raise TaskTimedOut(call, seconds) from None
