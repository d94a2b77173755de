"""
What is logged of those who could not open a connection.
"""

from __future__ import annotations

from typing import Any

from twisted.logger import Logger

from asynqueue.outcome import oneLine
from asynqueue.reactors import theReactor

_log = Logger()


class RefusalLog:
    """
    Logs who could not open a connection, but not more often than is good for a log.

    One is shared by all connections of a listening port.
    """

    def __init__(self, reactor: Any = None, *, most: int = 10, seconds: float = 60.0) -> None:
        """
        @param reactor: the reactor; C{None} is the installed one.
        @param most: how many are logged ...
        @param seconds: ... in so many seconds.
        """
        self._most = most
        self._seconds = seconds
        self._reactor = reactor
        self._since = 0.0
        self._count = 0

    def add(self, description: str, error: Exception) -> None:
        """
        Somebody could not open a connection.

        @param description: where from.
        @param error: why.
        """
        now = theReactor(self._reactor).seconds()
        if not 0 <= now - self._since < self._seconds:
            if self._count > self._most:
                _log.warn(
                    "{count} more connections could not be opened", count=self._count - self._most
                )
            self._since = now
            self._count = 0
        self._count += 1
        if self._count <= self._most:
            _log.warn("no connection with {peer}: {error}", peer=description, error=oneLine(error))
