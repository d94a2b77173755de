"""
Who has a connection.
"""

from __future__ import annotations

from typing import Protocol, TypeVar

from asynqueue.framing import Frame

# What a connection is here: the class of it is above.
_Connection = TypeVar("_Connection", contravariant=True)


class ConnectionOwner(Protocol[_Connection]):
    """
    Who is told what happens to a connection: in the reactor's thread, and never within
    a call of L{Connection.send<asynqueue.wire.connection.Connection.send>}.
    """

    def opened(self, connection: _Connection) -> None:
        """
        Both sides are ready: messages can be sent. At most once, and before all below
        but L{lost}.
        """

    def received(self, connection: _Connection, frames: list[Frame]) -> None:
        """
        Messages came. What this raises ends the connection.

        @param frames: kind, number, body and buffers of each.
        @raise WireError: the other side must not say this. It is told so.
        """

    def leaving(self, connection: _Connection, reason: str) -> None:
        """
        The other side begins nothing new.
        """

    def lost(self, connection: _Connection, error: Exception) -> None:
        """
        The connection is over. Exactly once, and the last.

        @param error: why: an error of the wire, or of the transport. If one side just
            closed it, C{ConnectionDone}, or C{ConnectionLost} where something was still
            on its way.
        """
