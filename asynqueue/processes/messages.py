"""
What messages of a child say that is more than a value: what was raised there, and the items of
iterators.
"""

from __future__ import annotations

import marshal
from collections.abc import Callable, Sequence
from typing import Any

from asynqueue.codec import ClosedItems, decode
from asynqueue.failures import failureOf
from asynqueue.iteration.far import FarSource
from asynqueue.outcome import ClosedError, Raised, cannotDecode
from asynqueue.processes.protocol import Kind
from asynqueue.salvage import loadItems


def raisedThere(kind: int, body: Any, buffers: Sequence[Any]) -> Raised:
    """
    Return what a call or an iterator has raised.
    """
    try:
        if kind == Kind.RAISED or kind == Kind.ITEM_FAILED:
            outcome: Raised = decode(body, buffers)
            return outcome
        name, text, trace, packed = marshal.loads(body)
    except BaseException as error:
        # It was tried out where it was raised, but here may be another world; or it is in a
        # segment of memory that cannot be had here.
        return cannotDecode(error)
    return Raised(ClosedError(name, text, packed), trace)


class OpenStreams:
    """
    The iterators that stay in a child, over which the parent iterates.

    @ivar sources: those that are open, by the numbers of their calls.
    @ivar rtt: a child is near.
    """

    rtt = 0

    def __init__(self, send: Callable[[int, int, bytes], Any]) -> None:
        """
        @param send: sends a frame to the child.
        """
        self.sources: dict[int, FarSource] = {}
        self._send = send

    def grantItems(self, number: int, count: int) -> None:
        self._send(Kind.CREDIT, number, marshal.dumps(count))

    def closeItems(self, number: int) -> None:
        self._send(Kind.STOP, number, b"")

    def open(self, kind: int, number: int, body: Any, first: Sequence[Any]) -> FarSource:
        """
        Take an iterator that a call has returned.

        @param first: the list of its first item, pickled, and its buffers; empty if there is none.
        @raise Exception: C{body} is not what it is, in words.
        """
        isClosed = kind == Kind.CLOSED_ITERATOR
        source = FarSource(self, number, decode(body), isClosed, unasked=1)
        self.sources[number] = source
        if first:
            pickled, *buffers = first
            try:
                items = [ClosedItems(1, pickled, buffers)] if isClosed else decode(pickled, buffers)
            except BaseException as error:
                # Somebody's objects: whatever their unpickling raises.
                source.failed(failureOf(cannotDecode(error)))
            else:
                source.receive(items, sum(map(len, first)), 1)
        return source

    def heard(self, kind: int, number: int, body: Any, buffers: Sequence[Any]) -> None:
        """
        Take items, a failure in their place, or the end.
        """
        source = self.sources.get(number)
        if source is None:
            return
        match kind:
            case Kind.ITEMS:
                source.read(loadItems, body, buffers)
            case Kind.CLOSED_ITEMS:
                try:
                    count = marshal.loads(body)
                except Exception as error:
                    # They are in a segment of memory that cannot be had here, and how many they
                    # are is not known.
                    source.fail(failureOf(cannotDecode(error)))
                else:
                    items = ClosedItems(count, buffers[0], buffers[1:])
                    source.receive([items], sum(map(len, buffers)), count)
            case Kind.END:
                del self.sources[number]
                source.ended()
            case _:
                source.failed(failureOf(raisedThere(kind, body, buffers)))
