"""
L{asynqueue.testing}: the doubles, the gate, and the suite itself.
"""

from __future__ import annotations

import textwrap
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from pytest_twisted import ensureDeferred
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from asynqueue import AsyncWorker, TaskQueue, ThreadWorker, WorkerLost
from asynqueue.reactors import theReactor
from asynqueue.scheduling.options import CallOptions
from asynqueue.testing import (
    Gate,
    MemoryPrefetcher,
    MemoryQueue,
    MemoryTask,
    MemoryWorker,
    RecordingConsumer,
    RecordingObserver,
    WorkerCheck,
    advanceUntil,
    checkWorker,
    workerChecks,
)
from tests.doubles import errorOf, resultOf


class Stepped(MemoryWorker):
    """
    Is stepped by the reactor, once for each task.
    """

    def run(self, task: Any) -> Deferred[None]:
        ready = super().run(task)
        theReactor().callLater(0, self.step)
        return ready


class SteppedPrefetcher(MemoryPrefetcher):
    """
    The same, and has one task ahead of that which it runs.
    """

    def run(self, task: Any) -> Deferred[None]:
        ready = super().run(task)
        theReactor().callLater(0, self.step)
        return ready


CHECKS = [
    *workerChecks(Stepped, window=3),
    *workerChecks(lambda: Stepped(window=4), slots=4, window=3),
    *workerChecks(lambda: SteppedPrefetcher(window=2), slots=2, window=3),
]


@pytest.mark.parametrize("check", CHECKS, ids=str)
def test_memoryWorkersConform(check: WorkerCheck) -> Deferred[None]:
    """
    The doubles keep what IWorker promises, as the real ones do.
    """
    return check()


def newQueue(**kw: Any) -> tuple[MemoryQueue, MemoryWorker]:
    """
    A queue and its double.
    """
    worker = MemoryWorker(**kw)
    return MemoryQueue(worker), worker


def test_nothingHappensByItself() -> None:
    """
    A MemoryWorker holds its window of tasks until the test steps it, and runs the
    oldest first.
    """
    queue, worker = newQueue(window=2)
    ds = [queue.call(int, number) for number in range(3)]
    assert len(worker.tasks) == 2
    worker.step()
    assert [d.called for d in ds] == [True, False, False]
    assert len(worker.tasks) == 2
    assert queue.finish() == 2
    assert [resultOf(d) for d in ds] == [0, 1, 2]
    assert worker.step() is None


def test_endsWithoutRunning() -> None:
    """
    The test may end a task with a value or an exception of its own.
    """
    queue, worker = newQueue(window=2)
    ended, failed = queue.call(int), queue.call(int)
    worker.end(worker.tasks[0], "instead")
    worker.fail(worker.tasks[0], OSError("instead"))
    assert resultOf(ended) == "instead"
    assert isinstance(errorOf(failed), OSError)


def test_endsWithTheDeferred() -> None:
    """
    A call that returns a Deferred ends with it, unless the test, or a crash, was
    first.
    """
    queue, worker = newQueue(window=2)
    fired: Deferred[str] = Deferred()
    late: Deferred[str] = Deferred()
    first, second = queue.call(lambda: fired), queue.call(lambda: late)
    queue.finish()
    fired.callback("the Deferred's")
    assert resultOf(first) == "the Deferred's"
    worker.end(worker.tasks[0], "the test's")
    late.callback("too late")
    assert resultOf(second) == "the test's"


def test_resigns() -> None:
    """
    A worker that resigns leaves its queue, and what it held is lost.
    """
    queue, worker = newQueue()
    d = queue.call(int)
    worker.resign()
    assert isinstance(errorOf(d), WorkerLost)
    assert (len(queue), worker.resigned) == (0, 1)
    alone = MemoryWorker()
    alone.resign()
    assert alone.resigned == 1


def test_urgentTasksKeepTheirOrder() -> None:
    """
    A task with doNext goes before those that wait, and after others of the kind.
    """
    worker, order = MemoryWorker(), []
    worker.run(MemoryTask(order.append, "last"))
    for name in ("first", "second"):
        worker.run(MemoryTask(order.append, name, options=CallOptions(doNext=True)))
    while worker.step():
        pass
    assert order == ["first", "second", "last"]


def test_becomesReadyWhenTold() -> None:
    """
    A worker with a full window is given another task when the test says that it
    is ready.
    """
    queue, worker = newQueue()
    for _ in range(2):
        queue.call(int)
    worker.becomeReady()
    assert len(worker.tasks) == 2


def test_rawAndIterators() -> None:
    """
    Iterators become Deferators, asynchronous ones too, unless raw.
    """

    async def numbers() -> AsyncIterator[int]:
        yield 1

    queue, worker = newQueue()
    calls_ = [queue.call(iter, [1]), queue.call(numbers), queue.call(iter, [1], raw=True)]
    queue.finish()
    assert [type(resultOf(d)).__name__ for d in calls_] == [
        "Deferator",
        "Deferator",
        "list_iterator",
    ]
    assert worker.tasks == []


def test_prefetcherBeginsWhenTold() -> None:
    """
    The tasks of a MemoryPrefetcher have begun when the test says so; the others
    are handed back.
    """
    worker = MemoryPrefetcher(window=3)
    queue = MemoryQueue(worker, MemoryWorker())
    observer = RecordingObserver()
    queue.addObserver(observer)
    for _ in range(4):
        queue.call(int)
    begun, *others = worker.tasks
    worker.begin(begun)
    assert observer.names(begun) == ["queued", "begun"]
    assert worker.takeBack() == others
    assert worker.tasks == [begun]


def test_prefetcherHandsBack() -> None:
    """
    What is handed back goes to another worker, or comes again; the chosen ones,
    or all that have not begun.
    """
    busy, idle = MemoryPrefetcher(window=3), MemoryWorker(window=3)
    queue = MemoryQueue(busy)
    ds = [queue.call(int, number) for number in range(3)]
    busy.begin(busy.tasks[0])
    queue.attachWorker(idle)
    busy.handBack(busy.tasks[2])
    assert len(idle.tasks) == 1
    busy.handBack()
    queue.finish()
    assert [resultOf(d) for d in ds] == [0, 1, 2]


def test_prefetcherCrashesKnowingly() -> None:
    """
    After a crash, those that had not begun run elsewhere, and the others are
    lost.
    """
    worker = MemoryPrefetcher()
    queue = MemoryQueue(worker)
    lost, moved = queue.call(int), queue.call(int, 7)
    worker.begin(worker.tasks[0])
    queue.detachWorker(worker, crash=True)
    queue.attachWorker(MemoryWorker())
    queue.finish()
    assert isinstance(errorOf(lost), WorkerLost)
    assert resultOf(moved) == 7


def test_cancelledIsNoted() -> None:
    """
    A MemoryPrefetcher notes what it is to cancel, and holds it until it is
    dropped.
    """
    worker = MemoryPrefetcher(window=1)
    queue = MemoryQueue(worker)
    d, after = queue.call(int), queue.call(int, 7)
    task = worker.tasks[0]
    worker.begin(task)
    d.cancel()
    assert isinstance(errorOf(d), CancelledError)
    assert (worker.cancelled, worker.tasks) == ([task], [task])
    worker.drop(task)
    queue.finish()
    assert resultOf(after) == 7
    worker.cancel(task)
    assert worker.cancelled == [task]


def test_stepOfWhatHasEnded() -> None:
    """
    A step drops a task that was cancelled, without running it.
    """
    queue, _ = newQueue()
    ran: list[int] = []
    d = queue.call(ran.append, 1)
    d.addErrback(lambda failure: None)
    d.cancel()
    assert queue.finish() == 1
    assert ran == []


def test_taskOfItsOwn() -> None:
    """
    A MemoryTask counts its ends, and has the first; tasks order by priority.
    """
    task = MemoryTask(int, "7", base=8)
    task.callback(1)
    task.callback(2)
    task.errback(Failure(ValueError()))
    assert (task.ends, resultOf(task.d)) == (3, 1)
    assert "int('7', base=8)" in repr(task)
    first = MemoryTask(int, options=CallOptions(doNext=True))
    last = MemoryTask(int, options=CallOptions(doLast=True))
    assert sorted([last, task, first]) == [first, task, last]


def test_advancesUntil() -> None:
    """
    A clock is advanced until something has happened, and not for ever.
    """
    clock = Clock()
    happened: list[int] = []
    clock.callLater(5, happened.append, 1)
    assert advanceUntil(clock, lambda: happened, step=1) == 5
    with pytest.raises(AssertionError):
        advanceUntil(clock, lambda: False, seconds=10)


def test_observerNotesEverything() -> None:
    """
    A RecordingObserver has all events, in order.
    """
    queue, worker = newQueue()
    observer = RecordingObserver()
    queue.addObserver(observer)
    queue.call(int, retries=1)
    worker.resign()
    queue.attachWorker(MemoryWorker())
    queue.finish()
    assert observer.names() == ["queued", "begun", "left", "lost", "hired", "begun", "done"]
    assert observer.names(worker) == ["begun", "left", "lost"]


def test_consumerNotesItems() -> None:
    """
    A RecordingConsumer tells when so many items have come.
    """
    consumer = RecordingConsumer()
    two, four = consumer.written(2), consumer.written(4)
    consumer.write("one")
    consumer.write("two")
    assert (two.called, four.called, consumer.written(1).called) == (True, False, True)


@ensureDeferred
@pytest.mark.parametrize("local", [True, False])
async def test_gateLetsGo(local: bool) -> None:
    """
    A gate counts who comes, holds who waits until it is open, and nobody after
    that.
    """
    queue = TaskQueue(AsyncWorker(concurrent=3) if local else ThreadWorker(threads=3))
    gate = Gate(local=local)
    waiting = [queue.call(gate.token.wait) for _ in range(2)]
    await queue.call(gate.token.signal)
    await gate.arrivals(3)
    assert [d.called for d in waiting] == [False, False]
    gate.open()
    await gatherResults(waiting)
    await queue.call(gate.token.wait)
    await gate.close()
    await queue.call(gate.token.wait)
    await queue.call(gate.token.signal)
    await queue.shutdown()


@ensureDeferred
async def test_closedGateLetsGo() -> None:
    """
    A gate that is closed lets go who waits, and has done so when that fires.
    """
    queue, gate = TaskQueue(ThreadWorker()), Gate()
    waiting = queue.call(gate.token.wait)
    await gate.arrivals(1)
    await gate.arrivals(1)
    await gate.close()
    await waiting
    await queue.shutdown()


@ensureDeferred
async def test_suiteRunsAll() -> None:
    """
    C{checkWorker} makes all checks, and tells how many there were.
    """
    assert await checkWorker(Stepped, window=3) == len(workerChecks(Stepped))


class Silent(Stepped):
    """
    Breaks its promise: it never ends a task.
    """

    def step(self) -> None:
        """
        Do nothing.
        """


class Wrong(Stepped):
    """
    Breaks its promise: crash gives no list.
    """

    def crash(self) -> Any:
        super().crash()


class Unreadable(Stepped):
    """
    Tells how it stands in a way that no program can read.
    """

    def statistics(self) -> Any:
        return evolve(super().statistics(), fault=object())


class Talkative(Stepped):
    """
    Names its state by a sentence.
    """

    def statistics(self) -> Any:
        return evolve(super().statistics(), state="ends what it has")


@ensureDeferred
@pytest.mark.parametrize(
    ("faulty", "check"),
    [
        (Silent, "becomesReady"),
        (Wrong, "crashReturnsTheUndone"),
        (Unreadable, "tellsHowItStands"),
        (Talkative, "tellsHowItStands"),
    ],
)
async def test_suiteFindsFaults(faulty: Any, check: str) -> None:
    """
    The suite fails at the first promise that is not kept, in time, and names it.
    """
    with pytest.raises(AssertionError) as caught:
        await checkWorker(faulty, window=3, limit=0.2)
    assert any(check in note for note in caught.value.__notes__)


def workerOfTheDocs() -> Any:
    """
    The class of the worker that docs/workers.rst shows.
    """
    text = (Path(__file__).parent.parent / "docs" / "workers.rst").read_text(encoding="utf-8")
    block = text.split(":caption: polite.py\n")[1].split("   async def main")[0]
    names: dict[str, Any] = {}
    exec(textwrap.dedent(block), names)
    return names["PoliteWorker"]


POLITE = workerOfTheDocs()


@pytest.mark.parametrize(
    "check",
    workerChecks(lambda: POLITE(theReactor(), 0), slots=2, streams=False),
    ids=str,
)
def test_workerOfTheDocsConforms(check: WorkerCheck) -> Deferred[None]:
    """
    The worker that the documents show keeps what IWorker promises.
    """
    return check()
