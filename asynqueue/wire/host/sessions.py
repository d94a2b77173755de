"""
The queues that a server serves.
"""

from __future__ import annotations

from typing import Protocol

from asynqueue.framing import Frame
from asynqueue.wire.host.host import Host
from asynqueue.wire.host.statistics import GuestStatistics
from asynqueue.wire.transport.connection import Connection

_GOODBYE = "the host stops"


class Owner(Protocol):
    """
    Who has guests.
    """

    def guestOpened(self, guest: Guest, connection: Connection) -> None:
        """
        It has proved itself.
        """

    def guestLost(self, guest: Guest, connection: Connection, error: Exception) -> None:
        """
        It is gone.
        """


class Guest:
    """
    A queue out there: the connection with it, and the host that makes its calls.

    @ivar connection: the connection.
    @ivar wasOpen: whether it has proved itself once.
    """

    def __init__(self, server: Owner, host: Host) -> None:
        self._server = server
        self._host = host
        self.connection: Connection | None = None
        self.wasOpen = False

    def opened(self, connection: Connection) -> None:
        """
        It has proved itself.
        """
        self.wasOpen = True
        self._host.opened(connection)
        self._server.guestOpened(self, connection)

    def received(self, connection: Connection, frames: list[Frame]) -> None:
        """
        It has said something. A hot path.
        """
        self._host.received(connection, frames)

    def leaving(self, connection: Connection, reason: str) -> None:
        """
        It will say nothing new.
        """
        self._host.leaving(connection, reason)

    def lost(self, connection: Connection, error: Exception) -> None:
        """
        It is gone.
        """
        self._host.lost(connection, error)
        self._server.guestLost(self, connection, error)

    @property
    def name(self) -> str:
        """
        Where it is, in words.
        """
        return "nobody" if self.connection is None else self.connection.description

    @property
    def isProven(self) -> bool:
        """
        Whether the other side has proved itself.
        """
        return self.connection is not None and self.connection.isProven

    def statistics(self) -> GuestStatistics:
        """
        Return how the host stands with it.
        """
        return GuestStatistics(self.name, self._host.held)

    def dismiss(self) -> None:
        """
        Let it go, when all its calls have ended. Some may be on their way here, as soon as
        it has proved itself.
        """
        if self.isProven:
            self._host.drain(_GOODBYE)
        else:
            self.cut()

    def cut(self) -> None:
        """
        Let it go at once.
        """
        if self.connection is not None:
            self.connection.abort()
