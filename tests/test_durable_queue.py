"""
L{DurableQueue}: what is stored, what comes back, and what people can do.
"""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred

from asynqueue.durable.adding import Call
from asynqueue.durable.errors import (
    JobCancelled,
    JobExpired,
    NotStorable,
    ResultNotKept,
    UnknownJob,
)
from asynqueue.durable.ids import newId
from asynqueue.durable.options import JobOptions, Retry
from asynqueue.durable.queue import DurableQueue
from asynqueue.errors import GiveUp, QueueRunError, RemoteError
from asynqueue.stores.errors import KeyTaken, StoreLost, StoreStringRefused
from asynqueue.stores.operations import Add
from asynqueue.stores.records import JobFilter, JobState
from asynqueue.workers.asynchronous import AsyncWorker
from tests import durablejobs as jobs
from tests.doubles import errorOf, resultOf
from tests.programs import Machine, Program, failing


@pytest.fixture
def machine() -> Machine:
    """
    A store, and a clock.
    """
    return Machine()


@pytest.fixture
def program(machine: Machine) -> Program:
    """
    A program whose one worker runs a call at a time.
    """
    return machine.program()


def only(*ids: str) -> JobFilter:
    """
    The filter of some jobs.
    """
    return JobFilter(ids=frozenset(ids))


def itemsOf(program: Program, deferator: Any) -> list[Any]:
    """
    Return all items of a Deferator.
    """
    return [program.after(d) for d in deferator]


def test_enqueueFiresWhenTheJobIsStored(program: Program) -> None:
    """
    The Deferred of a job fires after the store has it, and not before.
    """
    program.runner.isHeld = True
    d = program.queue.enqueue(jobs.add, 1, 2)
    program.turn()
    assert not d.called
    program.runner.step()
    assert resultOf(d).id == program.machine.records()[0].job.id


def test_resultIsWhatTheFunctionReturns(program: Program) -> None:
    """
    The result of a job is the value that its function has returned.
    """
    id = program.added(jobs.add, 1, b=2)
    assert program.after(program.queue.result(id)) == 3


def test_resultIsKeptForLaterPrograms(machine: Machine, program: Program) -> None:
    """
    The result of a job can be had from a program that was started after it had ended.
    """
    id = program.added(jobs.add, 1, 2)
    program.stop()
    assert machine.program().after(machine.program().queue.result(id)) == 3


def test_resultRaisesWhatTheFunctionHasRaised(program: Program) -> None:
    """
    The result of a job that has raised fails with an exception of the same type.
    """
    id = program.added(jobs.fail, "why")
    program.turn()
    error = errorOf(program.queue.result(id))
    assert isinstance(error, ValueError)
    assert str(error) == "why"


def test_waitingResultFiresAsTheJobEnds(program: Program) -> None:
    """
    A result that is waited for fires when the job has ended, and its outcome is stored.
    """
    id = program.added(jobs.wait, "a")
    d = program.queue.result(id)
    program.turn()
    assert not d.called
    jobs.WAITING["a"].callback("value")
    assert program.after(d) == "value"


def test_cancelledResultHarmsNoJob(program: Program) -> None:
    """
    Who cancels the Deferred of a result only waits no more.
    """
    id = program.added(jobs.wait, "a")
    d = program.queue.result(id)
    d.cancel()
    errorOf(d)
    jobs.WAITING["a"].callback("value")
    assert program.after(program.queue.result(id)) == "value"


def test_resultOfNoJobIsUnknown(program: Program) -> None:
    """
    The result of a job that there is not fails with L{UnknownJob}.
    """
    assert isinstance(errorOf(program.queue.result(newId())), UnknownJob)


def test_resultsEndWithTheQueue(program: Program) -> None:
    """
    Results of jobs that have not ended fail as the queue stops.
    """
    id = program.added(jobs.nothing, after=60)
    d = program.queue.result(id)
    program.stop()
    assert isinstance(errorOf(d), QueueRunError)


@pytest.mark.parametrize("f", [jobs.opaque, jobs.generate])
def test_valuesThatCannotBeStoredAreNotKept(program: Program, f: Any) -> None:
    """
    A job whose value cannot be stored is done, and its result fails with L{ResultNotKept}.
    """
    id = program.added(f)
    program.turn()
    assert program.states() == ["done"]
    assert isinstance(errorOf(program.queue.result(id)), ResultNotKept)


def test_runIsEnqueueAndResult(program: Program) -> None:
    """
    C{run} stores a job, and fires with its result.
    """
    assert program.after(program.queue.run(jobs.add, 1, 2)) == 3
    assert program.states() == ["done"]


def test_cancelledRunCancelsTheJob(program: Program) -> None:
    """
    Who cancels the Deferred of C{run} cancels the job, where it runs.
    """
    d = program.queue.run(jobs.wait, "a")
    program.turn()
    d.cancel()
    errorOf(d)
    program.turn()
    assert program.states() == ["cancelled"]


def test_runThatIsNotStoredFails(program: Program) -> None:
    """
    C{run} fails with what has kept the job from being stored.
    """
    with failing(program.engine, Add, StoreLost("it", "cut")):
        assert isinstance(errorOf(program.queue.run(jobs.add, 1, 2)), StoreLost)


def test_runThatJoinsHasTheResultOfTheOther(program: Program) -> None:
    """
    C{run} with the key of another job has that one's result.
    """
    program.added(jobs.wait, "a", key="k")
    d = program.queue.run(jobs.wait, "b", options=JobOptions(key="k"))
    program.turn()
    jobs.WAITING["a"].callback("value")
    assert program.after(d) == "value"


def test_manyAreStoredInOneOperation(program: Program) -> None:
    """
    C{enqueueMany} stores all its jobs in one operation, and gives them in their order.
    """
    calls: list[Any] = [(jobs.note, 1), Call(jobs.note, (2,), options=JobOptions(key="k"))]
    stored = program.after(program.queue.enqueueMany(calls))
    assert len([each for each in program.engine.done if isinstance(each, Add)]) == 1
    assert [each.key for each in stored] == [None, "k"]
    assert jobs.CALLS == [1, 2]


def test_noneOfManyIsStoredIfOneCannotBe(program: Program) -> None:
    """
    If one of the calls cannot be stored, C{enqueueMany} raises, and stores none.
    """
    with pytest.raises(NotStorable):
        program.queue.enqueueMany([(jobs.note, 1), (jobs.note, object())])
    assert program.states() == []


def test_jobsOfAFlowBeginInTheirOrder(program: Program) -> None:
    """
    Jobs of one series and niceness begin in the order in which they were stored.
    """
    for number in range(20):
        program.queue.enqueue(jobs.note, number)
    program.turn()
    assert list(range(20)) == jobs.CALLS


def test_keyIsOfOneJobAtATime(program: Program) -> None:
    """
    Of two jobs with the same key the second joins the first, until that has ended.
    """
    first = program.added(jobs.nothing, key="k", after=60)
    assert program.added(jobs.nothing, key="k") == first
    program.clock.advance(60)
    program.turn()
    assert program.added(jobs.nothing, key="k") != first


def test_takenKeyCanReject(program: Program) -> None:
    """
    With C{onTaken="reject"} the second job fails with L{KeyTaken}, which names the first.
    """
    first = program.added(jobs.nothing, key="k", after=60)
    error = errorOf(program.queue.enqueue(jobs.nothing, key="k", onTaken="reject"))
    assert isinstance(error, KeyTaken)
    assert error.id == first


def test_lateJobsBeginWhenTheyAreDue(program: Program) -> None:
    """
    A job with C{after} begins when its time has come, and not before.
    """
    program.added(jobs.note, "late", after=60)
    program.clock.advance(59)
    program.turn()
    assert jobs.CALLS == []
    program.clock.advance(1)
    program.turn()
    assert jobs.CALLS == ["late"]


def test_expiredJobsAreNotCalled(program: Program) -> None:
    """
    A job that has not begun in time ends as expired.
    """
    program.added(jobs.wait, "a")
    id = program.added(jobs.note, "b", expires=10)
    program.clock.advance(11)
    jobs.WAITING["a"].callback(None)
    program.turn()
    assert jobs.CALLS == ["a"]
    assert isinstance(errorOf(program.queue.result(id)), JobExpired)


def test_timeoutEndsAnAttempt(program: Program) -> None:
    """
    A job that takes longer than its C{timeout} fails.
    """
    program.added(jobs.wait, "a", timeout=10)
    program.clock.advance(10)
    program.turn()
    assert program.states() == ["failed"]


def test_failedAttemptsAreRepeated(program: Program) -> None:
    """
    With C{Retry} a job that raises is called again, with growing pauses, as often as that says.
    """
    program.added(jobs.fail, retry=Retry(3, on=ValueError, delay=10))
    calls = []
    for _ in range(4):
        calls.append(len(jobs.CALLS))
        program.clock.advance(20)
        program.turn()
    assert calls == [1, 2, 3, 3]
    assert program.states() == ["failed"]


def test_otherErrorsAreNotRepeated(program: Program) -> None:
    """
    An exception that C{Retry} does not name is not repeated.
    """
    program.added(jobs.fail, retry=Retry(3, on=OSError))
    assert program.states() == ["failed"]


def test_snoozingCountsAsNoAttempt(program: Program) -> None:
    """
    A job that raises L{Snooze<asynqueue.errors.Snooze>} is called again after that time.
    """
    id = program.added(jobs.snoozeFirst, 30)
    program.turn()
    assert program.states() == ["later"]
    program.clock.advance(30)
    assert program.after(program.queue.result(id)) == "awake"


def test_givingUpIsNotRepeated(program: Program) -> None:
    """
    A job that raises L{GiveUp} is not repeated, whatever C{Retry} says.
    """
    id = program.added(jobs.giveUp, retry=3)
    program.turn()
    assert isinstance(errorOf(program.queue.result(id)), GiveUp)


def test_waitingJobsAreCancelled(program: Program) -> None:
    """
    A cancelled job that has not begun is never called.
    """
    id = program.added(jobs.note, "late", after=60)
    assert program.after(program.queue.cancel(only(id))) == 1
    program.clock.advance(60)
    program.turn()
    assert jobs.CALLS == []
    assert isinstance(errorOf(program.queue.result(id)), JobCancelled)


def test_runningJobsAreCancelled(program: Program) -> None:
    """
    A cancelled job that runs is ended where it runs.
    """
    id = program.added(jobs.wait, "a")
    program.after(program.queue.cancel(only(id)))
    program.turn()
    assert jobs.WAITING["a"].called
    assert program.states() == ["cancelled"]


def test_failedJobsCanBeRetried(program: Program) -> None:
    """
    C{retry} has a job that has failed made again.
    """
    id = program.added(jobs.fail)
    program.turn()
    assert program.after(program.queue.retry(only(id))) == 1
    program.turn()
    assert jobs.CALLS == ["no", "no"]


def test_endedJobsCanBeDropped(program: Program) -> None:
    """
    C{drop} forgets a job that has ended.
    """
    id = program.added(jobs.nothing)
    program.turn()
    assert program.after(program.queue.drop(only(id))) == 1
    assert isinstance(errorOf(program.queue.job(id)), UnknownJob)


def test_pausedSeriesWait(machine: Machine) -> None:
    """
    Jobs of a paused series begin when it is resumed.
    """
    program = machine.program(AsyncWorker(["money"], reactor=machine.clock))
    program.after(program.queue.pause("money"))
    program.added(jobs.note, "a", series="money")
    program.turn()
    assert jobs.CALLS == []
    program.after(program.queue.resume("money"))
    program.turn()
    assert jobs.CALLS == ["a"]


def test_seriesWithoutWorkersWait(program: Program) -> None:
    """
    Jobs of a series for which there is no worker stay in the store until there is one.
    """
    program.added(jobs.note, "a", series="money")
    program.turn()
    assert program.states() == ["waiting"]
    program.queue.tasks.attachWorker(AsyncWorker(["money"], reactor=program.clock))
    program.turn()
    assert jobs.CALLS == ["a"]


def test_jobsAreReadPageByPage(program: Program) -> None:
    """
    C{jobs} gives all jobs of a filter, the oldest first, also more than a page of them.
    """
    stored = program.after(program.queue.enqueueMany([(jobs.nothing,)] * 250))
    found = itemsOf(
        program, program.queue.jobs(JobFilter(names=frozenset({"tests.durablejobs:nothing"})))
    )
    assert [job.id for job in found] == [job.id for job in stored]


def test_deadJobsAreThoseThatWantAPerson(program: Program) -> None:
    """
    C{dead} gives failed jobs, and none that has ended well.
    """
    program.added(jobs.nothing)
    failed = program.added(jobs.fail)
    program.turn()
    assert [job.id for job in itemsOf(program, program.queue.dead())] == [failed]


def test_jobSaysWhyItHasFailed(program: Program) -> None:
    """
    A job that has failed says in a line why.
    """
    id = program.added(jobs.fail, "why")
    program.turn()
    job = program.after(program.queue.job(id))
    assert (job.state, job.error, job.attempt) == (JobState.FAILED, "why", 1)


def test_outcomesArePruned(program: Program) -> None:
    """
    Outcomes are forgotten after they were kept for as long as they should be.
    """
    program.added(jobs.nothing, keep=60)
    program.clock.advance(61)
    assert program.after(program.queue.prune()) == 1
    assert program.states() == []


@pytest.mark.parametrize(
    "f", [lambda: None, test_outcomesArePruned, pytest.fixture, print, jobs.Any]
)
def test_functionsWithoutAnAllowedNameAreRefused(program: Program, f: Any) -> None:
    """
    A function that could not be found by its name in an allowed module is refused at once.
    """
    with pytest.raises(NotStorable):
        program.queue.enqueue(f)


def test_argumentsThatCannotBeStoredAreNamed(program: Program) -> None:
    """
    The error of an argument that cannot be stored says where it is, and what would store it.
    """
    with pytest.raises(NotStorable, match='codec="pickle"'):
        program.queue.enqueue(jobs.note, {"a": object()})


def test_pickledArgumentsAreStored(machine: Machine) -> None:
    """
    With C{codec="pickle"} arguments and values may be of nearly all types.
    """
    program = machine.program(codec="pickle")
    assert program.after(program.queue.run(jobs.note, JobState.DONE)) is JobState.DONE


def test_modulesThatAreNotAllowedAreNotImported(program: Program) -> None:
    """
    A job whose function is not allowed where it is to be called fails with the reason.
    """
    id = program.added("this:s")
    program.turn()
    error = errorOf(program.queue.result(id))
    assert isinstance(error, RemoteError)
    assert "none of the modules allowed" in str(error)


def test_picklesAreNotReadWhereTheyAreNotExpected(machine: Machine) -> None:
    """
    A pickle in the store of a queue that reads CBOR only is not unpickled: its job fails.
    """
    other = machine.program(codec="pickle")
    other.added(jobs.note, 1, after=10)
    other.stop()
    program = machine.program()
    program.clock.advance(10)
    program.turn()
    assert jobs.CALLS == []
    assert program.states() == ["failed"]


def test_itCallsNothingBeforeItIsStarted(program: Program) -> None:
    """
    A queue that has stopped takes no jobs, and says so.
    """
    program.stop()
    with pytest.raises(QueueRunError):
        program.queue.enqueue(jobs.nothing)


def test_plainCallsShareItsWorkers(program: Program) -> None:
    """
    What is not to be stored is called by C{tasks}.
    """
    d: Deferred[Any] = program.queue.tasks.call(jobs.add, 1, 2)
    assert program.after(d) == 3
    assert program.states() == []


def test_storesCanBeStrings(machine: Machine) -> None:
    """
    A store may be given as a string that says where it is.
    """
    queue = DurableQueue("memory:", allow=["tests.durablejobs"], reactor=machine.clock)
    assert "memory:" in repr(queue)
    with pytest.raises(StoreStringRefused):
        DurableQueue("papyrus:/var/jobs")


def test_whySaysWhatAJobWaitsFor(machine: Machine) -> None:
    """
    C{why} says in words why a job is where it is.
    """
    program = machine.program(AsyncWorker(["money"], reactor=machine.clock))
    program.after(program.queue.pause("money"))

    def why(id: str) -> str:
        said: str = program.after(program.queue.why(id))
        return said

    paused = program.added(jobs.nothing, series="money")
    unserved = program.added(jobs.nothing, series="art")
    late = program.added(jobs.nothing, after=60)
    failed = program.added(jobs.fail, "no money")
    running = program.added(jobs.wait, "a")
    waiting = program.added(jobs.nothing)
    assert "is paused" in why(paused)
    assert "this program has none" in why(unserved)
    assert "until it is due" in why(late)
    assert "failed: no money" in why(failed)
    assert "it runs, attempt 1, in " in why(running)
    assert "its turn" in why(waiting)


def test_whyOfNoJobIsUnknown(program: Program) -> None:
    """
    C{why} fails with L{UnknownJob} if there is no such job.
    """
    assert isinstance(errorOf(program.queue.why(newId())), UnknownJob)
