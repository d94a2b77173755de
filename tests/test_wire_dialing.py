"""
What L{asynqueue.wire.transport.connecting} promises.
"""

from __future__ import annotations

import errno
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.error import (
    ConnectError,
    ConnectionDone,
    ConnectionRefusedError,
    DNSLookupError,
    TimeoutError,
)
from twisted.internet.task import Clock

from asynqueue.errors import RemoteProtocolError
from asynqueue.wire.transport.connecting import Attempts, ConnectionFactory, Dialer, reasonOf
from tests.doubles import Heard, readingLogs, resultOf

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
    attempts = Attempts("tcp:crew1:4000", first=4, jitter=lambda: 0.5)
    assert attempts.inWords(10) == "dialing tcp:crew1:4000"
    attempts.begun()
    assert attempts.inWords(10) == "dialing tcp:crew1:4000"
    attempts.failed(10, REFUSED)
    assert attempts.pause(10) == 4
    said = "dialing tcp:crew1:4000: connection refused"
    assert attempts.inWords(11.04) == f"{said}, next try in 3 s"
    assert attempts.inWords(13.88) == f"{said}, next try in 0.12 s"
    assert attempts.inWords(100) == f"{said}, next try in 0 s"
    attempts.begun()
    assert attempts.inWords(100) == f"{said}, trying again"
    attempts.succeeded(100)
    assert attempts.inWords(100) == "dialing tcp:crew1:4000"


def test_eachReasonIsLoggedOnce() -> None:
    """
    A reason is logged when it is another one than before, and when there was a connection
    between.
    """
    attempts = Attempts("unix:host", first=2, longest=2, jitter=lambda: 0.5)

    def fail(*errors: Exception) -> None:
        for error in errors:
            attempts.begun()
            attempts.failed(0, error)
            attempts.pause(0)

    with readingLogs() as logs:
        fail(REFUSED, REFUSED, ConnectionDone(), ConnectionDone(), REFUSED)
        attempts.succeeded(0)
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
    attempts = Attempts("unix:host", first=2, longest=2, jitter=lambda: 0.5)
    with readingLogs() as logs:
        attempts.failed(0, ConnectionDone(), isTold=True)
        attempts.pause(0)
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


def dialerOf(outcome: Any) -> tuple[Dialer, Attempts, Clock]:
    """
    Return what dials an endpoint, and what it notes.
    """
    attempts, clock = Attempts("odd:"), Clock()
    return Dialer(Endpoint(outcome), clock, attempts), attempts, clock


def test_endpointsThatRaiseAreNoted() -> None:
    """
    An endpoint may raise where it should fail: that is a reason, and an attempt like others.
    """
    dialer, attempts, clock = dialerOf(OSError("no such device"))
    opening = Heard(dialer.open(ConnectionFactory(lambda address: None)))
    assert not opening.results
    assert "no such device" in attempts.inWords(0)
    assert len(clock.getDelayedCalls()) == 1
    resultOf(dialer.shut())
    assert not clock.getDelayedCalls()


def test_cancellingIsNoReason() -> None:
    """
    An attempt that was given up has ended, and has not failed.
    """
    connecting: Deferred[Any] = Deferred()
    dialer, attempts, clock = dialerOf(connecting)
    dialer.open(ConnectionFactory(lambda address: None))
    dialer.shut()
    assert connecting.called
    assert attempts.inWords(0) == "dialing odd:"
    assert not clock.getDelayedCalls()


def test_oneThatIsLostAtOnceIsNoSuccess() -> None:
    """
    While connections are lost as soon as they are open the pauses grow; after one that lasted
    they begin anew.
    """
    attempts = Attempts("odd:", first=1, longest=64, jitter=lambda: 0.5)
    clock = Clock()
    dialer = Dialer(Endpoint(Deferred()), clock, attempts)
    opening = Heard(dialer.open(ConnectionFactory(lambda address: None)))
    connection: Any = None
    pauses = []
    for seconds in (0, 0, 0, 6):
        dialer.opened(connection)
        clock.advance(seconds)
        dialer.lost(connection, ConnectionDone())
        (pause,) = clock.getDelayedCalls()
        pauses.append(pause.getTime() - clock.seconds())
        clock.advance(pauses[-1])
    assert pauses == [1, 1.5, 2.25, 1]
    assert opening.result is None


def test_forkLeavesTheAttemptToItsParent() -> None:
    """
    In a fork the attempt that is under way is not ended, and not followed by another.
    """
    connecting: Deferred[Any] = Deferred()
    dialer, _, clock = dialerOf(connecting)
    dialer.open(ConnectionFactory(lambda address: None))
    dialer.forked()
    assert not connecting.called
    connecting.errback(REFUSED)
    assert not clock.getDelayedCalls()
