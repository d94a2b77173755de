"""
What the checks of stores are made of.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from asynqueue.stores.interfaces import IStore
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
    Find,
    GiveBack,
    Operation,
    Register,
    Want,
)
from asynqueue.stores.records import (
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
    StoreEvent,
)
from asynqueue.testing.trials import expect, require

T = TypeVar("T")

# In seconds. Checks count in hours: what time a real database takes besides does not matter.
HOUR = 3600.0

FLOW = Flow()


class StoreTrial:
    """
    One check of one store, that is new and open.

    @ivar store: the store.
    @ivar clock: by which the store tells the time, and which nobody else moves. The store may
        be a bit further.
    @ivar heard: all events that a listener has heard of.
    """

    def __init__(self, store: IStore, clock: Clock) -> None:
        self.store = store
        self.clock = clock
        self.heard: list[StoreEvent] = []
        self._count = 0
        store.listen(self.heard.append)

    async def do(self, operation: Operation[T]) -> T:
        """
        Do an operation.
        """
        return await self.store.do(operation)

    def advance(self, hours: float) -> None:
        """
        Let hours pass.
        """
        self.clock.advance(hours * HOUR)

    def newID(self) -> str:
        """
        Return an ID that comes after all others.
        """
        self._count += 1
        return f"00000000-0000-7000-8000-{self._count:012x}"

    def new(self, **fields: Any) -> NewJob:
        """
        Return a new job, that is not added.
        """
        return NewJob(
            **{"id": self.newID(), "name": "shop.tasks:charge", "payload": b"*", **fields}
        )

    async def add(self, **fields: Any) -> str:
        """
        Add a job, and return its ID.
        """
        job = self.new(**fields)
        (added,) = await self.do(Add((job,)))
        require(isinstance(added, Added) and added.id == job.id, f"{job} was added: {added}")
        return job.id

    async def addMany(self, count: int, **fields: Any) -> list[str]:
        """
        Add jobs at once, and return their IDs.
        """
        jobs = tuple(self.new(**fields) for _ in range(count))
        await self.do(Add(jobs))
        return [job.id for job in jobs]

    async def node(self, lease: float = HOUR, **fields: Any) -> str:
        """
        Register a node, and return its ID.
        """
        node = NodeRecord(**{"id": self.newID(), "name": "shop", "host": "h", "pid": 7, **fields})
        await self.do(Register(node, lease))
        return node.id

    async def claims(
        self, node: str, flow: Flow = FLOW, count: int = 100, begin: bool = False
    ) -> Claims:
        """
        Claim jobs of a flow.
        """
        return await self.do(Claim(node, (Want(flow, count),), begin))

    async def claim(
        self, node: str, flow: Flow = FLOW, count: int = 100, begin: bool = False
    ) -> list[Attempt]:
        """
        Claim jobs of a flow, and return their attempts.
        """
        claims = await self.claims(node, flow, count, begin)
        return [claimed.attempt for claimed in claims.claimed]

    async def claimOne(self, node: str, flow: Flow = FLOW) -> Claimed:
        """
        Claim the only job that waits in a flow.
        """
        claims = await self.claims(node, flow)
        expect(len(claims.claimed), 1, "the number of jobs that could be claimed")
        return claims.claimed[0]

    async def claimed(self, node: str, **fields: Any) -> Attempt:
        """
        Add a job and claim it, in a flow where none waits.
        """
        id = await self.add(**fields)
        claimed = await self.claimOne(node, fields.get("flow", FLOW))
        expect(claimed.attempt.id, id, "what was claimed")
        return claimed.attempt

    async def running(self, node: str, **fields: Any) -> Attempt:
        """
        Add a job, claim and begin it, in a flow where none waits.
        """
        attempt = await self.claimed(node, **fields)
        await self.begun(node, attempt)
        return attempt

    async def begun(self, node: str, *attempts: Attempt) -> None:
        """
        Begin attempts, which must be allowed.
        """
        expect(await self.do(Begin(node, attempts)), frozenset(attempts), "what may begin")

    async def end(
        self, node: str, attempt: Attempt, kind: JobState = JobState.DONE, **fields: Any
    ) -> bool:
        """
        End an attempt, and return whether that was accepted.
        """
        ended = Ended(attempt, Outcome(kind=kind, **fields))
        return await self._accepted(node, ended)

    async def again(self, node: str, attempt: Attempt, **fields: Any) -> bool:
        """
        End an attempt that is to be repeated, and return whether that was accepted.
        """
        return await self._accepted(node, Again(attempt, **fields))

    async def _accepted(self, node: str, end: Ended | Again) -> bool:
        accepted = await self.do(End(node, (end,)))
        require(accepted <= {end.attempt}, f"{accepted} are only what was asked")
        return bool(accepted)

    async def giveBack(self, node: str, attempt: Attempt, begun: bool = False) -> bool:
        """
        Give a job back, and return whether it was the node's.
        """
        return bool(await self.do(GiveBack(node, (attempt,), begun)))

    async def act(self, act: Act, *ids: str) -> set[str]:
        """
        Act on some jobs, and return the IDs of those that it applied to.
        """
        return set(await self.do(ActOn(act, JobFilter(ids=frozenset(ids)), "a person")))

    async def found(self, **fields: Any) -> list[str]:
        """
        Return the IDs of the jobs of a filter.
        """
        return [record.job.id for record in await self.do(Find(JobFilter(**fields)))]

    async def record(self, id: str) -> JobRecord:
        """
        Return what the store has of a job.
        """
        records = await self.do(Find(JobFilter(ids=frozenset([id]))))
        expect([record.job.id for record in records], [id], "what was found of a job")
        return records[0]

    async def state(self, id: str) -> JobState:
        """
        Return how far a job is.
        """
        return (await self.record(id)).state

    async def isState(self, state: JobState, *ids: str) -> None:
        """
        Require that jobs are so far.
        """
        states = [await self.state(id) for id in ids]
        expect(states, [state] * len(ids), "how far the jobs are")

    def isNow(self, seconds: float | None, what: str, hours: float = 0) -> None:
        """
        Require that something is about now, or some hours from now.
        """
        at = self.clock.seconds() + hours * HOUR
        near = seconds is not None and -HOUR / 2 < seconds - at < HOUR / 2
        require(near, f"{what} is {seconds}, not about {at}")

    def heardOf(self, of: Callable[[StoreEvent], Any]) -> set[Any]:
        """
        Return what the events until now say, and forget them.
        """
        heard = {each for event in self.heard for each in of(event)}
        self.heard.clear()
        return heard


Body = Callable[[StoreTrial], Coroutine[Any, Any, None]]


class StoreChecks(list[Body]):
    """
    Checks, in the order in which they stand in a module.
    """

    def check(self, body: Body) -> Body:
        """
        Take a function for a check, whose name and text are its own.
        """
        self.append(body)
        return body


async def failureOf(d: Deferred[Any], *errors: type[Exception]) -> Exception:
    """
    Return the error of a Deferred that must fail with one of these.
    """
    try:
        value = await d
    except errors as error:
        return error
    raise AssertionError(f"it was to fail, and gave {value!r}")
