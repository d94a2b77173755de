"""
The states of a session, what may be said in each, and what comes of it::

    NEW ── we Greet ─▶ GREETING ── Greet ─▶ PROVING ── we Welcome ─▶ WELCOMING ── Welcome ─▶ OPEN
    OPEN ── we Goodbye ─▶ LEAVING ── Goodbye ─▶ PARTING
    OPEN ── Goodbye ─▶ LEFT ── we Goodbye ─▶ PARTING
    NEW ── we Refuse ─▶ CLOSED
    GREETING to PARTING ── Refuse, we Refuse ─▶ CLOSED

C{docs/protocol.rst} has the table as well, and a test compares them.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, IntEnum
from typing import Any, NamedTuple

from attrs import frozen

from asynqueue.framing import Frame


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
