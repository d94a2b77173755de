"""
Iterators in a child: they stay there, and give items as far as they have credit.

This module imports no Twisted.
"""

from __future__ import annotations

import marshal
import pickle
from collections.abc import Callable, Coroutine, Sequence
from time import perf_counter
from types import AsyncGeneratorType, GeneratorType
from typing import Any

from asynqueue.codec import AWAY, NotClosed, encode
from asynqueue.errors import RemoteError
from asynqueue.framing import checkSize
from asynqueue.outcome import (
    ITERATOR,
    Raised,
    cannotSend,
    nameOf,
    packedRaised,
    raised,
    shapeOf,
    shortRepr,
    textOf,
)
from asynqueue.processes.protocol import Kind

# The seconds for which an iterator is advanced at a time, and the bytes that its items have at
# about the most; then it is another one's turn.
_STEP_SECONDS = 0.002
_STEP_BYTES = 1 << 18

# The size of the items is learnt with batches of 1, 2, 4 and so on.
_GROWTH = 2

# So much is told of an exception that is too large to be sent.
_TOLD = 10_000

Send = Callable[[int, int, Any, Sequence[Any]], None]


def sizeOf(body: bytes, buffers: Sequence[Any]) -> int:
    """
    Return how many bytes a pickled value has, all together.
    """
    size = len(body)
    for buffer in buffers:
        size += buffer.raw().nbytes
    return size


def sendRaised(send: Send, kind: int, number: int, error: BaseException, closed: int = 0) -> None:
    """
    Send an exception, or as much of it as can be sent.

    @param closed: the kind of message by which it goes past the parent; 0: it does not.
    """
    outcome = raised(error)
    if closed:
        try:
            packed = packedRaised(outcome, AWAY)
            words = nameOf(error), textOf(error)[:_TOLD], outcome.trace[-_TOLD:], packed
            send(closed, number, marshal.dumps(words), ())
        except BaseException:
            # Somebody's objects, which the parent is to look at, too, or too many of them:
            # whatever that raises. If the parent is gone, what follows raises it again.
            pass
        else:
            return
    try:
        send(kind, number, *encode(outcome))
    except BaseException:
        # Somebody's objects, or too many of them: whatever that raises. If nobody is there
        # to send it to, this raises it again.
        told = RemoteError(nameOf(error), f"{shortRepr(error)}, which is too large to be sent")
        send(kind, number, *encode(Raised(told, outcome.trace[-_TOLD:])))


def encoded(value: Any, isClosed: bool) -> tuple[bool, bytes, Sequence[Any]]:
    """
    Pickle a value.

    @param isClosed: whether it is to go past the parent.
    @return: whether it can, the pickle and its buffers.
    @raise Exception: whatever the pickling of somebody's objects raises.
    """
    if isClosed:
        try:
            return True, *encode(value, AWAY)
        except NotClosed:
            pass
    return False, *encode(value)


class Stream:
    """
    An iterator that a call returned.

    @ivar number: the number of the call.
    @ivar credit: how many items it may give.
    """

    def __init__(
        self,
        number: int,
        value: Any,
        send: Send,
        perform: Callable[[Callable[..., Any]], Any],
        run: Callable[[Coroutine[Any, Any, Any]], Any],
        limit: int,
        isClosed: bool,
    ) -> None:
        """
        @param send: sends a frame.
        @param perform: calls user code.
        @param run: runs a coroutine.
        @param limit: how many bytes an item may have.
        @param isClosed: whether the items go past the parent.
        """
        self.number = number
        self.credit = 1
        self._send = send
        self._perform = perform
        self._run = run
        self._limit = limit
        self._isClosed = isClosed
        self._value = value
        self._batch = 1
        if shapeOf(value) is ITERATOR:
            self._next: Callable[[], Any] = value.__next__
            # That of the other kind is no end, but a fault of the iterator.
            self._end: type[Exception] = StopIteration
        else:
            self._next = lambda: run(value.__anext__())
            self._end = StopAsyncIteration

    def open(self) -> bool:
        """
        Say that it is there, with its first item.

        @return: whether there may be another.
        """
        failure: BaseException | None = None
        items: list[Any] = []
        over = True
        try:
            items.append(self._perform(self._next))
            over = False
        except self._end:
            pass
        except BaseException as error:
            # The seam to user code: an exit is an outcome, too.
            failure = error
        first: list[Any] = []
        kind = Kind.ITERATOR
        if items:
            try:
                isClosed, body, buffers = self._encoded(items)
            except BaseException as error:
                # Somebody's objects: whatever their pickling raises, an exit too.
                failure = cannotSend(error, items[0])
            else:
                first = [body, *buffers]
                # If the first is not closed, all are opened by the parent.
                self._isClosed = isClosed
        if self._isClosed:
            kind = Kind.CLOSED_ITERATOR
        representation = pickle.dumps(shortRepr(self._value))
        try:
            self._send(kind, self.number, representation, first)
        except Exception as error:
            # There is no room for so much.
            failure = cannotSend(error, items)
            self._send(kind, self.number, representation, ())
        self.credit = 0
        if failure is not None:
            self._fail(failure)
        if over:
            self._send(Kind.END, self.number, b"", ())
        return not over

    def step(self) -> bool:
        """
        Give some items.

        @return: whether there may be more.
        """
        end = perf_counter() + _STEP_SECONDS
        items: list[Any] = []
        failure: BaseException | None = None
        over = False
        sent = 0
        while self.credit and not over and sent < _STEP_BYTES and perf_counter() < end:
            try:
                self._perform(lambda: self._take(items, min(self._batch, self.credit), end))
            except self._end:
                over = True
            except BaseException as error:
                # The seam to user code, too.
                failure = error
                over = True
            self.credit -= len(items)
            sent += self._give(items)
            items.clear()
        if failure is not None:
            self._fail(failure)
        if over:
            self._send(Kind.END, self.number, b"", ())
        return not over

    def close(self) -> None:
        """
        Close the iterator: nobody takes its items any more.
        """
        if type(self._value) is GeneratorType:
            # An interrupt of the call is over.
            self._value.close()
        elif type(self._value) is AsyncGeneratorType:
            self._run(self._value.aclose())

    def _take(self, items: list[Any], count: int, end: float) -> None:
        """
        Advance the iterator. A hot path.
        """
        step = self._next
        append = items.append
        for _ in range(count):
            append(step())
            if perf_counter() > end:
                return

    def _give(self, items: list[Any]) -> int:
        """
        Send items.

        @return: about how many bytes they had.
        """
        if not items:
            return 0
        try:
            isClosed, body, buffers = self._encoded(items)
            if isClosed:
                count = marshal.dumps(len(items))
                self._send(Kind.CLOSED_ITEMS, self.number, count, [body, *buffers])
            else:
                self._send(Kind.ITEMS, self.number, body, buffers)
        except BaseException as error:
            # Somebody's objects, an exit too, or too much of them: find out which. If nobody
            # is there to send it to, what follows raises it again.
            if len(items) == 1:
                self._fail(cannotSend(error, items[0]))
                return 0
            return sum(self._give([item]) for item in items)
        size = sizeOf(body, buffers)
        most = max(1, _STEP_BYTES * len(items) // size)
        self._batch = min(self._batch * _GROWTH, most)
        return size

    def _encoded(self, items: list[Any]) -> tuple[bool, bytes, Sequence[Any]]:
        isClosed, body, buffers = encoded(items, self._isClosed)
        checkSize(sizeOf(body, buffers), self._limit)
        return isClosed, body, buffers

    def _fail(self, error: BaseException) -> None:
        closed = Kind.CLOSED_ITEM_FAILED if self._isClosed else 0
        sendRaised(self._send, Kind.ITEM_FAILED, self.number, error, closed)
