"""
What stores promise of claims, begins, and of jobs that are given back.
"""

from __future__ import annotations

from asynqueue.stores.operations import (
    Act,
    Begin,
    Claim,
    Claims,
    FlowCount,
    Flows,
    GiveBack,
    Leave,
    Pause,
    Paused,
    Prune,
    Resume,
    Ripen,
    Ripened,
    Want,
)
from asynqueue.stores.records import Attempt, Band, Flow, JobState
from asynqueue.testing.storetrials import HOUR, StoreChecks, StoreTrial
from asynqueue.testing.trials import expect, require

CHECKS = StoreChecks()


def _ids(claims: Claims) -> list[str]:
    return [claimed.job.id for claimed in claims.claimed]


@CHECKS.check
async def aFlowKeepsItsOrder(trial: StoreTrial) -> None:
    """
    Jobs of a flow are claimed in the order in which they were added, whatever their IDs are, and as
    many as are wanted.
    """
    jobs = [trial.newID() for _ in range(6)]
    order = [jobs[n] for n in (3, 0, 5, 1, 4, 2)]
    for id in order:
        await trial.add(id=id)
    node = await trial.node()
    expect(_ids(await trial.claims(node, count=0)), [], "what none is")
    expect(_ids(await trial.claims(node, count=2)), order[:2], "the first two")
    expect(_ids(await trial.claims(node, count=10)), order[2:], "the others")
    expect(_ids(await trial.claims(node)), [], "what is left")


@CHECKS.check
async def flowsAreClaimedApart(trial: StoreTrial) -> None:
    """
    Only jobs of the flows that are wanted are claimed, flow by flow: each series, niceness and band
    is another one.
    """
    flows = [Flow(), Flow("a"), Flow("a", 5), Flow("a", 5, Band.NEXT), Flow("A", 5, Band.LAST)]
    jobs = {flow: [await trial.add(flow=flow) for _ in range(2)] for flow in flows}
    node = await trial.node()
    wants = tuple(Want(flows[n], count) for n, count in ((3, 2), (0, 1), (4, 5)))
    claims = await trial.do(Claim(node, (*wants, Want(Flow("none"), 5))))
    expected = [*jobs[flows[3]], jobs[flows[0]][0], *jobs[flows[4]]]
    expect(_ids(claims), expected, "what was claimed")
    expect(_ids(await trial.claims(node, flows[1])), jobs[flows[1]], "the jobs of another flow")


@CHECKS.check
async def aClaimSaysAllThatANodeMustKnow(trial: StoreTrial) -> None:
    """
    A claimed job comes with the number of its attempt, and when it was created. Its record says who
    has it.
    """
    node = await trial.node()
    id = await trial.add()
    trial.advance(2)
    claimed = await trial.claimOne(node)
    expect(claimed.attempt, Attempt(id, 1), "the attempt")
    expect((claimed.losses, claimed.counted), (0, 0), "the attempts before")
    trial.isNow(claimed.created, "when it was created", -2)
    record = await trial.record(id)
    expect((record.state, record.attempt, record.node), (JobState.CLAIMED, 1, node), "its record")
    expect(record.begun, None, "when it has begun")


@CHECKS.check
async def oneNodeHasAJob(trial: StoreTrial) -> None:
    """
    No two nodes claim the same job.
    """
    jobs = await trial.addMany(10)
    nodes = [await trial.node(), await trial.node()]
    claimed = [id for n in range(5) for id in _ids(await trial.claims(nodes[n % 2], count=3))]
    expect(claimed, jobs, "what was claimed")


@CHECKS.check
async def onlyTheLivingClaim(trial: StoreTrial) -> None:
    """
    A node that has not registered, or has left, is given nothing; one whose lease is over is, until
    it is rescued.
    """
    id = await trial.add()
    expect(await trial.claims(trial.newID()), Claims(), "what an unknown node claims")
    node = await trial.node()
    await trial.do(Leave(node))
    expect(await trial.claims(node), Claims(), "what a node claims that has left")
    late = await trial.node(lease=HOUR)
    trial.advance(2)
    expect(_ids(await trial.claims(late)), [id], "what a late node claims")


@CHECKS.check
async def pausedSeriesAreNotClaimed(trial: StoreTrial) -> None:
    """
    Jobs of a series that is paused are neither claimed nor told of, until it is resumed; what was
    claimed before begins and ends.
    """
    node, flow = await trial.node(), Flow("a", 3)
    before = await trial.claimed(node, flow=flow)
    first = await trial.add(flow=flow)
    await trial.do(Pause("a", "a person"))
    await trial.do(Pause("a", "another"))
    other, free = await trial.add(flow=Flow("a", 4)), await trial.add()
    expect(list(await trial.do(Paused())), ["a"], "what is paused")
    wants = tuple(Want(each, 5) for each in (flow, Flow("a", 4), Flow()))
    expect(_ids(await trial.do(Claim(node, wants))), [free], "what can be claimed")
    expect(list(await trial.do(Flows())), [], "the flows")
    await trial.begun(node, before)
    require(await trial.end(node, before), "what was claimed before may end")
    trial.heard.clear()
    await trial.do(Resume("a", "a person"))
    expect(trial.heardOf(lambda event: event.flows), {flow, Flow("a", 4)}, "what is told")
    expect(list(await trial.do(Paused())), [], "what is paused")
    expect(_ids(await trial.do(Claim(node, wants))), [first, other], "what can be claimed")
    await trial.do(Resume("never paused"))


@CHECKS.check
async def theExpiredAreNotClaimed(trial: StoreTrial) -> None:
    """
    Jobs that have expired end so when they would be claimed, and do not count among those that are
    wanted.
    """
    node = await trial.node()
    expired = await trial.addMany(3, expires=HOUR)
    lasting = [await trial.add(), await trial.add(expires=9 * HOUR)]
    trial.advance(2)
    trial.heard.clear()
    claims = await trial.claims(node, count=2)
    expect((_ids(claims), list(claims.expired)), (lasting, expired), "what was claimed, and ended")
    expect(trial.heardOf(lambda event: event.ended), set(expired), "whose end is told")
    record = await trial.record(expired[0])
    expect((record.state, record.node, record.attempt), (JobState.EXPIRED, None, 0), "its record")
    require(record.outcome is not None and record.outcome.kind is record.state, "it has an outcome")
    trial.isNow(record.ended, "when it has ended")


@CHECKS.check
async def attemptsBegin(trial: StoreTrial) -> None:
    """
    An attempt that begins runs from now on; to begin it again is allowed, and changes nothing.
    """
    node = await trial.node()
    attempt = await trial.claimed(node)
    trial.advance(2)
    await trial.begun(node, attempt)
    record = await trial.record(attempt.id)
    expect((record.state, record.node, record.attempt), (JobState.RUNNING, node, 1), "its record")
    trial.isNow(record.begun, "when it has begun")
    trial.isNow(record.created, "when it was created", -2)
    trial.advance(2)
    await trial.begun(node, attempt)
    trial.isNow((await trial.record(attempt.id)).begun, "when it has begun", -2)


@CHECKS.check
async def attemptsBeginWithTheirClaim(trial: StoreTrial) -> None:
    """
    Attempts begin as they are claimed, if that is asked for.
    """
    node = await trial.node()
    jobs = await trial.addMany(3)
    attempts = await trial.claim(node, begin=True)
    expect(attempts, [Attempt(id, 1) for id in jobs], "what was claimed")
    for attempt in attempts:
        record = await trial.record(attempt.id)
        expect((record.state, record.node, record.attempt), (JobState.RUNNING, node, 1), "a record")
        trial.isNow(record.begun, "when it has begun")
    require(not await trial.giveBack(node, attempts[0]), "it has begun, and is not given back")
    require(await trial.end(node, attempts[1]), "it may end")


@CHECKS.check
async def onlyTheirNodesBeginAttempts(trial: StoreTrial) -> None:
    """
    Of all that a node would begin, only what it has may begin.
    """
    node, other = await trial.node(), await trial.node()
    mine, theirs = await trial.claimed(node), await trial.claimed(other)
    wrong = Attempt(mine.id, mine.number + 1)
    attempts = (theirs, wrong, Attempt(trial.newID(), 1), Attempt(await trial.add(), 1), mine)
    expect(await trial.do(Begin(node, attempts)), frozenset({mine}), "what may begin")
    await trial.isState(JobState.CLAIMED, theirs.id)
    expect(await trial.do(Begin(node, ())), frozenset(), "what none is")


@CHECKS.check
async def theCancelledDoNotBegin(trial: StoreTrial) -> None:
    """
    A job that was cancelled when it was claimed does not begin.
    """
    node = await trial.node()
    attempt = await trial.claimed(node)
    expect(await trial.act(Act.CANCEL, attempt.id), {attempt.id}, "what was cancelled")
    expect(await trial.do(Begin(node, (attempt,))), frozenset(), "what may begin")
    record = await trial.record(attempt.id)
    expect((record.state, record.node), (JobState.CANCELLED, node), "its record")
    expect((record.attempt, record.begun), (1, None), "the attempt that has ended it")
    await trial.act(Act.RETRY, attempt.id)
    expect(await trial.claim(node), [Attempt(attempt.id, 2)], "the next attempt")


@CHECKS.check
async def theExpiredDoNotBegin(trial: StoreTrial) -> None:
    """
    A claimed job that has expired ends so when it would begin.
    """
    node = await trial.node()
    attempt = await trial.claimed(node, expires=HOUR)
    trial.advance(2)
    trial.heard.clear()
    expect(await trial.do(Begin(node, (attempt,))), frozenset(), "what may begin")
    await trial.isState(JobState.EXPIRED, attempt.id)
    expect(trial.heardOf(lambda event: event.ended), {attempt.id}, "whose end is told")


@CHECKS.check
async def whatHasBegunNeverExpires(trial: StoreTrial) -> None:
    """
    A job that has begun in time does not expire, neither as it runs nor when it is repeated.
    """
    node = await trial.node()
    attempt = await trial.running(node, expires=HOUR)
    trial.advance(2)
    expect(await trial.do(Prune()), 0, "how many have expired")
    await trial.begun(node, attempt)
    await trial.again(node, attempt)
    expect(await trial.do(Prune()), 0, "how many have expired")
    (second,) = await trial.claim(node)
    await trial.begun(node, second)
    require(await trial.end(node, second), "it may end")
    await trial.isState(JobState.DONE, attempt.id)


@CHECKS.check
async def whatIsGivenBackHasItsOldPlace(trial: StoreTrial) -> None:
    """
    Jobs that are given back wait in their old places, with no attempt counted, and their flow is
    told.
    """
    node = await trial.node()
    jobs = await trial.addMany(5)
    attempts = await trial.claim(node, count=4)
    trial.heard.clear()
    given = (attempts[2], attempts[0])
    expect(await trial.do(GiveBack(node, given)), frozenset(given), "what was given back")
    expect(trial.heardOf(lambda event: event.flows), {Flow()}, "which flow is told")
    record = await trial.record(jobs[0])
    expect((record.state, record.attempt), (JobState.WAITING, 0), "its record")
    expect((record.counted, record.node), (0, None), "its attempts and its node")
    claims = await trial.claims(await trial.node())
    expect(_ids(claims), [jobs[0], jobs[2], jobs[4]], "what waits")
    expect([claimed.attempt.number for claimed in claims.claimed], [1, 1, 1], "their attempts")


@CHECKS.check
async def whatRunsIsNotGivenBack(trial: StoreTrial) -> None:
    """
    A job that has begun is given back only if its node says that no worker has begun it. Its number
    is not used again, and it counts for nothing.
    """
    node = await trial.node()
    attempt, later = await trial.running(node), await trial.add()
    require(not await trial.giveBack(node, attempt), "what runs is not given back")
    await trial.isState(JobState.RUNNING, attempt.id)
    require(await trial.giveBack(node, attempt, begun=True), "it is given back")
    record = await trial.record(attempt.id)
    expect((record.state, record.attempt), (JobState.WAITING, 1), "its record")
    expect((record.counted, record.begun, record.node), (0, None, None), "what is left of it")
    expect(await trial.claim(node), [Attempt(attempt.id, 2), Attempt(later, 1)], "the next")
    require(not await trial.giveBack(node, attempt, begun=True), "that is over")
    expect(await trial.do(Begin(node, (attempt,))), frozenset(), "what may begin")


@CHECKS.check
async def onlyTheirNodesGiveJobsBack(trial: StoreTrial) -> None:
    """
    A node gives back only what it has.
    """
    node, other = await trial.node(), await trial.node()
    attempt = await trial.claimed(node)
    for begun in (False, True):
        require(not await trial.giveBack(other, attempt, begun), "it is another node's")
        wrong = Attempt(attempt.id, attempt.number + 1)
        require(not await trial.giveBack(node, wrong, begun), "it is another attempt")
        unknown = Attempt(trial.newID(), 1)
        require(not await trial.giveBack(node, unknown, begun), "it is unknown")
    await trial.isState(JobState.CLAIMED, attempt.id)
    require(await trial.giveBack(node, attempt, begun=True), "it need not have begun")
    require(not await trial.giveBack(node, attempt), "it was given back before")


@CHECKS.check
async def theCancelledAreNotGivenBack(trial: StoreTrial) -> None:
    """
    A job that was cancelled as it ran ends as cancelled when it is given back.
    """
    node = await trial.node()
    attempt = await trial.running(node)
    await trial.act(Act.CANCEL, attempt.id)
    require(await trial.giveBack(node, attempt, begun=True), "it was the node's")
    await trial.isState(JobState.CANCELLED, attempt.id)


@CHECKS.check
async def theUnbegunStillExpire(trial: StoreTrial) -> None:
    """
    A job that was claimed and given back expires as before.
    """
    node = await trial.node()
    attempt = await trial.claimed(node, expires=HOUR)
    await trial.giveBack(node, attempt)
    trial.advance(2)
    expect(await trial.do(Prune()), 1, "how many have expired")
    await trial.isState(JobState.EXPIRED, attempt.id)


@CHECKS.check
async def flowsAreCounted(trial: StoreTrial) -> None:
    """
    The flows are told that have jobs to be claimed, and how many, of all series or some.
    """
    node, flows = await trial.node(), [Flow(), Flow("a", -3), Flow("a", 2, Band.NEXT), Flow("b")]
    expect(list(await trial.do(Flows())), [], "the flows")
    for count, flow in enumerate(flows, 1):
        await trial.addMany(count, flow=flow)
    await trial.add(flow=Flow("c"), after=60)
    await trial.claimed(node, flow=Flow("d"))
    await trial.act(Act.CANCEL, await trial.add(flow=Flow("e")))
    await trial.claim(node, flows[0])
    await trial.claim(node, flows[3], 1)
    counted = [FlowCount(flows[1], 2), FlowCount(flows[2], 3), FlowCount(flows[3], 3)]
    expect(set(await trial.do(Flows())), set(counted), "the flows")
    some = await trial.do(Flows(frozenset({"a", "c"})))
    expect(set(some), set(counted[:2]), "the flows of some series")
    expect(list(await trial.do(Flows(frozenset()))), [], "the flows of none")


@CHECKS.check
async def laterJobsRipen(trial: StoreTrial) -> None:
    """
    A job is not claimed before it is due and has ripened; it then waits at the end of its flow, the
    earliest due first.
    """
    node, flow = await trial.node(), Flow("a")
    expect(await trial.do(Ripen()), Ripened((), None), "what is due")
    trial.heard.clear()
    hours = (6, 1, 3, 2)
    jobs = [await trial.add(flow=flow, after=each * HOUR) for each in hours]
    require(any(event.hasLater for event in trial.heard), "it is told that some are due later")
    record = await trial.record(jobs[0])
    expect(record.state, JobState.LATER, "the state")
    trial.isNow(record.due, "when it is due", 6)
    early = await trial.do(Ripen())
    expect(list(early.flows), [], "whose jobs are due")
    near = early.next is not None and 0 < early.next <= HOUR
    require(near, f"the next is due in an hour, not in {early.next}")
    trial.advance(4)
    waiting = await trial.add(flow=flow)
    expect(await trial.claims(node, Flow("b")), Claims(), "what waits in another flow")
    trial.heard.clear()
    ripened = await trial.do(Ripen())
    expect(list(ripened.flows), [flow], "whose jobs are due")
    expect(trial.heardOf(lambda event: event.flows), {flow}, "whose jobs are told to be due")
    near = ripened.next is not None and HOUR < ripened.next <= 2 * HOUR
    require(near, f"the next is due in two hours, not in {ripened.next}")
    expected = [waiting, jobs[1], jobs[3], jobs[2]]
    expect(_ids(await trial.claims(node, flow)), expected, "what was claimed")
    await trial.isState(JobState.LATER, jobs[0])


@CHECKS.check
async def theUnripeAreNotClaimed(trial: StoreTrial) -> None:
    """
    A job that is due later is not claimed, whatever its flow is wanted for, and can expire.
    """
    node = await trial.node()
    jobs = [await trial.add(after=9 * HOUR), await trial.add(after=HOUR, expires=2 * HOUR)]
    expect(await trial.claim(node), [], "what was claimed")
    trial.advance(3)
    expect(await trial.do(Prune()), 1, "how many have expired")
    expect(list((await trial.do(Ripen())).flows), [], "whose jobs are due")
    expect(await trial.claim(node), [], "what was claimed")
    await trial.isState(JobState.LATER, jobs[0])
    await trial.isState(JobState.EXPIRED, jobs[1])
