"""
L{ThreadWorker}.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from queue import SimpleQueue
from threading import Event, Thread
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from asynqueue import TaskQueue, ThreadWorker, WorkerLost
from asynqueue.scheduling.options import CallOptions
from asynqueue.testing import (
    MemoryPrefetcher,
    MemoryTask,
    RecordingConsumer,
    WorkerCheck,
    advanceUntil,
    workerChecks,
)
from asynqueue.workers.held import IDLE_SECONDS
from tests.doubles import Heard, readingLogs

# Seconds after which a test has failed. None waits so long.
PATIENCE = 30

CHECKS = [
    *workerChecks(ThreadWorker, place="thread"),
    *workerChecks(lambda: ThreadWorker(threads=3), place="thread", slots=3),
]


@pytest.mark.parametrize("check", CHECKS, ids=str)
def test_conforms(check: WorkerCheck) -> Deferred[None]:
    """
    The worker keeps what IWorker promises.
    """
    return check()


class ThreadClock(Clock):
    """
    A clock that threads can call, and no thread pool: what they want to have
    called is called by the test.

    @ivar wakeups: how often a thread woke the reactor.
    """

    def __init__(self) -> None:
        super().__init__()
        self.wakeups = 0
        self._calls: SimpleQueue[Any] = SimpleQueue()

    def callFromThread(self, f: Any, *args: Any) -> None:
        """
        Note what to call. May be called from any thread.
        """
        self.wakeups += 1
        self._calls.put((f, args))

    def turn(self) -> None:
        """
        Wait for the next call from a thread, and make it.
        """
        f, args = self._calls.get(timeout=PATIENCE)
        f(*args)

    def turnUntil(self, happened: Any) -> None:
        """
        Make calls from threads until something has happened.
        """
        while not happened():
            self.turn()


class Hold:
    """
    Holds a thread until the test lets it go.
    """

    def __init__(self) -> None:
        self.begun = Event()
        self.released = Event()

    def __call__(self) -> None:
        self.begun.set()
        assert self.released.wait(PATIENCE)


@pytest.fixture
def clock() -> ThreadClock:
    """
    The reactor of a worker.
    """
    return ThreadClock()


@pytest.fixture
def hold() -> Iterator[Hold]:
    """
    What holds a thread, which is let go after the test.
    """
    hold = Hold()
    yield hold
    hold.released.set()


def threadsOf(worker: ThreadWorker) -> list[Thread]:
    """
    The threads of a worker.
    """
    return [t for t in threading.enumerate() if t.name.startswith(f"asynqueue worker {worker.ID} ")]


def warmUp(worker: ThreadWorker, clock: ThreadClock, count: int = 50) -> None:
    """
    Have a worker learn that tasks are short.
    """
    tasks = [MemoryTask(int) for _ in range(count)]
    for task in tasks:
        ready = worker.run(task)
        clock.turnUntil(lambda task=task, ready=ready: task.ended and ready.called)


def test_threadsIsOneOrMore() -> None:
    """
    A worker that could run nothing is refused.
    """
    with pytest.raises(ValueError):
        ThreadWorker(threads=0)


def test_oneWakeUpForManyResults(clock: ThreadClock) -> None:
    """
    A hundred results that the reactor has not looked at are one wake-up.
    """
    worker, last = ThreadWorker(reactor=clock), Event()
    tasks = [MemoryTask(int) for _ in range(100)]
    for task in tasks:
        worker.run(task)
    worker.run(MemoryTask(last.set))
    assert last.wait(PATIENCE)
    assert clock.wakeups == 1
    clock.turn()
    assert all(task.ended for task in tasks)
    worker.crash()


def test_ownThreadsThatEnd(clock: ThreadClock) -> None:
    """
    Tasks run in threads of the worker's own, never in the reactor's pool; they
    are started when needed, and are gone after C{stop}.
    """
    worker = ThreadWorker(threads=3, reactor=clock)
    worker.ID = 12345
    assert threadsOf(worker) == []
    task = MemoryTask(threading.current_thread)
    worker.run(task)
    clock.turnUntil(lambda: task.ended)
    threads = threadsOf(worker)
    assert threads == [task.d.result]
    stopped = worker.stop()
    clock.turnUntil(lambda: stopped.called)
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()


def test_windowGrowsWithShortTasks(clock: ThreadClock, hold: Hold) -> None:
    """
    After short tasks the worker takes more than it has threads; before any, as
    many.
    """
    worker = ThreadWorker(threads=2, reactor=clock)
    held = [MemoryTask(hold), MemoryTask(hold)]
    assert [worker.run(task).called for task in held] == [True, False]
    hold.released.set()
    clock.turnUntil(lambda: all(task.ended for task in held))
    warmUp(worker, clock)
    hold.released.clear()
    assert all(worker.run(MemoryTask(hold)).called for _ in range(5))
    worker.crash()


def test_nextGoesBeforeWhatIsLinedUp(clock: ThreadClock, hold: Hold) -> None:
    """
    A task with doNext runs before those that were sent ahead.
    """
    worker, order = ThreadWorker(reactor=clock), []
    worker.run(MemoryTask(hold))
    assert hold.begun.wait(PATIENCE)
    last = MemoryTask(order.append, "sent ahead")
    worker.run(last)
    worker.run(MemoryTask(order.append, "next", options=CallOptions(doNext=True)))
    hold.released.set()
    clock.turnUntil(lambda: last.ended)
    assert order == ["next", "sent ahead"]
    worker.crash()


def test_stuckTasksAreHandedBack(clock: ThreadClock, hold: Hold) -> None:
    """
    Tasks behind one that turns out long are run by an idle worker, in order.
    """
    busy, idle = ThreadWorker(reactor=clock), ThreadWorker(reactor=clock)
    queue = TaskQueue(busy, reactor=clock)
    for _ in range(50):
        d = queue.call(int)
        clock.turnUntil(lambda d=d: d.called)
    queue.call(hold)
    order: list[int] = []
    done = [queue.call(order.append, number) for number in range(5)]
    assert queue.statistics().workers[0].running == 6
    queue.attachWorker(idle)
    assert hold.begun.wait(PATIENCE)
    advanceUntil(clock, lambda: queue.statistics().workers[0].running == 1, step=0.01, seconds=1)
    clock.turnUntil(lambda: all(d.called for d in done))
    assert order == [0, 1, 2, 3, 4]
    hold.released.set()
    down = queue.shutdown()
    clock.turnUntil(lambda: down.called)


class Busy:
    """
    Work for a thread that is no task, as an iterator has it.
    """

    def __init__(self, hold: Hold) -> None:
        self._hold = hold

    def do(self, put: Any) -> None:
        """
        Keep the thread.
        """
        self._hold()


def test_aThreadThatHasBegunNoneOfItsTasks(clock: ThreadClock, hold: Hold) -> None:
    """
    All are handed back, and the worker is ready for others: no end of a task will say so.
    """
    worker, handed = ThreadWorker(reactor=clock), []
    warmUp(worker, clock)
    worker.setReturner(handed.extend)
    worker.submit(Busy(hold))  # type: ignore[arg-type]
    assert hold.begun.wait(PATIENCE)
    ready, given = worker.run(MemoryTask(int)), 1
    while ready.called:
        ready, given = worker.run(MemoryTask(int)), given + 1
    clock.pump([0.01] * 3)
    assert len(handed) == given
    assert ready.called
    worker.crash()


def test_nobodyElseToTakeThem(clock: ThreadClock, hold: Hold) -> None:
    """
    With a single worker that is stuck, tasks are handed back once, not to and
    fro.
    """
    handed: list[int] = []

    class Watched(ThreadWorker):
        def setReturner(self, callableObject: Any) -> None:
            def returner(tasks: Any) -> None:
                handed.append(len(tasks))
                callableObject(tasks)

            super().setReturner(returner)

    queue = TaskQueue(Watched(reactor=clock), reactor=clock)
    for _ in range(50):
        d = queue.call(int)
        clock.turnUntil(lambda d=d: d.called)
    queue.call(hold)
    done = [queue.call(int) for _ in range(5)]
    assert hold.begun.wait(PATIENCE)
    clock.pump([0.01] * 100)
    assert len(handed) <= 2
    hold.released.set()
    clock.turnUntil(lambda: all(d.called for d in done))
    down = queue.shutdown()
    clock.turnUntil(lambda: down.called)


def test_cancelledTaskKeepsItsThread(clock: ThreadClock, hold: Hold) -> None:
    """
    A cancelled task has its outcome at once, and its thread is busy until the
    function returns.
    """
    queue = TaskQueue(ThreadWorker(reactor=clock), reactor=clock)
    d = queue.call(hold)
    failures: list[Failure] = []
    d.addErrback(failures.append)
    assert hold.begun.wait(PATIENCE)
    d.cancel()
    assert failures[0].check(CancelledError)
    after = queue.call(hold.released.is_set)
    assert queue.statistics().queued == 1
    hold.released.set()
    clock.turnUntil(lambda: after.called)
    assert after.result is True
    down = queue.shutdown()
    clock.turnUntil(lambda: down.called)


def test_hungThreadDoesNotHangTheShutdown(clock: ThreadClock, hold: Hold) -> None:
    """
    A queue with a time limit is shut down though a thread hangs; its task is
    lost.
    """
    queue = TaskQueue(ThreadWorker(reactor=clock), timeout=5, reactor=clock)
    failures: list[Failure] = []
    queue.call(hold).addErrback(failures.append)
    assert hold.begun.wait(PATIENCE)
    down = queue.shutdown()
    clock.advance(4)
    assert not down.called
    clock.advance(1)
    assert down.called
    assert failures[0].check(WorkerLost)


def test_timeoutBeginsWithTheRun(clock: ThreadClock, hold: Hold) -> None:
    """
    The timeout of a task does not count the time that it was lined up.
    """
    queue = TaskQueue(ThreadWorker(reactor=clock), reactor=clock)
    for _ in range(50):
        d = queue.call(int)
        clock.turnUntil(lambda d=d: d.called)
    queue.call(hold)
    late = queue.call(int, timeout=1)
    assert hold.begun.wait(PATIENCE)
    clock.advance(10)
    hold.released.set()
    clock.turnUntil(lambda: late.called)
    assert late.result == 0
    down = queue.shutdown()
    clock.turnUntil(lambda: down.called)


def openIterator(clock: ThreadClock, iterator: Any) -> tuple[ThreadWorker, Any]:
    """
    A worker, and the Deferator of an iterator in its thread.
    """
    worker = ThreadWorker(reactor=clock)
    task = MemoryTask(lambda: iterator)
    worker.run(task)
    clock.turnUntil(lambda: task.ended)
    return worker, task.d.result


def test_stopWaitsForOpenIterators(clock: ThreadClock) -> None:
    """
    An iterator that is open when the worker stops can be taken from to its end;
    then the worker has stopped.
    """
    worker, deferator = openIterator(clock, iter(range(200)))
    stopped = worker.stop()
    assert not stopped.called
    items = []
    for d in deferator:
        clock.turnUntil(lambda d=d: d.called)
        items.append(d.result)
    assert items == list(range(200))
    clock.turnUntil(lambda: stopped.called)


def test_stopClosesIdleIterators(clock: ThreadClock) -> None:
    """
    An iterator that nobody reads is closed soon when its worker stops, and tells that it
    was lost.
    """
    closed = Event()

    def numbers() -> Iterator[int]:
        try:
            yield from range(1000)
        finally:
            closed.set()

    worker, deferator = openIterator(clock, numbers())
    stopped = worker.stop()
    clock.advance(IDLE_SECONDS)
    clock.turnUntil(lambda: stopped.called)
    assert closed.wait(PATIENCE)
    *_, last = deferator
    last.addErrback(lambda failure: failure.check(WorkerLost))
    assert last.result is WorkerLost


def test_crashClosesOpenIterators(clock: ThreadClock) -> None:
    """
    A crash ends iterators that are open, with C{WorkerLost}.
    """
    worker, deferator = openIterator(clock, iter(range(1000)))
    worker.crash()
    *_, last = deferator
    last.addErrback(lambda failure: failure.check(WorkerLost))
    assert last.result is WorkerLost


class Numbers:
    """
    A generator that tells of its end, and whose items may take their time.

    @ivar closed: is set when it was closed.
    @ivar closedIn: the thread that has closed it.
    """

    def __init__(self, slow: Hold | None = None) -> None:
        self.closed = Event()
        self.closedIn: Thread | None = None
        self._slow = slow

    def __call__(self) -> Iterator[int]:
        try:
            yield 0
            if self._slow is not None:
                self._slow()
            yield from range(1, 1000)
        finally:
            self.closedIn = threading.current_thread()
            self.closed.set()


def test_crashClosesGenerators(clock: ThreadClock) -> None:
    """
    A crash closes open generators, in the thread that they ran in.
    """
    numbers = Numbers()
    worker, _deferator = openIterator(clock, numbers())
    (thread,) = threadsOf(worker)
    worker.crash()
    assert numbers.closed.wait(PATIENCE)
    assert numbers.closedIn is thread


def test_crashClosesGeneratorsThoughAllThreadsHang(clock: ThreadClock, hold: Hold) -> None:
    """
    A crash closes an open generator also where every thread of the worker is busy with
    something else.
    """
    numbers = Numbers()
    worker, _deferator = openIterator(clock, numbers())
    worker.run(MemoryTask(hold))
    assert hold.begun.wait(PATIENCE)
    worker.crash()
    assert numbers.closed.wait(PATIENCE)
    assert not hold.released.is_set()


def test_crashInTheCodeOfAGenerator(clock: ThreadClock, hold: Hold) -> None:
    """
    A generator whose code runs in a thread as the worker crashes is closed as soon as it
    comes to its C{yield}, in that thread.
    """
    numbers, worker = Numbers(slow=hold), ThreadWorker(reactor=clock)
    task = MemoryTask(numbers)
    worker.run(task)
    clock.turn()
    assert hold.begun.wait(PATIENCE)
    # The item before that has not to wait.
    clock.advance(1)
    assert task.ended
    (thread,) = threadsOf(worker)
    worker.crash()
    assert not numbers.closed.is_set()
    hold.released.set()
    assert numbers.closed.wait(PATIENCE)
    assert numbers.closedIn is thread


def test_itemsOfAStepThatBeganLate(clock: ThreadClock, hold: Hold) -> None:
    """
    An item does not wait for the next one, also where all threads were busy for a while
    before one of them came to make it.
    """
    numbers, worker, before = Numbers(slow=hold), ThreadWorker(reactor=clock), Hold()
    task = MemoryTask(numbers)
    worker.run(task)
    worker.run(MemoryTask(before))
    assert before.begun.wait(PATIENCE)
    clock.turn()
    clock.advance(0.1)
    before.released.set()
    assert hold.begun.wait(PATIENCE)
    clock.advance(1)
    assert task.ended
    worker.crash()


def test_crashClosesWhatATaskWaitsFor(clock: ThreadClock, hold: Hold) -> None:
    """
    A crash closes a generator whose items go to a consumer, too.
    """
    numbers, consumer = Numbers(slow=hold), RecordingConsumer()
    worker = ThreadWorker(reactor=clock)
    task = MemoryTask(numbers, options=CallOptions(consumer=consumer))
    worker.run(task)
    clock.turn()
    assert hold.begun.wait(PATIENCE)
    assert worker.crash() == [task]
    hold.released.set()
    assert numbers.closed.wait(PATIENCE)


def test_threadsEndAfterACrash(clock: ThreadClock, hold: Hold) -> None:
    """
    No thread is left of a worker that has crashed and closed its iterators, nor of that
    which closed them.
    """
    numbers = Numbers()
    worker, _deferator = openIterator(clock, numbers())
    worker.ID = 54321
    worker.run(MemoryTask(hold))
    assert hold.begun.wait(PATIENCE)
    worker.crash()
    threads = threadsOf(worker)
    hold.released.set()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()


def test_generatorThatRaisesAsItIsClosed(clock: ThreadClock) -> None:
    """
    What a generator raises as it is closed is logged, and harms nothing.
    """
    tried = Event()

    def numbers() -> Iterator[int]:
        try:
            yield from range(1000)
        finally:
            tried.set()
            raise ValueError("as it was closed")

    worker, deferator = openIterator(clock, numbers())
    with readingLogs() as logs:
        deferator.stop()
        assert tried.wait(PATIENCE)
        after = MemoryTask(int)
        worker.run(after)
        clock.turnUntil(lambda: after.ended)
    assert logs.said() == ["closing an iterator failed"]
    worker.crash()


class Room:
    """
    Says whether the system has room for another thread.
    """

    def __init__(self) -> None:
        self.isThere = False
        self.asked = 0

    def start(self, thread: Thread) -> None:
        """
        Start a thread, if there is room for it.
        """
        self.asked += 1
        if not self.isThere:
            raise RuntimeError("can't start new thread")
        thread.start()


def test_withoutAThreadOthersHaveTheCalls(clock: ThreadClock) -> None:
    """
    A worker whose thread cannot be started is given nothing until it can: others have what it
    was given, and C{why} says what it fails by. It tries again by itself.
    """
    room = Room()
    worker = ThreadWorker(["disk"], reactor=clock, start=room.start)
    other = MemoryPrefetcher(window=10)
    queue = TaskQueue(worker, other, reactor=clock)
    with readingLogs() as logs:
        calls = [Heard(queue.call(abs, -n)) for n in range(5)]
        disk = [Heard(queue.call(abs, -n, series="disk")) for n in range(2)]
    while other.step() is not None:
        pass
    assert [each.result for each in calls] == [*range(5)]
    assert logs.said() == [
        "ThreadWorker 1: no thread can be started: RuntimeError: can't start new thread"
    ]
    assert "ThreadWorker 1 can run nothing for now: no thread can" in queue.why(disk[1].d)
    clock.advance(1)
    assert disk[0].results == []
    room.isThere = True
    clock.advance(1)
    clock.turnUntil(lambda: all(each.results for each in disk))
    assert [each.result for each in disk] == [0, 1]
    ended = Heard(queue.shutdown())
    clock.turnUntil(lambda: ended.results)


def test_withoutAThreadItIsFailing(clock: ThreadClock) -> None:
    """
    The statistics of a worker whose thread cannot be started name the state, and the reason.
    """
    worker = ThreadWorker(reactor=clock, start=Room().start)
    queue = TaskQueue(worker, reactor=clock)
    with readingLogs():
        queue.call(abs, -1)
    told = worker.statistics()
    assert (told.state, told.slots, told.held, told.threads) == ("failing", 1, 0, 0)
    assert "can't start new thread" in told.fault
    worker.crash()


def test_withoutHopeOfAThread(clock: ThreadClock) -> None:
    """
    After half a minute calls that no other worker may run fail, and say why; without a queue
    the tasks do.
    """
    start = Room().start
    queue = TaskQueue(ThreadWorker(reactor=clock, start=start), reactor=clock)
    alone, task = ThreadWorker(reactor=clock, start=start), MemoryTask(abs, -1)
    with readingLogs():
        heard = [Heard(queue.call(abs, -1)), Heard(task.d)]
        alone.run(task)
        for _ in range(60):
            clock.advance(1)
    for each in heard:
        assert isinstance(each.error, WorkerLost)
        assert not each.error.begun
        assert "no thread can be started" in str(each.error)
    assert Heard(queue.shutdown()).results
    assert Heard(alone.stop()).results
    assert clock.getDelayedCalls() == []


def test_fewerThreadsThanItMayHave(clock: ThreadClock) -> None:
    """
    With one thread it runs its tasks, though there is no room for another.
    """
    room = Room()
    worker = ThreadWorker(threads=3, reactor=clock, start=room.start)
    queue = TaskQueue(worker, reactor=clock)
    room.isThere = True
    calls = [Heard(queue.call(abs, -1))]
    room.isThere = False
    calls += [Heard(queue.call(abs, -1)) for _ in range(9)]
    clock.turnUntil(lambda: all(each.results for each in calls))
    assert [each.result for each in calls] == 10 * [1]
    assert room.asked > 1
    ended = Heard(queue.shutdown())
    clock.turnUntil(lambda: ended.results)
