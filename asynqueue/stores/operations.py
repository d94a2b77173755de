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

    The answer says of each, in their order, what became of it. One whose ID is stored already,
    ended or not, is not stored again, and its key is not looked at. Of two with the same key the
    second meets the first.
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
    paused is taken, nor one that is due later and has not ripened (L{Ripen}).

    A node lives from L{Register} until it leaves or is rescued, whatever its lease says meanwhile:
    that it begins nothing when it could not renew its lease is its own affair. One that does not
    live is given nothing.

    @ivar begin: whether the attempts begin at once, as by L{Begin}: the node hands them to workers
        as soon as it hears of them.
    """

    node: str
    wants: tuple[Want, ...]
    begin: bool = False


@frozen
class Begin(Operation[frozenset[Attempt]]):
    """
    Note that attempts of a node begin. The answer has those that may, also if they have begun
    before. The others must not begin, and are not the node's any longer: they were cancelled, have
    expired (at the latest now), or the node was rescued.
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
    An attempt that has ended, and after which the job is to be repeated: it waits at the end of its
    flow. Whether it has attempts left is known to who says this.

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
    Store how attempts of a node have ended; they may have been claimed only, and not begun. The
    answer has those that were accepted. One is refused when another attempt of its job has ended
    it, or may do so, or the job is unknown. No attempt is there twice. Jobs that are repeated at
    once wait in the order in which their attempts are there.

    Of an attempt that has ended its job already, another L{Ended} is accepted, and changes
    nothing: who has not heard the answer may ask again. But if the job is lost it takes the outcome
    of that attempt, late as it is: it is the truth. An L{Again} is then refused.

    A job that was cancelled as it ran, and is to be repeated, is ended as cancelled.
    """

    node: str
    ends: tuple[Ended | Again, ...]


@frozen
class GiveBack(Operation[frozenset[Attempt]]):
    """
    Put jobs back in their old places that a node has claimed, and has not begun, or has begun and
    knows that no worker has (C{begun}). No attempt is counted. A job that was cancelled as it ran
    is ended as cancelled. The answer has those that were the node's; without C{begun}, those that
    have begun stay as they are, and are not in it.
    """

    node: str
    attempts: tuple[Attempt, ...]
    begun: bool = False


@frozen
class Register(Operation[None]):
    """
    Enter a node, whose lease begins now. If it is there already, only its lease is renewed and
    what it says of itself is replaced.
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
    Begin the lease of a node anew, even if it was over, unless the node was rescued.
    """

    node: str
    lease: float


@frozen
class Rescued:
    """
    What became of the jobs of nodes that are dead, by their IDs.

    @ivar nodes: the dead.
    @ivar waiting: were not begun, and wait again in their old places.
    @ivar repeated: were lost, and wait for their next attempt at the ends of their flows: those
        that C{loss} allows it, and that have C{attempts} left. The attempt is counted.
    @ivar lost: have ended as lost, with the outcome L{DIED<asynqueue.stores.records.DIED>}.
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
        others are dead, whatever their leases say, and it is not. It need not have registered.
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
    Tell which flows have jobs that can be claimed now, or would expire if they were: none of paused
    series.

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
    Let the jobs that are due wait to be claimed, at the ends of their flows, the earliest due
    first. How many at once is up to the store: if some are left, it says that the next one is due
    in 0 seconds.
    """


@frozen
class Find(Operation[Sequence[JobRecord]]):
    """
    Read jobs, a page of them, in the order of their IDs: that is of their age.

    @ivar after: the last ID of the page before; it need not be there any longer.
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

    @cvar CANCEL: those that do not run have ended as cancelled. Those that run end so when their
        node has heard of it; to those that were cancelled before, it does not apply again.
    @cvar RETRY: those that have failed, are lost, cancelled or expired wait again, at the end of
        their flows, with as many attempts as a new job, and never expire. One whose key another job
        has by now stays as it is. They are taken in the order of their IDs.
    @cvar DROP: those that have ended are forgotten.
    """

    CANCEL = "cancel"
    RETRY = "retry"
    DROP = "drop"


@frozen
class ActOn(Operation[Sequence[str]]):
    """
    Act on all jobs of a filter; those that the act does not apply to stay as they are. It is noted
    in the audit. The answer has the IDs of the jobs that it did apply to, in any order.

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
    Tell which series are paused, in any order.
    """


@frozen
class Nodes(Operation[Sequence[NodeRecord]]):
    """
    Tell which nodes have registered and were not forgotten.
    """


@frozen
class Prune(Operation[int]):
    """
    Forget ended jobs whose outcome need not be kept any longer, and end those that wait and have
    expired. The answer is how many they were together.

    @ivar most: how many at once.
    """

    most: int = 10_000
