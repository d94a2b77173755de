"""
What stores promise of how attempts end.
"""

from __future__ import annotations

from twisted.internet.defer import gatherResults

from asynqueue.stores.operations import (
    Act,
    Again,
    End,
    Ended,
    Ripen,
)
from asynqueue.stores.records import (
    ENDED,
    Attempt,
    Flow,
    JobState,
    Outcome,
)
from asynqueue.testing.storetrials import HOUR, StoreChecks, StoreTrial
from asynqueue.testing.trials import expect, require

CHECKS = StoreChecks()


@CHECKS.check
async def outcomesAreKept(trial: StoreTrial) -> None:
    """
    All of an outcome is kept with its job, and its end is told.
    """
    node = await trial.node()
    for kind in sorted(ENDED, key=lambda kind: kind.value):
        attempt = await trial.running(node, keep=2 * HOUR, keepDead=5 * HOUR)
        trial.advance(1)
        trial.heard.clear()
        bytes_ = bytes(range(256))
        outcome = Outcome(
            kind=kind, codec="pickle", value=bytes_, error=b"", summary="Oops: it's ß"
        )
        accepted = await trial.do(End(node, (Ended(attempt, outcome),)))
        expect(accepted, frozenset({attempt}), "what was accepted")
        record = await trial.record(attempt.id)
        expect((record.state, record.outcome), (kind, outcome), "its outcome")
        expect((record.node, record.attempt), (node, 1), "its node and its attempt")
        trial.isNow(record.begun, "when it has begun", -1)
        trial.isNow(record.ended, "when it has ended")
        isDead = kind in (JobState.FAILED, JobState.LOST)
        trial.isNow(record.until, "until when it is kept", 5 if isDead else 2)
        expect(trial.heardOf(lambda event: event.ended), {attempt.id}, "whose end is told")


@CHECKS.check
async def anEmptyValueIsAValue(trial: StoreTrial) -> None:
    """
    An empty value is not the same as one that is not kept.
    """
    node = await trial.node()
    for value in (b"", None):
        attempt = await trial.running(node)
        await trial.end(node, attempt, value=value)
        outcome = (await trial.record(attempt.id)).outcome
        expect(outcome, Outcome(kind=JobState.DONE, value=value), "the outcome")


@CHECKS.check
async def theFirstOutcomeStays(trial: StoreTrial) -> None:
    """
    An attempt that ends its job twice is accepted twice, and the first outcome stays.
    """
    node = await trial.node()
    attempt = await trial.running(node)
    outcomes = [Outcome(kind=JobState.DONE, value=each) for each in (b"1", b"2")]
    ends = [End(node, (Ended(attempt, outcome),)) for outcome in outcomes]
    accepted = await gatherResults([trial.store.do(each) for each in ends])
    expect(accepted, [frozenset({attempt})] * 2, "what was accepted")
    require(await trial.end(node, attempt, JobState.FAILED), "it is accepted again")
    record = await trial.record(attempt.id)
    expect(record.outcome, outcomes[0], "the outcome")
    require(not await trial.again(node, attempt), "it cannot be repeated then")
    await trial.isState(JobState.DONE, attempt.id)


@CHECKS.check
async def onlyTheLatestAttemptEndsAJob(trial: StoreTrial) -> None:
    """
    Attempts of other nodes, others of the same node, and those of unknown jobs are refused.
    """
    node, other = await trial.node(), await trial.node()
    first = await trial.running(node)
    require(await trial.again(node, first), "it is repeated")
    require(not await trial.end(node, first), "it was repeated, and may not end its job")
    (second,) = await trial.claim(other)
    for state in (JobState.CLAIMED, JobState.RUNNING):
        require(not await trial.end(node, first), "another attempt may end its job")
        require(not await trial.again(node, first), "another attempt may end its job")
        require(not await trial.end(node, second), "it is another node's")
        require(not await trial.again(node, second), "it is another node's")
        require(not await trial.end(other, first), "it was another node's")
        later = Attempt(first.id, second.number + 1)
        require(not await trial.end(other, later), "there is no such attempt yet")
        require(not await trial.end(node, Attempt(trial.newID(), 1)), "its job is unknown")
        await trial.isState(state, first.id)
        await trial.begun(other, second)
    require(await trial.end(other, second, value=b"2"), "it may end its job")
    require(not await trial.end(node, first, value=b"1"), "another attempt has ended its job")
    require(not await trial.end(node, second, value=b"1"), "another node has ended its job")
    expect((await trial.record(first.id)).outcome, Outcome(kind=JobState.DONE, value=b"2"), "it")


@CHECKS.check
async def theClaimedMayEnd(trial: StoreTrial) -> None:
    """
    An attempt that was claimed may end without having begun, or be repeated: its number is then
    not used again.
    """
    node = await trial.node()
    attempt = await trial.claimed(node)
    require(await trial.again(node, attempt, isCounted=False), "it may be repeated")
    (second,) = await trial.claim(node)
    expect(second, Attempt(attempt.id, 2), "the next attempt")
    require(await trial.end(node, second, JobState.FAILED), "it may end")
    record = await trial.record(attempt.id)
    expect((record.state, record.attempt), (JobState.FAILED, 2), "its record")


@CHECKS.check
async def jobsAreRepeated(trial: StoreTrial) -> None:
    """
    An attempt that is to be repeated leaves its job at the end of its flow, with the next number,
    and what is known of it.
    """
    node = await trial.node()
    attempt, other = await trial.running(node), await trial.add()
    trial.heard.clear()
    require(await trial.again(node, attempt, summary="Oops"), "it is repeated")
    expect(trial.heardOf(lambda event: event.flows), {Flow()}, "which flow is told")
    record = await trial.record(attempt.id)
    expect((record.state, record.attempt), (JobState.WAITING, 1), "its record")
    expect((record.counted, record.losses), (1, 0), "its attempts before")
    expect((record.failure, record.outcome), ("Oops", None), "what is known of its end")
    expect((record.node, record.begun), (None, None), "what is over")
    claims = await trial.claims(node)
    expected = [(other, 1, 0, 0), (attempt.id, 2, 0, 1)]
    found = [(c.attempt.id, c.attempt.number, c.losses, c.counted) for c in claims.claimed]
    expect(found, expected, "the next ones")
    await trial.begun(node, claims.claimed[1].attempt)
    repeated = claims.claimed[1].attempt
    await trial.again(node, repeated, isLoss=True, isCounted=False, summary="Again")
    claimed = await trial.claimOne(node)
    expect((claimed.attempt.number, claimed.losses, claimed.counted), (3, 1, 1), "the third")
    await trial.end(node, claimed.attempt)
    record = await trial.record(attempt.id)
    expect((record.attempt, record.losses, record.counted), (3, 1, 1), "its record")
    expect(record.failure, None, "why it is repeated")


@CHECKS.check
async def theRepeatedKeepTheirOrder(trial: StoreTrial) -> None:
    """
    Jobs that are repeated at once wait in the order in which their attempts have ended.
    """
    node = await trial.node()
    await trial.addMany(6)
    attempts = await trial.claim(node, begin=True)
    order = [attempts[n] for n in (4, 0, 5, 2, 1, 3)]
    await trial.do(End(node, tuple(Again(attempt) for attempt in order[:4])))
    asked = [trial.store.do(End(node, (Again(attempt),))) for attempt in order[4:]]
    await gatherResults(asked)
    found = [attempt.id for attempt in await trial.claim(node)]
    expect(found, [attempt.id for attempt in order], "what was claimed")


@CHECKS.check
async def jobsAreRepeatedLater(trial: StoreTrial) -> None:
    """
    A job that is to be repeated after a time is due then.
    """
    node = await trial.node()
    attempt = await trial.running(node)
    trial.heard.clear()
    await trial.again(node, attempt, delay=2 * HOUR)
    require(any(event.hasLater for event in trial.heard), "it is told that one is due later")
    record = await trial.record(attempt.id)
    expect(record.state, JobState.LATER, "its state")
    trial.isNow(record.due, "when it is due", 2)
    trial.advance(1)
    await trial.do(Ripen())
    expect(await trial.claim(node), [], "what can be claimed too early")
    trial.advance(2)
    await trial.do(Ripen())
    expect(await trial.claim(node), [Attempt(attempt.id, 2)], "what can be claimed")


@CHECKS.check
async def theCancelledAreNotRepeated(trial: StoreTrial) -> None:
    """
    A job that was cancelled as it ran ends as its node says; if it is to be repeated, as cancelled.
    """
    node = await trial.node()
    attempts = [await trial.running(node) for _ in range(3)]
    await trial.act(Act.CANCEL, *(attempt.id for attempt in attempts))
    for attempt in attempts:
        record = await trial.record(attempt.id)
        expect((record.state, record.stopping), (JobState.RUNNING, True), "its record")
    require(await trial.end(node, attempts[0]), "it may end")
    require(await trial.end(node, attempts[1], JobState.CANCELLED), "it may end")
    trial.heard.clear()
    require(await trial.again(node, attempts[2], delay=60), "it may end")
    expect(trial.heardOf(lambda event: event.ended), {attempts[2].id}, "whose end is told")
    await trial.isState(JobState.DONE, attempts[0].id)
    await trial.isState(JobState.CANCELLED, attempts[1].id, attempts[2].id)
    record = await trial.record(attempts[2].id)
    expect((record.stopping, record.counted), (False, 0), "whether it is to stop, what counted")


@CHECKS.check
async def endsAreJudgedOneByOne(trial: StoreTrial) -> None:
    """
    Of many ends at once, each is accepted or refused for itself.
    """
    node = await trial.node()
    await trial.addMany(4)
    attempts = await trial.claim(node, begin=True)
    done = Outcome(kind=JobState.DONE)
    ends = (
        Ended(attempts[0], done),
        Ended(Attempt(attempts[1].id, 9), done),
        Again(attempts[2]),
        Again(Attempt(attempts[3].id, 0)),
    )
    accepted = await trial.do(End(node, ends))
    expect(accepted, frozenset({attempts[0], attempts[2]}), "what was accepted")
    await trial.isState(JobState.RUNNING, attempts[1].id, attempts[3].id)
    expect(await trial.do(End(node, ())), frozenset(), "what none is")
