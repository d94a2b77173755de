"""
What several tests use: Deferreds that are counted, and logs that are read.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import LogEvent, globalLogPublisher
from twisted.python.failure import Failure


class Heard:
    """
    What a Deferred fired with, and how often.

    @ivar results: all that it fired with, values and failures.
    """

    def __init__(self, d: Deferred[Any]) -> None:
        self.d = d
        self.results: list[Any] = []
        d.addBoth(self.results.append)

    @property
    def result(self) -> Any:
        """
        What it fired with, if it fired exactly once.
        """
        assert len(self.results) == 1, f"it fired {len(self.results)} times"
        return self.results[0]

    @property
    def error(self) -> Any:
        """
        The exception it failed with.
        """
        assert isinstance(self.result, Failure), self.result
        return self.result.value


def errorOf(d: Deferred[Any]) -> Any:
    """
    The exception that a Deferred has failed with.
    """
    return Heard(d).error


def resultOf(d: Deferred[Any]) -> Any:
    """
    The value that a Deferred has fired with.
    """
    result = Heard(d).result
    if isinstance(result, Failure):
        result.raiseException()
    return result


async def outcomes(items: AsyncIterator[Any]) -> AsyncIterator[Any]:
    """
    What comes of each item of an iteration: the item, or the exception in its place.
    """
    while True:
        try:
            item = await anext(items)
        except StopAsyncIteration:
            return
        except Exception as error:
            item = error
        yield item


class LogReader:
    """
    @ivar events: what was logged, in order.
    """

    def __init__(self) -> None:
        self.events: list[LogEvent] = []

    def errors(self) -> list[BaseException]:
        """
        The exceptions that were logged as failures.
        """
        return [event["log_failure"].value for event in self.events if "log_failure" in event]

    def said(self) -> list[str]:
        """
        What the events say.
        """
        return [event["log_format"].format(**event) for event in self.events]


@contextmanager
def readingLogs() -> Iterator[LogReader]:
    """
    Read all that is logged meanwhile.
    """
    reader = LogReader()
    globalLogPublisher.addObserver(reader.events.append)
    try:
        yield reader
    finally:
        globalLogPublisher.removeObserver(reader.events.append)
