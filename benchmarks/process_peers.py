"""
The peers that have no reactor: pools and executors that call back in a thread of
theirs, each in its normal use.
"""

from __future__ import annotations

import multiprocessing
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from importlib import import_module
from threading import Event, Lock
from time import monotonic, perf_counter, sleep
from typing import Any

from benchmarks.process_calls import began, burn, identity, noop, pause, spin
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
    MAP_CHUNK,
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
    stayOnOneCpu,
    thereAndBack,
)

Done = Callable[[Any], None]


class Peer(ABC):
    """
    One of them, made with two processes.
    """

    @abstractmethod
    def begin(self, done: Done, f: Callable[..., Any], *args: Any) -> None:
        """
        Call a function, and later C{done} with anything, in any thread.
        """

    @abstractmethod
    def call(self, f: Callable[..., Any], *args: Any) -> Any:
        """
        Call a function, and wait for its result.
        """

    @abstractmethod
    def close(self) -> None:
        """
        End its processes.
        """


class PoolPeer(Peer):
    """
    The Pool of multiprocessing, or another one like it.
    """

    def __init__(self, pool: Any) -> None:
        self.pool = pool

    def begin(self, done: Done, f: Callable[..., Any], *args: Any) -> None:
        self.pool.apply_async(f, args, callback=done)

    def call(self, f: Callable[..., Any], *args: Any) -> Any:
        return self.pool.apply(f, args)

    def close(self) -> None:
        self.pool.terminate()
        self.pool.join()


class ExecutorPeer(Peer):
    """
    A ProcessPoolExecutor, or another one like it.
    """

    def __init__(self, executor: Any) -> None:
        self.executor = executor

    def begin(self, done: Done, f: Callable[..., Any], *args: Any) -> None:
        self.executor.submit(f, *args).add_done_callback(done)

    def call(self, f: Callable[..., Any], *args: Any) -> Any:
        return self.executor.submit(f, *args).result()

    def close(self) -> None:
        self.executor.shutdown()


def pool(method: str = "fork", **options: Any) -> PoolPeer:
    """
    C{multiprocessing.Pool}.
    """
    return PoolPeer(multiprocessing.get_context(method).Pool(WORKERS, **options))


def executor(method: str = "fork") -> ExecutorPeer:
    """
    C{concurrent.futures.ProcessPoolExecutor}.
    """
    from concurrent.futures import ProcessPoolExecutor

    context = multiprocessing.get_context(method)
    return ExecutorPeer(ProcessPoolExecutor(WORKERS, mp_context=context))


def loky() -> ExecutorPeer:
    """
    The reusable executor of loky.
    """
    from loky import get_reusable_executor

    return ExecutorPeer(get_reusable_executor(max_workers=WORKERS))


def billiard(**options: Any) -> PoolPeer:
    """
    C{billiard.Pool}, which forks.
    """
    from billiard import Pool

    return PoolPeer(Pool(WORKERS, **options))


def warm(peer: Peer) -> None:
    """
    Let both children be there and have done something.
    """
    callMany(peer, WORKERS, pause)
    callMany(peer, WARM_UP, noop)


def callMany(peer: Peer, count: int, f: Callable[..., Any], *args: Any) -> float:
    """
    Call a function many times at once.

    @return: the seconds until all have ended.
    """
    ended = Event()
    left = count

    def done(_: Any) -> None:
        nonlocal left
        left -= 1
        if not left:
            ended.set()

    start = perf_counter()
    for _ in range(count):
        peer.begin(done, f, *args)
    ended.wait()
    return perf_counter() - start


def burst(make: Callable[[], Peer], count: int) -> Figures:
    """
    Calls of nothing, all at once.
    """
    peer = make()
    warm(peer)
    seconds = callMany(peer, count, noop)
    peer.close()
    return {"calls/s": count / seconds, "calls": count}


def outstanding(make: Callable[[], Peer]) -> Figures:
    """
    Calls of nothing, of which so many are outstanding at most.
    """
    peer = make()
    warm(peer)
    ended = Event()
    left = BURST
    toBegin = BURST - OUTSTANDING

    # All of them run in one thread.
    def done(_: Any) -> None:
        nonlocal left, toBegin
        left -= 1
        if toBegin:
            toBegin -= 1
            peer.begin(done, noop)
        elif not left:
            ended.set()

    start = perf_counter()
    for _ in range(OUTSTANDING):
        peer.begin(done, noop)
    ended.wait()
    seconds = perf_counter() - start
    peer.close()
    return {"calls/s": BURST / seconds}


def latency(make: Callable[[], Peer], oneCpu: bool = False) -> Figures:
    """
    One call of nothing at a time.
    """
    if oneCpu:
        stayOnOneCpu()
    peer = make()
    warm(peer)
    times = []
    for _ in range(ONE_BY_ONE):
        start = perf_counter()
        peer.call(noop)
        times.append(perf_counter() - start)
    peer.close()
    return percentiles(times)


def trips(peer: Peer, count: int, thing: Any) -> float:
    """
    Send something there and back, one at a time.

    @return: the seconds of all.
    """
    for _ in range(2 * WORKERS):
        peer.call(identity, thing)
    start = perf_counter()
    for _ in range(count):
        peer.call(identity, thing)
    return perf_counter() - start


def megabyte(make: Callable[[], Peer]) -> Figures:
    """
    A megabyte of bytes, there and back.
    """
    peer = make()
    warm(peer)
    seconds = trips(peer, MEGABYTES, bytes(MEGA))
    peer.close()
    return thereAndBack(MEGABYTES, MEGA, seconds)


def numpy(make: Callable[[], Peer]) -> Figures:
    """
    A large array, there and back.
    """
    import numpy

    peer = make()
    warm(peer)
    seconds = trips(peer, ARRAYS, numpy.ones(ARRAY_BYTES // 8))
    peer.close()
    return thereAndBack(ARRAYS, ARRAY_BYTES, seconds)


def memoryCopy() -> Figures:
    """
    What a copy from memory to memory takes.
    """
    import numpy

    source, target = numpy.ones(ARRAY_BYTES // 8), numpy.zeros(ARRAY_BYTES // 8)
    numpy.copyto(target, source)
    start = perf_counter()
    for _ in range(ARRAYS):
        numpy.copyto(target, source)
    return {"MB/s": ARRAYS * ARRAY_BYTES / (perf_counter() - start) / MEGA}


def cpu(make: Callable[[], Peer]) -> Figures:
    """
    Tasks that use a CPU.
    """
    peer = make()
    warm(peer)
    seconds = callMany(peer, CPU_TASKS, burn, CPU_SECONDS)
    peer.close()
    return fractionOfIdeal(seconds)


def longFirst(make: Callable[[], Peer]) -> Figures:
    """
    A long call before many short ones of the same function.
    """
    peer = make()
    warm(peer)
    ended = Event()
    peer.begin(lambda _: ended.set(), spin, LONG_SECONDS)
    seconds = callMany(peer, SHORT_TASKS, spin, SHORT_SECONDS)
    ended.wait()
    peer.close()
    return {"seconds": seconds}


def replaced(make: Callable[..., Peer]) -> Figures:
    """
    Calls in processes that are replaced after a few of them.
    """
    peer = make(maxtasksperchild=REPLACED_AFTER)
    callMany(peer, WORKERS, noop)
    seconds = callMany(peer, REPLACED_TASKS, sleep, REPLACED_SECONDS)
    peer.close()
    return {"seconds": seconds}


def imapped() -> Figures:
    """
    Integers out of C{imap}, one by one, which is what the Pool has for a generator.
    """
    peer = pool()
    warm(peer)
    start = perf_counter()
    for _ in peer.pool.imap(identity, range(GENERATED), chunksize=1):
        pass
    seconds = perf_counter() - start
    peer.close()
    return {"items/s": GENERATED / seconds}


def mapped() -> Figures:
    """
    A map of nothing, in chunks.
    """
    peer = pool()
    warm(peer)
    start = perf_counter()
    for _ in peer.pool.imap_unordered(noop, range(MAPPED), chunksize=MAP_CHUNK):
        pass
    seconds = perf_counter() - start
    peer.close()
    return {"items/s": MAPPED / seconds}


def behindBacklog() -> Figures:
    """
    When a call begins that has to wait for a backlog, as the Pool has no priorities.
    """
    peer = pool()
    warm(peer)
    times: list[float] = []
    full = True
    lock = Lock()

    def again(_: Any) -> None:
        if full:
            peer.begin(again, spin, SHORT_SECONDS)

    def callUrgently() -> None:
        called = monotonic()

        def done(at: float) -> None:
            with lock:
                times.append(at - called)

        peer.begin(done, began)

    for _ in range(BACKLOG):
        peer.begin(again, spin, SHORT_SECONDS)
    for _ in range(URGENT):
        sleep(URGENT_EVERY)
        callUrgently()
    while len(times) < URGENT:
        sleep(URGENT_EVERY)
    full = False
    peer.close()
    return percentiles(times, "ms", 1e3)


def first(make: Callable[[], Peer], *modules: str) -> Figures:
    """
    The first result of a new one, with everything imported here before.
    """
    for module in modules:
        import_module(module)
    start = perf_counter()
    peer = make()
    peer.call(noop)
    seconds = perf_counter() - start
    peer.close()
    return {"ms": seconds * 1e3}


def idle(make: Callable[[], Peer]) -> Figures:
    """
    Nothing to do, after something was done.
    """
    peer = make()
    warm(peer)
    sleep(SETTLE_SECONDS)
    activity = Activity(child.pid or 0 for child in multiprocessing.active_children())
    sleep(IDLE_SECONDS)
    figures = activity.figures()
    peer.close()
    return figures


poolBurst = partial(burst, pool, BURST)
executorBurst = partial(burst, executor, BURST)
lokyBurst = partial(burst, loky, PART_OF_BURST)
billiardBurst = partial(burst, billiard, BURST)

poolOutstanding = partial(outstanding, pool)
executorOutstanding = partial(outstanding, executor)

poolLatency = partial(latency, pool)
executorLatency = partial(latency, executor)
lokyLatency = partial(latency, loky)
billiardLatency = partial(latency, billiard)

poolLatencyOnOneCpu = partial(latency, pool, True)
executorLatencyOnOneCpu = partial(latency, executor, True)
lokyLatencyOnOneCpu = partial(latency, loky, True)
billiardLatencyOnOneCpu = partial(latency, billiard, True)

poolMegabyte = partial(megabyte, pool)
executorMegabyte = partial(megabyte, executor)
lokyMegabyte = partial(megabyte, loky)
billiardMegabyte = partial(megabyte, billiard)

poolNumpy = partial(numpy, pool)
executorNumpy = partial(numpy, executor)

poolCpu = partial(cpu, pool)
executorCpu = partial(cpu, executor)

poolLongFirst = partial(longFirst, pool)
executorLongFirst = partial(longFirst, executor)

poolReplaced = partial(replaced, pool)
billiardReplaced = partial(replaced, billiard)

poolFirst = partial(first, pool, "multiprocessing.pool")
poolSpawnFirst = partial(first, partial(pool, "spawn"), "multiprocessing.pool")
executorSpawnFirst = partial(first, partial(executor, "spawn"), "concurrent.futures.process")
lokyFirst = partial(first, loky, "loky")
billiardFirst = partial(first, billiard, "billiard.pool")

poolIdle = partial(idle, pool)
executorIdle = partial(idle, executor)
