"""
What stores promise of nodes, and of what those had that are dead.
"""

from __future__ import annotations

from asynqueue.stores.operations import (
    Act,
    Add,
    Begin,
    Leave,
    Nodes,
    Register,
    Renew,
    Renewed,
    Rescue,
    Rescued,
)
from asynqueue.stores.records import DIED, Added, Attempt, Flow, JobState, NodeRecord, Outcome
from asynqueue.testing.storetrials import HOUR, StoreChecks, StoreTrial
from asynqueue.testing.trials import expect, require

CHECKS = StoreChecks()


@CHECKS.check
async def nodesAreKnown(trial: StoreTrial) -> None:
    """
    Nodes are told of as they have registered, with when that was, and until when their lease is.
    """
    expect(list(await trial.do(Nodes())), [], "the nodes")
    ids = trial.newID(), trial.newID()
    first = NodeRecord(
        id=ids[0], name="shop ß", host="h", pid=2**22, version="1.0", series=("a", ""), slots=8
    )
    await trial.do(Register(first, HOUR))
    await trial.do(Register(NodeRecord(id=ids[1], name="", host="", pid=1), 3 * HOUR))
    nodes = {node.id: node for node in await trial.do(Nodes())}
    expect(set(nodes), set(ids), "the nodes")
    found = nodes[ids[0]]
    trial.isNow(found.started, "when it has registered")
    trial.isNow(found.leaseUntil, "until when its lease is", 1)
    trial.isNow(nodes[ids[1]].leaseUntil, "until when the lease of the other is", 3)
    expect((found.name, found.host, found.pid), (first.name, "h", 2**22), "what it says")
    expect((found.version, found.slots), ("1.0", 8), "what it says")
    expect(tuple(found.series), ("a", ""), "its series")


@CHECKS.check
async def toRegisterAgainIsToRenew(trial: StoreTrial) -> None:
    """
    A node that registers again keeps what it has.
    """
    node = await trial.node()
    attempt = await trial.running(node)
    trial.advance(2)
    await trial.node(id=node, slots=3)
    (found,) = await trial.do(Nodes())
    trial.isNow(found.started, "when it has registered", -2)
    trial.isNow(found.leaseUntil, "until when its lease is", 1)
    expect(found.slots, 3, "its slots")
    rescued = await trial.do(Leave(node))
    expect(list(rescued.lost), [attempt.id], "what it had")


@CHECKS.check
async def leasesAreRenewed(trial: StoreTrial) -> None:
    """
    A node that renews its lease is not rescued, however long its jobs run, even if it was late.
    """
    node, other = await trial.node(), await trial.node(lease=900 * HOUR)
    attempt = await trial.running(node)
    for hours in (0.5, 0.5, 5, 100):
        trial.advance(hours)
        expect(await trial.do(Renew(node, HOUR)), Renewed(True), "what it hears")
        expect(await trial.do(Rescue()), Rescued(), "what is rescued")
    (found,) = [each for each in await trial.do(Nodes()) if each.id == node]
    trial.isNow(found.leaseUntil, "until when its lease is", 1)
    await trial.do(Leave(other))
    require(await trial.end(node, attempt), "it may end what it has")
    expect(await trial.do(Renew(trial.newID(), HOUR)), Renewed(False), "what a stranger hears")


@CHECKS.check
async def nodesHearOfTheCancelled(trial: StoreTrial) -> None:
    """
    A node that renews its lease hears which of its running jobs were cancelled.
    """
    node, other = await trial.node(), await trial.node()
    attempts = [await trial.running(node) for _ in range(3)]
    theirs = await trial.running(other)
    cancelled = (attempts[0].id, attempts[2].id, theirs.id)
    trial.heard.clear()
    await trial.act(Act.CANCEL, *cancelled)
    expect(trial.heardOf(lambda event: event.stopping), set(cancelled), "what is told")
    renewed = await trial.do(Renew(node, HOUR))
    expect(set(renewed.stopping), {attempts[0], attempts[2]}, "what it hears")
    await trial.end(node, attempts[0])
    renewed = await trial.do(Renew(node, HOUR))
    expect(set(renewed.stopping), {attempts[2]}, "what it hears")


@CHECKS.check
async def theDeadAreRescued(trial: StoreTrial) -> None:
    """
    What a dead node had claimed waits in its old place; what it had begun is lost, or repeated if
    it may be, or cancelled if that was asked. The node is forgotten.
    """
    node = await trial.node()
    repeated = await trial.running(node, loss=True, attempts=2)
    lost = await trial.running(node, attempts=5)
    spent = await trial.running(node, loss=True)
    cancelled = await trial.running(node, loss=True, attempts=5)
    await trial.act(Act.CANCEL, cancelled.id)
    claimed = await trial.claimed(node)
    waiting = await trial.add()
    trial.advance(3)
    trial.heard.clear()
    rescued = await trial.do(Rescue(margin=HOUR))
    expect(list(rescued.nodes), [node], "the dead")
    expect(list(rescued.waiting), [claimed.id], "what waits")
    expect(list(rescued.repeated), [repeated.id], "what is repeated")
    expect(set(rescued.lost), {lost.id, spent.id}, "what is lost")
    expect(list(rescued.cancelled), [cancelled.id], "what is cancelled")
    ended = {lost.id, spent.id, cancelled.id}
    expect({id for event in trial.heard for id in event.ended}, ended, "whose end is told")
    expect(trial.heardOf(lambda event: event.flows), {Flow()}, "which flow is told")
    expect(list(await trial.do(Nodes())), [], "the nodes")
    expect((await trial.record(lost.id)).outcome, DIED, "the outcome of the lost")
    expect((await trial.record(lost.id)).node, node, "who had it")
    await trial.isState(JobState.CANCELLED, cancelled.id)
    record = await trial.record(repeated.id)
    expect((record.state, record.attempt), (JobState.WAITING, 1), "the repeated")
    expect((record.counted, record.losses), (1, 1), "its attempts before")
    require(record.failure, "it is known why it is repeated")
    other = await trial.node()
    expected = [Attempt(claimed.id, 1), Attempt(waiting, 1), Attempt(repeated.id, 2)]
    expect(await trial.claim(other), expected, "what can be claimed")
    expect(await trial.do(Rescue()), Rescued(), "what is rescued again")


@CHECKS.check
async def theRescuedHaveNothing(trial: StoreTrial) -> None:
    """
    A node that was taken for dead claims, begins, ends and gives back nothing that others may have,
    and hears so.
    """
    node = await trial.node()
    claimed = await trial.claimed(node)
    running = await trial.running(node, loss=True, attempts=5)
    trial.advance(2)
    await trial.do(Rescue())
    expect(await trial.do(Renew(node, HOUR)), Renewed(False), "what it hears")
    expect(await trial.claim(node), [], "what it claims")
    other = await trial.node()
    for _ in range(2):
        expect(await trial.do(Begin(node, (claimed, running))), frozenset(), "what may begin")
        for attempt in (claimed, running):
            require(not await trial.end(node, attempt), "it may end nothing")
            require(not await trial.again(node, attempt), "it may end nothing")
            require(not await trial.giveBack(node, attempt, begun=True), "it has nothing")
        await trial.claim(other)
    await trial.isState(JobState.CLAIMED, claimed.id, running.id)


@CHECKS.check
async def theLivingAreLeftAlone(trial: StoreTrial) -> None:
    """
    Nodes within their leases, and those within the margin after that, are not rescued.
    """
    living, late, dead = await trial.node(9 * HOUR), await trial.node(2 * HOUR), await trial.node()
    for node in (living, late, dead):
        await trial.running(node)
    attempts = [await trial.claimed(living), await trial.claimed(late)]
    trial.advance(4)
    rescued = await trial.do(Rescue(margin=2.5 * HOUR))
    expect(list(rescued.nodes), [dead], "the dead")
    expect(len(rescued.lost), 1, "how many are lost")
    expect({node.id for node in await trial.do(Nodes())}, {living, late}, "the nodes")
    await trial.begun(living, attempts[0])
    await trial.begun(late, attempts[1])
    expect(list((await trial.do(Rescue())).nodes), [late], "the dead without a margin")


@CHECKS.check
async def allOthersAreRescued(trial: StoreTrial) -> None:
    """
    Where one program has a store, all other nodes are dead, whatever their leases say; not the one
    that asks, whether it has registered or not.
    """
    first, second = await trial.node(99 * HOUR), await trial.node()
    attempts = [await trial.running(node) for node in (first, second)]
    rescued = await trial.do(Rescue(others=second))
    expect((list(rescued.nodes), list(rescued.lost)), ([first], [attempts[0].id]), "the dead")
    trial.advance(9)
    expect(await trial.do(Rescue(others=second)), Rescued(), "who is dead beside itself")
    require(await trial.end(second, attempts[1]), "who asks may end what it has")
    expect(list((await trial.do(Rescue(others=trial.newID()))).nodes), [second], "the dead")


@CHECKS.check
async def whoLeavesIsForgotten(trial: StoreTrial) -> None:
    """
    What a node still has when it leaves is treated as if it were dead; others are left alone.
    """
    node, other = await trial.node(), await trial.node()
    theirs = await trial.running(other)
    done, repeated = await trial.running(node), await trial.running(node)
    await trial.end(node, done)
    await trial.again(node, repeated, delay=HOUR)
    await trial.act(Act.CANCEL, (await trial.claimed(node)).id)
    await trial.giveBack(node, await trial.claimed(node))
    await trial.claim(other)
    lost, claimed = await trial.running(node), await trial.claimed(node)
    rescued = await trial.do(Leave(node))
    expected = Rescued((node,), (claimed.id,), (), (lost.id,))
    found = Rescued(*map(tuple, (rescued.nodes, rescued.waiting, rescued.repeated, rescued.lost)))
    expect(found, expected, "what was the node's")
    expect([each.id for each in await trial.do(Nodes())], [other], "the nodes")
    expect(await trial.do(Leave(node)), Rescued(), "what is the node's again")
    await trial.isState(JobState.DONE, done.id)
    await trial.isState(JobState.LATER, repeated.id)
    require(await trial.end(other, theirs), "the others may end what they have")


@CHECKS.check
async def theLateTruthCounts(trial: StoreTrial) -> None:
    """
    A job that is lost takes the outcome of its attempt when that comes, from its own node only, and
    once.
    """
    node = await trial.node()
    attempt = await trial.running(node, key="k", keep=2 * HOUR)
    await trial.do(Leave(node))
    other = await trial.add(key="k")
    require(not await trial.end(await trial.node(), attempt), "it is another node's")
    require(not await trial.end(node, Attempt(attempt.id, 2)), "it is another attempt")
    require(not await trial.again(node, attempt), "it is not repeated any more")
    await trial.isState(JobState.LOST, attempt.id)
    trial.advance(1)
    trial.heard.clear()
    require(await trial.end(node, attempt, value=b"true"), "it is accepted")
    expect(trial.heardOf(lambda event: event.ended), {attempt.id}, "whose end is told")
    record = await trial.record(attempt.id)
    expect(record.outcome, Outcome(kind=JobState.DONE, value=b"true"), "the outcome")
    trial.isNow(record.ended, "when it has ended")
    trial.isNow(record.until, "until when it is kept", 2)
    require(await trial.end(node, attempt, value=b"false"), "it is accepted again")
    expect((await trial.record(attempt.id)).outcome, record.outcome, "the outcome")
    joined = list(await trial.do(Add((trial.new(key="k"),))))
    expect(joined, [Added(other, JobState.WAITING, joined=True)], "who has the key")


@CHECKS.check
async def theLateTruthComesTooLate(trial: StoreTrial) -> None:
    """
    Nothing ends a lost job that was retried, or dropped meanwhile, and none but a lost one changes.
    """
    node = await trial.node()
    attempts = [await trial.running(node) for _ in range(3)]
    await trial.act(Act.CANCEL, attempts[2].id)
    await trial.do(Leave(node))
    await trial.act(Act.RETRY, attempts[0].id)
    await trial.act(Act.DROP, attempts[1].id)
    for attempt in attempts[:2]:
        require(not await trial.end(node, attempt), "it is refused")
    await trial.end(node, attempts[2])
    await trial.isState(JobState.WAITING, attempts[0].id)
    await trial.isState(JobState.CANCELLED, attempts[2].id)
    expect(await trial.claim(await trial.node()), [Attempt(attempts[0].id, 2)], "the next attempt")


@CHECKS.check
async def poisonEnds(trial: StoreTrial) -> None:
    """
    A job that ends every program that begins it is lost in the end; attempts that are not counted
    do not bring that nearer.
    """
    id = await trial.add(loss=True, attempts=3)
    for number in range(1, 7):
        node = await trial.node()
        (attempt,) = await trial.claim(node, begin=True)
        expect(attempt, Attempt(id, number), "the attempt")
        if number in (2, 4):
            await trial.again(node, attempt, isCounted=False)
        elif number == 5:
            await trial.giveBack(node, attempt, begun=True)
        else:
            rescued = await trial.do(Leave(node))
            expect(list(rescued.lost), [id] if number == 6 else [], "what is lost")
    await trial.isState(JobState.LOST, id)
