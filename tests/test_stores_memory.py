"""
L{asynqueue.stores.memory}: what only the store in memory promises. What every store promises is in
C{test_stores.py}.
"""

from __future__ import annotations

from twisted.internet.task import Clock

from asynqueue.stores.memory import MemoryEngine, MemoryStore
from asynqueue.stores.operations import (
    Act,
    ActOn,
    Add,
    Begin,
    Claim,
    Count,
    End,
    Ended,
    Find,
    Register,
    Want,
)
from asynqueue.stores.records import ALL, Flow, JobState, NewJob, NodeRecord, Outcome


def test_jobsStayWhenItIsClosed() -> None:
    """
    An engine that is closed and opened again has the jobs that it had.
    """
    engine = MemoryEngine()
    engine.open()
    engine.execute([Add((NewJob(id="1", name="m:f", payload=b""),))])
    engine.close()
    engine.open()
    assert engine.execute([Count()])[0] == [{JobState.WAITING: 1}]


def test_oneLife() -> None:
    """
    A job is added, claimed, begun and ended, and each step is in the record.
    """
    now = 100.0
    engine = MemoryEngine(lambda: now)
    engine.execute(
        [
            Register(NodeRecord(id="n", name="", host="", pid=1), 60),
            Add((NewJob(id="1", name="m:f", payload=b""),)),
        ]
    )
    ((claims,), _) = engine.execute([Claim("n", (Want(Flow(), 5),))])
    (claimed,) = claims.claimed
    now = 101.0
    assert engine.execute([Begin("n", (claimed.attempt,))])[0] == [{claimed.attempt}]
    now = 103.0
    done = Outcome(kind=JobState.DONE, value=b"7")
    answers, event = engine.execute([End("n", (Ended(claimed.attempt, done),))])
    assert (answers, event.ended) == ([{claimed.attempt}], ("1",))
    ((record,),), _ = engine.execute([Find()])
    assert (record.state, record.outcome, record.node) == (JobState.DONE, done, "n")
    assert (record.created, record.begun, record.ended) == (100.0, 101.0, 103.0)


def test_auditSaysWhoHasDoneWhat() -> None:
    """
    What people do is noted with how many jobs it was done to.
    """
    engine = MemoryEngine(lambda: 5.0)
    engine.execute([Add((NewJob(id="1", name="m:f", payload=b""),))])
    engine.execute([ActOn(Act.CANCEL, ALL, "ann")])
    assert list(engine.audit) == [(5.0, "ann", "cancel", ALL, 1)]


def test_storeAnswersAtOnce() -> None:
    """
    A store in memory has done an operation when C{do} returns, at the time of its clock.
    """
    clock = Clock()
    clock.advance(7)
    store = MemoryStore(clock)
    store.open()
    store.do(Add((NewJob(id="1", name="m:f", payload=b""),)))
    (record,) = store.do(Find()).result
    assert record.created == 7
