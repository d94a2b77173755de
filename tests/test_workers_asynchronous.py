"""
L{AsyncWorker}.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from asynqueue import AsyncWorker, NullQueue, TaskQueue, WorkerLost
from asynqueue.reactors import theReactor
from asynqueue.scheduling.options import CallOptions
from asynqueue.testing import MemoryTask, RecordingConsumer, WorkerCheck, workerChecks
from tests.doubles import resultOf

CHECKS = [
    *workerChecks(AsyncWorker, cancels=True, window=3),
    *workerChecks(lambda: AsyncWorker(concurrent=4), slots=4, cancels=True, window=3),
]


@pytest.mark.parametrize("check", CHECKS, ids=str)
def test_conforms(check: WorkerCheck) -> Deferred[None]:
    """
    The worker keeps what IWorker promises.
    """
    return check()


def test_concurrentIsOneOrMore() -> None:
    """
    A worker that could run nothing is refused.
    """
    with pytest.raises(ValueError):
        AsyncWorker(concurrent=0)


def test_concurrentTasksWaitTogether() -> None:
    """
    As many tasks as C{concurrent} wait at once; the next begins as one has ended.
    """
    clock = Clock()
    queue = NullQueue(concurrent=2, reactor=clock)
    begun: list[Deferred[None]] = []

    def wait() -> Deferred[None]:
        begun.append(Deferred())
        return begun[-1]

    for _ in range(3):
        queue.call(wait)
    clock.advance(0)
    assert len(begun) == 2
    begun[1].callback(None)
    clock.advance(0)
    assert len(begun) == 3


@ensureDeferred
async def test_cancelEndsTheCoroutine() -> None:
    """
    A cancelled coroutine is left by its C{finally}, before the next task begins.
    """
    queue = NullQueue()
    events: list[str] = []

    async def wait() -> None:
        try:
            running.callback(None)
            await Deferred()
        finally:
            events.append("left")

    running: Deferred[None] = Deferred()
    d = queue.call(wait)
    await running
    d.cancel()
    with pytest.raises(CancelledError):
        await d
    await queue.call(events.append, "next")
    assert events == ["left", "next"]
    await queue.shutdown()


def test_deferredThatNeverFires() -> None:
    """
    A Deferred that never fires does not outlive the time limit of the shutdown.
    """
    clock = Clock()
    queue = NullQueue(timeout=5, reactor=clock)
    outcome: list[Any] = []
    queue.call(Deferred).addBoth(outcome.append)
    clock.advance(0)
    down = queue.shutdown()
    clock.advance(4)
    assert not down.called
    clock.advance(1)
    assert down.called
    assert outcome[0].check(WorkerLost)


@ensureDeferred
async def test_asynchronousGenerator() -> None:
    """
    An asynchronous generator becomes a Deferator, and raw is itself.
    """
    queue = NullQueue()

    async def numbers() -> AsyncIterator[int]:
        for number in range(5):
            yield number

    assert [item async for item in await queue.call(numbers)] == [0, 1, 2, 3, 4]
    raw = await queue.call(numbers, raw=True)
    assert [item async for item in raw] == [0, 1, 2, 3, 4]
    await queue.shutdown()


@pytest.mark.bulk
@ensureDeferred
async def test_manyThatEndAtOnce() -> None:
    """
    100,000 tasks that end at once do so without recursion, and the reactor has
    its turns meanwhile.
    """
    queue = NullQueue()
    reactor = theReactor()
    turns = 0

    def turn() -> None:
        nonlocal turns, next_
        turns += 1
        next_ = reactor.callLater(0, turn)

    next_ = reactor.callLater(0, turn)
    results = await gatherResults([queue.call(int, number) for number in range(100_000)])
    next_.cancel()
    assert results == list(range(100_000))
    assert turns > 5
    await queue.shutdown()


def worker(concurrent: int = 1) -> tuple[AsyncWorker, Clock]:
    """
    A worker without a queue, in a reactor that is a clock.
    """
    clock = Clock()
    return AsyncWorker(concurrent=concurrent, reactor=clock), clock


def test_stoppedByItsTask() -> None:
    """
    C{stop}, called by a task, fires after that task has ended.
    """
    async_, clock = worker()
    task = MemoryTask(lambda: stopped.append(async_.stop().addCallback(lambda _: task.ended)))
    stopped: list[Deferred[Any]] = []
    async_.run(task)
    clock.advance(0)
    assert stopped[0].result is True


def test_crashedByItsTask() -> None:
    """
    C{crash}, called by a task, returns that task, which is not ended when its
    function returns.
    """
    async_, clock = worker()
    left: list[Any] = []
    task = MemoryTask(lambda: left.extend(async_.crash()))
    async_.run(task)
    clock.advance(0)
    assert left == [task]
    assert not task.ended


def test_crashedByItsCoroutine() -> None:
    """
    A coroutine that has the worker crash is cancelled at its next wait.
    """
    async_, clock = worker()
    events: list[Any] = []

    async def crash() -> None:
        try:
            events.append(async_.crash() == [task])
            await Deferred()
        finally:
            events.append("left")

    task = MemoryTask(crash)
    async_.run(task)
    clock.advance(0)
    assert events == [True, "left"]
    assert not task.ended


def test_nextGoesBeforeWhatWaits() -> None:
    """
    A task with doNext runs before those that the worker has lined up.
    """
    async_, clock = worker(concurrent=3)
    order: list[str] = []
    async_.run(MemoryTask(order.append, "first"))
    async_.run(MemoryTask(order.append, "next", options=CallOptions(doNext=True)))
    clock.advance(0)
    assert order == ["next", "first"]


def test_severalAreAskedForAtOnce() -> None:
    """
    Of tasks that end at once the worker is ready for more when it has run those that it has: then
    for as many as may be with it.
    """
    async_, clock = worker(concurrent=3)
    seen: list[bool] = []
    readies = [async_.run(MemoryTask(lambda: seen.append(readies[2].called))) for _ in range(3)]
    clock.advance(0)
    assert seen == [False, False, False]
    assert readies[2].called
    again = [async_.run(MemoryTask(lambda: None)).called for _ in range(3)]
    assert again == [True, True, False]


def test_endedTaskIsNotBegun() -> None:
    """
    A task that was cancelled before its turn is not run, and takes no place.
    """
    async_, clock = worker()
    ran: list[str] = []
    task = MemoryTask(ran.append, "ran")
    ready = async_.run(task)
    task.callback(None)
    clock.advance(0)
    assert (ran, ready.called, async_.crash()) == ([], True, [])


def test_failureThatIsReturned() -> None:
    """
    A Failure that a function returns is a failure.
    """
    async_, clock = worker()
    task = MemoryTask(lambda: Failure(ValueError("returned")))
    failures: list[Failure] = []
    task.d.addErrback(failures.append)
    async_.run(task)
    clock.advance(0)
    assert failures[0].check(ValueError)


def test_itemsOnTheirWayAtACrash() -> None:
    """
    A task whose items are still being written to a consumer keeps C{stop} from
    firing, and is left by a crash, which stops the iterator.
    """
    async_, clock = worker()
    closed: list[bool] = []

    def numbers() -> Any:
        try:
            yield from range(100)
        finally:
            closed.append(True)

    consumer = RecordingConsumer(pauseAfter=2)
    task = MemoryTask(numbers, options=CallOptions(consumer=consumer))
    async_.run(task)
    clock.advance(0)
    stopped = async_.stop()
    assert (consumer.items, stopped.called) == ([0, 1], False)
    assert async_.crash() == [task]
    assert (stopped.called, closed, task.ended) == (True, [True], False)


@ensureDeferred
async def test_coroutineOfATaskQueue() -> None:
    """
    A task may itself call the queue, and wait for that.
    """
    queue = TaskQueue(AsyncWorker(concurrent=2))

    async def outer() -> int:
        return 1 + int(await queue.call(int, "41"))

    assert await queue.call(outer) == 42
    await queue.shutdown()


@pytest.mark.parametrize("crashes", [False, True])
def test_beginsAnew(crashes: bool) -> None:
    """
    A worker that has stopped or crashed serves again when it is hired again.
    """
    async_, clock = worker()
    if crashes:
        async_.crash()
    else:
        async_.stop()
    async_.setResignator(lambda: None)
    assert async_.statistics().state == "serving"
    task = MemoryTask(int, "7")
    async_.run(task)
    clock.advance(0)
    assert resultOf(task.d) == 7
