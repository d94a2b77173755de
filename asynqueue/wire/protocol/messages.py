"""
What a queue and a host say to each other once the connection is open.

::

    queue ── CALL, DEFINE, FORGET, CANCEL, RECALL, CREDIT, CLOSE ──▶ host
          ◀── RETURNED, RAISED, BEGUN, GIVEN_BACK, ITERATOR, ITEMS, ITEM_FAILED, END,
              CAPACITY ──

Each message is a frame (L{asynqueue.framing}), whose number is that of a call, if
nothing else is said. What is I{encoded} was encoded by the codec that both sides
greeted with; its large buffers are buffers of the frame.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from struct import Struct
from typing import Any

from asynqueue.errors import FrameInvalid

_HEAD = Struct("<BH")
_COUNT = Struct("<Q")

# The most bytes that a name has: its length has to fit.
LONGEST_NAME = 0xFFFF


class MessageKind(IntEnum):
    """
    What a message says.
    """

    # From the queue.
    CALL = 1
    """Make a call: see L{packedCall}."""
    DEFINE = 2
    """From now on this number is a callable, encoded; only to hosts that trust code."""
    FORGET = 3
    """The callable of this number is not used any more."""
    CANCEL = 4
    """Nobody wants the result: end the call, as far as that can be done."""
    RECALL = 5
    """Give back the calls up to this number that have not begun."""
    CREDIT = 6
    """The iterator of this call may give more items: see L{packedCount}."""
    CLOSE = 7
    """Nobody takes more items of the iterator of this call."""

    # From the host.
    RETURNED = 16
    """The value that a call returned, encoded."""
    RAISED = 17
    """What a call raised, or why its result cannot be sent: encoded as a
    L{Raised<asynqueue.outcome.Raised>}."""
    BEGUN = 18
    """A call whose beginning is watched has begun."""
    GIVEN_BACK = 19
    """The call has not begun, and never will here."""
    CANCELLED = 20
    """The run of a cancelled call is over; there was no outcome before."""
    ITERATOR = 21
    """A call returned an iterator, which stays here: its representation, in UTF-8."""
    ITEMS = 22
    """A list of items of an iterator, encoded."""
    ITEM_FAILED = 23
    """What was raised in the place of an item, as with RAISED."""
    END = 24
    """The iterator has no more items, or was closed."""
    CAPACITY = 25
    """The number is how many calls the host can run at once from now on; and the body why none,
    if its workers can run nothing: see L{packedFault}."""


class CallFlag(IntFlag):
    """
    How a call is to be made.
    """

    RAW = 1
    """An iterator is returned as it is."""
    THREAD = 2
    """In a thread of the host."""
    WATCHED = 4
    """Say when it begins."""
    URGENT = 8
    """Before those that have not begun."""
    DEFINED = 16
    """The name is the number of a callable that was defined, in decimal digits."""


def packedCall(flags: int, name: str, arguments: bytes | None) -> bytes:
    """
    Return the body of a CALL: a byte of flags, two bytes of length (little-endian), the name in
    UTF-8, and the encoded arguments: nothing for none.

    @raise FrameInvalid: the name is too long.
    """
    encoded = name.encode()
    if len(encoded) > LONGEST_NAME:
        raise FrameInvalid(f"a name of {len(encoded):,} bytes; {LONGEST_NAME:,} are allowed")
    return _HEAD.pack(flags, len(encoded)) + encoded + (arguments or b"")


def unpackedCall(body: Any) -> tuple[int, str, Any]:
    """
    Return flags, name and encoded arguments of a CALL.

    @raise FrameInvalid: this is none.
    """
    if len(body) < _HEAD.size:
        raise FrameInvalid(f"a call of {len(body)} bytes")
    flags, length = _HEAD.unpack_from(body)
    end = _HEAD.size + length
    if len(body) < end:
        raise FrameInvalid(f"a call of {len(body)} bytes, whose name has {length}")
    try:
        name = bytes(body[_HEAD.size : end]).decode()
    except UnicodeDecodeError:
        raise FrameInvalid("a call whose name is no UTF-8") from None
    return flags, name, body[end:]


def packedCount(count: int) -> bytes:
    """
    Return the body of a CREDIT.
    """
    return _COUNT.pack(count)


def unpackedCount(body: Any) -> int:
    """
    Return how many items a CREDIT grants.

    @raise FrameInvalid: this is none.
    """
    if len(body) != _COUNT.size:
        raise FrameInvalid(f"a credit of {len(body)} bytes")
    count: int = _COUNT.unpack(body)[0]
    return count


def packedFault(reason: str, isHopeless: bool) -> bytes:
    """
    Return the body of a CAPACITY: nothing, while calls can be run; else a byte, which is 1 if there
    is no hope and 0 if there is, and why, in UTF-8.
    """
    if not reason:
        return b""
    return bytes([isHopeless]) + reason.encode(errors="replace")[:LONGEST_NAME]


def unpackedFault(body: Any) -> tuple[str, bool]:
    """
    Return why a host can run nothing, empty if it can, and whether there is no hope.
    """
    if not body:
        return "", False
    return bytes(body[1:]).decode(errors="replace") or "it does not say why", body[0] == 1
