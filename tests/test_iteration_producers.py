"""
What the producers and consumers of L{asynqueue.iteration} promise.
"""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.interfaces import IConsumer, IPushProducer
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer
from zope.interface.verify import verifyObject

from asynqueue.errors import ImplementationError
from asynqueue.iteration import (
    Deferator,
    IterationProducer,
    ListConsumer,
    iteratorToProducer,
)
from tests.iterations import Oops, outcomeOf, scripted


@implementer(IConsumer)
class Consumer:
    """
    Notes what it gets, and does what the test wants at each write.
    """

    def __init__(self, atWrite: Any = None) -> None:
        self.items: list[Any] = []
        self.producer: Any = None
        self.streaming: Any = None
        self.unregistered = 0
        self.atWrite = atWrite

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        if self.producer is not None:
            raise RuntimeError
        self.producer = producer
        self.streaming = streaming

    def unregisterProducer(self) -> None:
        self.unregistered += 1

    def write(self, data: Any) -> None:
        self.items.append(data)
        if self.atWrite is not None:
            self.atWrite(self)


def producerOf(count: int, consumer: Any) -> IterationProducer:
    return IterationProducer(Deferator(iter(range(count))), consumer, reactor=Clock())


# IterationProducer ----------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 2, 100])
def test_allItemsAreWrittenThenItUnregisters(count: int) -> None:
    """
    A run writes all items in order, unregisters, and fires with the consumer.
    """
    consumer = Consumer()
    producer = producerOf(count, consumer)
    assert outcomeOf(producer.run()) is consumer
    assert consumer.items == list(range(count))
    assert consumer.unregistered == 1
    assert consumer.producer is producer
    assert consumer.streaming is True
    assert outcomeOf(producer.dr.d) is True


def test_itIsAPushProducer() -> None:
    """
    It provides C{IPushProducer}.
    """
    assert verifyObject(IPushProducer, producerOf(0, None))


def test_itemsAreWrittenAsTheyCome() -> None:
    """
    An item is written at once; the run ends with the source.
    """
    source, dr = scripted()
    consumer = Consumer()
    d = IterationProducer(dr, consumer, reactor=Clock()).run()
    source.give(1)
    assert consumer.items == [1]
    source.end(2)
    assert consumer.items == [1, 2]
    assert outcomeOf(d) is consumer


def test_whilePausedNothingIsConsumed() -> None:
    """
    A pause holds the items in the window, and no more are granted.
    """
    source, dr = scripted(4)
    consumer = Consumer()
    producer = IterationProducer(dr, consumer, reactor=Clock())
    d = producer.run()
    producer.pauseProducing()
    source.give(0, 1, 2, 3)
    assert consumer.items == []
    assert (dr.unconsumed, sum(source.grants)) == (4, 4)
    producer.resumeProducing()
    assert consumer.items == [0, 1, 2, 3]
    assert source.granted == 4
    source.end()
    assert outcomeOf(d) is consumer


def test_aPauseWithinWriteHoldsTheNextItem() -> None:
    """
    A consumer that pauses in C{write} gets one item per resume.
    """
    consumer = Consumer(lambda consumer: consumer.producer.pauseProducing())
    producer = producerOf(3, consumer)
    d = producer.run()
    assert consumer.items == [0]
    producer.resumeProducing()
    assert consumer.items == [0, 1]
    producer.resumeProducing()
    producer.resumeProducing()
    assert consumer.items == [0, 1, 2]
    assert outcomeOf(d) is consumer


def test_aPauseBeforeTheRunHolds() -> None:
    """
    A consumer may pause as it is registered.
    """
    consumer = Consumer()
    producer = producerOf(1, consumer)
    producer.pauseProducing()
    d = producer.run()
    assert consumer.items == []
    producer.resumeProducing()
    assert outcomeOf(d).items == [0]


def test_stopProducingEndsTheRun() -> None:
    """
    C{stopProducing} stops the source; the run fires with the consumer.
    """
    source, dr = scripted()
    consumer = Consumer()
    producer = IterationProducer(dr, consumer, reactor=Clock())
    d = producer.run()
    source.give(1)
    producer.stopProducing()
    assert source.stops == 1
    assert outcomeOf(d) is consumer
    assert consumer.unregistered == 1
    assert outcomeOf(dr.d) is False


def test_stopProducingDuringAPauseEndsTheRun() -> None:
    """
    No pause outlives the stop, and no later pause undoes it.
    """
    source, dr = scripted()
    consumer = Consumer()
    producer = IterationProducer(dr, consumer, reactor=Clock())
    producer.pauseProducing()
    d = producer.run()
    source.give(1)
    producer.stopProducing()
    producer.pauseProducing()
    assert outcomeOf(d) is consumer
    assert consumer.items == []


def test_stopProducingWithinWriteWritesNoMore() -> None:
    """
    A consumer that has enough gets nothing more.
    """
    consumer = Consumer(lambda consumer: consumer.producer.stopProducing())
    assert outcomeOf(producerOf(10, consumer).run()) is consumer
    assert consumer.items == [0]


def test_whenTheDeferatorIsStoppedTheRunEnds() -> None:
    """
    C{stop} of the Deferator is an end like others.
    """
    _source, dr = scripted()
    consumer = Consumer()
    d = IterationProducer(dr, consumer, reactor=Clock()).run()
    dr.stop()
    assert outcomeOf(d) is consumer
    assert consumer.unregistered == 1


def test_aFarFailureEndsTheRunWithItsType() -> None:
    """
    What is written before it stays; the consumer is unregistered and the run
    fails as the item did.
    """
    source, dr = scripted()
    consumer = Consumer()
    producer = IterationProducer(dr, consumer, reactor=Clock())
    d, done = producer.run(), producer.deferUntilDone()
    source.give(1)
    source.sink.receiveFailure(Failure(Oops()))
    assert outcomeOf(d).check(Oops)
    assert outcomeOf(done).check(Oops)
    assert consumer.items == [1]
    assert consumer.unregistered == 1
    assert source.stops == 1


def test_aConsumerThatRaisesStopsTheIteration() -> None:
    """
    The run fails as C{write} did, and the source is stopped.
    """

    def bad(consumer: Consumer) -> None:
        raise Oops

    source, dr = scripted()
    consumer = Consumer(bad)
    d = IterationProducer(dr, consumer, reactor=Clock()).run()
    source.give(1, 2)
    assert outcomeOf(d).check(Oops)
    assert source.stops == 1
    assert consumer.unregistered == 1


@pytest.mark.bulk
def test_manyItemsDoNotRecurse() -> None:
    """
    100,000 items that are ready are written in one loop.
    """
    consumer = Consumer()
    assert outcomeOf(producerOf(100_000, consumer).run()) is consumer
    assert len(consumer.items) == 100_000


def test_theReactorHasItsTurn() -> None:
    """
    After 10 ms of writing, the rest waits for the next turn of the reactor.
    """
    clock = Clock()
    consumer = Consumer(lambda consumer: clock.advance(0.004))
    d = IterationProducer(Deferator(iter(range(5))), consumer, reactor=clock).run()
    assert consumer.items == [0, 1, 2]
    clock.advance(0)
    assert consumer.items == [0, 1, 2, 3, 4]
    assert outcomeOf(d) is consumer
    assert clock.getDelayedCalls() == []


def test_aStopEndsTheWaitForTheReactor() -> None:
    """
    A run that has given the reactor its turn is stopped at once, and leaves no
    timer.
    """
    clock = Clock()
    consumer = Consumer(lambda consumer: clock.advance(0.02))
    producer = IterationProducer(Deferator(iter(range(7))), consumer, reactor=clock)
    d = producer.run()
    producer.stopProducing()
    assert outcomeOf(d) is consumer
    assert clock.getDelayedCalls() == []


def test_cancellingTheRunStopsIt() -> None:
    """
    Cancelling the Deferred of a run stops the source.
    """
    source, dr = scripted()
    d = IterationProducer(dr, Consumer(), reactor=Clock()).run()
    d.cancel()
    assert outcomeOf(d).check(CancelledError)
    assert source.stops == 1


def test_cancellingAWaitForTheEndStopsNothing() -> None:
    """
    Who waits with C{deferUntilDone} may give up.
    """
    source, dr = scripted()
    producer = IterationProducer(dr, Consumer(), reactor=Clock())
    d, waiting = producer.run(), producer.deferUntilDone()
    waiting.cancel()
    assert outcomeOf(waiting).check(CancelledError)
    source.end(1)
    assert outcomeOf(d).items == [1]


def test_doneIsToldBeforeDuringAndAfterTheRun() -> None:
    """
    C{deferUntilDone} and another C{run} tell the same outcome at any time.
    """
    consumer = Consumer()
    producer = producerOf(2, consumer)
    before = producer.deferUntilDone()
    assert not before.called
    producer.run()
    assert outcomeOf(before) is consumer
    assert outcomeOf(producer.deferUntilDone()) is consumer
    assert outcomeOf(producer.run()) is consumer
    assert consumer.items == [0, 1]


@pytest.mark.parametrize("wrong", [None, 5, object()])
def test_onlyADeferatorIsProduced(wrong: Any) -> None:
    """
    Something else is a C{TypeError}.
    """
    with pytest.raises(TypeError):
        IterationProducer(wrong)


def test_onlyAConsumerIsWrittenTo() -> None:
    """
    An object that is no C{IConsumer} is an L{ImplementationError}.
    """
    producer = producerOf(1, None)
    with pytest.raises(ImplementationError):
        producer.registerConsumer(object())
    with pytest.raises(ImplementationError):
        producer.run()


def test_aConsumerThatIsTakenIsWrittenToAnyway() -> None:
    """
    The C{RuntimeError} of a consumer with a producer is ignored.
    """
    consumer = Consumer()
    producer = producerOf(1, consumer)
    producer.registerConsumer(consumer)
    assert outcomeOf(producer.run()).items == [0]


def test_aRunKeepsItsConsumer() -> None:
    """
    No other consumer can be registered once it runs.
    """
    producer = producerOf(1, Consumer())
    producer.run()
    with pytest.raises(ImplementationError):
        producer.registerConsumer(Consumer())


# ListConsumer ---------------------------------------------------------------


class Slow(ListConsumer):
    """
    Processes each item when the test says so.
    """

    def processItem(self, item: Any) -> Any:
        d: Deferred[Any] = Deferred()
        self.processing.append(d)  # type: ignore[attr-defined]
        return d.addCallback(lambda _: item * 10)


class Producer:
    """
    Notes what is wanted of it.
    """

    def __init__(self) -> None:
        self.calls: list[str] = []

    def pauseProducing(self) -> None:
        self.calls.append("pause")

    def resumeProducing(self) -> None:
        self.calls.append("resume")

    def stopProducing(self) -> None:
        self.calls.append("stop")


def test_aListConsumerGivesTheList() -> None:
    """
    Its Deferred fires with all items when the producer unregisters; before and
    after.
    """
    consumer = ListConsumer()
    before = consumer()
    producerOf(3, consumer).run()
    assert outcomeOf(before) == [0, 1, 2]
    assert outcomeOf(consumer()) == [0, 1, 2]
    assert consumer.count == 3


def test_aListConsumerIsAConsumer() -> None:
    """
    It provides C{IConsumer}.
    """
    assert verifyObject(IConsumer, ListConsumer())


def test_theListIsInTheOrderOfTheWrites() -> None:
    """
    Items that take different times keep their order, and the list waits for all.
    """
    consumer = Slow(processing=[])
    consumer.registerProducer(Producer(), True)
    for item in range(3):
        consumer.write(item)
    consumer.unregisterProducer()
    d = consumer()
    for k in (2, 0, 1):
        assert not d.called
        consumer.processing[k].callback(None)  # type: ignore[attr-defined]
    assert outcomeOf(d) == [0, 10, 20]


def test_theProducerIsPausedWhileItemsAreProcessed() -> None:
    """
    It is resumed when all are done; items done at once pause nothing.
    """
    producer = Producer()
    consumer = Slow(processing=[])
    consumer.registerProducer(producer, True)
    consumer.write(1)
    assert producer.calls == ["pause"]
    consumer.processing[0].callback(None)  # type: ignore[attr-defined]
    assert producer.calls == ["pause", "resume"]
    plain = ListConsumer()
    plain.registerProducer(producer, True)
    plain.write(1)
    assert producer.calls == ["pause", "resume"]


def test_anItemThatCannotBeProcessedFailsTheList() -> None:
    """
    The list fails as C{processItem} did, and the producer is stopped.
    """

    class Bad(ListConsumer):
        def processItem(self, item: Any) -> Any:
            return fail(Oops()) if item == 2 else succeed(item)

    consumer = Bad()
    d = producerOf(10, consumer).run()
    assert outcomeOf(d) is consumer
    assert outcomeOf(consumer()).check(Oops)
    assert consumer.count == 3


def test_aFailedListCancelsWhatIsBeingProcessed() -> None:
    """
    After one failure the others are cancelled, and later writes are ignored.
    """
    producer = Producer()
    consumer = Slow(processing=[])
    consumer.registerProducer(producer, True)
    d = consumer()
    for item in range(3):
        consumer.write(item)
    processing = consumer.processing  # type: ignore[attr-defined]
    processing[1].errback(Failure(Oops()))
    assert outcomeOf(d).check(Oops)
    assert producer.calls[-1] == "stop"
    assert all(p.called for p in processing)
    consumer.write(4)
    assert len(processing) == 3
    consumer.unregisterProducer()
    assert outcomeOf(consumer()).check(Oops)


def test_aFailedListStopsAnotherProducer() -> None:
    """
    A producer that registers after the failure is stopped.
    """

    class Bad(ListConsumer):
        def processItem(self, item: Any) -> Any:
            raise Oops

    consumer = Bad()
    consumer.write(1)
    producer = Producer()
    consumer.registerProducer(producer, True)
    assert producer.calls == ["stop"]
    assert outcomeOf(consumer()).check(Oops)


def test_whatSucceedsInSpiteOfItsCancellationIsNotHeard() -> None:
    """
    A result that comes after the failure changes nothing.
    """

    class Stubborn(ListConsumer):
        def processItem(self, item: Any) -> Any:
            return fail(Oops()) if item else Deferred(lambda d: d.callback("late"))

    consumer = Stubborn()
    consumer.write(0)
    consumer.write(1)
    assert outcomeOf(consumer()).check(Oops)


def test_aListConsumerRefusesWrongProducers() -> None:
    """
    A second producer is a C{RuntimeError}, a pull producer a C{TypeError}.
    """
    consumer = ListConsumer()
    with pytest.raises(TypeError):
        consumer.registerProducer(Producer(), False)
    consumer.registerProducer(Producer(), True)
    with pytest.raises(RuntimeError):
        consumer.registerProducer(Producer(), True)


def test_aListThatNobodyWaitsForAnyMore() -> None:
    """
    Cancelling the wait for a list leaves the others.
    """
    consumer = ListConsumer()
    first, second = consumer(), consumer()
    first.cancel()
    assert outcomeOf(first).check(CancelledError)
    producerOf(1, consumer).run()
    assert outcomeOf(second) == [0]


# iteratorToProducer ---------------------------------------------------------


def test_anIteratorBecomesAProducer() -> None:
    """
    Without a consumer it is ready to be registered with one, and run.
    """
    producer = outcomeOf(iteratorToProducer(iter([1, 2])))
    consumer = ListConsumer()
    producer.registerConsumer(consumer)
    producer.run()
    assert outcomeOf(consumer()) == [1, 2]


def test_anIteratorIsProducedToItsConsumer() -> None:
    """
    With a consumer it is run, and the Deferred fires after.
    """
    consumer = ListConsumer()
    assert isinstance(outcomeOf(iteratorToProducer(iter([1, 2]), consumer)), IterationProducer)
    assert outcomeOf(consumer()) == [1, 2]


@pytest.mark.parametrize("nothing", [[1], 5, iter(())])
def test_nothingToProduceIsNone(nothing: Any) -> None:
    """
    What is no iterator, or is empty, gives C{None}.
    """
    assert outcomeOf(iteratorToProducer(nothing)) is None


def test_anEmptyIteratorLetsNoConsumerWait() -> None:
    """
    The consumer of an empty iterator is unregistered.
    """
    consumer = ListConsumer()
    assert outcomeOf(iteratorToProducer(iter(()), consumer)) is None
    assert outcomeOf(consumer()) == []


def test_theWrapperCallsForEachItem() -> None:
    """
    The wrapper is called with the function that gives the answers.
    """
    called: list[Any] = []

    def wrapper(getNext: Any) -> Any:
        called.append(getNext)
        return getNext()

    consumer = ListConsumer()
    d = iteratorToProducer(iter("abc"), consumer, wrapper)
    assert outcomeOf(consumer()) == ["a", "b", "c"]
    assert len(called) == 3
    assert isinstance(outcomeOf(d), IterationProducer)


def test_aFailureReachesWhoAskedForTheProducer() -> None:
    """
    An iterator that raises fails the Deferred.
    """

    def bad() -> Any:
        yield 1
        raise Oops

    assert outcomeOf(iteratorToProducer(bad(), Consumer())).check(Oops)


@pytest.mark.parametrize(
    ("kw", "error"), [({"wrapper": 5}, TypeError), ({"consumer": 5}, ImplementationError)]
)
def test_wrongArgumentsAreRefused(kw: Any, error: Any) -> None:
    """
    A wrapper is callable, and a consumer an C{IConsumer}.
    """
    with pytest.raises(error):
        iteratorToProducer(iter([1]), **kw)
