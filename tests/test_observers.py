"""
What L{asynqueue.scheduling.observers} promises.
"""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import CancelledError
from twisted.python.failure import Failure

from asynqueue.errors import ImplementationError, WorkerLost
from asynqueue.interfaces import IQueueObserver
from asynqueue.scheduling.observers import CallLogger, LoadProducer, Observers, QueueObserver
from asynqueue.testing import (
    MemoryPrefetcher,
    MemoryQueue,
    MemoryWorker,
    RecordingConsumer,
    RecordingObserver,
)
from tests.doubles import Heard, errorOf, readingLogs, resultOf


def busy(queue: Any) -> Any:
    """
    The worker of a queue, that is busy.
    """
    queue.call(abs, -1)
    return queue.workers()[0]


def withAnother(queue: Any) -> MemoryWorker:
    """
    A second worker, for what the first leaves.
    """
    worker = MemoryWorker()
    queue.attachWorker(worker)
    return worker


def handedBack(queue: Any, call: Any) -> None:
    call()
    withAnother(queue)
    queue.workers()[0].handBack()


def timedOut(queue: Any, call: Any) -> None:
    call(timeout=1)
    queue.clock.advance(1)


def lostTo(queue: Any, call: Any, leave: Any, **options: Any) -> None:
    """
    The worker that has the task leaves, and another one is there.
    """
    call(**options)
    withAnother(queue)
    leave(queue.workers()[0])


def shutInTheMiddle(queue: Any, call: Any) -> None:
    call()
    queue.shutdown()
    queue.clock.advance(5)


def lostBySaying(worker: Any) -> None:
    for task in list(worker.tasks):
        worker.fail(task, WorkerLost("f", "somebody"))


# How a task can end: the kind of worker that is there, what happens, and what observers
# hear of the task.
ENDS: dict[str, tuple[type, Any, str]] = {
    "done": (MemoryWorker, lambda queue, call: call(), "queued begun done:None"),
    "failed": (MemoryWorker, lambda queue, call: call(0), "queued begun done:ZeroDivisionError"),
    "cancelled in the queue": (
        MemoryWorker,
        lambda queue, call: (busy(queue), call().cancel()),
        "queued done:CancelledError",
    ),
    "cancelled as it runs": (
        MemoryWorker,
        lambda queue, call: call().cancel(),
        "queued begun done:CancelledError",
    ),
    "timed out": (MemoryWorker, timedOut, "queued begun done:TaskTimedOut"),
    "withdrawn": (
        MemoryWorker,
        lambda queue, call: (busy(queue), queue.withdraw(call())),
        "queued done:CancelledError",
    ),
    "lost": (
        MemoryWorker,
        lambda queue, call: lostTo(queue, call, lambda worker: worker.resign()),
        "queued begun lost done:WorkerLost",
    ),
    "lost in a crash": (
        MemoryWorker,
        lambda queue, call: lostTo(queue, call, lambda w: queue.detachWorker(w, crash=True)),
        "queued begun lost done:WorkerLost",
    ),
    "lost by a worker that stays": (
        MemoryWorker,
        lambda queue, call: lostTo(queue, call, lostBySaying),
        "queued begun lost done:WorkerLost",
    ),
    "retried": (
        MemoryWorker,
        lambda queue, call: lostTo(queue, call, lambda worker: worker.resign(), retries=1),
        "queued begun lost begun done:None",
    ),
    "retried by a worker that stays": (
        MemoryWorker,
        lambda queue, call: lostTo(queue, call, lostBySaying, retries=1),
        "queued begun lost begun done:None",
    ),
    "reassigned": (
        MemoryWorker,
        lambda queue, call: lostTo(queue, call, lambda w: queue.detachWorker(w, True, True)),
        "queued begun lost begun done:None",
    ),
    "not begun": (
        MemoryPrefetcher,
        lambda queue, call: lostTo(queue, call, lambda worker: worker.resign()),
        "queued lost begun done:None",
    ),
    "handed back": (MemoryPrefetcher, handedBack, "queued begun done:None"),
    "queued at the end": (
        MemoryWorker,
        lambda queue, call: (busy(queue), call(), queue.shutdown()),
        "queued done:QueueRunError",
    ),
    "running at the end": (
        MemoryWorker,
        lambda queue, call: (call(), queue.shutdown()),
        "queued begun done:None",
    ),
    "lost at the end": (MemoryWorker, shutInTheMiddle, "queued begun lost done:WorkerLost"),
    "an update": (
        MemoryWorker,
        lambda queue, call: Heard(queue.update(divmod, 7, 1, ephemeral=True)),
        "queued begun done:None",
    ),
    "a lost update": (
        MemoryWorker,
        lambda queue, call: (
            Heard(queue.update(divmod, 7, 1, ephemeral=True)),
            queue.workers()[0].resign(),
        ),
        "queued begun lost done:WorkerLost",
    ),
}


class Story(QueueObserver):
    """
    Notes what becomes of one task, and may do something as it hears of it.
    """

    def __init__(self, do: Any = None, event: str = "") -> None:
        self.told: list[str] = []
        self._do = do
        self._event = event

    def _note(self, event: str, task: Any, more: str = "") -> None:
        if task.callTuple[0] is divmod:
            self.told.append(event + more)
            if event == self._event:
                self._do(task)

    def taskQueued(self, task: Any) -> None:
        self._note("queued", task)

    def taskBegun(self, task: Any, worker: Any) -> None:
        self._note("begun", task)

    def taskDone(self, task: Any, outcome: Any, worker: Any) -> None:
        failed = isinstance(outcome, Failure)
        self._note("done", task, f":{type(outcome.value).__name__ if failed else None}")

    def taskLost(self, task: Any, worker: Any) -> None:
        self._note("lost", task)


def lived(observer: Story, kind: type, live: Any) -> tuple[MemoryQueue, list[Heard]]:
    """
    A queue in which a task has lived and ended.
    """
    queue = MemoryQueue(kind(), timeout=5)
    heard: list[Heard] = []

    def call(divisor: int = 1, **options: Any) -> Any:
        heard.append(Heard(queue.call(divmod, 7, divisor, **options)))
        return heard[-1].d

    queue.addObserver(observer)
    live(queue, call)
    queue.finish()
    for worker in queue.workers():
        for task in worker.tasks:
            worker.drop(task)
    return queue, heard


@pytest.mark.parametrize("how", ENDS)
def test_observersHearHowATaskEnds(how: str) -> None:
    """
    Whatever ends a task, observers hear of each step once and in order: queued, begun,
    lost for each worker that left it undone, and done.
    """
    kind, live, told = ENDS[how]
    observer, load = Story(), RecordingConsumer()
    queue, _ = lived(observer, kind, live)
    assert observer.told == told.split()
    queue.subscribe(load)
    assert queue._registry.load() == 0


@pytest.mark.parametrize("event", ["queued", "begun", "lost", "done"])
@pytest.mark.parametrize("how", ENDS)
def test_observerMayCancelWhatItHearsOf(how: str, event: str) -> None:
    """
    An observer that cancels a task at any step ends it: its Deferred fires once, it is
    done once, and the queue goes on.
    """
    kind, live, _ = ENDS[how]
    observer = Story(lambda task: task.d.cancel(), event)
    with readingLogs() as logs:
        queue, heard = lived(observer, kind, live)
    assert logs.errors() == []
    assert all(len(each.results) == 1 for each in heard)
    assert [told.partition(":")[0] for told in observer.told].count("done") == 1
    statistics = queue.statistics()
    assert (statistics.queued, statistics.running) == (0, 0)
    if queue.isRunning():
        withAnother(queue)
        again = Heard(queue.call(abs, -3))
        queue.finish()
        assert again.result == 3


class Clumsy(QueueObserver):
    """
    Raises whenever it hears of anything.
    """

    def __init__(self, error: BaseException) -> None:
        self._error = error
        self.raised = 0

    def _raise(self, *told: Any) -> None:
        self.raised += 1
        raise self._error

    taskQueued = taskBegun = taskDone = taskLost = workerHired = workerLeft = _raise


ERRORS = [KeyError("clumsy"), SystemExit(1), KeyboardInterrupt(), GeneratorExit()]


@pytest.mark.parametrize("error", ERRORS, ids=repr)
def test_observerThatRaisesHarmsNobody(error: BaseException) -> None:
    """
    What an observer raises, an exit too, is logged, and the next one hears all the same.
    """
    observers = Observers()
    other = RecordingObserver()
    observers.add(Clumsy(error))
    observers.add(other)
    with readingLogs() as logs:
        observers.tell(observers.taskQueued, "a task")
    assert [type(each) for each in logs.errors()] == [type(error)]
    assert other.events == [("queued", "a task")]


@pytest.mark.parametrize("error", ERRORS, ids=repr)
def test_queueGoesOnWithAnObserverThatRaises(error: BaseException) -> None:
    """
    Whatever it raises at each event, each call has its outcome, and the queue ends.
    """
    queue = MemoryQueue()
    clumsy = Clumsy(error)
    queue.addObserver(clumsy)
    with readingLogs() as logs:
        first = Heard(queue.call(abs, -1, retries=1))
        queue.workers()[0].resign()
        withAnother(queue)
        second = Heard(queue.call(abs, -2))
        queue.finish()
        assert (first.result, second.result) == (1, 2)
        assert queue.shutdown().called
    assert len(logs.errors()) == clumsy.raised == 11


def test_silentObserverHearsAndDoesNothing() -> None:
    """
    It provides the whole interface, and answers nothing.
    """
    observer = QueueObserver()
    assert IQueueObserver.providedBy(observer)
    queue = MemoryQueue()
    queue.addObserver(observer)
    queue.call(abs, -1)
    queue.call(abs, -1, retries=1)
    queue.finish()
    queue.detachWorker(1, crash=True)
    queue.shutdown()


def test_observerIsToldOnce() -> None:
    """
    An observer that is added twice hears once, and can be removed.
    """
    observers = Observers()
    observer = RecordingObserver()
    observers.add(observer)
    observers.add(observer)
    observers.tell(observers.taskQueued, 1)
    observers.remove(observer)
    observers.remove(observer)
    observers.tell(observers.taskQueued, 2)
    assert observer.events == [("queued", 1)]


@pytest.mark.parametrize("workers", [0, 1])
def test_whatIsAnnouncedWaits(workers: int) -> None:
    """
    An observer that hears of a task finds it among those that wait, with and without a worker
    that is free.
    """
    queue: Any = MemoryQueue(*[MemoryWorker() for _ in range(workers)])
    seen: list[Any] = []

    class Looker(QueueObserver):
        def taskQueued(self, task: Any) -> None:
            seen.append("1 tasks queued" in repr(queue))
            statistics = queue.statistics()
            seen.append((statistics.queued, len(statistics.flows)))

    queue.addObserver(Looker())
    queue.call(len, "")
    assert seen == [True, (1, 1)]


def test_whatAnObserverCallsComesAfter() -> None:
    """
    A task that an observer queues as it hears of another one is made after that, in each way that
    they are told of.
    """
    queue: Any = MemoryQueue(MemoryWorker(window=9))
    worker = queue.workers()[0]

    class Follower(QueueObserver):
        def taskQueued(self, task: Any) -> None:
            if task.callTuple[1][0] < 3:
                queue.call(abs, task.callTuple[1][0] + 1)

    queue.addObserver(Follower())
    queue.call(abs, 1)
    assert [task.callTuple[1][0] for task in worker.tasks] == [1, 2, 3]


def test_freeWorkerLeavesAsATaskIsAnnounced() -> None:
    """
    A task is not given to the worker that an observer has let go as it heard of the task.
    """
    queue: Any = MemoryQueue(MemoryWorker())
    worker = queue.workers()[0]

    class Dismisser(QueueObserver):
        def taskQueued(self, task: Any) -> None:
            queue.detachWorker(worker)

    queue.addObserver(Dismisser())
    queue.call(len, "")
    assert not worker.tasks
    queue.attachWorker(MemoryWorker())
    assert queue.workers()[0].tasks


@pytest.mark.parametrize("look", ["statistics", "cancelSeries"])
def test_whatIsLookedAtAsItIsAnnouncedRuns(look: str) -> None:
    """
    A task goes to the worker that is free, also if an observer looks through the queue as it hears
    of the task.
    """
    queue: Any = MemoryQueue(MemoryWorker())

    class Looker(QueueObserver):
        def taskQueued(self, task: Any) -> None:
            if look == "statistics":
                queue.statistics()
            else:
                queue.cancelSeries("another")

    queue.addObserver(Looker())
    queue.call(len, "")
    assert len(queue.workers()[0].tasks) == 1


def test_whatIsCancelledAsItIsAnnouncedGoesNowhere() -> None:
    """
    A worker that is free is not given a task that an observer cancels as it hears of the task,
    also where another task waits that the worker may not run.
    """
    queue: Any = MemoryQueue(MemoryWorker())
    queue.call(abs, 1, series="of no worker")

    class Canceller(QueueObserver):
        def taskQueued(self, task: Any) -> None:
            task.d.cancel()

    queue.addObserver(Canceller())
    d = queue.call(len, "")
    assert isinstance(errorOf(d), CancelledError)
    assert not queue.workers()[0].tasks


def test_whatIsInheritedIsNotCalled() -> None:
    """
    A method that an observer has from L{QueueObserver} unchanged is not called: where nobody
    hears, the queue has nobody to call. One that is overridden is, also in a subclass of such
    an observer, and on the object itself.
    """

    told: list[Any] = []

    class Done(QueueObserver):
        def taskDone(self, *outcome: Any) -> None:
            told.append((self, outcome))

    class AlsoBegun(Done):
        def taskBegun(self, *told: Any) -> None:
            pass

    observers = Observers()
    observers.add(QueueObserver())
    assert not any(getattr(observers, hook) for hook in IQueueObserver)
    done, also = Done(), AlsoBegun()
    observers.add(done)
    observers.add(also)
    observers.tell(observers.taskDone, 1, 2, 3)
    assert told == [(done, (1, 2, 3)), (also, (1, 2, 3))]
    assert observers.taskBegun == also.taskBegun
    assert observers.taskQueued is None
    other = QueueObserver()
    heard: list[Any] = []
    other.taskQueued = heard.append  # type: ignore[method-assign]
    observers.add(other)
    observers.tell(observers.taskQueued, 1)
    assert heard == [1]


def test_observersHearTheOutcomeAndTheWorker() -> None:
    """
    They are told what the call returned, or the failure, and the worker that had the task;
    none, if none had.
    """
    queue, observer = MemoryQueue(), RecordingObserver()
    queue.addObserver(observer)
    (worker,) = queue.workers()
    queue.call(abs, -3)
    failed = Heard(queue.call(divmod, 1, 0))
    Heard(queue.call(abs, -1)).d.cancel()
    queue.finish()
    assert failed.error
    outcomes = [event[2:] for event in observer.events if event[0] == "done"]
    assert [by for _, by in outcomes] == [None, worker, worker]
    cancelled, value, raised = (outcome for outcome, _ in outcomes)
    assert cancelled.check(CancelledError)
    assert value == 3
    assert raised.check(ZeroDivisionError)


@pytest.mark.parametrize("begun", [False, True])
def test_onlyWhoHearsOfBeginningsHasTasksWatched(begun: bool) -> None:
    """
    Workers need not say when a task begins, unless an observer hears it, or there is a
    C{timeout}.
    """
    queue = MemoryQueue(MemoryPrefetcher())
    queue.addObserver(RecordingObserver() if begun else LoadProducer(RecordingConsumer(), 0, print))
    queue.call(abs, -1)
    queue.call(abs, -1, timeout=1)
    (worker,) = queue.workers()
    assert [task.watched for task in worker.tasks] == [begun, True]


def test_onlyObserversAreTaken() -> None:
    """
    What is no IQueueObserver is refused.
    """
    with pytest.raises(ImplementationError, match="IQueueObserver"):
        Observers().add(object())


def producer(load: int = 0) -> tuple[LoadProducer, RecordingConsumer, list[Any]]:
    consumer = RecordingConsumer()
    stopped: list[Any] = []
    return LoadProducer(consumer, load, stopped.append), consumer, stopped


def test_loadIsWrittenAtEveryChange() -> None:
    """
    A task that is queued is one more, a task that is done is one less.
    """
    loads, consumer, _ = producer(3)
    loads.taskQueued(None)
    loads.taskDone(None, None, None)
    loads.taskDone(None, None, None)
    assert consumer.items == [4, 3, 2]


def test_pausedConsumerHearsOnlyTheLast() -> None:
    """
    While it is paused nothing is written, and then the last figure, once.
    """
    loads, consumer, _ = producer()
    loads.pauseProducing()
    for _ in range(5):
        loads.taskQueued(None)
    assert consumer.items == []
    loads.resumeProducing()
    loads.resumeProducing()
    assert consumer.items == [5]


def test_consumerMayStop() -> None:
    """
    A consumer that stops its producer is taken off the list.
    """
    loads, _, stopped = producer()
    loads.stopProducing()
    assert stopped == [loads]


def test_consumerIsLetGoAtTheEnd() -> None:
    """
    At the end of the queue the producer is unregistered.
    """
    loads, consumer, stopped = producer()
    loads.end()
    assert consumer.producer is None
    assert stopped == [loads]


@pytest.mark.parametrize("error", ERRORS, ids=repr)
def test_consumerThatRaisesAtTheEndHarmsNobody(error: BaseException) -> None:
    """
    A consumer that cannot let go of its producer does not hold the queue up.
    """

    class Sticky(RecordingConsumer):
        def unregisterProducer(self) -> None:
            raise error

    queue = MemoryQueue()
    queue.subscribe(Sticky())
    with readingLogs() as logs:
        assert queue.shutdown().called
    assert [type(each) for each in logs.errors()] == [type(error)]


def test_loadIsForConsumersOnly() -> None:
    """
    What is no IConsumer is refused.
    """
    with pytest.raises(ImplementationError, match="IConsumer"):
        LoadProducer(object(), 0, print)


def said(error: Any = None, **kw: Any) -> list[str]:
    """
    What is logged of one call.
    """
    queue = MemoryQueue(**kw)
    with readingLogs() as logs:
        d = queue.call(divmod, 7, 0 if error else 2)
        queue.finish()
    if error:
        assert isinstance(errorOf(d), error)
    return logs.said()


def test_warnLogsErrors() -> None:
    """
    With C{warn} errors are logged, without what was called.
    """
    assert said(warn=True) == []
    assert said(ZeroDivisionError, warn=True) == ["task 1 failed"]


def test_verboseSaysWhatWasCalled() -> None:
    """
    With C{verbose} errors are logged with the call.
    """
    assert said(verbose=True) == []
    assert said(ZeroDivisionError, verbose=True) == ["divmod(7, 0) failed"]


def test_spewLogsEveryCall() -> None:
    """
    With C{spew} every call is logged.
    """
    assert said(spew=True) == ["divmod(7, 2) returned"]
    assert said(ZeroDivisionError, spew=True) == ["divmod(7, 0) failed"]


@pytest.mark.parametrize("kw", [{"warn": True}, {"verbose": True}, {"spew": True}])
def test_errorThatIsNotReturnedIsLoggedOnce(kw: Any) -> None:
    """
    Without C{returnFailure} an error is logged once, whatever else the queue logs.
    """
    queue = MemoryQueue(returnFailure=False, **kw)
    with readingLogs() as logs:
        d = queue.call(divmod, 7, 0)
        queue.finish()
    assert resultOf(d) is None
    assert logs.said() == ["divmod(7, 0) failed"]


def test_quietQueueLogsNothing() -> None:
    """
    Without any of them nothing is logged: the error is the caller's.
    """
    assert said(ZeroDivisionError) == []


def test_callLoggerIsAnObserver() -> None:
    """
    It takes failures as they come.
    """
    with readingLogs() as logs:
        CallLogger(False, False).taskDone(MemoryQueue().call(abs).task, Failure(KeyError()), None)
    assert [type(error) for error in logs.errors()] == [KeyError]
