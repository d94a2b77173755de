"""
A connection to a host that is only pretended, for tests of what is on the queue's side.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.error import ConnectionAborted, ConnectionLost

from asynqueue.errors import FrameTooLarge, LocalProtocolError
from asynqueue.outcome import raised
from asynqueue.wire.protocol.codecs import PickleCodec
from asynqueue.wire.protocol.commands import Peer
from asynqueue.wire.protocol.messages import MessageKind, unpackedCall, unpackedCount

CODEC = PickleCodec()


class MemoryConnection:
    """
    Notes what is sent, and says what the test has the host say.

    @ivar owner: who is told.
    @ivar sent: all messages, as (kind, number, body, buffers).
    @ivar acts: what else was done with it: "goodbye", "close", "abort".
    @ivar endsAtOnce: whether it is lost within C{abort}, as some transports are.
    """

    def __init__(self, owner: Any = None, rtt: float | None = None, **about: Any) -> None:
        self.owner = owner
        self.rtt = rtt
        self.description = "host 10.0.0.2:4000"
        self.isOpen = False
        self.endsAtOnce = False
        self.sent: list[tuple[MessageKind, int, Any, Sequence[Any]]] = []
        self.acts: list[str] = []
        self.largest = 1 << 30
        self.peer = Peer(
            "host",
            "AsynQueue",
            "3.11.7",
            "pickle",
            {"slots": 1, "trust": "modules", "series": [], "names": [], **about},
            1 << 30,
        )

    # What the worker calls

    def send(
        self,
        kind: int,
        number: int,
        body: Any = b"",
        buffers: Sequence[Any] = (),
        behind: int | None = None,
    ) -> None:
        """
        Note a message.
        """
        if not self.isOpen:
            raise LocalProtocolError("not open")
        if len(body) > self.largest:
            raise FrameTooLarge(len(body), self.largest)
        self.sent.append((MessageKind(kind), number, body, buffers))

    def goodbye(self, reason: str = "") -> None:
        """
        Note that.
        """
        self.acts.append("goodbye")

    def close(self) -> None:
        """
        Note that.
        """
        self.acts.append("close")

    def abort(self, error: Exception | None = None) -> None:
        """
        Note that.
        """
        self.acts.append("abort")
        self.isOpen = False
        if self.endsAtOnce:
            self.lose(ConnectionAborted())

    # What the test says

    def open(self) -> None:
        """
        Both sides are ready.
        """
        self.isOpen = True
        self.owner.opened(self)

    def lose(self, error: Exception | None = None) -> None:
        """
        It is over.
        """
        self.isOpen = False
        self.owner.lost(self, error or ConnectionLost("cut by the test"))

    def say(self, *messages: tuple[Any, ...]) -> None:
        """
        Messages come together: of kind, number, and perhaps body and buffers.
        """
        frames = [(int(kind), number, *(*rest, b"", ())[:2]) for kind, number, *rest in messages]
        self.owner.received(self, frames)

    def end(self, *numbers: int, value: Any = None) -> None:
        """
        Calls return.
        """
        self.say(*[returned(number, value) for number in numbers])

    def told(self, kind: MessageKind) -> list[int]:
        """
        The numbers of the messages of a kind that were sent.
        """
        return [number for each, number, _, _ in self.sent if each is kind]

    def calls(self) -> list[tuple[int, int, str, Any]]:
        """
        The calls that were sent: number, flags, name, and what they are called with.
        """
        return [
            (number, *unpackedCall(body)[:2], CODEC.decodeCall(unpackedCall(body)[2], buffers))
            for kind, number, body, buffers in self.sent
            if kind is MessageKind.CALL
        ]

    def names(self) -> list[str]:
        """
        What was called.
        """
        return [name for _, _, name, _ in self.calls()]

    def credits(self) -> list[int]:
        """
        The credits that were granted.
        """
        return [unpackedCount(body) for kind, _, body, _ in self.sent if kind is MessageKind.CREDIT]


def returned(number: int, value: Any = None) -> tuple[Any, ...]:
    """
    The message that a call returned.
    """
    return MessageKind.RETURNED, number, *CODEC.encode(value)


def failed(kind: MessageKind, number: int, error: BaseException) -> tuple[Any, ...]:
    """
    The message that something was raised.
    """
    return kind, number, CODEC.encodeRaised(raised(error))


def items(number: int, *values: Any) -> tuple[Any, ...]:
    """
    The message with items of an iterator.
    """
    return MessageKind.ITEMS, number, *CODEC.encode(list(values))
