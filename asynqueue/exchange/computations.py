"""
The computations of an exchange: those that are under way, those that wait, and those of
which this process is only a fork.

This module imports no Twisted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from asynqueue.errors import ForkError
from asynqueue.exchange.channel import Channel
from asynqueue.exchange.reserve import Call
from asynqueue.exchange.watching import Watching


class Run(NamedTuple):
    """
    A computation that is under way.

    @ivar place: its number among all computations.
    @ivar callable: what computes it, if that is known.
    """

    place: int
    callable: Callable[..., Any] | None


class Computations:
    """
    The computations of an exchange. What is under way is watched.

    @ivar count: how many there were in all.
    @ivar running: those that are under way, by their channels.
    @ivar waiting: what waits for room, in order.
    @ivar watching: the channels of those under way.
    @ivar inherited: the places of those of the parent of this process, if it is a fork.
    """

    def __init__(self) -> None:
        self.count = 0
        self.running: dict[Channel, Run] = {}
        self.waiting: deque[Call] = deque()
        self.inherited: set[int] = set()
        self.watching = Watching()

    def newPlace(self) -> int:
        """
        Number a computation.
        """
        self.count += 1
        return self.count - 1

    def begin(self, channel: Channel, place: int, callable: Callable[..., Any] | None) -> None:
        """
        Take note that a computation is under way, and watch its channel.
        """
        self.running[channel] = Run(place, callable)
        self.watching.add(channel)

    def end(self, channel: Channel) -> None:
        """
        Watch a channel no more.
        """
        self.running.pop(channel, None)
        self.watching.remove(channel)

    def isOutstanding(self, place: int) -> bool:
        """
        Tell whether a computation is under way, or waits.
        """
        running = any(run.place == place for run in self.running.values())
        return running or any(call.place == place for call in self.waiting)

    def forked(self) -> None:
        """
        Forget all in a fork of the process that has the computations, and begin anew.
        """
        self.inherited.update(run.place for run in self.running.values())
        self.inherited.update(call.place for call in self.waiting)
        self.running.clear()
        self.waiting.clear()
        self.watching = Watching()

    def tellInherited(self) -> None:
        """
        Tell, when all is done, that what the parent of this process does is not.

        @raise ForkError: there is such. It is raised once.
        """
        count = len(self.inherited)
        self.inherited.clear()
        if count:
            raise ForkError(f"waiting for {count} computations", "exchange")
