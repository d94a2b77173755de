"""
How a call ended, in a form that can leave the process where it was made.

An exception is tried out where it was raised: pickled, and made again from
that. Unpickling runs its C{__init__}, which may want other arguments than the
exception keeps; it must not be the receiver who finds that out. What cannot
make the journey is replaced by a L{RemoteError} that says the same in words.

Exceptions and values are put into words here, and only here: their own code runs as
they are looked at, and may raise anything. This module imports no Twisted: it runs
where there is none.
"""

from __future__ import annotations

import pickle
import reprlib
import sys
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from enum import Enum
from types import TracebackType
from typing import Any, NamedTuple
from weakref import ProxyTypes

from asynqueue.codec import ClosedCall, Names, dumps
from asynqueue.errors import MaybeEncodingError, RemoteError, RemoteTraceback

# What exceptions hold, whatever their classes make of that.
_cause: Any = vars(BaseException)["__cause__"]
_context: Any = vars(BaseException)["__context__"]
_traceback: Any = vars(BaseException)["__traceback__"]

# Of a longer traceback, the number of outermost frames that are kept, and of innermost ones.
_HALF_TRACE = 500

# Tracebacks tell of fewer exceptions than these, and have not more characters than these.
_MOST_LINKED = 100
_LONGEST_TRACE = 1 << 16

# What an exception says is told so far, where it is only a part of a message.
_LONGEST_TEXT = 10_000

_short = reprlib.Repr()
_short.maxstring = _short.maxother = 60
_short.maxlevel = 2


def shortRepr(value: Any) -> str:
    """
    Return a C{repr} of bounded length, also of what has none.
    """
    try:
        # It may be a string of a kind that cannot travel.
        return str.__str__(_short.repr(value))
    except BaseException:
        # Somebody's __repr__: whatever it raises, an exit too, a message is being made.
        return f"<{_typeName(value)}>"


def nameOf(error: BaseException) -> str:
    """
    Return the full name of the type of an exception; of a builtin one, without its module.
    """
    try:
        module = f"{type(error).__module__}."
    except BaseException:
        # Somebody's metaclass.
        module = ""
    return f"{module}{_typeName(error)}".removeprefix("builtins.")


def textOf(error: BaseException) -> str:
    """
    Return what an exception says, whatever its C{__str__} does.
    """
    try:
        return str.__str__(str(error))
    except BaseException:
        # Somebody's code, an exit included: the type's name has to do.
        return ""


def inWords(error: BaseException) -> str:
    """
    Return the type of an exception and what it says, as a part of a message.
    """
    text = textOf(error)
    if len(text) > _LONGEST_TEXT:
        text = f"{text[:_LONGEST_TEXT]}..."
    return f"{_typeName(error)}: {text}" if text else _typeName(error)


def oneLine(error: BaseException) -> str:
    """
    Return what an exception says, in one line; if it says nothing, the name of its type.
    """
    return " ".join(textOf(error).split()) or _typeName(error)


def traceOf(error: BaseException, trace: TracebackType | None = None) -> str:
    """
    Return the traceback of an exception as text, or as much of it as can be made: it is full of
    what somebody's code says. Of a text that is very long its end, and of an exception that very
    many others have led to only what is its own.

    @param trace: where to begin, if not at the beginning.
    """
    trace = trace or _traceback.__get__(error)
    try:
        if len(_linked(error, _MOST_LINKED)) < _MOST_LINKED:
            text = "".join(traceback.format_exception(type(error), error, trace))
            return text[-_LONGEST_TRACE:]
    except BaseException:
        # An exception whose attributes are not what they should be, as a SyntaxError that
        # a parser of something else has made.
        pass
    try:
        frames = "".join(traceback.format_tb(trace))
    except BaseException:
        # Somebody's loader, which is asked for the lines.
        frames = ""
    return f"Traceback (most recent call last):\n{frames}{inWords(error)}\n"


def _linked(error: BaseException, most: int) -> list[BaseException]:
    """
    Return an exception and those that it tells of: what has caused it, what was being handled, the
    members of a group.

    @param most: the largest number of them.
    """
    isAlone = _cause.__get__(error) is None and _context.__get__(error) is None
    if isAlone and not issubclass(type(error), BaseExceptionGroup):
        return [error]
    found = {id(error): error}
    left = [error]
    while left and len(found) < most:
        each = left.pop()
        # Not of the exception: somebody's __class__ may raise.
        isGroup = issubclass(type(each), BaseExceptionGroup)
        members = each.exceptions if isGroup else ()  # type: ignore[attr-defined]
        for other in (_cause.__get__(each), _context.__get__(each), *members[:most]):
            if other is not None and id(other) not in found and len(found) < most:
                found[id(other)] = other
                left.append(other)
    return list(found.values())


def _shorten(error: BaseException) -> None:
    """
    Have an exception keep the outermost and the innermost frames of a very long traceback:
    that of an endless recursion can have a million, which nobody reads, and which take minutes
    to put into words.
    """
    trace: TracebackType | None = _traceback.__get__(error)
    frames: list[TracebackType] = []
    while trace is not None:
        frames.append(trace)
        trace = trace.tb_next
    if len(frames) > 2 * _HALF_TRACE:
        for each in reversed(frames[:_HALF_TRACE] + frames[-_HALF_TRACE:]):
            trace = TracebackType(trace, each.tb_frame, each.tb_lasti, each.tb_lineno)
        _traceback.__set__(error, trace)


# What says that an iteration has ended, and what ends who runs it: a generator, a program.
_ENDS = (StopIteration, StopAsyncIteration)
_EXITS = (GeneratorExit, KeyboardInterrupt, SystemExit)


def raisable(error: BaseException, what: str, *, exits: bool) -> BaseException:
    """
    Return what to raise for the failure of something that ran elsewhere: the exception itself,
    unless it would end an iteration, or who awaits it, as if it were meant for them. Then it is the
    cause of a C{RuntimeError} (as PEP 479 has it).

    @param what: what has raised it, in words.
    @param exits: whether it is raised where an exit ends the program or its loop, and a
        cancellation the task that hears of it.
    """
    if not isinstance(error, _ENDS) and not (exits and _endsOthers(error)):
        return error
    told = RuntimeError(f"{what} raised {inWords(error)}, which is the cause of this error")
    told.__cause__ = error
    return told


def _endsOthers(error: BaseException) -> bool:
    # Where asyncio was not imported, there is no such cancellation.
    cancelled: Any = getattr(sys.modules.get("asyncio"), "CancelledError", GeneratorExit)
    return isinstance(error, (*_EXITS, cancelled))


def complain(error: BaseException) -> None:
    """
    Write an exception that nobody else is told of to the standard error, if there is one.
    """
    try:
        sys.stderr.write(traceOf(error))
        sys.stderr.flush()
    except Exception:
        # Somebody has closed it, or has put something of its own there.
        pass


def _typeName(value: Any) -> str:
    try:
        return str.__str__(type(value).__qualname__)
    except BaseException:
        # Somebody's metaclass.
        return "object"


def describeCall(f: Callable[..., Any] | str, args: tuple[Any, ...], kw: dict[str, Any]) -> str:
    """
    Return what is called with what, in one short line.
    """
    isClosed = type(f) is ClosedCall
    if isClosed:
        f = f.f  # type: ignore[union-attr]
    try:
        name = f if isinstance(f, str) else f.__qualname__
    except BaseException:
        # Not every callable has a name: a partial has none. And it is somebody's
        # __getattr__, which may raise anything, an exit too.
        name = None
    if not isinstance(name, str):
        name = shortRepr(f)
    words = [shortRepr(arg) for arg in args]
    words += [f"{key}={shortRepr(value)}" for key, value in kw.items()]
    if isClosed:
        words.append("...")
    text = f"{name}({', '.join(words[:8])}{', ...' if len(words) > 8 else ''})"
    text = text.replace("\n", " ")
    return text if len(text) <= 300 else text[:297] + "..."


class Shape(Enum):
    """
    How items are taken from a result that stays where it is.
    """

    ITERATOR = "by a loop"
    ASYNC_ITERATOR = "by an asynchronous loop"


# By names, as they are looked at for each result: until Python 3.12 an attribute of an
# Enum takes ten times as long.
ITERATOR, ASYNC_ITERATOR = Shape


# What surely is no iterator, and needs no closer look.
VALUES = frozenset({bool, bytes, complex, dict, float, int, list, set, str, tuple, type(None)})

_FILE_METHODS = ("read", "readline", "readinto")


# Those of their subclasses that have C{__next__} are no iterators either.
_CONTAINERS = (str, bytes, bytearray, memoryview, list, tuple, dict, set, frozenset)


def shapeOf(value: object) -> Shape | None:
    """
    Tell whether a result is an iterator by design: its type has C{__iter__} and
    C{__next__}, or C{__aiter__} and C{__anext__}.

    A container is none, nor is a file or what can be read as one, nor is a proxy, which says
    that it is of another class than it is. It is the type that counts: somebody's C{__class__} and
    C{__getattr__} may raise, but this never does. A hot path.

    @return: its shape if it is an iterator; C{None}: it goes to the caller as it is.
    """
    kind = type(value)
    try:
        if kind in VALUES:
            return None
        if issubclass(kind, AsyncIterator):
            shape = ASYNC_ITERATOR
        elif issubclass(kind, Iterator):
            shape = ITERATOR
        else:
            return None
    except BaseException:
        # Somebody's metaclass: what cannot be looked at is no iterator by design.
        return None
    if kind in ProxyTypes or issubclass(kind, _CONTAINERS):
        return None
    return None if _isProxy(value) or _isFile(value) else shape


def _isProxy(value: object) -> bool:
    try:
        return value.__class__ is not type(value)
    except BaseException:
        # Somebody's __class__.
        return False


def _isFile(value: object) -> bool:
    for name in _FILE_METHODS:
        try:
            if callable(getattr(value, name, None)):
                return True
        except BaseException:
            # Somebody's __getattr__.
            pass
    return False


class Returned(NamedTuple):
    """
    The call returned.
    """

    value: Any


class Raised(NamedTuple):
    """
    The call raised.

    @ivar error: the exception, or what stands for it.
    @ivar trace: its traceback as text.
    @ivar frames: where it was raised: function, file and line, the outermost
        first.
    """

    error: BaseException
    trace: str
    frames: tuple[tuple[str, str, int], ...] = ()

    def localError(self) -> BaseException:
        """
        Return the exception to fail with here: its C{__cause__} tells where it was raised.
        """
        error = presentable(self.error)
        # Not by an assignment: some exceptions allow none.
        _cause.__set__(error, RemoteTraceback(self.trace))
        return error


class ClosedError(RemoteError):
    """
    Stands for an exception that a call in a process has raised, as it came, pickled.

    @ivar packed: what L{packedRaised} gave there.
    """

    def __init__(self, typeName: str, message: str, packed: bytes) -> None:
        super().__init__(typeName, message)
        self.packed = packed


def packedRaised(outcome: Raised, names: Names) -> bytes:
    """
    Pickle what a call raised. The exception has a pickle of its own: where that cannot be
    read, the rest can.

    @raise NotClosed: as C{names} has it.
    """
    error = outcome.error
    there = dumps(portable(error), names)
    plain = there, nameOf(error), textOf(error), outcome.trace, outcome.frames
    return pickle.dumps(plain, pickle.HIGHEST_PROTOCOL)


def raised(error: BaseException) -> Raised:
    """
    Return what to send for an exception that was caught just now.
    """
    error = presentable(error)
    frames = tuple(
        (frame.f_code.co_name, frame.f_code.co_filename, line)
        for frame, line in traceback.walk_tb(_traceback.__get__(error))
    )
    return Raised(portable(error), traceOf(error), frames)


def cannotDecode(error: BaseException) -> Raised:
    """
    Return what to tell instead of what came and cannot be made again here. To be called where that
    was caught.
    """
    return raised(MaybeEncodingError(inWords(error), ""))


def cannotSend(error: BaseException, value: Any, what: str = "result") -> MaybeEncodingError:
    """
    Return the error of a call that cannot be sent, or whose result or an item of it cannot be.

    @param error: what its pickling has raised.
    @param value: what cannot be sent; of a call, its function, arguments and keywords.
    @param what: what that is: "result", "call" or "value".
    """
    reason = error.reason if type(error) is MaybeEncodingError else inWords(error)
    text = describeCall(*value) if what == "call" else shortRepr(value)
    return MaybeEncodingError(reason, text, what)


def presentable(error: BaseException) -> BaseException:
    """
    Return the exception itself, unless it raises when it is asked for what those who handle
    exceptions want to know: then a L{RemoteError} that says the same. Of its traceback not more is
    kept than somebody can read.
    """
    kind = type(error)
    try:
        for each in _linked(error, _MOST_LINKED):
            _shorten(each)
        _ = error.__traceback__, error.__cause__, error.__context__
        _ = kind.__module__, hash(kind)
        isWhole = error.__class__ is kind
    except BaseException:
        # Somebody's class or metaclass.
        isWhole = False
    if isWhole:
        return error
    return RemoteError(nameOf(error), textOf(error)).with_traceback(_traceback.__get__(error))


async def presented(awaitable: Awaitable[Any]) -> Any:
    """
    Wait for the result of somebody's coroutine, where an event loop or a Deferred carries what
    it raises: see L{presentable}.
    """
    try:
        return await awaitable
    except BaseException as error:
        whole = presentable(error)
        if whole is error:
            raise
        raise whole from None


def portable(error: BaseException) -> BaseException:
    """
    Return the exception itself, if it survives the journey, or a L{RemoteError}.
    """
    try:
        again = pickle.loads(dumps(error))
    except BaseException:
        # Pickling runs other people's code both ways; whatever that raises, an
        # exit included, the answer is that this one cannot travel.
        again = None
    if type(again) is type(error):
        return error
    return RemoteError(nameOf(error), textOf(error))
