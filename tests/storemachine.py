"""
A state machine: a store, several nodes and people, who do anything in any order, in transactions of
any size, beside the model of the store.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import Any

from hypothesis import note, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
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
    Count,
    End,
    Ended,
    Find,
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
    Rescue,
    Resume,
    Ripen,
    Want,
)
from asynqueue.stores.records import (
    ENDED,
    Attempt,
    Flow,
    JobFilter,
    JobState,
    NewJob,
    NodeRecord,
    OnTaken,
    Outcome,
    StoreEvent,
)
from asynqueue.stores.thread import DirectRunner
from tests.storemodel import Job, Model, comparable, summary

HOUR = 3600.0
# What is to happen does so between two of the hours that the clock shows.
HALF = HOUR / 2

FLOWS = [Flow(), Flow("a"), Flow("a", 5)]
FILTERS = [JobFilter(), JobFilter(series=frozenset({"a"}))]

# What may happen, the more often the more often it is here.
ACTS = {
    "add": 8,
    "claim": 9,
    "begin": 6,
    "end": 5,
    "repeat": 5,
    "giveBack": 4,
    "renew": 2,
    "register": 2,
    "rescue": 2,
    "leave": 1,
    "ripen": 2,
    "prune": 1,
    "act": 5,
    "pause": 1,
    "resume": 2,
    "passTime": 4,
    "gather": 3,
    "commit": 2,
}
CHANCES = [act for act, chance in ACTS.items() for _ in range(chance)]


def fewer(divisor: int) -> int:
    """
    Return how many examples are tried of a store whose steps take long: fewer of them, but in a
    soak as many as of others.
    """
    most = settings.default.max_examples
    return most if most > 100 else most // divisor


class Choice:
    """
    A number, of which all is made that is chosen in one step.
    """

    def __init__(self, number: int, step: int) -> None:
        self._random = Random(f"{number} {step}")

    def below(self, most: int) -> int:
        return self._random.randrange(most)

    def of(self, things: Sequence[Any]) -> Any:
        return things[self.below(len(things))]

    def shuffled(self, things: Sequence[Any]) -> list[Any]:
        return self._random.sample(things, len(things))


class Storing(RuleBasedStateMachine):
    """
    Each answer, each event and each record is what the model says, whoever asks what when.

    """

    def makeStore(self, clock: Clock, runner: DirectRunner) -> IStore:
        """
        Make an empty store, by a clock, whose engine a runner calls.
        """
        raise NotImplementedError

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.clock.advance(1_800_000_000)
        self.runner = DirectRunner()
        self.store = self.makeStore(self.clock, self.runner)
        self.model = Model(self.clock.seconds())
        self.heard: list[StoreEvent] = []
        self.store.listen(self.heard.append)
        self.result(self.store.open())
        self.count = self.steps = 0
        # All that have ever registered.
        self.nodes: list[str] = []
        self.attempts: list[tuple[str | None, Attempt]] = []
        # What was asked in the present transaction, if that gathers more.
        self.asked: list[tuple[Operation[Any], Deferred[Any], Any]] = []

    def result(self, d: Deferred[Any]) -> Any:
        results: list[Any] = []
        d.addBoth(results.append)
        assert results, "it does not wait"
        return results[0]

    def newID(self) -> str:
        self.count += 1
        # Not in the order in which they are made.
        return f"00000000-0000-7000-8000-{self.count * 7 % 10:x}{self.count:011x}"

    def ask(self, operation: Operation[Any]) -> None:
        """
        Ask the store and the model.
        """
        self.asked.append((operation, self.store.do(operation), self.model.do(operation)))
        if not self.runner.isHeld:
            self.compare()

    def compare(self) -> None:
        """
        End the present transaction, and compare all that came of it.
        """
        self.runner.step()
        self.runner.isHeld = False
        asked, self.asked = self.asked, []
        for operation, d, expected in asked:
            found = comparable(self.result(d))
            if isinstance(operation, ActOn):
                found = set(found)
            note(f"{operation}")
            assert found == expected, f"{operation}: {found}, not {expected}"
        model = self.model
        assert {id for event in self.heard for id in event.ended} == model.ended
        assert {id for event in self.heard for id in event.stopping} == model.stopping
        woken = {job.new.flow for job in model.waiting() if job.new.id in model.woken}
        assert woken <= {flow for event in self.heard for flow in event.flows}
        if any(job.state is JobState.LATER for id, job in model.jobs.items() if id in model.put):
            assert any(event.hasLater for event in self.heard)
        assert not any(event.isUnknown for event in self.heard)
        self.heard.clear()
        model.forgetEvents()

    def look(self, *operations: Operation[Any]) -> list[Any]:
        """
        Return the answers of operations that change nothing, of one transaction.
        """
        self.runner.isHeld = True
        asked = [self.store.do(operation) for operation in operations]
        self.runner.step()
        self.runner.isHeld = False
        return [self.result(d) for d in asked]

    @rule(number=st.integers(0, 2**32))
    def step(self, number: int) -> None:
        """
        Have some things happen. They are chosen here, as hypothesis would leave out some kinds of
        rules each time, and little happens without any of them.
        """
        self.steps += 1
        choice = Choice(number, self.steps)
        for _ in range(choice.below(8)):
            getattr(self, choice.of(CHANCES))(choice)

    # Time and transactions

    def gather(self, choice: Choice) -> None:
        """
        Have what follows be done in one transaction.
        """
        self.runner.isHeld = True

    def commit(self, choice: Choice) -> None:
        self.compare()

    def passTime(self, choice: Choice) -> None:
        self.compare()
        self.clock.advance(choice.of([1, 1, 2, 4]) * HOUR)
        self.model.now = self.clock.seconds()
        if choice.below(3):
            self.ask(Ripen())

    # Programs that add jobs

    def add(self, choice: Choice) -> None:
        """
        Add new jobs, and now and then one that was added before.
        """
        jobs = [self.newJob(choice) for _ in range(choice.below(4))]
        if choice.below(3) == 0 and self.model.jobs:
            jobs.append(choice.of(list(self.model.jobs.values())).new)
        self.ask(Add(tuple(jobs)))

    def newJob(self, choice: Choice) -> NewJob:
        id, after = self.newID(), choice.of([0, 0, 0, 1, 4])
        return NewJob(
            id=id,
            name="m:f",
            payload=b"*",
            flow=choice.of(FLOWS),
            attempts=choice.of([1, 2, 3]),
            loss=choice.below(2) == 0,
            key=choice.of([None, None, None, "k", "l"]),
            onTaken=choice.of(list(OnTaken)),
            # No two are due at the same time.
            after=after * HOUR + self.count if after else 0.0,
            expires=choice.of([None, None, None, HALF, 4 * HOUR + HALF]),
            keep=3 * HOUR + HALF,
            keepDead=8 * HOUR + HALF,
        )

    # Nodes

    def node(self, choice: Choice) -> str:
        """
        Choose a node, which mostly lives.
        """
        known = [*self.model.nodes] * 4 + self.nodes[-2:]
        return choice.of(known) if known else self.newID()

    def chosen(self, choice: Choice) -> tuple[str, tuple[Attempt, ...]]:
        """
        Choose a node, and attempts that it has or has had; or now and then some of another.
        """
        held = [
            (job.node, job.attempt)
            for job in self.model.jobs.values()
            if job.state in (JobState.CLAIMED, JobState.RUNNING)
        ]
        self.attempts = [each for each in self.attempts if each not in held][-12:] + held
        node, first = choice.of(held * 3 + self.attempts) if self.attempts else ("", None)
        mine = [attempt for of, attempt in self.attempts if of == node]
        others = [choice.of(mine) for _ in range(choice.below(4))] if mine else []
        attempts = tuple({attempt: None for attempt in (first, *others) if attempt})
        return self.node(choice) if choice.below(8) == 0 or not node else node, attempts

    def register(self, choice: Choice) -> None:
        if len(self.model.nodes) < 4:
            self.nodes.append(self.newID())
            self.enter(self.nodes[-1], choice)

    def enter(self, node: str, choice: Choice) -> None:
        record = NodeRecord(id=node, name="n", host="h", pid=1)
        self.ask(Register(record, self.lease(choice)))

    def lease(self, choice: Choice) -> float:
        return choice.of([1, 3, 9]) * HOUR + HALF

    def renew(self, choice: Choice) -> None:
        node = self.node(choice)
        if choice.below(3) == 0 and node in self.model.nodes:
            self.enter(node, choice)
        else:
            self.ask(Renew(node, self.lease(choice)))

    def claim(self, choice: Choice) -> None:
        wants = tuple(Want(flow, choice.below(5)) for flow in choice.shuffled(FLOWS))
        self.ask(Claim(self.node(choice), wants, begin=choice.below(2) == 0))

    def begin(self, choice: Choice) -> None:
        node, attempts = self.chosen(choice)
        self.ask(Begin(node, attempts))

    def end(self, choice: Choice) -> None:
        node, attempts = self.chosen(choice)
        self.count += 1
        kind = choice.of(sorted(ENDED, key=lambda kind: kind.value))
        outcome = Outcome(kind=kind, value=b"%d" % self.count, summary=kind.value)
        self.ask(End(node, tuple(Ended(attempt, outcome) for attempt in attempts)))

    def repeat(self, choice: Choice) -> None:
        node, attempts = self.chosen(choice)
        hours = choice.of([0, 0, 1, 4])
        ends = []
        for attempt in attempts:
            self.count += 1
            delay = hours * HOUR + self.count if hours else 0.0
            isCounted, isLoss = choice.below(3) > 0, choice.below(3) == 0
            ends.append(Again(attempt, delay, isCounted, isLoss, f"again {self.count}"))
        self.ask(End(node, tuple(ends)))

    def giveBack(self, choice: Choice) -> None:
        node, attempts = self.chosen(choice)
        self.ask(GiveBack(node, attempts, begun=choice.below(2) == 0))

    def leave(self, choice: Choice) -> None:
        node = self.node(choice)
        if self.isOrdered({node}):
            self.ask(Leave(node))

    def isOrdered(self, nodes: set[str]) -> bool:
        """
        Tell whether it is known in which order the jobs wait that are repeated when these nodes
        are dead.
        """
        jobs: list[Job] = [
            job
            for job in self.model.jobs.values()
            if job.state is JobState.RUNNING and job.node in nodes and job.new.loss
        ]
        return len(jobs) == len({job.new.flow for job in jobs})

    def rescue(self, choice: Choice) -> None:
        hours = choice.of([0, 1, 3])
        others = self.node(choice) if choice.below(4) == 0 else None
        dead = {
            id
            for id, until in self.model.nodes.items()
            if (id != others if others else until + hours * HOUR < self.model.now)
        }
        if self.isOrdered(dead):
            self.ask(Rescue(hours * HOUR, others))

    def ripen(self, choice: Choice) -> None:
        self.ask(Ripen())

    def prune(self, choice: Choice) -> None:
        self.ask(Prune())

    # People

    def act(self, choice: Choice) -> None:
        """
        Act on some jobs, or on all of a filter.
        """
        jobs = self.model.jobs.values()
        running = [job.new.id for job in jobs if job.state is JobState.RUNNING]
        # Of all kinds of jobs, those that run have most to tell.
        ids = [*sorted(self.model.jobs), *running * 3] or [self.newID()]
        some = JobFilter(ids=frozenset(choice.of(ids) for _ in range(3)))
        act = choice.of([*Act, Act.CANCEL])
        self.ask(ActOn(act, choice.of([some, some, some, *FILTERS])))

    def pause(self, choice: Choice) -> None:
        self.ask(Pause(choice.of(["", "a"])))

    def resume(self, choice: Choice) -> None:
        self.ask(Resume(choice.of(["", "a"])))

    # What there is

    @invariant()
    def recordsAreAsTheModelSays(self) -> None:
        if self.asked or self.runner.isHeld:
            return
        model = self.model
        records, counted, flows, paused, nodes = self.look(
            Find(count=1000), Count(), Flows(), Paused(), Nodes()
        )
        expected = [job.summary() for _, job in sorted(model.jobs.items())]
        assert [summary(record) for record in records] == expected
        assert counted == Counter(job.state for job in model.jobs.values())
        waiting = Counter(job.new.flow for job in model.waiting())
        assert {each.flow: each.waiting for each in flows} == waiting
        assert set(paused) == model.paused
        assert {node.id: node.leaseUntil for node in nodes} == model.nodes

    def teardown(self) -> None:
        """
        All that was asked is done, and the store has it when it is opened again.
        """
        self.compare()
        self.result(self.store.close())
        self.result(self.store.open())
        self.recordsAreAsTheModelSays()
        self.result(self.store.close())
