"""
Many calls of one function in one task.

::

    ProgressBoard ─▶ slot ◀─ shared memory ─▶ run: begin, call, write down, next item
      ▲                                                     │
      └── what was begun, what came of it, "begin no more" ─┘

For functions that take microseconds a task each costs more than the calls. A chunk
is a task that calls the function with one item after another, as if each were a
task: an item that raises fails alone, arguments and results are copies, and
whatever becomes of the process, it is known which items were begun: before each call the
child notes on a L{board<asynqueue.mapping.board>} that it begins it, and after it, what came of
it. So the results of a process that was killed are there, at most one item was in its hands, and
the others can be called elsewhere. The same is done while a process lives, if one item takes long.

This module imports no Twisted.
"""

from __future__ import annotations

import marshal
import os
import pickle
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Sequence
from functools import partial
from time import perf_counter
from types import CoroutineType
from typing import Any, NamedTuple

from asynqueue.codec import PLAIN, dumps
from asynqueue.constancy import Constant, isConstant
from asynqueue.errors import TaskInterrupted, Unsendable
from asynqueue.mainmodule import Named
from asynqueue.mapping.board import (
    BEGUN,
    CLOSED,
    DONE,
    HEADER_BYTES,
    SLOT_BYTES,
    SLOT_WORDS,
    memoryOf,
    recordOf,
)
from asynqueue.outcome import (
    ITERATOR,
    cannotSend,
    raised,
    shapeOf,
    shortRepr,
)
from asynqueue.program import named, withNames

# The seconds after which a chunk ends, whatever was planned: the rest of its items is
# given back.
MOST_SECONDS = 0.005

# The items of a chunk have not many more bytes than these, pickled.
_PACKED_BYTES = 1 << 18

# The record of nothing is a byte, and so an item in a bytearray.
(_NONE,) = marshal.dumps(None)


class Summary(NamedTuple):
    """
    What a chunk returns.

    @ivar seconds: how long its calls took, all together.
    @ivar ended: how many items have an outcome; the others were not begun.
    @ivar values: the results, if all calls returned something plain; else the
        outcomes are on the board.
    @ivar last: the record of the last of them, if that is not on the board.
    @ivar alone: whether the function returns what a chunk cannot carry, so that
        items had better be called one by one.
    """

    seconds: float
    ended: int
    values: list[Any] | None = None
    last: bytes | None = None
    alone: bool = False


def arePlain(values: Iterable[Any]) -> bool:
    """
    Tell whether all values are of C{PLAIN} types.
    """
    try:
        return PLAIN.issuperset(map(type, values))
    except TypeError:
        # Somebody's class, which has no hash.
        return False


def pack(items: Sequence[Any]) -> tuple[bytes, bool, int]:
    """
    Pickle items for a chunk: together if nothing can be told of that, and else
    each by itself, as if it were sent alone.

    @return: the pickle, whether it is of the items together, and how many there
        are in it: those before the first that cannot be pickled.
    @raise Exception: whatever the pickling of the first one raises.
    """
    if arePlain(items):
        together = pickle.dumps(items, 5)
        if len(together) <= _PACKED_BYTES or len(items) == 1:
            return together, True, len(items)
        return pack(items[: len(items) // 2])
    packed: list[bytes] = []
    names: set[str] = set()
    size = 0
    for item in items:
        try:
            pickled = named(item)
        except BaseException as error:
            # Somebody's objects: whatever their pickling raises.
            if packed:
                break
            if isinstance(error, Unsendable):
                raise Unsendable(error.what, error.advice, "argument 1") from None
            raise
        size += len(pickled)
        if packed and size > _PACKED_BYTES:
            # One that its process may not live to read is in no chunk with others.
            break
        if type(pickled) is Named:
            names |= pickled.names
            pickled = bytes(pickled)
        packed.append(pickled)
    together = pickle.dumps(packed, 5)
    return withNames(together, names) if names else together, False, len(packed)


class Chunk:
    """
    Calls a function with one item after another. In the parent it is what is
    called, and in the child it is made again, with the function.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...] = (),
        kw: dict[str, Any] | None = None,
        raw: bool | None = None,
        *,
        seconds: float = MOST_SECONDS,
    ) -> None:
        """
        @param function: is called with an item, C{args} and C{kw}.
        @param raw: whether an iterator that it returns is pickled as it is.
        @param seconds: after these, no other item is begun.
        @raise Exception: whatever pickling these raises.
        """
        self._code = named(function)
        self._rest = named((args, kw)) if args or kw else None
        self._raw = raw
        self._seconds = seconds
        self._pid = os.getpid()
        self.__qualname__ = f"chunks of {getattr(function, '__qualname__', shortRepr(function))}"

    def __reduce__(self) -> Any:
        return _Running, (self._code, self._rest, self._raw, self._seconds)

    def __call__(self, name: tuple[str, int], slot: int, packed: bytes, together: bool) -> None:
        """
        Return nothing, which says that this was not sent to a child.
        """


class _Running(Constant):
    """
    A L{Chunk} in a child. Each item has the function as the caller had it.
    """

    def __init__(self, code: bytes, rest: bytes | None, raw: bool | None, seconds: float) -> None:
        self._code = code
        # Once it was made, if it is constant.
        self._function: Callable[..., Any] | None = None
        self._rest = rest
        self._raw = raw
        self._seconds = seconds

    def __call__(self, name: tuple[str, int], slot: int, packed: bytes, together: bool) -> Any:
        """
        Make the calls. A hot path.

        @return: a L{Summary}; or C{None} if nothing was done; or a coroutine that
            returns one; or an iterator with one before its items, which are then
            the result of the last item.
        """
        try:
            memory = memoryOf(name)
        except OSError:
            return None
        items = pickle.loads(packed)
        call = self._function
        if call is None or not together or self._rest is not None:
            call = partial(self._withCopies, together)
        words, room = memory.words, memory.map
        begunAt, doneAt, closedAt = (slot * SLOT_WORDS + word for word in (BEGUN, DONE, CLOSED))
        place = slot * SLOT_BYTES + HEADER_BYTES
        # For a record of nothing there is always room.
        end = (slot + 1) * SLOT_BYTES - len(items)
        values: list[Any] = []
        told = values.append
        plain = PLAIN
        arePlain = True
        begun = 0
        started = now = perf_counter()
        deadline = started + self._seconds
        for begun, item in enumerate(items, 1):
            if now > deadline:
                break
            words[begunAt] = begun
            if words[closedAt]:
                break
            try:
                value = call(item)
            except TaskInterrupted:
                # Nobody waits for any of this.
                raise
            except BaseException as error:
                # The seam to user code: exits of it are outcomes, too.
                arePlain = False
                record = recordOf(True, dumps(raised(error)))
            else:
                if value is None:
                    told(None)
                    room[place] = _NONE
                    place += 1
                    now = perf_counter()
                    continue
                if type(value) in plain:
                    told(value)
                    record = marshal.dumps(value)
                elif type(value) is CoroutineType:
                    return _awaited(perf_counter() - started, begun, value, self._raw)
                elif not self._raw and shapeOf(value) is not None:
                    return _streamed(Summary(perf_counter() - started, begun), value)
                else:
                    arePlain = False
                    record = _recorded(value)
            now = perf_counter()
            after = place + len(record)
            if after > end:
                if arePlain:
                    return Summary(now - started, begun, values)
                return Summary(now - started, begun, last=record)
            room[place:after] = record
            place = after
        else:
            begun += 1
        # The one that the loop was left with was not called.
        words[doneAt] = begun - 1
        return Summary(now - started, begun - 1, values if arePlain else None)

    def _withCopies(self, together: bool, item: Any) -> Any:
        """
        Call the function, as the caller had it, with copies of all that may be changed.
        """
        function = self._function
        if function is None:
            function = pickle.loads(self._code)
            if isConstant(function):
                self._function = function
        if not together:
            item = pickle.loads(item)
        if self._rest is None:
            return function(item)
        args, kw = pickle.loads(self._rest)
        return function(item, *args, **kw)


def _recorded(value: Any) -> bytes:
    """
    Return the record of a result that is to be sent, or of why it cannot be.
    """
    try:
        return recordOf(False, dumps(value))
    except TaskInterrupted:
        # Nobody waits for any of this.
        raise
    except BaseException as error:
        # Somebody's objects: whatever their pickling raises, an exit too.
        return recordOf(True, dumps(raised(cannotSend(error, value))))


async def _awaited(
    seconds: float, ended: int, coroutine: Coroutine[Any, Any, Any], raw: bool | None
) -> Any:
    """
    Wait for the coroutine that is the result of the last item of a chunk.
    """
    started = perf_counter()
    try:
        value = await coroutine
    except Exception as error:
        # The seam to user code; a cancellation means the whole chunk.
        last = recordOf(True, dumps(raised(error)))
    else:
        if not raw and shapeOf(value) is not None:
            return _streamed(Summary(seconds, ended), value)
        last = _recorded(value)
    return Summary(seconds + perf_counter() - started, ended, last=last, alone=True)


def _streamed(summary: Summary, value: Any) -> Any:
    head = summary._replace(alone=True)
    return Rest(head, value) if shapeOf(value) is ITERATOR else _AsyncRest(head, value)


class Rest(Iterator[Any]):
    """
    A summary, and after it the items of an iterator that is the result of the
    last item of a chunk.

    @ivar summary: until it was taken.
    @ivar value: the iterator.
    """

    def __init__(self, summary: Summary, value: Any) -> None:
        self.summary: Summary | None = summary
        self.value = value

    def __repr__(self) -> str:
        return repr(self.value)

    def __next__(self) -> Any:
        summary, self.summary = self.summary, None
        return next(self.value) if summary is None else summary


class _AsyncRest(AsyncIterator[Any]):
    """
    The same with an asynchronous iterator.
    """

    def __init__(self, summary: Summary, value: AsyncIterator[Any]) -> None:
        self._summary: Summary | None = summary
        self._value = value

    def __repr__(self) -> str:
        return repr(self._value)

    async def __anext__(self) -> Any:
        summary, self._summary = self._summary, None
        return await anext(self._value) if summary is None else summary
