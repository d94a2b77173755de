"""
L{asynqueue.durable.feeding}: what becomes of jobs, whatever happens to programs, workers and
stores.
"""

from __future__ import annotations

from typing import Any

import pytest

from asynqueue.durable.errors import JobCancelled, JobLost
from asynqueue.durable.options import JobOptions, Retry
from asynqueue.errors import WorkerLost
from asynqueue.stores.errors import OperationFailed, StoreError, StoreLost, StoreUnavailable
from asynqueue.stores.operations import Act, ActOn, Claim, End, Find, Flows, Rescue, Ripen
from asynqueue.stores.records import JobFilter
from asynqueue.workers.asynchronous import AsyncWorker
from tests import durablejobs as jobs
from tests.doubles import errorOf, readingLogs
from tests.programs import FaultyEngine, Machine, Program, failing

# Errors of a store, and whether it has done nevertheless what it was asked.
AWAY: list[tuple[StoreError, bool]] = [
    (StoreUnavailable("it", "it is away"), False),
    (StoreLost("it", "it was cut"), False),
    (StoreLost("it", "it was cut"), True),
]


@pytest.fixture
def machine() -> Machine:
    """
    A store of one program, and a clock.
    """
    return Machine()


@pytest.fixture
def shared() -> Machine:
    """
    A store of several programs, and a clock.
    """
    return Machine(isShared=True)


def ended(name: str, value: Any = None) -> None:
    """
    Let a job that waits return.
    """
    jobs.WAITING.pop(name).callback(value)


def wired(program: Program) -> AsyncWorker:
    """
    Return the worker of a program.
    """
    worker: AsyncWorker = program.queue.tasks.workers()[0]
    return worker


def test_runningJobsOfTheDeadAreLost(machine: Machine) -> None:
    """
    What a program has begun that has died is lost when the next one starts, and is not called
    again.
    """
    id = machine.program().added(jobs.wait, "a")
    program = machine.program()
    assert isinstance(errorOf(program.queue.result(id)), JobLost)
    assert jobs.CALLS == ["a"]


def test_waitingJobsOfTheDeadAreCalled(machine: Machine) -> None:
    """
    What a program that has died had not begun is called by the next one, in the old order.
    """
    dead = machine.program()
    for name in "abc":
        dead.added(jobs.wait, name)
    program = machine.program()
    program.turn()
    ended("b")
    program.turn()
    assert jobs.CALLS == ["a", "b", "c"]


def test_lossIsRepeatedIfThatIsSaid(machine: Machine) -> None:
    """
    With C{loss=True} what is lost with its program is called again, as often as C{Retry} says.
    """
    machine.program().added(jobs.wait, "a", retry=Retry(3, loss=True))
    for _ in range(4):
        program = machine.program()
    assert jobs.CALLS == ["a", "a", "a"]
    assert program.states() == ["lost"]


def test_jobsBeginInTheStoreBeforeTheyRun(machine: Machine) -> None:
    """
    The store knows that a job has begun before it is called.
    """
    program = machine.program()
    program.added(jobs.wait, "a")
    assert [record.state.value for record in machine.records()] == ["running"]
    program.runner.isHeld = True
    ended("a")
    d = program.queue.enqueue(jobs.note, "b")
    program.turn()
    assert jobs.CALLS == ["a"]
    program.runner.step()
    assert d.called


def test_noMoreIsClaimedThanTheWorkersCanBegin(machine: Machine) -> None:
    """
    Of jobs that take long no more have begun, as far as the store knows, than workers run.
    """
    program = machine.program(AsyncWorker(concurrent=2, reactor=machine.clock))
    for name in "abcd":
        program.added(jobs.wait, name)
    for name in "ab":
        program.clock.advance(60)
        ended(name)
        program.turn()
    assert program.states() == ["done", "done", "running", "running"]


def test_lostWorkersLoseTheirJobs(machine: Machine) -> None:
    """
    A job that ran on a worker that is lost is lost, with the reason.
    """
    program = machine.program()
    id = program.added(jobs.wait, "a")
    program.queue.tasks.detachWorker(wired(program), crash=True)
    program.turn()
    error = errorOf(program.queue.result(id))
    assert isinstance(error, JobLost)
    assert isinstance(error.__cause__, WorkerLost)


def test_jobsOfLostWorkersAreRepeatedIfThatIsSaid(machine: Machine) -> None:
    """
    With C{loss=True} a job whose worker is lost is called again, if there is another.
    """
    program = machine.program()
    program.added(jobs.wait, "a", retry=Retry(2, loss=True))
    program.queue.tasks.detachWorker(wired(program), crash=True)
    program.queue.tasks.attachWorker(AsyncWorker(reactor=machine.clock))
    program.turn()
    assert jobs.CALLS == ["a", "a"]


def test_errorsOfQueuesWithinAJobAreItsOwn(machine: Machine) -> None:
    """
    A job that fails as a queue that it uses has lost a call has failed, and was not lost.
    """
    program = machine.program()
    program.added(jobs.wait, "a")
    jobs.WAITING["a"].errback(WorkerLost("another()", "worker 1", begun=False))
    program.turn()
    assert program.states() == ["failed"]
    assert jobs.CALLS == ["a"]


def test_stoppingGivesBackWhatHasNotBegun(machine: Machine) -> None:
    """
    A program that stops gives back what no worker has begun, and ends the rest.
    """
    program = machine.program()
    for name in "ab":
        program.added(jobs.wait, name)
    stopped = program.queue.stop()
    program.turn()
    assert not stopped.called
    ended("a", "value")
    program.turn()
    assert stopped.called
    assert program.states() == ["done", "waiting"]


def test_stoppingLosesWhatDoesNotEndInTime(machine: Machine) -> None:
    """
    What does not end within the grace is lost; stopping ends nevertheless.
    """
    program = machine.program(grace=5)
    program.added(jobs.wait, "a")
    stopped = program.queue.stop()
    program.clock.advance(5)
    program.turn()
    assert stopped.called
    assert program.states() == ["lost"]


def test_stoppingEndsWhereTheStoreIsAway(machine: Machine) -> None:
    """
    Stopping ends within twice the grace, also if outcomes cannot be stored.
    """
    program = machine.program(grace=5)
    program.added(jobs.wait, "a")
    with failing(program.engine, End, StoreUnavailable("it", "away")), readingLogs():
        stopped = program.queue.stop()
        ended("a")
        for _ in range(10):
            program.clock.advance(1)
            program.turn()
    assert stopped.called


@pytest.mark.parametrize(("error", "isDone"), AWAY)
def test_outcomesWaitForTheStore(machine: Machine, error: StoreError, isDone: bool) -> None:
    """
    An outcome that could not be stored, or of which that is unknown, is stored when the store is
    back; meanwhile nothing else begins.
    """
    program = machine.program()
    for name in "ab":
        program.added(jobs.wait, name)
    with failing(program.engine, End, error, isDone), readingLogs():
        ended("a", "value")
        program.turn()
        assert jobs.CALLS == ["a"]
    program.clock.advance(60)
    program.turn()
    assert jobs.CALLS == ["a", "b"]
    assert program.states() == ["done", "running"]


@pytest.mark.parametrize(("error", "isDone"), AWAY)
def test_claimsThatAreLostLoseNoJob(machine: Machine, error: StoreError, isDone: bool) -> None:
    """
    A job that was claimed, of which the program has not heard, has not begun: it is called when the
    store is back, and once.
    """
    program = machine.program()
    with failing(program.engine, Claim, error, isDone), readingLogs():
        program.added(jobs.wait, "a")
        program.turn()
        assert jobs.CALLS == []
    program.clock.advance(60)
    program.turn()
    assert jobs.CALLS == ["a"]
    assert program.states() == ["running"]


def test_runningJobsAreNotGivenBackAfterALostClaim(machine: Machine) -> None:
    """
    After a claim was lost, jobs that run, or whose outcomes are being stored, stay what they are.
    """
    program = machine.program(AsyncWorker(concurrent=3, reactor=machine.clock))
    program.added(jobs.wait, "a")
    with failing(program.engine, Claim, StoreLost("it", "cut"), isDone=True), readingLogs():
        program.added(jobs.wait, "b")
        program.turn()
    program.clock.advance(60)
    program.turn()
    assert sorted(jobs.CALLS) == ["a", "b"]
    assert program.states() == ["running", "running"]


def test_oneOutcomeThatCannotBeStoredHarmsNoOther(machine: Machine) -> None:
    """
    If the store refuses an outcome, that is stored without its value, and the others as they are.
    """
    program = machine.program(AsyncWorker(concurrent=2, reactor=machine.clock))
    ids = [program.added(jobs.wait, name) for name in "ab"]

    def refuse(operations: Any) -> None:
        for operation in operations:
            if isinstance(operation, End):
                for end in operation.ends:
                    if end.attempt.id == ids[0] and end.outcome.value:
                        raise OperationFailed("it", "End", "it is too large")

    program.engine.fault = refuse
    with readingLogs():
        ended("a", "large")
        ended("b", "small")
        program.turn()
    assert program.after(program.queue.result(ids[1])) == "small"
    assert program.states() == ["done", "done"]


def test_nodesOfASharedStoreLiveByLeases(shared: Machine) -> None:
    """
    A job is not taken from a program that renews its lease, however long it runs.
    """
    one, two = shared.program(), shared.program()
    one.added(jobs.wait, "a")
    for _ in range(24 * 60 * 6):
        shared.clock.advance(10)
    two.turn()
    assert one.states() == ["running"]


def test_theDeadAreRescuedAfterTheirLease(shared: Machine) -> None:
    """
    Of a program that is not heard of, others take over what it has when its lease, and a margin,
    is over.
    """
    dead = shared.program(lease=30)
    dead.added(jobs.wait, "a", retry=Retry(2, loss=True))
    dead.engine.fault = _away
    with readingLogs():
        other = shared.program(lease=30)
        for _ in range(12):
            shared.clock.advance(10)
        other.turn()
    assert jobs.CALLS == ["a", "a"]


def _away(operations: Any) -> None:
    raise StoreUnavailable("it", "it is away")


def test_nothingBeginsAfterTwoThirdsOfTheLease(shared: Machine) -> None:
    """
    A program that cannot renew its lease begins nothing after two thirds of it.
    """
    program = shared.program(lease=30)
    engine: FaultyEngine = program.engine

    def fault(operations: Any) -> None:
        if not any(isinstance(each, Claim) for each in operations):
            _away(operations)

    with readingLogs():
        program.runner.isHeld = True
        program.queue.enqueue(jobs.note, "a")
        program.runner.step()
        program.turn()
        engine.fault = fault
        shared.clock.advance(21)
        program.runner.step()
        program.turn()
        assert jobs.CALLS == []
        engine.fault = None
        program.runner.isHeld = False
        program.runner.step()
        shared.clock.advance(10)
        program.turn()
    assert jobs.CALLS == ["a"]


def test_lateOutcomesAreTheTruth(shared: Machine) -> None:
    """
    A job that was lost as its program was taken for dead takes the outcome that comes late.
    """
    zombie = shared.program(lease=30)
    id = zombie.added(jobs.wait, "a")
    with readingLogs():
        zombie.engine.fault = _away
        other = shared.program(lease=30)
        for _ in range(12):
            shared.clock.advance(10)
        assert other.states() == ["lost"]
        zombie.engine.fault = None
        ended("a", "value")
        shared.clock.advance(20)
        zombie.turn()
    assert other.after(other.queue.result(id)) == "value"


def test_aNodeThatWasTakenForDeadGoesOnAnew(shared: Machine) -> None:
    """
    A program that was taken for dead registers anew, and calls jobs again.
    """
    zombie = shared.program(lease=30)
    first = [node.id for node in zombie.after(zombie.queue.nodes())]
    with readingLogs():
        zombie.engine.fault = _away
        other = shared.program(lease=30)
        for _ in range(12):
            shared.clock.advance(10)
        other.stop()
        zombie.engine.fault = None
        for _ in range(3):
            shared.clock.advance(10)
        zombie.turn()
    [node] = zombie.after(zombie.queue.nodes())
    assert node.id not in first
    assert zombie.after(zombie.queue.run(jobs.add, 1, 2)) == 3


def test_jobsAreCancelledByOtherPrograms(shared: Machine) -> None:
    """
    A running job that another program has cancelled is ended where it runs, at the latest with the
    next lease.
    """
    one, two = shared.program(), shared.program()
    id = one.added(jobs.wait, "a")
    two.after(two.queue.cancel(JobFilter(ids=frozenset({id}))))
    shared.clock.advance(10)
    one.turn()
    assert one.states() == ["cancelled"]


def test_anIdleProgramIsAsleep(machine: Machine) -> None:
    """
    A program with nothing to do, alone on its store, has no timer and asks nothing.
    """
    program = machine.program()
    program.added(jobs.note, "a")
    program.turn()
    asked = len(program.engine.done)
    assert machine.clock.getDelayedCalls() == []
    machine.clock.advance(1e6)
    assert len(program.engine.done) == asked


def test_outcomesOfATurnAreOneOperation(machine: Machine) -> None:
    """
    Outcomes of one turn of the reactor are stored together, and with the next claim.
    """
    program = machine.program(AsyncWorker(concurrent=3, reactor=machine.clock))
    for name in "abcd":
        program.added(jobs.wait, name)
    done = len(program.engine.done)
    for name in "abc":
        ended(name)
    program.turn()
    kinds = [type(operation) for operation in program.engine.done[done:]]
    assert kinds[:2] == [End, Claim]


def test_itStartsByLookingAround(machine: Machine) -> None:
    """
    A program that starts looks for the dead first, and then for jobs.
    """
    kinds = [type(operation) for operation in machine.program().engine.done]
    assert kinds.index(Rescue) < kinds.index(Flows) < kinds.index(Ripen)


def test_jobsOfManyFlowsShareByTheirWeights(machine: Machine) -> None:
    """
    Stored jobs of a flow ten nicer than another begin half as often.
    """
    program = machine.program()
    program.runner.isHeld = True
    for niceness in (0, 10):
        program.queue.enqueueMany([(jobs.note, niceness)] * 300, JobOptions(niceness=niceness))
    program.runner.isHeld = False
    program.runner.step()
    for _ in range(20):
        program.turn()
    counted = jobs.CALLS[:300].count(0)
    assert abs(counted - 200) <= 3


def test_outcomesOfThisProgramAreNotAskedFor(machine: Machine) -> None:
    """
    Who waits for a job that ends in this program hears of it without that the store is asked.
    """
    program = machine.program()
    id = program.added(jobs.wait, "a")
    result = program.queue.result(id)
    program.turn()
    asked = len(program.engine.done)
    ended("a", "value")
    assert program.after(result) == "value"
    assert Find not in map(type, program.engine.done[asked:])


def test_refusedOutcomesAreLookedFor(machine: Machine) -> None:
    """
    Who waits for a job whose outcome from this program is refused hears of the one that it has.
    """
    program = machine.program()
    id = program.added(jobs.wait, "a")
    result = program.queue.result(id)
    program.turn()
    machine.memory.execute([Rescue(others="another")])
    machine.memory.execute([ActOn(Act.RETRY, JobFilter(ids=frozenset({id})))])
    machine.memory.execute([ActOn(Act.CANCEL, JobFilter(ids=frozenset({id})))])
    with readingLogs():
        ended("a", "value")
        program.turn()
    assert isinstance(errorOf(result), JobCancelled)
