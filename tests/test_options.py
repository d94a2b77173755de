"""
What L{asynqueue.scheduling.options} promises.
"""

from __future__ import annotations

from typing import Any

import pytest
from attrs import evolve

from asynqueue.errors import ImplementationError
from asynqueue.scheduling.options import (
    DEFAULT,
    REMOTE_SERIES,
    CallOptions,
    loggedOptions,
    makeOptions,
    namedOptions,
)
from asynqueue.testing import RecordingConsumer

# What C{makeOptions} takes by position.
SHARED = (
    "niceness",
    "series",
    "doNext",
    "doLast",
    "timeout",
    "retries",
    "raw",
    "returnFailure",
)


def made(**kw: Any) -> CallOptions:
    """
    Options as a call makes them.
    """
    shared = [kw.get(name, getattr(DEFAULT, name)) for name in SHARED]
    return makeOptions(*shared, **{name: kw[name] for name in kw.keys() - set(SHARED)})


@pytest.fixture(params=[made, CallOptions], ids=["made", "CallOptions"])
def make(request: Any) -> Any:
    """
    Both ways to make options.
    """
    return request.param


@pytest.mark.parametrize("niceness", [21, -21, "5", True, 1.0, None, []])
def test_nicenessIsChecked(make: Any, niceness: Any) -> None:
    """
    A niceness that is no whole number from -20 to 20 is a ValueError.
    """
    with pytest.raises(ValueError, match="niceness"):
        make(niceness=niceness)


@pytest.mark.parametrize("niceness", [-20, 0, 20])
def test_nicenessReachesFromGreedyToModest(make: Any, niceness: int) -> None:
    """
    The limits themselves are allowed.
    """
    assert make(niceness=niceness).niceness == niceness


@pytest.mark.parametrize("timeout", [0, -1, True, "1", float("nan")])
def test_timeoutIsChecked(make: Any, timeout: Any) -> None:
    """
    A timeout that is no number of seconds above 0 is a ValueError.
    """
    with pytest.raises(ValueError, match="timeout"):
        make(timeout=timeout)


@pytest.mark.parametrize("timeout", [None, 1, 0.5, float("inf")])
def test_timeoutMayBeAnyTime(make: Any, timeout: Any) -> None:
    """
    Any time is allowed, and none.
    """
    assert make(timeout=timeout).timeout == timeout


@pytest.mark.parametrize("retries", [-1, True, 1.0, "1", None])
def test_retriesAreChecked(make: Any, retries: Any) -> None:
    """
    Retries that are no whole number, 0 or more, are a ValueError.
    """
    with pytest.raises(ValueError, match="retries"):
        make(retries=retries)


@pytest.mark.parametrize("series", [[], {}, ([],)])
def test_seriesIsHashable(make: Any, series: Any) -> None:
    """
    A series that cannot be hashed is a TypeError, which names it.
    """
    with pytest.raises(TypeError, match="must be hashable"):
        make(series=series)


def test_consumerIsChecked(make: Any) -> None:
    """
    A consumer that is no IConsumer is an ImplementationError.
    """
    with pytest.raises(ImplementationError, match="IConsumer"):
        make(consumer="nobody")


def test_consumerIsKept(make: Any) -> None:
    """
    An IConsumer is taken as it is.
    """
    consumer = RecordingConsumer()
    assert make(consumer=consumer).consumer is consumer


def test_firstAndLastExclude(make: Any) -> None:
    """
    A call cannot be the next and the last.
    """
    with pytest.raises(ValueError, match="both"):
        make(doNext=True, doLast=True)


def test_equalOptionsAreOne() -> None:
    """
    The options of calls with the same keywords are one object.
    """
    assert made(series="a", timeout=2) is made(series="a", timeout=2)
    assert made() is DEFAULT == CallOptions()


@pytest.mark.parametrize("change", [namedOptions, loggedOptions])
@pytest.mark.parametrize("kw", [{}, {"timeout": 5.0, "niceness": 3, "retries": 1, "raw": True}])
def test_whatAQueueChangesIsOne(change: Any, kw: dict[str, Any]) -> None:
    """
    The options of calls by name, and of those whose failures are logged, are made once as well.
    """
    assert change(made(**kw)) is change(made(**kw))


@pytest.mark.parametrize(
    ("change", "changed"),
    [(namedOptions, {"series": REMOTE_SERIES}), (loggedOptions, {"returnFailure": False})],
)
def test_nothingElseIsChanged(change: Any, changed: dict[str, Any]) -> None:
    """
    What a queue changes of the options of a call leaves the rest as it was.
    """
    consumer = RecordingConsumer()
    options = made(doNext=True, consumer=consumer, after=1.0, expires=2.0, timeout=7.0)
    assert change(options) == evolve(options, **changed)
    assert change(DEFAULT) == evolve(DEFAULT, **changed)


@pytest.mark.parametrize(("one", "other"), [(True, 1), (1, 1.0)])
def test_equalValuesOfOtherTypesAreNotOne(one: Any, other: Any) -> None:
    """
    C{True} and C{1} are equal, and are two different series all the same.
    """
    assert made(series=one).series is one
    assert type(made(series=other).series) is type(other)


def test_optionsAreFrozen() -> None:
    """
    What is shared cannot be changed.
    """
    with pytest.raises(AttributeError):
        DEFAULT.niceness = 3  # type: ignore[misc]
