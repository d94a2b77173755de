"""
Those that live in the reactor: our ProcessQueue, and ampoule.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from importlib import import_module
from time import monotonic, perf_counter, sleep
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import LoopingCall, deferLater
from twisted.python.failure import Failure

from benchmarks.process_calls import began, burn, countUp, identity, noop, pause, spin
from benchmarks.process_figures import (
    ARRAY_BYTES,
    ARRAYS,
    BACKLOG,
    BURST,
    CPU_SECONDS,
    CPU_TASKS,
    GENERATED,
    IDLE_SECONDS,
    LONG_SECONDS,
    MANY,
    MANY_OUTSTANDING,
    MAPPED,
    MEGA,
    MEGABYTES,
    ONE_BY_ONE,
    OUTSTANDING,
    PART_OF_BURST,
    REPLACED_AFTER,
    REPLACED_SECONDS,
    REPLACED_TASKS,
    SETTLE_SECONDS,
    SHORT_SECONDS,
    SHORT_TASKS,
    URGENT,
    URGENT_EVERY,
    WARM_UP,
    WORKERS,
    Activity,
    Figures,
    fractionOfIdeal,
    percentiles,
    residentMegabytes,
    stayOnOneCpu,
    thereAndBack,
)

Call = Callable[..., Deferred[Any]]


class Peer(ABC):
    """
    One of them, made with two processes.

    @ivar call: calls a function with its arguments in a child.
    """

    call: Call

    @abstractmethod
    async def close(self) -> None:
        """
        End its processes.
        """


class Ours(Peer):
    """
    Our ProcessQueue.
    """

    def __init__(self, **options: Any) -> None:
        from asynqueue import ProcessQueue

        self.queue = ProcessQueue(WORKERS, **options)
        self.call = self.queue.call

    def pids(self) -> list[int]:
        """
        Its children.
        """
        return [pid for worker in self.queue.workers() for pid in worker.pids]

    async def close(self) -> None:
        await self.queue.shutdown()


class Ampoule(Peer):
    """
    The ProcessPool of ampoule, whose children stay.
    """

    def __init__(self) -> None:
        from ampoule.pool import ProcessPool

        from benchmarks.ampoule_child import COMMANDS, Child, Noop

        self._commands = COMMANDS
        self._noop = Noop
        self._pool = ProcessPool(Child, min=WORKERS, max=WORKERS, recycleAfter=0)
        self._pool.start()

    def call(self, f: Callable[..., Any], *args: Any) -> Deferred[Any]:
        command = self._commands.get(f, self._noop)
        if not args:
            return self._pool.doWork(command)
        return self._pool.doWork(command, data=args[0])

    async def close(self) -> None:
        await self._pool.stop()


async def warm(peer: Peer) -> None:
    """
    Let both children be there and have done something.
    """
    await gatherResults([peer.call(pause) for _ in range(WORKERS)])
    await gatherResults([peer.call(noop) for _ in range(WARM_UP)])


async def callMany(call: Call, count: int, atOnce: int, f: Callable[..., Any], *args: Any) -> float:
    """
    Call a function many times, of which so many are outstanding at most.

    @return: the seconds until all have ended.
    """
    ended: Deferred[None] = Deferred()
    left = count
    toBegin = count - atOnce

    def done(_: Any) -> None:
        nonlocal left, toBegin
        left -= 1
        if toBegin:
            toBegin -= 1
            call(f, *args).addCallbacks(done, ended.errback)
        elif not left:
            ended.callback(None)

    start = perf_counter()
    for _ in range(atOnce):
        call(f, *args).addCallbacks(done, ended.errback)
    await ended
    return perf_counter() - start


async def burst(make: Callable[[], Peer], count: int, reactor: Any) -> Figures:
    """
    Calls of nothing, all at once.
    """
    peer = make()
    await warm(peer)
    seconds = await callMany(peer.call, count, count, noop)
    await peer.close()
    return {"calls/s": count / seconds, "calls": count}


async def outstanding(reactor: Any) -> Figures:
    """
    Calls of nothing, of which so many are outstanding at most.
    """
    peer = Ours()
    await warm(peer)
    seconds = await callMany(peer.call, BURST, OUTSTANDING, noop)
    await peer.close()
    return {"calls/s": BURST / seconds}


async def latency(make: Callable[[], Peer], oneCpu: bool, reactor: Any) -> Figures:
    """
    One call of nothing at a time.
    """
    if oneCpu:
        stayOnOneCpu()
    peer = make()
    await warm(peer)
    times = []
    for _ in range(ONE_BY_ONE):
        start = perf_counter()
        await peer.call(noop)
        times.append(perf_counter() - start)
    await peer.close()
    return percentiles(times)


async def trips(peer: Peer, count: int, thing: Any) -> float:
    """
    Send something there and back, one at a time.

    @return: the seconds of all.
    """
    for _ in range(2 * WORKERS):
        await peer.call(identity, thing)
    start = perf_counter()
    for _ in range(count):
        await peer.call(identity, thing)
    return perf_counter() - start


async def megabyte(make: Callable[[], Peer], reactor: Any) -> Figures:
    """
    A megabyte of bytes, there and back.
    """
    peer = make()
    await warm(peer)
    seconds = await trips(peer, MEGABYTES, bytes(MEGA))
    await peer.close()
    return thereAndBack(MEGABYTES, MEGA, seconds)


async def numpy(reactor: Any) -> Figures:
    """
    A large array, there and back.
    """
    from numpy import ones

    peer = Ours()
    await warm(peer)
    seconds = await trips(peer, ARRAYS, ones(ARRAY_BYTES // 8))
    await peer.close()
    return thereAndBack(ARRAYS, ARRAY_BYTES, seconds)


async def cpu(reactor: Any) -> Figures:
    """
    Tasks that use a CPU.
    """
    peer = Ours()
    await warm(peer)
    seconds = await callMany(peer.call, CPU_TASKS, CPU_TASKS, burn, CPU_SECONDS)
    await peer.close()
    return fractionOfIdeal(seconds)


async def generator(reactor: Any) -> Figures:
    """
    The items of a generator in a child.
    """
    peer = Ours()
    await warm(peer)
    start = perf_counter()
    count = 0
    async for _ in await peer.call(countUp, GENERATED):
        count += 1
    seconds = perf_counter() - start
    assert count == GENERATED
    await peer.close()
    return {"items/s": GENERATED / seconds}


async def mapped(reactor: Any) -> Figures:
    """
    A map of nothing.
    """
    peer = Ours()
    await warm(peer)
    start = perf_counter()
    count = 0
    async for _ in peer.queue.map(noop, range(MAPPED)):
        count += 1
    seconds = perf_counter() - start
    assert count == MAPPED
    await peer.close()
    return {"items/s": MAPPED / seconds}


async def longFirst(reactor: Any) -> Figures:
    """
    A long call before many short ones of the same function.
    """
    peer = Ours()
    await warm(peer)
    long = peer.call(spin, LONG_SECONDS)
    seconds = await callMany(peer.call, SHORT_TASKS, SHORT_TASKS, spin, SHORT_SECONDS)
    await long
    await peer.close()
    return {"seconds": seconds}


async def replaced(reactor: Any) -> Figures:
    """
    Calls in processes that are replaced after a few of them.
    """
    peer = Ours(maxTasks=REPLACED_AFTER)
    await gatherResults([peer.call(noop) for _ in range(WORKERS)])
    seconds = await callMany(peer.call, REPLACED_TASKS, REPLACED_TASKS, sleep, REPLACED_SECONDS)
    await peer.close()
    return {"seconds": seconds}


async def doNext(reactor: Any) -> Figures:
    """
    When a call begins that goes before a backlog which stays full.
    """
    peer = Ours()
    await warm(peer)
    times: list[float] = []
    full = True
    ended: Deferred[None] = Deferred()

    def failed(reason: Failure) -> None:
        if not ended.called:
            ended.errback(reason)

    def again(_: Any) -> None:
        if full:
            peer.call(spin, SHORT_SECONDS).addCallbacks(again, failed)

    def callUrgently() -> None:
        called = monotonic()

        def done(at: float) -> None:
            times.append(at - called)
            if len(times) == URGENT and not ended.called:
                ended.callback(None)

        peer.call(began, doNext=True).addCallback(done).addErrback(failed)

    for _ in range(BACKLOG):
        again(None)
    ticks = LoopingCall(callUrgently)
    ticks.clock = reactor
    ticks.start(URGENT_EVERY, now=False)
    await ended
    ticks.stop()
    full = False
    await peer.close()
    return percentiles(times[:URGENT], "ms", 1e3)


async def first(make: Callable[[], Peer], modules: tuple[str, ...], reactor: Any) -> Figures:
    """
    The first result of a new one, with everything imported here before.
    """
    for module in modules:
        import_module(module)
    start = perf_counter()
    peer = make()
    await peer.call(noop)
    seconds = perf_counter() - start
    await peer.close()
    return {"ms": seconds * 1e3}


async def idle(reactor: Any) -> Figures:
    """
    Nothing to do, after something was done.
    """
    peer = Ours()
    await warm(peer)
    await deferLater(reactor, SETTLE_SECONDS)
    activity = Activity(peer.pids())
    await deferLater(reactor, IDLE_SECONDS)
    figures = activity.figures()
    await peer.close()
    return figures


async def memory(reactor: Any) -> Figures:
    """
    The memory after a tenth of very many calls, and after all.
    """
    peer = Ours()
    await warm(peer)
    figures: Figures = {}
    tenth = MANY // 10
    for name, count in (("10%", tenth), ("100%", MANY - tenth)):
        await callMany(peer.call, count, MANY_OUTSTANDING, noop)
        figures[f"parent at {name}"] = residentMegabytes([os.getpid()])
        figures[f"children at {name}"] = residentMegabytes(peer.pids())
    await peer.close()
    return figures


oursBurst = partial(burst, Ours, BURST)
ampouleBurst = partial(burst, Ampoule, PART_OF_BURST)

oursLatency = partial(latency, Ours, False)
ampouleLatency = partial(latency, Ampoule, False)

oursLatencyOnOneCpu = partial(latency, Ours, True)
ampouleLatencyOnOneCpu = partial(latency, Ampoule, True)

oursMegabyte = partial(megabyte, Ours)
ampouleMegabyte = partial(megabyte, Ampoule)

oursFirst = partial(first, Ours, ("asynqueue.queues",))
ampouleFirst = partial(first, Ampoule, ("ampoule.pool", "benchmarks.ampoule_child"))
