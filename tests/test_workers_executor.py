"""
L{ExecutorWorker}, over threads and over executors of this module.
"""

from __future__ import annotations

import asyncio
import pickle
import sys
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from functools import partial
from threading import Event
from types import SimpleNamespace
from typing import Any

import cloudpickle
import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from asynqueue import ExecutorWorker, TaskQueue, WorkerLost
from asynqueue.calling import perform, performNamed
from asynqueue.errors import Unsendable
from asynqueue.outcome import Returned
from asynqueue.scheduling.options import CallOptions
from asynqueue.testing import MemoryTask, WorkerCheck, workerChecks
from asynqueue.workers.executorcalls import executorWorkers
from asynqueue.workers.outbox import GATHER_SECONDS
from asynqueue.workers.stale import STALE_SECONDS
from tests.doubles import Heard, errorOf, readingLogs, resultOf

# Seconds after which a test has failed. None waits so long.
PATIENCE = 10

ONE = ThreadPoolExecutor(1)
THREE = ThreadPoolExecutor(3)

CHECKS = [
    *workerChecks(lambda: ExecutorWorker(ONE), place="thread"),
    *workerChecks(lambda: ExecutorWorker(THREE), place="thread", slots=3),
]


@pytest.fixture(scope="module", autouse=True)
def executors() -> Iterator[None]:
    """
    The executors of the checks end with this module.
    """
    yield
    ONE.shutdown()
    THREE.shutdown()


@pytest.mark.parametrize("check", CHECKS, ids=str)
def test_conforms(check: WorkerCheck) -> Deferred[None]:
    """
    The worker keeps what IWorker promises.
    """
    return check()


class ManualExecutor(Executor):
    """
    Runs what the test wants to have run, in the test's thread. The calls count
    as sent to another process.

    @ivar futures: what was submitted, the oldest first.
    """

    def __init__(self, workers: int = 1) -> None:
        self.futures: list[Future[Any]] = []
        self.refusal: Exception | None = None
        self._max_workers = workers
        self._calls: dict[Future[Any], Any] = {}
        self._shutdown = False

    def submit(self, fn: Any, /, *args: Any, **kw: Any) -> Future[Any]:
        """
        Note a call.
        """
        if self.refusal is not None:
            raise self.refusal
        if self._shutdown:
            raise RuntimeError("cannot schedule new futures after shutdown")
        future: Future[Any] = Future()
        self._calls[future] = partial(fn, *args, **kw)
        self.futures.append(future)
        return future

    def step(self) -> None:
        """
        Run the oldest call.
        """
        future = self.futures.pop(0)
        if future.set_running_or_notify_cancel():
            future.set_result(self._calls[future]())

    def begin(self) -> None:
        """
        The oldest call begins, and does not end.
        """
        self.futures[0].set_running_or_notify_cancel()

    def fail(self, error: BaseException) -> None:
        """
        The executor itself fails the oldest call.
        """
        self.futures.pop(0).set_exception(error)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """
        Take no more calls.
        """
        self._shutdown = True
        if cancel_futures:
            for future in self.futures:
                future.cancel()

    def resize(self, workers: int) -> None:
        """
        Have so many workers from now on.
        """
        self._max_workers = workers


class Cluster(ManualExecutor):
    """
    Looks like Dask's executor: has a client, and futures that never tell that
    they run.
    """

    def __init__(self, **identity: Any) -> None:
        super().__init__()
        del self._max_workers
        self._client = self
        self._scheduler_identity = identity

    def begin(self) -> None:
        """
        Dask tells nobody.
        """


class Turns(Clock):
    """
    A clock whose calls from threads are made at once: there are no threads.
    """

    def callFromThread(self, f: Any, *args: Any) -> None:
        """
        Call it in the next turn.
        """
        self.callLater(0, f, *args)


def makeQueue(*executors: Executor, **kw: Any) -> tuple[TaskQueue, Turns]:
    """
    A queue with a worker for each executor, on a clock.
    """
    clock = Turns()
    workers = [ExecutorWorker(executor, reactor=clock) for executor in executors]
    return TaskQueue(*workers, reactor=clock, **kw), clock


def test_takesAnExecutorOnly() -> None:
    """
    What is no executor is refused.
    """
    with pytest.raises(TypeError):
        ExecutorWorker("four processes")  # type: ignore[arg-type]


def test_shutDownByItsOwner() -> None:
    """
    When the executor takes no more, the worker leaves, and another has the task.
    """
    gone, other = ManualExecutor(), ManualExecutor()
    gone.shutdown()
    queue, clock = makeQueue(gone)
    d = queue.call(int, "7")
    assert len(queue) == 0
    queue.attachWorker(ExecutorWorker(other, reactor=clock))
    other.step()
    clock.advance(0)
    assert resultOf(d) == 7


def test_callsCancelledByItsOwner() -> None:
    """
    Calls that the owner of the executor cancels have not begun: another worker
    has them, in their order.
    """
    first, second = ManualExecutor(2), ManualExecutor(2)
    queue, clock = makeQueue(first)
    results = [queue.call(int, number) for number in range(2)]
    first.shutdown(cancel_futures=True)
    clock.advance(0)
    assert len(queue) == 0
    queue.attachWorker(ExecutorWorker(second, reactor=clock))
    second.step()
    second.step()
    clock.advance(0)
    assert [resultOf(d) for d in results] == [0, 1]


def test_noConnection() -> None:
    """
    Whatever an executor raises as it is given a call, it took nothing.
    """
    executor, other = ManualExecutor(), ManualExecutor()
    executor.refusal = OSError("no connection to the cluster")
    queue, clock = makeQueue(executor)
    d = queue.call(int, "7")
    queue.attachWorker(ExecutorWorker(other, reactor=clock))
    other.step()
    clock.advance(0)
    assert resultOf(d) == 7


def test_anExecutorThatRefusesEachCall() -> None:
    """
    Others have the calls, it is given none for a while, C{why} says what it said, and it is
    tried again; that is logged once.
    """
    executor, other = ManualExecutor(), ManualExecutor()
    executor.refusal = OSError("no room")
    queue, clock = makeQueue(executor, other)
    queue.qualifyWorker(1, "disk")
    with readingLogs() as logs:
        heard = [Heard(queue.call(int, n)) for n in range(5)]
        disk = Heard(queue.call(int, 5, series="disk"))
        for _ in range(5):
            other.step()
            clock.advance(0)
        clock.pump([1, 1, 1])
    assert [each.result for each in heard] == [*range(5)]
    reason = "its executor takes no calls: OSError: no room"
    assert queue.why(disk.d).endswith(f"ExecutorWorker 1 can run nothing for now: {reason}")
    assert logs.said() == [f"ExecutorWorker 1: {reason}"]
    executor.refusal = None
    clock.advance(2)
    executor.step()
    clock.advance(0)
    assert disk.result == 5
    assert resultOf(queue.shutdown()) is None
    assert clock.getDelayedCalls() == []


def test_withoutHopeOfAnExecutor() -> None:
    """
    After half a minute what no other worker may run fails, and says why.
    """
    executor = ManualExecutor()
    executor.refusal = OSError("no room")
    queue, clock = makeQueue(executor)
    with readingLogs():
        heard = Heard(queue.call(int, 5))
        clock.pump(60 * [1])
    assert isinstance(heard.error, WorkerLost)
    assert not heard.error.begun
    assert "no room" in str(heard.error)


@pytest.mark.parametrize("hasBegun", [True, False])
def test_whatAPoolHasThoughItRefusedIt(hasBegun: bool) -> None:
    """
    A process pool notes a call before it starts a process for it: that it may make when it
    has one, so it is withdrawn; if it has begun, it is lost and not made again.
    """

    class Noting(ManualExecutor):
        def submit(self, fn: Any, /, *args: Any, **kw: Any) -> Future[Any]:
            future = super().submit(fn, *args, **kw)
            item = SimpleNamespace(args=args, future=future)
            self._pending_work_items = {0: SimpleNamespace(args=(), future=None), 1: item}
            if hasBegun:
                self.begin()
            raise OSError("no process")

    pool, other = Noting(), ManualExecutor()
    queue, clock = makeQueue(pool, other)
    with readingLogs():
        heard = Heard(queue.call(int, 5))
    if hasBegun:
        assert isinstance(heard.error, WorkerLost)
        assert heard.error.begun
        assert other.futures == []
    else:
        assert pool.futures[0].cancelled()
        other.step()
        clock.advance(0)
        assert heard.result == 5


class Crowded(ThreadPoolExecutor):
    """
    A pool of threads that has no room for another one while C{kept} is a list. As the
    standard library's does then, it keeps what it refuses.
    """

    kept: list[Any] | None = None

    def submit(self, *args: Any, **kw: Any) -> Future[Any]:
        """
        Make a call; or keep it, and refuse it.
        """
        if self.kept is not None:
            self.kept.append(args)
            raise RuntimeError("can't start new thread")
        return super().submit(*args, **kw)


def test_whatAThreadPoolHasThoughItRefusedIt() -> None:
    """
    So does a pool of threads, of which one makes the call later: it makes none that another
    worker has by then.
    """
    made: list[int] = []
    gate = Event()
    with Crowded(2) as pool:
        other = ManualExecutor()
        clock = Turns()
        queue = TaskQueue(ExecutorWorker(pool, reactor=clock), reactor=clock)
        queue.call(gate.wait, 30)
        kept = pool.kept = []
        with readingLogs():
            heard = Heard(queue.call(made.append, 1))
        pool.kept = None
        queue.attachWorker(ExecutorWorker(other, reactor=clock))
        other.step()
        clock.advance(0)
        assert heard.result is None
        gate.set()
        (call,) = kept
        pool.submit(*call).result(30)
    assert len(other.futures) == 0
    assert made == []


def test_aCallGivenAgainBeforeItsFirstEndIsHeardOf() -> None:
    """
    What is heard of a call that was taken back does not end the next attempt.
    """
    executor = ManualExecutor(2)
    clock = Turns()
    worker, task = ExecutorWorker(executor, reactor=clock), MemoryTask(int, "7")
    worker.setReturner(lambda tasks: None)
    worker.run(task)
    assert list(worker.takeBack()) == [task]
    worker.run(task)
    clock.advance(0)
    assert worker.loss == ""
    executor.step()
    executor.step()
    clock.advance(0)
    assert resultOf(task.d) == 7


def test_brokenIsTold() -> None:
    """
    The statistics of a worker whose executor has broken name the state, and the reason.
    """
    executor, clock, task = ManualExecutor(), Turns(), MemoryTask(int)
    worker = ExecutorWorker(executor, reactor=clock)
    worker.run(task)
    assert worker.statistics().held == 1
    with readingLogs():
        executor.fail(BrokenExecutor("a process died"))
        clock.advance(0)
    assert isinstance(errorOf(task.d), WorkerLost)
    told = worker.statistics()
    assert (told.state, told.held, told.ended) == ("broken", 0, 1)
    assert "a process died" in told.fault


def test_broken() -> None:
    """
    What is in the hands of an executor that breaks is lost, or tried again; the
    worker leaves, and the queue goes on.
    """
    broken, other = ManualExecutor(2), ManualExecutor()
    queue, clock = makeQueue(broken)
    lost, again = queue.call(int), queue.call(int, "7", retries=1)
    for _ in range(2):
        broken.fail(BrokenExecutor("a process died"))
    clock.advance(0)
    assert isinstance(errorOf(lost), WorkerLost)
    assert len(queue) == 0
    assert "ExecutorWorker 1 has resigned: its executor broke" in queue.why(again)
    queue.attachWorker(ExecutorWorker(other, reactor=clock))
    other.step()
    clock.advance(0)
    assert resultOf(again) == 7


def test_aBrokenExecutorIsLoggedOnce() -> None:
    """
    That an executor broke is said once, however many calls it had.
    """
    broken = ManualExecutor(2)
    queue, clock = makeQueue(broken)
    heard = [queue.call(int), queue.call(int)]
    with readingLogs() as logs:
        for _ in range(2):
            broken.fail(BrokenExecutor("a process died"))
        clock.advance(0)
    assert all(isinstance(errorOf(d), WorkerLost) for d in heard)
    assert sum("its executor broke" in text for text in logs.said()) == 1


async def increased(number: int) -> int:
    """
    One more, a little later.
    """
    await asyncio.sleep(0)
    return number + 1


async def leaving() -> None:
    """
    End the program.
    """
    sys.exit(3)


def test_whatWasNotAwaitedIsRefused() -> None:
    """
    An argument that another process cannot wait for is refused, and the error tells which.
    """
    executor = ManualExecutor()
    queue, _ = makeQueue(executor)
    error = errorOf(queue.call(max, 1, key=Deferred()))
    assert isinstance(error, Unsendable)
    assert "a Deferred in the argument key=: await it first" in str(error)


async def makingIterators() -> Iterator[int]:
    """
    What a thread can give.
    """
    return iter([1, 2])


def test_coroutinesOfProcesses() -> None:
    """
    A coroutine function is run where the executor calls it, and its outcome is that of the
    call, an exit included.
    """
    executor = ManualExecutor(3)
    queue, clock = makeQueue(executor)
    results = [queue.call(increased, 7), queue.call(increased, "x"), queue.call(leaving)]
    for _ in range(3):
        executor.step()
    clock.advance(0)
    assert resultOf(results[0]) == 8
    assert isinstance(errorOf(results[1]), TypeError)
    assert isinstance(errorOf(results[2]), SystemExit)


@ensureDeferred
async def test_coroutinesOfThreads() -> None:
    """
    So it is in a thread, where the iterator that a coroutine gives is streamed.
    """
    queue = TaskQueue(ExecutorWorker(ONE))
    assert await queue.call(increased, 7) == 8
    with pytest.raises(SystemExit):
        await queue.call(leaving)
    assert [item async for item in await queue.call(makingIterators)] == [1, 2]
    await queue.shutdown()


def test_failureOfTheExecutor() -> None:
    """
    An executor that loses one call, and is not broken, costs that call only.
    """
    executor = ManualExecutor()
    queue, clock = makeQueue(executor)
    lost = queue.call(int)
    executor.fail(RuntimeError("4 workers died"))
    clock.advance(0)
    error = errorOf(lost)
    assert isinstance(error, WorkerLost)
    assert "4 workers died" in str(error)
    d = queue.call(int, "7")
    executor.step()
    clock.advance(0)
    assert resultOf(d) == 7


def test_windowFollowsTheExecutor() -> None:
    """
    The worker holds as many calls as the executor has workers, and follows when
    these come and go.
    """
    executor = ManualExecutor(2)
    queue, clock = makeQueue(executor)
    for _ in range(50):
        queue.call(int)
    assert len(executor.futures) == 2
    executor.resize(5)
    executor.step()
    clock.advance(0)
    assert len(executor.futures) == 5


@pytest.mark.parametrize(
    ("identity", "workers"),
    [
        ({"total_threads": 6, "workers": {}}, 6),
        ({"workers": {"a": {"nthreads": 2}, "b": {"nthreads": 3}}}, 5),
        ({"total_threads": 0}, 1),
        ({}, 1),
    ],
)
def test_workersOfACluster(identity: dict[str, Any], workers: int) -> None:
    """
    Dask's client knows how many threads its cluster has; at least one is hoped
    for.
    """
    assert executorWorkers(Cluster(**identity)) == workers


def test_clusterNeverTellsWhatHasBegun() -> None:
    """
    Where a call can be cancelled at any time, one that was sent may have begun:
    it is not run again.
    """
    executor = Cluster(total_threads=1)
    queue, _ = makeQueue(executor, ManualExecutor())
    d = queue.call(int)
    queue.detachWorker(1, crash=True)
    assert isinstance(errorOf(d), WorkerLost)


def test_crashHandsOverWhatHasNotBegun() -> None:
    """
    Of the calls in an executor's queue, a crash loses only those that run.
    """
    executor, other = ManualExecutor(2), ManualExecutor(2)
    queue, clock = makeQueue(executor)
    running, waiting = queue.call(int), queue.call(int, "7")
    executor.begin()
    queue.attachWorker(ExecutorWorker(other, reactor=clock))
    queue.detachWorker(1, crash=True)
    assert isinstance(errorOf(running), WorkerLost)
    other.step()
    clock.advance(0)
    assert resultOf(waiting) == 7


def test_reassigned() -> None:
    """
    A worker that is let go hands over what has not begun, and ends the rest.
    """
    executor, other = ManualExecutor(2), ManualExecutor(2)
    queue, clock = makeQueue(executor)
    running, waiting = queue.call(int), queue.call(int, "7")
    executor.begin()
    queue.attachWorker(ExecutorWorker(other, reactor=clock))
    left = queue.detachWorker(1, reassign=True)
    other.step()
    clock.advance(0)
    assert resultOf(waiting) == 7
    executor.futures.pop(0).set_result(cloudpickle.dumps(Returned("ended")))
    clock.advance(0)
    assert (resultOf(running), resultOf(left)) == ("ended", [])


def test_nothingIsSentAhead() -> None:
    """
    However short calls are, no more are sent than the executor has workers: so
    a timeout counts from when there is a place for the call.
    """
    executor = ManualExecutor()
    queue, clock = makeQueue(executor)
    for _ in range(20):
        queue.call(int)
        executor.step()
        clock.advance(0)
    queue.call(int)
    late = queue.call(int, timeout=1)
    assert len(executor.futures) == 1
    clock.advance(100)
    executor.step()
    clock.advance(0)
    executor.step()
    clock.advance(0)
    assert resultOf(late) == 0


class ManualThreads(ManualExecutor, ThreadPoolExecutor):
    """
    Counts as threads of this process.
    """


def test_threadsAreGivenWorkAhead() -> None:
    """
    Threads are given more calls than they run, while these are short.
    """
    executor = ManualThreads()
    queue, clock = makeQueue(executor)
    heard = [Heard(queue.call(int, n)) for n in range(50)]
    assert len(executor.futures) == 1
    executor.step()
    clock.advance(0)
    assert len(executor.futures) == 49
    for _ in range(49):
        executor.step()
    clock.advance(0)
    assert [each.result for each in heard] == [*range(50)]
    assert resultOf(queue.shutdown()) is None


def test_whatDoesNotMoveIsTakenBackFromThreads() -> None:
    """
    If a call turns out to be long, others have those that threads were given ahead of it (G6).
    """
    executor, other = ManualThreads(), ManualExecutor()
    queue, clock = makeQueue(executor)
    queue.call(int)
    executor.step()
    clock.advance(0)
    running, waiting = queue.call(int), queue.call(int, "7")
    executor.begin()
    queue.attachWorker(ExecutorWorker(other, reactor=clock))
    assert other.futures == []
    clock.advance(STALE_SECONDS)
    other.step()
    clock.advance(0)
    assert resultOf(waiting) == 7
    assert not running.called


def bareWorker(executor: Executor, **kw: Any) -> tuple[ExecutorWorker, Turns, list[Any]]:
    """
    A worker, its clock, and what it hands back.
    """
    clock, back = Turns(), list[Any]()
    worker = ExecutorWorker(executor, reactor=clock, **kw)
    worker.setReturner(back.extend)
    return worker, clock, back


def test_moreIsSentAheadIfAsked() -> None:
    """
    An executor is given as many calls ahead as is asked for, and none while nothing moves.
    """
    executor = ManualExecutor(2)
    worker, clock, back = bareWorker(executor, ahead=3)
    tasks = [MemoryTask(int) for _ in range(5)]
    readies = [worker.run(task) for task in tasks]
    assert [ready.called for ready in readies] == [True] * 4 + [False]
    for future in executor.futures[:2]:
        future.set_running_or_notify_cancel()
    clock.advance(STALE_SECONDS)
    assert back == tasks[2:]
    assert not readies[-1].called
    executor.futures.pop(0).set_result(cloudpickle.dumps(Returned(1)))
    clock.advance(0)
    assert readies[-1].called
    assert [worker.run(task).called for task in back] == [True, True, True]


def test_endsOfWhatIsAheadAreTakenTogether() -> None:
    """
    While the executor has more calls than its workers run, the ends of calls are gathered for
    a moment; and no longer than until it has half of that.
    """
    executor = ManualExecutor()
    clock = Turns()
    queue = TaskQueue(ExecutorWorker(executor, ahead=4, reactor=clock), reactor=clock)
    heard = [Heard(queue.call(int, n)) for n in range(6)]

    def results() -> list[Any]:
        return [each.result for each in heard if each.d.called]

    executor.step()
    clock.advance(0)
    assert results() == [0]
    executor.step()
    clock.advance(0)
    assert results() == [0]
    clock.advance(GATHER_SECONDS)
    assert results() == [0, 1]
    executor.step()
    clock.advance(0)
    assert results() == [0, 1, 2]


def test_endsAreTakenAtOnceWhereNothingIsAhead() -> None:
    """
    With no more calls than workers, nothing is put off: a worker of the executor rests.
    """
    executor = ManualExecutor(3)
    worker, clock, _ = bareWorker(executor, ahead=2)
    tasks = [MemoryTask(int) for _ in range(3)]
    for task in tasks:
        worker.run(task)
    for task in tasks:
        executor.step()
        clock.advance(0)
        assert resultOf(task.d) == 0


def test_aCrashPutsNothingOff() -> None:
    """
    Nothing is due after a crash, also if the ends of calls were being gathered; and those of a
    worker that begins anew are heard.
    """
    executor = ManualExecutor()
    worker, clock, _ = bareWorker(executor, ahead=8)
    for _ in range(8):
        worker.run(MemoryTask(int))
    for _ in range(2):
        executor.step()
        clock.advance(0)
    for future in executor.futures:
        future.set_running_or_notify_cancel()
    worker.crash()
    assert clock.getDelayedCalls() == []
    executor.futures.clear()
    worker.setResignator(lambda: None)
    task = MemoryTask(int)
    worker.run(task)
    executor.step()
    clock.advance(0)
    assert resultOf(task.d) == 0


def test_aheadIsANumber() -> None:
    """
    How many calls are sent ahead is a whole number, and not less than none.
    """
    with pytest.raises(ValueError):
        ExecutorWorker(ManualExecutor(), ahead=-1)


def test_nextGoesBeforeWhatWasSentAhead() -> None:
    """
    A task with doNext goes before those that the executor has not begun, and after others of
    the kind.
    """
    order: list[str] = []
    executor = ManualThreads()
    worker, _, _ = bareWorker(executor)
    # Calls are long: what is lined up is more than an urgent one waits for.
    worker._tasks.window.measured(1, 1.0)
    next_ = CallOptions(doNext=True)
    for name in ("running", "last"):
        worker.run(MemoryTask(order.append, name))
    executor.begin()
    for name in ("first", "second"):
        worker.run(MemoryTask(order.append, name, options=next_))
    executor.futures.pop(0)
    while executor.futures:
        executor.step()
    assert order == ["first", "second", "last"]


@pytest.mark.parametrize("hasQueue", [True, False])
def test_whatIsTakenBackForAnUrgentCallIsNotLost(hasQueue: bool) -> None:
    """
    If the executor takes no more calls as it is given some again, after an urgent one, others
    have all of them; without a queue they are lost, and none had begun.
    """
    executor = ManualExecutor()
    worker, _, back = bareWorker(executor, ahead=3)
    if not hasQueue:
        worker._tasks.returner = None
    tasks = [MemoryTask(int) for _ in range(3)]
    for task in tasks:
        worker.run(task)
    executor.begin()
    urgent = MemoryTask(int, options=CallOptions(doNext=True))
    executor.shutdown()
    with readingLogs():
        assert not worker.run(urgent).called
    if hasQueue:
        assert back == [urgent, *tasks[1:]]
    else:
        errors = [errorOf(task.d) for task in (urgent, *tasks[1:])]
        assert [(type(error), error.begun) for error in errors] == [(WorkerLost, False)] * 3


def test_whatHasItsOutcomeIsNotBegunByThreads() -> None:
    """
    A thread does not make the call of a task that has its outcome by then.
    """
    made: list[int] = []
    executor = ManualThreads()
    worker, clock, _ = bareWorker(executor)
    task = MemoryTask(made.append, 1)
    worker.run(task)
    task.callback("cancelled")
    executor.step()
    clock.advance(0)
    assert (made, worker.statistics().held) == ([], 0)


def test_outcomeThatCannotBeRead() -> None:
    """
    A result that cannot be unpickled here fails its call only.
    """
    executor = ManualExecutor()
    queue, clock = makeQueue(executor)
    d = queue.call(int)
    executor.begin()
    executor.futures.pop(0).set_result(b"this is no pickle")
    clock.advance(0)
    assert isinstance(errorOf(d), pickle.UnpicklingError)


@pytest.mark.parametrize("given", [cloudpickle.dumps("something else"), (1, 2), None], ids=repr)
def test_outcomeThatIsNone(given: Any) -> None:
    """
    An executor that gives something else than the outcome costs the task, and no
    Deferred waits for ever.
    """
    executor = ManualExecutor()
    queue, clock = makeQueue(executor)
    d = queue.call(int)
    executor.begin()
    executor.futures.pop(0).set_result(given)
    clock.advance(0)
    assert "no outcome" in str(errorOf(d))


def submittedFor(f: Any, *args: Any, **kw: Any) -> tuple[Any, ...]:
    """
    What an executor is to call for a call, and the arguments.
    """
    executor = ManualExecutor()
    queue, _ = makeQueue(executor)
    queue.call(f, *args, **kw)
    (submitted,) = executor._calls.values()
    return submitted.func, *submitted.args


def test_plainCallsArePickledByTheExecutor() -> None:
    """
    A function that has a name is called by that, if no argument needs to be pickled with care.
    """
    submitted = submittedFor(resultOf, 7, b"x", None)
    assert submitted[:-1] == (performNamed, resultOf.__module__, "resultOf", (7, b"x", None))


@pytest.mark.parametrize(
    ("f", "args", "kw"),
    [
        (lambda: 7, (), {}),
        (resultOf, ([7],), {}),
        (resultOf, (), {"d": 7}),
        (int, ("7",), {}),
    ],
)
def test_otherCallsAreWholePickles(f: Any, args: tuple[Any, ...], kw: dict[str, Any]) -> None:
    """
    All else that executors are given is bytes: an executor that cannot read them again would end.
    """
    performs, packed, number = submittedFor(f, *args, **kw)
    assert (performs, type(packed), type(number)) == (perform, bytes, str)


def test_equalCallsAreDifferent() -> None:
    """
    Equal calls are submitted with different arguments, so that no executor
    takes them for one.
    """
    executor = ManualExecutor(2)
    queue, _ = makeQueue(executor)
    queue.call(int)
    queue.call(int)
    one, other = (executor._calls[future].args for future in executor.futures)
    assert one != other


@pytest.mark.parametrize("owned", [False, True])
def test_shutsItsExecutorDownIfAsked(owned: bool) -> None:
    """
    The executor is shut down with the worker if so asked, and else not.
    """
    executor, clock = ManualExecutor(), Turns()
    queue = TaskQueue(ExecutorWorker(executor, shutdown=owned, reactor=clock), reactor=clock)
    assert queue.shutdown().called
    assert executor._shutdown is owned


def test_beginsAnewAfterACrash() -> None:
    """
    A worker that has crashed serves again when it is hired again: another crash hands over
    what it has then.
    """
    executor, clock = ManualExecutor(2), Turns()
    worker = ExecutorWorker(executor, reactor=clock)
    worker.run(MemoryTask(int))
    assert len(worker.crash()) == 1
    worker.setResignator(lambda: None)
    assert worker.statistics().state == "serving"
    running, waiting = MemoryTask(int), MemoryTask(int)
    worker.run(running)
    executor.futures.pop(0)
    executor.begin()
    worker.run(waiting)
    assert set(worker.crash()) == {running, waiting}
    assert list(worker.takeBack()) == [waiting]


def test_withoutAQueue() -> None:
    """
    A bare worker whose executor takes nothing ends the task with C{WorkerLost}.
    """
    executor, clock = ManualExecutor(), Turns()
    executor.shutdown()
    worker = ExecutorWorker(executor, reactor=clock)
    for _ in range(2):
        task = MemoryTask(int)
        assert not worker.run(task).called
        assert isinstance(errorOf(task.d), WorkerLost)


@ensureDeferred
async def test_crashClosesGeneratorsThoughAllThreadsHang() -> None:
    """
    A generator is closed as its worker crashes, also where no thread of the executor comes
    to do that.
    """
    closed, begun, released = Event(), Event(), Event()

    def numbers() -> Iterator[int]:
        try:
            yield from range(1000)
        finally:
            closed.set()

    def hang() -> None:
        begun.set()
        assert released.wait(PATIENCE)

    with ThreadPoolExecutor(1) as executor:
        worker = ExecutorWorker(executor)
        queue = TaskQueue(worker)
        _deferator = await queue.call(numbers)
        hanging = queue.call(hang)
        assert begun.wait(PATIENCE)
        queue.detachWorker(worker, crash=True)
        assert closed.wait(PATIENCE)
        assert not released.is_set()
        released.set()
        with pytest.raises(WorkerLost):
            await hanging
        await queue.shutdown()


@ensureDeferred
async def test_executorGoneUnderAnIterator() -> None:
    """
    An iterator whose thread executor was shut down fails, and does not hang.
    """
    executor = ThreadPoolExecutor(1)
    queue = TaskQueue(ExecutorWorker(executor))
    deferator = await queue.call(iter, range(1000))
    executor.shutdown()
    with pytest.raises(RuntimeError):
        async for _ in deferator:
            pass
    await queue.shutdown()


@ensureDeferred
async def test_crashEndsIterators() -> None:
    """
    An iterator that is open when its worker crashes fails with C{WorkerLost}.
    """
    with ThreadPoolExecutor(1) as executor:
        queue = TaskQueue(ExecutorWorker(executor))
        deferator = await queue.call(iter, range(1000))
        await queue.detachWorker(1, crash=True)
        with pytest.raises(WorkerLost):
            async for _ in deferator:
                pass
        await queue.shutdown()
