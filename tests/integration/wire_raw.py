"""
A side of a connection that is written by hand, from what the protocol says, and that can
say what no honest side would say. It uses nothing of L{asynqueue.wire}.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from struct import Struct
from typing import Any

from twisted.internet.defer import Deferred, DeferredQueue
from twisted.internet.endpoints import clientFromString, serverFromString
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, Protocol

from asynqueue.reactors import theReactor
from tests.integration.process_checks import PATIENCE

CALL, DEFINE, FORGET, CANCEL, RECALL, CREDIT, CLOSE = range(1, 8)
RETURNED, RAISED, BEGUN, GIVEN_BACK, CANCELLED, ITERATOR, ITEMS = range(16, 23)
ITEM_FAILED, END, CAPACITY = range(23, 26)

Box = dict[bytes, bytes]

_HEADER = Struct("<QQHBB")
_LENGTH = Struct(">H")


def packed(command: str, **values: Any) -> bytes:
    """
    A box: its keys are sorted.
    """
    fields = {b"_command": command.encode()}
    for key, value in values.items():
        fields[key.encode()] = _value(value)
    return b"".join(_field(key) + _field(fields[key]) for key in sorted(fields)) + b"\0\0"


def _value(value: Any) -> bytes:
    if isinstance(value, list):
        return b"".join(_field(_value(item)) for item in value)
    return value if isinstance(value, bytes) else str(value).encode()


def _field(text: bytes) -> bytes:
    return _LENGTH.pack(len(text)) + text


def frame(kind: int, number: int, body: bytes = b"", size: int | None = None) -> bytes:
    """
    A message.

    @param size: how many bytes it announces, if not those that it has.
    """
    return _HEADER.pack(number, len(body) if size is None else size, 0, kind, 0) + body


def frames(batch: bytes) -> list[tuple[int, int, bytes]]:
    """
    The messages of a batch: kind, number and body of each.
    """
    found = []
    while batch:
        number, size, count, kind, flags = _HEADER.unpack_from(batch)
        assert (count, flags) == (0, 0)
        found.append((kind, number, batch[_HEADER.size : _HEADER.size + size]))
        batch = batch[_HEADER.size + size :]
    return found


def call(name: str, arguments: bytes = b"", flags: int = 0) -> bytes:
    """
    The body of a CALL.
    """
    return bytes([flags]) + len(name).to_bytes(2, "little") + name.encode() + arguments


class RawPeer(Protocol):
    """
    One connection.

    @ivar boxes: those that have come, but beats and grants, unless they are wanted.
    @ivar lost: fires when the connection is over.
    @ivar greeting: what this side has said at first; and what the other has.
    """

    transport: Any

    def __init__(self, role: str, dialed: bool, **greeting: Any) -> None:
        """
        @param greeting: what is to be said otherwise than usual.
        """
        self.boxes: DeferredQueue[Box | None] = DeferredQueue()
        self.lost: Deferred[None] = Deferred()
        self.made: Deferred[RawPeer] = Deferred()
        self.proofs: list[bytes] = []
        self.answersBeats = True
        self._dialed = dialed
        self._data = b""
        self._greeting = packed(
            "Greet",
            **{
                "versions": [1],
                "software": "somebody",
                "python": "3.11",
                "role": role,
                "nonce": os.urandom(32),
                "codec": "pickle",
                "keyed": False,
                **greeting,
            },
        )

    # What this side says

    def say(self, command: str, **values: Any) -> None:
        """
        Say something.
        """
        self.transport.write(packed(command, **values))

    def send(self, *some: bytes) -> None:
        """
        Send messages, each as L{frame} makes it.
        """
        self.say("Batch", frames=b"".join(some))

    def greet(self) -> None:
        """
        Say who this is.
        """
        self.transport.write(self._greeting)

    async def open(self, key: bytes | None = None, about: Any = None) -> RawPeer:
        """
        Do all that is right, until the connection is open.
        """
        self.greet()
        theirs = await self.next(b"Greet")
        if key is not None:
            if self._dialed:
                self.say("Prove", proof=self.proof(key, theirs))
            self.proofs.append((await self.next(b"Prove"))[b"proof"])
            if not self._dialed:
                self.say("Prove", proof=self.proof(key, theirs))
        self.welcome(about)
        await self.next(b"Welcome")
        return self

    def welcome(self, about: Any = None, window: int = 1 << 18, largest: int = 1 << 30) -> None:
        """
        Say what this side is ready for.
        """
        self.say("Welcome", window=window, largest=largest, about=json.dumps(about or {}))

    def proof(self, key: bytes, theirs: Box) -> bytes:
        """
        The proof that this side has the key. There is no TLS.
        """
        fields = b"".join(_field(name) + _field(theirs[name]) for name in sorted(theirs))
        greetings = [self._greeting, fields + b"\0\0"]
        if not self._dialed:
            greetings.reverse()
        who = b"dialer" if self._dialed else b"listener"
        digests = b"".join(hashlib.sha256(greeting).digest() for greeting in greetings)
        return hmac.digest(key, b"asynqueue-wire-1" + who + digests, "sha256")

    # What the other side says

    async def next(self, command: bytes | None = None) -> Box:
        """
        The next box.

        @param command: what it has to say.
        """
        box = await self.boxes.get().addTimeout(PATIENCE, theReactor())
        assert box is not None, "the connection is over"
        assert command in (None, box[b"_command"]), box
        return box

    async def messages(self) -> list[tuple[int, int, bytes]]:
        """
        The messages of the next batch.
        """
        return frames((await self.next(b"Batch"))[b"frames"])

    async def refusal(self) -> str:
        """
        What the other side says as it refuses to go on; then the connection is over.
        """
        while True:
            box = await self.boxes.get().addTimeout(PATIENCE, theReactor())
            assert box is not None, "the connection is over, without a word"
            if box[b"_command"] == b"Refuse":
                await self.lost
                return f"{box[b'code'].decode()}: {box[b'text'].decode()}"

    def connectionMade(self) -> None:
        self.made.callback(self)

    def dataReceived(self, data: bytes) -> None:
        self._data += data
        while (box := self._parsed()) is not None:
            command = box[b"_command"]
            if command == b"Beat" and self.answersBeats:
                self.say("Echo", number=box[b"number"])
            elif command not in (b"Beat", b"Grant"):
                self.boxes.put(box)
            if command == b"Refuse":
                self.transport.loseConnection()

    def connectionLost(self, reason: Any = None) -> None:
        self.boxes.put(None)
        self.lost.callback(None)

    def _parsed(self) -> Box | None:
        """
        The next box, if all of it is there.
        """
        box: Box = {}
        at = 0
        parts = []
        while at + 2 <= len(self._data):
            (length,) = _LENGTH.unpack_from(self._data, at)
            at += 2
            if not length and len(parts) % 2 == 0:
                box = dict(zip(parts[::2], parts[1::2], strict=True))
                self._data = self._data[at:]
                return box
            if at + length > len(self._data):
                break
            parts.append(self._data[at : at + length])
            at += length
        return None


async def dial(description: str, role: str = "queue", **greeting: Any) -> RawPeer:
    """
    A connection with whoever listens there; nothing is said yet.
    """
    peer = RawPeer(role, True, **greeting)
    factory = Factory.forProtocol(lambda: peer)  # type: ignore[arg-type]
    factory.noisy = False
    await clientFromString(theReactor(), description).connect(factory)
    return peer


class RawListener:
    """
    Where others dial.

    @ivar description: how.
    @ivar peers: who has, as a queue of L{RawPeer}s that have said nothing yet.
    """

    def __init__(self, description: str, role: str = "host", **greeting: Any) -> None:
        self.description = description
        self.peers: DeferredQueue[RawPeer] = DeferredQueue()
        self._all: list[RawPeer] = []
        self._role = role
        self._greeting = greeting
        self._port: Any = None

    async def listen(self) -> RawListener:
        """
        Listen.
        """
        factory = Factory()
        factory.noisy = False
        factory.buildProtocol = self._build  # type: ignore[method-assign]
        self._port = await serverFromString(theReactor(), self.description).listen(factory)
        port = getattr(self._port.getHost(), "port", None)
        if port is not None:
            self.description = f"tcp:127.0.0.1:{port}"
        return self

    async def next(self) -> RawPeer:
        """
        The next who dials.
        """
        return await (await self.peers.get().addTimeout(PATIENCE, theReactor())).made

    async def close(self) -> None:
        """
        Listen no more.
        """
        await self._port.stopListening()
        for peer in self._all:
            if not peer.lost.called:
                peer.transport.abortConnection()
                await peer.lost

    def _build(self, address: IAddress | None) -> RawPeer:
        peer = RawPeer(self._role, False, **self._greeting)
        self._all.append(peer)
        self.peers.put(peer)
        return peer
