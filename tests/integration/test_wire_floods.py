"""
A host, and those who prove themselves and then want too much of it, or take nothing.
"""

from __future__ import annotations

from typing import Any

import pytest
from pytest_twisted import async_yield_fixture, ensureDeferred

from asynqueue import TaskQueue, WireWorker
from tests.integration.process_checks import residentBytes
from tests.integration.wire_faults import KEY, Faults, Hosts, hosts
from tests.integration.wire_raw import (
    CALL,
    CANCEL,
    CLOSE,
    CREDIT,
    FORGET,
    ITERATOR,
    RECALL,
    RETURNED,
    RawPeer,
    call,
    dial,
    frame,
    packed,
)

__all__ = ["hosts"]

# So much more memory may a host have during an attack.
SLACK = 100 << 20

# So many bytes of messages fit into a box.
ROOM = 0xFFFF

HOLD = call("hold")
SQUARE = call("square")
MOST = 1 << 20


class Attacked:
    """
    A host, and a queue that is served by it all the time.
    """

    def __init__(self, made: Hosts) -> None:
        self._host = made.start(keyFile=made.key())
        self._queue = TaskQueue(WireWorker(Faults(), self._host.description, key=KEY))
        self._before = 0

    async def begin(self) -> None:
        """
        Know how much memory it has.
        """
        await self._queue.call("square", 0)
        self._before = residentBytes(self._host.pid)

    async def dial(self, **greeting: Any) -> RawPeer:
        """
        Somebody proves itself.
        """
        return await (await dial(self._host.description, keyed=True, **greeting)).open(KEY)

    async def check(self) -> None:
        """
        It still serves, and has no more memory.
        """
        for number in range(20):
            assert await self._queue.call("square", number) == number * number
        assert residentBytes(self._host.pid) - self._before < SLACK

    async def end(self) -> None:
        """
        All is as it was.
        """
        try:
            await self.check()
            assert await self._queue.call("held") == 0
        finally:
            await self._queue.shutdown()


@async_yield_fixture
async def attacked(hosts: Hosts) -> Any:
    """
    A host that is to be attacked.
    """
    made = Attacked(hosts)
    await made.begin()
    yield made
    await made.end()


def batches(messages: list[bytes]) -> bytes:
    """
    Boxes with these messages.
    """
    each = ROOM // len(messages[0])
    return b"".join(
        packed("Batch", frames=b"".join(messages[at : at + each]))
        for at in range(0, len(messages), each)
    )


@ensureDeferred
async def test_tooManyCalls(attacked: Attacked) -> None:
    """
    Who has more calls under way than is allowed is told so, and they are all cancelled.
    """
    peer = await attacked.dial()
    peer.transport.write(batches([frame(CALL, n, HOLD) for n in range(1, 10_002)]))
    assert "more than 10,000 calls" in await peer.refusal()
    await attacked.check()


@ensureDeferred
async def test_largeStreamsThatNeverCome(attacked: Attacked) -> None:
    """
    Large messages that are announced take no memory before they come, and there may be no
    more than some of them.
    """
    peer = await attacked.dial()
    for stream in range(1, 65):
        peer.say("Chunk", stream=stream, data=frame(CALL, stream, b"x", 1 << 30))
    peer.send(frame(CALL, 1000, call("held")))
    assert (await peer.messages())[0][:2] == (RETURNED, 1000)
    await attacked.check()
    peer.say("Chunk", stream=65, data=frame(CALL, 65, b"x", 1 << 30))
    assert "more than 64 large messages" in await peer.refusal()


@pytest.mark.bulk
@pytest.mark.parametrize("kind", [CANCEL, RECALL, CREDIT, CLOSE, FORGET])
@ensureDeferred
async def test_aboutNothing(kind: int, attacked: Attacked) -> None:
    """
    Half a million messages about calls that there are not are forgotten at once.
    """
    peer = await attacked.dial()
    body = (1).to_bytes(8, "little") if kind == CREDIT else b""
    for begin in range(0, 500_000, 50_000):
        peer.transport.write(batches([frame(kind, begin + n, body) for n in range(50_000)]))
    last = 1 << 40
    peer.send(frame(CALL, last, call("held")))
    assert (await peer.messages())[0][:2] == (RETURNED, last)
    await attacked.check()
    peer.transport.loseConnection()
    await peer.lost


@ensureDeferred
async def test_iteratorThatNobodyTakesFrom(attacked: Attacked) -> None:
    """
    An iterator that has credit for much more than is read gives no more than is read.
    """
    peer = await attacked.dial()
    peer.send(frame(CALL, 1, call("blobs")), frame(CREDIT, 1, (10**6).to_bytes(8, "little")))
    assert (await peer.messages())[0][:2] == (ITERATOR, 1)
    peer.transport.pauseProducing()
    for _ in range(50):
        await attacked.check()
    peer.transport.abortConnection()
    await peer.lost


@ensureDeferred
async def test_resultsThatNobodyReads(attacked: Attacked) -> None:
    """
    Results that are not read take bounded memory, however many there are to be.
    """
    peer = await attacked.dial()
    peer.transport.pauseProducing()
    peer.transport.write(batches([frame(CALL, n, call("megabyte")) for n in range(1, 2000)]))
    for _ in range(50):
        await attacked.check()
    peer.transport.abortConnection()
    await peer.lost


@ensureDeferred
async def test_smallResultsThatNobodyReads(attacked: Attacked) -> None:
    """
    The same, where they are small.
    """
    peer = await attacked.dial()
    peer.transport.pauseProducing()
    for begin in range(1, 3_000_000, 100_000):
        if peer.lost.called:
            break
        some = [frame(CALL, begin + n, call("held")) for n in range(100_000)]
        peer.transport.write(batches(some))
        await attacked.check()
    peer.transport.abortConnection()
    await peer.lost


@ensureDeferred
async def test_beatsThatNobodyReads(attacked: Attacked) -> None:
    """
    Who asks for signs of life without end, and reads none, is let go.
    """
    peer = await attacked.dial()
    peer.transport.pauseProducing()
    some = b"".join(packed("Beat", number=n) for n in range(10_000))
    while not peer.lost.called:
        peer.transport.write(some)
        await attacked.check()
