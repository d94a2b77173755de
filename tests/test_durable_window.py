"""
L{asynqueue.durable.window}.
"""

from __future__ import annotations

from asynqueue.durable.window import ClaimWindow


def claims(window: ClaimWindow, count: int, seconds: float, trip: float) -> None:
    """
    Make claims, one after the other, for workers that take some seconds for a job, all of which
    always have something to do as far as there is something in the line before them.
    """
    now, held = 1000.0, 0
    free = [now] * window.slots
    running: list[float] = []
    for _ in range(count):
        window.asked(now, held)
        claimed = window.size - held
        now += trip
        gone = [end for end in running if end <= now]
        window.ended(len(gone))
        running = [end for end in running if end > now]
        for _ in range(claimed):
            free.sort()
            free[0] = max(free[0], now) + seconds
            running.append(free[0])
        window.answered(now, True)
        held = len(running)
        if held >= window.size:
            now = min(running)
            gone = [end for end in running if end <= now]
            window.ended(len(gone))
            running = [end for end in running if end > now]
            held = len(running)


def test_longJobsHaveNoLine() -> None:
    """
    Of jobs that take much longer than a claim none are claimed ahead.
    """
    window = ClaimWindow(4)
    claims(window, 200, 10.0, 0.003)
    assert window.ahead == 0


def test_shortJobsHaveALineOfTwoRoundTrips() -> None:
    """
    Of short jobs about as many are claimed ahead as workers end in two round trips.
    """
    window = ClaimWindow(2)
    claims(window, 200, 0.0001, 0.003)
    ended = 2 * 0.003 / 0.0001
    assert ended <= window.ahead <= 4 * ended


def test_theLineGoesWhenJobsTakeLonger() -> None:
    """
    When jobs come to take long, no more are claimed ahead.
    """
    window = ClaimWindow(2)
    claims(window, 200, 0.0001, 0.003)
    claims(window, 200, 10.0, 0.003)
    assert window.ahead == 0


def test_withoutWorkersNothingIsClaimed() -> None:
    """
    Where no worker can run anything, there is no window.
    """
    window = ClaimWindow(2)
    claims(window, 50, 0.0001, 0.003)
    window.slots = 0
    assert window.size == 0


def test_fewJobsMakeNoLine() -> None:
    """
    A claim that finds less than it wanted says nothing about the workers.
    """
    window = ClaimWindow(2)
    for now in range(20):
        window.asked(float(now), 0)
        window.ended(2)
        window.answered(now + 0.9, False)
    assert window.ahead == 0
