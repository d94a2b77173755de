"""
L{asynqueue.durable.options}.
"""

from __future__ import annotations

from typing import Any

import pytest

from asynqueue.durable.errors import JobUnreadable
from asynqueue.durable.options import JobOptions, Retry, Running, runningOf, templateOf
from asynqueue.errors import RemoteError
from asynqueue.stores.records import Band, Flow


@pytest.mark.parametrize(
    "wrong",
    [
        {"series": 5},
        {"niceness": 21},
        {"niceness": 0.5},
        {"key": ""},
        {"after": -1},
        {"expires": 0},
        {"timeout": "soon"},
        {"retry": 0},
        {"retry": "often"},
        {"keep": -1},
        {"onTaken": "ignore"},
        {"doNext": True, "doLast": True},
        {"after": 5, "expires": 5},
    ],
)
def test_wrongOptionsAreRefused(wrong: dict[str, Any]) -> None:
    """
    An option that has a value which it cannot have is refused as the job is made.
    """
    with pytest.raises((TypeError, ValueError)):
        JobOptions(**wrong)


def test_numbersOfAttemptsAreRetries() -> None:
    """
    C{retry=3} is C{retry=Retry(3)}.
    """
    assert JobOptions(retry=3) == JobOptions(retry=Retry(3))


def test_bandsHaveNoNiceness() -> None:
    """
    Jobs before or after all others are in one flow, whatever their niceness is.
    """
    assert JobOptions(doNext=True, niceness=5).flow == Flow("", 0, Band.NEXT)
    assert JobOptions(doLast=True, niceness=5).flow == Flow("", 0, Band.LAST)


@pytest.mark.parametrize(
    "options",
    [
        JobOptions(),
        JobOptions(timeout=2.5),
        JobOptions(retry=7),
        JobOptions(timeout=3, retry=Retry(2, on=(OSError, "shop.Away"), loss=True, delay=4)),
    ],
)
def test_whatIsStoredIsReadAgain(options: JobOptions) -> None:
    """
    How a job is run is the same after it was stored.
    """
    new = templateOf(options, "a:f", "cbor")(id="1", payload=b"")
    read = runningOf(new.name, new.options, new.attempts, new.loss)
    assert read == Running(options.timeout, options.retry)


@pytest.mark.parametrize(
    "stored", [b"\x80", b"[]", b'{"timeout": "long"}', b'{"retry": {"on": [5]}}', b"nonsense"]
)
def test_nonsenseIsUnreadable(stored: bytes) -> None:
    """
    Options in a store that are none are said to be so.
    """
    with pytest.raises(JobUnreadable):
        runningOf("a:f", stored, 2, False)


def test_optionsOfNewerProgramsAreIgnored() -> None:
    """
    What is not known here of the options in a store is left out.
    """
    assert runningOf("a:f", b'{"colour": "blue"}', 1, False) == Running()


def test_derivedExceptionsAreCovered() -> None:
    """
    An exception is repeated if it, or a class that it is derived from, is named.
    """
    retry = Retry(2, on=OSError)
    assert retry.covers(ConnectionResetError())
    assert not retry.covers(ValueError())


def test_exceptionsOfElsewhereAreCoveredByTheirNames() -> None:
    """
    An exception whose class is not known here is repeated if its name is given.
    """
    assert Retry(2, on="shop.Away").covers(RemoteError("shop.Away", "gone"))
    assert not Retry(2, on="shop.Away").covers(RemoteError("shop.Other", "gone"))


def test_exitsAreNotCovered() -> None:
    """
    What is no C{Exception} is not repeated, unless that is said.
    """
    assert not Retry(2).covers(KeyboardInterrupt())


def test_pausesGrowUpToTheLongest() -> None:
    """
    Each pause is twice the one before, up to the longest, and no exponent is too large.
    """
    retry = Retry(2000, delay=1, mostDelay=10)
    assert [retry.delayAfter(n, 0.0) for n in (1, 2, 3, 4, 5, 1999)] == [1, 2, 4, 8, 10, 10]


def test_pausesDifferByHalf() -> None:
    """
    Chance makes a pause up to a half shorter.
    """
    assert Retry(2, delay=8).delayAfter(1, 1.0) == 4
