"""
Snapshots: how something stands at one moment, for people and for programs.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from attrs import asdict, field, frozen

from asynqueue.outcome import shortRepr


def seriesText(series: Hashable) -> str | None:
    """
    Name a series in a text that a program may read: a string as it is, C{None} as it is,
    anything else as Python shows it.
    """
    return series if series is None or isinstance(series, str) else shortRepr(series)


class Snapshot:
    """
    How something stands at one moment. Those who make one are frozen attrs classes.
    """

    __slots__ = ()

    def as_dict(self) -> dict[str, Any]:
        """
        Return the same for JSON: dicts, lists, strings, numbers, and series in words.
        """
        snapshot: Any = self
        return asdict(snapshot, value_serializer=_plain)


@frozen
class WorkerSnapshot(Snapshot):
    """
    How a worker stands, as it tells itself.

    @ivar state: "serving"; "failing", while it can run nothing; "disconnected", while it has
        no connection to its host; "broken", when it has resigned, and its executor takes no
        calls; "stopping"; "stopped"; or "crashed".
    @ivar slots: how many tasks it can run at once.
    @ivar held: how many it has that have not ended, those sent ahead included.
    @ivar ended: how many it has ended.
    @ivar fault: why it can run nothing for now, in words; else empty.
    """

    state: str
    slots: int
    held: int
    ended: int
    fault: str


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
    @ivar state: the value of its L{WorkerState<asynqueue.scheduling.records.WorkerState>}:
        "preparing", "ready", "failing" or "stopping".
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


@frozen
class Spread(Snapshot):
    """
    How long some calls took.

    @ivar count: how many they are.
    @ivar seconds: how long all of them took, all together.
    @ivar longest: the seconds of the longest.
    @ivar classes: pairs of seconds and a number, which is how many took less than these seconds,
        but not less than half of them; the shortest first.
    """

    count: int
    seconds: float
    longest: float
    classes: tuple[tuple[float, int], ...]


@frozen
class CallTimesStatistics(Snapshot):
    """
    How long the calls of a queue took.

    @ivar waited: from when they were queued until they began.
    @ivar ran: from when they began until they ended.
    """

    waited: Spread
    ran: Spread


def _plain(snapshot: Any, attribute: Any, value: Any) -> Any:
    if attribute is None or attribute.name != "series":
        return list(value) if isinstance(value, tuple) else value
    if attribute.metadata.get("many"):
        return sorted(str(seriesText(series)) for series in value)
    return seriesText(value)
