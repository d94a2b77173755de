"""
All that can happen to hosts, at random, while a queue asks them for all that they can do.
"""

from __future__ import annotations

import os
import random
import signal
from collections import Counter
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import LoopingCall

from asynqueue import TaskQueue, TaskTimedOut, WireWorker, WorkerLost
from tests.doubles import Heard
from tests.integration.process_checks import until
from tests.integration.wire_faults import Faults, Harmed, Hosts, hosts

__all__ = ["hosts"]

# How many tasks there are, how many seconds are between two events, and how many of them there
# are at most; more tasks for a long trial.
MANY = int(os.environ.get("ASYNQUEUE_TEST_CHAOS", "700"))
INTERVAL = 0.05
EVENTS = 100

HOSTS = 3
BEAT = 0.25
LARGE = 300_000


class Chaos:
    """
    Does things to hosts, again and again.

    @ivar done: what it did, and how often.
    """

    def __init__(self, made: Hosts, seed: int) -> None:
        self.done: Counter[str] = Counter()
        self.hosts = [made.start(heartbeat=BEAT, grace=0.2) for _ in range(HOSTS)]
        self._made = made
        self._random = random.Random(seed)
        self._frozen: list[Harmed] = []
        self._coming: dict[int, Harmed] = {}
        self._loop = LoopingCall(self._act)
        self._loop.start(INTERVAL, now=False)

    def stop(self) -> None:
        """
        Let all hosts live.
        """
        self._loop.stop()
        self._thaw()
        for index in list(self._coming):
            self._revive(index)

    def _act(self) -> None:
        act = self._random.choice([self._kill, self._leave, self._freeze, self._thaw, self._bring])
        self.done[act.__name__] += 1
        act()

    def _any(self) -> int:
        return self._random.randrange(HOSTS)

    def _kill(self) -> None:
        index = self._any()
        if index not in self._coming:
            self.hosts[index].kill()
            self._coming[index] = self.hosts[index]

    def _leave(self) -> None:
        index = self._any()
        if index not in self._coming:
            self.hosts[index].signal(signal.SIGTERM)

    def _freeze(self) -> None:
        index = self._any()
        if index not in self._coming:
            self.hosts[index].signal(signal.SIGSTOP)
            self._frozen.append(self.hosts[index])

    def _thaw(self) -> None:
        frozen, self._frozen = self._frozen, []
        for host in frozen:
            host.signal(signal.SIGCONT)

    def _bring(self) -> None:
        for index, host in enumerate(self.hosts):
            if host.isGone:
                self._coming[index] = host
        if self._coming:
            self._revive(self._random.choice(list(self._coming)))

    def _revive(self, index: int) -> None:
        host = self._coming.pop(index)
        host.close()
        self.hosts[index] = self._made.start(host.description, heartbeat=BEAT, grace=0.2)


class Load:
    """
    All kinds of tasks.
    """

    def __init__(self, queue: TaskQueue, seed: int) -> None:
        self._queue = queue
        self._random = random.Random(seed)
        self.heard = [Heard(self._task()) for _ in range(MANY)]

    @property
    def left(self) -> int:
        """
        How much has not come to an end.
        """
        return sum(not each.results for each in self.heard)

    def _task(self) -> Deferred[Any]:
        choice = self._random.random()
        retries = self._random.choice([0, 1000])
        if choice < 0.6:
            number = self._random.randrange(1000)
            return self._queue.call("square", number, retries=retries).addCallback(
                _check, number * number
            )
        if choice < 0.7:
            urgent = self._random.random() < 0.5
            return self._queue.call(
                "size", bytes(LARGE), retries=retries, doNext=urgent
            ).addCallback(_check, LARGE)
        if choice < 0.8:
            return self._queue.call("blob", LARGE, retries=retries).addCallback(
                _check, bytes(LARGE)
            )
        if choice < 0.85:
            return self._queue.call("hold", timeout=0.1, retries=retries)
        if choice < 0.95:
            d = self._queue.call("hold", retries=retries)
            self._queue.call("letGo").addErrback(_expected).addBoth(lambda _: d.cancel())
            return d
        return Deferred.fromCoroutine(self._iterate())

    async def _iterate(self) -> None:
        deferator = await self._queue.call("endless")
        for number in range(self._random.randrange(2000)):
            assert await next(deferator) == number
        deferator.stop()


def _check(result: Any, wanted: Any) -> None:
    assert result == wanted


def _expected(failure: Any) -> None:
    failure.trap(WorkerLost, TaskTimedOut, CancelledError)


@pytest.mark.bulk
@pytest.mark.parametrize("seed", range(3))
@ensureDeferred
async def test_chaos(seed: int, hosts: Hosts) -> None:
    """
    While hosts are killed, frozen, told to leave and brought back, each task comes to an end,
    once, with its result or an error that says that its host was lost; and nothing is left.
    """
    chaos = Chaos(hosts, seed)
    workers = [WireWorker(Faults(), host.description, heartbeat=BEAT) for host in chaos.hosts]
    queue = TaskQueue(*workers, timeout=1.0)
    load = Load(queue, seed)
    # What waits while nobody lets it go is let go at last.
    letting = LoopingCall(lambda: queue.call("letGo").addErrback(lambda _: None) and None)
    letting.start(0.2, now=False)
    try:
        try:
            # Hosts take their time to start: it is for each event, and each end, that it waits.
            while load.left and (events := chaos.done.total()) <= EVENTS:
                await until(lambda events=events: not load.left or chaos.done.total() > events)
        finally:
            chaos.stop()
        while left := load.left:
            await until(lambda left=left: load.left < left)
    finally:
        letting.stop()
    for each in load.heard:
        if each.result is not None and each.result != "let go":
            assert isinstance(each.error, WorkerLost | TaskTimedOut | CancelledError), each.error
    await queue.shutdown()
    for host in chaos.hosts:
        await nothingLeft(host)


async def nothingLeft(host: Harmed) -> None:
    """
    A host ends what nobody will hear of, if it lives: one may have been told to leave at the
    end.
    """
    queue = TaskQueue(WireWorker(Faults(), host.description), timeout=1.0)
    left = 1
    while left and not host.isGone:
        heard = [Heard(queue.call("held")), Heard(queue.call("iterators"))]
        await until(lambda heard=heard: all(each.results for each in heard) or host.isGone)
        if all(each.results for each in heard):
            left = sum(each.result for each in heard)
    await queue.shutdown()
