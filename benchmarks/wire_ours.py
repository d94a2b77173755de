"""
Our wire.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater

from asynqueue import TaskQueue
from asynqueue.wire import WireWorker
from asynqueue.wire.transport.certificates import makeKeys
from benchmarks.process_figures import (
    SETTLE_SECONDS,
    WARM_UP,
    Activity,
    percentiles,
    thereAndBack,
)
from benchmarks.process_reactor import callMany
from benchmarks.wire_figures import (
    BURST,
    CONNECTIONS,
    DELAY_SECONDS,
    GENERATED,
    HOSTS,
    IDLE_SECONDS,
    LARGE,
    ONE_BY_ONE,
    TRIPS,
    Figures,
    Hosts,
)

_UNIVERSE = "benchmarks.wire_host.Universe"


def unixHosts(hosts: Hosts, count: int = HOSTS) -> list[WireWorker]:
    """
    Hosts on UNIX sockets.
    """
    workers = []
    for number in range(count):
        socket = f"unix:{hosts.path(str(number))}"
        hosts.start("asynqueue.wire", socket, _UNIVERSE)
        workers.append(WireWorker(None, socket))
    return workers


def tlsHosts(hosts: Hosts) -> list[WireWorker]:
    """
    Hosts on TCP, with TLS and a key.
    """
    folder = Path(hosts.path("keys"))
    makeKeys(folder, ["localhost", "127.0.0.1"])
    workers = []
    for _ in range(HOSTS):
        line = hosts.start(
            "asynqueue.wire",
            f"ssl:0:interface=127.0.0.1:privateKey={folder}/server.key:certKey={folder}/server.pem",
            _UNIVERSE,
            "--key-file",
            f"{folder}/shared.key",
        )
        workers.append(
            WireWorker(
                None,
                f"tls:127.0.0.1:{portOf(line)}:trustRoots={folder}/trust",
                keyFile=f"{folder}/shared.key",
            )
        )
    return workers


def portOf(line: str) -> int:
    """
    The port in the line that says that a host is ready.
    """
    return int("".join(c if c.isdigit() else " " for c in line).split()[-1])


def tcpHost(hosts: Hosts, delay: float = 0.0) -> WireWorker:
    """
    A host on TCP, at the end of a long line if there is a delay.
    """
    line = hosts.start("asynqueue.wire", "tcp:0:interface=127.0.0.1", _UNIVERSE)
    port = portOf(line)
    if delay:
        port = int(hosts.start("benchmarks.wire_delay", str(port), str(delay)))
    return WireWorker(None, f"tcp:127.0.0.1:{port}")


async def queueOf(*workers: WireWorker) -> TaskQueue:
    """
    A queue that has them all.
    """
    queue = TaskQueue()
    await gatherResults([queue.attachWorker(worker) for worker in workers])
    await gatherResults([queue.call("noop") for _ in range(WARM_UP)])
    return queue


async def burst(make: Any, reactor: Any) -> Figures:
    """
    Calls of nothing, all at once.
    """
    with Hosts() as hosts:
        queue = await queueOf(*make(hosts))
        seconds = await callMany(queue.call, BURST, BURST, "noop")
        await queue.shutdown()
    return {"calls/s": BURST / seconds, "calls": BURST}


async def latency(reactor: Any) -> Figures:
    """
    One call of nothing at a time.
    """
    with Hosts() as hosts:
        queue = await queueOf(*unixHosts(hosts, 1))
        times = await oneByOne(queue, ONE_BY_ONE)
        await queue.shutdown()
    return percentiles(times)


async def oneByOne(queue: TaskQueue, count: int) -> list[float]:
    """
    The seconds of each of so many calls, one after the other.
    """
    times = []
    for _ in range(count):
        start = perf_counter()
        await queue.call("noop")
        times.append(perf_counter() - start)
    return times


async def large(delay: float, reactor: Any) -> Figures:
    """
    64 MB there and back.
    """
    with Hosts() as hosts:
        queue = await queueOf(tcpHost(hosts, delay))
        data = bytes(LARGE)
        start = perf_counter()
        for _ in range(TRIPS):
            assert len(await queue.call("identity", data)) == LARGE
        seconds = perf_counter() - start
        await queue.shutdown()
    return thereAndBack(TRIPS, LARGE, seconds)


async def beside(make: Callable[[], Any], reactor: Any) -> Figures:
    """
    Calls of nothing, one at a time, first alone, then while something large goes there
    and back on the same connection.
    """
    with Hosts() as hosts:
        queue = await queueOf(tcpHost(hosts))
        alone = percentiles(await oneByOne(queue, ONE_BY_ONE))
        data = make()
        going = True

        async def transfer() -> None:
            while going:
                await queue.call("identity", data)

        transfers = Deferred.fromCoroutine(transfer())
        beside = percentiles(await oneByOne(queue, ONE_BY_ONE))
        going = False
        await transfers
        await queue.shutdown()
    both = (("alone", alone), ("beside", beside))
    return {f"{key} {name}": its[key] for name, its in both for key in its}


def anArray() -> Any:
    """
    64 MB that need no copy to be pickled.
    """
    from numpy import ones

    return ones(LARGE // 8)


async def generator(reactor: Any) -> Figures:
    """
    The items of a generator at the end of a long line.
    """
    with Hosts() as hosts:
        queue = await queueOf(tcpHost(hosts, DELAY_SECONDS))
        start = perf_counter()
        count = 0
        async for _ in await queue.call("countUp", GENERATED):
            count += 1
        seconds = perf_counter() - start
        assert count == GENERATED
        await queue.shutdown()
    return {"items/s": GENERATED / seconds}


async def idle(reactor: Any) -> Figures:
    """
    Very many connections that nobody uses.
    """
    with Hosts() as hosts:
        line = hosts.start("asynqueue.wire", "tcp:0:interface=127.0.0.1", _UNIVERSE)
        description = f"tcp:127.0.0.1:{portOf(line)}"
        queue = await queueOf(*(WireWorker(None, description) for _ in range(CONNECTIONS)))
        await deferLater(reactor, SETTLE_SECONDS)
        activity = Activity(hosts.pids())
        await deferLater(reactor, IDLE_SECONDS)
        figures = activity.figures()
        await queue.shutdown()
    return {**figures, "% of a core": figures["cpu ms"] / IDLE_SECONDS / 10}


unixBurst = partial(burst, unixHosts)
tlsBurst = partial(burst, tlsHosts)

largeNear = partial(large, 0.0)
largeFarAway = partial(large, DELAY_SECONDS)

besideBytes = partial(beside, lambda: bytes(LARGE))
besideArray = partial(beside, anArray)
