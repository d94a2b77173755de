"""
Which reactor drives a queue.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from types import ModuleType

import pytest
from twisted.internet.task import Clock

from asynqueue.awaitable import AwaitableDeferred
from asynqueue.errors import LoopError
from asynqueue.reactors import (
    checkDrives,
    checkedReactor,
    installedReactor,
    isGone,
    loopOf,
    theReactor,
)


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """
    A loop that does not run.
    """
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def test_aGivenReactorIsTheOne() -> None:
    """
    What was given is used, be it a double.
    """
    clock = Clock()
    assert theReactor(clock) is clock


def test_withoutALoopItIsTheInstalledOne() -> None:
    """
    Where no asyncio loop runs, it is the installed reactor.
    """
    assert theReactor() is installedReactor()


def test_aLoopHasOneReactor(loop: asyncio.AbstractEventLoop) -> None:
    """
    A loop has the same reactor each time, and another loop another one.
    """
    reactor = theReactor(loop)
    other = asyncio.new_event_loop()
    try:
        assert theReactor(loop) is reactor
        assert loopOf(reactor) is loop
        assert theReactor(other) is not reactor
    finally:
        other.close()


def test_aClosedLoopIsRefused(loop: asyncio.AbstractEventLoop) -> None:
    """
    A closed loop has no reactor, and the one that it had is gone.
    """
    reactor = theReactor(loop)
    assert not isGone(reactor)
    loop.close()
    assert isGone(reactor)
    other = asyncio.new_event_loop()
    other.close()
    with pytest.raises(LoopError, match="closed"):
        theReactor(other)


@pytest.mark.parametrize("given", ["epoll", 5, asyncio])
def test_whatIsNoReactorIsRefused(given: object) -> None:
    """
    What can drive nothing is refused, with what is wanted.
    """
    with pytest.raises(TypeError, match="give a Twisted reactor, an asyncio loop"):
        checkedReactor(given)


class Trio(ModuleType):
    """
    What the libraries tell through that runs the code.
    """

    class AsyncLibraryNotFoundError(RuntimeError):
        """
        None of them does.
        """

    library = ""

    def current_async_library(self) -> str:
        """
        The library that does.
        """
        if not self.library:
            raise self.AsyncLibraryNotFoundError
        return self.library


@pytest.mark.parametrize("library", ["", "asyncio", "twisted"])
def test_whoCanWaitIsNotRefused(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Nothing is raised where Twisted or asyncio runs the code.
    """
    told = Trio("sniffio")
    told.library = library
    monkeypatch.setitem(sys.modules, "sniffio", told)
    checkDrives(Clock(), "waiting")


def test_anotherLibraryIsNamed(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Where another library runs the code, awaiting what has not fired raises at once.
    """
    told = Trio("sniffio")
    told.library = "trio"
    monkeypatch.setitem(sys.modules, "sniffio", told)
    waiting: AwaitableDeferred[None] = AwaitableDeferred()
    with pytest.raises(LoopError, match="trio runs this code"):
        next(waiting.__await__())


NOTHING_INSTALLED = """
import os, sys, threading
from asynqueue.iteration import Consumerator, Delay, Filerator, OrderedItemProducer
from asynqueue.iteration.handover import Handover
from asynqueue.pollers import ReactorPoller

made = [Consumerator(), Delay(), Filerator(), Handover(), OrderedItemProducer(), ReactorPoller()]
consumerator, delay, filerator, handover, ordered, poller = made
got = []
thread = threading.Thread(target=lambda: got.extend(filerator))
thread.start()
filerator.write("a line")
filerator.close()
thread.join()
assert got == ["a line"], got
consumerator.write(1)
consumerator.unregisterProducer()
assert list(consumerator) == [1]
handover.drop()
assert "twisted.internet.reactor" not in sys.modules

import asyncio
from twisted.internet import asyncioreactor, defer
asyncioreactor.install(asyncio.new_event_loop())
from twisted.internet import reactor

def stop(result):
    print(result)
    reactor.stop()

async def later():
    for one in (filerator, consumerator, handover):
        await one.deferUntilDone()
    await ordered.start(got.extend)
    await ordered.produceItem(str, 5)
    await ordered.stop()
    await delay(0.0)
    assert await delay.untilEvent(bool, 1)
    poller.add_channel(Channel())
    watched = len(poller.connections)
    poller.close()
    return got, watched

class Channel:
    connected = True
    descriptor = os.pipe()[0]

reactor.callWhenRunning(lambda: defer.ensureDeferred(later()).addBoth(stop))
reactor.callLater(20, reactor.stop)
reactor.run()
"""


def test_makingBridgesAndDelaysInstallsNothing() -> None:
    """
    The program may choose its reactor after it has made them, and they use that one.
    """
    command = [sys.executable, "-c", NOTHING_INSTALLED]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("(['a line', '5'], 1)\n", "")
