"""
How a job is stored, begun and repeated, and what is known of one: frozen values.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import Any

from attrs import evolve, field, frozen

from asynqueue.checks import secondsOrNone, wholeNumber
from asynqueue.durable.errors import JobUnreadable
from asynqueue.errors import RemoteError
from asynqueue.stores.records import Band, Flow, JobRecord, JobState, NewJob, OnTaken

# How many different options are kept as they were read or checked.
_KEPT = 1024

# The exponent above which a back-off is its longest in any case: floats end.
_LONGEST = 64


def _namesOf(given: Any) -> tuple[str, ...]:
    """
    Return the names of exceptions, which may be given as classes or as names, one or several.
    """
    several = given if isinstance(given, list | tuple) else (given,)
    names = []
    for each in several:
        if isinstance(each, type) and issubclass(each, BaseException):
            names.append(_nameOf(each))
        elif isinstance(each, str) and each:
            names.append(each)
        else:
            raise TypeError(f"on must be exceptions, or their names, not {each!r}")
    return tuple(names)


def _nameOf(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")


def _seconds(value: Any, name: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e12:
        raise ValueError(f"{name} must be a number of seconds, 0 or more, not {value!r}")


@frozen
class Retry:
    """
    Which attempts of a job are repeated, and when.

    @ivar attempts: how often the job may be begun, in all.
    @ivar on: the names of the exceptions after which it is repeated, each with those that are
        derived from it. Give classes, or names; a class of another program by its name.
    @ivar loss: whether an attempt is repeated that has begun and whose end cannot be learned. Then
        the job may do its work more than once.
    @ivar delay: the seconds before the second attempt. Before each later one they are twice as
        many, with a random part of up to a half less, so that those which fail together do not
        come back together.
    @ivar mostDelay: the most of them.
    """

    attempts: int = 3
    on: tuple[str, ...] = field(default=("Exception",), converter=_namesOf, kw_only=True)
    loss: bool = field(default=False, kw_only=True)
    delay: float = field(default=1.0, kw_only=True)
    mostDelay: float = field(default=3600.0, kw_only=True)

    def __attrs_post_init__(self) -> None:
        wholeNumber(self.attempts, "attempts")
        for name in ("delay", "mostDelay"):
            _seconds(getattr(self, name), name)

    def covers(self, error: BaseException) -> bool:
        """
        Tell whether an attempt that has failed with an exception is repeated.
        """
        names = {_nameOf(kind) for kind in type(error).__mro__}
        if isinstance(error, RemoteError):
            # It stands for one whose class is not known here; users' exceptions are Exceptions.
            names |= {error.typeName, "Exception"}
        return not names.isdisjoint(self.on)

    def delayAfter(self, counted: int, chance: float) -> float:
        """
        Return the seconds before the next attempt.

        @param counted: how many attempts there were, 1 or more.
        @param chance: a number from 0 to 1.
        """
        seconds = self.delay * 2.0 ** min(counted - 1, _LONGEST)
        return min(seconds, self.mostDelay) * (1.0 - chance / 2)


ONCE = Retry(1)


def _retryOf(given: Any) -> Retry:
    return Retry(given) if isinstance(given, int) and not isinstance(given, bool) else given


@frozen(kw_only=True)
class JobOptions:
    """
    How a job is stored and run: what L{enqueue<asynqueue.durable.queue.DurableQueue.enqueue>}
    takes as keywords.

    @ivar series: what a worker must be qualified for; empty: every worker is.
    @ivar niceness: from -20 (greedy) to 20 (modest); ten more is half the rate.
    @ivar doNext: before all jobs without; C{doLast}: after all of them.
    @ivar key: what makes the job unique among those that have not ended.
    @ivar onTaken: what happens if another job has the key: C{"join"} that one, C{"reject"} this
        one, or C{"replace"} that one unless it runs.
    @ivar after: it does not begin before this many seconds from now.
    @ivar expires: it ends as expired if it has not begun within this many seconds from now.
    @ivar timeout: the seconds that an attempt may take.
    @ivar retry: which attempts are repeated; a number N is C{Retry(N)}.
    @ivar keep: for how many seconds its outcome is kept; of a failed or lost one C{keepDead}.
    """

    series: str = ""
    niceness: int = 0
    doNext: bool = False
    doLast: bool = False
    key: str | None = None
    onTaken: OnTaken = field(default=OnTaken.JOIN, converter=OnTaken)
    after: float | None = None
    expires: float | None = None
    timeout: float | None = None
    retry: Retry = field(default=ONCE, converter=_retryOf)
    keep: float = 86_400.0
    keepDead: float = 14 * 86_400.0

    def __attrs_post_init__(self) -> None:
        if not isinstance(self.series, str):
            raise TypeError(f"the series of a job must be a string, not {self.series!r}")
        if not (self.key is None or (isinstance(self.key, str) and self.key)):
            raise TypeError(f"the key of a job must be a string, not {self.key!r}")
        if not isinstance(self.retry, Retry):
            raise TypeError(f"retry must be a Retry, or a number of attempts, not {self.retry!r}")
        niceness = self.niceness
        if not (type(niceness) is int and -20 <= niceness <= 20):
            raise ValueError(f"niceness must be a whole number from -20 to 20, not {niceness!r}")
        if self.doNext and self.doLast:
            raise ValueError("a job has both doNext and doLast: give one of them")
        secondsOrNone(self.expires, "expires")
        secondsOrNone(self.timeout, "timeout")
        for name in ("after", "keep", "keepDead"):
            if getattr(self, name) is not None:
                _seconds(getattr(self, name), name)
        if self.after is not None and self.expires is not None and self.expires <= self.after:
            raise ValueError("expires must be later than after, or the job could never begin")

    @property
    def flow(self) -> Flow:
        """
        The flow that the job is in. In a band before or after the others niceness does not count.
        """
        if self.doNext or self.doLast:
            return Flow(self.series, 0, Band.NEXT if self.doNext else Band.LAST)
        return Flow(self.series, self.niceness)


# Equal options may as well be the same ones, which saves their making and checks.
makeJobOptions = lru_cache(_KEPT, typed=True)(JobOptions)


@frozen
class Running:
    """
    How an attempt is run: what a store keeps of the options without understanding it.
    """

    timeout: float | None = None
    retry: Retry = ONCE


def templateOf(options: JobOptions, name: str, codec: str) -> Callable[..., NewJob]:
    """
    Return what makes a job as it is stored, of its C{id} and C{payload}.
    """
    retry = options.retry
    words: dict[str, Any] = {}
    if options.timeout is not None:
        words["timeout"] = options.timeout
    if retry != evolve(ONCE, attempts=retry.attempts, loss=retry.loss):
        words["retry"] = {"on": retry.on, "delay": retry.delay, "mostDelay": retry.mostDelay}
    return partial(
        NewJob,
        name=name,
        codec=codec,
        options=json.dumps(words).encode() if words else b"",
        flow=options.flow,
        attempts=retry.attempts,
        loss=retry.loss,
        key=options.key,
        onTaken=options.onTaken,
        after=options.after or 0.0,
        expires=options.expires,
        keep=options.keep,
        keepDead=options.keepDead,
    )


@lru_cache(_KEPT)
def runningOf(name: str, options: bytes, attempts: int, loss: bool) -> Running:
    """
    Return how a job is run, of what a store has kept. What is not known here is ignored: a newer
    program may have written it.

    @raise JobUnreadable: that is no such thing.
    """
    if not options and attempts == 1:
        return Running(None, Retry(1, loss=loss))
    try:
        words = json.loads(options) if options else {}
        retry = Retry(attempts, loss=loss, **_known(words.get("retry", {})))
        return Running(secondsOrNone(words.get("timeout"), "timeout"), retry)
    except Exception as error:
        # The seam to what somebody has written there: it may be anything.
        raise JobUnreadable(name, f"its options cannot be read: {error}") from None


def _known(words: Mapping[str, Any]) -> dict[str, Any]:
    return {key: words[key] for key in ("on", "delay", "mostDelay") if key in words}


@frozen
class Job:
    """
    A job, as it was when this was asked for.

    @ivar name: what is called, C{"module:function"}.
    @ivar attempt: the number of its latest attempt; 0: none has begun.
    @ivar due: from when on it may begin, in seconds since the epoch.
    @ivar error: why it has failed, or is repeated, in a line.
    """

    id: str
    name: str
    series: str
    niceness: int
    state: JobState
    attempt: int
    due: float
    created: float
    key: str | None = None
    error: str | None = None


def jobOf(record: JobRecord) -> Job:
    """
    Return what is known of a job that a store has.
    """
    new, outcome = record.job, record.outcome
    return Job(
        new.id,
        new.name,
        new.flow.series,
        new.flow.niceness,
        record.state,
        record.attempt,
        record.due,
        record.created,
        new.key,
        None if outcome is None else outcome.summary,
    )
