"""
L{Outbox}: from threads to the reactor.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread
from typing import Any

from asynqueue.workers.outbox import Outbox


class Reactor:
    """
    Notes what threads want to have called.
    """

    def __init__(self) -> None:
        self.calls: list[Callable[[], None]] = []

    def callFromThread(self, f: Callable[[], None]) -> None:
        """
        Note it.
        """
        self.calls.append(f)


def test_oneWakeUpForManyItems() -> None:
    """
    Items that come before the reactor has looked cost no further wake-up, and
    come in their order.
    """
    reactor, batches = Reactor(), []
    outbox: Outbox[int] = Outbox(reactor, batches.append)
    for item in range(100):
        outbox.put(item)
    assert len(reactor.calls) == 1
    reactor.calls.pop()()
    assert batches == [list(range(100))]


def test_wakesAgain() -> None:
    """
    What comes after the reactor has looked wakes it again.
    """
    reactor, batches = Reactor(), []
    outbox: Outbox[str] = Outbox(reactor, batches.append)
    outbox.put("before")
    reactor.calls.pop()()
    outbox.put("after")
    reactor.calls.pop()()
    assert batches == [["before"], ["after"]]


def test_nothingIsNotCollected() -> None:
    """
    A wake-up for what was taken already collects nothing.
    """
    reactor, batches = Reactor(), []
    outbox: Outbox[str] = Outbox(reactor, batches.append)
    outbox.put("only")
    wake = reactor.calls.pop()
    wake()
    wake()
    assert batches == [["only"]]


def test_nothingIsLeftBehind() -> None:
    """
    Of what threads put in while the reactor looks, nothing is left or doubled.
    """
    reactor = Reactor()
    collected: list[Any] = []
    outbox: Outbox[Any] = Outbox(reactor, collected.extend)

    def putMany(name: int) -> None:
        for number in range(5000):
            outbox.put((name, number))

    threads = [Thread(target=putMany, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads) or reactor.calls:
        if reactor.calls:
            reactor.calls.pop(0)()
    assert sorted(collected) == [(name, number) for name in range(4) for number in range(5000)]


def test_aForkIsWoken() -> None:
    """
    A fork is woken by itself: a thread that was about to do so is the parent's.
    """
    reactor, batches = Reactor(), []
    outbox: Outbox[int] = Outbox(reactor, batches.append)
    outbox.put(1)
    reactor.calls.clear()
    outbox.forked()
    outbox.put(2)
    for call in reactor.calls:
        call()
    assert batches == [[1, 2]]
