"""
What a store is to do, in the simplest way: jobs in a dictionary, looked through for everything.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from attrs import define

from asynqueue.stores.errors import KeyTaken
from asynqueue.stores.operations import (
    Act,
    ActOn,
    Add,
    Again,
    Begin,
    Claim,
    Claims,
    End,
    Ended,
    GiveBack,
    Leave,
    Operation,
    Pause,
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
    DEAD,
    DIED,
    ENDED,
    Added,
    Attempt,
    Flow,
    JobFilter,
    JobRecord,
    JobState,
    NewJob,
    OnTaken,
    Outcome,
)

W, L, C, R = JobState.WAITING, JobState.LATER, JobState.CLAIMED, JobState.RUNNING


@define
class Job:
    """
    A job. Only the state says which of the other fields mean anything.
    """

    new: NewJob
    created: float
    due: float
    expires: float | None
    state: JobState = W
    place: int = 0
    number: int = 0
    hasBegun: bool = False
    counted: int = 0
    losses: int = 0
    node: str | None = None
    begun: float | None = None
    stopping: bool = False
    failure: str | None = None
    outcome: Outcome | None = None
    until: float | None = None

    @property
    def attempt(self) -> Attempt:
        return Attempt(self.new.id, self.number)

    def summary(self) -> tuple[Any, ...]:
        """
        What a record is compared with.
        """
        hasNode = self.state not in (W, L)
        return (
            self.new.id,
            self.state,
            self.number,
            (self.counted, self.losses),
            self.node if hasNode else None,
            (self.created, self.due, self.begun if hasNode else None),
            self.stopping,
            self.failure,
            self.outcome,
            self.until,
        )


def comparable(answer: Any) -> Any:
    """
    Return what the model says instead of an answer.
    """
    match answer:
        case Claims():
            claimed = [(c.attempt, c.created, c.losses, c.counted) for c in answer.claimed]
            return claimed, set(answer.expired)
        case Renewed():
            return answer.isAlive, set(answer.stopping)
        case Rescued():
            words = ("nodes", "waiting", "repeated", "lost", "cancelled")
            return {word: set(getattr(answer, word)) for word in words}
        case Ripened():
            return set(answer.flows), answer.next
        case frozenset():
            return set(answer)
        case KeyTaken():
            return KeyTaken, answer.id
        case tuple() | list():
            return [comparable(each) for each in answer]
    return answer


def summary(record: JobRecord) -> tuple[Any, ...]:
    """
    Return what the model says of a job.
    """

    def died(text: str | None) -> str | None:
        return "died" if text == DIED.summary else text

    outcome = record.outcome
    if outcome is not None:
        outcome = Outcome(kind=outcome.kind, value=outcome.value, summary=died(outcome.summary))
    return (
        record.job.id,
        record.state,
        record.attempt,
        (record.counted, record.losses),
        record.node,
        (record.created, record.due, record.begun),
        record.stopping,
        died(record.failure),
        outcome,
        record.until,
    )


class Model:
    """
    A store as it should be.

    @ivar now: the time.
    @ivar jobs: all jobs, by their IDs.
    @ivar nodes: until when the leases of the nodes are.
    @ivar ended: the IDs of jobs whose end was to be told since this was cleared; C{stopping} and
        C{woken} are those that were to stop, and to wait, C{put} those that are due later.
    """

    def __init__(self, now: float) -> None:
        self.now = now
        self.jobs: dict[str, Job] = {}
        self.nodes: dict[str, float] = {}
        self.paused: set[str] = set()
        self.places = 0
        self.ended: set[str] = set()
        self.stopping: set[str] = set()
        self.woken: set[str] = set()
        self.put: set[str] = set()

    def forgetEvents(self) -> None:
        for each in (self.ended, self.stopping, self.woken, self.put):
            each.clear()

    def do(self, operation: Operation[Any]) -> Any:
        """
        Do an operation, and return what is to be compared with its answer.
        """
        return getattr(self, f"do{type(operation).__name__}")(operation)

    # What jobs are looked for

    def waiting(self, flow: Flow | None = None) -> list[Job]:
        found = [
            job
            for job in self.jobs.values()
            if job.state is W
            and (flow is None or job.new.flow == flow)
            and job.new.flow.series not in self.paused
        ]
        return sorted(found, key=lambda job: job.place)

    def holder(self, key: str | None) -> Job | None:
        for job in self.jobs.values():
            if key is not None and job.new.key == key and job.state not in ENDED:
                return job
        return None

    def held(self, node: str, attempt: Attempt) -> Job | None:
        job = self.jobs.get(attempt.id)
        if job and job.state in (C, R) and (job.node, job.number) == (node, attempt.number):
            return job
        return None

    def isExpired(self, job: Job) -> bool:
        return job.expires is not None and job.expires <= self.now

    # From one state to another

    def wait(self, job: Job, isOld: bool = False) -> None:
        if job.state is C and not job.hasBegun:
            # The number was not used.
            job.number -= 1
        if not isOld:
            self.places += 1
            job.place = self.places
        job.state, job.stopping, job.begun, job.node, job.hasBegun = W, False, None, None, False
        self.woken.add(job.new.id)

    def repeat(self, job: Job, delay: float) -> None:
        job.due, job.hasBegun, job.expires = self.now + delay, True, None
        self.wait(job)
        if delay:
            job.state = L
            self.put.add(job.new.id)

    def begin(self, job: Job) -> None:
        job.state, job.begun, job.expires, job.hasBegun = R, self.now, None, True

    def end(self, job: Job, outcome: Outcome) -> None:
        keep = job.new.keepDead if outcome.kind in DEAD else job.new.keep
        job.state, job.outcome, job.until = outcome.kind, outcome, self.now + keep
        job.stopping, job.failure = False, None
        self.ended.add(job.new.id)

    # The operations

    def doAdd(self, operation: Add) -> list[Any]:
        return [self.addOne(new) for new in operation.jobs]

    def addOne(self, new: NewJob) -> Any:
        if new.id in self.jobs:
            return Added(new.id, self.jobs[new.id].state)
        other = self.holder(new.key)
        if other is not None:
            if new.onTaken is OnTaken.JOIN:
                return Added(other.new.id, other.state, joined=True)
            if new.onTaken is OnTaken.REJECT or other.state is R:
                return KeyTaken, other.new.id
            self.end(other, Outcome(kind=JobState.CANCELLED))
        expires = None if new.expires is None else self.now + new.expires
        job = self.jobs[new.id] = Job(new, self.now, self.now + new.after, expires)
        self.wait(job)
        if new.after:
            job.state = L
            self.put.add(new.id)
        return Added(new.id, job.state)

    def doClaim(self, operation: Claim) -> Any:
        claimed, expired = [], set()
        for want in operation.wants if operation.node in self.nodes else ():
            left = want.count
            for job in self.waiting(want.flow):
                if not left:
                    break
                if self.isExpired(job):
                    self.end(job, Outcome(kind=JobState.EXPIRED))
                    expired.add(job.new.id)
                    continue
                left -= 1
                job.state, job.node, job.number = C, operation.node, job.number + 1
                claimed.append((job.attempt, job.created, job.losses, job.counted))
                if operation.begin:
                    self.begin(job)
        return claimed, expired

    def doBegin(self, operation: Begin) -> set[Attempt]:
        found = set()
        for attempt in operation.attempts:
            job = self.held(operation.node, attempt)
            if job and job.state is C and self.isExpired(job):
                self.end(job, Outcome(kind=JobState.EXPIRED))
            elif job:
                if job.state is C:
                    self.begin(job)
                found.add(attempt)
        return found

    def doEnd(self, operation: End) -> set[Attempt]:
        return {each.attempt for each in operation.ends if self.accepts(operation.node, each)}

    def accepts(self, node: str, end: Ended | Again) -> bool:
        job = self.held(node, end.attempt)
        if job is None:
            job = self.jobs.get(end.attempt.id)
            if job is None or isinstance(end, Again) or job.state not in ENDED:
                return False
            if (job.node, job.number) != (node, end.attempt.number):
                return False
            if job.state is JobState.LOST and end.outcome.kind is not JobState.LOST:
                self.end(job, end.outcome)
        elif isinstance(end, Ended):
            self.end(job, end.outcome)
        elif job.stopping:
            self.end(job, Outcome(kind=JobState.CANCELLED))
        else:
            job.counted += end.isCounted
            job.losses += end.isLoss
            self.repeat(job, end.delay)
            job.failure = end.summary
        return True

    def doGiveBack(self, operation: GiveBack) -> set[Attempt]:
        given = set()
        for attempt in operation.attempts:
            job = self.held(operation.node, attempt)
            if job and (job.state is C or operation.begun):
                self.giveBack(job)
                given.add(attempt)
        return given

    def giveBack(self, job: Job) -> None:
        if job.stopping:
            self.end(job, Outcome(kind=JobState.CANCELLED))
        else:
            self.wait(job, isOld=True)

    def doRegister(self, operation: Register) -> None:
        self.nodes[operation.node.id] = self.now + operation.lease

    def doRenew(self, operation: Renew) -> Any:
        if operation.node not in self.nodes:
            return False, set()
        self.nodes[operation.node] = self.now + operation.lease
        jobs = [job for job in self.jobs.values() if job.node == operation.node and job.stopping]
        return True, {job.attempt for job in jobs}

    def doRescue(self, operation: Rescue) -> Any:
        if operation.others is not None:
            dead = self.nodes.keys() - {operation.others}
        else:
            dead = {id for id, at in self.nodes.items() if at + operation.margin < self.now}
        return self.bury(dead)

    def doLeave(self, operation: Leave) -> Any:
        return self.bury({operation.node} & self.nodes.keys())

    def bury(self, dead: set[str]) -> Any:
        found: dict[str, set[str]] = {"waiting": set(), "repeated": set(), "lost": set()}
        found |= {"cancelled": set(), "nodes": dead}
        for node in dead:
            del self.nodes[node]
        for id, job in self.jobs.items():
            if job.state in (C, R) and job.node in dead:
                found[self.rescue(job)].add(id)
        return found

    def rescue(self, job: Job) -> str:
        if job.state is C:
            self.giveBack(job)
            return "waiting"
        if job.stopping:
            self.giveBack(job)
            return "cancelled"
        if job.new.loss and job.counted + 1 < job.new.attempts:
            job.counted += 1
            job.losses += 1
            job.failure = "died"
            self.repeat(job, 0)
            return "repeated"
        self.end(job, Outcome(kind=JobState.LOST, summary="died"))
        return "lost"

    def doRipen(self, operation: Ripen) -> Any:
        due = [job for job in self.jobs.values() if job.state is L and job.due <= self.now]
        for job in sorted(due, key=lambda job: job.due):
            self.wait(job)
        later = [job.due - self.now for job in self.jobs.values() if job.state is L]
        return {job.new.flow for job in due}, min(later, default=None)

    def doPause(self, operation: Pause) -> None:
        self.paused.add(operation.series)

    def doResume(self, operation: Resume) -> None:
        self.paused.discard(operation.series)
        self.woken |= {
            job.new.id for job in self.waiting() if job.new.flow.series == operation.series
        }

    def doActOn(self, operation: ActOn) -> set[str]:
        act = {Act.CANCEL: self.cancel, Act.RETRY: self.retry, Act.DROP: self.drop}[operation.act]
        return {job.new.id for job in list(self.meant(operation.filter)) if act(job)}

    def meant(self, wanted: JobFilter) -> Iterator[Job]:
        for id, job in sorted(self.jobs.items()):
            if (wanted.ids is None or id in wanted.ids) and (
                wanted.series is None or job.new.flow.series in wanted.series
            ):
                yield job

    def cancel(self, job: Job) -> bool:
        if job.state in ENDED or job.stopping:
            return False
        if job.state is R:
            job.stopping = True
            self.stopping.add(job.new.id)
        else:
            self.end(job, Outcome(kind=JobState.CANCELLED))
        return True

    def retry(self, job: Job) -> bool:
        if job.state not in ENDED or job.state is JobState.DONE or self.holder(job.new.key):
            return False
        job.counted = job.losses = 0
        job.outcome = job.until = None
        self.repeat(job, 0)
        return True

    def drop(self, job: Job) -> bool:
        if job.state in ENDED:
            del self.jobs[job.new.id]
            return True
        return False

    def doPrune(self, operation: Prune) -> int:
        old = [job for job in self.jobs.values() if job.until is not None and job.until <= self.now]
        for job in old:
            self.drop(job)
        late = [job for job in self.jobs.values() if job.state in (W, L) and self.isExpired(job)]
        for job in late:
            self.end(job, Outcome(kind=JobState.EXPIRED))
        return len(old) + len(late)
