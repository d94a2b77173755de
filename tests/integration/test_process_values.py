"""
What travels to the processes of L{ProcessQueue} and back: what cannot, what is too
large, and what is large.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from typing import Any

import numpy
import psutil
import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import gatherResults

from asynqueue import ProcessQueue, ProcessWorker, TaskQueue, WorkerLost
from asynqueue.errors import FrameTooLarge, MaybeEncodingError, RemoteError, Unsendable
from asynqueue.testing import Gate
from asynqueue.testing.calls import AwkwardError, echo, raiseAwkward, waitAt
from tests.integration import process_calls as calls
from tests.integration.process_checks import Used, residentBytes, sharedMemory, until

MB = 1 << 20

# How often large values are sent until memory must have become flat, and then.
ROUNDS = 10


@pytest.fixture
def aSocket() -> Any:
    """
    A socket, which is closed afterwards.
    """
    with socket.socket() as made:
        yield made


@ensureDeferred
async def test_argumentsThatCannotBePickled(aSocket: Any) -> None:
    """
    A call with such arguments fails, with what the pickling raised; the child never
    hears of it.
    """
    queue = ProcessQueue(1)
    first = await queue.call(calls.pid)
    for argument in (threading.Lock(), aSocket, calls.counting(3)):
        with pytest.raises(TypeError, match="cannot pickle"):
            await queue.call(echo, argument)
    assert await queue.call(calls.pid) == first
    await queue.shutdown()


@ensureDeferred
async def test_forgottenAwaits() -> None:
    """
    A result that was not waited for is refused as an argument, in a call, in a map, and
    in both for more arguments than the item.
    """
    queue = ProcessQueue(1)
    first = queue.call(calls.pid)
    maps = queue.map(echo, [first]), queue.map(echo, [1], of=first)
    for d in (queue.call(echo, 1, of=[first]), *map(next, maps)):
        with pytest.raises(Unsendable, match=r"a Deferred in .*argument (1|of=): await it"):
            await d
    assert await queue.call(calls.pid) == await first
    await queue.shutdown()


@ensureDeferred
async def test_resultsThatCannotBePickled() -> None:
    """
    A call with such a result fails, and says which and why.
    """
    queue = ProcessQueue(1)
    first = await queue.call(calls.pid)
    with pytest.raises(MaybeEncodingError, match=r"lock.*cannot pickle"):
        await queue.call(calls.makeLock)
    with pytest.raises(MaybeEncodingError, match=r"generator.*cannot pickle"):
        await queue.call(calls.counting, 3, raw=True)
    with pytest.raises(MaybeEncodingError, match="SystemExit: 4"):
        await queue.call(calls.make, calls.Leaving)
    assert await queue.call(calls.make, calls.Sly) == "sly"
    assert await queue.call(calls.pid) == first
    await queue.shutdown()


@ensureDeferred
async def test_argumentsThatCannotBeMadeThere() -> None:
    """
    What arguments raise as they are unpickled in the child is the error of their
    call; if they end the child, that call alone is lost.
    """
    queue, here = ProcessQueue(1), os.getpid()
    with pytest.raises(LookupError, match="wood cannot be made here"):
        await queue.call(echo, calls.Breaks(here, False, "wood"))
    with pytest.raises(SystemExit):
        await queue.call(echo, calls.Breaks(here, False, "sys.exit"))
    others = [queue.call(pow, 2, number) for number in range(5)]
    lost = queue.call(echo, calls.Breaks(here, False, "exit"))
    others += [queue.call(pow, 2, number) for number in range(5, 10)]
    with pytest.raises(WorkerLost, match="exit code 7"):
        await lost
    assert await gatherResults(others) == [2**number for number in range(10)]
    await queue.shutdown()


@ensureDeferred
@pytest.mark.parametrize("what", ["wood", "sys.exit"])
async def test_resultsThatCannotBeMadeHere(what: str) -> None:
    """
    A result whose unpickling raises here is the error of its call, and harms nobody.
    """
    queue = ProcessQueue(1)
    lost = queue.call(calls.makeBreaks, os.getpid(), True, what)
    with pytest.raises(MaybeEncodingError, match="cannot be made again here"):
        await lost
    assert await queue.call(pow, 2, 5) == 32
    await queue.shutdown()


@ensureDeferred
async def test_awkwardExceptions() -> None:
    """
    An exception that cannot travel is replaced by words; one that needs several
    arguments fails its call, and nothing else.
    """
    queue = ProcessQueue(1)
    first = await queue.call(calls.pid)
    with pytest.raises((RemoteError, AwkwardError), match="awkward 2"):
        await queue.call(raiseAwkward)
    with pytest.raises(RemoteError, match="ValueError: with a lock"):
        await queue.call(calls.raiseUnpicklable)
    with pytest.raises(RemoteError, match="ValueError: with an exit"):
        await queue.call(calls.raiseLeaving)
    assert await queue.call(calls.pid) == first
    await queue.shutdown()


@pytest.mark.measured
@ensureDeferred
async def test_tooLarge() -> None:
    """
    Arguments, results, items and errors that are larger than may be are refused, each
    with an error that says so; smaller ones are not, however many there are.
    """
    queue = TaskQueue(ProcessWorker(largest=10_000))
    first = await queue.call(calls.pid)
    with pytest.raises(FrameTooLarge, match="limit of 10,000"):
        await queue.call(len, bytes(10_000))
    with pytest.raises(FrameTooLarge, match="limit of 10,000"):
        await queue.call(len, numpy.zeros(3_000))
    with pytest.raises(MaybeEncodingError, match="limit of 10,000"):
        await queue.call(bytes, 10_000)
    with pytest.raises(MaybeEncodingError, match="limit of 10,000"):
        await queue.call(numpy.zeros, 3_000)
    with pytest.raises(RemoteError, match="ValueError"):
        await queue.call(calls.raiseLarge, 200_000)
    lengths = [queue.call(len, bytes(9_000)) for _ in range(100)]
    assert await gatherResults(lengths) == [9_000] * 100
    values = await gatherResults([queue.call(bytes, 9_000) for _ in range(100)])
    assert [len(value) for value in values] == [9_000] * 100
    assert await queue.call(calls.pid) == first
    await queue.shutdown()


@ensureDeferred
@pytest.mark.parametrize("largest", [200, 1_000])
async def test_smallLimit(largest: int) -> None:
    """
    A limit may be so small that a number of calls together are larger.
    """
    queue = TaskQueue(ProcessWorker(largest=largest))
    assert await gatherResults([queue.call(abs, -number) for number in range(500)]) == list(
        range(500)
    )
    with pytest.raises(FrameTooLarge):
        await queue.call(len, bytes(largest))
    with pytest.raises(MaybeEncodingError, match="limit"):
        await queue.call(bytes, largest)
    with pytest.raises(RemoteError, match="ValueError"):
        await queue.call(calls.raiseLarge, 200_000)
    await queue.shutdown()


@ensureDeferred
async def test_tooLargeItems() -> None:
    """
    An item that is larger than may be fails; the others come.
    """
    queue = TaskQueue(ProcessWorker(largest=10_000))
    outcomes = []
    for d in await queue.call(map, bytes, [1, 20_000, 2]):
        try:
            outcomes.append(len(await d))
        except MaybeEncodingError:
            outcomes.append("too large")
    assert outcomes == [1, "too large", 2]
    await queue.shutdown()


@ensureDeferred
@pytest.mark.skipif(psutil.virtual_memory().available < 10 << 30, reason="needs 10 GB of memory")
async def test_largerThanTheDefault() -> None:
    """
    Two gigabytes are too large, if nothing else is said.
    """
    queue = ProcessQueue(1)
    with pytest.raises(MaybeEncodingError, match="limit of 2,147,483,648"):
        await queue.call(calls.makeBuffer, 3 << 30)
    with pytest.raises(FrameTooLarge, match="limit of 2,147,483,648"):
        await queue.call(len, calls.Buffer(3 << 30))
    assert await queue.call(pow, 2, 5) == 32
    await queue.shutdown()


@pytest.mark.bulk
@ensureDeferred
@pytest.mark.parametrize("kind", [bytearray, numpy.ones])
async def test_largeValuesAreFreed(kind: Any) -> None:
    """
    Large values go there and back. What is kept of them, to be used for the next, has a limit;
    after a moment they leave no memory and no descriptor behind, on either side.
    """
    queue = ProcessQueue(1)
    value = kind(64 * MB if kind is bytearray else 8 * MB)
    child = await queue.call(calls.pid)
    sizes = []
    shared = sharedMemory(os.getpid()), sharedMemory(child)
    for _ in range(2):
        for _ in range(ROUNDS):
            (back,), _ = await queue.call(echo, value)
            assert len(back) == len(value)
            del back
        # With this one, the last is out of all hands.
        assert await queue.call(calls.pid) == child
        assert sharedMemory(os.getpid()) <= shared[0] + 6
        assert sharedMemory(child) <= shared[1] + 6
        await until(lambda: (sharedMemory(os.getpid()), sharedMemory(child)) == shared)
        sizes.append((residentBytes(os.getpid()), residentBytes(child)))
    (before, beforeThere), (after, afterThere) = sizes
    assert after < before + 64 * MB
    assert afterThere < beforeThere + 64 * MB
    await queue.shutdown()


@ensureDeferred
async def test_withALimitOfMemoryNothingIsKept() -> None:
    """
    Where the memory of processes has a limit, nothing is kept that would count.
    """
    queue = ProcessQueue(1, maxMemory=1 << 30)
    child = await queue.call(calls.pid)
    shared = sharedMemory(os.getpid()), sharedMemory(child)
    (back,), _ = await queue.call(echo, bytes(4 * MB))
    assert len(back) == 4 * MB
    assert await queue.call(calls.pid) == child
    assert (sharedMemory(os.getpid()), sharedMemory(child)) == shared
    await queue.shutdown()


@ensureDeferred
async def test_arraysAreEqual() -> None:
    """
    Arrays come back as they were sent, and can be written to.
    """
    queue = ProcessQueue(1)
    value = numpy.arange(3 * MB)
    (back,), _ = await queue.call(echo, value)
    assert (back == value).all()
    back[5] = 7
    await queue.shutdown()


@ensureDeferred
async def test_killedInTheMiddleOfATransfer() -> None:
    """
    A child that is killed as it is sent much, or sends it, costs only the call that
    it had begun; no memory is left of it.
    """
    used = Used()
    queue, gate = ProcessQueue(1), Gate()
    value = numpy.ones(4 * MB)
    for times in range(1, 4):
        child = await queue.call(calls.pid)
        held = queue.call(waitAt, gate.token)
        sent = [queue.call(numpy.sum, value) for _ in range(3)]
        await gate.arrivals(times)
        os.kill(child, signal.SIGKILL)
        with pytest.raises(WorkerLost):
            await held
        assert await gatherResults(sent) == [4.0 * MB] * 3
    await gate.close()
    for _ in range(3):
        child = await queue.call(calls.pid)
        got = queue.call(calls.killedAsItSends, 64 * MB)
        with pytest.raises(WorkerLost, match="SIGKILL"):
            await got
    await queue.shutdown()
    assert used.more() == {}
