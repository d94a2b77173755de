"""
What the tests of a host share: the queue's side of a connection without a wire.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.task import Clock

from asynqueue import AsyncWorker, TaskQueue
from asynqueue.errors import FrameTooLarge, LocalProtocolError
from asynqueue.processes.streaming import sizeOf
from asynqueue.wire.host.catalog import Catalog, WireWorkerUniverse
from asynqueue.wire.host.sessions import HostSession
from asynqueue.wire.protocol.codecs import Codec, codecNamed
from asynqueue.wire.protocol.messages import (
    CallFlag,
    MessageKind,
    packedCall,
    packedCount,
    unpackedFault,
)

PICKLE, CBOR = codecNamed("pickle"), codecNamed("cbor")

# What is the last that is said of a call.
LAST = {
    MessageKind.RETURNED,
    MessageKind.RAISED,
    MessageKind.GIVEN_BACK,
    MessageKind.CANCELLED,
    MessageKind.END,
}


class Line:
    """
    A connection that only notes what is said.

    @ivar sent: the messages, as kind, number and what was encoded.
    @ivar goodbyes: the reasons of the goodbyes.
    @ivar closed: how often it was closed.
    @ivar largest: how many bytes a message may have.
    @ivar backlog: how many bytes wait to be sent; the test counts it by C{counting}.
    """

    def __init__(self, codec: Codec) -> None:
        self.sent: list[tuple[MessageKind, int, Any]] = []
        self.goodbyes: list[str] = []
        self.closed = 0
        self.isOpen = True
        self.largest = 1 << 20
        self.backlog = 0
        self.counting = False
        self.waiting: list[tuple[int, Callable[[], None]]] = []
        self._codec = codec

    def send(self, kind: int, number: int, body: Any = b"", buffers: Sequence[Any] = ()) -> None:
        if not self.isOpen:
            raise LocalProtocolError("the connection is not open")
        size = sizeOf(body, buffers)
        if size > self.largest:
            raise FrameTooLarge(size, self.largest)
        if self.counting:
            self.backlog += size
        value: Any = None
        if kind in (MessageKind.RETURNED, MessageKind.ITEMS):
            value = self._codec.decode(body, [buffer.raw() for buffer in buffers])
        elif kind in (MessageKind.RAISED, MessageKind.ITEM_FAILED):
            value = self._codec.decodeRaised(body).error
        elif kind == MessageKind.ITERATOR:
            value = body.decode()
        elif kind == MessageKind.CAPACITY and body:
            value = unpackedFault(body)
        self.sent.append((MessageKind(kind), number, value))

    def whenEased(self, below: int, f: Callable[[], None]) -> None:
        self.waiting.append((below, f))

    def ease(self) -> None:
        """
        The other side reads all that there is.
        """
        self.backlog = 0
        waiting, self.waiting = self.waiting, []
        for _, f in waiting:
            f()

    def goodbye(self, reason: str = "") -> None:
        self.goodbyes.append(reason)

    def close(self) -> None:
        self.isOpen = False
        self.closed += 1


class Sessions:
    """
    Hears of sessions.

    @ivar lost: those that are over.
    """

    def __init__(self) -> None:
        self.lost: list[HostSession] = []

    def sessionOpened(self, session: HostSession) -> None:
        """
        It is there.
        """

    def sessionLost(self, session: HostSession, error: Exception) -> None:
        """
        It is gone.
        """
        self.lost.append(session)


class Station:
    """
    A host in the test's hands, and the queue's side of its connection.

    @ivar clock: moves its queue, if the test does not have a reactor for that.
    @ivar ended: how often the host said that it is done.
    """

    def __init__(
        self,
        universe: WireWorkerUniverse | None = None,
        *,
        codec: Codec = PICKLE,
        concurrent: int = 1,
        queue: TaskQueue | None = None,
        catalog: Catalog | None = None,
        **kw: Any,
    ) -> None:
        """
        @param concurrent: how many calls run at once, if no queue is given.
        @param kw: keywords of L{HostSession}.
        """
        self.clock = Clock()
        self.codec = codec
        if queue is None:
            worker = AsyncWorker(concurrent=concurrent, reactor=self.clock)
            queue = TaskQueue(worker, reactor=self.clock)
            kw.setdefault("reactor", self.clock)
        self.queue = queue
        self.line = Line(codec)
        self.ended = 0
        self.host = HostSession(self, queue, catalog or Catalog(universe), codec=codec, **kw)
        self.host.about()
        self.host.opened(self.line)
        self._last = 0

    def sessionOpened(self, session: HostSession) -> None:
        assert session is self.host

    def sessionLost(self, session: HostSession, error: Exception) -> None:
        assert session is self.host
        self.ended += 1

    def hear(self, kind: int, number: int, body: bytes = b"", buffers: Sequence[Any] = ()) -> None:
        """
        The queue sends a message.
        """
        self.host.received(self.line, [(int(kind), number, body, buffers)])

    def call(self, name: str, *args: Any, flags: int = 0, number: int = 0, **kw: Any) -> int:
        """
        The queue sends a call.

        @return: its number.
        """
        self._last = number or self._last + 1
        packed, buffers = self.codec.encodeCall(args, kw)
        body = packedCall(flags, name, packed)
        self.hear(MessageKind.CALL, self._last, body, [buffer.raw() for buffer in buffers])
        return self._last

    def credit(self, number: int, count: int) -> None:
        """
        The queue grants items.
        """
        self.hear(MessageKind.CREDIT, number, packedCount(count))

    def turn(self) -> None:
        """
        Let the reactor have its turns, until it has nothing to do.
        """
        self.clock.advance(0)

    def said(self, number: int) -> list[tuple[MessageKind, Any]]:
        """
        What the host has said of a call.
        """
        return [
            (kind, value)
            for kind, about, value in self.line.sent
            if about == number and kind is not MessageKind.CAPACITY
        ]

    def kinds(self, number: int) -> list[MessageKind]:
        """
        Of which kinds that was.
        """
        return [kind for kind, _ in self.said(number)]

    def items(self, number: int) -> list[Any]:
        """
        The items of an iterator, so far.
        """
        lists = [value for kind, value in self.said(number) if kind is MessageKind.ITEMS]
        return [item for items in lists for item in items]

    def outcome(self, name: str, *args: Any, flags: int = 0, **kw: Any) -> Any:
        """
        Have a call made, and see what was said of it: a value, or the exception.
        """
        number = self.call(name, *args, flags=flags, **kw)
        self.turn()
        ((kind, value),) = self.said(number)
        assert kind in (MessageKind.RETURNED, MessageKind.RAISED)
        return value


RAW, THREAD, WATCHED, URGENT, DEFINED = CallFlag
