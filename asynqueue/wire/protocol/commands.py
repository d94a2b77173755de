"""
What a queue and a host can say to each other, as AMP commands, and when::

    NEW ── we Greet ─▶ GREETING ── Greet ─▶ PROVING ── we Welcome ─▶ WELCOMING ── Welcome ─▶ OPEN
    OPEN ── we Goodbye ─▶ LEAVING ── Goodbye ─▶ PARTING
    OPEN ── Goodbye ─▶ LEFT ── we Goodbye ─▶ PARTING
    NEW ── we Refuse ─▶ CLOSED
    GREETING to PARTING ── Refuse, we Refuse ─▶ CLOSED

No command is answered. What is in the frames of a batch stands in
L{asynqueue.wire.protocol.messages}. C{docs/protocol.rst} tells all of it to people who write the
other side; it has the table of the states as well, and a test compares them.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, IntEnum
from typing import Any, NamedTuple

from attrs import frozen
from twisted.protocols.amp import Boolean, Command, Integer, ListOf, String, Unicode

from asynqueue.framing import Frame

VERSIONS = (1,)
"""The versions of the protocol that this side speaks."""

MOST_VALUE = 0xFFFF
"""The most bytes that a value in a box has (AMP)."""

MOST_SMALL = 1 << 14
"""The most bytes of a message that is sent in a batch; a larger one is sent in chunks."""

MOST_STREAMS = 64
"""The most messages that may be under way in chunks, in one direction at once."""

LEAST_LARGEST = 1 << 17
"""The least bytes of a message that each side takes: what is wrong with a larger one must fit."""

LEAST_WINDOW = 1 << 17
"""The bytes of chunks that each side grants to begin with, and always."""

MOST_WINDOW = 1 << 26
"""The most bytes of chunks that a side grants."""

MOST_UNPROVEN_BYTES = 1 << 12
"""The most bytes that a peer may send before it has proved itself ..."""

MOST_UNPROVEN_BOXES = 4
"""... and the most boxes ..."""

OPENING_SECONDS = 10.0
"""... and the seconds after which a connection is open, or lost."""

MOST_BEATS = 64
"""The most beats of a side that may be without echo."""


class Statement(Command):
    """
    What is not answered. Its name is that of its class, if nothing else stands there.
    """

    requiresAnswer = False


class Versions(Statement):
    """
    What a L{Greet} has in every version of the protocol.
    """

    commandName = b"Greet"
    arguments = [(b"versions", ListOf(Integer()))]


class Greet(Statement):
    """
    Who I am. Both sides say it at once.
    """

    arguments = [
        (b"versions", ListOf(Integer())),
        (b"software", Unicode()),
        (b"python", Unicode()),
        (b"role", Unicode()),
        (b"nonce", String()),
        (b"codec", Unicode()),
        (b"keyed", Boolean()),
    ]


class Prove(Statement):
    """
    I have the key.
    """

    arguments = [(b"proof", String())]


class Welcome(Statement):
    """
    I believe who you are: this is what I am ready for.
    """

    arguments = [(b"window", Integer()), (b"largest", Integer()), (b"about", Unicode())]


class Refuse(Statement):
    """
    I will have nothing to do with you. The connection ends with it.
    """

    arguments = [(b"code", Unicode()), (b"text", Unicode())]


class Batch(Statement):
    """
    Messages: their frames, one after the other.
    """

    arguments = [(b"frames", String())]


class Chunk(Statement):
    """
    A piece of the frame of one large message.
    """

    arguments = [(b"stream", Integer()), (b"data", String())]


class Grant(Statement):
    """
    You may send more bytes of chunks.
    """

    arguments = [(b"bytes", Integer())]


class Beat(Statement):
    """
    Are you there?
    """

    arguments = [(b"number", Integer())]


class Echo(Statement):
    """
    I am.
    """

    arguments = [(b"number", Integer())]


class Goodbye(Statement):
    """
    I begin nothing new.
    """

    arguments = [(b"reason", Unicode())]


class SessionState(IntEnum):
    """
    What a session waits for. From OPEN to PARTING, messages may be sent.
    """

    NEW = 0
    GREETING = 1
    PROVING = 2
    WELCOMING = 3
    OPEN = 4
    LEAVING = 5
    LEFT = 6
    PARTING = 7
    CLOSED = 8


class Ours(Enum):
    """
    What this side says, as far as that changes the state.
    """

    GREET = "we Greet"
    WELCOME = "we Welcome"
    GOODBYE = "we Goodbye"
    REFUSE = "we Refuse"


_END: dict[bytes | Ours, SessionState] = {
    b"Refuse": SessionState.CLOSED,
    Ours.REFUSE: SessionState.CLOSED,
}


def _talking(state: SessionState) -> dict[bytes | Ours, SessionState]:
    talk = (b"Batch", b"Chunk", b"Grant", b"Beat", b"Echo")
    return {**dict.fromkeys(talk, state), **_END}


TRANSITIONS: Mapping[SessionState, Mapping[bytes | Ours, SessionState]] = {
    SessionState.NEW: {Ours.GREET: SessionState.GREETING, Ours.REFUSE: SessionState.CLOSED},
    SessionState.GREETING: {b"Greet": SessionState.PROVING, **_END},
    SessionState.PROVING: {
        b"Prove": SessionState.PROVING,
        Ours.WELCOME: SessionState.WELCOMING,
        **_END,
    },
    SessionState.WELCOMING: {b"Welcome": SessionState.OPEN, **_END},
    SessionState.OPEN: {
        **_talking(SessionState.OPEN),
        Ours.GOODBYE: SessionState.LEAVING,
        b"Goodbye": SessionState.LEFT,
    },
    SessionState.LEAVING: {**_talking(SessionState.LEAVING), b"Goodbye": SessionState.PARTING},
    SessionState.LEFT: {**_talking(SessionState.LEFT), Ours.GOODBYE: SessionState.PARTING},
    SessionState.PARTING: _talking(SessionState.PARTING),
    SessionState.CLOSED: {},
}
"""
By state, what may be said by the other side (the names of commands) and by this one, and the
state after it. What is not here must not be said.
"""


@frozen
class Peer:
    """
    Who is on the other side.

    @ivar role: "queue" or "host".
    @ivar software: the name and version of what it runs.
    @ivar python: the version of its Python.
    @ivar codec: how arguments and results are encoded.
    @ivar about: what it says of itself.
    @ivar largest: how many bytes a message to it may have.
    """

    role: str
    software: str
    python: str
    codec: str
    about: Mapping[str, Any]
    largest: int


class Opened(NamedTuple):
    """
    Both sides are ready.
    """

    peer: Peer


class Frames(NamedTuple):
    """
    Messages came.
    """

    frames: list[Frame]


class Beaten(NamedTuple):
    """
    A beat came back after C{rtt} seconds.
    """

    rtt: float


class Left(NamedTuple):
    """
    The other side begins nothing new.
    """

    reason: str


Event = Opened | Frames | Beaten | Left
