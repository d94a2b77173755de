"""
Messages to boxes, and back. No I/O.

::

    send ──▶ at most 16 KiB ─────────────────────────▶ Batch ──▶ frames
        └──▶ larger: a line for each number, which ──▶ Chunk ──▶ an Arrival for each
             take turns, as far as the window goes  ◀── Grant     stream ──▶ frame

Small messages overtake large ones, unless they are about the same number: those keep
their order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from io import BytesIO
from pickle import PickleBuffer
from pickletools import genops
from typing import Any

from asynqueue.errors import RemoteProtocolError
from asynqueue.framing import LARGEST, Decoder, Frame, checkSize, head, packed, unpackedHead
from asynqueue.wire.protocol.boxes import chunkTail, packedBatch, packedChunk
from asynqueue.wire.protocol.commands import (
    LEAST_WINDOW,
    MOST_SMALL,
    MOST_STREAMS,
    MOST_VALUE,
    MOST_WINDOW,
)
from asynqueue.wire.protocol.messages import MessageKind, unpackedCall

# The number of these is not that of a call, so it gives them no order.
_CAPACITY = int(MessageKind.CAPACITY)
_CALL = int(MessageKind.CALL)

# A window holds the bytes of this many round trips, and grows when a stream has become faster
# by this factor.
_ROUND_TRIPS = 4
_FASTER = 1.1

# No stream has more bytes in a second: it needs no window for more.
_MOST_SPEED = 1e9

# A round trip that is longer than the shortest by this factor has waited on the way. (On a
# local network the chunk before it takes as long as the way does.)
_QUEUED = 2

# In a longer pickle nobody looks for what is read-only.
_MOST_LOOKED_AT = 1 << 14


class _Message:
    """
    A message on its way in chunks: what is left of its frame.
    """

    __slots__ = ("left", "parts", "tail")

    def __init__(self, parts: Sequence[Any]) -> None:
        self.parts = deque(memoryview(part) for part in parts)
        self.left = sum(len(part) for part in parts)
        # It gets its number when its first chunk is sent: they begin in order.
        self.tail = b""

    def chunk(self, size: int) -> bytes:
        """
        Return the box of the next C{size} bytes.
        """
        self.left -= size
        wanted = size
        parts = self.parts
        pieces = []
        while wanted:
            part = parts[0]
            if len(part) <= wanted:
                parts.popleft()
            else:
                parts[0] = part[wanted:]
                part = part[:wanted]
            pieces.append(part)
            wanted -= len(part)
        return packedChunk(pieces, size, self.tail)


class _Line:
    """
    Messages that keep their order.
    """

    __slots__ = ("messages", "numbers")

    def __init__(self) -> None:
        self.messages: deque[_Message] = deque()
        self.numbers: set[int] = set()


class Outgoing:
    """
    Messages to boxes.

    @ivar largest: how many bytes a message may have; the other side says it.
    @ivar allowance: how many bytes of chunks may be sent now.
    @ivar backlog: how many bytes of large messages wait to be sent.
    """

    def __init__(self) -> None:
        self.largest = LARGEST
        self.allowance = 0
        self.backlog = 0
        self._frames: list[bytes] = []
        # The lines by the numbers that they hold. Some take turns, the others wait.
        self._lines: dict[int, _Line] = {}
        self._turns: deque[_Line] = deque()
        self._waiting: deque[_Line] = deque()
        self._streams = 0

    @property
    def isEmpty(self) -> bool:
        """
        Whether nothing waits to be sent.
        """
        return not self._frames and not self._turns

    @property
    def hasMore(self) -> bool:
        """
        Whether there are chunks, and the window allows one.
        """
        return bool(self._turns) and self.allowance > 0

    def send(
        self,
        kind: int,
        number: int,
        body: Any = b"",
        buffers: Sequence[Any] = (),
        behind: int | None = None,
    ) -> None:
        """
        Line a message up. A hot path.

        @param behind: it is to come after the messages of this number, too.
        @raise FrameTooLarge: it has more bytes than it may have.
        @raise FrameInvalid: it has too many buffers.
        """
        if buffers or self._lines or len(body) > MOST_SMALL:
            self._sendOther(kind, number, body, buffers, behind)
        else:
            self._frames.append(packed(kind, number, body))

    def batches(self) -> list[bytes]:
        """
        Return the boxes of all small messages that wait.
        """
        frames = self._frames
        if not frames:
            return []
        self._frames = []
        size = sum(map(len, frames))
        if size <= MOST_VALUE:
            return [packedBatch(frames, size)]
        boxes = []
        begin = size = 0
        for index, frame in enumerate(frames):
            if size + len(frame) > MOST_VALUE:
                boxes.append(packedBatch(frames[begin:index], size))
                begin = index
                size = 0
            size += len(frame)
        boxes.append(packedBatch(frames[begin:], size))
        return boxes

    def chunks(self, most: int) -> list[bytes]:
        """
        Return the boxes of the next chunks, as far as the window goes.

        @param most: the largest number of them.
        """
        boxes: list[bytes] = []
        turns = self._turns
        while turns and self.allowance and len(boxes) < most:
            line = turns[0]
            message = line.messages[0]
            if not message.tail:
                self._streams += 1
                message.tail = chunkTail(self._streams)
            size = min(MOST_VALUE, self.allowance, message.left)
            self.allowance -= size
            self.backlog -= size
            boxes.append(message.chunk(size))
            turns.rotate(-1)
            if not message.left:
                line.messages.popleft()
                if not line.messages:
                    self._remove(line)
        return boxes

    def _sendOther(
        self, kind: int, number: int, body: Any, buffers: Sequence[Any], behind: int | None
    ) -> None:
        """
        Line up a message that is large, has buffers, or has others before it.
        """
        views = [PickleBuffer(buffer).raw() for buffer in buffers]
        lengths = [len(body), *map(len, views)]
        size = sum(lengths)
        checkSize(size, self.largest)
        line = self._lines.get(number) if kind != _CAPACITY else None
        if behind is not None and behind in self._lines:
            line = self._lines[behind]
        if line is None and size <= MOST_SMALL:
            if views:
                frame = b"".join((head(kind, number, lengths), body, *views))
            else:
                frame = packed(kind, number, body)
            self._frames.append(frame)
            return
        message = _Message((head(kind, number, lengths), body, *views))
        if line is None:
            line = _Line()
            (self._turns if len(self._turns) < MOST_STREAMS else self._waiting).append(line)
        line.messages.append(message)
        self.backlog += message.left
        line.numbers.add(number)
        self._lines[number] = line

    def _remove(self, line: _Line) -> None:
        """
        Forget a line of which all was sent. It has the last turn.
        """
        self._turns.pop()
        for number in line.numbers:
            # A later line may have taken it over.
            if self._lines.get(number) is line:
                del self._lines[number]
        if self._waiting:
            self._turns.append(self._waiting.popleft())


class ReceiveWindow:
    """
    The window of the chunks that come: how many bytes the other side may send.

    It is small where the way is short, so that nothing waits for long behind what is
    under way, and grows to four times the bytes that come in a round trip, as short as
    that can be. Less would not do: a window is granted by halves, so of one that is too
    small only half may come in a round trip.

    It grows only if that has made the stream faster, as the estimator of the bandwidth
    and delay of gRPC has it (U{https://grpc.io/blog/grpc-go-perf-improvements/}): where
    something else is what is slow, more would only wait on the way.
    """

    def __init__(self) -> None:
        self.size = LEAST_WINDOW
        self._granted = LEAST_WINDOW
        self._came = 0
        self._cameBefore = 0
        self._fastest = 0.0

    def take(self, size: int) -> int:
        """
        Take notice of a chunk that came.

        @return: how many more bytes are to be granted now; 0 for none.
        @raise RemoteProtocolError: it has more bytes than were granted.
        """
        self._came += size
        self._granted -= size
        if self._granted < 0:
            raise RemoteProtocolError("more bytes of chunks than were granted")
        # Not at half of it: of the smallest window one chunk leaves a byte more than that,
        # and the sender would stand still until the grant for both has come.
        if self._granted > 5 * self.size >> 3:
            return 0
        more = self.size - self._granted
        self._granted = self.size
        return more

    def mark(self) -> None:
        """
        Take notice that a round trip begins.
        """
        self._cameBefore = self._came

    def measure(self, seconds: float, least: float) -> None:
        """
        Size the window after the round trip.

        @param seconds: how long it took.
        @param least: the shortest yet.
        """
        came = self._came - self._cameBefore
        if seconds <= _QUEUED * least and came > seconds * self._fastest:
            self._fastest = came / seconds * _FASTER
            self.size = max(self.size, int(_ROUND_TRIPS * came * (least / seconds)))
        most = min(MOST_WINDOW, int(_MOST_SPEED * least))
        self.size = max(LEAST_WINDOW, min(self.size, most))


def _readOnly(kind: int, body: bytes, count: int) -> list[bool]:
    """
    Return which of its buffers a message makes read-only, if its body has a pickle.

    @param count: how many it has.
    """
    found: list[bool] = []
    if count and len(body) <= _MOST_LOOKED_AT:
        try:
            for opcode, _, _ in genops(unpackedCall(body)[2] if kind == _CALL else body):
                if opcode.name == "NEXT_BUFFER":
                    found.append(False)
                elif opcode.name == "READONLY_BUFFER" and found:
                    found[-1] = True
        except Exception:
            # Somebody's bytes: whatever they are, that shows when they are read.
            found.clear()
    return found if len(found) == count else [False] * count


class _Arrival:
    """
    A message that comes in chunks.

    Each part grows as its bytes come: what is announced may never be there. What its user may
    change is collected in a bytearray, and the rest as bytes: neither is copied at the end.
    """

    def __init__(self, largest: int) -> None:
        """
        @param largest: how many bytes it may have.
        """
        self._largest = largest
        # What has come of the head; then what that says.
        self._begun = b""
        self._kind = self._number = 0
        self._lengths: list[int] = []
        # What is complete; the next part, and how many bytes it wants.
        self._parts: list[Any] = []
        self._readOnly: list[bool] = []
        self._place: BytesIO | bytearray = BytesIO()
        self._wanted = 0

    def add(self, data: Any) -> Frame | None:
        """
        Take a chunk. A hot path.

        @return: the message, if it is complete.
        @raise FrameError: it is none.
        @raise RemoteProtocolError: something follows it.
        """
        if not self._lengths:
            begun = self._begun = self._begun + bytes(data)
            head = unpackedHead(begun)
            if head is None:
                return None
            self._kind, self._number, self._lengths, first = head
            checkSize(sum(self._lengths), self._largest)
            self._wanted = self._lengths[0]
            self._begun = b""
            data = memoryview(begun)[first:]
        while True:
            piece = data[: self._wanted]
            place = self._place
            if isinstance(place, bytearray):
                place += piece
            else:
                place.write(piece)
            self._wanted -= len(piece)
            if self._wanted:
                return None
            data = data[len(piece) :]
            self._take(place)
            if len(self._parts) == len(self._lengths):
                break
        if data:
            raise RemoteProtocolError("more than one message in a stream")
        body, *buffers = self._parts
        return self._kind, self._number, body, buffers

    def _take(self, place: BytesIO | bytearray) -> None:
        """
        Take a part that is complete, and make place for the next.
        """
        parts, lengths = self._parts, self._lengths
        parts.append(memoryview(place) if isinstance(place, bytearray) else place.getvalue())
        if len(parts) == 1:
            self._readOnly = _readOnly(self._kind, parts[0], len(lengths) - 1)
        if len(parts) < len(lengths):
            self._place = BytesIO() if self._readOnly[len(parts) - 1] else bytearray()
            self._wanted = lengths[len(parts)]


class Reassembler:
    """
    Boxes to messages.
    """

    def __init__(self, largest: int) -> None:
        """
        @param largest: how many bytes a message may have.
        """
        self.window = ReceiveWindow()
        self._largest = largest
        self._batches = Decoder(largest)
        self._streams: dict[int, _Arrival] = {}
        self._latest = 0

    def batch(self, frames: bytes) -> list[Frame]:
        """
        Return the messages of a batch. A hot path.

        @raise FrameError: it holds something else.
        """
        messages = self._batches.feed(frames)
        self._batches.finish()
        return messages

    def chunk(self, stream: int, data: Any) -> list[Frame]:
        """
        Return the message that is complete with this chunk, if one is.

        @raise FrameError: it is none.
        @raise RemoteProtocolError: there is no such stream.
        """
        arrival = self._streams.get(stream)
        if arrival is None:
            arrival = self._begin(stream)
        if not data:
            raise RemoteProtocolError("a chunk without data")
        frame = arrival.add(data)
        if frame is None:
            return []
        del self._streams[stream]
        return [frame]

    def _begin(self, stream: int) -> _Arrival:
        if stream != self._latest + 1:
            raise RemoteProtocolError(f"a chunk of stream {stream} after {self._latest}")
        if len(self._streams) >= MOST_STREAMS:
            raise RemoteProtocolError(f"more than {MOST_STREAMS} large messages at once")
        self._latest = stream
        arrival = self._streams[stream] = _Arrival(self._largest)
        return arrival
