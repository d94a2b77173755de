"""
What a store keeps of jobs and nodes, as frozen values. No I/O, no Twisted.

Times are seconds of the Unix epoch by the clock of the store. What a program says of the
future is seconds from now, so that its own clock never matters.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from attrs import field, frozen


class JobState(Enum):
    """
    How far a job is. The values are words for programs.

    @cvar WAITING: can be claimed.
    @cvar LATER: waits until it is due.
    @cvar CLAIMED: a node has taken it, and has not begun it.
    @cvar RUNNING: a node has begun it.
    @cvar DONE: has returned a value.
    @cvar FAILED: has raised, and is not repeated.
    @cvar LOST: has begun, and how it ended cannot be learned; it is not repeated.
    @cvar CANCELLED: was cancelled.
    @cvar EXPIRED: had not begun when its time was over.
    """

    WAITING = "waiting"
    LATER = "later"
    CLAIMED = "claimed"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    LOST = "lost"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


# The states of jobs that have an outcome, and of those whose outcome wants a person.
ENDED = frozenset(
    {
        JobState.DONE,
        JobState.FAILED,
        JobState.LOST,
        JobState.CANCELLED,
        JobState.EXPIRED,
    }
)
DEAD = frozenset({JobState.FAILED, JobState.LOST})


class Band(Enum):
    """
    Which of the three queues of a series a job waits in: all of a band leave before the next.
    """

    NEXT = 0
    FAIR = 1
    LAST = 2


class OnTaken(Enum):
    """
    What becomes of a new job whose key another job has.

    @cvar JOIN: it is not stored; who adds it hears of the other one.
    @cvar REJECT: it is not stored; who adds it hears of
        L{KeyTaken<asynqueue.stores.errors.KeyTaken>}.
    @cvar REPLACE: the other one is cancelled unless it is running, and this one stored. If it is
        running, the new one is rejected.
    """

    JOIN = "join"
    REJECT = "reject"
    REPLACE = "replace"


@frozen
class Flow:
    """
    The jobs that leave a store in the order in which they came.

    @ivar series: what a worker must be qualified for; empty: every worker is.
    @ivar niceness: from -20 to 20: how small the share of the flow is.
    """

    series: str = ""
    niceness: int = 0
    band: Band = Band.FAIR


@frozen(kw_only=True)
class NewJob:
    """
    A job as it is added. It is never changed.

    @ivar id: a UUID in its canonical form, made by who adds the job. To add a job again is to add
        it once: so one may ask again when it is unknown whether a job was stored.
    @ivar name: what is called, C{"module:function"}.
    @ivar payload: the arguments, as the codec has made them.
    @ivar options: how the job is run, as who runs it understands it; opaque to the store.
    @ivar attempts: how often the job may be begun, in all.
    @ivar loss: whether a lost attempt is repeated, within C{attempts}.
    @ivar key: what makes the job unique among those that have not ended.
    @ivar after: the job is not claimed before this many seconds from now.
    @ivar expires: the job is ended as expired when it has not begun in this many seconds from now.
        One that has begun once, or was retried by people, never expires.
    @ivar keep: for how many seconds a good outcome is kept; of one who wants a person,
        C{keepDead}.
    @ivar trace: the context of a trace, opaque to the store.
    @ivar parent: the ID of the job that has added this one.
    """

    id: str
    name: str
    payload: bytes = field(repr=False)
    codec: str = "cbor"
    options: bytes = field(default=b"", repr=False)
    flow: Flow = Flow()
    attempts: int = 1
    loss: bool = False
    key: str | None = None
    onTaken: OnTaken = OnTaken.JOIN
    after: float = 0.0
    expires: float | None = None
    keep: float = 86_400.0
    keepDead: float = 14 * 86_400.0
    trace: str | None = None
    parent: str | None = None


@frozen
class Added:
    """
    What became of a job that was added.

    @ivar id: the job that has the key now: the new one, or another that it has joined.
    @ivar joined: whether it is another one.
    """

    id: str
    state: JobState
    joined: bool = False


@frozen
class Attempt:
    """
    One run of a job. The number is the fence: of a job only the latest attempt may end it.

    The number that a claim gives is one more than that of the latest attempt that was begun, or has
    ended the job. So no two attempts that may have begun have the same one.
    """

    id: str
    number: int


@frozen
class Claimed:
    """
    A job that a node has taken, with the attempt that it would be.

    @ivar losses: how many attempts of it were lost before.
    @ivar counted: how many attempts of it have begun and were counted before.
    """

    job: NewJob
    attempt: Attempt
    created: float
    losses: int = 0
    counted: int = 0


@frozen(kw_only=True)
class Outcome:
    """
    How an attempt, and with it a job, has ended.

    @ivar kind: one of L{ENDED}.
    @ivar value: what was returned, as the codec has made it; C{None}: it is not kept.
    @ivar error: what was raised, as who runs the job has put it; opaque to the store.
    @ivar summary: the error in a line, for people and filters.
    """

    kind: JobState
    codec: str = "cbor"
    value: bytes | None = field(default=None, repr=False)
    error: bytes | None = field(default=None, repr=False)
    summary: str | None = None


# How a job ends, or why it is repeated, whose node was taken for dead.
DIED = Outcome(kind=JobState.LOST, summary="the program that ran it has died, or was not heard of")


@frozen(kw_only=True)
class JobRecord:
    """
    A job as the store has it now.

    @ivar job: as it was added; but C{after} and C{onTaken}, which count no more, may have their
        defaults.
    @ivar attempt: the number of the attempt that a node has, or that has ended it; else of the
        latest that was begun, 0: none.
    @ivar counted: how many attempts were counted before this one, since it was added or retried.
    @ivar losses: how many attempts were lost before this one, since then.
    @ivar due: from when on it may be claimed. It is C{created} if nothing has put it off.
    @ivar begun: when the attempt that runs, or has ended it, has begun.
    @ivar node: the ID of the node that has it, or had it as it ended.
    @ivar stopping: whether a running one was cancelled.
    @ivar failure: why its latest attempt is repeated, in a line; C{None} when it has ended.
    @ivar outcome: how it has ended; C{None}: it has not.
    @ivar until: when its outcome is pruned.
    """

    job: NewJob
    state: JobState
    attempt: int = 0
    counted: int = 0
    losses: int = 0
    created: float
    due: float
    begun: float | None = None
    ended: float | None = None
    node: str | None = None
    stopping: bool = False
    failure: str | None = None
    outcome: Outcome | None = None
    until: float | None = None


@frozen(kw_only=True)
class NodeRecord:
    """
    A program with a queue on a store, for as long as it runs.

    @ivar id: a UUID, new for each start of the program.
    @ivar name: for people.
    @ivar started: when it has registered. The store sets it, and C{leaseUntil}: until when the node
        is believed to live.
    """

    id: str
    name: str
    host: str
    pid: int
    version: str = ""
    series: tuple[str, ...] = ()
    slots: int = 0
    started: float = 0.0
    leaseUntil: float = 0.0


@frozen(kw_only=True)
class JobFilter:
    """
    Which jobs are meant: those to which all that is not C{None} applies.

    @ivar names: of the functions, C{"module:function"}.
    @ivar olderThan: created longer than this many seconds ago; C{newerThan}: less long ago.
    @ivar text: a part of the name, the key, or of the error in a line; upper or lower case.
    """

    ids: frozenset[str] | None = None
    states: frozenset[JobState] | None = None
    series: frozenset[str] | None = None
    names: frozenset[str] | None = None
    key: str | None = None
    node: str | None = None
    olderThan: float | None = None
    newerThan: float | None = None
    text: str | None = None


ALL = JobFilter()


@frozen
class StoreEvent:
    """
    Something that has changed in a store, by any program.

    @ivar flows: have jobs now that can be claimed.
    @ivar ended: the IDs of jobs that have an outcome now.
    @ivar stopping: the IDs of running jobs that were cancelled.
    @ivar isUnknown: whether anything may have changed: the connection that tells it was lost
        meanwhile.
    @ivar hasLater: whether jobs were added, or put back, that are due later.
    """

    flows: Sequence[Flow] = ()
    ended: Sequence[str] = ()
    stopping: Sequence[str] = ()
    hasLater: bool = False
    isUnknown: bool = False
