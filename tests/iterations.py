"""
What the tests of iteration share: a source that the test drives, a sink that notes what
it hears, and what comes of loops and of Deferreds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.python.failure import Failure
from zope.interface import implementer

from asynqueue.interfaces import IItemSink, IItemSource
from asynqueue.iteration import Deferator
from tests.doubles import Heard, readingLogs


class Oops(Exception):
    """
    What user code raises.
    """


def failing() -> Any:
    """
    An iterator that fails after two items.
    """
    yield 1
    yield 2
    raise Oops("in the middle")


@implementer(IItemSource)
class Scripted:
    """
    A source that produces when the test says so.

    @ivar granted: how many items it may still give.
    @ivar grants: what it was granted, in order.
    """

    def __init__(self) -> None:
        self.sink: Any = None
        self.granted = 0
        self.grants: list[int] = []
        self.stops = 0

    def connect(self, sink: Any) -> None:
        self.sink = sink

    def grant(self, count: int) -> None:
        self.granted += count
        self.grants.append(count)

    def stop(self) -> None:
        self.stops += 1

    def give(self, *items: Any) -> None:
        self.granted -= len(items)
        self.sink.receive(items)

    def end(self, *items: Any) -> None:
        self.give(*items)
        self.sink.finish()


def scripted(window: int = 64) -> tuple[Scripted, Deferator]:
    """
    A source, and the Deferator that it produces to.
    """
    source = Scripted()
    return source, Deferator.fromSource(source, "scripted", window)


def outcomeOf(d: Deferred[Any]) -> Any:
    """
    What a Deferred has fired with, a Failure included.
    """
    return Heard(d).result


def logged(act: Any) -> list[Failure]:
    """
    The failures that were logged while C{act()} ran.
    """
    with readingLogs() as logs:
        act()
    return [event["log_failure"] for event in logs.events if "log_failure" in event]


@inlineCallbacks
def looped(dr: Deferator) -> Any:
    """
    What a loop over Deferreds gives.
    """
    items = []
    for d in dr:
        item = yield d
        items.append(item)
    return items


async def loopedAsynchronously(dr: Deferator) -> list[Any]:
    """
    What an asynchronous loop gives.
    """
    return [item async for item in dr]


@implementer(IItemSink)
class Sink:
    """
    Notes all that it hears.

    @ivar heard: items, failures by their text, and C{END}.
    @ivar consumed: how many items the test says it has taken.
    @ivar isAwaited: whether the test says that it waits for one.
    """

    END = "the end"

    def __init__(self) -> None:
        self.consumed = 0
        self.isAwaited = False
        self.heard: list[Any] = []

    def receive(self, items: Sequence[Any], moreLeft: bool = False) -> None:
        """
        Take items.
        """
        self.heard += items

    def resize(self, window: int) -> None:
        """
        Grant as the test says all the same.
        """

    def receiveFailure(self, failure: Failure) -> None:
        """
        Take a failure.
        """
        self.heard.append(str(failure.value))

    def finish(self) -> None:
        """
        Hear the end.
        """
        self.heard.append(self.END)
