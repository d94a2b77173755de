"""
What a store can be asked: each an operation, whose answer has a type. No I/O, no Twisted.

Operations are values, so that many can be gathered into one transaction, be lost on purpose in
tests, or be sent elsewhere. In what order those of one transaction are done, and what each
answers, is the same as if each had a transaction of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Generic, TypeVar

from attrs import frozen

from asynqueue.stores.errors import KeyTaken
from asynqueue.stores.records import (
    ALL,
    Added,
    Attempt,
    Claimed,
    Flow,
    JobFilter,
    JobRecord,
    JobState,
    NewJob,
    NodeRecord,
    Outcome,
)

T_co = TypeVar("T_co", covariant=True)


class Operation(Generic[T_co]):
    """
    Something that a store can be asked; its answer is a C{T_co}.
    """

    __slots__ = ()


@frozen
class Add(Operation[Sequence[Added | KeyTaken]]):
    """
    Store jobs, all or none.

    The answer says of each, in their order, what became of it. One whose ID is stored already
    is not stored again.
    """

    jobs: tuple[NewJob, ...]


@frozen
class Want:
    """
    How many jobs of a flow are wanted, at most.
    """

    flow: Flow
    count: int


@frozen
class Claims:
    """
    What a L{Claim} has found.

    @ivar claimed: the jobs, flow by flow as they were wanted; in each in the order in which they
        came.
    @ivar expired: the IDs of those that were found to be expired, and have ended so.
    """

    claimed: Sequence[Claimed] = ()
    expired: Sequence[str] = ()


@frozen
class Claim(Operation[Claims]):
    """
    Take the first jobs that wait in some flows, for a node that lives. None of a series that is
    paused is taken.
    """

    # Whether the attempts begin with that (as by L{Begin}, in the same transaction): their node
    # hands them to workers as soon as it hears of them.
    node: str
    wants: tuple[Want, ...]
    begin: bool = False


@frozen
class Begin(Operation[frozenset[Attempt]]):
    """
    Note that attempts of a node begin. The answer has those that may: the others were
    cancelled or expired, or the node has lost its lease, and must not begin.
    """

    node: str
    attempts: tuple[Attempt, ...]


@frozen
class Ended:
    """
    An attempt that has ended, and its job with it.
    """

    attempt: Attempt
    outcome: Outcome


@frozen
class Again:
    """
    An attempt that has ended, and after which the job is to be repeated.

    @ivar delay: the next one is not claimed before this many seconds from now.
    @ivar isCounted: whether it counts as one of the job's attempts. Its number is not used again
        in either case.
    @ivar isLoss: whether it was lost.
    @ivar summary: why, in a line.
    """

    attempt: Attempt
    delay: float = 0.0
    isCounted: bool = True
    isLoss: bool = False
    summary: str | None = None


@frozen
class End(Operation[frozenset[Attempt]]):
    """
    Store how attempts have ended. The answer has those that were accepted. One is refused when
    another attempt of its job has ended it, or may do so. A job that is lost and was not repeated
    takes the outcome of its latest attempt, late as it is: it is the truth.

    A job that is cancelled as it runs, and is to be repeated, is ended as cancelled.
    """

    node: str
    ends: tuple[Ended | Again, ...]


@frozen
class GiveBack(Operation[frozenset[Attempt]]):
    """
    Put jobs back in their old places that a node has claimed, and has not begun, or has begun and
    knows that no worker has (C{begun}). No attempt is counted. The answer has those that
    were the node's.
    """

    node: str
    attempts: tuple[Attempt, ...]
    begun: bool = False


@frozen
class Register(Operation[None]):
    """
    Enter a node, which lives for a lease from now.
    """

    node: NodeRecord
    lease: float


@frozen
class Renewed:
    """
    What a node hears as it renews its lease.

    @ivar isAlive: whether it had not been taken for dead meanwhile. If it had, it must claim and
        begin nothing, and register anew under another ID.
    @ivar stopping: its running jobs that were cancelled.
    """

    isAlive: bool
    stopping: Sequence[Attempt] = ()


@frozen
class Renew(Operation[Renewed]):
    """
    Let a node live for a lease from now.
    """

    node: str
    lease: float


@frozen
class Rescued:
    """
    What became of the jobs of nodes that are dead, by their IDs.

    @ivar nodes: the dead.
    @ivar waiting: were not begun, and wait again in their old places.
    @ivar repeated: were lost, and wait for their next attempt.
    @ivar lost: have ended as lost.
    @ivar cancelled: have ended as cancelled: they were cancelled as they ran.
    """

    nodes: Sequence[str] = ()
    waiting: Sequence[str] = ()
    repeated: Sequence[str] = ()
    lost: Sequence[str] = ()
    cancelled: Sequence[str] = ()


@frozen
class Rescue(Operation[Rescued]):
    """
    Take over the jobs of nodes whose lease, and a margin, is over, and forget the nodes.

    @ivar margin: in seconds.
    @ivar others: the node that asks, in a store that only one program can have open: then all
        others are dead, whatever their leases say.
    """

    margin: float = 0.0
    others: str | None = None


@frozen
class Leave(Operation[Rescued]):
    """
    Forget a node that stops. What it still has is treated as if it were dead.
    """

    node: str


@frozen
class FlowCount:
    """
    How many jobs of a flow wait. A store need not count further than 10,000.
    """

    flow: Flow
    waiting: int


@frozen
class Flows(Operation[Sequence[FlowCount]]):
    """
    Tell which flows have jobs that can be claimed now.

    @ivar series: only of these; C{None}: of all.
    """

    series: frozenset[str] | None = None


@frozen
class Ripened:
    """
    @ivar flows: those whose jobs have come to be due.
    @ivar next: in how many seconds the next job is due; C{None}: there is none.
    """

    flows: Sequence[Flow]
    next: float | None


@frozen
class Ripen(Operation[Ripened]):
    """
    Let the jobs that are due wait to be claimed. How many at once is up to the store: if some are
    left, it says that the next one is due in 0 seconds.
    """


@frozen
class Find(Operation[Sequence[JobRecord]]):
    """
    Read jobs, a page of them, in the order of their IDs: that is of their age.

    @ivar after: the last ID of the page before.
    @ivar newestFirst: in the opposite order.
    """

    filter: JobFilter = ALL
    after: str | None = None
    count: int = 100
    newestFirst: bool = False


@frozen
class Count(Operation[dict[JobState, int]]):
    """
    Count jobs by state. States without any are missing.
    """

    filter: JobFilter = ALL


class Act(Enum):
    """
    What can be done to many jobs at once.

    @cvar CANCEL: those that have not begun have ended as cancelled. Those that run end so when
        their node has heard of it.
    @cvar RETRY: those that have failed, are lost, cancelled or expired wait again, at the end of
        their flows, with as many attempts as a new job. One whose key another job has by now
        stays as it is.
    @cvar DROP: those that have ended are forgotten.
    """

    CANCEL = "cancel"
    RETRY = "retry"
    DROP = "drop"


@frozen
class ActOn(Operation[Sequence[str]]):
    """
    Act on all jobs of a filter; those that the act does not apply to stay as they are. It is noted
    in the audit. The answer has the IDs of the jobs that it did apply to.

    @ivar who: who asks, for the audit.
    """

    act: Act
    filter: JobFilter
    who: str = ""


@frozen
class Pause(Operation[None]):
    """
    Have no more jobs of a series claimed, until it is resumed. What was claimed is begun.
    """

    series: str
    who: str = ""


@frozen
class Resume(Operation[None]):
    """
    Have jobs of a series claimed again.
    """

    series: str
    who: str = ""


@frozen
class Paused(Operation[Sequence[str]]):
    """
    Tell which series are paused.
    """


@frozen
class Nodes(Operation[Sequence[NodeRecord]]):
    """
    Tell which nodes have registered and were not forgotten.
    """


@frozen
class Prune(Operation[int]):
    """
    Forget ended jobs whose outcome need not be kept any longer, and end those that have expired.

    @ivar most: how many at once. The answer is how many they were.
    """

    most: int = 10_000
