"""
How many calls may be with a host at once.
"""

from __future__ import annotations

from heapq import heappop, heappush

import pytest

from asynqueue.workers.roundtrip import AHEAD_SECONDS, MOST, RoundTripWindow


def simulated(
    window: RoundTripWindow, *, rtt: float, seconds: float, slots: int, rounds: int = 2000
) -> RoundTripWindow:
    """
    The window after some time before a host with so many slots, each of which needs so
    many seconds for a call, with calls without end.
    """
    free = [0.0] * slots
    ends: list[float] = []
    now = 0.0
    window.start(now)
    for _ in range(rounds):
        while len(ends) < window.size:
            end = max(heappop(free), now + rtt / 2) + seconds
            heappush(free, end)
            heappush(ends, end + rtt / 2)
        # What comes within half a millisecond comes together.
        now = ends[0] + 0.0005
        count = 0
        while ends and ends[0] <= now:
            heappop(ends)
            count += 1
        window.heard(now, rtt)
        window.ended(count, now, True)
    return window


@pytest.mark.parametrize("slots", [1, 3, 100])
def test_beginsWithTheSlots(slots: int) -> None:
    """
    As long as nothing is measured, a host has as many calls as it runs at once.
    """
    assert RoundTripWindow(slots).size == slots


@pytest.mark.parametrize("rtt", [0.0001, 0.01, 0.06])
@pytest.mark.parametrize("slots", [1, 4, 50])
def test_keepsAHostBusy(rtt: float, slots: int) -> None:
    """
    However far a host is, it has at least what it ends in a round trip, and not much
    more.
    """
    seconds = 0.001
    rate = slots / seconds
    window = simulated(RoundTripWindow(slots), rtt=rtt, seconds=seconds, slots=slots)
    assert rate * rtt + slots <= window.size <= 3 * rate * (rtt + AHEAD_SECONDS) + 2 * slots
    assert window.rate == pytest.approx(rate, rel=0.5)


def test_sendsNoLongCallsAhead() -> None:
    """
    To a host that is near, calls of a second are not sent before they can run.
    """
    window = simulated(RoundTripWindow(4), rtt=0.0001, seconds=1.0, slots=4, rounds=50)
    assert window.size == 4


@pytest.mark.bulk
def test_hasAnEnd() -> None:
    """
    There is a most, whatever the rate; and one that is given is kept to from the
    beginning.
    """
    fast = simulated(RoundTripWindow(1000), rtt=1.0, seconds=0.0001, slots=1000, rounds=500)
    assert fast.size == MOST
    assert RoundTripWindow(100, most=7).size == 7
    assert simulated(RoundTripWindow(100, 7), rtt=0.1, seconds=0.001, slots=100).size == 7


def test_idleTimeDoesNotCount() -> None:
    """
    A pause without calls makes no host slow.
    """
    window = simulated(RoundTripWindow(10), rtt=0.001, seconds=0.001, slots=10)
    before = window.rate, window.size
    window.start(1e6)
    window.heard(1e6 + 0.001, None)
    window.ended(1, 1e6 + 0.001, False)
    assert (window.rate, window.size) == before


def test_aCallerThatIsSlowShrinksNothing() -> None:
    """
    Where the window was not full, a low rate is the caller's.
    """
    window = simulated(RoundTripWindow(10), rtt=0.001, seconds=0.001, slots=10)
    before = window.rate, window.size
    for second in range(1000, 1010):
        window.heard(second, None)
        window.ended(1, second, False)
    assert (window.rate, window.size) == before


def test_learnsTheRoundTripFromCalls() -> None:
    """
    A call that is alone takes no less than a round trip; the least is known, and one that
    was measured otherwise counts, too.
    """
    window = RoundTripWindow(1)
    for start, end in ((1.0, 1.5), (2.0, 2.2), (3.0, 3.7)):
        window.start(start)
        window.heard(end, None)
        window.ended(1, end, False)
    assert window.rtt == pytest.approx(0.2)
    window.heard(4.0, 0.1)
    assert window.rtt == 0.1


def test_whatOutcomesLeadToIsNotMeasuredWithThem() -> None:
    """
    A call that is made while the outcome of the last one is told does not end with it.
    """
    window = RoundTripWindow(1)
    window.start(1.0)
    window.heard(1.5, None)
    window.start(1.5001)
    window.ended(1, 1.5, False)
    window.heard(2.0, None)
    assert window.rtt == pytest.approx(0.4999)


def test_aClockMayJump() -> None:
    """
    A clock that is set back or forth does no harm.
    """
    window = simulated(RoundTripWindow(10), rtt=0.001, seconds=0.001, slots=10)
    for now in (-1e9, 1e9, 5.0):
        window.start(now + 1)
        window.heard(now, None)
        window.ended(10, now, True)
        window.ended(10, now, True)
    assert 10 <= window.size <= MOST
    assert window.rtt > 0


def test_closesAndOpens() -> None:
    """
    When nothing moves, nothing is sent ahead; one call that ends opens the window again,
    and it grows as before.
    """
    window = simulated(RoundTripWindow(10), rtt=0.001, seconds=0.001, slots=10)
    assert window.size > 10
    window.close()
    assert (window.isClosed, window.size) == (True, 10)
    window.heard(100.0, None)
    window.ended(1, 100.0, True)
    assert (window.isClosed, window.size) == (False, 10)


def test_believesWhatItSees() -> None:
    """
    A host that gives calls back does not run as many at once as it says: it gets one more
    for each that ends, and when all slots are in use the matter is forgotten.
    """
    window = RoundTripWindow(100)
    window.close()
    window.keep(2)
    assert window.size == 2
    sizes = []
    for second in range(6):
        window.heard(second, None)
        window.ended(window.size, second, False)
        sizes.append(window.size)
    assert sizes == [4, 8, 16, 32, 64, 100]


def test_oneThatKeptNoneIsTriedAgain() -> None:
    """
    A host that gave everything back is sent nothing, and then, when it is time, one call.
    """
    window = RoundTripWindow(3)
    window.close()
    window.keep(0)
    assert window.size == 0
    window.retry()
    assert window.size == 1
    window.resize(0)
    window.retry()
    assert window.size == 0


def test_growsAndShrinksWithTheHost() -> None:
    """
    More slots or fewer change the window by as much; what is ahead stays.
    """
    window = simulated(RoundTripWindow(4), rtt=0.001, seconds=0.001, slots=4)
    ahead = window.size - 4
    window.resize(10)
    assert window.size == 10 + ahead
    window.resize(2)
    assert window.size == 2 + ahead
    window.resize(0)
    assert window.size == 0
    window.resize(3)
    assert window.size == 3
