"""
What stores promise to people: to find, count, cancel, retry, drop and prune jobs.
"""

from __future__ import annotations

from asynqueue.stores.operations import (
    Act,
    ActOn,
    Add,
    Count,
    Find,
    Leave,
    Prune,
)
from asynqueue.stores.records import (
    ENDED,
    Added,
    Attempt,
    Flow,
    JobFilter,
    JobState,
    OnTaken,
)
from asynqueue.testing.storetrials import HOUR, StoreChecks, StoreTrial
from asynqueue.testing.trials import expect

CHECKS = StoreChecks()


async def _one(trial: StoreTrial, node: str, state: JobState, **fields: object) -> str:
    """
    Add a job and bring it to a state.
    """
    if state is JobState.LATER:
        return await trial.add(after=9 * HOUR, **fields)
    if state is JobState.WAITING:
        return await trial.add(**fields)
    if state is JobState.CLAIMED:
        return (await trial.claimed(node, **fields)).id
    attempt = await trial.running(node, **fields)
    if state in ENDED:
        await trial.end(node, attempt, state)
    return attempt.id


async def _each(trial: StoreTrial, node: str) -> dict[JobState, str]:
    """
    Bring a job to each state.
    """
    states = [state for state in JobState if state is not JobState.WAITING]
    return {state: await _one(trial, node, state) for state in (*states, JobState.WAITING)}


@CHECKS.check
async def jobsAreReadInPages(trial: StoreTrial) -> None:
    """
    Jobs are read in the order of their IDs, or in the opposite one, page by page, each once.
    """
    jobs = sorted(await trial.addMany(7))
    await trial.act(Act.CANCEL, jobs[2])
    for order, newestFirst in ((jobs, False), (jobs[::-1], True)):
        after, pages = None, []
        while page := await trial.do(Find(after=after, count=3, newestFirst=newestFirst)):
            pages.append([record.job.id for record in page])
            after = pages[-1][-1]
        expect(pages, [order[:3], order[3:6], order[6:]], "the pages")


@CHECKS.check
async def pagesMayLoseTheirEnds(trial: StoreTrial) -> None:
    """
    The next page is found though the last job of the one before was dropped, and has only jobs of
    its filter.
    """
    jobs = await trial.addMany(9)
    await trial.act(Act.CANCEL, *jobs[::2])
    cancelled = JobFilter(states=frozenset({JobState.CANCELLED}))
    await trial.act(Act.DROP, jobs[4])
    for newestFirst, expected in ((False, [jobs[6], jobs[8]]), (True, [jobs[2], jobs[0]])):
        page = await trial.do(Find(cancelled, jobs[4], 2, newestFirst))
        expect([record.job.id for record in page], expected, "the page")
    expect(list(await trial.do(Find(count=0))), [], "a page of none")


@CHECKS.check
async def filtersMeanWhatTheySay(trial: StoreTrial) -> None:
    """
    Each field of a filter has only those jobs found to which it applies, together all of them.
    """
    node, other = await trial.node(), await trial.node()
    a = await _one(trial, node, JobState.DONE, name="m:a", key="k", flow=Flow("s"))
    b = await _one(trial, node, JobState.RUNNING, name="m:b", key="k", flow=Flow("s", 3))
    c = await _one(trial, other, JobState.FAILED, name="m:b")
    d = await _one(trial, other, JobState.WAITING, name="m:c", key="K")
    expect(await trial.found(), [a, b, c, d], "all")
    expect(await trial.found(ids=frozenset({c, a, trial.newID()})), [a, c], "those of the IDs")
    expect(await trial.found(ids=frozenset()), [], "those of no ID")
    states = frozenset({JobState.DONE, JobState.WAITING, JobState.LOST})
    expect(await trial.found(states=states), [a, d], "those of the states")
    expect(await trial.found(states=frozenset()), [], "those of no state")
    expect(await trial.found(series=frozenset({"s"})), [a, b], "those of a series")
    expect(await trial.found(series=frozenset({""})), [c, d], "those of the empty series")
    expect(await trial.found(names=frozenset({"m:b", "m:c"})), [b, c, d], "those of the names")
    expect(await trial.found(key="k"), [a, b], "those of the key")
    expect(await trial.found(node=node), [a, b], "those of the node")
    both = await trial.found(series=frozenset({"s"}), names=frozenset({"m:b"}), node=node)
    expect(both, [b], "those to which all applies")


@CHECKS.check
async def filtersKnowTheAge(trial: StoreTrial) -> None:
    """
    Jobs are found by how long ago they were added.
    """
    jobs = []
    for _ in range(3):
        jobs.append(await trial.add())
        trial.advance(2)
    expect(await trial.found(olderThan=5 * HOUR), jobs[:1], "the oldest")
    expect(await trial.found(newerThan=3 * HOUR), jobs[2:], "the newest")
    middle = await trial.found(olderThan=3 * HOUR, newerThan=5 * HOUR)
    expect(middle, jobs[1:2], "the one between")


@CHECKS.check
async def filtersSearchText(trial: StoreTrial) -> None:
    """
    A text is looked for in names, keys and errors, also of jobs that are repeated, as it is
    written; but upper and lower case are the same.
    """
    node = await trial.node()
    named = await trial.add(name="shop:Charge_all")
    keyed = await trial.add(name="m:f", key="50% off")
    await trial.claim(node)
    failed = await trial.running(node, name="m:f")
    await trial.end(node, failed, JobState.FAILED, summary="ValueError: no such Charge")
    repeated = await trial.running(node, name="m:f")
    await trial.again(node, repeated, delay=60, summary="OSError: off")
    expect(await trial.found(text="CHARGE"), [named, failed.id], "a name and an error")
    expect(await trial.found(text="Off"), [keyed, repeated.id], "a key and an error")
    expect(await trial.found(text="e_a"), [named], "what has an underscore")
    expect(await trial.found(text="%"), [keyed], "what has a per cent sign")
    expect(await trial.found(text="\\"), [], "what has a backslash")
    expect(await trial.found(text="'"), [], "what has a quote")


@CHECKS.check
async def jobsAreCounted(trial: StoreTrial) -> None:
    """
    Jobs are counted by state, all or those of a filter; states without any are missing.
    """
    node = await trial.node()
    expect(await trial.do(Count()), {}, "the count of none")
    jobs = await _each(trial, node)
    expect(await trial.do(Count()), dict.fromkeys(JobState, 1), "the count of all")
    await trial.addMany(2, flow=Flow("s"))
    counted = await trial.do(Count(JobFilter(series=frozenset({"s"}))))
    expect(counted, {JobState.WAITING: 2}, "the count of some")
    ids = frozenset({jobs[JobState.DONE], jobs[JobState.LATER]})
    counted = await trial.do(Count(JobFilter(ids=ids)))
    expect(counted, {JobState.DONE: 1, JobState.LATER: 1}, "the count of two")


@CHECKS.check
async def jobsAreCancelled(trial: StoreTrial) -> None:
    """
    Jobs that do not run end as cancelled; those that run are to stop, which is told once. To those
    that have ended it does not apply.
    """
    node = await trial.node()
    jobs = await _each(trial, node)
    trial.heard.clear()
    atOnce = {jobs[JobState.WAITING], jobs[JobState.LATER], jobs[JobState.CLAIMED]}
    runs = jobs[JobState.RUNNING]
    expect(await trial.act(Act.CANCEL, *jobs.values()), {*atOnce, runs}, "what was cancelled")
    expect({id for event in trial.heard for id in event.ended}, atOnce, "whose end is told")
    expect(trial.heardOf(lambda event: event.stopping), {runs}, "who is told to stop")
    await trial.isState(JobState.CANCELLED, *sorted(atOnce))
    record = await trial.record(jobs[JobState.LATER])
    kind = record.outcome and record.outcome.kind
    expect((kind, record.failure), (JobState.CANCELLED, None), "its outcome")
    trial.isNow(record.ended, "when it has ended")
    trial.isNow(record.until, "until when it is kept", 24)
    expect(await trial.act(Act.CANCEL, *jobs.values()), set(), "what was cancelled again")
    expect(await trial.claim(node), [], "what can be claimed")
    await trial.isState(JobState.DONE, jobs[JobState.DONE])


@CHECKS.check
async def jobsAreRetried(trial: StoreTrial) -> None:
    """
    Jobs that have ended, and not with a value, wait again at the end of their flow, with as many
    attempts as a new one.
    """
    node = await trial.node()
    attempt = await trial.running(node, loss=True, attempts=2)
    await trial.do(Leave(node))
    node = await trial.node()
    (attempt,) = await trial.claim(node, begin=True)
    await trial.end(node, attempt, JobState.FAILED)
    jobs = await _each(trial, node)
    trial.heard.clear()
    ended = [jobs[kind] for kind in JobState if kind in ENDED and kind is not JobState.DONE]
    retried = await trial.act(Act.RETRY, *jobs.values(), attempt.id)
    expect(retried, {*ended, attempt.id}, "what was retried")
    expect(trial.heardOf(lambda event: event.flows), {Flow()}, "which flow is told")
    record = await trial.record(attempt.id)
    expect((record.state, record.attempt), (JobState.WAITING, 2), "its record")
    expect((record.counted, record.losses), (0, 0), "its attempts before")
    over = (record.begun, record.ended, record.node, record.outcome, record.until)
    expect(over, (None,) * 5, "what is over")
    claims = await trial.claims(node, begin=True)
    numbers = {claimed.attempt.id: claimed.attempt.number for claimed in claims.claimed}
    expected = {jobs[JobState.WAITING]: 1, attempt.id: 3, **dict.fromkeys(ended, 2)}
    expect(numbers, expected, "the attempts")
    order = [jobs[JobState.WAITING], *sorted([*ended, attempt.id])]
    expect(list(numbers), order, "their order")
    rescued = await trial.do(Leave(node))
    expect(list(rescued.repeated), [attempt.id], "what has an attempt left")


@CHECKS.check
async def theRetriedNeverExpire(trial: StoreTrial) -> None:
    """
    A job that has expired can be retried, and does not expire again; nor one that was cancelled.
    """
    node = await trial.node()
    jobs = await trial.addMany(2, expires=HOUR)
    await trial.act(Act.CANCEL, jobs[1])
    trial.advance(2)
    expect(await trial.claim(node), [], "what can be claimed")
    expect(await trial.act(Act.RETRY, *jobs), set(jobs), "what was retried")
    trial.advance(99)
    expect(await trial.do(Prune()), 0, "how many have expired, or were pruned")
    attempts = await trial.claim(node)
    expect({attempt.id for attempt in attempts}, set(jobs), "what can be claimed")
    await trial.begun(node, *attempts)


@CHECKS.check
async def aTakenKeyForbidsToRetry(trial: StoreTrial) -> None:
    """
    A job is not retried when another has its key; of two with one key only the older. It has its
    key again then.
    """
    jobs = []
    for _ in range(3):
        jobs.append(await trial.add(key="k"))
        await trial.act(Act.CANCEL, jobs[-1])
    other = await trial.add(key="k")
    expect(await trial.act(Act.RETRY, *jobs), set(), "what was retried")
    await trial.act(Act.CANCEL, other)
    expect(await trial.act(Act.RETRY, *jobs), {jobs[0]}, "what was retried")
    await trial.isState(JobState.CANCELLED, *jobs[1:])
    answer = list(await trial.do(Add((trial.new(key="k", onTaken=OnTaken.JOIN),))))
    expect(answer, [Added(jobs[0], JobState.WAITING, joined=True)], "who has the key")


@CHECKS.check
async def theEndedAreDropped(trial: StoreTrial) -> None:
    """
    Jobs that have ended can be dropped, and may be added again then.
    """
    node = await trial.node()
    jobs = await _each(trial, node)
    ended = {jobs[kind] for kind in ENDED}
    expect(await trial.act(Act.DROP, *jobs.values()), ended, "what was dropped")
    expect(set(await trial.found()), set(jobs.values()) - ended, "what is left")
    expect(await trial.act(Act.DROP, *ended), set(), "what was dropped again")
    again = jobs[JobState.DONE]
    await trial.add(id=again)
    expect(Attempt(again, 1) in await trial.claim(node), True, "whether it begins anew")


@CHECKS.check
async def actsKeepToTheirFilter(trial: StoreTrial) -> None:
    """
    An act applies to the jobs of its filter only, and to thousands of them.
    """
    jobs = await trial.addMany(3000, flow=Flow("a"))
    others = await trial.addMany(10)
    wanted = JobFilter(series=frozenset({"a"}))
    done = await trial.do(ActOn(Act.CANCEL, wanted))
    expect((len(done), set(done)), (3000, set(jobs)), "what was cancelled")
    done = await trial.do(ActOn(Act.DROP, wanted, "ann"))
    expect((len(done), set(done)), (3000, set(jobs)), "what was dropped")
    expect(await trial.found(), others, "what is left")
    await trial.isState(JobState.WAITING, *others)


@CHECKS.check
async def outcomesArePruned(trial: StoreTrial) -> None:
    """
    Jobs are forgotten when their outcomes need not be kept any longer, a good one earlier than one
    that wants a person, and not all at once if that is said.
    """
    node = await trial.node()
    kept: dict[str, float] = {"keep": 2 * HOUR, "keepDead": 5 * HOUR}
    good = (JobState.DONE, JobState.CANCELLED, JobState.EXPIRED)
    short = [await _one(trial, node, state, **kept) for state in good]
    dead = [await _one(trial, node, state, **kept) for state in (JobState.FAILED, JobState.LOST)]
    waiting = await trial.add(**kept)
    trial.advance(1)
    expect(await trial.do(Prune()), 0, "how many were pruned")
    trial.advance(2)
    expect(await trial.do(Prune(most=2)), 2, "how many were pruned")
    expect(len(await trial.found()), 4, "how many are left")
    expect(await trial.do(Prune()), 1, "how many were pruned")
    expect(await trial.found(), [*dead, waiting], "what is left")
    trial.advance(3)
    expect(await trial.do(Prune()), 2, "how many were pruned")
    expect(await trial.found(), [waiting], "what is left")
    await trial.add(id=short[0])


@CHECKS.check
async def theExpiredEnd(trial: StoreTrial) -> None:
    """
    Jobs that wait and have expired end so when the store is pruned, not all at once if that is
    said, and their end is told; what a node has is its own affair.
    """
    node = await trial.node()
    claimed = await trial.claimed(node, expires=HOUR)
    jobs = [await trial.add(expires=HOUR, after=after) for after in (0, 0, 9 * HOUR)]
    other = await trial.add(expires=9 * HOUR)
    expect(await trial.do(Prune()), 0, "how many have expired")
    trial.advance(2)
    trial.heard.clear()
    expect(await trial.do(Prune(most=2)), 2, "how many have expired")
    expect(await trial.do(Prune()), 1, "how many have expired")
    expect(trial.heardOf(lambda event: event.ended), set(jobs), "whose end is told")
    await trial.isState(JobState.EXPIRED, *jobs)
    await trial.isState(JobState.CLAIMED, claimed.id)
    await trial.isState(JobState.WAITING, other)
