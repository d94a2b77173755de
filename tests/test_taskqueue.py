"""
What L{asynqueue.TaskQueue} promises to who calls it.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import Phase, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from zope.interface import Interface, Invalid, implementer, invariant as zopeInvariant

from asynqueue.errors import (
    ImplementationError,
    InvariantError,
    QueueRunError,
    TaskTimedOut,
    WorkerLost,
)
from asynqueue.interfaces import IWorker
from asynqueue.iteration.deferator import Deferator
from asynqueue.scheduling.observers import QueueObserver
from asynqueue.scheduling.options import CallOptions
from asynqueue.taskqueue import TaskQueue
from asynqueue.testing import (
    MemoryPrefetcher,
    MemoryQueue,
    MemoryWorker,
    RecordingBacklog,
    RecordingConsumer,
    RecordingObserver,
)
from tests.doubles import Heard, errorOf, readingLogs, resultOf


def f(*args: Any, **kw: Any) -> Any:
    """
    Tells what it was called with.
    """
    return args, kw


def finished(queue: MemoryQueue, d: Deferred[Any]) -> Any:
    """
    The result of a call, after the queue's workers have run what there is.
    """
    queue.finish()
    return resultOf(d)


class Eager(MemoryWorker):
    """
    Runs each task as it is given it.
    """

    def run(self, task: Any) -> Any:
        ready = super().run(task)
        self.step()
        return ready


# Calls ----------------------------------------------------------------------------


def test_callGivesItsResult() -> None:
    """
    A call is made with its arguments, and its result comes back.
    """
    queue = MemoryQueue()
    assert finished(queue, queue.call(f, 1, b=2)) == ((1,), {"b": 2})


def test_ownKeywordsNeverReachTheFunction() -> None:
    """
    All of the queue's own keywords stay with the queue.
    """
    queue = MemoryQueue(MemoryWorker(["s"]))
    d = queue.call(
        f,
        niceness=1,
        series="s",
        doNext=True,
        doLast=False,
        timeout=9,
        retries=1,
        consumer=None,
        raw=True,
        returnFailure=True,
        other=1,
    )
    assert finished(queue, d) == ((), {"other": 1})


def test_callWithTakesNothingFromTheKeywords() -> None:
    """
    A function that has the same words for its own gets them.
    """
    queue = MemoryQueue(MemoryWorker(["s"]))
    keywords = {"timeout": 3, "series": [], "niceness": "very", "func": 4, "options": 5}
    d = queue.callWith(CallOptions(series="s"), f, 1, **keywords)
    assert d.task.series == "s"  # type: ignore[attr-defined]
    assert finished(queue, d) == ((1,), keywords)


def test_callWithTakesOptionsFirst() -> None:
    """
    Forgotten options are told of, as are functions that are none.
    """
    with pytest.raises(TypeError, match="CallOptions"):
        MemoryQueue().callWith(f, 1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="cannot be called"):
        MemoryQueue().call(5)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("error", "options"),
    [
        (ValueError, {"niceness": 21}),
        (ValueError, {"niceness": "5"}),
        (ValueError, {"niceness": True}),
        (TypeError, {"series": []}),
        (ValueError, {"timeout": 0}),
        (ImplementationError, {"consumer": 1}),
    ],
)
def test_badOptionsAreRaisedAtOnce(error: Any, options: Any) -> None:
    """
    Options without sense raise where the call was asked for, and queue nothing.
    """
    queue = MemoryQueue()
    with pytest.raises(error):
        queue.call(f, **options)
    assert queue.statistics().running == 0


def test_errorsKeepTheirType() -> None:
    """
    The error of a task is the failure of its Deferred.
    """
    queue = MemoryQueue()
    d = queue.call(divmod, 1, 0)
    with pytest.raises(ZeroDivisionError):
        finished(queue, d)


def test_stopIterationIsAnError() -> None:
    """
    A task that raises StopIteration fails with it, like with any other.
    """
    queue = MemoryQueue()
    d = queue.call(next, iter(()))
    queue.finish()
    assert isinstance(errorOf(d), StopIteration)


def test_queueWideReturnFailure() -> None:
    """
    A queue that does not return failures logs them, unless a call says otherwise.
    """
    queue = MemoryQueue(returnFailure=False)
    logged, returned = queue.call(divmod, 1, 0), queue.call(divmod, 1, 0, returnFailure=True)
    with readingLogs() as logs:
        assert finished(queue, logged) is None
    assert isinstance(errorOf(returned), ZeroDivisionError)
    assert [type(error) for error in logs.errors()] == [ZeroDivisionError]


def test_returnFailureOfOneCall() -> None:
    """
    A call may have its error logged where the queue returns them.
    """
    queue = MemoryQueue()
    d = queue.call(divmod, 1, 0, returnFailure=False)
    with readingLogs() as logs:
        assert finished(queue, d) is None
    assert len(logs.errors()) == 1


def test_callAfterShutdown() -> None:
    """
    A queue that is shut down takes nothing.
    """
    queue = MemoryQueue()
    queue.shutdown()
    for refused in (
        lambda: queue.call(f, 1),
        lambda: queue.callWith(CallOptions(), f, 1),
        lambda: queue.map(f, [1]),
        lambda: queue.update(f, 1),
        lambda: queue.attachWorker(MemoryWorker()),
    ):
        with pytest.raises(QueueRunError, match="shut down"):
            refused()


# Groups of calls -------------------------------------------------------------------


def grouped() -> tuple[MemoryQueue, list[Heard]]:
    """
    A queue that runs a task of series a, and has one more of each series.
    """
    queue = MemoryQueue(MemoryWorker(["a", "b"]))
    return queue, [Heard(queue.call(f, series=series)) for series in ("a", "a", "b")]


def left(heard: list[Heard]) -> list[int]:
    """
    Which of the calls are not cancelled.
    """
    over = [not each.results or not isinstance(each.error, CancelledError) for each in heard]
    return [n for n, lives in enumerate(over) if lives]


@pytest.mark.parametrize(
    ("cancel", "count", "lives"),
    [
        (lambda queue: queue.cancelSeries("a"), 1, [0, 2]),
        (lambda queue: queue.cancelSeries("a", running=True), 2, [2]),
        (lambda queue: queue.cancelSeries("c", running=True), 0, [0, 1, 2]),
        (lambda queue: queue.cancelAll(), 2, [0]),
        (lambda queue: queue.cancelAll(running=True), 3, []),
    ],
)
def test_cancelMany(cancel: Any, count: int, lives: list[int]) -> None:
    """
    The tasks of a series, or all, are cancelled: those that run where it is asked
    for.
    """
    queue, heard = grouped()
    assert cancel(queue) == count
    assert left(heard) == lives


def test_cancelManyCountsWhatItCancelled() -> None:
    """
    What the callbacks of one ended meanwhile is not counted.
    """
    queue, heard = grouped()
    other = queue.call(f, series="b")
    other.addErrback(lambda _: None)
    heard[1].d.addCallback(lambda _: other.cancel())
    assert queue.cancelAll() == 2


def test_cancelAllLeavesUpdates() -> None:
    """
    What a worker needs to serve is not cancelled with the calls.
    """
    queue = MemoryQueue()
    queue.call(f)
    updated = queue.update(f)
    assert queue.cancelAll() == 0
    assert finished(queue, updated) == [((), {})]


# Workers --------------------------------------------------------------------------


def test_attachedWorkerHasAnID() -> None:
    """
    Each worker has a number of its own, and is found by it.
    """
    queue, workers = TaskQueue(reactor=Clock()), [MemoryWorker(), MemoryWorker()]
    IDs = [resultOf(queue.attachWorker(worker)) for worker in workers]
    assert IDs == [worker.ID for worker in workers] == [1, 2]
    assert queue.workers() == workers
    assert [queue.workers(ID) for ID in (2, 3)] == [workers[1], None]


def test_attachedTwiceIsAttachedOnce() -> None:
    """
    A worker that is there already keeps its ID.
    """
    queue, worker = TaskQueue(reactor=Clock()), MemoryWorker()
    assert resultOf(queue.attachWorker(worker)) == resultOf(queue.attachWorker(worker))
    assert len(queue) == 1


def test_IDsAreNotUsedAgain() -> None:
    """
    A worker that comes back is a new one.
    """
    queue, worker = TaskQueue(reactor=Clock()), MemoryWorker()
    first = resultOf(queue.attachWorker(worker))
    queue.detachWorker(worker)
    assert resultOf(queue.attachWorker(worker)) != first


def test_onlyWorkersAreTaken() -> None:
    """
    What is no IWorker is refused, when the queue is made, too.
    """
    for attach in (TaskQueue(reactor=Clock()).attachWorker, TaskQueue):
        with pytest.raises(ImplementationError, match="IWorker"):
            attach(object())  # type: ignore[operator]


@pytest.mark.parametrize("attribute", ["cQualified", "iQualified"])
def test_qualificationsAreLists(attribute: str) -> None:
    """
    A worker whose qualifications are no lists breaks an invariant.
    """
    worker = MemoryWorker()
    setattr(worker, attribute, ("a",))
    with pytest.raises(InvariantError):
        MemoryQueue().attachWorker(worker)


def test_qualificationsAreHashable() -> None:
    """
    So does one that is qualified for what can be the series of no call.
    """
    worker = MemoryWorker()
    worker.iQualified.append(["a"])
    with pytest.raises(InvariantError, match="not hashable"):
        MemoryQueue().attachWorker(worker)


def test_qualificationsAreThere() -> None:
    """
    So does one that has none.
    """

    @implementer(IWorker)
    class Bare:
        pass

    for check in (MemoryQueue().attachWorker, IWorker.validateInvariants):
        with pytest.raises(InvariantError, match="cQualified is a list of series, not None"):
            check(Bare())


def test_otherInvariantsHoldToo() -> None:
    """
    A worker that breaks an invariant of its own is refused in the same way.
    """

    def never(worker: Any) -> None:
        raise Invalid("never")

    class IPicky(IWorker):
        zopeInvariant(never)

    assert issubclass(IPicky, Interface)

    @implementer(IPicky)
    class Picky(MemoryWorker):
        pass

    queue = TaskQueue(reactor=Clock())
    worker = Picky()
    error = InvariantError(worker)
    assert isinstance(error, Invalid)
    try:
        queue.attachWorker(worker)
    except InvariantError:
        assert len(queue) == 0


def test_qualifyWorker() -> None:
    """
    Only workers of the queue are qualified, and only for what can be hashed.
    """
    worker = MemoryWorker()
    queue = MemoryQueue(worker)
    with pytest.raises(ValueError, match="no worker of this queue"):
        queue.qualifyWorker(MemoryWorker(), "a")
    with pytest.raises(TypeError):
        queue.qualifyWorker(worker, [])
    assert worker.iQualified == []


def test_truthAndLength() -> None:
    """
    A queue is as long as it has workers, and true while it runs with any.
    """
    queue = TaskQueue(reactor=Clock())
    assert (len(queue), bool(queue), queue.isRunning()) == (0, False, True)
    queue.attachWorker(MemoryWorker())
    assert (len(queue), bool(queue), queue.isRunning()) == (1, True, True)
    queue.shutdown()
    assert (len(queue), bool(queue), queue.isRunning()) == (0, False, False)


def test_queueShowsItself() -> None:
    """
    A queue says how it stands.
    """
    queue = TaskQueue(MemoryWorker(), reactor=Clock())
    queue.call(f)
    assert repr(queue) == "<TaskQueue running: 1 workers, 0 tasks queued, 1 running>"
    queue.shutdown()
    assert "shut down" in repr(queue)


# Updates --------------------------------------------------------------------------


def test_updateWithoutWorkers() -> None:
    """
    Where there is no worker, an update has no results, and waits for the first.
    """
    queue, worker = TaskQueue(reactor=Clock()), MemoryWorker()
    assert resultOf(queue.update(f)) == []
    queue.attachWorker(worker)
    assert len(worker.tasks) == 1


def test_ephemeralUpdateIsForThePresentOnly() -> None:
    """
    A later hire runs no update that was ephemeral.
    """
    queue, worker = MemoryQueue(), MemoryWorker()
    updated = queue.update(f, 1, ephemeral=True)
    assert finished(queue, updated) == [((1,), {})]
    queue.attachWorker(worker)
    assert worker.tasks == []


def test_updateWithConsumerIsRefused() -> None:
    """
    Many workers cannot feed one consumer.
    """
    queue, worker = TaskQueue(reactor=Clock()), MemoryWorker()
    with pytest.raises(ValueError, match="consumer"):
        queue.update(f, consumer=RecordingConsumer())
    queue.attachWorker(worker)
    assert worker.tasks == []


def test_updateFailsAfterAllHaveEnded() -> None:
    """
    An update that fails on one worker is told of when all have run it, and the
    workers stay.
    """
    workers = [MemoryWorker(), MemoryWorker()]
    queue = MemoryQueue(*workers)
    updated = Heard(queue.update(f))
    workers[1].fail(workers[1].tasks[0], KeyError("second"))
    assert updated.results == []
    workers[0].end(workers[0].tasks[0])
    assert isinstance(updated.error, KeyError)
    assert len(queue) == 2


def test_updateDoesNotGoToWorkersThatLeave() -> None:
    """
    A worker that ends what it has gets no update.
    """
    queue = MemoryQueue()
    queue.call(f)
    queue.detachWorker(1)
    assert resultOf(queue.update(f)) == []


# Listening ------------------------------------------------------------------------


def test_loadReturnsToZero() -> None:
    """
    A subscriber is written the load at every change: ended, failed, cancelled or
    lost, each task is one less.
    """
    worker, consumer = MemoryWorker(), RecordingConsumer()
    queue = MemoryQueue(worker)
    queue.subscribe(consumer)
    heard = [Heard(queue.call(divmod, 1, n)) for n in (1, 0, 1, 1)]
    heard[2].d.cancel()
    queue.update(f)
    queue.step()
    queue.step()
    worker.resign()
    heard[3].d.cancel()
    assert consumer.items == [1, 2, 3, 4, 3, 4, 3, 2, 1, 0]


def test_subscriberWhoComesLateKnowsTheLoad() -> None:
    """
    The load includes what was there before.
    """
    queue, consumer = MemoryQueue(), RecordingConsumer()
    queue.call(f)
    queue.call(f)
    queue.subscribe(consumer)
    queue.finish()
    assert consumer.items == [1, 0]


def test_subscriberMayStop() -> None:
    """
    A subscriber that stops its producer hears no more.
    """
    queue, consumer = MemoryQueue(), RecordingConsumer()
    queue.subscribe(consumer)
    queue.call(f)
    consumer.producer.stopProducing()
    consumer.producer.stopProducing()
    queue.finish()
    assert consumer.items == [1]


def test_subscriberIsLetGoAtTheEnd() -> None:
    """
    With the queue the subscription ends.
    """
    queue, consumer = MemoryQueue(), RecordingConsumer()
    queue.subscribe(consumer)
    queue.shutdown()
    assert consumer.producer is None


def test_observerMayLeave() -> None:
    """
    An observer hears what happens until it is removed.
    """
    queue, observer = MemoryQueue(), RecordingObserver()
    queue.addObserver(observer)
    d = queue.call(f)
    queue.removeObserver(observer)
    queue.finish()
    assert observer.names() == ["queued", "begun"]
    assert d.called


def test_observerThatRaisesHarmsNoCall() -> None:
    """
    A call succeeds whatever an observer makes of it.
    """

    class Clumsy(QueueObserver):
        def taskBegun(self, task: Any, worker: Any) -> None:
            raise KeyError("clumsy")

    queue = MemoryQueue()
    queue.addObserver(Clumsy())
    with readingLogs() as logs:
        assert finished(queue, queue.call(f)) == ((), {})
    assert len(logs.errors()) == 1


# The end --------------------------------------------------------------------------


def test_shutdownOfAnIdleQueue() -> None:
    """
    Where there is nothing to end, the end is at once; asked again, the same.
    """
    queue = MemoryQueue()
    assert resultOf(queue.shutdown()) is None
    assert resultOf(queue.shutdown()) is None


def test_shutdownEndsWhatRunsAndFailsWhatIsQueued() -> None:
    """
    What runs is ended; what is queued fails by name.
    """
    queue = MemoryQueue()
    running, queued = Heard(queue.call(f, 1)), Heard(queue.call(f, 2))
    first, second = Heard(queue.shutdown()), Heard(queue.shutdown())
    assert isinstance(queued.error, QueueRunError)
    assert "f(2)" in str(queued.error)
    assert (running.results, first.results) == ([], [])
    queue.finish()
    assert running.result == ((1,), {})
    assert first.result is second.result is None


def test_shutdownHasItsTime() -> None:
    """
    A task that never ends is lost when the time of the queue is over.
    """
    queue = MemoryQueue(timeout=5)
    heard, shut = Heard(queue.call(Deferred)), Heard(queue.shutdown())
    queue.step()
    queue.clock.advance(4.9)
    assert shut.results == []
    queue.clock.advance(0.1)
    assert isinstance(heard.error, WorkerLost)
    assert shut.result is None


def test_shutdownDoesNotRetry() -> None:
    """
    At the end nothing is tried again.
    """
    queue = MemoryQueue(timeout=5)
    heard = Heard(queue.call(f, retries=9))
    queue.shutdown()
    queue.clock.advance(5)
    assert isinstance(heard.error, WorkerLost)


def test_shutdownAfterDetaching() -> None:
    """
    A worker that is leaving already is waited for, and asked to stop once.
    """

    class Once(MemoryWorker):
        asked = 0

        def stop(self) -> Any:
            self.asked += 1
            return super().stop()

    worker = Once()
    queue = MemoryQueue(worker)
    queue.call(f)
    detached, shut = Heard(queue.detachWorker(worker)), Heard(queue.shutdown())
    assert shut.results == []
    queue.finish()
    assert (detached.result, shut.result, worker.asked) == ([], None, 1)


def test_shutdownWithinACallback() -> None:
    """
    A task's callback may end the queue, and what it calls then is refused.
    """
    queue = MemoryQueue()
    shut: list[Any] = []

    def end(_: Any) -> None:
        shut.append(Heard(queue.shutdown()))
        with pytest.raises(QueueRunError):
            queue.call(f)

    first = queue.call(f)
    first.addCallback(end)
    second = Heard(queue.call(f))
    queue.finish()
    assert resultOf(first) is None
    assert isinstance(second.error, QueueRunError)
    assert shut[0].result is None


def test_shutdownWithinAnErrbackOfShutdown() -> None:
    """
    What fails because of the end may ask for it again: both hear when it is
    reached, and nothing is left then.
    """
    queue = TaskQueue(reactor=Clock())
    again: list[Any] = []
    waiting: list[Heard] = []

    def asked(_: Any) -> None:
        d = queue.shutdown()
        d.addCallback(lambda _: again.append([len(each.results) for each in waiting]))

    queue.call(f).addErrback(asked)
    waiting += [Heard(queue.call(f)) for _ in range(3)]
    assert resultOf(queue.shutdown()) is None
    assert again == [[1, 1, 1]]


def test_shutdownOutlivesWhatItsErrbacksDo() -> None:
    """
    What is lost as one worker stops may have another one crash meanwhile.
    """

    class Hasty(MemoryWorker):
        def stop(self) -> Any:
            return succeed(None)

    queue = MemoryQueue(Hasty(), MemoryWorker())
    lost = queue.call(f)
    lost.addErrback(lambda failure: queue.detachWorker(2, crash=True))
    other = Heard(queue.call(f))
    assert resultOf(queue.shutdown()) is None
    assert isinstance(other.error, WorkerLost)


def test_waitForTheEndCanBeGivenUp() -> None:
    """
    Who cancels its wait for the end does not cancel the end.
    """
    queue = MemoryQueue()
    heard = Heard(queue.call(f))
    impatient, patient = Heard(queue.shutdown()), Heard(queue.shutdown())
    impatient.d.cancel()
    queue.finish()
    assert isinstance(impatient.error, CancelledError)
    assert patient.result is None
    assert heard.result == ((), {})


class Reactor(MemoryReactorClock):
    """
    Keeps triggers, as a reactor does: those that it waits for when it is told to stop.
    """

    def __init__(self) -> None:
        super().__init__()
        self.shutting: list[Any] = []

    def addSystemEventTrigger(self, phase: str, event: str, what: Any, *args: Any) -> Any:
        assert event == "shutdown"
        if phase == "before":
            self.shutting.append(what)
        return what

    def removeSystemEventTrigger(self, trigger: Any) -> None:
        self.shutting.remove(trigger)

    def stopping(self) -> Heard:
        """
        The reactor is told to stop, and waits for this.
        """
        (trigger,) = self.shutting
        return Heard(trigger())


def test_queueEndsWithTheReactor() -> None:
    """
    A reactor that stops waits for what runs, for 10 seconds.
    """
    reactor = Reactor()
    queue = TaskQueue(MemoryWorker(), reactor=reactor)
    heard = Heard(queue.call(f))
    stopped = reactor.stopping()
    reactor.advance(9.9)
    assert stopped.results == []
    reactor.advance(0.1)
    assert stopped.result is None
    assert isinstance(heard.error, WorkerLost)


def test_queueEndsWithTheReactorInItsOwnTime() -> None:
    """
    A queue with a time limit takes that when the reactor stops.
    """
    reactor = Reactor()
    queue = TaskQueue(MemoryWorker(), timeout=1, reactor=reactor)
    heard = Heard(queue.call(f))
    stopped = reactor.stopping()
    reactor.advance(1)
    assert stopped.result is None
    assert isinstance(heard.error, WorkerLost)


@pytest.mark.parametrize("end", ["detach", "shutdown"])
def test_reactorDoesNotWaitForeverForWhoLeaves(end: str) -> None:
    """
    Workers that leave, or a shutdown under way, have a limit as the reactor stops.
    """
    reactor = Reactor()
    queue = TaskQueue(MemoryWorker(), reactor=reactor)
    heard = Heard(queue.call(f))
    ended = Heard(queue.detachWorker(1) if end == "detach" else queue.shutdown())
    stopped = reactor.stopping()
    reactor.advance(10)
    assert stopped.result is None
    assert isinstance(heard.error, WorkerLost)
    assert len(ended.results) == 1


def test_queueThatIsGoneLeavesTheReactorAlone() -> None:
    """
    A queue that was shut down has nothing to do with the reactor any more.
    """
    reactor = Reactor()
    queue = TaskQueue(MemoryWorker(), MemoryWorker(), reactor=reactor)
    assert len(reactor.shutting) == 1
    queue.shutdown()
    assert reactor.shutting == []
    assert reactor.getDelayedCalls() == []


# Maps -----------------------------------------------------------------------------


def items(deferator: Any) -> list[Any]:
    """
    All the results of a map that are there, failures as their type.
    """
    results: list[Any] = []

    async def collect() -> None:
        while True:
            try:
                results.append(await deferator.__anext__())
            except StopAsyncIteration:
                results.append("end")
                return
            except Exception as error:
                results.append(type(error).__name__)

    Deferred.fromCoroutine(collect())
    return results


def counted(made: list[int], stop: int = 10**9) -> Any:
    """
    Numbers that are noted as they are taken.
    """
    for n in range(stop):
        made.append(n)
        yield n


def test_mapKeepsTheOrderOfItsItems() -> None:
    """
    Results come in the order of the items, whichever is done first.
    """
    worker = MemoryWorker(window=4)
    results = items(MemoryQueue(worker).map(str, "abcd"))
    for place in (3, 1, 0, 0):
        task = worker.tasks[place]
        worker.end(task, task.callTuple[1][0])
    assert results == ["a", "b", "c", "d", "end"]


def test_mapUnorderedGivesWhatIsDone() -> None:
    """
    Unordered, results come as they are completed.
    """
    worker = MemoryWorker(window=4)
    results = items(MemoryQueue(worker).map(str, "abcd", ordered=False))
    for place in (3, 1, 0, 0):
        task = worker.tasks[place]
        worker.end(task, task.callTuple[1][0])
    assert results == ["d", "b", "a", "c", "end"]


@pytest.mark.parametrize("ordered", [True, False])
def test_mapIsBoundedAhead(ordered: bool) -> None:
    """
    Of an infinite iterable only so many items are taken ahead.
    """
    made: list[int] = []
    worker = MemoryWorker(window=100)
    deferator = MemoryQueue(worker).map(str, counted(made), ahead=5, ordered=ordered)
    assert len(made) == len(worker.tasks) == 5
    for task in list(worker.tasks):
        worker.end(task)
    assert len(made) == 5
    deferator.stop()


def test_mapGoesOnAsResultsAreTaken() -> None:
    """
    An infinite iterable can be mapped for as long as one likes.
    """
    made: list[int] = []
    queue = MemoryQueue()
    deferator = queue.map(str, counted(made), ahead=4)
    results = items(deferator)
    for _ in range(50):
        queue.step()
    assert results == [str(n) for n in range(len(results))]
    assert len(results) >= 49
    deferator.stop()


@pytest.mark.parametrize("ordered", [True, False])
def test_callThatFailsFailsItsOwnItem(ordered: bool) -> None:
    """
    A call that fails is one failed item, and the others come.
    """
    queue = MemoryQueue()
    results = items(queue.map(lambda n: 6 // n, [1, 0, 3], ordered=ordered))
    queue.finish()
    assert results == [6, "ZeroDivisionError", 2, "end"]


@pytest.mark.parametrize("ordered", [True, False])
def test_iterableThatRaisesFailsTheLastItem(ordered: bool) -> None:
    """
    What the iterable raises is the last item.
    """

    def two() -> Any:
        yield 1
        yield 2
        raise KeyError("two")

    queue = MemoryQueue()
    results = items(queue.map(str, two(), ordered=ordered))
    queue.finish()
    assert sorted(results) == sorted(["1", "2", "KeyError", "end"])


@pytest.mark.parametrize("ordered", [True, False])
def test_keyedMapSaysWhoseEachOutcomeIs(ordered: bool) -> None:
    """
    With keys, each outcome comes with the key of its item, a failure too.
    """
    queue = MemoryQueue()
    pairs = {"one": 1, "none": 0, "three": 3}.items()
    results = items(queue.map(lambda n: 6 // n, pairs, ordered=ordered, keyed=True))
    queue.finish()
    (_, failure) = results.pop(1)
    assert failure.check(ZeroDivisionError)
    assert results == [("one", 6), ("three", 2), "end"]


@pytest.mark.parametrize("isAsynchronous", [True, False])
def test_keyedMapEndsAtWhatIsNoPair(isAsynchronous: bool) -> None:
    """
    With keys, what is no pair fails as if the iterable had raised, and ends it: a generator is
    closed.
    """
    closed: list[bool] = []

    def pairs() -> Any:
        try:
            yield from [("a", 1), 5, ("b", 2)]
        finally:
            closed.append(True)

    async def later() -> Any:
        try:
            for pair in [("a", 1), 5, ("b", 2)]:
                yield pair
        finally:
            closed.append(True)

    queue = MemoryQueue()
    results = items(queue.map(str, later() if isAsynchronous else pairs(), keyed=True))
    queue.finish()
    assert results == [("a", "1"), "TypeError", "end"]
    assert closed == [True]


def test_mapPassesArgumentsAndOptions() -> None:
    """
    What else is given goes to each call, options to the queue.
    """
    queue = MemoryQueue(MemoryWorker(["s"]))
    results = items(queue.map(f, [1], 2, options=CallOptions(series="s"), b=3))
    assert queue.statistics().running == 1
    queue.finish()
    assert results == [((1, 2), {"b": 3}), "end"]


def test_mapOfNothing() -> None:
    """
    No items, no results.
    """
    assert items(MemoryQueue().map(str, [])) == ["end"]


def test_mapThatIsStoppedCancelsItsCalls() -> None:
    """
    Stopping the results cancels what is under way, and closes a generator.
    """
    made: list[int] = []
    numbers = counted(made)
    queue = MemoryQueue()
    deferator = queue.map(str, numbers, ahead=5)
    deferator.stop()
    statistics = queue.statistics()
    assert (statistics.queued, statistics.running) == (0, 0)
    assert next(numbers, "closed") == "closed"


def test_mapLeavesOtherIteratorsOpen() -> None:
    """
    An iterator that is no generator is its owner's, who may go on with it.
    """
    numbers = iter(range(100))
    MemoryQueue().map(str, numbers, ahead=2).stop()
    assert next(numbers) == 2


def test_mapStoppedByItsIterable() -> None:
    """
    An iterable may stop the results it is wanted for: no call is made any more.
    """
    queue = MemoryQueue()
    deferators: list[Any] = []

    def numbers() -> Any:
        yield 0
        yield 1
        deferators[0].stop()
        yield 2
        yield 3

    deferators.append(queue.map(f, numbers(), ahead=2))
    items(deferators[0])
    queue.finish()
    assert queue.statistics().done == 2


def test_mapStoppedByItsFunction() -> None:
    """
    A function that runs as it is called may stop the results.
    """
    deferators: list[Any] = []
    calls: list[int] = []

    def call(n: int) -> Any:
        calls.append(n)
        if n == 3:
            deferators[0].stop()
        return n

    deferators.append(MemoryQueue(Eager()).map(call, counted([]), ahead=2))
    items(deferators[0])
    assert calls == [0, 1, 2, 3]


def test_mapIsEndedByShutdown() -> None:
    """
    A queue that ends fails what is under way and takes no more items.
    """
    made: list[int] = []
    queue = MemoryQueue()
    results = items(queue.map(str, counted(made), ahead=4))
    queue.step()
    queue.shutdown()
    queue.finish()
    assert results[-1] == "end"
    assert set(results[:-1]) <= {"0", "1", "QueueRunError"}
    assert "QueueRunError" in results
    assert len(made) < 20


async def countedLater(made: list[Any], stop: int = 10**9, pause: int = 10**9) -> Any:
    """
    Numbers that are noted as they are asked for, and C{"closed"} at the end. From C{pause}
    on, each one is a Deferred that is waited for.
    """
    try:
        for n in range(stop):
            made.append(n)
            if n >= pause:
                made[-1] = Deferred()
                yield await made[-1]
            else:
                yield n
    finally:
        made.append("closed")


class Listed:
    """
    Iterates asynchronously over a list; no generator.
    """

    def __init__(self, given: list[Any]) -> None:
        self.given = given

    def __aiter__(self) -> Listed:
        return self

    async def __anext__(self) -> Any:
        if not self.given:
            raise StopAsyncIteration
        return self.given.pop(0)


def asynchronously(given: list[Any], kind: str) -> Any:
    """
    An asynchronous iterable of each kind.
    """

    async def generated() -> Any:
        for item in given:
            yield item

    match kind:
        case "generator":
            return generated()
        case "Deferator":
            return Deferator(iter(given))
        case _:
            return Listed(given)


@pytest.mark.parametrize("kind", ["generator", "Deferator", "iterable"])
@pytest.mark.parametrize("ordered", [True, False])
def test_mapTakesAsynchronousIterables(kind: str, ordered: bool) -> None:
    """
    The items of a map may come asynchronously, of whatever kind their iterable is.
    """
    queue = MemoryQueue()
    results = items(queue.map(str, asynchronously([*range(40)], kind), ahead=3, ordered=ordered))
    queue.finish()
    assert results == [*map(str, range(40)), "end"]


def test_mapOfNothingAsynchronous() -> None:
    """
    No items, no results.
    """
    assert items(MemoryQueue().map(str, countedLater([], 0))) == ["end"]


@pytest.mark.parametrize("ordered", [True, False])
def test_mapAsksForItemsAsTheyAreNeeded(ordered: bool) -> None:
    """
    An asynchronous iterable, too, is asked for only so many items ahead of the results.
    """
    made: list[Any] = []
    worker = MemoryWorker(window=100)
    deferator = MemoryQueue(worker).map(str, countedLater(made), ahead=5, ordered=ordered)
    assert len(made) == len(worker.tasks) == 5
    for task in list(worker.tasks):
        worker.end(task)
    assert len(made) == 5
    deferator.stop()
    assert made.pop() == "closed"


def test_mapCallsWhatHasCome() -> None:
    """
    While the next item is waited for, those before it are called and their results handed on.
    """
    made: list[Any] = []
    queue = MemoryQueue()
    results = items(queue.map(str, countedLater(made, 4, pause=2)))
    queue.finish()
    assert results == ["0", "1"]
    made[-1].callback(7)
    queue.finish()
    assert results == ["0", "1", "7"]
    made[-1].callback(8)
    queue.finish()
    assert results == ["0", "1", "7", "8", "end"]


@pytest.mark.parametrize("error", [KeyError("two"), SystemExit(), StopIteration()])
@pytest.mark.parametrize("ordered", [True, False])
def test_asynchronousIterableThatRaisesFailsTheLastItem(
    ordered: bool, error: BaseException
) -> None:
    """
    What an asynchronous iterable raises is one more item, in order the last.
    """

    class Raising(Listed):
        def __anext__(self) -> Any:
            if not self.given:
                raise error
            return super().__anext__()

    queue = MemoryQueue()
    deferator = queue.map(str, Raising([1, 2]), ordered=ordered)
    results: list[Any] = []
    for d in deferator:
        d.addBoth(results.append)
        queue.finish()
    failures = [result for result in results if isinstance(result, Failure)]
    assert [result for result in results if result not in failures] == ["1", "2"]
    assert len(failures) == 1
    assert error in (failures[0].value, failures[0].value.__cause__)
    assert not ordered or results[-1] is failures[0]


def test_mapThatIsStoppedClosesItsAsynchronousIterable() -> None:
    """
    Stopping the results cancels what the generator waits for, and closes it.
    """
    made: list[Any] = []
    deferator = MemoryQueue().map(str, countedLater(made, pause=0))
    deferator.stop()
    made[0].addErrback(lambda failure: failure.trap(CancelledError))
    assert made[1:] == ["closed"]


def test_mapThatIsStoppedStopsItsDeferator() -> None:
    """
    A Deferator is for one reader: with the map it ends.
    """
    mapped = Deferator(counted([]))
    MemoryQueue().map(str, mapped).stop()
    assert not mapped.moreLeft


def test_mapLeavesOtherAsynchronousIteratorsOpen() -> None:
    """
    An asynchronous iterator that is no generator is its owner's, who may go on with it.
    """
    numbers = Listed([*range(9)])
    MemoryQueue().map(str, numbers, ahead=2).stop()
    assert numbers.given == [*range(2, 9)]


@pytest.mark.parametrize("pause", [0, 3])
def test_mapOfAsynchronousItemsIsEndedByShutdown(pause: int) -> None:
    """
    A queue that ends takes no more items: the next one fails, and the generator is closed.
    """
    made: list[Any] = []
    queue = MemoryQueue()
    results = items(queue.map(str, countedLater(made, pause=pause), ahead=4))
    queue.shutdown()
    queue.finish()
    made[-1].callback(7)
    assert results[-2:] == ["QueueRunError", "end"]
    assert made[-1] == "closed"


def test_mapRefusesWhatIsNotIterable() -> None:
    """
    What cannot be iterated over is refused at once.
    """

    class Strange:
        def __aiter__(self) -> Any:
            return 3

    for strange in (3, Strange()):
        with pytest.raises(TypeError):
            MemoryQueue().map(str, strange)  # type: ignore[arg-type]


@pytest.mark.parametrize("ahead", [1, 0, -1, True, 2.5])
def test_mapNeedsRoomForTwo(ahead: Any) -> None:
    """
    A map must be ahead by 2 at the least.
    """
    with pytest.raises(ValueError, match="2 or more"):
        MemoryQueue().map(str, [1], ahead=ahead)


@pytest.mark.bulk
def test_mapOfManyDoesNotRecurse() -> None:
    """
    A long map whose calls end at once needs no deep stack.
    """
    queue = MemoryQueue(Eager())
    results = items(queue.map(abs, range(20_000)))
    queue.clock.advance(0)
    assert results == [*range(20_000), "end"]


def test_asyncioMayMap() -> None:
    """
    An asyncio task takes results as one of Twisted does.
    """

    async def sums() -> list[int]:
        queue = MemoryQueue(MemoryWorker(window=9))
        deferator = queue.map(abs, [-1, -2])
        queue.finish()
        return [item async for item in deferator]

    assert asyncio.run(sums()) == [1, 2]


# Everything at once ---------------------------------------------------------------

SERIES = st.sampled_from([None, "a", "b"])


class Lives(RuleBasedStateMachine):
    """
    Whatever happens to calls and workers, in whatever order, every Deferred fires
    once, and nothing begins twice that may not.
    """

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.backlog = RecordingBacklog()
        self.queue = TaskQueue(reactor=self.clock, timeout=50, backlog=self.backlog)
        self.observer = RecordingObserver()
        self.load = RecordingConsumer()
        self.queue.addObserver(self.observer)
        self.queue.subscribe(self.load)
        self.heard: list[Heard] = []
        self.allowed: dict[int, int] = {}
        self.workers: list[Any] = []
        self.late: list[Any] = []
        self.shut: list[Heard] = []

    def tasks(self) -> list[Any]:
        return [(worker, task) for worker in self.workers for task in worker.tasks]

    @rule(
        series=SERIES,
        niceness=st.sampled_from([-20, 0, 7]),
        band=st.sampled_from(["", "", "doNext", "doLast"]),
        timeout=st.sampled_from([None, None, 3, 30]),
        retries=st.sampled_from([0, 0, 1, 2]),
        chained=st.booleans(),
    )
    def call(self, band: str, retries: int, chained: bool, **options: Any) -> None:
        options |= {band: True} if band else {}
        try:
            d = self.queue.call(f, len(self.heard), retries=retries, **options)
        except QueueRunError:
            assert self.shut
            return
        self.allowed[len(self.heard)] = 1 + retries
        self.heard.append(Heard(d))
        if chained:
            d.addCallback(lambda _: self.queue.isRunning() and self.call(band, 0, False))

    @precondition(lambda self: self.heard)
    @rule(data=st.data())
    def cancel(self, data: Any) -> None:
        data.draw(st.sampled_from(self.heard)).d.cancel()

    @rule(
        kind=st.sampled_from([MemoryWorker, MemoryPrefetcher, Eager]),
        series=st.sets(SERIES),
        window=st.integers(1, 3),
    )
    def attach(self, kind: Any, series: set[Any], window: int) -> None:
        if self.shut or len(self.queue) > 3:
            return
        worker = kind(series, window=window)
        self.workers.append(worker)
        self.heard.append(Heard(self.queue.attachWorker(worker)))

    @precondition(lambda self: self.tasks())
    @rule(data=st.data(), how=st.sampled_from(["end", "end", "fail", "drop", "begin", "lost"]))
    def work(self, data: Any, how: str) -> None:
        worker, task = data.draw(st.sampled_from(self.tasks()))
        if how == "begin":
            if isinstance(worker, MemoryPrefetcher):
                worker.begin(task)
        elif how == "end" or not task.ended:
            if how == "fail":
                worker.fail(task, KeyError("task"))
            elif how == "lost":
                worker.fail(task, WorkerLost("f", "somebody"))
            elif how == "end":
                worker.end(task)

    @precondition(lambda self: self.workers)
    @rule(data=st.data(), how=st.sampled_from(["resign", "handBack", "ready"]))
    def worker(self, data: Any, how: str) -> None:
        worker = data.draw(st.sampled_from(self.workers))
        if how == "resign":
            self.late += worker.tasks
            worker.resign()
        elif how == "ready" and worker in self.queue.workers():
            worker.becomeReady()
        elif how == "handBack" and isinstance(worker, MemoryPrefetcher):
            worker.handBack()

    @precondition(lambda self: self.workers)
    @rule(data=st.data(), crash=st.booleans(), reassign=st.booleans())
    def detach(self, data: Any, crash: bool, reassign: bool) -> None:
        worker = data.draw(st.sampled_from(self.workers))
        if crash:
            self.late += worker.tasks
        if crash and reassign:
            for task in worker.tasks:
                self.allowed[self.name(task)] = self.allowed.get(self.name(task), 0) + 1
        self.heard.append(Heard(self.queue.detachWorker(worker, reassign, crash)))

    @precondition(lambda self: self.queue.workers())
    @rule(data=st.data(), series=SERIES)
    def qualify(self, data: Any, series: Any) -> None:
        self.queue.qualifyWorker(data.draw(st.sampled_from(self.queue.workers())), series)

    @rule(ephemeral=st.booleans())
    def update(self, ephemeral: bool) -> None:
        if not self.shut:
            self.heard.append(Heard(self.queue.update(f, "update", ephemeral=ephemeral)))

    @rule(running=st.booleans())
    def cancelAll(self, running: bool) -> None:
        self.queue.cancelAll(running)

    @rule(seconds=st.sampled_from([0, 1, 40]))
    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @precondition(lambda self: len(self.heard) > 12)
    @rule()
    def shutdown(self) -> None:
        self.shut.append(Heard(self.queue.shutdown()))

    @staticmethod
    def name(task: Any) -> Any:
        return task.callTuple[1][0]

    @invariant()
    def backlogIsAskedRightly(self) -> None:
        assert len([*self.backlog.tasks()]) == self.queue.statistics().queued
        assert self.backlog.faults == []

    @invariant()
    def everyDeferredFiresOnceAtTheMost(self) -> None:
        assert all(len(each.results) <= 1 for each in (*self.heard, *self.shut))

    @invariant()
    def loadIsWhatIsQueuedAndRuns(self) -> None:
        queued = self.observer.names().count("queued") - self.observer.names().count("done")
        assert self.queue._registry.load() == queued
        if self.load.items:
            assert self.load.items[-1] == queued

    @invariant()
    def nobodyWaitsInVain(self) -> None:
        if self.clock.getDelayedCalls() and self.queue._dispatcher._loop.name != "RESTING":
            return
        statistics = self.queue.statistics()
        idle = [worker for worker in statistics.workers if worker.waiting]
        for flow in statistics.flows:
            for worker in statistics.workers:
                if worker.state == "ready" and flow.series in {None, *worker.series}:
                    assert worker not in idle
                    assert flow.qualified

    def teardown(self) -> None:
        shut = Heard(self.queue.shutdown())
        self.clock.advance(100)
        for task in self.late:
            task.callback("late")
        assert shut.result is None
        assert all(len(each.results) == 1 for each in (*self.heard, *self.shut))
        assert len(self.queue) == 0
        assert self.clock.getDelayedCalls() == []
        assert not self.load.items or self.load.items[-1] == 0
        self.checkBegun()

    def checkBegun(self) -> None:
        """
        Nothing began more often than it may.
        """
        begun = [self.name(event[1]) for event in self.observer.events if event[0] == "begun"]
        for name in set(begun) - {"update"}:
            assert begun.count(name) <= self.allowed[name]


TestLives = Lives.TestCase
# To make a failing example smaller takes minutes: do it when there is one.
TestLives.settings = settings(stateful_step_count=50, phases=[Phase.generate])


@pytest.mark.parametrize("options", [{}, {"doLast": True}, {"niceness": 3}])
def test_tasksOfAFlowBeginInTheirOrder(options: Any) -> None:
    """
    A single worker begins the tasks of a flow in the order they were queued,
    also those it handed back.
    """
    worker = MemoryPrefetcher(window=3)
    queue = MemoryQueue(worker)
    observer = RecordingObserver()
    queue.addObserver(observer)
    for n in range(9):
        queue.call(f, n, **options)
    for _ in range(9):
        worker.handBack()
        worker.step()
    begun = [event[1].callTuple[1][0] for event in observer.events if event[0] == "begun"]
    assert begun == list(range(9))


def test_timedOutIsATimeout() -> None:
    """
    A task that took too long fails with the builtin TimeoutError, too.
    """
    worker = MemoryWorker()
    queue = MemoryQueue(worker)
    d = queue.call(f, timeout=1)
    queue.clock.advance(1)
    error = errorOf(d)
    assert isinstance(error, TimeoutError)
    assert isinstance(error, TaskTimedOut)


def test_lateFailureIsSwallowed() -> None:
    """
    What a cancelled run fails with later disturbs nobody.
    """
    worker = MemoryWorker()
    queue = MemoryQueue(worker)
    heard = Heard(queue.call(f))
    task = worker.tasks[0]
    heard.d.cancel()
    task.errback(Failure(KeyError("late")))
    assert isinstance(heard.error, CancelledError)
