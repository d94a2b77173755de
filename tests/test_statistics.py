"""
What L{asynqueue.scheduling.statistics} promises: how a queue stands, and what a
task waits for.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from asynqueue.scheduling.options import CallOptions
from asynqueue.scheduling.snapshots import FlowStatistics, WorkerStatistics
from asynqueue.taskqueue import TaskQueue
from asynqueue.testing import MemoryPrefetcher, MemoryQueue, MemoryWorker
from asynqueue.wire.client.remote import RemoteWorker
from tests.doubles import Heard


def f(*args: Any) -> None:
    """
    What is called.
    """


def test_statisticsOfAFreshQueue() -> None:
    """
    A queue without anything counts nothing.
    """
    snapshot = TaskQueue().statistics()
    assert (snapshot.queued, snapshot.running, snapshot.done, snapshot.failed) == (0, 0, 0, 0)
    assert (snapshot.flows, snapshot.workers, snapshot.unqualified) == ((), (), 0)


def test_statisticsCountTasks() -> None:
    """
    Every task is queued, running or done, and of the done some have failed.
    """
    queue = MemoryQueue()
    heard = [Heard(queue.call(divmod, 1, n)) for n in (1, 0, 1, 1, 1)]
    queue.step()
    queue.step()
    heard[4].d.cancel()
    snapshot = queue.statistics()
    assert (snapshot.queued, snapshot.running) == (1, 1)
    assert (snapshot.done, snapshot.failed) == (3, 2)


def test_statisticsShowTheFlows() -> None:
    """
    Each flow is there with its band, and with how many workers may serve it.
    """
    queue = MemoryQueue(MemoryWorker(["a"]), MemoryWorker())
    queue.call(f)
    queue.call(f)
    queue.call(f, series="a", niceness=5)
    queue.call(f, series="a", niceness=5)
    queue.call(f, series="b", niceness=5, doLast=True)
    queue.call(f, doNext=True)
    assert set(queue.statistics().flows) == {
        FlowStatistics("a", 5, "fair", 2, 1),
        FlowStatistics("b", 0, "doLast", 1, 0),
        FlowStatistics(None, 0, "doNext", 1, 2),
    }
    assert queue.statistics().unqualified == 1


def test_statisticsShowTheWorkers() -> None:
    """
    Each worker is there, with what it may run and what it does.
    """
    queue = MemoryQueue(MemoryWorker(["a"]), MemoryPrefetcher())
    queue.call(f, series="a")
    queue.detachWorker(1)
    queue.update(f)
    queue.attachWorker(MemoryWorker())
    local = frozenset(["memory", "local"])
    assert queue.statistics().workers == (
        WorkerStatistics(1, "MemoryWorker", local | {"a"}, "stopping", 1, 0, False),
        WorkerStatistics(2, "MemoryPrefetcher", local, "ready", 1, 0, True),
        WorkerStatistics(3, "MemoryWorker", local, "preparing", 1, 0, False),
    )


def test_snapshotIsFrozen() -> None:
    """
    A snapshot does not change with the queue, and cannot be changed.
    """
    queue = MemoryQueue()
    snapshot = queue.statistics()
    queue.call(f)
    assert snapshot.running == 0
    with pytest.raises(AttributeError):
        snapshot.running = 1  # type: ignore[misc]


def why(queue: TaskQueue, **options: Any) -> str:
    """
    What a new call waits for, by its Deferred, and by its task.
    """
    d = queue.call(f, **options)
    said = queue.why(d)
    assert d.task is None or queue.why(d.task) == said  # type: ignore[attr-defined]
    return said


def test_whyWithoutWorkers() -> None:
    """
    Where there is no worker, that is why.
    """
    assert why(TaskQueue(reactor=Clock())) == "it is queued, and there is no worker"


def test_whyWithoutQualifiedWorkers() -> None:
    """
    Where no worker is qualified, the series is named.
    """
    said = why(MemoryQueue(), series="rare")
    assert "none of 1 workers is qualified" in said
    assert "'rare'" in said


def test_whyBehindOthers() -> None:
    """
    Where the workers are busy, it says how many go before.
    """
    queue = MemoryQueue()
    for _ in range(3):
        queue.call(f)
    cancelled = Heard(queue.call(f))
    cancelled.d.cancel()
    queue.call(f, niceness=-4)
    assert why(queue) == "it is queued behind 3 of its series, and the 1 qualified workers are busy"


def test_whyWhileWorkersAreUpdated() -> None:
    """
    Where the workers are being updated, it says so.
    """
    queue = TaskQueue(reactor=Clock())
    queue.update(f)
    queue.attachWorker(MemoryWorker())
    assert why(queue).endswith("the 1 qualified workers are being updated")


def test_whyDoesNotCountWorkersThatLeave() -> None:
    """
    A worker that ends what it has is of no use to a queued task.
    """
    queue = MemoryQueue()
    queue.call(f)
    queue.detachWorker(1)
    assert why(queue) == "it is queued, and there is no worker"


def test_whyWhileItRuns() -> None:
    """
    Where a worker runs it, the worker is named.
    """
    assert why(MemoryQueue()) == "MemoryWorker 1 runs it"


def test_whyWhileItIsLinedUp() -> None:
    """
    Where a worker has it lined up, it says among how many.
    """
    queue = MemoryQueue(MemoryPrefetcher())
    queue.call(f)
    said = why(queue)
    assert said.startswith("MemoryPrefetcher 1 has it, and has not said that it began")
    assert said.endswith("it holds 1 others")


def test_whyAnUpdateWaits() -> None:
    """
    An update waits for its own worker.
    """
    queue = MemoryQueue()
    queue.call(f)
    queue.update(f)
    update = next(task for task in queue._registry.tasks(held=False))
    assert queue.why(update) == "an update waits until MemoryWorker 1 is ready"


def test_whyOfWhatHasEnded() -> None:
    """
    Where it has ended, it says so.
    """
    queue = MemoryQueue()
    d = queue.call(f)
    task = d.task  # type: ignore[attr-defined]
    queue.finish()
    assert queue.why(d) == queue.why(task) == "it has ended"


def test_whyOfWhatIsNotOurs() -> None:
    """
    A Deferred of somebody else is known as such, and so is a task of another queue.
    """
    other = MemoryQueue()
    d = other.call(f)
    task = d.task  # type: ignore[attr-defined]
    for foreign in (Deferred(), d, task):
        assert MemoryQueue().why(foreign) == "it is none of this queue's"
    other.finish()
    assert MemoryQueue().why(task) == "it is none of this queue's"


def test_snapshotsAreForPrograms() -> None:
    """
    C{as_dict} has all of a snapshot as JSON can have it: series in words, states as words
    that programs know.
    """
    queue = MemoryQueue(MemoryWorker(series=["a", ("b", 1)]))
    for options in ({}, {"series": ("b", 1)}, {"series": "c", "after": 3}, {"niceness": 5}):
        Heard(queue.callWith(CallOptions(**options), abs, -1))
    snapshot = queue.statistics().as_dict()
    assert json.loads(json.dumps(snapshot)) == snapshot
    assert snapshot == {
        "queued": 2,
        "running": 1,
        "done": 0,
        "failed": 0,
        "unqualified": 0,
        "flows": [
            {"series": "('b', 1)", "niceness": 0, "band": "fair", "queued": 1, "qualified": 1},
            {"series": None, "niceness": 5, "band": "fair", "queued": 1, "qualified": 1},
        ],
        "workers": [
            {
                "ID": 1,
                "kind": "MemoryWorker",
                "series": ["('b', 1)", "a", "local", "memory"],
                "state": "ready",
                "running": 1,
                "done": 0,
                "waiting": False,
                "pids": [],
            }
        ],
        "dialing": [],
        "later": 1,
    }
    queue.shutdown()


def test_workerWithoutConnectionIsDisconnected() -> None:
    """
    A worker over a wire tells that it has no connection.
    """
    told = RemoteWorker("crew1", reactor=Clock()).statistics()
    assert (told.state, told.connected, told.host) == ("disconnected", False, "crew1")
