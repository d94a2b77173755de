"""
What L{asynqueue.scheduling.dispatch} promises: whatever happens to a worker, each
task has one outcome, and what has not begun is run elsewhere.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from asynqueue.errors import ImplementationError, QueueRunError, TaskTimedOut, WorkerLost
from asynqueue.interfaces import (
    ICancellingWorker,
    ILingeringWorker,
    IPrefetchingWorker,
    ITask,
    IWorker,
)
from asynqueue.taskqueue import TaskQueue
from asynqueue.testing import (
    MemoryPrefetcher,
    MemoryWorker,
    RecordingBacklog,
    RecordingConsumer,
    RecordingObserver,
)
from tests.doubles import Heard, errorOf, readingLogs, resultOf


def f(*args: Any) -> Any:
    """
    What is called, if it is.
    """
    return args


@implementer(IWorker)
class Instant:
    """
    Ends each task with its arguments as soon as it is given it.
    """

    cQualified: list[Any] = []

    def __init__(self) -> None:
        self.iQualified: list[Any] = []
        self.ran: list[Any] = []

    def setResignator(self, callableObject: Any) -> None:
        self.resign = callableObject

    def run(self, task: ITask) -> Any:
        self.ran.append(task.callTuple[1])
        task.callback(task.callTuple[1])
        return succeed(None)

    def stop(self) -> Deferred[None]:
        return succeed(None)

    def crash(self) -> list[ITask]:
        return []


@implementer(IPrefetchingWorker)
class Refuser(Instant):
    """
    Hands each task back as soon as it is given it, and is never ready again.
    """

    def setReturner(self, callableObject: Any) -> None:
        self._returner = callableObject

    def run(self, task: ITask) -> Any:
        self._returner([task])
        return Deferred()

    def takeBack(self) -> list[ITask]:
        return []


@implementer(ICancellingWorker)
class Canceller(MemoryWorker):
    """
    Can end a run, and may fail to.
    """

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__()
        self.cancelled: list[Any] = []
        self._error = error

    def cancel(self, task: ITask) -> None:
        self.cancelled.append(task)
        if self._error is not None:
            raise self._error


@implementer(ILingeringWorker)
class Lingerer(MemoryWorker):
    """
    Is not gone when it has crashed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.whenGone: Deferred[None] = Deferred()
        self.crashes = 0

    def crash(self) -> list[ITask]:
        self.crashes += 1
        return super().crash()

    def gone(self) -> Deferred[None]:
        return self.whenGone


# What the queues of a test are given, where they are given any.
_given: list[RecordingBacklog] = []


@pytest.fixture(autouse=True, params=["own", "given"])
def backlog(request: pytest.FixtureRequest) -> Iterator[None]:
    """
    Each test runs with the backlog that a queue makes itself, and with one that it is given.
    """
    _given[:] = [RecordingBacklog()] if request.param == "given" else []
    yield
    assert [fault for each in _given for fault in each.faults] == []


def queueOf(*workers: Any, **kw: Any) -> TaskQueue:
    if _given:
        _given.append(RecordingBacklog())
        kw["backlog"] = _given[-1]
    return TaskQueue(*workers, reactor=Clock(), **kw)


def called(worker: Any) -> list[Any]:
    """
    The arguments of the tasks that a worker holds.
    """
    return [task.callTuple[1] for task in worker.tasks]


def outcome(heard: Heard) -> str:
    """
    The name of what became of a call.
    """
    if not heard.results:
        return "waits"
    result = heard.result
    return type(result.value).__name__ if isinstance(result, Failure) else "value"


# Workers that break their contract ---------------------------------------------


class Broken(Instant):
    """
    Does something wrong when it is given a task.
    """

    def __init__(self, run: Any) -> None:
        super().__init__()
        self._run = run
        self.crashed = 0

    def run(self, task: ITask) -> Any:
        return self._run(task)

    def crash(self) -> list[ITask]:
        self.crashed += 1
        return []


def raising(task: ITask) -> Any:
    raise KeyError("run")


def exiting(task: ITask) -> Any:
    raise SystemExit(1)


BREAKS = [
    pytest.param(raising, "raised KeyError", id="raises"),
    pytest.param(exiting, "raised SystemExit", id="exits"),
    pytest.param(lambda task: None, "returned None", id="returns nothing"),
    pytest.param(lambda task: fail(KeyError("run")), "failed", id="returns a failure"),
]


@pytest.mark.parametrize(("run", "what"), BREAKS)
def test_workerThatBreaksItsContractIsFired(run: Any, what: str) -> None:
    """
    A worker whose run() is wrong fails its task, by name, and gets no other one.
    """
    worker = Broken(run)
    queue = queueOf(worker)
    with readingLogs() as logs:
        error = errorOf(queue.call(f))
        later = Heard(queue.call(f))
    assert isinstance(error, ImplementationError)
    assert what in str(error)
    assert (len(queue), worker.crashed, outcome(later)) == (0, 1, "waits")
    assert len(logs.errors()) == 1


@pytest.mark.parametrize(("run", "what"), BREAKS)
def test_brokenWorkerHarmsNoOther(run: Any, what: str) -> None:
    """
    What a broken worker leaves is done by another one.
    """
    queue = queueOf(Broken(run))
    with readingLogs():
        first = Heard(queue.call(f))
        second = Heard(queue.call(f))
    queue.attachWorker(Instant())
    assert (outcome(first), outcome(second)) == ("ImplementationError", "value")


def test_taskEndedBeforeRunRaisesKeepsItsValue() -> None:
    """
    A worker that ends the task and raises then is fired, and the value counts.
    """

    def endsAndRaises(task: ITask) -> Any:
        task.callback("value")
        raise KeyError("run")

    queue = queueOf(Broken(endsAndRaises))
    with readingLogs():
        assert resultOf(queue.call(f)) == "value"
    assert len(queue) == 0


def test_runThatFailsLaterFiresTheWorker() -> None:
    """
    The Deferred of run() that fails in the end is a broken contract, too.
    """
    ready: Deferred[None] = Deferred()
    queue = queueOf(Broken(lambda task: ready))
    heard = Heard(queue.call(f))
    with readingLogs():
        ready.errback(KeyError("later"))
    assert outcome(heard) == "ImplementationError"
    assert len(queue) == 0


def test_taskEndedTwiceHasItsFirstValue() -> None:
    """
    A worker that ends a task twice changes nothing by that.
    """

    def twice(task: ITask) -> Any:
        task.callback(1)
        task.callback(2)
        task.errback(Failure(KeyError()))
        return succeed(None)

    queue = queueOf(Broken(twice))
    assert resultOf(queue.call(f)) == 1
    assert queue.statistics().done == 1


def test_workerThatNeverEndsItsTaskHoldsIt() -> None:
    """
    A task that is never ended waits, until its worker is made to go.
    """
    queue = queueOf(Broken(lambda task: succeed(None)))
    heard = Heard(queue.call(f))
    assert outcome(heard) == "waits"
    queue.detachWorker(1, crash=True)
    assert outcome(heard) == "WorkerLost"


def test_workerThatNeverGetsReadyGetsNoOtherTask() -> None:
    """
    Who is not ready is not asked.
    """

    def once(task: ITask) -> Any:
        task.callback("value")
        return Deferred()

    queue = queueOf(Broken(once))
    heard = [Heard(queue.call(f)) for _ in range(2)]
    assert [outcome(each) for each in heard] == ["value", "waits"]


def test_readinessMayComeWithAValue() -> None:
    """
    Whatever the Deferred of run() fires with, the worker is ready.
    """

    def ready(task: ITask) -> Any:
        task.callback(1)
        return succeed("ready")

    queue = queueOf(Broken(ready))
    assert [resultOf(queue.call(f)) for _ in range(3)] == [1, 1, 1]


def test_workerThatFailsToCrashIsGoneAllTheSame() -> None:
    """
    What crash() raises, an exit too, is logged, and the tasks are settled.
    """

    class Stubborn(MemoryPrefetcher):
        def crash(self) -> list[ITask]:
            raise SystemExit("crash")

        def takeBack(self) -> Any:
            raise KeyboardInterrupt("takeBack")

    queue = queueOf(Stubborn())
    heard = Heard(queue.call(f))
    with readingLogs() as logs:
        queue.detachWorker(1, crash=True)
    assert outcome(heard) == "WorkerLost"
    assert (len(queue), len(logs.errors())) == (0, 2)


@pytest.mark.parametrize("how", ["raises", "fails"])
def test_workerThatFailsToStopIsGoneAllTheSame(how: str) -> None:
    """
    What stop() raises or fails with is logged, and the worker crashes.
    """

    class Stubborn(MemoryWorker):
        def stop(self) -> Any:
            if how == "raises":
                raise KeyError("stop")
            return fail(KeyError("stop"))

    queue = queueOf(Stubborn())
    heard = Heard(queue.call(f))
    with readingLogs() as logs:
        left = resultOf(queue.detachWorker(1))
    assert [task.d for task in left] == [heard.d]
    assert outcome(heard) == "WorkerLost"
    assert len(logs.errors()) == 1


def test_workerThatStopsWithTasksLosesThem() -> None:
    """
    A worker that says it has stopped and has not ended its tasks has lost them.
    """

    class Hasty(MemoryWorker):
        def stop(self) -> Any:
            return succeed(None)

    queue = queueOf(Hasty())
    heard = Heard(queue.call(f))
    queue.shutdown()
    assert heard.error.begun
    assert "without ending this" in str(heard.error)


# Resigning and at-most-once -----------------------------------------------------


def test_resigningLosesWhatHasBegun() -> None:
    """
    What a worker that resigns was running fails, and says what it may have done.
    """
    worker = MemoryWorker()
    queue = queueOf(worker)
    heard = Heard(queue.call(f, 7))
    worker.resign()
    error = heard.error
    assert isinstance(error, WorkerLost)
    assert (error.call, error.worker, error.begun) == ("f(7)", "MemoryWorker 1", True)
    assert len(queue) == 0


def test_resigningTwiceIsResigningOnce() -> None:
    """
    A worker may resign as often as it likes, also when it is gone.
    """
    worker = MemoryWorker()
    queue = queueOf(worker)
    observer = RecordingObserver()
    queue.addObserver(observer)
    heard = Heard(queue.call(f))
    worker.resign()
    worker.resign()
    assert outcome(heard) == "WorkerLost"
    assert observer.names(worker).count("left") == 1


def test_resigningAfterDetachingChangesNothing() -> None:
    """
    A worker that was detached has nothing to resign from.
    """
    worker = MemoryWorker()
    queue = queueOf(worker)
    resultOf(queue.detachWorker(worker))
    worker.resign()
    assert len(queue) == 0


def test_resigningWithinRun() -> None:
    """
    A worker may find out while it is given a task that it can serve no more.
    """

    class Failing(MemoryWorker):
        def run(self, task: ITask) -> Any:
            super().run(task)
            self.resign()
            return fail(KeyError("gone"))

    queue = queueOf(Failing())
    heard = [Heard(queue.call(f)) for _ in range(2)]
    assert [outcome(each) for each in heard] == ["WorkerLost", "waits"]
    queue.attachWorker(Instant())
    assert outcome(heard[1]) == "value"


def test_resigningAsItIsHired() -> None:
    """
    A worker that resigns before it was hired is not: the one who hires hears.
    """

    class Unwilling(MemoryWorker):
        def setResignator(self, callableObject: Any) -> None:
            callableObject()

    queue = queueOf()
    observer = RecordingObserver()
    queue.addObserver(observer)
    queue.update(f)
    assert isinstance(errorOf(queue.attachWorker(Unwilling())), WorkerLost)
    assert [event[0] for event in observer.events] == ["hired", "left"]
    assert len(queue) == 0


def test_resigningWhileItStops() -> None:
    """
    A worker that is lost while it ends its tasks is gone, and who waits hears,
    though its stop() never fires.
    """

    class Lost(MemoryWorker):
        def stop(self) -> Any:
            return Deferred()

    worker = Lost()
    queue = queueOf(worker)
    heard = Heard(queue.call(f))
    detached, shut = Heard(queue.detachWorker(1)), Heard(queue.shutdown())
    assert (detached.results, shut.results) == ([], [])
    worker.resign()
    assert outcome(heard) == "WorkerLost"
    assert [task.d for task in detached.result] == [heard.d]
    assert shut.result is None


def prefetched(count: int, **kw: Any) -> tuple[TaskQueue, MemoryPrefetcher, list[Heard]]:
    """
    A worker that has tasks lined up, of which it has begun the first.
    """
    worker = MemoryPrefetcher(window=count)
    queue = queueOf(worker)
    heard = [Heard(queue.call(f, n, **kw)) for n in range(count)]
    worker.begin(worker.tasks[0])
    return queue, worker, heard


def test_whatHasNotBegunIsRunElsewhere() -> None:
    """
    Of a worker that is lost only the begun task fails; the others are run by
    another one, in their order, and their callers never know.
    """
    queue, worker, heard = prefetched(4)
    other = Instant()
    worker.resign()
    queue.attachWorker(other)
    assert [outcome(each) for each in heard] == ["WorkerLost", "value", "value", "value"]
    assert other.ran == [(1,), (2,), (3,)]


def test_whatHasNotBegunKeepsItsOrderAtIdleWorkers() -> None:
    """
    Where others wait already, they are given the oldest first.
    """
    queue, worker, _ = prefetched(4)
    other = Instant()
    queue.attachWorker(other)
    worker.resign()
    assert other.ran == [(1,), (2,), (3,)]


def test_whatIsHandedBackKeepsItsOrder() -> None:
    """
    Tasks that a worker hands back are given to idle ones, the oldest first.
    """
    queue, worker, heard = prefetched(4)
    other = Instant()
    queue.attachWorker(other)
    worker.handBack()
    assert other.ran == [(1,), (2,), (3,)]
    assert [outcome(each) for each in heard] == ["waits", "value", "value", "value"]


def test_whatIsHandedBackGoesBeforeTheQueue() -> None:
    """
    Tasks that are handed back go before those that were queued after them.
    """
    queue, worker, _ = prefetched(3)
    queue.call(f, 3)
    queue.call(f, 4)
    worker.resign()
    other = Instant()
    queue.attachWorker(other)
    assert other.ran == [(1,), (2,), (3,), (4,)]


def test_whatIsHandedBackAtOnceIsGivenToAnIdleWorker() -> None:
    """
    A task that a worker hands back within run() does not wait for another task to come.
    """
    queue = TaskQueue(Refuser(), Instant())
    assert resultOf(queue.call(len, "given back")) == ("given back",)


def test_handingBackWhatIsNotHeldDoesNothing() -> None:
    """
    A task that has ended, or is elsewhere, is not queued again.
    """
    queue, worker, heard = prefetched(2)
    lined = worker.tasks[1]
    heard[1].d.cancel()
    worker.handBack(lined)
    assert queue.statistics().queued == 0
    assert outcome(heard[1]) == "CancelledError"


def test_whatIsHandedBackAtTheEndIsToldOf() -> None:
    """
    During shutdown nobody runs a task that is handed back: it fails by name.
    """
    queue, worker, heard = prefetched(2)
    queue.shutdown()
    worker.handBack(worker.tasks[1])
    assert outcome(heard[1]) == "QueueRunError"


def test_crashAtTheEndLosesWhatHasNotBegun() -> None:
    """
    During shutdown the loss says that the task had not begun.
    """
    queue, worker, heard = prefetched(2, retries=3)
    queue.shutdown()
    worker.resign()
    assert [(outcome(each), each.error.begun) for each in heard] == [
        ("WorkerLost", True),
        ("WorkerLost", False),
    ]


def test_lostTasksAreToldOf() -> None:
    """
    Observers hear of each task that another worker gets, and not twice that it
    was queued.
    """
    worker = MemoryPrefetcher()
    queue = queueOf(worker)
    observer = RecordingObserver()
    queue.addObserver(observer)
    queue.call(f)
    task = worker.tasks[0]
    worker.resign()
    queue.attachWorker(Instant())
    assert observer.names(task) == ["queued", "lost", "begun", "done"]


# Retries --------------------------------------------------------------------------


def test_retriesAreCapped() -> None:
    """
    A task that kills one worker after the other is given up after its retries.
    """
    queue = queueOf()
    heard = Heard(queue.call(f, retries=2))
    seen = []
    for _ in range(4):
        worker = MemoryWorker()
        queue.attachWorker(worker)
        worker.resign()
        seen.append(outcome(heard))
    assert seen == ["waits", "waits", "WorkerLost", "WorkerLost"]


def test_retryGoesBeforeTheQueue() -> None:
    """
    A task that is tried again has its old place.
    """
    worker, other = MemoryWorker(), Instant()
    queue = queueOf(worker)
    for n in range(3):
        queue.call(f, n, retries=1)
    worker.resign()
    queue.attachWorker(other)
    assert other.ran == [(0,), (1,), (2,)]


def test_lateAnswerOfALostWorkerIsIgnored() -> None:
    """
    Nothing that a worker says of a task after its loss is believed.
    """
    worker, other = MemoryWorker(), MemoryWorker()
    queue = queueOf(worker)
    heard = Heard(queue.call(f, retries=1))
    late = worker.tasks[0]
    worker.resign()
    late.callback("late")
    queue.attachWorker(other)
    late.errback(Failure(KeyError("late")))
    other.end(other.tasks[0], "right")
    assert heard.result == "right"


def test_observersSeeOneTaskThroughItsRetries() -> None:
    """
    A call is queued once and done once, however often it is tried.
    """
    worker = MemoryWorker()
    queue = queueOf(worker)
    observer = RecordingObserver()
    queue.addObserver(observer)
    heard = Heard(queue.call(f, retries=1))
    worker.resign()
    queue.attachWorker(Instant())
    events = [event[0] for event in observer.events if event[0] not in ("hired", "left")]
    assert events == ["queued", "begun", "lost", "begun", "done"]
    assert outcome(heard) == "value"


# Cancelling and timeouts ---------------------------------------------------------


def test_cancelBeforeThereIsAWorker() -> None:
    """
    A task that is cancelled before anybody could run it is never run.
    """
    queue, worker = queueOf(), Instant()
    heard = Heard(queue.call(f))
    heard.d.cancel()
    queue.attachWorker(worker)
    assert (outcome(heard), worker.ran) == ("CancelledError", [])


def test_cancelAmongOthers() -> None:
    """
    A task that is cancelled leaves the others where they are.
    """
    queue, worker = queueOf(), Instant()
    heard = [Heard(queue.call(f, n)) for n in range(3)]
    heard[1].d.cancel()
    assert queue.statistics().queued == 2
    queue.attachWorker(worker)
    assert worker.ran == [(0,), (2,)]


def test_cancelWhileItRuns() -> None:
    """
    A task that runs errbacks at once; a worker that cannot end it keeps its slot
    busy until it is over.
    """
    worker = MemoryWorker()
    queue = queueOf(worker)
    heard = [Heard(queue.call(f, n)) for n in range(2)]
    running = worker.tasks[0]
    heard[0].d.cancel()
    heard[0].d.cancel()
    assert (outcome(heard[0]), called(worker)) == ("CancelledError", [(0,)])
    worker.end(running, "late")
    assert called(worker) == [(1,)]
    assert outcome(heard[0]) == "CancelledError"


def test_cancelWhileItRunsIsToldToTheWorker() -> None:
    """
    A worker that can end a run is asked to, once.
    """
    worker = Canceller()
    queue = queueOf(worker)
    d = queue.call(f)
    d.addErrback(lambda failure: failure.trap(CancelledError))
    d.cancel()
    d.cancel()
    assert worker.cancelled == worker.tasks


def test_cancelBeforeItHasBegunIsToldToTheWorker() -> None:
    """
    A task that is lined up at a worker ends, and is not run there.
    """
    _, worker, heard = prefetched(2)
    lined = worker.tasks[1]
    heard[1].d.cancel()
    assert worker.cancelled == [lined]
    assert outcome(heard[1]) == "CancelledError"


def test_workerThatFailsToCancelHarmsNobody() -> None:
    """
    What cancel() raises, an exit too, is logged; the task has ended anyway.
    """
    queue = queueOf(Canceller(SystemExit("cancel")))
    heard = Heard(queue.call(f))
    with readingLogs() as logs:
        heard.d.cancel()
    assert outcome(heard) == "CancelledError"
    assert len(logs.errors()) == 1


def test_cancelInItsOwnCallback() -> None:
    """
    A task that is cancelled by what it led to has ended already.
    """
    queue = queueOf(Instant())
    d = queue.call(f, 1)
    d.addCallback(lambda value: (d.cancel(), value)[1])
    assert resultOf(d) == (1,)


def test_cancelAnotherInACallback() -> None:
    """
    The callback of one task may cancel the next, which is then not run.
    """
    worker = MemoryWorker()
    queue = queueOf(worker)
    first = queue.call(f, 1)
    second = Heard(queue.call(f, 2))
    first.addCallback(lambda _: second.d.cancel())
    worker.end(worker.tasks[0])
    assert outcome(second) == "CancelledError"
    assert worker.tasks == []


@pytest.mark.parametrize("kind", [MemoryWorker, Canceller])
def test_timeoutEndsTheTask(kind: Any) -> None:
    """
    A run that takes too long fails; the worker is asked to end it where it can,
    and is busy until it has.
    """
    worker = kind()
    clock = Clock()
    queue = TaskQueue(worker, reactor=clock)
    heard = Heard(queue.call(f, 0, timeout=2))
    queue.call(f, 1)
    running = worker.tasks[0]
    clock.advance(2)
    assert isinstance(heard.error, TaskTimedOut)
    assert called(worker) == [(0,)]
    worker.end(running)
    assert called(worker) == [(1,)]
    if kind is Canceller:
        assert worker.cancelled == [running]


def test_timeoutDoesNotCountWaiting() -> None:
    """
    The time in the queue, and lined up at a worker, is not the run's.
    """
    clock = Clock()
    worker = MemoryPrefetcher()
    queue = TaskQueue(reactor=clock)
    heard = Heard(queue.call(f, timeout=2))
    clock.advance(10)
    queue.attachWorker(worker)
    clock.advance(10)
    worker.begin(worker.tasks[0])
    clock.advance(1.9)
    assert outcome(heard) == "waits"
    clock.advance(0.1)
    assert outcome(heard) == "TaskTimedOut"


def test_timeoutLeavesNoTimer() -> None:
    """
    A task that ends in time leaves nothing behind in the reactor.
    """
    clock = Clock()
    queue = TaskQueue(Instant(), reactor=clock)
    queue.call(f, timeout=2)
    assert clock.getDelayedCalls() == []


# Detaching --------------------------------------------------------------------------


def test_detachedWorkerEndsWhatItHas() -> None:
    """
    A worker that is let go ends its tasks, gets no other one, and leaves then.
    """
    worker = MemoryWorker()
    queue = queueOf(worker)
    heard = [Heard(queue.call(f, n)) for n in range(2)]
    detached = Heard(queue.detachWorker(worker))
    assert (detached.results, len(queue)) == ([], 1)
    worker.end(worker.tasks[0])
    assert detached.result == []
    assert [outcome(each) for each in heard] == ["value", "waits"]
    assert len(queue) == 0


def test_detachedWorkerHasSoMuchTime() -> None:
    """
    After the queue's timeout it crashes; its tasks are lost, and returned.
    """
    clock = Clock()
    queue = TaskQueue(MemoryWorker(), timeout=5, reactor=clock)
    heard = Heard(queue.call(f))
    detached = Heard(queue.detachWorker(1))
    clock.advance(4.9)
    assert detached.results == []
    clock.advance(0.1)
    assert [task.d for task in detached.result] == [heard.d]
    assert "did not stop in time" in str(heard.error)


def test_detachingCanBeCutShort() -> None:
    """
    Cancelling the Deferred of a detachment, or detaching with C{crash}, ends it.
    """
    for end in (lambda queue, d: d.cancel(), lambda queue, d: queue.detachWorker(1, crash=True)):
        queue = queueOf(MemoryWorker())
        heard = Heard(queue.call(f))
        d = queue.detachWorker(1)
        end(queue, d)
        assert outcome(heard) == "WorkerLost"
        assert len(queue) == 0
        Heard(d).result  # noqa: B018 - that it fired once is looked at


def test_detachCrashLosesWhatItHas() -> None:
    """
    A worker that is made to crash goes at once.
    """
    queue, worker, heard = prefetched(2)
    left = resultOf(queue.detachWorker(worker, crash=True))
    assert [task.d for task in left] == [heard[0].d]
    assert [outcome(each) for each in heard] == ["WorkerLost", "waits"]
    assert worker.tasks == []


def test_detachReassignGivesAwayWhatHasNotBegun() -> None:
    """
    With C{reassign} others get what is lined up, and the rest is ended.
    """
    queue, worker, heard = prefetched(3)
    other = Instant()
    queue.attachWorker(other)
    detached = Heard(queue.detachWorker(worker, reassign=True))
    assert other.ran == [(1,), (2,)]
    worker.end(worker.tasks[0])
    assert detached.result == []
    assert [outcome(each) for each in heard] == ["value"] * 3


def test_detachReassignOfAWorkerThatStops() -> None:
    """
    A worker that is leaving already, and hands over all that it waited for, is gone.
    """
    queue, worker, heard = prefetched(3)
    worker.end(worker.tasks[0])
    leaving = [Heard(queue.detachWorker(worker, reassign=again)) for again in (False, True)]
    assert [each.result for each in leaving] == [[], []]
    queue.attachWorker(Instant())
    assert all(each.results for each in heard)


def test_detachReassignOfAWorkerThatTakesOneAtATime() -> None:
    """
    A worker that lines nothing up has nothing to give away.
    """
    worker = MemoryWorker()
    queue = queueOf(worker)
    heard = Heard(queue.call(f))
    queue.detachWorker(worker, reassign=True)
    worker.end(worker.tasks[0])
    assert outcome(heard) == "value"


def test_detachReassignSurvivesAWorkerThatCannot() -> None:
    """
    A worker that fails to hand over what is lined up ends it itself.
    """

    class Clinging(MemoryPrefetcher):
        def takeBack(self) -> Any:
            raise KeyError("mine")

    worker = Clinging()
    queue = queueOf(worker)
    queue.call(f)
    with readingLogs() as logs:
        detached = Heard(queue.detachWorker(worker, reassign=True))
    worker.end(worker.tasks[0])
    assert detached.result == []
    assert len(logs.errors()) == 1


def test_detachCrashReassignGivesAwayAll() -> None:
    """
    With both, others run everything that it leaves, begun or not, in order; what
    it says later is not believed.
    """
    queue, worker, heard = prefetched(3)
    begun = worker.tasks[0]
    other = MemoryWorker(window=3)
    queue.attachWorker(other)
    assert resultOf(queue.detachWorker(worker, crash=True, reassign=True)) == []
    begun.callback("late")
    assert called(other) == [(0,), (1,), (2,)]
    for task in list(other.tasks):
        other.end(task, "right")
    assert [each.result for each in heard] == ["right"] * 3


def test_detachWhatIsNotThere() -> None:
    """
    A worker that is not attached leaves no tasks.
    """
    queue = queueOf(MemoryWorker())
    for unknown in (MemoryWorker(), 2, True, None):
        assert resultOf(queue.detachWorker(unknown)) == []
    assert len(queue) == 1


def test_detachedWorkerFailsItsUpdates() -> None:
    """
    An update that a worker has not begun as it is let go fails, by name.
    """
    worker = MemoryWorker()
    queue = queueOf(worker)
    queue.call(f)
    updated = queue.update(f, 7)
    queue.detachWorker(worker)
    error = errorOf(updated)
    assert (type(error), error.call, error.begun) == (WorkerLost, "f(7)", False)


def test_callbackOfAFailedUpdateMayCrashTheWorker() -> None:
    """
    What is asked for in the middle of a detachment finds the worker leaving.
    """
    worker, other = MemoryWorker(), MemoryWorker()
    queue = queueOf(worker, other)
    Heard(queue.call(f))
    queue.call(f)
    Heard(queue.update(f))
    task = next(iter(queue._registry.tasks(held=False)))
    task.d.addBoth(lambda _: queue.detachWorker(worker, crash=True) and None)
    assert len(resultOf(queue.detachWorker(worker))) == 1
    third = Heard(queue.call(f, 3))
    other.end(other.tasks[0])
    other.end(other.tasks[0])
    assert called(other) == [(3,)]
    assert outcome(third) == "waits"


# Qualification ---------------------------------------------------------------------


def test_qualifiedWorkerGetsWhatWaited() -> None:
    """
    What waited for a qualified worker runs as soon as there is one.
    """
    worker = Instant()
    queue = queueOf(worker)
    heard = Heard(queue.call(f, series="new"))
    assert outcome(heard) == "waits"
    queue.qualifyWorker(worker, "new")
    assert outcome(heard) == "value"
    queue.qualifyWorker(1, "new")
    assert worker.iQualified == ["new"]


def test_qualifyingOneThatLeavesHarmsNoOther() -> None:
    """
    A worker that leaves is given nothing, however it is qualified, and those of
    its kind go on.
    """
    leaving, staying = MemoryWorker(), MemoryWorker()
    queue = queueOf(leaving, staying)
    queue.call(f)
    queue.call(f)
    queue.detachWorker(leaving)
    queue.qualifyWorker(leaving, "new")
    waiting = Heard(queue.call(f, 3))
    unqualified = Heard(queue.call(f, series="new"))
    staying.end(staying.tasks[0])
    assert called(staying) == [(3,)]
    assert (outcome(waiting), outcome(unqualified)) == ("waits", "waits")
    assert queue.statistics().unqualified == 1


def starter() -> Instant:
    """
    A worker for one series, whose tasks' callbacks run within the queue's loop.
    """
    worker = Instant()
    worker.iQualified.append("start")
    return worker


def test_idleWorkerIsNotPassedOver() -> None:
    """
    Where a worker was woken for one task and took another, one that waits is
    woken for the first.
    """
    both, one = MemoryWorker(["a", "b"]), MemoryWorker(["a"])
    queue = queueOf(both, one)

    def more(_: Any) -> None:
        queue.call(f, "a", series="a")
        queue.call(f, "b", series="b", doNext=True)

    queue.call(f, series="start").addCallback(more)
    queue.attachWorker(starter())
    assert called(both) == [("b",)]
    assert called(one) == [("a",)]


def test_idleWorkerTakesWhatAnotherWasWokenFor() -> None:
    """
    Where a worker was woken and has left before it looked, another one is woken.
    """
    first, second = MemoryWorker(["a"]), MemoryWorker(["a"])
    queue = queueOf(first, second)

    def more(_: Any) -> None:
        queue.call(f, "a", series="a")
        first.resign()

    queue.call(f, series="start").addCallback(more)
    queue.attachWorker(starter())
    assert called(second) == [("a",)]


# Updates and hiring ------------------------------------------------------------------


def test_laterHireRunsTheUpdatesFirst() -> None:
    """
    A worker that is hired later runs the updates, one after the other, before
    what is queued.
    """
    worker = MemoryWorker(window=9)
    queue = queueOf()
    for n in range(3):
        queue.update(f, "update", n)
    queue.call(f, "call")
    hired = Heard(queue.attachWorker(worker))
    seen = []
    while worker.tasks:
        seen.append(called(worker))
        assert hired.results == ([] if len(seen) < 4 else [1])
        worker.end(worker.tasks[0])
    assert seen == [[("update", 0)], [("update", 1)], [("update", 2)], [("call",)]]


@pytest.mark.parametrize("ephemeral", [False, True])
def test_updateMadeWhileAWorkerIsPreparedComesLast(ephemeral: bool) -> None:
    """
    An update that is made while a worker runs earlier ones comes after them, one after
    the other, there and on every later hire.
    """
    queue = queueOf()
    for n in range(3):
        queue.update(f, n)
    ran = []
    for _ in range(2):
        worker = MemoryWorker(window=9)
        hired = Heard(queue.attachWorker(worker))
        if not ran:
            worker.end(worker.tasks[0])
            ran.append((0,))
            updated = Heard(queue.update(f, 3, ephemeral=ephemeral))
        while worker.tasks:
            assert len(worker.tasks) == 1
            ran += called(worker)
            worker.end(worker.tasks[0], "ran")
        assert hired.result == worker.ID
    assert updated.result == ["ran"]
    assert ran == [(0,), (1,), (2,), (3,), (0,), (1,), (2,), *([] if ephemeral else [(3,)])]


def test_failedUpdateLeavesNoneBehind() -> None:
    """
    Where an update fails as a worker is hired, those behind it end without being run,
    and nothing of them is logged.
    """
    worker = MemoryWorker(window=9)
    queue = queueOf()
    for n in range(3):
        queue.update(f, n)
    with readingLogs() as logs:
        hired = queue.attachWorker(worker)
        worker.fail(worker.tasks[0], KeyError("update"))
        assert isinstance(errorOf(hired), KeyError)
        gc.collect()
    assert logs.errors() == []
    assert (worker.tasks, queue._registry.load()) == ([], 0)


def test_hireWhoseUpdateFailsIsNotHired() -> None:
    """
    A worker whose update fails is gone, and the one who hires hears why.
    """
    worker = MemoryWorker()
    queue = queueOf()
    queue.update(f)
    hired = queue.attachWorker(worker)
    worker.fail(worker.tasks[0], KeyError("update"))
    assert isinstance(errorOf(hired), KeyError)
    assert len(queue) == 0


@pytest.mark.parametrize("how", ["detach", "crash", "resign", "shutdown"])
@pytest.mark.parametrize("updates", [1, 2])
def test_hireThatLeavesWhileItIsUpdated(how: str, updates: int) -> None:
    """
    A worker that leaves in the middle of its updates is not hired, and no update
    is left without an outcome.
    """
    worker = MemoryWorker()
    queue = queueOf()
    loads = RecordingConsumer()
    queue.subscribe(loads)
    for _ in range(updates):
        queue.update(f)
    hired = Heard(queue.attachWorker(worker))
    if how == "resign":
        worker.resign()
    elif how == "shutdown":
        queue.shutdown()
    else:
        queue.detachWorker(worker, crash=how == "crash")
    for task in list(worker.tasks):
        worker.end(task)
    assert isinstance(hired.error, WorkerLost)
    assert loads.items[-1] == 0
    assert len(queue) == 0


def test_hiringCanBeCancelled() -> None:
    """
    Who hires may think better of it while the worker is updated.
    """
    queue = queueOf()
    queue.update(f)
    hired = queue.attachWorker(MemoryWorker())
    hired.cancel()
    assert isinstance(errorOf(hired), CancelledError)
    assert len(queue) == 0


def test_queueThatIsDroppedWhileItHiresIsQuiet() -> None:
    """
    A queue that nobody holds any more goes away, whatever it was about to do.
    """
    gc.collect()
    queue = queueOf()
    queue.update(f)
    queue.attachWorker(MemoryWorker())
    with readingLogs() as logs:
        del queue
        gc.collect()
    assert logs.errors() == []


def test_updateOfPresentWorkersGoesBeforeTheQueue() -> None:
    """
    An update runs once on each present worker, before what is queued, and its
    results come in the order of the workers.
    """
    workers = [MemoryWorker(), MemoryWorker()]
    queue = queueOf(*workers)
    for n in range(4):
        queue.call(f, n)
    updated = Heard(queue.update(f, "update"))
    for worker in reversed(workers):
        worker.end(worker.tasks[0])
        assert called(worker) == [("update",)]
        worker.end(worker.tasks[0], worker.ID)
    assert updated.result == [1, 2]


def test_cancelledUpdateIsNotRun() -> None:
    """
    An update that is cancelled before a worker came to it is not run there.
    """
    worker = MemoryWorker()
    queue = queueOf(worker)
    queue.call(f)
    updated = queue.update(f, "update")
    updated.cancel()
    assert isinstance(errorOf(updated), CancelledError)
    worker.end(worker.tasks[0])
    assert worker.tasks == []


def test_lostUpdateIsNotTriedElsewhere() -> None:
    """
    What was meant for one worker is not run by another, begun or not.
    """
    worker, other = MemoryPrefetcher(), Instant()
    queue = queueOf(worker, other)
    updated = queue.update(f)
    worker.resign()
    assert isinstance(errorOf(updated), WorkerLost)
    assert other.ran == [()]


def test_updateThatIsHandedBackIsMadeThereAfterAll() -> None:
    """
    A worker that hands back an update, as something else runs for long, is given it again.
    """
    worker = MemoryPrefetcher(window=2)
    queue = queueOf(worker)
    queue.call(f)
    worker.begin(worker.tasks[0])
    updated = Heard(queue.update(f, "update", ephemeral=True))
    worker.handBack()
    assert updated.results == []
    while worker.step() is not None:
        pass
    assert updated.result == [("update",)]


@pytest.mark.parametrize("leaves", [True, False])
def test_updateThatIsHandedBackAtTheEndFails(leaves: bool) -> None:
    """
    An update that a worker hands back as it leaves, or as its queue ends, says so.
    """
    worker = MemoryPrefetcher(window=2)
    queue = queueOf(worker)
    updated = Heard(queue.update(f, ephemeral=True))
    if leaves:
        queue.detachWorker(worker)
    else:
        queue.shutdown()
    worker.handBack()
    assert isinstance(updated.error, WorkerLost if leaves else QueueRunError)


# The loop -----------------------------------------------------------------------------


class CountingClock(Clock):
    """
    Counts how often it is asked for a turn.
    """

    asked = 0

    def callLater(self, when: float, what: Any, *args: Any, **kw: Any) -> Any:
        self.asked += 1
        return super().callLater(when, what, *args, **kw)


@pytest.mark.bulk
def test_manyTasksThatEndAtOnceDoNotRecurse() -> None:
    """
    100,000 queued tasks that end at once are done, and the reactor has its turns.
    """
    clock = CountingClock()
    queue, worker = TaskQueue(reactor=clock), Instant()
    for n in range(100_000):
        queue.call(f, n)
    queue.attachWorker(worker)
    clock.advance(0)
    assert worker.ran == [(n,) for n in range(100_000)]
    assert queue.statistics().done == 100_000
    assert clock.asked > 1


@pytest.mark.bulk
@pytest.mark.parametrize("options", [{}, {"doNext": True}, {"doLast": True}])
def test_longChainsDoNotRecurse(options: Any) -> None:
    """
    Tasks whose callbacks make the next call, 20,000 times, need no deep stack.
    """
    clock = Clock()
    queue = TaskQueue(reactor=clock)
    count = 0

    def more(_: Any) -> None:
        nonlocal count
        count += 1
        if count < 20_000:
            queue.call(f, **options).addCallback(more)

    queue.call(f, **options).addCallback(more)
    queue.attachWorker(Instant())
    while clock.getDelayedCalls():
        clock.advance(0)
    assert count == 20_000


@pytest.mark.bulk
def test_shutdownWhileTheLoopIsPostponed() -> None:
    """
    A queue that gave the reactor a turn can be shut down in it.
    """
    clock = Clock()
    queue = TaskQueue(reactor=clock)
    heard = [Heard(queue.call(f)) for _ in range(50_000)]
    queue.attachWorker(Instant())
    assert clock.getDelayedCalls()
    assert queue.shutdown().called
    clock.advance(0)
    assert {outcome(each) for each in heard} == {"value", "QueueRunError"}


def test_allCrashBeforeOneIsAwaited() -> None:
    """
    Where workers do not stop in time, all crash at once, and the queue has ended when
    nothing is left of any.
    """
    workers = [Lingerer(), Lingerer()]
    clock = Clock()
    queue = TaskQueue(*workers, reactor=clock, timeout=1)
    lost = [Heard(queue.call(abs, number)) for number in range(2)]
    ended = Heard(queue.shutdown())
    clock.advance(1)
    assert [worker.crashes for worker in workers] == [1, 1]
    assert all(isinstance(each.error, WorkerLost) for each in lost)
    workers[1].whenGone.callback(None)
    assert ended.results == []
    workers[0].whenGone.callback(None)
    assert ended.result is None
