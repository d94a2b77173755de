"""
What happens in a session, and who is on its other side.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from attrs import frozen

from asynqueue.framing import Frame


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
    A beat came back after so many seconds.
    """

    rtt: float


class Left(NamedTuple):
    """
    The other side begins nothing new.
    """

    reason: str


Event = Opened | Frames | Beaten | Left
