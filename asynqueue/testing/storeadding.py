"""
What stores promise of jobs that are added, and of their keys.
"""

from __future__ import annotations

from attrs import evolve

from asynqueue.stores.errors import KeyTaken
from asynqueue.stores.operations import Act, Add, Claim, Count, Leave, Prune, Want
from asynqueue.stores.records import Added, Band, Flow, JobState, NewJob, OnTaken
from asynqueue.testing.storetrials import StoreChecks, StoreTrial
from asynqueue.testing.trials import expect, require

CHECKS = StoreChecks()


def _kept(job: NewJob) -> NewJob:
    """
    Return a job without what a store need not keep, or may round.
    """
    return evolve(job, after=0.0, onTaken=OnTaken.JOIN, expires=None)


def _taken(answer: Added | KeyTaken) -> tuple[str, str]:
    """
    Return which key is taken, and by which job.
    """
    if not isinstance(answer, KeyTaken):
        raise AssertionError(f"it was not rejected: {answer}")
    return answer.key, answer.id


@CHECKS.check
async def allOfAJobIsKept(trial: StoreTrial) -> None:
    """
    A job is found, and claimed, with all that it was added with.
    """
    flow = Flow("money", -20, Band.LAST)
    parent = await trial.add()
    job = trial.new(
        name="shop.tasks:grüße",
        payload=bytes(range(256)),
        codec="pickle",
        options=b"\0\xff",
        flow=flow,
        attempts=7,
        loss=True,
        key="charge '42' %_",
        onTaken=OnTaken.REJECT,
        expires=7200.0,
        keep=5.0,
        keepDead=6.0,
        trace="00-ab-cd-01",
        parent=parent,
    )
    await trial.do(Add((job,)))
    claimed = await trial.claimOne(await trial.node(), flow)
    for found in (claimed.job, (await trial.record(job.id)).job):
        expect(_kept(found), _kept(job), "the job")
        require(found.expires is not None and abs(found.expires - 7200) < 1, "it can expire")


@CHECKS.check
async def aNewJobWaits(trial: StoreTrial) -> None:
    """
    The record of a new job says that it waits, since when, and nothing of attempts.
    """
    id = await trial.add()
    record = await trial.record(id)
    expect(record.state, JobState.WAITING, "its state")
    expect((record.attempt, record.counted, record.losses), (0, 0, 0), "its attempts")
    nothing = (
        record.begun,
        record.ended,
        record.node,
        record.failure,
        record.outcome,
        record.until,
    )
    expect(nothing, (None,) * 6, "what cannot be known yet")
    expect(record.stopping, False, "whether it is cancelled")
    trial.isNow(record.created, "when it was created")
    trial.isNow(record.due, "when it is due")


@CHECKS.check
async def answersAreInOrder(trial: StoreTrial) -> None:
    """
    What became of each job is said in their order; of no job, nothing.
    """
    jobs = (trial.new(), trial.new(after=60), trial.new())
    await trial.do(Add((jobs[2],)))
    states = (JobState.WAITING, JobState.LATER, JobState.WAITING)
    expected = [Added(job.id, state) for job, state in zip(jobs, states, strict=True)]
    expect(list(await trial.do(Add(jobs))), expected, "the answer")
    expect(list(await trial.do(Add(()))), [], "the answer of none")


@CHECKS.check
async def toAddAgainIsToAddOnce(trial: StoreTrial) -> None:
    """
    A job whose ID is there is not added again, however far it is, and its key is not looked at.
    """
    node = await trial.node()
    job = trial.new(key="once", onTaken=OnTaken.REJECT)
    expect(
        list(await trial.do(Add((job, job)))), [Added(job.id, JobState.WAITING)] * 2, "the answer"
    )
    claimed = await trial.claimOne(node)
    expect(list(await trial.do(Add((job,)))), [Added(job.id, JobState.CLAIMED)], "the answer")
    await trial.begun(node, claimed.attempt)
    await trial.end(node, claimed.attempt)
    expect(list(await trial.do(Add((job,)))), [Added(job.id, JobState.DONE)], "the answer")
    expect(await trial.do(Count()), {JobState.DONE: 1}, "what there is")
    expect(await trial.claim(node), [], "what can be claimed")


@CHECKS.check
async def anAddedAgainKeepsItsFirstKey(trial: StoreTrial) -> None:
    """
    A job that has ended and is added again does not take its key again.
    """
    job = trial.new(key="k")
    await trial.do(Add((job,)))
    await trial.act(Act.CANCEL, job.id)
    await trial.do(Add((job,)))
    await trial.add(key="k", onTaken=OnTaken.REJECT)


@CHECKS.check
async def joins(trial: StoreTrial) -> None:
    """
    A job that joins another with its key is not stored, however far the other one is.
    """
    node = await trial.node()
    other = await trial.add(key="k")
    expected = {0: JobState.WAITING, 1: JobState.CLAIMED, 2: JobState.RUNNING}
    for step, state in expected.items():
        if step == 1:
            claimed = await trial.claimOne(node)
        elif step == 2:
            await trial.begun(node, claimed.attempt)
        answer = list(await trial.do(Add((trial.new(key="k"),))))
        expect(answer, [Added(other, state, joined=True)], "the answer")
    await trial.again(node, claimed.attempt, delay=60)
    answer = list(await trial.do(Add((trial.new(key="k", name="m:other"),))))
    expect(answer, [Added(other, JobState.LATER, joined=True)], "the answer")
    expect(await trial.do(Count()), {JobState.LATER: 1}, "what there is")


@CHECKS.check
async def rejects(trial: StoreTrial) -> None:
    """
    A job whose key is taken is rejected if it says so; the others of the same operation are stored.
    """
    other = await trial.add(key="k")
    jobs = trial.new(), trial.new(key="k", onTaken=OnTaken.REJECT), trial.new()
    answers = await trial.do(Add(jobs))
    expect(
        (answers[0], answers[2]), tuple(Added(jobs[n].id, JobState.WAITING) for n in (0, 2)), "two"
    )
    taken = answers[1]
    expect(_taken(taken), ("k", other), "who has the key")
    expect(await trial.found(), [other, jobs[0].id, jobs[2].id], "what there is")


@CHECKS.check
async def replaces(trial: StoreTrial) -> None:
    """
    A job replaces one with its key that is not running: that one is cancelled.
    """
    node = await trial.node()

    async def waits() -> str:
        return await trial.add(key="k")

    async def isLater() -> str:
        return await trial.add(key="k", after=60)

    async def isClaimed() -> str:
        return (await trial.claimed(node, key="k")).id

    async def isRepeated() -> str:
        attempt = await trial.running(node, key="k")
        await trial.again(node, attempt)
        return attempt.id

    for bring in (waits, isLater, isClaimed, isRepeated):
        other = await bring()
        trial.heard.clear()
        new = await trial.add(key="k", onTaken=OnTaken.REPLACE)
        await trial.isState(JobState.CANCELLED, other)
        require(other in trial.heardOf(lambda event: event.ended), "its end is told")
        answer = list(await trial.do(Add((trial.new(key="k"),))))
        expect(answer, [Added(new, JobState.WAITING, joined=True)], "who has the key")
        expect([each.id for each in await trial.claim(node)], [new], "what can be claimed")
        await trial.act(Act.CANCEL, new)


@CHECKS.check
async def doesNotReplaceTheRunning(trial: StoreTrial) -> None:
    """
    A job that would replace a running one is rejected.
    """
    node = await trial.node()
    attempt = await trial.running(node, key="k")
    (answer,) = await trial.do(Add((trial.new(key="k", onTaken=OnTaken.REPLACE),)))
    expect(_taken(answer), ("k", attempt.id), "who has the key")
    expect(await trial.found(), [attempt.id], "what there is")
    await trial.isState(JobState.RUNNING, attempt.id)


@CHECKS.check
async def twoOfOneKeyMeet(trial: StoreTrial) -> None:
    """
    Of jobs with the same key in one operation each meets those before it.
    """
    jobs = [trial.new(key="k") for _ in range(2)]
    jobs += [trial.new(key="k", onTaken=OnTaken.REPLACE), trial.new(key="other")]
    jobs.append(trial.new(key="k", onTaken=OnTaken.REJECT))
    answers = await trial.do(Add(tuple(jobs)))
    expect(answers[0].id, jobs[0].id, "the first")
    expect(answers[1], Added(jobs[0].id, JobState.WAITING, joined=True), "what has joined it")
    expect(answers[2], Added(jobs[2].id, JobState.WAITING), "what has replaced it")
    expect(_taken(answers[4]), ("k", jobs[2].id), "who has the key")
    await trial.isState(JobState.CANCELLED, jobs[0].id)
    expect(await trial.found(), [jobs[0].id, jobs[2].id, jobs[3].id], "what there is")


@CHECKS.check
async def anEndFreesTheKey(trial: StoreTrial) -> None:
    """
    A key is free when the job that had it has ended, in whatever way.
    """
    node = await trial.node()
    for kind in (JobState.DONE, JobState.FAILED, JobState.LOST, JobState.CANCELLED):
        await trial.end(node, await trial.running(node, key="k"), kind)
    await trial.act(Act.CANCEL, await trial.add(key="k"))
    await trial.running(node, key="k")
    await trial.do(Leave(node))
    await trial.add(key="k", expires=60, onTaken=OnTaken.REJECT)
    trial.advance(1)
    expect(await trial.do(Prune()), 1, "how many have expired")
    await trial.add(key="k", onTaken=OnTaken.REJECT)


@CHECKS.check
async def keysAreDistinct(trial: StoreTrial) -> None:
    """
    Keys that differ in anything are different, and jobs without a key meet none.
    """
    keys = ["k", "K", "k ", "kk", "", "ß", None, None]
    jobs = tuple(trial.new(key=key, onTaken=OnTaken.REJECT) for key in keys)
    expected = [Added(job.id, JobState.WAITING) for job in jobs]
    expect(list(await trial.do(Add(jobs))), expected, "the answer")


@CHECKS.check
async def manyAreAdded(trial: StoreTrial) -> None:
    """
    Thousands of jobs are added at once, some of them again, and all are claimed in their order.
    """
    jobs = [trial.new(key=f"key {n}") for n in range(3000)]
    await trial.do(Add(tuple(jobs[1000:2000])))
    answers = await trial.do(Add(tuple(jobs)))
    expect([answer.id for answer in answers], [job.id for job in jobs], "the answer")
    node = await trial.node()
    claims = await trial.do(Claim(node, (Want(Flow(), 5000),)))
    order = [*jobs[1000:2000], *jobs[:1000], *jobs[2000:]]
    expect([each.job.id for each in claims.claimed], [job.id for job in order], "what was claimed")
