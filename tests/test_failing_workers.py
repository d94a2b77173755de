"""
A worker that can run nothing for a while keeps no tasks from those that can.
"""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from zope.interface import implementer

from asynqueue.errors import QueueRunError, WorkerLost
from asynqueue.interfaces import IConnectingWorker
from asynqueue.taskqueue import TaskQueue
from asynqueue.testing import MemoryPrefetcher, MemoryWorker, RecordingBacklog
from tests.failing import Failing


def runAll(worker: MemoryPrefetcher) -> None:
    """
    Make all calls that it has, and that it gets meanwhile.
    """
    while worker.step() is not None:
        pass


def failed(d: Deferred[Any]) -> Any:
    """
    The error of a Deferred that has failed.
    """
    failures: list[Any] = []
    d.addErrback(failures.append)
    return failures[0].value if failures else None


def test_othersHaveWhatItCannotRun() -> None:
    """
    What it has not begun goes to another worker, in the old order, and it is given nothing
    more until it can run tasks again.
    """
    failing, well = Failing(window=2), MemoryPrefetcher(window=10)
    queue = TaskQueue(failing, reactor=Clock())
    calls = [queue.call(abs, -n) for n in range(4)]
    assert len(failing.tasks) == 2
    queue.attachWorker(well)
    failing.breakDown()
    assert failing.tasks == []
    assert sorted(task.callTuple[1][0] for task in well.tasks) == [-3, -2, -1, 0]
    queue.call(abs, -4)
    assert failing.tasks == []
    runAll(well)
    assert all(d.called for d in calls)
    failing.recover()
    for n in range(20):
        queue.call(abs, -n)
    assert len(failing.tasks) == 2


@pytest.mark.parametrize("hasRest", [True, False])
def test_itIsReadyAgainOnce(hasRest: bool) -> None:
    """
    However it was when it began to fail: waiting for a task, or with as many as it takes.
    """
    failing = Failing(window=1)
    queue = TaskQueue(failing, reactor=Clock())
    if hasRest:
        queue.call(abs, -1)
    failing.breakDown()
    failing.breakDown()
    second = queue.call(abs, -2)
    assert failing.tasks == []
    failing.recover()
    failing.recover()
    assert len(failing.tasks) == 1
    runAll(failing)
    assert second.called


def test_withoutHopeNobodyWaitsForIt() -> None:
    """
    What no other worker may run ends, and says why; what another may run waits for it.
    """
    failing, well = Failing(["disk"], window=2), MemoryPrefetcher(window=1)
    queue = TaskQueue(failing, well, reactor=Clock())
    queue.call(abs, -1)
    kept = [queue.call(abs, -2) for _ in range(3)]
    disk = [queue.call(abs, -3, series="disk") for _ in range(3)]
    failing.breakDown(isHopeless=True)
    for d in disk:
        error = failed(d)
        assert isinstance(error, WorkerLost)
        assert not error.begun
        assert "no room" in str(error)
    assert not any(d.called for d in kept)
    runAll(well)
    assert all(d.called for d in kept)


def test_twoThatFailAreNoHelpToEachOther() -> None:
    """
    Without hope for one of them nothing waits for the other.
    """
    one, other = Failing(window=1), Failing(window=1)
    queue = TaskQueue(one, other, reactor=Clock())
    calls = [queue.call(abs, -n) for n in range(4)]
    one.breakDown(isHopeless=True)
    assert not any(d.called for d in calls)
    other.breakDown(isHopeless=True)
    assert all(isinstance(failed(d), WorkerLost) for d in calls)


@implementer(IConnectingWorker)
class Dialing(MemoryWorker):
    """
    Never has a connection.
    """

    host = "the host"
    loss = ""
    dialing = "dialing the host"

    def whenConnected(self) -> Deferred[None]:
        """
        Fires when the test says so.
        """
        self.attempt: Deferred[None] = Deferred()
        return self.attempt


def test_whatOneThatDialsMayRunWaitsForIt() -> None:
    """
    Without hope for a worker only those calls end that none could run that tries to connect.
    """
    failing, dialing = Failing(["disk"], window=1), Dialing()
    queue = TaskQueue(failing, reactor=Clock())
    hired = queue.attachWorker(dialing)
    kept, disk = queue.call(abs, -1), queue.call(abs, -2, series="disk")
    failing.breakDown(isHopeless=True)
    assert isinstance(failed(disk), WorkerLost)
    assert not kept.called
    assert queue.why(kept).endswith("no room; dialing the host")
    dialing.attempt.callback(None)
    dialing.step()
    assert hired.called
    assert kept.called


def test_retriesAreSpent() -> None:
    """
    A call with retries waits again, as often as it may, and no longer.
    """
    failing = Failing(window=1)
    queue = TaskQueue(failing, reactor=Clock())
    d = queue.call(abs, -1, retries=2)
    for _ in range(2):
        failing.breakDown(isHopeless=True)
        assert not d.called
    failing.breakDown(isHopeless=True)
    assert isinstance(failed(d), WorkerLost)


def test_queuedAttemptHasEndedBeforeTheNextWaits() -> None:
    """
    Where a queued call with retries is tried again, its last attempt has ended as the backlog
    hears that it waits no longer.
    """
    failing, backlog = Failing(window=1), RecordingBacklog()
    queue = TaskQueue(failing, reactor=Clock(), backlog=backlog)
    calls = [queue.call(abs, -1, retries=1) for _ in range(3)]
    failing.breakDown(isHopeless=True)
    assert backlog.faults == []
    assert [what for what, _ in backlog.asked].count("discard") >= 2
    failing.breakDown(isHopeless=True)
    assert all(isinstance(failed(d), WorkerLost) for d in calls)


def test_whySaysIt() -> None:
    """
    The reason is told while tasks wait for such a worker.
    """
    failing = Failing(window=1)
    queue = TaskQueue(failing, reactor=Clock())
    d = queue.call(abs, -1)
    failing.breakDown()
    assert queue.why(d).endswith("Failing 1 can run nothing for now: no room")
    failing.recover()
    assert "can run nothing" not in queue.why(d)
    runAll(failing)


def test_anUpdateOfOneThatFails() -> None:
    """
    A call that only this worker can make waits until it can run tasks again, and is made
    before what is queued. Without hope it waits no longer.
    """
    failing = Failing(window=1)
    queue = TaskQueue(failing, reactor=Clock())
    updated, called = queue.update(abs, -1), queue.call(abs, -2)
    failing.breakDown()
    assert not updated.called
    assert failing.tasks == []
    failing.recover()
    assert failing.step() is not None
    assert updated.called
    assert not called.called
    runAll(failing)
    updated = queue.update(abs, -1)
    failing.breakDown(isHopeless=True)
    assert isinstance(failed(updated), WorkerLost)


@pytest.mark.parametrize("window", [1, 2])
def test_aNewcomerThatFails(window: int) -> None:
    """
    A worker that can run nothing for a while as it is hired is given its updates again when
    it can, one after the other, and nothing until then. Then it serves.
    """
    queue, failing = TaskQueue(reactor=Clock()), Failing(window=window)
    for n in range(3):
        queue.update(abs, -n)
    hired = queue.attachWorker(failing)
    assert failing.step() is not None
    failing.breakDown()
    assert failing.tasks == []
    failing.breakDown()
    assert failing.tasks == []
    for n in range(1, 3):
        assert not hired.called
        failing.recover()
        assert [task.callTuple[1] for task in failing.tasks] == [(-n,)]
        failing.step()
    assert hired.called
    called = queue.call(abs, -1)
    runAll(failing)
    assert called.called


def test_aNewcomerWithoutHope() -> None:
    """
    A worker that will not run its updates, as far as can be told, is not hired.
    """
    queue, failing = TaskQueue(reactor=Clock()), Failing(window=1)
    for n in range(3):
        queue.update(abs, -n)
    hired = queue.attachWorker(failing)
    failing.breakDown()
    assert not hired.called
    failing.breakDown(isHopeless=True)
    error = failed(hired)
    assert isinstance(error, WorkerLost)
    assert "no room" in str(error)
    assert queue.workers() == []


def test_updatesBehindOneThatFails() -> None:
    """
    Without hope no update waits for a worker, also one that is made while it fails.
    """
    failing = Failing(window=1)
    queue = TaskQueue(failing, reactor=Clock())
    failing.breakDown()
    updated = queue.update(abs, -1)
    assert not updated.called
    (update,) = queue._registry.tasks()
    assert queue.why(update).endswith("is ready, which can run nothing for now: no room")
    failing.breakDown(isHopeless=True)
    assert isinstance(failed(updated), WorkerLost)


def test_shutdownWhileItFails() -> None:
    """
    What waits for it ends as for any other worker, and what it reports after that has no
    effect.
    """
    failing = Failing(window=1)
    queue = TaskQueue(failing, reactor=Clock())
    d = queue.call(abs, -1)
    failing.breakDown()
    ended = queue.shutdown()
    assert isinstance(failed(d), QueueRunError)
    failing.breakDown(isHopeless=True)
    failing.recover()
    assert ended.called


def test_detachedWhileItFails() -> None:
    """
    It goes at once, and another one does the work.
    """
    failing, well = Failing(window=1), MemoryPrefetcher()
    queue = TaskQueue(failing, reactor=Clock())
    d = queue.call(abs, -1)
    failing.breakDown()
    queue.qualifyWorker(failing, "disk")
    queue.detachWorker(failing)
    queue.attachWorker(well)
    runAll(well)
    assert d.called
