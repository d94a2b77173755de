"""
What messages of a child say that is more than a value: what was raised there, and the items of
iterators.
"""

from __future__ import annotations

import marshal
from collections.abc import Sequence
from typing import Any

from twisted.python.failure import Failure

from asynqueue.codec import ClosedItems, decode
from asynqueue.failures import failureOf
from asynqueue.outcome import ClosedError, Raised, cannotDecode
from asynqueue.processes.iterators import ChildIterator
from asynqueue.processes.protocol import Kind
from asynqueue.salvage import Lost, loadItems


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


def firstItems(first: Any, isClosed: bool) -> tuple[list[Any], Failure | None]:
    """
    Return the item that came with an iterator.

    @param first: the list of it, pickled, and its buffers; empty if there is none.
    @return: the list, and why it cannot be had, if that is so.
    """
    if not first:
        return [], None
    if isClosed:
        return [ClosedItems(1, first[0], first[1:])], None
    try:
        return decode(first[0], first[1:]), None
    except BaseException as error:
        # Somebody's objects: whatever their unpickling raises.
        return [], failureOf(cannotDecode(error))


def receiveItems(source: ChildIterator, kind: int, body: Any, buffers: Sequence[Any]) -> None:
    """
    Give an iterator its items, or a failure in the place of one.
    """
    if kind == Kind.ITEMS:
        _receiveOpen(source, body, buffers)
    elif kind == Kind.CLOSED_ITEMS:
        _receiveClosed(source, body, buffers)
    else:
        source.failed(failureOf(raisedThere(kind, body, buffers)))


def _receiveOpen(source: ChildIterator, body: Any, buffers: Sequence[Any]) -> None:
    try:
        items = loadItems(body, buffers)
    except BaseException as error:
        # They are not here, or what came is something else.
        source.failed(failureOf(cannotDecode(error)))
    else:
        for run in items:
            if isinstance(run, Lost):
                source.failed(failureOf(cannotDecode(run.error)))
            else:
                source.receive(run)


def _receiveClosed(source: ChildIterator, body: Any, buffers: Sequence[Any]) -> None:
    try:
        items = ClosedItems(marshal.loads(body), buffers[0], buffers[1:])
    except Exception as error:
        # They are in a segment of memory that cannot be had here, and how many they are
        # is not known.
        source.fail(failureOf(cannotDecode(error)))
    else:
        source.receive([items])
