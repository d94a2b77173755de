"""
The options of a call: what its caller says of it, apart from its arguments.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from functools import lru_cache
from typing import Any

from attrs import evolve, field, frozen
from twisted.internet.interfaces import IConsumer

from asynqueue.checks import listOf, secondsOrNone, wholeNumber
from asynqueue.errors import ImplementationError
from asynqueue.outcome import inWords, shortRepr


@frozen
class CallOptions:
    """
    How a call is to be queued, run and answered.

    @ivar niceness: -20 (greedy) to 20 (modest), as in UNIX: ten more is half the
        rate.
    @ivar series: only workers that are qualified for it run the task; C{None} is
        for all.
    @ivar doNext: before everything that is queued, first come first served.
    @ivar doLast: after everything else that is queued.
    @ivar timeout: the seconds that the run may take, from the moment it begins.
    @ivar retries: how often the call may be run again when its worker was lost.
    @ivar raw: whether an iterator comes back as it is; C{None}: as the worker
        has it.
    @ivar returnFailure: whether an error fails the Deferred, or is logged;
        C{None}: as the queue has it.
    @ivar consumer: an C{IConsumer} for the items, if an iterator is returned.
    @ivar after: the seconds from now before which the run does not begin.
    @ivar expires: the seconds from now within which it must begin.
    @ivar isTimed: whether there is either of these.
    """

    niceness: int = field(default=0)
    series: Hashable = None
    doNext: bool = False
    doLast: bool = False
    timeout: float | None = field(default=None)
    retries: int = field(default=0)
    raw: bool | None = None
    returnFailure: bool | None = None
    consumer: Any = field(default=None)
    after: float | None = field(default=None)
    expires: float | None = field(default=None)
    isTimed: bool = field(init=False, repr=False, eq=False)

    @isTimed.default
    def _timed(self) -> bool:
        return self.after is not None or self.expires is not None

    @niceness.validator
    def _checkNiceness(self, attribute: Any, value: Any) -> None:
        if isinstance(value, bool) or not isinstance(value, int) or not -20 <= value <= 20:
            raise ValueError(f"niceness must be a whole number from -20 to 20, not {value!r}")

    @timeout.validator
    def _checkTimeout(self, attribute: Any, value: Any) -> None:
        secondsOrNone(value, "timeout")

    @after.validator
    def _checkAfter(self, attribute: Any, value: Any) -> None:
        secondsOrNone(value, "after")

    @expires.validator
    def _checkExpires(self, attribute: Any, value: Any) -> None:
        secondsOrNone(value, "expires")

    @retries.validator
    def _checkRetries(self, attribute: Any, value: Any) -> None:
        wholeNumber(value, "retries", least=0)

    @consumer.validator
    def _checkConsumer(self, attribute: Any, value: Any) -> None:
        if value is None:
            return
        try:
            why = "" if IConsumer.providedBy(value) else "it does not provide that"
        except BaseException as error:
            # Somebody's class, which is asked for what it provides.
            why = f"to ask it raised {inWords(error)}"
        if why:
            raise ImplementationError(f"{shortRepr(value)} is no IConsumer: {why}")

    def __attrs_post_init__(self) -> None:
        if self.doNext and self.doLast:
            raise ValueError("a call has both doNext and doLast: give one of them")
        if self.after is not None and self.expires is not None and self.expires <= self.after:
            raise ValueError(
                f"a call that expires after {self.expires:g} s could never begin after"
                f" {self.after:g} s: give a later expires="
            )
        _checkSeries(self.series)


def seriesOf(given: Iterable[Hashable]) -> list[Any]:
    """
    Return the list of series that a worker is to be qualified for.

    @raise TypeError: it is a string or no collection, or one of them is not hashable.
    """
    series = listOf(given, "series")
    for each in series:
        _checkSeries(each)
    return series


def _checkSeries(series: Any) -> None:
    try:
        hash(series)
    except TypeError:
        raise TypeError(f"a series must be hashable, and {series!r} is not") from None


# Options are values: equal ones may as well be one. That saves making and
# checking them for each of a million calls. The size bounds the memory.
_shared = lru_cache(maxsize=16_384, typed=True)(CallOptions)


def makeOptions(
    *shared: Any, consumer: Any = None, after: float | None = None, expires: float | None = None
) -> CallOptions:
    """
    Return the options of a call, checked; the same object for the same values.

    @param shared: the options before C{consumer}, in the order that L{CallOptions} has.
    @raise ValueError: a number is not in its range.
    @raise TypeError: the series is not hashable.
    @raise ImplementationError: the consumer is no C{IConsumer}.
    """
    try:
        options = _shared(*shared)
    except TypeError:
        # Something cannot be hashed: let the checks say what.
        options = CallOptions(*shared)
    if consumer is None and after is None and expires is None:
        return options
    return evolve(options, consumer=consumer, after=after, expires=expires)


# Who is qualified for what has only a name here, if nothing else is said.
REMOTE_SERIES = "wire"

# What a call has whose caller says nothing, and one by a name.
DEFAULT = makeOptions(0, None, False, False, None, 0, None, None)
_NAMED = makeOptions(0, REMOTE_SERIES, False, False, None, 0, None, None)


def namedOptions(options: CallOptions) -> CallOptions:
    """
    Return the options of a call that is made by a name, where no series is given. A hot path.
    """
    return _NAMED if options is DEFAULT else _like(options, REMOTE_SERIES, options.returnFailure)


def loggedOptions(options: CallOptions) -> CallOptions:
    """
    Return the options of a call whose failure is logged. A hot path.
    """
    return _like(options, options.series, False)


def _like(options: CallOptions, series: Hashable, returnFailure: bool | None) -> CallOptions:
    return makeOptions(
        options.niceness,
        series,
        options.doNext,
        options.doLast,
        options.timeout,
        options.retries,
        options.raw,
        returnFailure,
        consumer=options.consumer,
        after=options.after,
        expires=options.expires,
    )
