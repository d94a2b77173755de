"""
How a queue stands: snapshots, and what a task waits for.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from asynqueue.scheduling.lifecycle import Lifecycle
from asynqueue.scheduling.options import REMOTE_SERIES
from asynqueue.scheduling.records import WorkerRecord, WorkerState
from asynqueue.scheduling.snapshots import QueueStatistics, WorkerStatistics
from asynqueue.scheduling.task import BEGUN, ENDED, Task, TaskDeferred

# How many of the workers that dial are named where a task waits for one.
_MOST_DIALING = 3


def queueStatistics(lifecycle: Lifecycle) -> QueueStatistics:
    """
    Return a snapshot of a queue. Costs a look at each flow and each worker.
    """
    registry, dispatcher = lifecycle.registry, lifecycle.dispatcher
    flows = tuple(dispatcher.completeBacklog().statistics())
    return QueueStatistics(
        queued=dispatcher.waiting,
        running=registry.running,
        done=registry.done,
        failed=registry.failed,
        unqualified=sum(flow.queued for flow in flows if not flow.qualified),
        flows=flows,
        workers=tuple(_workerStatistics(record) for record in registry.records.values()),
        dialing=tuple(worker.dialing for worker in lifecycle.reconnects.workers()),
        later=len(dispatcher.later),
    )


def _workerStatistics(record: WorkerRecord) -> WorkerStatistics:
    return WorkerStatistics(
        record.ID,
        type(record.worker).__name__,
        record.lane.qualified,
        record.state.value,
        len(record.tasks),
        record.done,
        record.ready,
        tuple(record.worker.pids) if record.traits.processes else (),
    )


def whyWaits(lifecycle: Lifecycle, taskOrDeferred: Task | Deferred[Any]) -> str:
    """
    Return what a task waits for, in words. For a queued one it costs a look at every queued task.
    """
    found: Any = taskOrDeferred
    registry: object = lifecycle.registry
    if isinstance(taskOrDeferred, TaskDeferred):
        found = taskOrDeferred.task
    elif isinstance(taskOrDeferred, Task) and taskOrDeferred.owner is registry:
        found = taskOrDeferred.d.task
    if found is not None and not (isinstance(found, Task) and found.owner is registry):
        return "it is none of this queue's"
    if found is None:
        return "it has ended"
    record: WorkerRecord | None = found.holder
    if record is None:
        return _whyQueued(lifecycle, found)
    if found in record.updates:
        text = f"an update waits until {record.name} is ready"
        return f"{text}, which can run nothing for now: {record.fault}" if record.fault else text
    if found.state is BEGUN:
        return f"{record.name} runs it"
    others = len(record.tasks) - 1
    return f"{record.name} has it, and has not said that it began; it holds {others} others"


def _whyQueued(lifecycle: Lifecycle, task: Task) -> str:
    dispatcher = lifecycle.dispatcher
    if task in dispatcher.later:
        return f"it begins after {dispatcher.later.remaining(task):.3g} s, not before"
    workers = [
        record
        for record in lifecycle.registry.records.values()
        if record.lane.serves(task.series) and record.state is not WorkerState.STOPPING
    ]
    dialing = _dialing(lifecycle, task)
    if not workers:
        if dialing:
            return f"it is queued, and no worker for it is connected: {dialing}"
        if isinstance(task.callTuple[0], str) and task.series == REMOTE_SERIES:
            refusal = lifecycle.reconnects.refusal
            text = "it is queued, and no worker takes calls by name: there is no host"
            return f"{text} ({refusal})" if refusal else text
        last = f"; {lifecycle.resigned}" if lifecycle.resigned else ""
        if task.series is None:
            return f"it is queued, and there is no worker{last}"
        return (
            f"it is queued, and none of {len(lifecycle.registry.records)} workers is qualified"
            f" for its series {task.series!r}{last}"
        )
    before = sum(
        1
        for other in dispatcher.completeBacklog().tasks()
        if other.series == task.series and other < task and other.state is not ENDED
    )
    preparing = sum(1 for record in workers if record.state is WorkerState.PREPARING)
    text = f"it is queued behind {before} of its series, and "
    if preparing == len(workers):
        return text + f"the {preparing} qualified workers are being updated"
    failing = [record for record in workers if record.state is WorkerState.FAILING]
    if len(failing) == len(workers):
        text += f"{failing[0].name} can run nothing for now: {failing[0].fault}"
    else:
        text += f"the {len(workers)} qualified workers are busy"
    return f"{text}; {dialing}" if dialing else text


def _dialing(lifecycle: Lifecycle, task: Task) -> str:
    """
    Return what the workers do to get a connection that could then run a task, in words.
    """
    workers = [worker.dialing for worker in lifecycle.reconnects.workers(task.series)]
    more = len(workers) - _MOST_DIALING
    if more > 0:
        workers[_MOST_DIALING:] = [f"and {more} others"]
    return "; ".join(workers)
