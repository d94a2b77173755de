"""
The jobs of a store in memory, the orders that they wait in, and how they go from one state to
another. No Twisted.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from heapq import heapify, heappop, heappush
from itertools import count

from attrs import define, field

from asynqueue.stores.records import (
    DEAD,
    Flow,
    JobFilter,
    JobRecord,
    JobState,
    NewJob,
    Outcome,
    StoreEvent,
)


@define(eq=False)
class MemoryJob:
    """
    A job, and all that changes of it. Fields that L{JobRecord} has mean the same there.

    @ivar number: of the latest attempt that was begun, or has ended the job.
    @ivar claimed: the number of the attempt that a node has; C{None}: no node has the job.
    @ivar place: in its flow: what came earlier has a smaller one.
    @ivar expiresAt: when it expires, unless it was begun; C{None}: never.
    """

    job: NewJob
    created: float
    due: float
    expiresAt: float | None
    state: JobState = JobState.WAITING
    place: int = 0
    number: int = 0
    claimed: int | None = None
    counted: int = 0
    losses: int = 0
    failure: str | None = None
    begun: float | None = None
    ended: float | None = None
    node: str | None = None
    stopping: bool = False
    outcome: Outcome | None = None
    until: float | None = None

    @property
    def attempt(self) -> int:
        return self.number if self.claimed is None else self.claimed

    def isExpired(self, now: float) -> bool:
        return self.expiresAt is not None and self.number == 0 and self.expiresAt <= now

    def record(self) -> JobRecord:
        """
        Return what there is to know of it now.
        """
        return JobRecord(
            job=self.job,
            state=self.state,
            attempt=self.attempt,
            counted=self.counted,
            losses=self.losses,
            created=self.created,
            due=self.due,
            begun=self.begun,
            ended=self.ended,
            node=self.node,
            stopping=self.stopping,
            failure=self.failure,
            outcome=self.outcome,
            until=self.until,
        )


class Order:
    """
    IDs in the order of their keys, which are numbers. What is discarded leaves the heap when it
    comes to its top, or when most of the heap is such.
    """

    def __init__(self) -> None:
        self.keys: dict[str, float] = {}
        self._heap: list[tuple[float, str]] = []

    def __len__(self) -> int:
        return len(self.keys)

    def add(self, id: str, key: float) -> None:
        """
        Enter an ID that is not there.
        """
        self.keys[id] = key
        heappush(self._heap, (key, id))

    def discard(self, id: str) -> None:
        """
        Take an ID out, if it is there.
        """
        self.keys.pop(id, None)
        if len(self._heap) > 2 * len(self.keys) + 64:
            self._heap = [(key, id) for id, key in self.keys.items()]
            heapify(self._heap)

    def first(self) -> tuple[float, str] | None:
        """
        Return the smallest key and its ID, which stay; C{None}: there are none.
        """
        heap = self._heap
        while heap and self.keys.get(heap[0][1]) != heap[0][0]:
            heappop(heap)
        return heap[0] if heap else None

    def until(self, key: float) -> Iterator[str]:
        """
        Iterate over the IDs with keys up to this one, of which each must be discarded before the
        next is asked for.
        """
        while (first := self.first()) is not None and first[0] <= key:
            yield first[1]


@define
class Changes:
    """
    What one transaction has changed.
    """

    flows: dict[Flow, None] = field(factory=dict)
    ended: list[str] = field(factory=list)
    stopping: list[str] = field(factory=list)
    hasLater: bool = False


class JobTable:
    """
    All jobs, and what has changed in the present transaction.

    @ivar now: when the present transaction is.
    @ivar jobs: all, by their IDs.
    @ivar keys: the IDs of those that have not ended, by their keys.
    @ivar later: those that are due later, by when that is.
    @ivar expiring: those that wait and may expire, by when they do.
    @ivar kept: those that have ended, by when they are pruned.
    @ivar held: what each node has, in the order in which it was claimed.
    @ivar paused: the series that are paused.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.jobs: dict[str, MemoryJob] = {}
        self.keys: dict[str, str] = {}
        self.waiting: dict[Flow, Order] = {}
        self.later, self.expiring, self.kept = Order(), Order(), Order()
        self.held: dict[str, dict[str, None]] = {}
        self.paused: set[str] = set()
        self.changes = Changes()
        self._places = count(1)
        # All IDs in their order; None: it is to be made anew.
        self._ids: list[str] | None = None

    def transact(self, now: float) -> None:
        """
        Begin another transaction.
        """
        self.now, self.changes = now, Changes()

    def event(self) -> StoreEvent:
        """
        Tell what the present transaction has changed.
        """
        changes = self.changes
        return StoreEvent(
            tuple(flow for flow in changes.flows if flow.series not in self.paused),
            tuple(changes.ended),
            tuple(changes.stopping),
            changes.hasLater,
        )

    def add(self, new: NewJob) -> MemoryJob:
        """
        Enter a job whose ID and key are free.
        """
        expiresAt = None if new.expires is None else self.now + new.expires
        job = MemoryJob(new, self.now, self.now, expiresAt)
        self.jobs[new.id] = job
        self._ids = None
        if new.key is not None:
            self.keys[new.key] = new.id
        self.delay(job, new.after)
        return job

    # From one state to another

    def wait(self, job: MemoryJob, place: int | None = None) -> None:
        """
        Let a job wait to be claimed.

        @param place: its old one; C{None}: at the end of its flow.
        """
        job.state = JobState.WAITING
        job.place = next(self._places) if place is None else place
        flow = job.job.flow
        self.waiting.setdefault(flow, Order()).add(job.job.id, job.place)
        self._watch(job)
        self.changes.flows[flow] = None

    def delay(self, job: MemoryJob, seconds: float) -> None:
        """
        Let a job wait to be claimed, but not before so long from now.
        """
        job.due = self.now + max(0.0, seconds)
        if seconds <= 0:
            self.wait(job)
            return
        job.state = JobState.LATER
        self.later.add(job.job.id, job.due)
        self._watch(job)
        self.changes.hasLater = True

    def _watch(self, job: MemoryJob) -> None:
        if job.expiresAt is not None and job.number == 0:
            self.expiring.add(job.job.id, job.expiresAt)

    def take(self, job: MemoryJob) -> None:
        """
        Take a job out of all that it waits in, and from the node that has it.
        """
        id, flow = job.job.id, job.job.flow
        if job.state is JobState.WAITING:
            waiting = self.waiting[flow]
            waiting.discard(id)
            if not waiting:
                del self.waiting[flow]
        self.later.discard(id)
        self.expiring.discard(id)
        if job.node in self.held:
            self.held[job.node].pop(id, None)

    def free(self, job: MemoryJob) -> None:
        """
        Take a job that is to wait again from its node.
        """
        self.take(job)
        job.claimed = job.begun = job.node = None
        job.stopping = False

    def end(self, job: MemoryJob, outcome: Outcome) -> None:
        """
        End a job, or give one that is lost its true outcome.
        """
        self.take(job)
        id = job.job.id
        if job.job.key is not None and self.keys.get(job.job.key) == id:
            del self.keys[job.job.key]
        job.number, job.claimed = job.attempt, None
        job.state, job.outcome, job.ended = outcome.kind, outcome, self.now
        job.stopping, job.failure = False, None
        keep = job.job.keepDead if outcome.kind in DEAD else job.job.keep
        job.until = self.now + keep
        self.kept.discard(id)
        self.kept.add(id, job.until)
        self.changes.ended.append(id)

    def expire(self, job: MemoryJob) -> None:
        self.end(job, Outcome(kind=JobState.EXPIRED))

    def cancel(self, job: MemoryJob) -> None:
        self.end(job, Outcome(kind=JobState.CANCELLED))

    def forget(self, job: MemoryJob) -> None:
        """
        Forget a job that has ended.
        """
        self.kept.discard(job.job.id)
        del self.jobs[job.job.id]
        self._ids = None

    # Which are meant

    def _sortedIDs(self) -> list[str]:
        if self._ids is None:
            self._ids = sorted(self.jobs)
        return self._ids

    def matching(
        self, wanted: JobFilter, after: str | None = None, newestFirst: bool = False
    ) -> Iterator[MemoryJob]:
        """
        Iterate over the jobs of a filter in the order of their IDs, or in the opposite one.
        """
        if wanted.ids is None:
            ids = self._sortedIDs()
        else:
            ids = sorted(wanted.ids & self.jobs.keys())
        indexes: Iterable[int]
        if newestFirst:
            start = len(ids) if after is None else bisect_left(ids, after)
            indexes = range(start - 1, -1, -1)
        else:
            indexes = range(0 if after is None else bisect_right(ids, after), len(ids))
        jobs = (self.jobs[ids[index]] for index in indexes)
        return (job for job in jobs if self._isMeant(job, wanted))

    def _isMeant(self, job: MemoryJob, wanted: JobFilter) -> bool:
        new, age = job.job, self.now - job.created
        return (
            (wanted.states is None or job.state in wanted.states)
            and (wanted.series is None or new.flow.series in wanted.series)
            and (wanted.names is None or new.name in wanted.names)
            and (wanted.key is None or new.key == wanted.key)
            and (wanted.node is None or job.node == wanted.node)
            and (wanted.olderThan is None or age > wanted.olderThan)
            and (wanted.newerThan is None or age < wanted.newerThan)
            and (wanted.text is None or self._isIn(wanted.text.lower(), job))
        )

    def _isIn(self, text: str, job: MemoryJob) -> bool:
        error = job.failure if job.outcome is None else job.outcome.summary
        return any(text in (word or "").lower() for word in (job.job.name, job.job.key, error))
