"""
L{Outbox}: from threads to the reactor.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread
from typing import Any

from twisted.internet.task import Clock

from asynqueue.workers.outbox import GATHER_SECONDS, Outbox


class Reactor:
    """
    Notes what threads want to have called, and has a clock.
    """

    def __init__(self) -> None:
        self.clock = Clock()
        self.callLater = self.clock.callLater
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


def gathering(many: int) -> tuple[Reactor, list[list[int]], Outbox[int]]:
    """
    An outbox that has collected 0, and is in no hurry for the next items while these are few.
    """
    reactor, batches = Reactor(), list[list[int]]()
    outbox: Outbox[int] = Outbox(reactor, batches.append, lambda: many)
    outbox.put(0)
    reactor.calls.pop()()
    return reactor, batches, outbox


def test_unhurriedItemsAreCollectedTogether() -> None:
    """
    Items that are in no hurry do not wake the reactor, which looks a little later.
    """
    reactor, batches, outbox = gathering(10)
    outbox.put(1)
    outbox.put(2)
    assert reactor.calls == []
    assert batches == [[0]]
    reactor.clock.advance(GATHER_SECONDS)
    assert batches == [[0], [1, 2]]


def test_manyItemsAreCollectedAtOnce() -> None:
    """
    When there are many, the reactor is woken, and needs not look later.
    """
    reactor, batches, outbox = gathering(2)
    outbox.put(1)
    assert reactor.calls == []
    outbox.put(2)
    reactor.calls.pop()()
    assert batches == [[0], [1, 2]]


def test_whatComesAfterAWhileWakes() -> None:
    """
    If nothing came, the next item wakes the reactor, and no timer runs until then.
    """
    reactor, batches, outbox = gathering(10)
    reactor.clock.advance(GATHER_SECONDS)
    assert reactor.clock.getDelayedCalls() == []
    outbox.put(1)
    reactor.calls.pop()()
    assert batches == [[0], [1]]


def test_itemsAreCollectedWhileOthersAre() -> None:
    """
    What is called as items are collected may have the reactor look: it finds the next ones.
    """
    reactor, batches = Reactor(), list[list[int]]()

    def collect(items: list[int]) -> None:
        batches.append(items)
        if items == [1]:
            outbox.put(2)
            reactor.clock.advance(GATHER_SECONDS)

    outbox: Outbox[int] = Outbox(reactor, collect, lambda: 10)
    outbox.put(0)
    reactor.calls.pop()()
    outbox.put(1)
    reactor.clock.advance(GATHER_SECONDS)
    assert batches == [[0], [1], [2]]


def test_hurry() -> None:
    """
    A look that was put off can be had at once; after it none is due, if the next is in a hurry.
    """
    reactor, batches = Reactor(), []
    many = [10, 0]
    outbox: Outbox[int] = Outbox(reactor, batches.append, lambda: many.pop(0))
    outbox.put(0)
    reactor.calls.pop()()
    outbox.put(1)
    outbox.hurry()
    assert batches == [[0], [1]]
    assert reactor.clock.getDelayedCalls() == []
    outbox.put(2)
    assert len(reactor.calls) == 1


def test_wakesForWhatCameBeforeItWasInAHurry() -> None:
    """
    If the next items are in a hurry, the reactor is woken for one that is there already.
    """
    reactor, batches = Reactor(), list[list[int]]()
    many = [10, 0, 0]

    def collect(items: list[int]) -> None:
        batches.append(items)
        if items == [1]:
            outbox.put(2)

    outbox: Outbox[int] = Outbox(reactor, collect, lambda: many.pop(0))
    outbox.put(0)
    reactor.calls.pop()()
    outbox.put(1)
    reactor.clock.advance(GATHER_SECONDS)
    reactor.calls.pop()()
    assert batches == [[0], [1], [2]]


def test_unhurriedItemsAreNotLeftBehind() -> None:
    """
    Of what threads put in while the reactor gathers, nothing is left or doubled.
    """
    reactor = Reactor()
    collected: list[Any] = []
    outbox: Outbox[Any] = Outbox(reactor, collected.extend, lambda: len(collected) % 3)

    def putMany(name: int) -> None:
        for number in range(5000):
            outbox.put((name, number))

    threads = [Thread(target=putMany, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    while (
        any(thread.is_alive() for thread in threads)
        or reactor.calls
        or reactor.clock.getDelayedCalls()
    ):
        if reactor.calls:
            reactor.calls.pop(0)()
        reactor.clock.advance(GATHER_SECONDS)
    assert sorted(collected) == [(name, number) for name in range(4) for number in range(5000)]
