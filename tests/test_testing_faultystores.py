"""
L{FaultyStore}: it has the faults that a test asks for, and no others.
"""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from asynqueue.stores.errors import StoreBusy, StoreClosed, StoreLost, StoreUnavailable
from asynqueue.stores.memory import MemoryStore
from asynqueue.stores.operations import Add, Count, Pause, Paused
from asynqueue.stores.records import JobState, NewJob, StoreEvent
from asynqueue.testing import FaultyStore, storeChecks

UNKNOWN = StoreEvent(isUnknown=True)


def make(clock: Clock) -> FaultyStore:
    return FaultyStore(MemoryStore(clock))


@pytest.mark.parametrize("check", storeChecks(make), ids=str)
def test_withoutFaults(check: Any) -> Deferred[None]:
    """
    A store without faults keeps each promise of the store that it has.
    """
    return check()


@pytest.fixture
def store() -> FaultyStore:
    """
    A store that is open.
    """
    store = make(Clock())
    store.open()
    return store


def job(number: int = 1) -> Add:
    """
    The operation that adds a job.
    """
    return Add((NewJob(id=str(number), name="m:f", payload=b""),))


def errorOf(d: Deferred[Any]) -> type[BaseException] | None:
    """
    The type of the error that a Deferred has, whose error is then handled.
    """
    errors: list[type[BaseException] | None] = []
    d.addErrback(lambda failure: errors.append(failure.type))
    return errors[0] if errors else None


def count(store: FaultyStore) -> int:
    """
    How many jobs there are.
    """
    counted = []
    store.do(Count()).addCallback(counted.append)
    return sum(counted[0].values())


def test_refusedIsNotDone(store: FaultyStore) -> None:
    """
    An operation that is refused has failed and was not done; the next one is.
    """
    store.refuse()
    assert errorOf(store.do(job(1))) is StoreUnavailable
    assert errorOf(store.do(job(2))) is None
    assert count(store) == 1


def test_lostIsDone(store: FaultyStore) -> None:
    """
    An operation that is lost has failed and was done; the next one is answered.
    """
    store.lose()
    assert errorOf(store.do(job(1))) is StoreLost
    assert errorOf(store.do(job(2))) is None
    assert count(store) == 2


def test_faultsOfAKind(store: FaultyStore) -> None:
    """
    A fault applies to as many operations of its kind as was said, and to no other kind.
    """
    store.refuse(Add, 2)
    assert errorOf(store.do(Pause("a"))) is None
    errors = [errorOf(store.do(job(number))) for number in range(3)]
    assert errors == [StoreUnavailable, StoreUnavailable, None]


def test_faultsInTurn(store: FaultyStore) -> None:
    """
    Faults of the same operations come in the order in which they were asked for.
    """
    store.lose(Add)
    store.refuse()
    assert [errorOf(store.do(job())) for _ in range(3)] == [StoreLost, StoreUnavailable, None]


def test_lostEventsAreUnknown(store: FaultyStore) -> None:
    """
    Listeners do not hear what has changed when the answer is lost, only that something may have.
    """
    heard: list[StoreEvent] = []
    store.listen(heard.append)
    store.lose()
    errorOf(store.do(job()))
    assert set(heard) == {UNKNOWN}


def test_lostOfAClosedStore() -> None:
    """
    What a store that is closed was asked is not lost: it surely was not done.
    """
    store = make(Clock())
    store.lose()
    assert errorOf(store.do(job())) is StoreClosed


def test_awayUntilItComesBack(store: FaultyStore) -> None:
    """
    A store that has gone away does nothing and is not opened; listeners hear when it comes back.
    """
    heard: list[StoreEvent] = []
    store.listen(heard.append)
    store.goAway()
    assert [errorOf(store.do(job())) for _ in range(2)] == [StoreUnavailable] * 2
    assert errorOf(store.open()) is StoreUnavailable
    assert heard == []
    store.comeBack()
    assert heard == [UNKNOWN]
    assert count(store) == 0


def test_delayedIsDoneWhenReleased(store: FaultyStore) -> None:
    """
    What is delayed is done, in its order, when it is released; other kinds go on meanwhile.
    """
    store.delay(Add)
    first, second = store.do(job(1)), store.do(job(2))
    assert (count(store), first.called, second.called) == (0, False, False)
    store.release()
    assert (count(store), first.called, second.called) == (2, True, True)
    assert store.do(job(3)).called


def test_heldIsDoneAtOnce(store: FaultyStore) -> None:
    """
    What is held is done at once, and answered when it is released.
    """
    store.hold(Add)
    answers: list[Any] = []
    held = store.do(job())
    held.addCallback(answers.append)
    assert (count(store), answers) == (1, [])
    store.release()
    assert answers[0][0].state is JobState.WAITING


def test_heldCanBeCancelled(store: FaultyStore) -> None:
    """
    Whoever does not wait for a held answer may cancel it; it then comes to nobody.
    """
    store.hold()
    d = store.do(job())
    d.addErrback(lambda failure: None)
    d.cancel()
    store.release()
    assert count(store) == 1


def test_closingIsHeld(store: FaultyStore) -> None:
    """
    A store that holds its closing is closed when it is released.
    """
    store.holdClosing()
    closed = store.close()
    assert not closed.called
    store.release()
    assert closed.called
    assert errorOf(store.do(job())) is StoreClosed


def test_closingWaitsForTheHeld(store: FaultyStore) -> None:
    """
    A store is closed after what was delayed before.
    """
    store.delay(Add)
    asked, closed = store.do(job()), store.close()
    assert not closed.called
    store.release()
    assert (asked.called, closed.called) == (True, True)
    store.open()
    assert count(store) == 1


def test_refusesToOpen() -> None:
    """
    A store is not opened when that is asked for, with the error that was given.
    """
    store = make(Clock())
    store.refuseToOpen()
    store.refuseToOpen(StoreBusy("s", 7))
    errors = [errorOf(store.open()) for _ in range(3)]
    assert errors == [StoreUnavailable, StoreBusy, None]


def test_notesWhatItIsAsked(store: FaultyStore) -> None:
    """
    All operations are noted, also those that are not done.
    """
    store.refuse(Add)
    errorOf(store.do(job()))
    store.do(Paused())
    assert store.asked == [job(), Paused()]
