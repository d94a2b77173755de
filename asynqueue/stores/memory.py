"""
A store in memory: nothing outlives the program. The simplest one that does all that a store can be
asked, and the reference of what that is.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import singledispatchmethod
from itertools import islice
from typing import Any

from attrs import evolve
from twisted.internet.interfaces import IReactorTime

from asynqueue.stores.errors import KeyTaken
from asynqueue.stores.jobtable import JobTable, MemoryJob
from asynqueue.stores.operations import (
    Act,
    ActOn,
    Add,
    Again,
    Begin,
    Claim,
    Claims,
    Count,
    End,
    Ended,
    Find,
    FlowCount,
    Flows,
    GiveBack,
    Leave,
    Nodes,
    Operation,
    Pause,
    Paused,
    Prune,
    Register,
    Renew,
    Renewed,
    Rescue,
    Rescued,
    Resume,
    Ripen,
    Ripened,
)
from asynqueue.stores.records import (
    DIED,
    ENDED,
    Added,
    Attempt,
    Claimed,
    Flow,
    JobFilter,
    JobRecord,
    JobState,
    NewJob,
    NodeRecord,
    OnTaken,
    StoreEvent,
)
from asynqueue.stores.store import Store
from asynqueue.stores.thread import DirectRunner

# How many entries of the audit are kept.
_AUDIT = 10_000


class MemoryEngine:
    """
    Does what a store can be asked, with dictionaries and heaps. Jobs stay when it is closed.

    @ivar audit: what people have done: when, who, what, to which jobs, and to how many of them.
    """

    name = "memory:"
    isShared = False

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        """
        @param clock: tells the seconds of the Unix epoch.
        """
        self._clock = clock
        self._table = JobTable()
        self._nodes: dict[str, NodeRecord] = {}
        self.audit: deque[tuple[float, str, str, JobFilter | str, int]] = deque(maxlen=_AUDIT)

    def open(self) -> None:
        """
        Do nothing: it can be used.
        """

    def close(self) -> None:
        """
        Do nothing: what is in memory goes with the object.
        """

    def execute(self, operations: Sequence[Operation[Any]]) -> tuple[list[Any], StoreEvent]:
        """
        Do each operation; none can fail.
        """
        self._table.transact(self._clock())
        answers = [self._do(operation) for operation in operations]
        return answers, self._table.event()

    @singledispatchmethod
    def _do(self, operation: Operation[Any]) -> Any:
        raise TypeError(f"{operation!r} is no operation that a store knows")

    # Adding

    @_do.register
    def _add(self, operation: Add) -> Sequence[Added | KeyTaken]:
        return tuple(self._addOne(job) for job in operation.jobs)

    def _addOne(self, new: NewJob) -> Added | KeyTaken:
        if (job := self._table.jobs.get(new.id)) is not None:
            return Added(new.id, job.state)
        if new.key is not None and (taker := self._table.keys.get(new.key)) is not None:
            other = self._table.jobs[taker]
            if new.onTaken is OnTaken.JOIN:
                return Added(taker, other.state, joined=True)
            if new.onTaken is OnTaken.REJECT or other.state is JobState.RUNNING:
                return KeyTaken(new.key, taker)
            self._table.cancel(other)
        return Added(new.id, self._table.add(new).state)

    # Attempts

    @_do.register
    def _claim(self, operation: Claim) -> Claims:
        if operation.node not in self._nodes:
            return Claims()
        claimed: list[Claimed] = []
        expired: list[str] = []
        for want in operation.wants:
            most = len(claimed) + want.count
            while len(claimed) < most and (job := self._firstOf(want.flow)) is not None:
                if job.isExpired(self._table.now):
                    self._table.expire(job)
                    expired.append(job.job.id)
                else:
                    claimed.append(self._claimOne(job, operation.node))
                    if operation.begin:
                        self._beginOne(job)
        return Claims(tuple(claimed), tuple(expired))

    def _firstOf(self, flow: Flow) -> MemoryJob | None:
        waiting = self._table.waiting.get(flow)
        if waiting is None or flow.series in self._table.paused:
            return None
        first = waiting.first()
        return None if first is None else self._table.jobs[first[1]]

    def _claimOne(self, job: MemoryJob, node: str) -> Claimed:
        self._table.take(job)
        job.state, job.node, job.claimed = JobState.CLAIMED, node, job.number + 1
        id = job.job.id
        self._table.held[node][id] = None
        attempt = Attempt(id, job.claimed)
        return Claimed(job.job, attempt, job.created, job.losses, job.counted)

    def _heldBy(self, node: str, attempt: Attempt) -> MemoryJob | None:
        """
        Return the job of an attempt if this node has it now.
        """
        job = self._table.jobs.get(attempt.id)
        isHeld = job is not None and job.node == node and job.claimed == attempt.number
        return job if isHeld else None

    @_do.register
    def _begin(self, operation: Begin) -> frozenset[Attempt]:
        begun = set()
        for attempt in operation.attempts:
            job = self._heldBy(operation.node, attempt)
            if job is None:
                continue
            if job.state is JobState.CLAIMED:
                if job.isExpired(self._table.now):
                    self._table.expire(job)
                    continue
                self._beginOne(job)
            begun.add(attempt)
        return frozenset(begun)

    def _beginOne(self, job: MemoryJob) -> None:
        job.state, job.begun, job.number = JobState.RUNNING, self._table.now, job.attempt

    @_do.register
    def _endAll(self, operation: End) -> frozenset[Attempt]:
        return frozenset(
            each.attempt for each in operation.ends if self._accept(operation.node, each)
        )

    def _accept(self, node: str, end: Ended | Again) -> bool:
        job = self._heldBy(node, end.attempt)
        if job is None:
            return isinstance(end, Ended) and self._acceptLate(node, end)
        job.number = end.attempt.number
        if isinstance(end, Ended):
            self._table.end(job, end.outcome)
        elif job.stopping:
            self._table.cancel(job)
        else:
            job.counted += end.isCounted
            job.losses += end.isLoss
            self._repeat(job, end.delay, end.summary)
        return True

    def _acceptLate(self, node: str, end: Ended) -> bool:
        """
        Tell whether it was this attempt that has ended its job, which takes the outcome if it was
        lost.
        """
        job = self._table.jobs.get(end.attempt.id)
        if job is None or job.state not in ENDED:
            return False
        if (job.node, job.number) != (node, end.attempt.number):
            return False
        if job.state is JobState.LOST and end.outcome.kind is not JobState.LOST:
            self._table.end(job, end.outcome)
        return True

    def _repeat(self, job: MemoryJob, delay: float, failure: str | None) -> None:
        self._table.free(job)
        job.failure = failure
        self._table.delay(job, delay)

    @_do.register
    def _giveBack(self, operation: GiveBack) -> frozenset[Attempt]:
        given = set()
        for attempt in operation.attempts:
            job = self._heldBy(operation.node, attempt)
            if job is None or (job.state is JobState.RUNNING and not operation.begun):
                continue
            self._putBack(job)
            given.add(attempt)
        return frozenset(given)

    def _putBack(self, job: MemoryJob) -> None:
        if job.stopping:
            self._table.cancel(job)
        else:
            self._table.free(job)
            self._table.wait(job, job.place)

    # Nodes

    @_do.register
    def _register(self, operation: Register) -> None:
        node, now = operation.node, self._table.now
        known = self._nodes.get(node.id)
        started = now if known is None else known.started
        self._nodes[node.id] = evolve(node, started=started, leaseUntil=now + operation.lease)
        self._table.held.setdefault(node.id, {})

    @_do.register
    def _renew(self, operation: Renew) -> Renewed:
        node = self._nodes.get(operation.node)
        if node is None:
            return Renewed(False)
        self._nodes[node.id] = evolve(node, leaseUntil=self._table.now + operation.lease)
        held = (self._table.jobs[id] for id in self._table.held[node.id])
        return Renewed(True, tuple(Attempt(j.job.id, j.attempt) for j in held if j.stopping))

    @_do.register
    def _rescue(self, operation: Rescue) -> Rescued:
        latest = self._table.now - operation.margin
        return self._bury(
            [
                node.id
                for node in self._nodes.values()
                if node.id != operation.others
                and (operation.others is not None or node.leaseUntil < latest)
            ]
        )

    @_do.register
    def _leave(self, operation: Leave) -> Rescued:
        return self._bury([operation.node] if operation.node in self._nodes else [])

    def _bury(self, nodes: list[str]) -> Rescued:
        """
        Forget nodes, and let what they have wait, be repeated, or end.
        """
        found: dict[str, list[str]] = {
            each: [] for each in ("waiting", "repeated", "lost", "cancelled")
        }
        for node in nodes:
            for id in list(self._table.held[node]):
                found[self._rescueOne(self._table.jobs[id])].append(id)
            del self._nodes[node], self._table.held[node]
        return Rescued(tuple(nodes), **{word: tuple(ids) for word, ids in found.items()})

    def _rescueOne(self, job: MemoryJob) -> str:
        """
        Return what has become of it, in the words of L{Rescued}.
        """
        if job.state is JobState.CLAIMED:
            self._putBack(job)
            return "waiting"
        if job.stopping:
            self._table.cancel(job)
            return "cancelled"
        if job.job.loss and job.counted + 1 < job.job.attempts:
            job.counted += 1
            job.losses += 1
            self._repeat(job, 0, DIED.summary)
            return "repeated"
        self._table.end(job, DIED)
        return "lost"

    # Flows

    @_do.register
    def _flows(self, operation: Flows) -> Sequence[FlowCount]:
        return tuple(
            FlowCount(flow, len(waiting))
            for flow, waiting in self._table.waiting.items()
            if flow.series not in self._table.paused
            and (operation.series is None or flow.series in operation.series)
        )

    @_do.register
    def _ripen(self, operation: Ripen) -> Ripened:
        flows: dict[Flow, None] = {}
        for id in self._table.later.until(self._table.now):
            job = self._table.jobs[id]
            self._table.take(job)
            self._table.wait(job)
            flows[job.job.flow] = None
        first = self._table.later.first()
        return Ripened(tuple(flows), None if first is None else first[0] - self._table.now)

    @_do.register
    def _pause(self, operation: Pause) -> None:
        self._table.paused.add(operation.series)
        self._note(operation.who, "pause", operation.series, 1)

    @_do.register
    def _resume(self, operation: Resume) -> None:
        self._table.paused.discard(operation.series)
        for flow in self._table.waiting:
            if flow.series == operation.series:
                self._table.changes.flows[flow] = None
        self._note(operation.who, "resume", operation.series, 1)

    # What people ask

    @_do.register
    def _pausedSeries(self, operation: Paused) -> Sequence[str]:
        return tuple(sorted(self._table.paused))

    @_do.register
    def _nodeRecords(self, operation: Nodes) -> Sequence[NodeRecord]:
        return tuple(self._nodes.values())

    def _note(self, who: str, what: str, jobs: JobFilter | str, number: int) -> None:
        self.audit.append((self._table.now, who, what, jobs, number))

    @_do.register
    def _find(self, operation: Find) -> Sequence[JobRecord]:
        found = self._table.matching(operation.filter, operation.after, operation.newestFirst)
        return tuple(job.record() for job in islice(found, operation.count))

    @_do.register
    def _count(self, operation: Count) -> dict[JobState, int]:
        counted: dict[JobState, int] = {}
        for job in self._table.matching(operation.filter):
            counted[job.state] = counted.get(job.state, 0) + 1
        return counted

    @_do.register
    def _act(self, operation: ActOn) -> Sequence[str]:
        do = {
            Act.CANCEL: self._cancelOne,
            Act.RETRY: self._retryOne,
            Act.DROP: self._dropOne,
        }[operation.act]
        done = tuple(job.job.id for job in list(self._table.matching(operation.filter)) if do(job))
        self._note(operation.who, operation.act.value, operation.filter, len(done))
        return done

    def _cancelOne(self, job: MemoryJob) -> bool:
        if job.state in ENDED or job.stopping:
            return False
        if job.state is JobState.RUNNING:
            job.stopping = True
            self._table.changes.stopping.append(job.job.id)
        else:
            self._table.cancel(job)
        return True

    def _retryOne(self, job: MemoryJob) -> bool:
        table, key = self._table, job.job.key
        if job.state not in ENDED - {JobState.DONE} or (key is not None and key in table.keys):
            return False
        if key is not None:
            table.keys[key] = job.job.id
        table.kept.discard(job.job.id)
        job.outcome = job.begun = job.ended = job.node = job.until = job.expiresAt = None
        job.counted = job.losses = 0
        table.delay(job, 0)
        return True

    def _dropOne(self, job: MemoryJob) -> bool:
        if job.state not in ENDED:
            return False
        self._table.forget(job)
        return True

    @_do.register
    def _prune(self, operation: Prune) -> int:
        most, done = operation.most, 0
        for id in islice(self._table.expiring.until(self._table.now), most):
            self._table.expire(self._table.jobs[id])
            done += 1
        for id in islice(self._table.kept.until(self._table.now), most - done):
            self._table.forget(self._table.jobs[id])
            done += 1
        return done


class MemoryStore(Store):
    """
    A store of this program alone, in its memory: for tests, and for jobs that may be forgotten when
    it ends. All is done before C{do} returns.
    """

    def __init__(self, clock: IReactorTime | None = None) -> None:
        """
        @param clock: tells the time; C{None}: the time of the day.
        """
        seconds = time.time if clock is None else clock.seconds
        super().__init__(MemoryEngine(seconds), DirectRunner())
