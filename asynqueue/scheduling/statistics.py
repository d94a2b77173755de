"""
How a queue stands: snapshots, and what a task waits for.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from attrs import field, frozen
from twisted.internet.defer import Deferred

from asynqueue.scheduling.flows import FAIR, LAST, NEXT, Flow
from asynqueue.scheduling.lifecycle import Lifecycle
from asynqueue.scheduling.options import REMOTE_SERIES
from asynqueue.scheduling.records import WorkerRecord, WorkerState
from asynqueue.scheduling.snapshots import Snapshot
from asynqueue.scheduling.task import BEGUN, ENDED, Task, TaskDeferred

# So many of the workers that dial are named where a task waits for one.
_MOST_DIALING = 3

_BAND_NAMES = {NEXT: "doNext", FAIR: "fair", LAST: "doLast"}


@frozen
class FlowStatistics(Snapshot):
    """
    How a flow stands.

    @ivar series: its series.
    @ivar niceness: its niceness; 0 in the other bands.
    @ivar band: "doNext", "fair" or "doLast".
    @ivar queued: how many of its tasks wait.
    @ivar qualified: how many workers may run them. With none, they wait for one.
    """

    series: Hashable
    niceness: int
    band: str
    queued: int
    qualified: int


@frozen
class WorkerStatistics(Snapshot):
    """
    How a worker stands.

    @ivar ID: its number in the queue.
    @ivar kind: the name of its class.
    @ivar series: what it is qualified for, besides C{None}.
    @ivar state: the value of its L{WorkerState}: "preparing", "ready", "failing" or "stopping".
    @ivar running: how many tasks it holds, those sent ahead included.
    @ivar done: how many it has ended.
    @ivar waiting: whether it waits for a task.
    @ivar pids: the process IDs of its children, if its tasks run in such.
    """

    ID: int
    kind: str
    series: frozenset[Hashable] = field(metadata={"many": True})
    state: str
    running: int
    done: int
    waiting: bool
    pids: tuple[int, ...] = ()


@frozen
class QueueStatistics(Snapshot):
    """
    How a queue stands at one moment.

    @ivar queued: how many tasks wait.
    @ivar running: how many tasks workers hold.
    @ivar done: how many tasks have ended, since the queue began.
    @ivar failed: how many of those failed, cancelled ones included.
    @ivar unqualified: how many of those that wait have no worker that may run
        them.
    @ivar flows: the flows in which tasks wait.
    @ivar workers: the workers.
    @ivar later: how many wait for their time, and not for a worker.
    @ivar dialing: what each worker without a connection does to get one, in words.
    """

    queued: int
    running: int
    done: int
    failed: int
    unqualified: int
    flows: tuple[FlowStatistics, ...]
    workers: tuple[WorkerStatistics, ...]
    dialing: tuple[str, ...] = ()
    later: int = 0


def queueStatistics(lifecycle: Lifecycle) -> QueueStatistics:
    """
    A snapshot of a queue. Costs a look at each flow and each worker.
    """
    registry, dispatcher = lifecycle.registry, lifecycle.dispatcher
    flows = tuple(_flowStatistics(flow) for flow in dispatcher.scheduler.flows())
    return QueueStatistics(
        queued=dispatcher.scheduler.queued,
        running=registry.running,
        done=registry.done,
        failed=registry.failed,
        unqualified=sum(flow.queued for flow in flows if not flow.qualified),
        flows=flows,
        workers=tuple(_workerStatistics(record) for record in registry.records.values()),
        dialing=tuple(worker.dialing for worker in lifecycle.reconnects.workers()),
        later=len(dispatcher.later),
    )


def _flowStatistics(flow: Flow) -> FlowStatistics:
    return FlowStatistics(
        flow.series,
        flow.niceness,
        _BAND_NAMES[flow.band],
        len(flow.tasks) - flow.dead,
        sum(lane.workers for lane in flow.lanes),
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
    What a task waits for, in words. For a queued one it costs a look at every
    queued task.
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
    lanes = dispatcher.scheduler.lanes(task.series)
    workers = [
        record
        for record in lifecycle.registry.records.values()
        if record.lane in lanes and record.state is not WorkerState.STOPPING
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
        for other in dispatcher.scheduler.tasks()
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
    What the workers do to get a connection that could then run a task, in words.
    """
    workers = [worker.dialing for worker in lifecycle.reconnects.workers(task.series)]
    more = len(workers) - _MOST_DIALING
    if more > 0:
        workers[_MOST_DIALING:] = [f"and {more} others"]
    return "; ".join(workers)
