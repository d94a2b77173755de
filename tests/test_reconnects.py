"""
What a queue promises of workers that connect, and of calls that are made by name.
"""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from zope.interface import implementer

from asynqueue.errors import IdentityRefused, QueueRunError, WorkerLost
from asynqueue.interfaces import IConnectingWorker, IProcessWorker
from asynqueue.scheduling.observers import QueueObserver
from asynqueue.scheduling.options import CallOptions
from asynqueue.taskqueue import TaskQueue
from asynqueue.testing import MemoryWorker
from tests.doubles import errorOf, readingLogs, resultOf


@implementer(IConnectingWorker)
class Connecting(MemoryWorker):
    """
    Connects when the test says so.
    """

    cQualified = ["wire"]

    def __init__(self) -> None:
        super().__init__()
        self.host = "the host"
        self.loss = ""
        self.dialing = "dialing the host"
        self.attempts: list[Deferred[None]] = []
        self.cancelled = 0

    def whenConnected(self) -> Deferred[None]:
        """
        Fires when the test fires the last of the attempts.
        """

        def cancelled(d: Any) -> None:
            self.cancelled += 1

        self.attempts.append(Deferred(cancelled))
        return self.attempts[-1]

    def connect(self) -> None:
        """
        There is a connection.
        """
        self.attempts[-1].callback(None)

    def lose(self) -> None:
        """
        It is lost.
        """
        self.loss = "the line was cut"
        self.resign()


def newQueue(*workers: Any) -> TaskQueue:
    """
    One that no reactor drives, and none ends.
    """
    return TaskQueue(*workers, reactor=Clock())


def test_hiredWhenConnected() -> None:
    """
    A worker that connects is hired when it has a connection, and not before.
    """
    worker = Connecting()
    queue = newQueue()
    attached = queue.attachWorker(worker)
    assert (len(queue), attached.called) == (0, False)
    worker.connect()
    assert resultOf(attached) == worker.ID
    assert queue.workers() == [worker]


def test_hiredAgain() -> None:
    """
    When it is back after a loss it is hired anew, with another ID, and runs the updates.
    """
    worker = Connecting()
    queue = newQueue(worker)
    worker.connect()
    update = queue.update("prepare")
    worker.step()
    assert isinstance(errorOf(update), TypeError)
    first = worker.ID
    worker.lose()
    assert len(queue) == 0
    worker.connect()
    assert first != worker.ID
    assert [task.callTuple[0] for task in worker.tasks] == ["prepare"]


def test_workersThatDialAreThere() -> None:
    """
    One without a connection is among the workers, but is not counted, until it is hired,
    and again when its connection is lost.
    """
    worker, other = Connecting(), MemoryWorker()
    queue = newQueue(worker, other)

    def seen() -> tuple[Any, ...]:
        return len(queue), queue.workers(), queue.statistics().dialing

    assert seen() == (1, [other, worker], ("dialing the host",))
    assert queue.workers(dialing=False) == [other]
    worker.connect()
    assert seen() == (2, [other, worker], ())
    worker.lose()
    assert seen() == (1, [other, worker], ("dialing the host",))
    queue.detachWorker(worker)
    assert seen() == (1, [other], ())


def test_whyTellsOfThoseThatDial() -> None:
    """
    A call that one could run which has no connection says what that does to get one.
    """
    worker = Connecting()
    queue = newQueue(worker)
    said = "it is queued, and no worker for it is connected: dialing the host"
    assert queue.why(queue.call("work")) == said
    assert queue.why(queue.call(abs, -1)) == said
    assert "is qualified" in queue.why(queue.call(abs, -1, series="other"))


def test_whyTellsOfThoseThatDialBehindTheBusy() -> None:
    """
    It says so, too, where others could run the call that are busy.
    """
    queue = newQueue(Connecting(), MemoryWorker())
    queue.call(abs, -1)
    assert queue.why(queue.call(abs, -2)).endswith("workers are busy; dialing the host")


def test_whyTellsOfFewOfThem() -> None:
    """
    Of many that dial, some are told of.
    """
    queue = newQueue(*[Connecting() for _ in range(50)])
    said = queue.why(queue.call("work"))
    assert said.count("dialing the host") == 3
    assert said.endswith("and 47 others")


def test_whyWithoutAnyHost() -> None:
    """
    A call by a name waits for a host: where there is none, and none is dialed, it says so.
    """
    queue = newQueue(MemoryWorker())
    said = "it is queued, and no worker takes calls by name: there is no host"
    assert queue.why(queue.call("typo")) == said
    mapped = queue.map("typo", [1])
    assert [queue.why(task) for task in queue._registry.tasks()][1:] == [said]
    mapped.stop()
    worker = Connecting()
    queue.attachWorker(worker)
    queue.detachWorker(worker).addErrback(lambda _: None)
    assert queue.why(queue.call("typo")) == said


def test_whyTellsThatTheHostRefused() -> None:
    """
    Where the host refused, and nobody dials any more, it says what that said.
    """
    worker = Connecting()
    queue = newQueue(MemoryWorker())
    queue.attachWorker(worker).addErrback(lambda _: None)
    worker.attempts[-1].errback(IdentityRefused("the host", "wrong key"))
    said = queue.why(queue.call("work"))
    assert said.endswith("there is no host (the proof of identity with the host failed: wrong key)")


def test_lossTells() -> None:
    """
    What ran on it when the connection was lost fails with the name of the host, and
    why.
    """
    worker = Connecting()
    queue = newQueue(worker)
    worker.connect()
    d = queue.call("work")
    worker.lose()
    text = str(errorOf(d))
    assert "the host" in text
    assert "the line was cut" in text
    assert "work()" in text


def test_refused() -> None:
    """
    If the other side refuses, attaching fails with that.
    """
    worker = Connecting()
    attached = newQueue().attachWorker(worker)
    worker.attempts[-1].errback(IdentityRefused("the host", "wrong key"))
    assert isinstance(errorOf(attached), IdentityRefused)


def test_refusedLater() -> None:
    """
    If it refuses after a loss, that is logged, and the worker stays away.
    """
    worker = Connecting()
    queue = newQueue(worker)
    worker.connect()
    worker.lose()
    with readingLogs() as log:
        worker.attempts[-1].errback(IdentityRefused("the host", "wrong key"))
    assert len(log.errors()) == 1
    assert len(queue) == 0


def test_attachedTwice() -> None:
    """
    Attached again while it connects, it is hired once, and both Deferreds have its ID.
    """
    worker = Connecting()
    queue = newQueue()
    both = [queue.attachWorker(worker), queue.attachWorker(worker)]
    assert len(worker.attempts) == 1
    worker.connect()
    assert [resultOf(d) for d in both] == [worker.ID] * 2


def test_attachingCancelled() -> None:
    """
    Cancelling the attachment ends the connecting, unless somebody else waits for it.
    """
    worker = Connecting()
    queue = newQueue()
    one, other = queue.attachWorker(worker), queue.attachWorker(worker)
    one.cancel()
    assert isinstance(errorOf(one), CancelledError)
    assert worker.cancelled == 0
    other.cancel()
    assert isinstance(errorOf(other), CancelledError)
    assert worker.cancelled == 1


@pytest.mark.parametrize("crash", [False, True])
def test_detachedWhileItConnects(crash: bool) -> None:
    """
    Detaching a worker that has no connection ends its trying.
    """
    worker = Connecting()
    queue = newQueue()
    attached = queue.attachWorker(worker)
    assert resultOf(queue.detachWorker(worker, crash=crash)) == []
    assert isinstance(errorOf(attached), WorkerLost)
    assert worker.cancelled == 1


def test_detachedWhileItServes() -> None:
    """
    Detaching one that serves does not have it connect again.
    """
    worker = Connecting()
    queue = newQueue(worker)
    worker.connect()
    assert resultOf(queue.detachWorker(worker.ID)) == []
    worker.lose()
    assert len(worker.attempts) == 1


def test_lostDuringUpdate() -> None:
    """
    A connection that is lost while the worker runs its updates is made again, and then
    the attachment succeeds.
    """
    worker = Connecting()
    queue = newQueue()
    resultOf(queue.update(int))
    attached = queue.attachWorker(worker)
    worker.connect()
    worker.lose()
    assert not attached.called
    worker.connect()
    worker.step()
    assert resultOf(attached) == worker.ID


def test_unfit() -> None:
    """
    An update that fails fails the attachment; later, it is logged.
    """
    worker = Connecting()
    queue = newQueue()
    resultOf(queue.update(int, "x"))
    attached = queue.attachWorker(worker)
    worker.connect()
    worker.step()
    assert isinstance(errorOf(attached), ValueError)


def test_unfitLater() -> None:
    """
    An update that fails when the worker is back is logged.
    """
    worker = Connecting()
    queue = newQueue(worker)
    worker.connect()
    update = queue.update(int, "x")
    worker.step()
    assert isinstance(errorOf(update), ValueError)
    worker.lose()
    worker.connect()
    with readingLogs() as log:
        worker.step()
    assert len(log.errors()) == 1


def test_shutdown() -> None:
    """
    The end of the queue ends the connecting.
    """
    worker = Connecting()
    queue = newQueue()
    attached = queue.attachWorker(worker)
    resultOf(queue.shutdown())
    assert isinstance(errorOf(attached), QueueRunError)
    assert worker.cancelled == 1


def test_lossAfterShutdown() -> None:
    """
    When the queue is shut down nobody connects again.
    """
    worker = Connecting()
    queue = newQueue(worker)
    worker.connect()
    resultOf(queue.shutdown())
    worker.lose()
    assert len(worker.attempts) == 1


def test_namesGoOverTheWire() -> None:
    """
    A call by name is run by those who are qualified for the wire, if no series says
    otherwise.
    """
    worker, here = Connecting(), MemoryWorker()
    queue = newQueue(here, worker)
    worker.connect()
    d = [
        queue.call("work", 1),
        queue.call("elsewhere", series="memory"),
        queue.callWith(CallOptions(doNext=True), "more"),
    ]
    assert [task.callTuple[0] for task in worker.tasks] == ["work"]
    assert [task.callTuple[0] for task in here.tasks] == ["elsewhere"]
    with pytest.raises(TypeError):
        queue.call(3)  # type: ignore[arg-type]
    for each in d:
        each.cancel()
        assert isinstance(errorOf(each), CancelledError)


@implementer(IProcessWorker)
class Processes(MemoryWorker):
    """
    Says that its tasks run in processes.
    """

    pids: ClassVar[list[int]] = []


def test_mapOfANameWaitsForAHost() -> None:
    """
    A map of a name is made by those who are qualified for the wire, as a call is, also
    where all workers have processes.
    """
    local, worker = Processes(), Connecting()
    queue = newQueue(local, worker)
    deferator = queue.map("work", [1, 2])
    assert local.tasks == []
    worker.connect()
    assert [task.callTuple for task in worker.tasks] == [("work", (1,), {})]
    deferator.stop()
    with pytest.raises(TypeError, match="cannot be called"):
        queue.map(3, [1])  # type: ignore[arg-type]


def test_withdraw() -> None:
    """
    A call that no worker has is withdrawn, and fails as a cancelled one does, but counts
    for none; others are not touched.
    """
    worker = MemoryWorker()
    queue = newQueue(worker)
    held, queued = queue.call(int), queue.call(int)
    assert not queue.withdraw(held)
    assert queue.withdraw(queued)
    assert isinstance(errorOf(queued), CancelledError)
    assert not queue.withdraw(queued)
    assert not queue.withdraw(Deferred())
    assert (queue.statistics().done, queue.statistics().failed) == (0, 0)
    worker.step()
    assert resultOf(held) == 0


def test_withdrawnCallsAreNeverCounted() -> None:
    """
    Whoever hears of a withdrawn call finds it counted nowhere already then.
    """
    worker = MemoryWorker()
    queue = newQueue(worker)
    counted: list[Any] = []

    class Counting(QueueObserver):
        def taskDone(self, task: Any, outcome: Any, worker: Any) -> None:
            counted.append(queue.statistics())

    held, queued = queue.call(int), queue.call(int)
    queue.addObserver(Counting())
    queued.addErrback(lambda failure: counted.append(queue.statistics()))
    assert queue.withdraw(queued)
    assert [(each.queued, each.done, each.failed) for each in counted] == [(0, 0, 0)] * 2
    worker.step()
    assert resultOf(held) == 0


def test_withdrawIsForOwnCalls() -> None:
    """
    A queue does not withdraw the calls of another.
    """
    queue = newQueue()
    queued = queue.call(int)
    assert not newQueue().withdraw(queued)
    assert not queued.called


def test_watchWorkers() -> None:
    """
    Whoever watches the workers of a queue hears of each that comes and goes, until it
    wants no more.
    """
    queue = newQueue()
    heard: list[int] = []
    end = queue.watchWorkers(lambda: heard.append(len(queue)))
    worker = MemoryWorker()
    queue.attachWorker(worker)
    queue.detachWorker(worker)
    assert heard == [1, 0]
    end()
    end()
    queue.attachWorker(MemoryWorker())
    assert heard == [1, 0]
