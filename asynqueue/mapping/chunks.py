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

import os
import pickle
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Sequence
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
    LENGTH,
    SLOT_BYTES,
    SLOT_WORDS,
    memoryOf,
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

_NONE = pickle.dumps(None, 5)
_NONE_RECORD = LENGTH.pack(len(_NONE) << 1) + _NONE


class Summary(NamedTuple):
    """
    What a chunk returns.

    @ivar seconds: how long its calls took, all together.
    @ivar ended: how many items have an outcome; the others were not begun.
    @ivar values: the results, if all calls returned something plain; else the
        outcomes are on the board.
    @ivar last: the outcome of the last of them if that is not on the board, as a
        failure or not, and pickled.
    @ivar alone: whether the function returns what a chunk cannot carry, so that
        items had better be called one by one.
    """

    seconds: float
    ended: int
    values: list[Any] | None = None
    last: tuple[bool, bytes] | None = None
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
        words = memory.words
        room = memory.bytes
        begunAt = slot * SLOT_WORDS + BEGUN
        doneAt = slot * SLOT_WORDS + DONE
        closedAt = slot * SLOT_WORDS + CLOSED
        place = slot * SLOT_BYTES + HEADER_BYTES
        end = (slot + 1) * SLOT_BYTES
        # Together they are the fence.
        release, acquire = memory.lock.release, memory.lock.acquire
        function = self._function
        rest = self._rest
        values: list[Any] | None = []
        ended = 0
        started = now = perf_counter()
        deadline = started + self._seconds
        for item in items:
            if now > deadline:
                break
            words[begunAt] = ended + 1
            release()
            acquire()
            if words[closedAt]:
                break
            failed = plain = False
            try:
                if function is None:
                    f = pickle.loads(self._code)
                    if isConstant(f):
                        function = self._function = f
                else:
                    f = function
                if not together:
                    item = pickle.loads(item)
                if rest is None:
                    value = f(item)
                else:
                    args, kw = pickle.loads(rest)
                    value = f(item, *args, **kw)
                plain = type(value) in PLAIN
            except TaskInterrupted:
                # Nobody waits for any of this.
                raise
            except BaseException as error:
                # The seam to user code: exits of it are outcomes, too.
                failed = True
                pickled = dumps(raised(error))
            else:
                if plain:
                    pickled = _NONE if value is None else pickle.dumps(value, 5)
                elif type(value) is CoroutineType:
                    return _awaited(perf_counter() - started, ended + 1, value, self._raw)
                elif not self._raw and shapeOf(value) is not None:
                    return _streamed(Summary(perf_counter() - started, ended + 1), value)
                else:
                    failed, pickled = _pickled(value)
            now = perf_counter()
            if plain and value is None:
                record = _NONE_RECORD
            else:
                record = LENGTH.pack(len(pickled) << 1 | failed) + pickled
            after = place + len(record)
            ended += 1
            if after > end:
                return Summary(now - started, ended, last=(failed, pickled))
            room[place:after] = record
            place = after
            release()
            acquire()
            words[doneAt] = ended
            if not plain:
                values = None
            elif values is not None:
                values.append(value)
        return Summary(now - started, ended, values)


def _pickled(value: Any) -> tuple[bool, bytes]:
    """
    Return a result that is to be sent, or why it cannot be.
    """
    try:
        return False, dumps(value)
    except TaskInterrupted:
        # Nobody waits for any of this.
        raise
    except BaseException as error:
        # Somebody's objects: whatever their pickling raises, an exit too.
        return True, dumps(raised(cannotSend(error, value)))


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
        last = True, dumps(raised(error))
    else:
        if not raw and shapeOf(value) is not None:
            return _streamed(Summary(seconds, ended), value)
        last = _pickled(value)
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
