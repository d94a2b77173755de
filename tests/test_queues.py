"""
What L{asynqueue.queues} promises: queues that come with their workers, in the
reactor and in real threads.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from functools import partial
from inspect import Parameter, signature
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, gatherResults
from zope.interface.verify import verifyObject

from asynqueue.cores import cores
from asynqueue.errors import QueueRunError
from asynqueue.interfaces import ILingeringWorker, ISlottedWorker
from asynqueue.pool.taskpool import TaskPool
from asynqueue.queues import NullQueue, ProcessQueue, ThreadQueue, deferToThread
from asynqueue.reactors import theReactor
from asynqueue.taskqueue import TaskQueue
from asynqueue.testing import MemoryPrefetcher, MemoryWorker, RecordingConsumer
from asynqueue.wire.client.hub import WireHub
from asynqueue.wire.client.worker import WireWorker
from asynqueue.wire.host.catalog import Catalog
from asynqueue.wire.host.server import WireServer
from asynqueue.wire.spawning.manager import ServerManager
from asynqueue.workers.asynchronous import AsyncWorker
from asynqueue.workers.executor import ExecutorWorker
from asynqueue.workers.process import ProcessWorker
from asynqueue.workers.thread import ThreadWorker

awaiting = pytest_twisted.ensureDeferred

whose: ContextVar[str] = ContextVar("whose", default="nobody's")


def here() -> int:
    """
    In which thread this runs.
    """
    return threading.get_ident()


class Gate:
    """
    Where a thread waits until the test lets it go on.
    """

    def __init__(self) -> None:
        self._open = threading.Event()

    def wait(self) -> None:
        assert self._open.wait(30)

    def open(self) -> None:
        self._open.set()


@pytest.fixture
def order() -> list[Any]:
    """
    What was done, in order.
    """
    return []


@awaiting
async def test_nullQueueRunsInTheReactor() -> None:
    """
    A NullQueue makes calls in the reactor's thread.
    """
    queue = NullQueue()
    assert isinstance(queue.workers()[0], AsyncWorker)
    assert await queue.call(here) == here()
    await queue.shutdown()


@awaiting
async def test_nullQueueRunsOneAfterTheOther(order: list[Any]) -> None:
    """
    By default a task waits until the one before has its result.
    """
    queue = NullQueue()
    waits: Deferred[None] = Deferred()

    def slow() -> Deferred[None]:
        order.append(1)
        theReactor().callLater(0, waits.callback, None)
        return waits

    first = queue.call(slow)
    second = queue.call(lambda: order.append(waits.called))
    await gatherResults([first, second])
    await queue.shutdown()
    assert order == [1, True]


@awaiting
async def test_nullQueueMayRunSeveral() -> None:
    """
    With C{concurrent} several tasks may wait for results at once.
    """
    queue = NullQueue(concurrent=2)
    waits: Deferred[int] = Deferred()
    first = queue.call(lambda: waits)
    await queue.call(waits.callback, 7)
    assert await first == 7
    await queue.shutdown()


@awaiting
async def test_threadQueueMayHaveOneThread() -> None:
    """
    A ThreadQueue makes its calls in other threads, and in one if so told.
    """
    queue = ThreadQueue(1)
    assert isinstance(queue.workers()[0], ThreadWorker)
    threads = {await queue.call(here) for _ in range(5)}
    assert len(threads) == 1
    assert here() not in threads
    await queue.shutdown()


@awaiting
async def test_threadQueueMayHaveSeveralThreads() -> None:
    """
    As many tasks run at once as there are to be threads.
    """
    queue = ThreadQueue(8)
    meeting = threading.Barrier(8, timeout=30)
    await gatherResults([queue.call(meeting.wait) for _ in range(8)])
    await queue.shutdown()


def test_threadQueueHasTheUsualThreads() -> None:
    """
    Who does not say how many threads there are has as many as an executor of the
    standard library.
    """
    with ThreadPoolExecutor() as executor:
        assert ThreadQueue().workers()[0].slots == ExecutorWorker(executor).slots


@pytest.mark.parametrize("threads", [0, -1, True, False])
def test_threadQueueHasAThread(threads: Any) -> None:
    """
    Neither no thread nor a yes or no is a number of threads.
    """
    with pytest.raises(ValueError, match="threads must be a whole number, 1 or more"):
        ThreadQueue(threads)


# What is qualified for series.
_QUALIFIED: list[Callable[..., Any]] = [
    AsyncWorker,
    ThreadWorker,
    ProcessWorker,
    partial(ExecutorWorker, ThreadPoolExecutor()),
    partial(WireWorker, None, "tcp:localhost:4000"),
    partial(WireHub, NullQueue(), "tcp:4000"),
    partial(WireServer, "tcp:4000", trust="code"),
    MemoryWorker,
    MemoryPrefetcher,
]


@pytest.mark.parametrize("make", _QUALIFIED)
def test_seriesAreNoString(make: Callable[..., Any]) -> None:
    """
    Who gives the name of a series, and no list of them, is told so.
    """
    with pytest.raises(TypeError, match=r'series is a string: give a list, \["disk"\]'):
        make(series="disk")


@pytest.mark.parametrize("make", _QUALIFIED)
def test_seriesAreHashable(make: Callable[..., Any]) -> None:
    """
    What cannot be the series of a call is refused before there is a worker.
    """
    with pytest.raises(TypeError, match="a series must be hashable"):
        make(series=[["disk"]])


@pytest.mark.parametrize(
    ("what", "make"),
    [
        ("allow", lambda names: WireServer("tcp:4000", allow=names)),
        ("allow", lambda names: ServerManager(allow=names)),
        ("modules", lambda names: Catalog(None, names, "modules")),
        ("initargs", lambda args: ProcessWorker(initializer=print, initargs=args)),
        ("initargs", lambda args: TaskPool(1, initializer=print, initargs=args).start()),
        ("initargs", lambda args: ProcessQueue(1, initializer=print, initargs=args)),
    ],
)
def test_listsAreNoStrings(what: str, make: Callable[[Any], Any]) -> None:
    """
    Wherever several names or arguments are taken, one string is none of them.
    """
    with pytest.raises(TypeError, match=f"{what} is a string: give a list"):
        make("disk")


@pytest.mark.parametrize(
    "kind", [*(getattr(made, "func", made) for made in _QUALIFIED), ThreadQueue, ProcessQueue]
)
def test_rawIsAKeyword(kind: type) -> None:
    """
    Nothing becomes raw by its position.
    """
    raw = signature(kind).parameters.get("raw")
    assert raw is None or raw.kind is Parameter.KEYWORD_ONLY


@awaiting
async def test_threadQueueMayBeRaw() -> None:
    """
    With C{raw} iterators come back as they are.
    """
    queue = ThreadQueue(raw=True)
    assert isinstance(await queue.call(iter, [1, 2]), Iterator)
    await queue.shutdown()


@awaiting
async def test_queueTakesTheKeywordsOfATaskQueue() -> None:
    """
    What a TaskQueue can be told, these can.
    """
    for queue in (NullQueue(timeout=1, spew=True), ThreadQueue(returnFailure=False)):
        assert await queue.call(abs, -1) == 1
        await queue.shutdown()


@awaiting
async def test_deferToThreadOfAQueueSkipsTheQueue(order: list[Any]) -> None:
    """
    A call that is deferred to the thread is made before all that is queued.
    """
    queue = ThreadQueue(1)
    gate = Gate()
    # So the thread has nothing lined up: what follows is queued.
    running = queue.call(gate.wait)
    queued = [queue.call(order.append, n) for n in range(3)]
    direct = queue.deferToThread(order.append, "direct")
    gate.open()
    await gatherResults([running, direct, *queued])
    assert order == ["direct", 0, 1, 2]
    await queue.shutdown()


@awaiting
async def test_deferToThreadOfAQueuePassesAllKeywords() -> None:
    """
    It has no options of its own: all the keywords are the function's.
    """
    queue = ThreadQueue()
    assert await queue.deferToThread(dict, timeout=1, doNext=2) == {"timeout": 1, "doNext": 2}
    with pytest.raises(KeyError):
        await queue.deferToThread({}.__getitem__, 1)
    await queue.shutdown()


@awaiting
async def test_deferToThreadWithoutAThread() -> None:
    """
    After shutdown, or when the worker is leaving, it is refused.
    """
    queue = ThreadQueue()
    gate = Gate()
    running = queue.call(gate.wait)
    detached = queue.detachWorker(queue.workers()[0])
    with pytest.raises(QueueRunError):
        queue.deferToThread(here)
    gate.open()
    await gatherResults([running, detached])
    with pytest.raises(QueueRunError):
        queue.deferToThread(here)
    await queue.shutdown()
    with pytest.raises(QueueRunError):
        queue.deferToThread(here)


@awaiting
async def test_deferToThreadKeepsOneThread() -> None:
    """
    All calls are made in the same thread, one after the other.
    """
    threads = {await deferToThread(here) for _ in range(5)}
    assert len(threads) == 1
    assert here() not in threads
    await deferToThread()


@awaiting
async def test_deferToThreadStopsAndStartsAnew() -> None:
    """
    Without anything to call the thread ends; when it is needed there is another.
    """
    await deferToThread()
    names = [await deferToThread(threading.current_thread)]
    await deferToThread()
    assert not names[0].is_alive()
    names.append(await deferToThread(threading.current_thread))
    assert names[1].is_alive()
    await deferToThread()
    await deferToThread()


@awaiting
async def test_deferToThreadTakesOptions(order: list[Any]) -> None:
    """
    The options of a call are the queue's: C{doNext} goes before what is queued.
    """
    gate = Gate()
    running = deferToThread(gate.wait)
    later = deferToThread(order.append, 1)
    sooner = deferToThread(order.append, 2, doNext=True)
    gate.open()
    await gatherResults([running, later, sooner])
    assert order == [2, 1]
    await deferToThread()


@awaiting
async def test_deferToThreadFeedsAConsumer() -> None:
    """
    With a consumer the items go there, and the result is the consumer.
    """
    consumer = RecordingConsumer()
    assert await deferToThread(iter, "abc", consumer=consumer) is consumer
    assert consumer.items == ["a", "b", "c"]
    await deferToThread()


@awaiting
async def test_deferToThreadFailsWithTheError() -> None:
    """
    What the function raises is what one gets.
    """
    with pytest.raises(ZeroDivisionError):
        await deferToThread(divmod, 1, 0)
    await deferToThread()


@awaiting
async def test_contextIsThatOfTheCaller() -> None:
    """
    The function sees the context variables of who called.
    """
    token = whose.set("mine")
    d = deferToThread(whose.get)
    whose.reset(token)
    assert await d == "mine"
    await deferToThread()


@awaiting
async def test_urgentCallsKeepTheirOrder(order: list[Any]) -> None:
    """
    Of calls with doNext that a worker has lined up, the first goes first (G3).
    """
    gate = Gate()
    queue = ThreadQueue(1)
    await gatherResults([queue.call(int) for _ in range(100)])
    held = queue.call(gate.wait)
    calls = [queue.call(order.append, n, doNext=True) for n in range(6)]
    gate.open()
    await gatherResults([held, *calls])
    assert order == list(range(6))
    await queue.shutdown()


@awaiting
async def test_urgentCallsKeepTheirOrderInTheReactor(order: list[Any]) -> None:
    """
    The same holds for a worker that has several tasks at once.
    """
    queue = NullQueue(concurrent=4)
    calls = [queue.call(order.append, "last")]
    calls += [queue.call(order.append, n, doNext=True) for n in range(3)]
    await gatherResults(calls)
    assert order == [0, 1, 2, "last"]
    await queue.shutdown()


@pytest.mark.parametrize(
    "make",
    [
        AsyncWorker,
        ThreadWorker,
        lambda: ProcessWorker(initializer=len, initargs=[""]),
        lambda: ExecutorWorker(ThreadPoolExecutor(1), shutdown=False),
    ],
)
@awaiting
async def test_workersCanBeHiredAgain(make: Callable[[], Any]) -> None:
    """
    A worker that has left can be attached again, as often as one likes, and leave again.
    """
    worker, queue = make(), TaskQueue(timeout=30)
    await queue.update(abs, -1)
    for _ in range(3):
        await queue.attachWorker(worker)
        assert await queue.call(abs, -1) == 1
        assert await queue.call(abs, -2) == 2
        assert await queue.detachWorker(worker).addTimeout(20, theReactor()) == []
    if isinstance(worker, ProcessWorker):
        # One child in each time, however many calls it had.
        assert worker.stats().pids == ()
        assert worker._supervisor.started == 3
        assert worker._supervisor.preparations == [(len, ("",), {}), (abs, (-1,), {})]
    await queue.shutdown()


@pytest.mark.parametrize("waits", [True, False])
@pytest.mark.parametrize("make", [AsyncWorker, ThreadWorker, ProcessWorker])
@awaiting
async def test_workersThatCrashedCanBeHiredAgain(make: Callable[[], Any], waits: bool) -> None:
    """
    So can one that has crashed, whether or not something is left of it; and it can leave.
    """
    worker, queue = make(), TaskQueue(timeout=30)
    for _ in range(3):
        await queue.attachWorker(worker)
        assert await queue.call(abs, -1).addTimeout(20, theReactor()) == 1
        assert await queue.detachWorker(worker, crash=True) == []
        if waits and ILingeringWorker.providedBy(worker):
            await worker.gone()
    await queue.attachWorker(worker)
    assert await queue.call(abs, -1).addTimeout(20, theReactor()) == 1
    await (queue.detachWorker(worker) if waits else queue.shutdown()).addTimeout(20, theReactor())
    if isinstance(worker, ProcessWorker):
        assert worker.stats().pids == ()
        assert worker.stats().started == 4
        await worker.gone().addTimeout(20, theReactor())
    await queue.shutdown()


def test_workersTellTheirSlots() -> None:
    """
    Workers tell how many tasks they run at once.
    """
    with ThreadPoolExecutor(3) as executor:
        workers: list[Any] = [
            AsyncWorker(concurrent=7),
            ThreadWorker(threads=2),
            ProcessWorker(),
            ExecutorWorker(executor),
        ]
        assert all(verifyObject(ISlottedWorker, worker) for worker in workers)
        assert [worker.slots for worker in workers] == [7, 2, 1, 3]


# How many processes


def test_asManyProcessesAsCores() -> None:
    """
    Without a number it is the cores that this process may use that count.
    """
    assert ProcessQueue.cores() == cores() == len(ProcessQueue().workers())


@pytest.mark.parametrize(
    ("options", "count"), [({"N": 3}, 3), ({"maximum": 3}, 3), ({"N": 3, "maximum": 3}, 3)]
)
def test_maximumIsAnotherWord(options: Any, count: int) -> None:
    """
    The number may be given by either word, or by both.
    """
    assert len(ProcessQueue(**options).workers()) == count


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"N": 0}, "N must be a whole number, 1 or more, not 0"),
        ({"N": True}, "N must be a whole number, 1 or more, not True"),
        ({"N": 2.5}, "N must be a whole number, 1 or more, not 2.5"),
        ({"maximum": 0}, "maximum must be a whole number, 1 or more, not 0"),
        ({"N": 2, "minimum": -1}, "minimum must be a whole number, 0 or more, not -1"),
        ({"N": 2, "minimum": 3}, "minimum=3 is more than there are at the most, 2"),
        ({"N": 2, "maximum": 5}, "N=2 and maximum=5 are two words for one number"),
    ],
)
def test_numbersOfProcessesThatCannotBe(options: Any, match: str) -> None:
    """
    They are refused by name, and those that contradict each other.
    """
    with pytest.raises(ValueError, match=match):
        ProcessQueue(**options)
