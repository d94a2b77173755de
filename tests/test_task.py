"""
What L{asynqueue.scheduling.task} promises.
"""

from __future__ import annotations

from contextvars import ContextVar
from types import SimpleNamespace
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from asynqueue.errors import ImplementationError, TaskTimedOut, WorkerLost
from asynqueue.scheduling.observers import Observers
from asynqueue.scheduling.options import CallOptions
from asynqueue.scheduling.task import ASSIGNED, BEGUN, ENDED, QUEUED, Task
from tests.doubles import Heard, errorOf, readingLogs, resultOf

whose: ContextVar[str] = ContextVar("whose", default="nobody's")


class Owner:
    """
    Notes what a task tells, and tries it again if it may.
    """

    def __init__(self, tellsBegun: bool = False, retrying: bool = True) -> None:
        self.observers = Observers()
        if tellsBegun:
            self.observers.taskBegun = lambda task, worker: self.told.append("begun")
        self.clock = Clock()
        self.told: list[Any] = []
        self.successors: list[Task] = []
        self._retrying = retrying

    def taskEnded(self, task: Task, outcome: Any, failed: bool, counts: bool = True) -> None:
        self.told.append("ended")

    def taskGivenUp(self, task: Task) -> None:
        self.told.append("given up")

    def taskLost(self, task: Task) -> None:
        self.told.append("lost")

    def retryTask(self, task: Task) -> bool:
        if self._retrying:
            self.successors.append(task.nextAttempt(spent=1))
        return self._retrying

    def startTimer(self, seconds: float, f: Any) -> Any:
        return self.clock.callLater(seconds, f)


def newTask(owner: Any = None, args: Any = (1,), number: int = 1, **options: Any) -> Task:
    """
    A task that is queued.
    """
    return Task(owner or Owner(), abs, args, {}, CallOptions(**options), number)


def runningTask(owner: Any = None, **options: Any) -> Task:
    """
    A task that a worker runs.
    """
    task = newTask(owner, **options)
    task.state = ASSIGNED
    task.holder = "somebody"
    task.begin()
    return task


def lost() -> Failure:
    return Failure(WorkerLost("abs(1)", "Worker 1"))


def test_taskEndsWithItsValue() -> None:
    """
    The value of a task is that of its Deferred, and the owner hears before.
    """
    owner = Owner()
    task = newTask(owner)
    task.d.addCallback(lambda value: (value, list(owner.told)))
    task.callback(7)
    assert task.ended
    assert resultOf(task.d) == (7, ["ended"])


def test_secondEndIsIgnored() -> None:
    """
    Only the first end counts, whatever it is.
    """
    owner = Owner()
    for first in ("callback", "errback"):
        task = newTask(owner)
        heard = Heard(task.d)
        getattr(task, first)(Failure(KeyError()) if first == "errback" else 1)
        task.callback(2)
        task.errback(Failure(ValueError()))
        task.cancel()
        assert len(heard.results) == 1
    assert owner.told == ["ended", "ended"]


def test_deferredForValueIsWaitedFor() -> None:
    """
    A task that is ended with a Deferred ends as that fires.
    """
    task, failing = newTask(), newTask()
    later: Deferred[int] = Deferred()
    sooner: Deferred[int] = Deferred()
    task.callback(later)
    failing.callback(sooner)
    assert not task.ended
    later.callback(3)
    sooner.errback(KeyError("no"))
    assert resultOf(task.d) == 3
    assert isinstance(errorOf(failing.d), KeyError)


@pytest.mark.parametrize("wrong", [None, "failed", KeyError("x")])
def test_errbackWithNoFailureFailsAllTheSame(wrong: Any) -> None:
    """
    A worker that ends a task with what is no Failure is told of by name.
    """
    task = newTask()
    task.errback(wrong)
    error = errorOf(task.d)
    assert isinstance(error, ImplementationError)
    assert repr(wrong) in str(error)


def test_tasksOrderByBandNicenessAndNumber() -> None:
    """
    The lowest priority goes first: band, then niceness, then the order of calls.
    """
    tasks = [
        newTask(number=6, doNext=True),
        newTask(number=7, doNext=True),
        newTask(number=5, niceness=-3),
        newTask(number=2),
        newTask(number=4),
        newTask(number=1, niceness=9),
        newTask(number=3, doLast=True),
    ]
    mixed = [tasks[place] for place in (4, 0, 6, 2, 5, 1, 3)]
    assert sorted(mixed) == tasks


def test_taskShowsItsCall() -> None:
    """
    The call, its series and its state can be read.
    """
    task = newTask(series="s")
    assert task.callTuple == (abs, (1,), {})
    assert task.series == "s"
    assert repr(task) == "<Task 1 queued: abs(1)>"


def test_contextIsThatOfTheCaller() -> None:
    """
    What the caller set is seen in the task's context, also by another attempt.
    """
    token = whose.set("mine")
    task = newTask()
    whose.reset(token)
    assert task.context.run(whose.get) == "mine"
    assert task.nextAttempt().context.run(whose.get) == "mine"


def test_attemptsDoNotShareTheirContext() -> None:
    """
    An attempt runs while the thread of an earlier one is still in its context, and sees
    what the caller set, not what that one changed.
    """
    token = whose.set("mine")
    task = newTask()
    whose.reset(token)
    seen: list[str] = []

    def first() -> None:
        whose.set("changed")
        seen.append(task.nextAttempt().context.run(whose.get))

    task.context.run(first)
    assert seen == ["mine"]
    assert task.context is task.context


def test_taskIsWatchedForTimeoutOrObservers() -> None:
    """
    The moment a run begins matters where there is a timeout or an observer.
    """
    assert not newTask().watched
    assert newTask(timeout=1).watched
    assert newTask(Owner(tellsBegun=True)).watched


def test_beginIsToldOnce() -> None:
    """
    A run begins once, and only where a worker has the task.
    """
    owner = Owner(tellsBegun=True)
    task = newTask(owner)
    task.begin()
    assert task.state is QUEUED
    task.state = ASSIGNED
    task.holder = SimpleNamespace(worker=None)
    task.begin()
    task.begin()
    assert task.state is BEGUN
    assert owner.told == ["begun"]


def test_timeoutCountsFromTheBeginning() -> None:
    """
    A task that runs for too long fails with TaskTimedOut, and is given up.
    """
    owner = Owner()
    task = runningTask(owner, timeout=3)
    owner.clock.advance(2.9)
    assert not task.ended
    owner.clock.advance(0.1)
    error = errorOf(task.d)
    assert isinstance(error, TaskTimedOut)
    assert (error.call, error.seconds) == ("abs(1)", 3)
    assert owner.told == ["ended", "given up"]


@pytest.mark.parametrize(
    "end",
    [
        lambda task: task.callback(1),
        lambda task: task.errback(Failure(KeyError())),
        lambda task: task.cancel(),
        lambda task: task.putBack(),
        lambda task: task.nextAttempt(),
    ],
    ids=["callback", "errback", "cancel", "putBack", "nextAttempt"],
)
def test_timerEndsWithTheRun(end: Any) -> None:
    """
    However a run is over, no timer is left.
    """
    owner = Owner()
    task = runningTask(owner, timeout=3)
    task.d.addErrback(lambda failure: None)
    end(task)
    assert not owner.clock.getDelayedCalls()


def test_cancelledTaskIsGivenUpOnlyIfItRuns() -> None:
    """
    A worker is asked to end a run only where there is one.
    """
    queued, running = Owner(), Owner()
    assert isinstance(cancelled(newTask(queued)), CancelledError)
    assert isinstance(cancelled(runningTask(running)), CancelledError)
    assert queued.told == ["ended"]
    assert running.told == ["ended", "given up"]


def cancelled(task: Task) -> Any:
    task.d.cancel()
    assert task.ended
    return errorOf(task.d)


def test_runMayCancelItselfAsItIsGivenUp() -> None:
    """
    A run that is being ended, and has the same Deferred cancelled, ends it once.
    """

    class Nested(Owner):
        def taskGivenUp(self, task: Task) -> None:
            task.d.cancel()

    owner = Nested()
    task = runningTask(owner, timeout=1)
    heard = Heard(task.d)
    owner.clock.advance(1)
    assert isinstance(heard.error, CancelledError)


def test_lostTaskIsTriedAgainSoOften() -> None:
    """
    C{retries} counts the further attempts, and the last loss is the outcome. They are attempts
    of the same call, and are numbered.
    """
    owner = Owner()
    task = newTask(owner, retries=2)
    heard = Heard(task.d)
    task.errback(lost())
    owner.successors[0].errback(lost())
    assert heard.results == []
    owner.successors[1].errback(lost())
    assert isinstance(heard.error, WorkerLost)
    assert [(each.ID, each.attempt) for each in (task, *owner.successors)] == [
        (task.ID, attempt) for attempt in (1, 2, 3)
    ]


def test_nothingOfAnEarlierAttemptIsBelieved() -> None:
    """
    A late answer, failure or cancellation of an earlier attempt has no effect.
    """
    owner = Owner()
    task = newTask(owner, retries=1)
    heard = Heard(task.d)
    task.errback(lost())
    task.callback("late")
    task.errback(Failure(KeyError()))
    task.cancel()
    task.begin()
    assert (heard.results, task.state) == ([], ENDED)
    owner.successors[0].callback("right")
    assert heard.result == "right"


def test_laterAttemptIsCancelledByTheSameDeferred() -> None:
    """
    Whoever holds the Deferred of the call cancels the attempt that is alive.
    """
    owner = Owner()
    task = newTask(owner, retries=1)
    task.errback(lost())
    assert isinstance(cancelledBy(task, owner.successors[0]), CancelledError)


def cancelledBy(task: Task, later: Task) -> Any:
    task.d.cancel()
    assert later.ended
    return errorOf(task.d)


def test_otherFailuresAreNotTriedAgain() -> None:
    """
    C{retries} is for lost workers, not for errors of the call.
    """
    owner = Owner()
    task = newTask(owner, retries=5)
    task.errback(Failure(KeyError("x")))
    assert isinstance(errorOf(task.d), KeyError)
    assert owner.successors == []


def test_lostTaskFailsWhereItMayNotBeQueued() -> None:
    """
    Where the owner takes no more tasks, the loss is the outcome at once.
    """
    task = newTask(Owner(retrying=False), retries=5)
    task.errback(lost())
    assert isinstance(errorOf(task.d), WorkerLost)


def test_withoutReturnFailureErrorsAreLogged() -> None:
    """
    An error that shall not be returned is logged, and the result is None.
    """
    task = newTask(returnFailure=False)
    with readingLogs() as logs:
        task.errback(Failure(KeyError("x")))
    assert resultOf(task.d) is None
    assert [type(error) for error in logs.errors()] == [KeyError]
    assert logs.said() == ["abs(1) failed"]


def test_cancelErrbacksAlsoWithoutReturnFailure() -> None:
    """
    Who cancels hears so.
    """
    assert isinstance(cancelled(newTask(returnFailure=False)), CancelledError)


def test_taskThatIsPutBackWaitsAgain() -> None:
    """
    A task that was not begun is as it was before it was assigned.
    """
    task = newTask()
    task.state = ASSIGNED
    task.holder = "somebody"
    task.putBack()
    assert (task.state, task.holder, task.ended) == (QUEUED, None, False)


def test_lateCancelOfItsDeferredDoesNothing() -> None:
    """
    A Deferred that has fired has no task to be cancelled.
    """
    owner = Owner()
    task = newTask(owner)
    task.callback(1)
    task.d.cancel()
    assert task.d.task is None
    assert owner.told == ["ended"]
