"""
What L{asynqueue.loopreactor} promises.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import pytest
from twisted.internet.interfaces import IReadDescriptor, IWriteDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from asynqueue.reactors import theReactor

whose: ContextVar[str] = ContextVar("whose", default="nobody's")


@implementer(IReadDescriptor, IWriteDescriptor)
class Descriptor:
    """
    Something to read from and to write to.
    """

    def __init__(self, reactor: Any, ready: Callable[[], None]) -> None:
        self._reactor = reactor
        self._ready = ready
        self._here, self._there = socket.socketpair()
        self._there.send(b"something")

    def fileno(self) -> int:
        """
        The descriptor.
        """
        return self._here.fileno()

    def doRead(self) -> None:
        """
        Once.
        """
        self._reactor.removeReader(self)
        self._end()

    def doWrite(self) -> None:
        """
        Once.
        """
        self._reactor.removeWriter(self)
        self._end()

    def _end(self) -> None:
        self._here.close()
        self._there.close()
        self._ready()

    def connectionLost(self, reason: Failure) -> None:
        """
        It is not.
        """

    def logPrefix(self) -> str:
        """
        Its name.
        """
        return "-"


_WAYS: dict[str, Callable[[Any, Callable[[], None]], Any]] = {
    "timer": lambda reactor, ready: reactor.callLater(0, ready),
    "thread": lambda reactor, ready: reactor.callFromThread(ready),
    "reader": lambda reactor, ready: reactor.addReader(Descriptor(reactor, ready)),
    "writer": lambda reactor, ready: reactor.addWriter(Descriptor(reactor, ready)),
}


@pytest.mark.parametrize("way", _WAYS)
def test_callbacksRunInNoContextOfTheProgram(way: str) -> None:
    """
    Whatever this reactor calls does not see the context variables of the code that asked
    for it, and keeps none of them alive.
    """

    async def main() -> str:
        whose.set("a request's")
        seen: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        _WAYS[way](theReactor(), lambda: seen.set_result(whose.get()))
        return await asyncio.wait_for(seen, 30)

    assert asyncio.run(main()) == "nobody's"


def test_loopsOfThreadsHaveTheirOwn() -> None:
    """
    Two loops that run at once in two threads have two reactors, and each calls in its own
    thread.
    """

    async def main() -> tuple[Any, bool]:
        reactor, called = theReactor(), asyncio.Event()
        reactor.callLater(0, called.set)
        await asyncio.wait_for(called.wait(), 30)
        return reactor, reactor.running

    async def both() -> tuple[Any, Any]:
        return await asyncio.gather(main(), asyncio.to_thread(asyncio.run, main()))

    (first, firstRan), (second, secondRan) = asyncio.run(both())
    assert first is not second
    assert (firstRan, secondRan) == (True, True)
    assert (first.ended, second.ended) == (True, True)
