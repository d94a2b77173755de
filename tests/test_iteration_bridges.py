"""
What L{asynqueue.iteration.Consumerator} and C{Filerator} promise.
"""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IConsumer
from zope.interface.verify import verifyObject

from asynqueue.iteration import (
    Consumerator,
    Deferator,
    Filerator,
    IterationProducer,
    deferToDelay,
)
from asynqueue.iteration.handover import Handover
from asynqueue.reactors import theReactor

LIMIT = 30


def inThread(f: Callable[..., Any], *args: Any) -> Deferred[Any]:
    """
    The result of C{f(*args)} in a thread of its own.
    """
    d: Deferred[Any] = Deferred()
    d.addTimeout(LIMIT, theReactor())

    def run() -> None:
        try:
            result = f(*args)
        except BaseException as error:
            theReactor().callFromThread(d.errback, error)
        else:
            theReactor().callFromThread(d.callback, result)

    threading.Thread(target=run, daemon=True).start()
    return d


class Push:
    """
    A push producer that notes what is wanted of it.
    """

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.resumed: Deferred[None] = Deferred()
        self.stopped: Deferred[threading.Thread] = Deferred()

    def pauseProducing(self) -> None:
        self.calls.append("pause")

    def resumeProducing(self) -> None:
        self.calls.append("resume")
        self.resumed.callback(None)

    def stopProducing(self) -> None:
        self.calls.append("stop")
        self.stopped.callback(threading.current_thread())


class Pull:
    """
    A pull producer of numbers that writes at once, or a turn later.
    """

    def __init__(self, consumer: Consumerator, count: int, delayed: bool = False) -> None:
        self.consumer = consumer
        self.left = list(range(count))
        self.delayed = delayed
        self.depth = 0
        self.deepest = 0

    def resumeProducing(self) -> None:
        if self.delayed:
            theReactor().callLater(0, self.produce)
        else:
            self.produce()

    def produce(self) -> None:
        self.depth += 1
        self.deepest = max(self.deepest, self.depth)
        if self.left:
            self.consumer.write(self.left.pop(0))
        else:
            self.consumer.unregisterProducer()
        self.depth -= 1

    def stopProducing(self) -> None:
        self.left.clear()


# Consumerator ---------------------------------------------------------------


def test_aConsumeratorIsAConsumer() -> None:
    """
    It provides C{IConsumer}.
    """
    assert verifyObject(IConsumer, Consumerator())


@pytest_twisted.inlineCallbacks
def test_whatIsWrittenIsIteratedOver() -> Any:
    """
    The thread gets all items in order, and ends when the producer unregisters.
    """
    consumerator = Consumerator(maxThreads=1)
    d = inThread(list, consumerator)
    done = consumerator.deferUntilDone()
    producer = IterationProducer(Deferator(iter(range(1000))), consumerator)
    assert (yield producer.run()) is consumerator
    assert (yield d) == list(range(1000))
    assert (yield done) is None
    assert (yield consumerator.deferUntilDone()) is None


@pytest_twisted.inlineCallbacks
def test_aPushProducerIsPausedWhileTheThreadIsBehind() -> Any:
    """
    It is paused when 64 items wait, and resumed when the thread has caught up.
    """
    producer = Push()
    consumerator = Consumerator(producer)
    for k in range(64):
        assert producer.calls == []
        consumerator.write(k)
    assert producer.calls == ["pause"]
    consumerator.write(64)
    assert producer.calls == ["pause"]
    taken = yield inThread(lambda: [next(consumerator) for _ in range(33)])
    assert taken == list(range(33))
    yield producer.resumed
    assert producer.calls == ["pause", "resume"]
    consumerator.unregisterProducer()
    assert (yield inThread(list, consumerator)) == list(range(33, 65))


@pytest_twisted.inlineCallbacks
def test_aProducerThatLeftIsNotResumed() -> Any:
    """
    When the thread catches up after the producer unregistered, nothing happens.
    """
    producer = Push()
    consumerator = Consumerator(producer)
    for k in range(64):
        consumerator.write(k)
    consumerator.unregisterProducer()
    assert (yield inThread(list, consumerator)) == list(range(64))
    yield deferToDelay(0)
    assert producer.calls == ["pause"]


@pytest.mark.parametrize("delayed", [False, True])
@pytest_twisted.inlineCallbacks
def test_aPullProducerIsAskedWhileThereIsRoom(delayed: bool) -> Any:
    """
    It is asked again and again, without recursion, up to 64 items ahead.
    """
    consumerator = Consumerator()
    producer = Pull(consumerator, 200, delayed)
    consumerator.registerProducer(producer, False)
    if not delayed:
        assert len(producer.left) == 200 - 64
    assert (yield inThread(list, consumerator)) == list(range(200))
    assert producer.deepest == 1


def test_aSecondProducerIsRefused() -> None:
    """
    One producer at a time.
    """
    consumerator = Consumerator(Push())
    with pytest.raises(RuntimeError):
        consumerator.registerProducer(Push(), True)


@pytest_twisted.inlineCallbacks
def test_stopEndsTheIterationNow() -> Any:
    """
    The producer is stopped, what was written is dropped, and a thread that
    waits is released.
    """
    producer = Push()
    consumerator = Consumerator(producer)
    d = inThread(list, consumerator)
    done = consumerator.deferUntilDone()
    consumerator.stop()
    consumerator.stop()
    assert producer.calls == ["stop"]
    consumerator.write("late")
    assert (yield d) == []
    yield done


@pytest_twisted.inlineCallbacks
def test_aThreadThatHasEnoughStopsTheProducer() -> Any:
    """
    C{stop} in the thread stops the producer, in the reactor's thread.
    """
    producer = Push()
    consumerator = Consumerator(producer)

    def some() -> Any:
        item = next(consumerator)
        consumerator.stop()
        return item, list(consumerator)

    for k in range(3):
        consumerator.write(k)
    assert (yield inThread(some)) == (0, [])
    assert (yield producer.stopped) is threading.current_thread()
    yield consumerator.deferUntilDone()


def test_aProducerThatComesAfterTheEndIsStopped() -> None:
    """
    Nobody will iterate over what it writes.
    """
    consumerator = Consumerator()
    consumerator.stop()
    producer = Push()
    consumerator.registerProducer(producer, True)
    assert producer.calls == ["stop"]


@pytest_twisted.inlineCallbacks
def test_theFarEndWaitsForTheThread() -> Any:
    """
    A Deferator behind it keeps to its window while the thread takes nothing.
    """
    taken: list[int] = []

    def endless() -> Any:
        while True:
            taken.append(1)
            yield len(taken)

    consumerator = Consumerator()
    d = IterationProducer(Deferator(endless()), consumerator).run()
    assert len(taken) <= 64 + 2
    consumerator.stop()
    yield d


# Filerator ------------------------------------------------------------------


@pytest_twisted.inlineCallbacks
def test_whatIsWrittenToAFileratorIsIteratedOver() -> Any:
    """
    Each write is an item, until it is closed.
    """
    with Filerator(maxThreads=1) as f:
        d = inThread(list, f)
        done = f.deferUntilDone()
        f.write("a")
        f.writelines(["b", "c"])
        f.flush()
        assert not f.closed
    assert f.closed
    assert (yield d) == ["a", "b", "c"]
    yield done


@pytest_twisted.inlineCallbacks
def test_aFileratorIsWrittenToInAnyThread() -> Any:
    """
    Writers and the iteration may be in different threads.
    """
    f = Filerator()
    reading = inThread(list, f)
    yield inThread(f.writelines, range(1000))
    yield inThread(f.close)
    assert (yield reading) == list(range(1000))


def test_aClosedFileratorIsNotWrittenTo() -> None:
    """
    It is a C{ValueError}; closing again is none.
    """
    f = Filerator()
    f.close()
    f.close()
    with pytest.raises(ValueError):
        f.write("late")


@pytest_twisted.inlineCallbacks
def test_allThreadsAreToldOfTheEnd() -> Any:
    """
    Several threads may share the items; each of them ends.
    """
    f = Filerator()
    readers = [inThread(list, f) for _ in range(3)]
    f.writelines(range(100))
    f.close()
    items = []
    for d in readers:
        items.extend((yield d))
    assert sorted(items) == list(range(100))


# The end of the reactor -----------------------------------------------------


class Ending:
    """
    A reactor whose shutdown the test brings about.
    """

    def __init__(self) -> None:
        self.triggers: list[Any] = []

    def callFromThread(self, f: Any, *args: Any) -> None:
        f(*args)

    def addSystemEventTrigger(self, phase: str, event: str, f: Any, *args: Any) -> Any:
        assert (phase, event) == ("before", "shutdown")
        trigger = (f, args)
        self.triggers.append(trigger)
        return trigger

    def removeSystemEventTrigger(self, trigger: Any) -> None:
        self.triggers.remove(trigger)

    def shutDown(self) -> None:
        for f, args in self.triggers:
            f(*args)


@pytest_twisted.inlineCallbacks
def test_theEndOfTheReactorReleasesThreads() -> Any:
    """
    A thread that waits for the next item ends as the reactor shuts down, after
    what was written.
    """
    ending = Ending()
    f = Filerator(reactor=ending)
    f.write("last")
    d = inThread(list, f)
    ending.shutDown()
    assert f.closed
    assert (yield d) == ["last"]


def test_nothingIsLeftInTheReactor() -> None:
    """
    The trigger goes when the iteration is over, or nobody holds its object.
    """
    ending = Ending()
    done = Handover(ending)
    done.end()
    assert list(done) == []
    assert list(done) == []
    done.drop()
    dropped = Handover(ending)
    reference = weakref.ref(dropped)
    (trigger,) = ending.triggers
    del dropped
    gc.collect()
    assert reference() is None
    assert ending.triggers == []
    f, args = trigger
    f(*args)


def test_whatIsOverBeforeItWasWatchedIsNotWatched() -> None:
    """
    A Handover that ended before the reactor knew of it leaves nothing there.
    """

    class Later(Ending):
        def __init__(self) -> None:
            super().__init__()
            self.calls: list[Any] = []

        def callFromThread(self, f: Any, *args: Any) -> None:
            self.calls.append((f, args))

    later = Later()
    handover = Handover(later)
    handover.drop()
    assert handover
    for f, args in reversed(later.calls):
        f(*args)
    assert later.triggers == []


def test_whatIsLowAlreadyIsToldAtOnce() -> None:
    """
    C{callWhenLow} calls now if so few items are left, and else when they are.
    """
    handover = Handover(Ending())
    calls: list[int] = []
    handover.callWhenLow(0, lambda: calls.append(0))
    assert calls == [0]
    for k in range(3):
        handover.put(k)
    handover.callWhenLow(1, lambda: calls.append(1))
    next(handover)
    assert calls == [0]
    next(handover)
    next(handover)
    assert calls == [0, 1]


def test_aWaitForTheEndCanBeCancelled() -> None:
    """
    C{deferUntilDone} may be given up.
    """
    f = Filerator(reactor=Ending())
    d = f.deferUntilDone()
    d.cancel()
    d.addErrback(lambda failure: failure.trap(CancelledError) and None)
    f.close()
    assert list(f) == []
