"""
A queue, and hosts that do not keep to the protocol: they answer what was not asked, twice,
never, or with what must not be read.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import async_yield_fixture, ensureDeferred

from asynqueue import TaskQueue, TaskTimedOut, WireWorker, WorkerLost
from asynqueue.errors import IdentityRefused, MaybeEncodingError, RemoteError, VersionRefused
from tests.doubles import Heard
from tests.integration.process_checks import until
from tests.integration.wire_faults import KEY, Hosts, hosts
from tests.integration.wire_raw import (
    BEGUN,
    CALL,
    CANCEL,
    CANCELLED,
    CAPACITY,
    END,
    GIVEN_BACK,
    ITEM_FAILED,
    ITEMS,
    ITERATOR,
    RAISED,
    RETURNED,
    RawListener,
    RawPeer,
    frame,
    frames,
    packed,
)

__all__ = ["hosts"]

ABOUT = {"slots": 100, "trust": "universe", "series": [], "names": []}

# CBOR of a list of nothing, and of the number 7.
NOTHING, SEVEN = b"\x80", b"\x07"


class Canary:
    """
    Makes a directory when it is unpickled.
    """

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (self.path,)


class Rogue:
    """
    A host that is not honest, and a queue that trusts it.

    @ivar peer: the newest connection, when it has come.
    """

    def __init__(self, made: Hosts, codec: str) -> None:
        self._listener = RawListener(f"unix:{made.path('rogue')}", keyed=True, codec=codec)
        self._worker = WireWorker(None, self._listener.description, key=KEY, codec=codec)
        self.queue = TaskQueue()
        self.peer: RawPeer

    async def begin(self) -> Rogue:
        """
        Listen, and be hired.
        """
        await self._listener.listen()
        self.queue.attachWorker(self._worker)
        return await self.again()

    async def again(self) -> Rogue:
        """
        Wait for another connection.
        """
        self.peer = await (await self._listener.next()).open(KEY, ABOUT)
        return self

    async def asked(self) -> int:
        """
        The number of a call that the queue has made.
        """
        messages = frames((await self.peer.next(b"Batch"))[b"frames"])
        kind, number, _ = messages[0]
        assert (kind, len(messages)) == (CALL, 1)
        return number

    async def end(self) -> None:
        """
        Leave nothing behind.
        """
        ending = self.queue.shutdown()
        await self._listener.close()
        await ending


@async_yield_fixture
async def rogue(hosts: Hosts) -> Any:
    """
    A host that speaks CBOR.
    """
    made = await Rogue(hosts, "cbor").begin()
    yield made
    await made.end()


@async_yield_fixture
async def pickler(hosts: Hosts) -> Any:
    """
    A host that speaks pickle.
    """
    made = await Rogue(hosts, "pickle").begin()
    yield made
    await made.end()


@ensureDeferred
async def test_handwritten(rogue: Rogue) -> None:
    """
    Whoever does what the protocol says is as good a host as any.
    """
    heard = Heard(rogue.queue.call("method", 1, two=2))
    [(kind, number, body)] = await rogue.peer.messages()
    assert (kind, body) == (CALL, b"\0\x06\0method\x82\x81\x01\xa1\x63two\x02")
    rogue.peer.send(frame(RETURNED, number, SEVEN))
    assert await heard.d is None
    assert heard.result == 7


# Pickles in CBOR mode


@pytest.mark.parametrize("kind", [RETURNED, RAISED, ITEMS, ITEM_FAILED])
@ensureDeferred
async def test_nothingIsUnpickledInCBOR(kind: int, rogue: Rogue, tmp_path: Path) -> None:
    """
    A host that answers with a pickle where CBOR was agreed on has nothing executed: the call
    fails.
    """
    canary = tmp_path / "canary"
    heard = Heard(rogue.queue.call("method"))
    number = await rogue.asked()
    opening = [frame(ITERATOR, number, b"it")] if kind in (ITEMS, ITEM_FAILED) else []
    rogue.peer.send(*opening, frame(kind, number, pickle.dumps([Canary(str(canary))])))
    await until(lambda: heard.results)
    assert not canary.exists()
    if kind == RETURNED:
        assert isinstance(heard.error, MaybeEncodingError)


@ensureDeferred
async def test_exceptionsAreNotImported(rogue: Rogue) -> None:
    """
    In CBOR an exception that a host names is not looked for, and none is made of a name
    that is no exception.
    """
    for name in ("os.system", "builtins.exit", "subprocess.Popen", "SystemExit.__class__"):
        heard = Heard(rogue.queue.call("method"))
        said = _cbor([name, ["true"], "text", "trace", []])
        rogue.peer.send(frame(RAISED, await rogue.asked(), said))
        await until(lambda heard=heard: heard.results)
        assert isinstance(heard.error, RemoteError | WorkerLost)
        if rogue.peer.lost.called:
            await rogue.again()


def _cbor(value: Any) -> bytes:
    """
    A list of strings and lists in CBOR, by hand.
    """
    if isinstance(value, str):
        return bytes([0x78, len(value)]) + value.encode()
    return bytes([0x80 + len(value)]) + b"".join(map(_cbor, value))


# Answers that nobody asked for


BAD_ANSWERS: dict[str, Callable[[int], bytes]] = {
    "to no call": lambda n: frame(RETURNED, n + 1, SEVEN),
    "an exception to no call": lambda n: frame(RAISED, n + 1, SEVEN),
    "the beginning of no call": lambda n: frame(BEGUN, n + 1),
    "no call given back": lambda n: frame(GIVEN_BACK, n + 1),
    "no call cancelled": lambda n: frame(CANCELLED, n + 1),
    "an iterator of no call": lambda n: frame(ITERATOR, n + 1, b"it"),
    "items of no iterator": lambda n: frame(ITEMS, n, NOTHING),
    "an end of no iterator": lambda n: frame(END, n),
    "twice": lambda n: frame(RETURNED, n, SEVEN) * 2,
    "returned and raised": lambda n: frame(RETURNED, n, SEVEN) + frame(RAISED, n, SEVEN),
    "returned and given back": lambda n: frame(RETURNED, n, SEVEN) + frame(GIVEN_BACK, n),
    "two iterators": lambda n: frame(ITERATOR, n, b"it") * 2,
    "an iterator and a value": lambda n: frame(ITERATOR, n, b"it") + frame(RETURNED, n, SEVEN),
    "more items than were asked for": lambda n: (
        frame(ITERATOR, n, b"it") + frame(ITEMS, n, b"\x84" + SEVEN * 4)
    ),
    "items that are no list": lambda n: frame(ITERATOR, n, b"it") + frame(ITEMS, n, SEVEN),
    "two ends": lambda n: frame(ITERATOR, n, b"it") + frame(END, n) * 2,
    "an exception that is none": lambda n: frame(RAISED, n, SEVEN),
    "a call": lambda n: frame(CALL, n, b"\0\x01\0a"),
    "an unknown kind": lambda n: frame(99, n),
}


@pytest.mark.parametrize("answer", BAD_ANSWERS.values(), ids=BAD_ANSWERS)
@ensureDeferred
async def test_badAnswer(answer: Callable[[int], bytes], rogue: Rogue) -> None:
    """
    A host that says what has no sense is told so and let go. What it had fails once, with
    its name, unless it was answered before; and another connection is used as before.
    """
    heard = [Heard(rogue.queue.call("method")), Heard(rogue.queue.call("method"))]
    calls = []
    while len(calls) < 2:
        calls += [number for kind, number, _ in await rogue.peer.messages() if kind == CALL]
    rogue.peer.send(answer(calls[-1]))
    assert (await rogue.peer.refusal()).startswith("broken: ")
    await until(lambda: all(each.results for each in heard))
    assert isinstance(heard[0].error, WorkerLost)
    assert "rogue" in str(heard[0].error)
    assert len(heard[1].results) == 1
    await rogue.again()
    again = Heard(rogue.queue.call("method"))
    rogue.peer.send(frame(RETURNED, await rogue.asked(), SEVEN))
    await until(lambda: again.results)
    assert again.result == 7


BAD_BOXES = {
    "garbage": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "half a message": packed("Batch", frames=frame(CAPACITY, 1, b"", 100)),
    "an answer": b"\0\x07_answer\0\x011\0\x00",
    "an error": packed("Batch", _error=b"1", _error_code=b"UNKNOWN"),
    "an echo of no beat": packed("Echo", number=10**6),
    "a chunk of a later stream": packed("Chunk", stream=3, data=b"abc"),
    "a large message": packed("Chunk", stream=1, data=frame(RETURNED, 1, b"", 1 << 60)),
}


@pytest.mark.parametrize("said", BAD_BOXES.values(), ids=BAD_BOXES)
@ensureDeferred
async def test_badBox(said: bytes, rogue: Rogue) -> None:
    """
    A host that sends no boxes, or boxes out of order, is told so and let go.
    """
    heard = Heard(rogue.queue.call("method"))
    await rogue.asked()
    rogue.peer.transport.write(said)
    assert (await rogue.peer.refusal()).startswith("broken: ")
    await until(lambda: heard.results)
    assert isinstance(heard.error, WorkerLost)


@pytest.mark.bulk
@pytest.mark.parametrize("slots", [0, 1, 2**63, 2**64 - 1])
@ensureDeferred
async def test_absurdCapacity(slots: int, rogue: Rogue) -> None:
    """
    However much a host says that it can take, it gets no more than is allowed; and if it
    says that it can take nothing, tasks wait until it can.
    """
    rogue.peer.send(frame(CAPACITY, slots))
    beat = packed("Beat", number=5)
    rogue.peer.transport.write(beat)
    await rogue.peer.next(b"Echo")
    heard = [Heard(rogue.queue.call("method")) for _ in range(6000)]
    await until(lambda: True)
    rogue.peer.transport.write(beat)
    got = []
    while (box := await rogue.peer.next())[b"_command"] != b"Echo":
        # On a slow machine calls may be wanted back meanwhile.
        got += [each for each in frames(box[b"frames"]) if each[0] == CALL]
    assert len(got) <= min(slots, 5000)
    rogue.queue.cancelAll(running=True)
    await until(lambda: all(each.results for each in heard) or rogue.peer.lost.called)


@ensureDeferred
async def test_neverAnswered(rogue: Rogue) -> None:
    """
    A host that begins and never answers is left to the timeout of the task, and what it
    says later is nothing new.
    """
    heard = Heard(rogue.queue.call("method", timeout=0.05))
    number = await rogue.asked()
    rogue.peer.send(frame(BEGUN, number))
    assert await rogue.peer.messages() == [(CANCEL, number, b"")]
    await until(lambda: heard.results)
    assert isinstance(heard.error, TaskTimedOut)
    rogue.peer.send(frame(RETURNED, number, SEVEN))
    again = Heard(rogue.queue.call("method"))
    rogue.peer.send(frame(RETURNED, await rogue.asked(), SEVEN))
    await until(lambda: again.results)
    assert again.result == 7
    assert len(heard.results) == 1


# Openings


@pytest.mark.parametrize(
    "about",
    [
        "[]",
        "7",
        "no JSON",
        "[" * 20_000,
        '{"slots": "many"}',
        '{"slots": -1}',
        '{"series": 7}',
        '{"series": [[]], "trust": [], "names": 7}',
    ],
)
@ensureDeferred
async def test_absurdWelcome(about: str, hosts: Hosts) -> None:
    """
    A host that tells nonsense about itself is let go, or taken for one that tells nothing:
    either way the queue can be shut down.
    """
    listener = await RawListener(f"unix:{hosts.path('odd')}").listen()
    queue = TaskQueue(WireWorker(None, listener.description), timeout=0.1)
    heard = Heard(queue.call("method"))
    peer = await listener.next()
    peer.greet()
    await peer.next(b"Greet")
    peer.say("Welcome", window=1 << 18, largest=1 << 20, about=about)
    await peer.next()
    await queue.shutdown()
    assert len(heard.results) == 1
    await listener.close()


@pytest.mark.parametrize(
    ("greeting", "error"),
    [
        ({"keyed": False}, IdentityRefused),
        ({"versions": [2, 3]}, VersionRefused),
        ({"codec": "cbor"}, VersionRefused),
        ({"role": "queue"}, VersionRefused),
    ],
)
@ensureDeferred
async def test_greetingThatDoesNotFit(
    greeting: dict[str, Any], error: type[Exception], hosts: Hosts
) -> None:
    """
    With a host that does not fit, the task fails with the reason, and it is not dialed again.
    """
    listener = RawListener(f"unix:{hosts.path('odd')}", **{"keyed": True, **greeting})
    await listener.listen()
    queue = TaskQueue(WireWorker(None, listener.description, key=KEY))
    heard = Heard(queue.call("method"))
    peer = await listener.next()
    peer.greet()
    await peer.refusal()
    await queue.shutdown()
    assert len(heard.results) == 1
    await listener.close()


@ensureDeferred
async def test_hostWithAnotherKey(hosts: Hosts) -> None:
    """
    A host with another key gets nothing to do, and the worker says why.
    """
    listener = await RawListener(f"unix:{hosts.path('odd')}", keyed=True).listen()
    worker = WireWorker(None, listener.description, key=KEY)
    heard = Heard(worker.whenConnected())
    peer = await listener.next()
    peer.greet()
    await peer.next(b"Greet")
    await peer.next(b"Prove")
    peer.say("Prove", proof=bytes(32))
    assert (await peer.refusal()).startswith("identity: ")
    await until(lambda: heard.results)
    assert isinstance(heard.error, IdentityRefused)
    await listener.close()


@ensureDeferred
async def test_mirror(hosts: Hosts) -> None:
    """
    Who only says what the worker itself has said has proved nothing.
    """
    listener = await RawListener(f"unix:{hosts.path('odd')}", keyed=True).listen()
    worker = WireWorker(None, listener.description, key=KEY)
    heard = Heard(worker.whenConnected())
    peer = await listener.next()
    peer.greet()
    await peer.next(b"Greet")
    proof = (await peer.next(b"Prove"))[b"proof"]
    peer.say("Prove", proof=proof)
    assert (await peer.refusal()).startswith("identity: ")
    await until(lambda: heard.results)
    assert isinstance(heard.error, IdentityRefused)
    await listener.close()
