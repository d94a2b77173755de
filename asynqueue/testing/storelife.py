"""
What stores promise of how they are opened, asked, listened to, and closed.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from zope.interface.verify import verifyObject

from asynqueue.stores.errors import StoreClosed
from asynqueue.stores.interfaces import IStore
from asynqueue.stores.operations import (
    Add,
    Again,
    Begin,
    Claim,
    Count,
    End,
    Ended,
    Pause,
    Paused,
    Want,
)
from asynqueue.stores.records import (
    Added,
    Attempt,
    Flow,
    JobState,
    OnTaken,
    Outcome,
    StoreEvent,
)
from asynqueue.testing.storetrials import StoreChecks, StoreTrial, failureOf
from asynqueue.testing.trials import expect, require

CHECKS = StoreChecks()


@CHECKS.check
async def providesIStore(trial: StoreTrial) -> None:
    """
    A store provides IStore, and has a name.
    """
    verifyObject(IStore, trial.store)
    require(trial.store.name, "it has a name")


@CHECKS.check
async def aClosedStoreIsNotAsked(trial: StoreTrial) -> None:
    """
    A store that is closed does nothing; one that is opened again has what it had.
    """
    id = await trial.add(key="k")
    await trial.do(Pause("a"))
    await trial.store.close()
    await trial.store.close()
    await failureOf(trial.store.do(Count()), StoreClosed)
    await trial.store.open()
    expect(await trial.found(), [id], "what there is")
    expect(list(await trial.do(Paused())), ["a"], "what is paused")
    (answer,) = await trial.do(Add((trial.new(key="k"),)))
    expect(answer, Added(id, JobState.WAITING, joined=True), "who has the key")
    later = await trial.add()
    node = await trial.node()
    expect([each.id for each in await trial.claim(node)], [id, later], "what can be claimed")


@CHECKS.check
async def whatWasAskedIsDone(trial: StoreTrial) -> None:
    """
    A store that is closed has done what it was asked before.
    """
    jobs = [trial.new() for _ in range(50)]
    asked = [trial.store.do(Add((job,))) for job in jobs]
    closed = trial.store.close()
    for d, job in zip(asked, jobs, strict=True):
        expect(list(await d), [Added(job.id, JobState.WAITING)], "the answer")
    await closed
    await trial.store.open()
    expect(await trial.found(), [job.id for job in jobs], "what there is")


@CHECKS.check
async def operationsAtOnceAreDoneInOrder(trial: StoreTrial) -> None:
    """
    What is asked at once is done as if each had waited for the one before.
    """
    node, job = await trial.node(), trial.new(key="k")
    attempts = [Attempt(job.id, number) for number in (1, 2)]
    done = Outcome(kind=JobState.DONE)
    claim = Claim(node, (Want(Flow(), 5),))
    again = trial.new(key="k", onTaken=OnTaken.REJECT)
    asked: list[Deferred[Any]] = [
        trial.store.do(claim),
        trial.store.do(Add((job,))),
        trial.store.do(claim),
        trial.store.do(Begin(node, (attempts[0],))),
        trial.store.do(End(node, (Again(attempts[0]),))),
        trial.store.do(Claim(node, (Want(Flow(), 5),), begin=True)),
        trial.store.do(End(node, (Ended(attempts[1], done),))),
        trial.store.do(Add((again,))),
        trial.store.do(Count()),
    ]
    answers = await gatherResults(asked)
    expect(len(answers[0].claimed), 0, "how many were claimed before there was any")
    expect([each.attempt for each in answers[2].claimed], attempts[:1], "what was claimed")
    expect(answers[3], frozenset(attempts[:1]), "what has begun")
    expect(answers[4], frozenset(attempts[:1]), "what was to be repeated")
    expect([each.attempt for each in answers[5].claimed], attempts[1:], "what was claimed then")
    expect(answers[6], frozenset(attempts[1:]), "what has ended")
    expect(list(answers[7]), [Added(again.id, JobState.WAITING)], "what was added then")
    expect(answers[8], {JobState.DONE: 1, JobState.WAITING: 1}, "what there is")


@CHECKS.check
async def listenersHearFirst(trial: StoreTrial) -> None:
    """
    Listeners have heard of a change when its operation is answered, and no more when they do not
    listen.
    """
    order: list[str] = []

    def note(event: StoreEvent) -> None:
        if event.flows:
            order.append("heard")

    trial.store.listen(note)
    for _ in range(2):
        d = trial.store.do(Add((trial.new(),)))
        d.addCallback(lambda answer: order.append("answered"))
        await d
    trial.store.unlisten(note)
    await trial.add()
    expect(order, ["heard", "answered"] * 2, "the order")


@CHECKS.check
async def cancelledDeferredsUndoNothing(trial: StoreTrial) -> None:
    """
    To cancel the Deferred of an operation does not undo it, nor does it disturb the next.
    """
    job = trial.new()
    d = trial.store.do(Add((job,)))
    d.addErrback(lambda failure: None)
    d.cancel()
    await d
    expect(await trial.found(), [job.id], "what there is")
