"""
Hosts that are told to end in every state, connections that are cut or made twice, and sides
that do not read.
"""

from __future__ import annotations

import os
import signal
import socket
from struct import pack
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred, gatherResults

from asynqueue import TaskQueue, WireWorker, WorkerLost
from asynqueue.wire.client.hub import WireHub
from tests.doubles import Heard
from tests.integration.process_checks import residentBytes, until
from tests.integration.wire_faults import KEY, Faults, Hosts, hosts
from tests.integration.wire_raw import CALL, RETURNED, RawListener, RawPeer, call, dial, frame

__all__ = ["hosts"]

LOOPBACK = "tcp:0:interface=127.0.0.1"

# So many seconds have calls to end when a host is told to end.
GRACE = 0.3


def cut(peer: RawPeer) -> None:
    """
    Reset a connection: all that is under way is thrown away.
    """
    handle = peer.transport.getHandle()
    handle.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, pack("ii", 1, 0))
    peer.transport.abortConnection()


# Hosts that are told to end


class Ending:
    """
    What a host is about as it is told to end.

    @ivar heard: what its queue waits for.
    """

    def __init__(self, made: Hosts) -> None:
        self.heard: list[Heard] = []
        self.host = made.start(LOOPBACK, keyFile=made.key(), grace=GRACE)
        worker = WireWorker(Faults(), self.host.description, key=KEY)
        self.queue = TaskQueue(worker, timeout=5.0)
        self._peers: list[RawPeer] = []

    async def idle(self) -> None:
        """
        Nothing.
        """

    async def stranger(self) -> None:
        """
        Those who have not proved themselves: one who says nothing, one in the middle.
        """
        self._peers += [await dial(self.host.description) for _ in range(2)]
        self._peers[-1].transport.write(b"\0\x08_comm")

    async def silent(self) -> None:
        """
        One who has proved itself, has called something, and says nothing more.
        """
        peer = await (await dial(self.host.description, keyed=True)).open(KEY)
        peer.answersBeats = False
        peer.send(frame(CALL, 1, call("hold")))
        self._peers.append(peer)
        while not await self.queue.call("held"):
            pass

    async def running(self) -> None:
        """
        Calls that do not end by themselves.
        """
        self.heard += [Heard(self.queue.call("hold")) for _ in range(10)]
        await until(lambda: self.queue.statistics().running == 10)

    async def loaded(self) -> None:
        """
        Many calls.
        """
        self.heard += [Heard(self.queue.call("square", number)) for number in range(5000)]
        await until(lambda: self.heard[100].results)

    async def iterating(self) -> None:
        """
        An iterator that is taken from without an end.
        """
        deferator = await self.queue.call("endless")
        await next(deferator)
        taking = Deferred.fromCoroutine(_take(deferator))
        self.heard.append(Heard(taking))

    async def large(self) -> None:
        """
        Large messages both ways.
        """
        size = 48 << 20
        self.heard += [Heard(self.queue.call("blob", size)) for _ in range(2)]
        self.heard += [Heard(self.queue.call("size", bytes(size))) for _ in range(2)]
        await until(lambda: self.queue.statistics().running)

    async def unread(self) -> None:
        """
        Results that somebody does not read.
        """
        peer = await (await dial(self.host.description, keyed=True)).open(KEY)
        peer.transport.pauseProducing()
        for number in range(1, 50):
            peer.send(frame(CALL, number, call("megabyte")))
        self._peers.append(peer)
        for _ in range(50):
            await self.queue.call("square", 1)

    async def end(self) -> None:
        """
        All is over.
        """
        await until(lambda: all(each.results for each in self.heard))
        for each in self.heard:
            assert len(each.results) == 1
        await self.queue.shutdown()
        for peer in self._peers:
            peer.transport.abortConnection()
            await peer.lost


async def _take(deferator: Any) -> None:
    async for _ in deferator:
        pass


STATES = [
    Ending.idle,
    Ending.stranger,
    Ending.silent,
    Ending.running,
    Ending.loaded,
    Ending.iterating,
    Ending.large,
    Ending.unread,
]


@pytest.mark.parametrize("state", STATES)
@ensureDeferred
async def test_hostEnds(state: Any, hosts: Hosts) -> None:
    """
    In every state a host that is told to end has ended soon after its grace, and the queue
    that called it has lost or got everything, once.
    """
    ending = Ending(hosts)
    await ending.queue.call("square", 1)
    await state(ending)
    assert await ending.host.end() == 0
    # Whatever has not begun would wait for another host.
    ending.queue.cancelAll()
    await ending.end()


# Connections that are cut


@ensureDeferred
async def test_resetByTheQueue(hosts: Hosts) -> None:
    """
    When a connection is reset in the middle of calls and transfers the host ends what
    nobody will hear of, and serves others.
    """
    host = hosts.start(LOOPBACK, keyFile=hosts.key())
    queue = TaskQueue(WireWorker(Faults(), host.description, key=KEY))
    for _ in range(5):
        peer = await (await dial(host.description, keyed=True)).open(KEY)
        peer.send(frame(CALL, 1, call("hold")), frame(CALL, 2, call("megabyte")))
        peer.say("Chunk", stream=1, data=frame(CALL, 3, b"x" * 1000, 1 << 20))
        while not await queue.call("held"):
            pass
        cut(peer)
        await peer.lost
        while await queue.call("held"):
            pass
    assert await queue.call("cancelled") == 5
    await queue.shutdown()


@ensureDeferred
async def test_resetByTheHost(hosts: Hosts) -> None:
    """
    When a host resets its connections again and again, what was with it fails, and each
    connection after that is a new one.
    """
    listener = await RawListener(LOOPBACK).listen()
    queue = TaskQueue(WireWorker(None, listener.description, N_concurrent=3))
    heard = [Heard(queue.call("method", number)) for number in range(9)]
    for turn in range(3):
        peer = await (await listener.next()).open(about={"slots": 3})
        got = []
        while len(got) < 3:
            got += await peer.messages()
        cut(peer)
        await until(lambda turn=turn: len(_failed(heard)) == 3 * turn + 3)
    assert all(isinstance(each.error, WorkerLost) for each in heard)
    ending = queue.shutdown()
    await listener.close()
    await ending


def _failed(heard: list[Heard]) -> list[Heard]:
    return [each for each in heard if each.results]


# Connections that are made twice


@ensureDeferred
async def test_twoWorkersOfOneHost(hosts: Hosts) -> None:
    """
    A host may be dialed twice by one queue: each connection has calls of its own, and the
    end of one does not harm the other.
    """
    host = hosts.start()
    workers = [WireWorker(Faults(), host.description, series=[n]) for n in range(2)]
    queue = TaskQueue(*workers)
    held = [Heard(queue.call("hold", series=n)) for n in range(2)]
    while await queue.call("held") != 2:
        pass
    await queue.detachWorker(workers[0], crash=True)
    while await queue.call("held") != 1:
        pass
    assert not held[1].results
    await queue.call("letGo")
    await until(lambda: held[1].results)
    assert held[1].result == "let go"
    await queue.shutdown()


@ensureDeferred
async def test_hostThatDialsTwice(hosts: Hosts) -> None:
    """
    A host that dials in twice is two workers, and the death of one is not that of the other.
    """
    queue = TaskQueue()
    hub = WireHub(queue, f"unix:{hosts.path('hub')}")
    await hub.start()
    twins = [hosts.start(f"unix:{hosts.path('hub')}", dial=True) for _ in range(2)]
    await until(lambda: len(hub.workers) == 2)
    heard = [Heard(queue.call("square", number)) for number in range(2000)]
    await until(lambda: all(each.results for each in heard))
    twins[0].kill()
    await until(lambda: len(hub.workers) == 1)
    assert await queue.call("pid") == twins[1].pid
    await gatherResults([hub.stop(), queue.shutdown()])


# Hosts that do not read


@ensureDeferred
async def test_hostThatDoesNotRead(hosts: Hosts) -> None:
    """
    A host that stops reading gets no more than a bounded part of many large arguments;
    another host makes the small calls meanwhile.
    """
    listener = await RawListener(f"unix:{hosts.path('slow')}").listen()
    slow = WireWorker(None, listener.description, series=["slow"])
    queue = TaskQueue(slow)
    data = bytes(1 << 20)
    heard = [Heard(queue.call("size", data, series="slow")) for _ in range(500)]
    peer = await (await listener.next()).open(about={"slots": 1000})
    peer.transport.pauseProducing()
    before = residentBytes(os.getpid())
    queue.attachWorker(WireWorker(Faults(), hosts.start().description, series=["quick"]))
    for number in range(500):
        assert await queue.call("square", number, series="quick") == number * number
    assert 0 < slow.statistics().held < 400
    assert residentBytes(os.getpid()) - before < 400 << 20
    peer.transport.abortConnection()
    await peer.lost
    queue.cancelAll(running=True)
    ending = queue.shutdown()
    await listener.close()
    await until(lambda: all(each.results for each in heard))
    await ending


@ensureDeferred
async def test_frozenInATransfer(hosts: Hosts) -> None:
    """
    A host that freezes in the middle of a large argument is found by its heartbeat, and
    the argument is sent again when it moves.
    """
    host = hosts.start(heartbeat=0.2)
    worker = WireWorker(Faults(), host.description, heartbeat=0.2)
    queue = TaskQueue(worker)
    await queue.call("square", 1)
    host.signal(signal.SIGSTOP)
    size = 32 << 20
    heard = Heard(queue.call("size", bytes(size), retries=10))
    await until(lambda: not worker.statistics().connected)
    host.signal(signal.SIGCONT)
    await until(lambda: heard.results)
    assert heard.result == size
    await queue.shutdown()


@ensureDeferred
async def test_nobodyWhoDialsHoldsOthersUp(hosts: Hosts) -> None:
    """
    Hundreds of connections that say nothing keep nobody out.
    """
    host = hosts.start(keyFile=hosts.key())
    strangers = []
    for _ in range(300):
        strangers.append(await dial(host.description))
        # The kernel holds few who were not accepted.
        await strangers[-1].next(b"Greet")
    queue = TaskQueue(WireWorker(Faults(), host.description, key=KEY))
    assert await queue.call("square", 11) == 121
    peer = await (await dial(host.description, keyed=True)).open(KEY)
    peer.send(frame(CALL, 1, call("held")))
    assert (await peer.messages())[0][:2] == (RETURNED, 1)
    await queue.shutdown()
    for each in [*strangers, peer]:
        each.transport.abortConnection()
        await each.lost
