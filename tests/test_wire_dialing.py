"""
What L{asynqueue.wire.transport.dialing} promises.
"""

from __future__ import annotations

import errno
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import (
    ConnectError,
    ConnectionDone,
    ConnectionRefusedError,
    DNSLookupError,
    TimeoutError,
)

from asynqueue.errors import RemoteProtocolError
from asynqueue.wire.transport.dialing import Attempts, NotedEndpoint, reasonOf
from tests.doubles import Heard, readingLogs

REFUSED = ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (REFUSED, "Connection refused"),
        (ConnectError(errno.ENOENT), "No such file or directory"),
        (TimeoutError(), "no answer in time"),
        (ConnectionDone(), "Connection was closed cleanly"),
        (
            DNSLookupError("no results for hostname lookup: crew1"),
            "DNS lookup failed: no results for hostname lookup: crew1",
        ),
        (RemoteProtocolError("this is\nno box"), "this is no box"),
        (ConnectError(string="strange"), "An error occurred while connecting: strange"),
        (ValueError("bad."), "bad"),
        (ValueError(), "ValueError"),
    ],
)
def test_reasonsAreWords(error: Exception, reason: str) -> None:
    """
    Why there is no connection is told in one line, without the names of classes where
    there is something better.
    """
    assert reasonOf(error) == reason


def test_attemptsInWords() -> None:
    """
    It says where it dials; then why that failed, and in how many seconds is the next try.
    """
    attempts = Attempts("tcp:crew1:4000")
    assert attempts.inWords(10) == "dialing tcp:crew1:4000"
    attempts.begun()
    assert attempts.inWords(10) == "dialing tcp:crew1:4000"
    attempts.failed(REFUSED)
    attempts.pause(10, 4)
    said = "dialing tcp:crew1:4000: connection refused"
    assert attempts.inWords(11.04) == f"{said}, next try in 3 s"
    assert attempts.inWords(13.88) == f"{said}, next try in 0.12 s"
    assert attempts.inWords(100) == f"{said}, next try in 0 s"
    attempts.begun()
    assert attempts.inWords(100) == f"{said}, trying again"
    attempts.succeeded()
    assert attempts.inWords(100) == "dialing tcp:crew1:4000"


def test_eachReasonIsLoggedOnce() -> None:
    """
    A reason is logged when it is another one than before, and when there was a connection
    between.
    """
    attempts = Attempts("unix:host")

    def fail(*errors: Exception) -> None:
        for error in errors:
            attempts.begun()
            attempts.failed(error)
            attempts.pause(0, 2)

    with readingLogs() as logs:
        fail(REFUSED, REFUSED, ConnectionDone(), ConnectionDone(), REFUSED)
        attempts.succeeded()
        fail(REFUSED)
    said = [event["attempts"] for event in logs.events]
    assert said == [
        "dialing unix:host: connection refused, next try in 2 s",
        "dialing unix:host: connection was closed cleanly, next try in 2 s",
        "dialing unix:host: connection refused, next try in 2 s",
        "dialing unix:host: connection refused, next try in 2 s",
    ]
    assert {event["log_level"].name for event in logs.events} == {"warn"}


def test_lossIsLoggedElsewhere() -> None:
    """
    A connection that was lost is not logged here, and is the reason all the same.
    """
    attempts = Attempts("unix:host")
    with readingLogs() as logs:
        attempts.lost(ConnectionDone())
        attempts.pause(0, 2)
    assert logs.events == []
    said = "dialing unix:host: connection was closed cleanly, next try in 2 s"
    assert attempts.inWords(0) == said


class Endpoint:
    """
    Does what it is told to when somebody dials.
    """

    def __init__(self, outcome: Any) -> None:
        self.outcome = outcome

    def connect(self, factory: Any) -> Any:
        """
        Raise an exception, or return something.
        """
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


def test_endpointsThatRaiseAreNoted() -> None:
    """
    What an endpoint raises fails its Deferred, and is the reason.
    """
    attempts = Attempts("odd:")
    connecting = Heard(NotedEndpoint(Endpoint(OSError("no such device")), attempts).connect(None))
    assert isinstance(connecting.error, OSError)
    assert "no such device" in attempts.inWords(0)


def test_cancellingIsNoReason() -> None:
    """
    An attempt that was given up has not failed.
    """
    attempts = Attempts("odd:")
    connecting = Heard(NotedEndpoint(Endpoint(Deferred()), attempts).connect(None))
    connecting.d.cancel()
    assert isinstance(connecting.error, CancelledError)
    assert attempts.inWords(0) == "dialing odd:"
