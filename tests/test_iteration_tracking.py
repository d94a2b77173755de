"""
What L{asynqueue.iteration.DeferredTracker} and C{DeferredLock} promise.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from twisted.internet.defer import CancelledError, Deferred, fail, inlineCallbacks, succeed
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from asynqueue.iteration import DeferredLock, DeferredTracker
from tests.iterations import Oops, outcomeOf

# DeferredTracker ------------------------------------------------------------


def tracking(count: int) -> tuple[DeferredTracker, list[Deferred[Any]], Clock]:
    clock = Clock()
    tracker = DeferredTracker(reactor=clock)
    return tracker, [tracker.put(Deferred()) for _ in range(count)], clock


def test_putGivesTheSameDeferredBack() -> None:
    """
    Its result, or failure, stays as it is.
    """
    tracker = DeferredTracker()
    d: Deferred[str] = Deferred()
    assert tracker.put(d) is d
    d.callback("result")
    assert outcomeOf(d) == "result"
    assert outcomeOf(tracker.put(fail(Oops()))).check(Oops)


def test_onlyDeferredsArePut() -> None:
    """
    Something else is a C{TypeError}.
    """
    with pytest.raises(TypeError):
        DeferredTracker().put(5)  # type: ignore[arg-type]


def test_allAreWaitedFor() -> None:
    """
    C{deferToAll} is True within the event that ends the last one.
    """
    tracker, ds, _clock = tracking(2)
    d = tracker.deferToAll()
    ds[0].callback(None)
    assert not d.called
    ds[1].callback(None)
    assert outcomeOf(d) is True


def test_anyIsWaitedFor() -> None:
    """
    C{deferToAny} is True as soon as one ends, even if others are added.
    """
    tracker, ds, _clock = tracking(2)
    d = tracker.deferToAny()
    tracker.put(Deferred())
    assert not d.called
    ds[1].callback(None)
    assert outcomeOf(d) is True


def test_fewerAreWaitedFor() -> None:
    """
    C{deferUntilFewer} is True when the number is below the limit.
    """
    tracker, ds, _clock = tracking(4)
    assert outcomeOf(tracker.deferUntilFewer(5)) is True
    d = tracker.deferUntilFewer(3)
    ds[0].callback(None)
    assert not d.called
    ds[1].callback(None)
    assert outcomeOf(d) is True
    assert len(tracker) == 2


@pytest.mark.parametrize("N", [0, -1, True, 1.5])
def test_aNumberThatNeverComesIsRefused(N: Any) -> None:
    """
    There are never fewer than none, nor is a number of tasks anything but whole.
    """
    with pytest.raises(ValueError, match="N must be a whole number, 1 or more"):
        DeferredTracker().deferUntilFewer(N)


def test_withNothingToWaitForNobodyWaits() -> None:
    """
    All three are True at once.
    """
    tracker = DeferredTracker()
    assert tracker.notWaiting()
    assert tracker
    assert outcomeOf(tracker.deferToAll()) is True
    assert outcomeOf(tracker.deferToAny()) is True
    assert outcomeOf(tracker.deferUntilFewer(1)) is True


def test_theTimeoutIsFalse() -> None:
    """
    A wait that takes too long is False.
    """
    tracker, _ds, clock = tracking(1)
    waits = [tracker.deferToAll(1), tracker.deferToAny(2), tracker.deferUntilFewer(1, 3)]
    for k in range(3):
        clock.advance(1)
        assert [d.called for d in waits] == [j <= k for j in range(3)]
    assert [outcomeOf(d) for d in waits] == [False] * 3


def test_aWaitThatEndsLeavesNoTimer() -> None:
    """
    Neither one that ends in time nor one that is cancelled does.
    """
    tracker, ds, clock = tracking(1)
    ended, cancelled = tracker.deferToAll(9), tracker.deferToAll(9)
    cancelled.cancel()
    ds[0].callback(None)
    assert outcomeOf(ended) is True
    assert outcomeOf(cancelled).check(CancelledError)
    assert clock.getDelayedCalls() == []


def test_waitsAreAddedAndRemoved() -> None:
    """
    C{addWait} and C{removeWait} count as a Deferred does; too many are ignored.
    """
    tracker = DeferredTracker(0.1, 1.1)
    tracker.addWait()
    tracker.addWait()
    d = tracker.deferToAll()
    tracker.removeWait()
    assert not tracker.notWaiting()
    tracker.removeWait()
    tracker.removeWait()
    assert tracker.notWaiting()
    assert outcomeOf(d) is True


def test_quitWaitingEndsAllWaitsForGood() -> None:
    """
    Those pending are True, and so are all later ones.
    """
    tracker, ds, _clock = tracking(2)
    d = tracker.deferToAll()
    tracker.quitWaiting()
    assert outcomeOf(d) is True
    later: Deferred[None] = Deferred()
    assert tracker.put(later) is later
    tracker.addWait()
    assert outcomeOf(tracker.deferToAny()) is True
    ds[0].callback(None)
    assert tracker.notWaiting()


def test_whoWaitsMayCancelAnother() -> None:
    """
    What happens as one wait ends may end the next.
    """
    tracker, ds, _clock = tracking(1)
    first, second = tracker.deferToAll(), tracker.deferToAll()
    first.addCallback(lambda _: second.cancel())
    ds[0].callback(None)
    assert outcomeOf(second).check(CancelledError)


class TrackerMachine(RuleBasedStateMachine):
    """
    Whatever is put, ended and waited for: each wait ends exactly when its
    condition, told by a simple model, holds.
    """

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.tracker = DeferredTracker(reactor=self.clock)
        self.tracked: list[Deferred[Any]] = []
        # Each wait: its results, its limit (0: any), the removals when it began,
        # and when it times out.
        self.waits: list[tuple[list[Any], int, int, float]] = []
        self.expected: list[Any] = []
        self.removals = 0

    @rule()
    def put(self) -> None:
        self.tracked.append(self.tracker.put(Deferred()))

    @precondition(lambda self: self.tracked)
    @rule(data=st.data(), fails=st.booleans())
    def end(self, data: st.DataObject, fails: bool) -> None:
        k = data.draw(st.integers(0, len(self.tracked) - 1))
        d = self.tracked.pop(k)
        self.removals += 1
        d.addErrback(lambda failure: failure.trap(Oops) and None)
        if fails:
            d.errback(Failure(Oops()))
        else:
            d.callback(None)

    @rule(limit=st.integers(0, 3), timeout=st.sampled_from([None, 1, 2]))
    def wait(self, limit: int, timeout: float | None) -> None:
        if limit == 0:
            d = self.tracker.deferToAny(timeout)
        elif limit == 1:
            d = self.tracker.deferToAll(timeout)
        else:
            d = self.tracker.deferUntilFewer(limit, timeout)
        results: list[Any] = []
        d.addBoth(results.append)
        until = float("inf") if timeout is None else self.clock.seconds() + timeout
        self.waits.append((results, limit, self.removals, until))
        self.expected.append(None if len(self.tracked) >= max(limit, 1) else True)

    @rule()
    def pass_(self) -> None:
        self.clock.advance(1)

    @invariant()
    def eachWaitIsAsTheModelSays(self) -> None:
        for k, (results, limit, began, until) in enumerate(self.waits):
            if self.expected[k] is None:
                if self.removals > began if limit == 0 else len(self.tracked) < limit:
                    self.expected[k] = True
                elif self.clock.seconds() >= until:
                    self.expected[k] = False
            assert results == ([] if self.expected[k] is None else [self.expected[k]])
        assert len(self.tracker) == len(self.tracked)


test_theTrackerIsAsItsModel = TrackerMachine.TestCase


# DeferredLock ---------------------------------------------------------------


def test_theLockGoesRoundInOrder() -> None:
    """
    One holds it, and those who wait get it in the order they asked.
    """
    lock = DeferredLock(allowZombies=True)
    ds = [lock.acquire() for _ in range(3)]
    for k in range(3):
        assert [d.called for d in ds] == [j <= k for j in range(3)]
        lock.release()
    assert not lock.locked


def test_vipsGoBeforeTheOthers() -> None:
    """
    They go before all ordinary ones, and in their own order.
    """
    lock = DeferredLock()
    lock.acquire()
    order: list[str] = []
    for name, vip in (("a", False), ("V", True), ("b", False), ("W", True)):
        lock.acquire(vip).addCallback(lambda _, name=name: order.append(name))
    for _ in range(5):
        lock.release()
    assert order == ["V", "W", "a", "b"]


def test_aVipNeedNotWaitForAFreeLock() -> None:
    """
    A free lock is acquired at once.
    """
    lock = DeferredLock()
    assert outcomeOf(lock.acquire(vip=True)) is lock


@pytest.mark.parametrize("vip", [False, True])
def test_aWaitForTheLockCanBeCancelled(vip: bool) -> None:
    """
    Who was cancelled is passed over.
    """
    lock = DeferredLock()
    lock.acquire()
    first, second, third = lock.acquire(vip), lock.acquire(vip), lock.acquire()
    first.cancel()
    assert outcomeOf(first).check(CancelledError)
    lock.release()
    assert second.called
    assert not third.called


def test_aLockIsReleasedAtTheEndOfItsContext() -> None:
    """
    C{with lock.context() as d} holds the lock, also if the block raises.
    """
    lock = DeferredLock()
    with lock.context(vip=True) as d:
        assert outcomeOf(d) is lock
        assert lock.locked
    assert not lock.locked
    with pytest.raises(Oops), lock.context():
        raise Oops
    assert not lock.locked


def test_aContextThatWaitsInACoroutine() -> None:
    """
    The block goes on when the lock is free, and releases it once.
    """
    lock = DeferredLock()
    held = lock.acquire()
    order: list[str] = []

    @inlineCallbacks
    def work() -> Any:
        with lock.context() as d:
            yield d
            order.append("held")

    d = work()
    other = lock.acquire()
    assert order == []
    lock.release()
    assert order == ["held"]
    assert d.called
    assert other.called
    assert held.called


@pytest.mark.parametrize("how", ["leave", "cancel"])
def test_aContextThatIsLeftWithoutTheLockReleasesNothing(how: str) -> None:
    """
    A block that did not get the lock gives up its place.
    """
    lock = DeferredLock()
    lock.acquire()
    with lock.context() as d:
        if how == "cancel":
            d.cancel()
            d.addErrback(lambda failure: failure.trap(CancelledError) and None)
    assert lock.locked
    assert lock.waiting == []


def test_acquireAndReleaseWaitsForItsTurn() -> None:
    """
    It fires after its turn, and the next one has the lock.
    """
    lock = DeferredLock()
    lock.acquire()
    d, after = lock.acquireAndRelease(), lock.acquire()
    assert not d.called
    lock.release()
    assert outcomeOf(d) is None
    assert after.called


def test_stoppersRunInOrderOnceTheLockIsFree() -> None:
    """
    C{stop} waits for those who wait; each stopper waits for the one before.
    """
    lock = DeferredLock()
    lock.acquire()
    waiting = lock.acquire()
    order: list[Any] = []
    slow: Deferred[None] = Deferred()

    def first(*args: Any, **kw: Any) -> Any:
        order.append((args, kw))
        return slow

    lock.addStopper(first, 1, x=2)
    lock.addStopper(order.append, "second")
    d = lock.stop()
    lock.release()
    assert waiting.called
    assert order == []
    lock.release()
    assert order == [((1,), {"x": 2})]
    again = lock.stop()
    slow.callback(None)
    assert order[1:] == ["second"]
    assert outcomeOf(d) is None
    assert outcomeOf(again) is None
    assert outcomeOf(lock.stop()) is None


def test_afterTheStopNobodyWaits() -> None:
    """
    C{acquire} fires at once, however often, and C{release} does nothing.
    """
    lock = DeferredLock()
    assert outcomeOf(lock.stop()) is None
    for _ in range(2):
        assert outcomeOf(lock.acquire()) is lock
    for _ in range(3):
        lock.release()


def test_whoComesDuringTheStopTakesNobodysTurn() -> None:
    """
    Being let in during the stop gives nobody who waits the lock too early.
    """
    lock = DeferredLock()
    lock.acquire()
    waiting = lock.acquire()
    d = lock.stop()
    assert outcomeOf(lock.acquire()) is lock
    lock.release()
    assert not waiting.called
    lock.release()
    assert waiting.called
    lock.release()
    assert outcomeOf(d) is None


def test_aStopperMayUseTheLock() -> None:
    """
    It is let in at once.
    """
    lock = DeferredLock()
    lock.addStopper(lock.acquireAndRelease)
    assert outcomeOf(lock.stop()) is None


def test_aStopperThatFailsSparesNoOther() -> None:
    """
    All are run, and C{stop} fails as the first that failed.
    """
    lock = DeferredLock()
    ran: list[int] = []
    lock.addStopper(fail, Oops())
    lock.addStopper(lambda: 1 / 0)
    lock.addStopper(lambda: succeed(ran.append(1)))
    assert outcomeOf(lock.stop()).check(Oops)
    assert ran == [1]
    assert not lock.locked
