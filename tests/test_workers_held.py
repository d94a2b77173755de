"""
L{HeldIterators}: what becomes of open iterators as their worker stops.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from asynqueue.errors import WorkerLost
from asynqueue.iteration import Deferator, IterationProducer
from asynqueue.testing import RecordingConsumer
from asynqueue.workers.held import IDLE_SECONDS, HeldIterators
from tests.doubles import Heard, errorOf, resultOf
from tests.iterations import Scripted


class Open(Scripted):
    """
    An iterator that is open in a worker.
    """

    def __init__(self, worker: StoppingWorker) -> None:
        super().__init__()
        self._worker = worker

    def stop(self) -> None:
        super().stop()
        self.sink = None
        if not self._worker.areStuck:
            self._worker.sources.remove(self)
            self._worker.look()

    def fail(self, failure: Failure) -> None:
        """
        The worker closes it.
        """
        sink = self.sink
        self.stop()
        sink.receiveFailure(failure)
        sink.finish()


class StoppingWorker:
    """
    A worker that does nothing but hold iterators, and stop.

    @ivar areStuck: whether its iterators do not end when they are closed.
    @ivar insisted: those that were to end all the same.
    """

    def __init__(self) -> None:
        self.clock = Clock()
        self.sources: list[Open] = []
        self.stopped: Deferred[None] = Deferred()
        self.areStuck = False
        self.insisted: list[Open] = []
        self.held = HeldIterators(
            lambda: self.sources,
            lambda: "MyWorker 7",
            self.clock.callLater,
            self.look,
            self.insisted.append,
        )
        self._isStopping = False

    def open(self, *items: Any) -> tuple[Open, Deferator]:
        """
        An iterator, of which some items have come.
        """
        source = Open(self)
        self.sources.append(source)
        deferator = Deferator.fromSource(source, "an iterator")
        source.give(*items)
        return source, deferator

    def stop(self) -> None:
        """
        Stop, as soon as no iterator is open.
        """
        self._isStopping = True
        self.look()

    def look(self) -> None:
        """
        See whether that is so.
        """
        if self._isStopping and not self.held.wait("it stops") and not self.stopped.called:
            self.stopped.callback(None)

    def wait(self, times: float = 1) -> None:
        """
        Let time pass, in steps.

        @param times: how often the time after which an iterator is closed.
        """
        self.clock.pump([IDLE_SECONDS / 10] * round(10 * times + 1))


@pytest.fixture
def worker() -> StoppingWorker:
    """
    A worker without any iterator.
    """
    return StoppingWorker()


def test_nothingIsOpen(worker: StoppingWorker) -> None:
    """
    Without an open iterator a worker stops at once, and no timer runs (G10).
    """
    worker.stop()
    assert worker.stopped.called
    assert worker.clock.getDelayedCalls() == []


def test_theUnreadIsClosed(worker: StoppingWorker) -> None:
    """
    An iterator that nobody reads is closed after a short time, and then the worker stops.
    """
    source, _deferator = worker.open(0, 1, 2)
    worker.stop()
    worker.clock.advance(IDLE_SECONDS * 0.9)
    assert source.stops == 0
    worker.clock.advance(IDLE_SECONDS * 0.1)
    assert source.stops == 1
    assert worker.stopped.called
    assert worker.clock.getDelayedCalls() == []


def test_whoReadsItAfterwards(worker: StoppingWorker) -> None:
    """
    Who reads an iterator that was closed gets what had come of it, and then an error that
    says which worker closed it, and why.
    """
    _source, deferator = worker.open(0, 1, 2)
    worker.stop()
    worker.wait()
    assert [resultOf(next(deferator)) for _ in range(3)] == [0, 1, 2]
    error = errorOf(next(deferator))
    assert isinstance(error, WorkerLost)
    assert "MyWorker 7" in str(error)
    assert "it stops, and nobody took an item for 2 s" in str(error)


def test_noRetryIsAdvised(worker: StoppingWorker) -> None:
    """
    Where the rest of an iterator is lost, the error does not advise retries, which a call
    that has given its result does not have.
    """
    _source, deferator = worker.open()
    waiting = Heard(next(deferator))
    worker.held.fail("it crashed")
    assert str(waiting.error).endswith("; call again if the call may safely be repeated")


@pytest.mark.parametrize(
    "waits",
    [
        next,
        lambda deferator: Deferred.fromCoroutine(anext(deferator)),
        Deferator.deferUntilReady,
    ],
    ids=["a loop", "an asynchronous loop", "the first item"],
)
def test_whoWaitsForAnItemGetsIt(
    worker: StoppingWorker, waits: Callable[[Deferator], Deferred[Any]]
) -> None:
    """
    While somebody waits for an item of an iterator, however long, it is not closed.
    """
    source, deferator = worker.open()
    waiting = Heard(waits(deferator))
    worker.stop()
    worker.wait(10)
    assert not worker.stopped.called
    source.give(0)
    worker.sources.remove(source)
    source.end()
    assert waiting.result in (0, deferator)
    worker.wait()
    assert worker.stopped.called


def test_slowReadersLoseNothing(worker: StoppingWorker) -> None:
    """
    A reader that takes its time with each item, less than it takes to close an iterator,
    loses none of them, though nothing is asked of the iterator for long.
    """
    source, deferator = worker.open(*range(30))
    worker.stop()
    taken = []
    for _ in range(29):
        taken.append(resultOf(next(deferator)))
        worker.wait(0.8)
    assert taken == list(range(29))
    assert source.stops == 0
    assert not worker.stopped.called


def test_readersOfAReactorThatIsHeldUp(worker: StoppingWorker) -> None:
    """
    A reader whose turn comes late, since the reactor was held up, is heard before its
    iterator is closed.
    """
    source, deferator = worker.open(*range(5))
    worker.stop()
    worker.clock.callLater(IDLE_SECONDS, lambda: resultOf(next(deferator)))
    worker.clock.advance(IDLE_SECONDS)
    assert source.stops == 0


def test_pausedConsumersAreWaitedFor(worker: StoppingWorker) -> None:
    """
    Where a consumer takes all items, its pauses may be long.
    """
    source, deferator = worker.open(*range(5))
    consumer = RecordingConsumer(pauseAfter=2)
    run = Heard(IterationProducer(deferator, consumer, worker.clock).run())
    worker.stop()
    worker.wait(10)
    assert not worker.stopped.called
    consumer.producer.resumeProducing()
    worker.sources.remove(source)
    source.end()
    assert run.result is consumer
    assert consumer.items == list(range(5))
    worker.wait()
    assert worker.stopped.called


def test_eachForItself(worker: StoppingWorker) -> None:
    """
    That one iterator is read keeps no other one open.
    """
    read, deferator = worker.open()
    unread, _other = worker.open()
    next(deferator)
    worker.stop()
    worker.wait()
    assert (read.stops, unread.stops) == (0, 1)


def test_crashInTheMeantime(worker: StoppingWorker) -> None:
    """
    After a crash nobody looks any more what is read.
    """
    worker.open()
    worker.stop()
    worker.held.stop()
    assert worker.clock.getDelayedCalls() == []


def test_codeThatDoesNotEnd(worker: StoppingWorker) -> None:
    """
    An iterator whose code does not end when it is closed is made to end, if its worker can
    do that.
    """
    worker.areStuck = True
    source, _deferator = worker.open()
    worker.stop()
    worker.wait()
    assert source.stops == 1
    assert worker.insisted == []
    worker.wait()
    assert worker.insisted == [source]
    assert not worker.stopped.called


def test_crashClosesAll(worker: StoppingWorker) -> None:
    """
    All open iterators are closed at once when their worker crashes, also those that are
    read, and who reads them is told why.
    """
    pairs = [worker.open() for _ in range(2)]
    waiting = [Heard(next(deferator)) for _, deferator in pairs]
    worker.held.fail("it crashed")
    assert [source.stops for source, _ in pairs] == [1, 1]
    for heard in waiting:
        assert isinstance(heard.error, WorkerLost)
        assert "it crashed" in str(heard.error)
