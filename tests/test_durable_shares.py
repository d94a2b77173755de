"""
L{asynqueue.durable.shares}.
"""

from __future__ import annotations

from collections import Counter

from hypothesis import given, strategies as st

from asynqueue.durable.shares import Shares
from asynqueue.stores.operations import Want
from asynqueue.stores.records import Band, Flow

MANY = {"": 1_000_000}


def chosen(shares: Shares, room: int, rooms: dict[str, int] | None = None) -> dict[Flow, int]:
    """
    Choose jobs, all of which are found.
    """
    wants = shares.choose(room, MANY if rooms is None else rooms)
    found = {want.flow: want.count for want in wants}
    shares.answered(wants, found)
    return found


def waiting(*flows: Flow) -> Shares:
    """
    Flows that have any number of jobs.
    """
    shares = Shares()
    for flow in flows:
        shares.waits(flow)
    return shares


@given(st.lists(st.integers(-20, 20), min_size=2, max_size=8, unique=True), st.integers(1, 50))
def test_sharesAreByWeight(nicenesses: list[int], room: int) -> None:
    """
    Each flow gets its share, exact to two jobs, in claims of whatever size.
    """
    shares = waiting(*(Flow("", niceness) for niceness in nicenesses))
    total: Counter[int] = Counter()
    for _ in range(2000 // room):
        for flow, count in chosen(shares, room).items():
            total[flow.niceness] += count
    weights = {niceness: 2.0 ** (-niceness / 10) for niceness in nicenesses}
    for niceness, weight in weights.items():
        share = total.total() * weight / sum(weights.values())
        assert abs(total[niceness] - share) <= len(nicenesses)


def test_manyFlowsAreOffTheirSharesByLessThanAPercent() -> None:
    """
    The shares of 3,000 flows are right within a percent after 203,000 jobs, by classes of weight.
    """
    shares = waiting(*(Flow(f"s{n}", n % 3 * 10) for n in range(3000)))
    rooms = {f"s{n}": 1_000_000 for n in range(3000)}
    total: Counter[int] = Counter()
    for _ in range(203):
        for flow, count in chosen(shares, 1000, rooms).items():
            total[flow.niceness] += count
    for niceness, weight in ((0, 4), (10, 2), (20, 1)):
        share = 203_000 * weight / 7
        assert abs(total[niceness] - share) < share / 100


def test_bandsGoBeforeAndAfterTheOthers() -> None:
    """
    All jobs of the first band are chosen before those of flows, and these before the last.
    """
    first, middle, last = (Flow("", 0, band) for band in Band)
    shares = waiting(last, middle, first)
    wants = shares.choose(10, MANY)
    assert wants == (Want(first, 10),)
    shares.answered(wants, {first: 4})
    wants = shares.choose(10, MANY)
    assert wants == (Want(middle, 10),)
    shares.answered(wants, {})
    assert shares.choose(10, MANY) == (Want(last, 10),)


def test_aFlowThatHasRunEmptyIsAskedNoMore() -> None:
    """
    A flow that had fewer jobs than were wanted is not chosen again before it is told of.
    """
    shares = waiting(Flow())
    shares.answered(shares.choose(5, MANY), {Flow(): 4})
    assert shares.choose(5, MANY) == ()
    shares.waits(Flow())
    assert shares.choose(5, MANY) == (Want(Flow(), 5),)


def test_whatIsToldDuringAClaimIsNotForgotten() -> None:
    """
    A flow that is told of while a claim is on its way is chosen again, whatever that finds.
    """
    shares = waiting(Flow())
    wants = shares.choose(5, MANY)
    shares.waits(Flow())
    shares.answered(wants, {})
    assert shares.choose(5, MANY) == (Want(Flow(), 5),)


def test_idleFlowsSaveNoShare() -> None:
    """
    A flow that had no jobs for a while gets no more than its share when it has some again.
    """
    one, two = Flow("", 0), Flow("", 1)
    shares = waiting(one, two)
    shares.answered(shares.choose(2, MANY), {one: 1})
    for _ in range(100):
        chosen(shares, 10)
    shares.waits(two)
    assert chosen(shares, 10)[two] <= 6


def test_roomOfASeriesIsKept() -> None:
    """
    No more is chosen of a series than it has room for, and the others get the rest.
    """
    shares = waiting(Flow("a"), Flow("b"))
    assert chosen(shares, 10, {"a": 2, "b": 100}) == {Flow("a"): 2, Flow("b"): 8}


def test_seriesWithoutRoomAreNotChosen() -> None:
    """
    Of a series for which there is no worker nothing is chosen.
    """
    assert waiting(Flow("a")).choose(10, {"a": 0}) == ()


def test_aFailedClaimCostsNoShare() -> None:
    """
    What was chosen for a claim that was not made is chosen again.
    """
    shares = waiting(Flow("", 0), Flow("", 10))
    wants = shares.choose(30, MANY)
    shares.failed(wants)
    assert shares.choose(30, MANY) == wants
