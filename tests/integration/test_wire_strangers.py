"""
A host, and those who dial it and do not keep to the protocol: before and after they have
proved themselves.
"""

from __future__ import annotations

import os
import pickle
import socket
from collections.abc import Awaitable, Callable
from struct import pack
from typing import Any

import pytest
from pytest_twisted import async_yield_fixture, ensureDeferred

from asynqueue import TaskQueue, WireWorker
from tests.integration.wire_faults import KEY, Faults, Hosts, hosts, moduleHosts
from tests.integration.wire_raw import (
    CALL,
    CREDIT,
    DEFINE,
    RETURNED,
    RawPeer,
    call,
    dial,
    frame,
    packed,
)

__all__ = ["hosts", "moduleHosts"]

# So much more memory may a host have after an attack.
SLACK = 48 << 20


class Canary:
    """
    Makes a file when it is unpickled.
    """

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (self.path,)


class Served:
    """
    A queue that has nothing to do with an attack, and does not notice it.
    """

    def __init__(self, made: Hosts, **options: Any) -> None:
        self.host = made.start(keyFile=made.key(), **options)
        codec = options.get("codec", "pickle")
        self.queue = TaskQueue(
            WireWorker(Faults(), self.host.description, key=KEY, codec=codec, N_concurrent=1)
        )
        self.held: Any = None

    async def begin(self) -> Served:
        """
        Have it call something that does not end yet.
        """
        worker = WireWorker(Faults(), self.host.description, key=KEY, series=["long"])
        self.queue.attachWorker(worker)
        self.held = self.queue.call("hold", series="long")
        while not await self.queue.call("held"):
            pass
        return self

    async def end(self) -> None:
        """
        It was served all the time, over the same connections.
        """
        assert await self.queue.call("square", 12) == 144
        await self.queue.call("letGo")
        assert await self.held == "let go"
        await self.queue.shutdown()


@async_yield_fixture(scope="module")
async def served(moduleHosts: Hosts) -> Any:
    """
    A host whose own queue is served all the time.
    """
    made = await Served(moduleHosts, largest=1 << 20).begin()
    yield made
    await made.end()


# Before proof

BAD_OPENINGS = {
    "no box": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "zeros": bytes(100),
    "an empty box": b"\0\0",
    "a long key": b"\x01\x00" + b"a" * 256,
    "a question": packed("Greet", _ask=b"1", versions=[1]),
    "an answer": b"\0\x07_answer\0\x011\0\0",
    "no command": packed("Launch"),
    "a batch": packed("Batch", frames=frame(CALL, 1, call("hold"))),
    "a chunk": packed("Chunk", stream=1, data=frame(CALL, 1, call("hold"))),
    "a beat": packed("Beat", number=1),
    "a goodbye": packed("Goodbye", reason="well"),
    "a proof": packed("Prove", proof=bytes(32)),
    "a welcome": packed("Welcome", window=1 << 18, largest=1 << 20, about="{}"),
    "a greeting without sense": packed("Greet", versions=b"\0\x03abc"),
    "a long greeting": packed("Greet", versions=[1], software="a" * 4000, python="b" * 4000),
}


@pytest.mark.parametrize("said", BAD_OPENINGS.values(), ids=BAD_OPENINGS)
@ensureDeferred
async def test_badOpening(said: bytes, served: Served) -> None:
    """
    Who begins with anything but a greeting is told so, and let go.
    """
    peer = await dial(served.host.description)
    peer.transport.write(said)
    await peer.next(b"Greet")
    assert (await peer.refusal()).startswith("broken: ")
    assert await served.queue.call("square", 3) == 9


async def greetTwice(peer: RawPeer) -> None:
    """
    A greeting in the place of a proof.
    """
    peer.greet()
    peer.greet()


async def welcomeUnproven(peer: RawPeer) -> None:
    """
    A welcome in the place of a proof.
    """
    peer.greet()
    peer.welcome()


async def callUnproven(peer: RawPeer) -> None:
    """
    A call before any proof.
    """
    peer.greet()
    peer.send(frame(CALL, 1, call("hold")))


async def callUnwelcomed(peer: RawPeer) -> None:
    """
    A call before the welcome of this side.
    """
    peer.greet()
    theirs = await peer.next(b"Greet")
    peer.say("Prove", proof=peer.proof(KEY, theirs))
    peer.send(frame(CALL, 1, call("hold")))


async def manyBoxes(peer: RawPeer) -> None:
    """
    More boxes than are needed.
    """
    peer.transport.write(packed("Echo", number=1) * 10)


@pytest.mark.parametrize(
    "attack", [greetTwice, welcomeUnproven, callUnproven, callUnwelcomed, manyBoxes]
)
@ensureDeferred
async def test_outOfOrder(attack: Callable[[RawPeer], Awaitable[None]], served: Served) -> None:
    """
    Who does not wait for its turn in the opening is told so, and nothing is called.
    """
    peer = await dial(served.host.description, keyed=True)
    await attack(peer)
    assert (await peer.refusal()).startswith("broken: ")
    # It may hear of the end on this side a moment later.
    while await served.queue.call("held") != 1:
        pass


@ensureDeferred
async def test_replayedProof(served: Served) -> None:
    """
    A proof that was heard on another connection proves nothing, nor does the host's own.
    """
    host = served.host
    nonce = bytes(range(32))
    honest = await dial(host.description, keyed=True, nonce=nonce)
    honest.greet()
    proof = honest.proof(KEY, await honest.next(b"Greet"))
    honest.say("Prove", proof=proof)
    its = (await honest.next(b"Prove"))[b"proof"]
    for heard in (proof, its):
        thief = await dial(host.description, keyed=True, nonce=nonce)
        thief.greet()
        await thief.next(b"Greet")
        thief.say("Prove", proof=heard)
        assert (await thief.refusal()).startswith("identity: both sides have different keys")
    honest.welcome()
    await honest.next(b"Welcome")
    honest.send(frame(CALL, 1, call("held")))
    assert (await honest.messages())[0][:2] == (RETURNED, 1)
    honest.transport.loseConnection()
    await honest.lost


@pytest.mark.parametrize(
    ("mine", "keyed"), [(b"not the key of the host at all", True), (None, False)]
)
@ensureDeferred
async def test_wrongKey(mine: bytes | None, keyed: bool, served: Served) -> None:
    """
    Who has another key, or none, is told so, and hears no proof of the host's.
    """
    peer = await dial(served.host.description, keyed=keyed)
    peer.greet()
    theirs = await peer.next(b"Greet")
    if mine is not None:
        peer.say("Prove", proof=peer.proof(mine, theirs))
    assert (await peer.refusal()).startswith("identity: ")
    assert peer.proofs == []


@ensureDeferred
async def test_cutShort(served: Served) -> None:
    """
    Those who leave, or are reset, in the middle of anything cost the host nothing.
    """
    whole = packed("Greet", versions=[1], software="a", python="3", role="queue", keyed=True)
    for cut in range(0, len(whole), 3):
        peer = await dial(served.host.description)
        peer.transport.write(whole[:cut])
        if cut % 2:
            reset(peer)
        else:
            peer.transport.loseConnection()
        await peer.lost
    # It may hear of the end on this side a moment later.
    while await served.queue.call("held") != 1:
        pass


def reset(peer: RawPeer) -> None:
    """
    End a connection at once, with what is lined up thrown away on both sides.
    """
    handle = peer.transport.getHandle()
    handle.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, pack("ii", 1, 0))
    peer.transport.abortConnection()


# After proof


def unpickling(path: str) -> bytes:
    """
    Arguments that make a directory as they are read.
    """
    return pickle.dumps(((Canary(path),), {}))


BAD_TALK = {
    "garbage": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "an empty box": b"\0\0",
    "a question": packed("Batch", _ask=b"1", frames=frame(CALL, 1, call("hold"))),
    "a second greeting": packed("Greet", versions=[1]),
    "a second proof": packed("Prove", proof=bytes(32)),
    "a second welcome": packed("Welcome", window=1 << 18, largest=1 << 20, about="{}"),
    "no command": packed("Launch"),
    "an empty batch": packed("Batch", frames=b""),
    "half a message": packed("Batch", frames=frame(CALL, 1, call("hold"), 1000)),
    "a message that is too large": packed("Batch", frames=frame(CALL, 1, b"", 1 << 60)),
    "a large stream that is too large": packed(
        "Chunk", stream=1, data=frame(CALL, 1, b"", 1 << 60)
    ),
    "an unknown kind": packed("Batch", frames=frame(200, 1)),
    "a kind of hosts": packed("Batch", frames=frame(RETURNED, 1)),
    "a call without a name": packed("Batch", frames=frame(CALL, 1)),
    "a call of unknown flags": packed("Batch", frames=frame(CALL, 1, call("hold", flags=128))),
    "the same number twice": packed(
        "Batch", frames=frame(CALL, 1, call("hold")) + frame(CALL, 1, call("hold"))
    ),
    "a credit that is none": packed("Batch", frames=frame(CREDIT, 1, b"12")),
    "a credit without end": packed(
        "Batch", frames=frame(CALL, 1, call("hold")) + frame(CREDIT, 1, b"\xff" * 8)
    ),
    "a definition": packed("Batch", frames=frame(DEFINE, 1, pickle.dumps(print))),
    "a stream of no number": packed("Chunk", stream=b"x", data=b"abc"),
    "a later stream": packed("Chunk", stream=7, data=b"abc"),
    "a chunk without data": packed("Chunk", stream=1, data=b""),
    "a grant without sense": packed("Grant", bytes=-5),
    "an echo of no beat": packed("Echo", number=10**6),
    "two goodbyes": packed("Goodbye", reason="one") * 2,
}


@pytest.mark.parametrize("said", BAD_TALK.values(), ids=BAD_TALK)
@ensureDeferred
async def test_badTalk(said: bytes, served: Served) -> None:
    """
    Who has proved itself and then breaks the protocol is told so and let go; what it has
    called is ended, and others are served as before.
    """
    peer = await dial(served.host.description, keyed=True)
    await peer.open(KEY)
    peer.transport.write(said)
    assert (await peer.refusal()).startswith("broken: ")
    # It may hear of the end on this side a moment later.
    while await served.queue.call("held") != 1:
        pass
