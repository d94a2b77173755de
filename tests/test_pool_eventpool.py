"""
A pool on a clock, with children that do as the test wants.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from asynqueue.pool.eventpool import EventPool
from tests.children import ChildDouble, ReadingClock


class Playing:
    """
    A pool whose children make calls when the test says so.

    @ivar made: the calls that were begun, each with the number of its child.
    """

    def __init__(self, size: int, **options: Any) -> None:
        self.clock = ReadingClock()
        self.children: list[ChildDouble] = []
        self.made: list[tuple[int, Any]] = []
        self.pool = EventPool(size, spawn=self.spawn, now=self.clock.seconds, **options)
        self.pool.register_with_event_loop(self.clock)

    def spawn(self, limit: int) -> Any:
        """
        Start a child.
        """
        child = ChildDouble(limit, len(self.children), self.begins)
        self.children.append(child)
        return child

    def begins(self, child: ChildDouble, args: Any) -> None:
        """
        A child begins a call.
        """
        self.made.append((self.children.index(child), *args))

    def play(self, steps: int) -> None:
        """
        Have each child do so many steps.
        """
        for _ in range(steps):
            for child in self.children:
                child.step()
            self.clock.turn()
            self.clock.advance(0)

    def close(self) -> None:
        """
        End all.
        """
        self.pool.terminate()
        for child in self.children:
            child.exit()
        self.clock.turn()
        self.pool.join()


@pytest.fixture
def lined() -> Iterator[Playing]:
    """
    A pool with two processes that were given as many calls as they may make: of two, one runs,
    and one is lined up behind it.
    """
    playing = Playing(2, maxtasksperchild=2, putlocks=False)
    playing.play(2)
    for number in range(4):
        playing.pool.apply_async(abs, (number,))
    playing.play(3)
    assert len(playing.made) == 2
    yield playing
    playing.close()


@pytest.mark.parametrize(
    ("change", "made"), [("restart", [1, 1]), ("shrink", [1, 2])], ids=["restart", "shrink"]
)
def test_whoGoesEndsOnlyWhatItHasBegun(lined: Playing, change: str, made: list[int]) -> None:
    """
    A process that is to go, as the pool is restarted or shrinks, ends the call that it has
    begun. Those that are lined up there are made by others, also if they are the last that it
    may make.
    """
    getattr(lined.pool, change)()
    lined.play(20)
    calls = [(child, *args) for child, *args in lined.made if args]
    assert sorted(number for _, number in calls) == [0, 1, 2, 3]
    assert sorted([child for child, _ in calls].count(old) for old in range(2)) == made


def test_terminateWaitsForNobody() -> None:
    """
    Processes that were told to end, as their pool was closed, and have not, are killed when it
    is terminated.
    """
    playing = Playing(2)
    playing.play(2)
    playing.pool.close()
    assert not any(child.isKilled for child in playing.children)
    playing.pool.terminate()
    assert all(child.isKilled for child in playing.children)
    playing.close()
