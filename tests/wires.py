"""
What the tests of the wire share: two sides, and what lies between them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from heapq import heappop, heappush
from itertools import count
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IConsumer, ITCPTransport
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from asynqueue.errors import WireError
from asynqueue.framing import Frame
from asynqueue.wire.protocol.boxes import Box, BoxParser
from asynqueue.wire.protocol.commands import Event, Frames
from asynqueue.wire.protocol.session import Session
from asynqueue.wire.transport.connecting import RefusalLog
from asynqueue.wire.transport.connection import Connection

KEY = b"a key that only two sides have.."


def parsed(data: bytes) -> list[Box]:
    """
    The boxes in some bytes.
    """
    parser = BoxParser(1 << 30, 1 << 30)
    parser.lift()
    parser.add(data)
    boxes = []
    while (box := parser.next()) is not None:
        boxes.append(box)
    return boxes


def plainFrames(frames: Sequence[Frame]) -> list[tuple[int, int, bytes, list[bytes]]]:
    """
    Messages, all of bytes.
    """
    return [
        (kind, number, bytes(body), [bytes(buffer) for buffer in buffers])
        for kind, number, body, buffers in frames
    ]


class Side:
    """
    A session, and what it has been told.

    @ivar events: all that happened.
    @ivar error: how it was closed.
    @ivar said: every box that it sent, as bytes.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.events: list[Event] = []
        self.error: WireError | None = None
        self.said: list[bytes] = []

    def hear(self, boxes: Sequence[Box], now: float = 0.0) -> None:
        """
        The other side says something.
        """
        for box in boxes:
            try:
                self.events += self.session.receive(box, now)
            except WireError as error:
                self.error = error

    def say(self, now: float = 0.0, bulk: bool = True) -> list[bytes]:
        """
        What it has to say now.
        """
        boxes = self.session.boxes(now, bulk)
        self.said += boxes
        return boxes

    @property
    def messages(self) -> list[tuple[int, int, bytes, list[bytes]]]:
        """
        All messages that it has received.
        """
        return [
            message
            for event in self.events
            if isinstance(event, Frames)
            for message in plainFrames(event.frames)
        ]


class Pair:
    """
    A queue that has dialed a host, without any way between them.
    """

    def __init__(self, queue: dict[str, Any] | None = None, host: dict[str, Any] | None = None):
        self.queue = Side(Session(**{"role": "queue", "dialed": True, **(queue or {})}))
        self.host = Side(Session(**{"role": "host", "dialed": False, **(host or {})}))

    def start(self, ofQueue: bytes = b"", ofHost: bytes = b"") -> Pair:
        """
        Both greet.

        @param ofQueue: its binding.
        """
        self.queue.session.start(ofQueue, "the host")
        self.host.session.start(ofHost, "the queue")
        return self

    def talk(self, now: float = 0.0) -> Pair:
        """
        Carry all that they say, until both are silent.
        """
        while True:
            fromQueue, fromHost = self.queue.say(now), self.host.say(now)
            if not fromQueue and not fromHost:
                return self
            self.host.hear(parsed(b"".join(fromQueue)), now)
            self.queue.hear(parsed(b"".join(fromHost)), now)

    def open(self) -> Pair:
        """
        Both are ready.
        """
        return self.start().talk()


class LongWay:
    """
    A way between two sides that takes time, and has a rate in bytes a second.
    """

    def __init__(self, pair: Pair, seconds: float, rate: float) -> None:
        self.now = 0.0
        self._seconds = seconds
        self._rate = rate
        self._order = count()
        self._arrivals: list[tuple[float, int, Side, bytes]] = []
        self._sides = (pair.queue, pair.host)
        self._free = {pair.queue: 0.0, pair.host: 0.0}

    def turn(self) -> bool:
        """
        Put on the way what is said, and let the next box arrive.

        @return: whether there was one.
        """
        queue, host = self._sides
        for side, other in ((queue, host), (host, queue)):
            # What is not on the way yet stands before it: so much, and no more bulk.
            while boxes := side.say(self.now, self._free[side] - self.now < 0.01):
                for box in boxes:
                    free = max(self.now, self._free[side]) + len(box) / self._rate
                    self._free[side] = free
                    heappush(self._arrivals, (free + self._seconds, next(self._order), other, box))
        waiting = [free for free in self._free.values() if free > self.now]
        if not self._arrivals:
            return False
        if waiting and min(waiting) < self._arrivals[0][0]:
            self.now = min(waiting)
            return True
        self.now, _, side, box = heappop(self._arrivals)
        side.hear(parsed(box), self.now)
        return True


@implementer(ITCPTransport, IConsumer)
class FakeTransport:
    """
    One end of a way in memory.

    @ivar capacity: so many bytes may wait before its producer is paused.
    @ivar isClosing: whether it was asked to close, or to break; C{isHalfClosed}: whether
        nothing more will be written.
    @ivar peer: the address of the other end; C{here}: of this one.
    """

    def __init__(self) -> None:
        self.capacity = 1 << 16
        self.isClosing = False
        self.isBroken = False
        self.isHalfClosed = False
        self.isNoDelay = False
        self.producer: Any = None
        self.isPaused = False
        self.waiting: deque[bytes] = deque()
        self.written = 0
        self.peer: Any = IPv4Address("TCP", "192.0.2.7", 4000)
        self.here: Any = IPv4Address("TCP", "192.0.2.1", 5000)

    @property
    def size(self) -> int:
        """
        How many bytes wait.
        """
        return sum(map(len, self.waiting))

    def write(self, data: bytes) -> None:
        assert isinstance(data, bytes)
        if self.isClosing:
            return
        self.written += len(data)
        self.waiting.append(data)
        if self.size > self.capacity:
            self.pause()

    def pause(self) -> None:
        """
        Have its producer write no more.
        """
        if self.producer is not None:
            self.isPaused = True
            self.producer.pauseProducing()

    def writeSequence(self, data: Any) -> None:
        self.write(b"".join(data))

    def taken(self) -> bytes:
        """
        Carry away what waits.
        """
        data = b"".join(self.waiting)
        self.waiting.clear()
        if self.isPaused and self.producer is not None:
            self.isPaused = False
            self.producer.resumeProducing()
        return data

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        assert streaming
        self.producer = producer

    def unregisterProducer(self) -> None:
        self.producer = None

    def loseConnection(self) -> None:
        # As Twisted has it: not as long as somebody may want to write.
        assert self.producer is None
        self.isClosing = True

    def loseWriteConnection(self) -> None:
        assert self.producer is None
        self.isHalfClosed = True

    def abortConnection(self) -> None:
        self.isClosing = self.isBroken = True
        self.waiting.clear()

    def setTcpNoDelay(self, enabled: bool) -> None:
        self.isNoDelay = enabled

    def getHandle(self) -> None:
        """
        There is no socket.
        """

    def getPeer(self) -> Any:
        return self.peer

    def getHost(self) -> Any:
        return self.here


class Owner:
    """
    Keeps what it is told.

    @ivar frames: the messages that came.
    @ivar told: what it was told, in order.
    @ivar errors: why the connection was lost, each time it was told so.
    @ivar raises: what it raises, by what it is told.
    """

    def __init__(self) -> None:
        self.frames: list[tuple[int, int, bytes, list[bytes]]] = []
        self.told: list[str] = []
        self.errors: list[Exception] = []
        self.raises: dict[str, Exception] = {}

    def opened(self, connection: Connection) -> None:
        self._tell("opened")

    def received(self, connection: Connection, frames: list[Frame]) -> None:
        self.frames += plainFrames(frames)
        self._tell("received")

    def leaving(self, connection: Connection, reason: str) -> None:
        self._tell(f"leaving: {reason}")

    def lost(self, connection: Connection, error: Exception) -> None:
        self.errors.append(error)
        self._tell("lost")

    def _tell(self, what: str) -> None:
        self.told.append(what)
        if what in self.raises:
            raise self.raises[what]

    @property
    def error(self) -> Exception:
        """
        Why the connection was lost, once.
        """
        assert len(self.errors) == 1, self.errors
        return self.errors[0]


class End:
    """
    A connection, its owner and its transport.
    """

    def __init__(self, session: Session, clock: Clock, **options: Any) -> None:
        self.owner = Owner()
        self.session = session
        self.connection = Connection(session, self.owner, reactor=clock, **options)
        self.transport = FakeTransport()
        self.isLost = False

    def connect(self) -> None:
        """
        It gets its transport.
        """
        self.connection.makeConnection(self.transport)

    def lose(self, error: Exception) -> None:
        """
        Its transport is gone.
        """
        if not self.isLost:
            self.isLost = True
            self.connection.connectionLost(Failure(error))


class Wire:
    """
    Two connections with each other: a queue's, which has dialed, and a host's.

    @ivar isCut: whether nothing passes any more, and nobody knows.
    """

    def __init__(
        self,
        *,
        queue: dict[str, Any] | None = None,
        host: dict[str, Any] | None = None,
        heartbeat: float | None = None,
        refusals: RefusalLog | None = None,
    ) -> None:
        """
        @param queue: what its session is made with; likewise the host's.
        @param refusals: of the host, which listens.
        """
        self.clock = Clock()
        queueSession = Session(**{"role": "queue", "dialed": True, **(queue or {})})
        hostSession = Session(**{"role": "host", "dialed": False, **(host or {})})
        self.queue = End(queueSession, self.clock, heartbeat=heartbeat)
        onRefused = None if refusals is None else refusals.add
        self.host = End(hostSession, self.clock, heartbeat=heartbeat, onRefused=onRefused)
        self.isCut = False

    def open(self) -> Wire:
        """
        Connect them, and carry all that they say.
        """
        self.queue.connect()
        self.host.connect()
        return self.carry()

    def carry(self, piece: int = 1 << 16) -> Wire:
        """
        Carry what was written, in both directions, until there is nothing more.

        @param piece: how many bytes arrive at once.
        """
        isBusy = True
        while isBusy:
            isBusy = False
            self.clock.advance(0)
            for end, other in ((self.queue, self.host), (self.host, self.queue)):
                isBusy = self._pass(end, other, piece) or isBusy
        return self

    def advance(self, seconds: float, steps: int = 1) -> Wire:
        """
        Let time pass, and carry what is said meanwhile.
        """
        for _ in range(steps):
            self.clock.advance(seconds / steps)
            self.carry()
        return self

    def _pass(self, end: End, other: End, piece: int) -> bool:
        transport = end.transport
        data = b"" if transport.isBroken else transport.taken()
        isBusy = bool(data)
        if data and not self.isCut and not other.isLost and not other.transport.isBroken:
            for begin in range(0, len(data), piece):
                other.connection.dataReceived(data[begin : begin + piece])
        if transport.isHalfClosed and not transport.waiting and not self.isCut:
            # As Twisted has it: the end of what can be read is the end.
            isBusy = isBusy or not end.isLost
            other.lose(ConnectionDone())
            end.lose(ConnectionDone())
        if transport.isClosing and not transport.waiting and not end.isLost:
            isBusy = True
            end.lose(ConnectionAborted() if transport.isBroken else ConnectionDone())
            if not self.isCut:
                other.lose(ConnectionLost() if transport.isBroken else ConnectionDone())
        return isBusy
