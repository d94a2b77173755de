"""
What L{asynqueue.framing} promises: however a stream of bytes is cut into pieces, the
same messages come out of it, and whatever else it contains is refused at once.
"""

from __future__ import annotations

import tracemalloc
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import chain
from struct import Struct
from typing import Any

import pytest
from hypothesis import example, given, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from asynqueue.errors import FrameError, FrameInvalid, FrameTooLarge, FrameTruncated
from asynqueue.framing import (
    LARGEST,
    MOST_BUFFERS,
    Decoder,
    head,
    layout,
    packed,
    released,
    unpackedHead,
)

HEADER = Struct("<QQHBB")
TABLE, SHARED = 1, 2

# A message: its kind, its number, the bytes of its body and of each buffer, and
# whether they are in a shared segment.
Message = tuple[int, int, bytes, list[bytes], bool]

sizes = st.one_of(
    st.integers(0, 100),
    st.sampled_from([0, 1, 63, 64, 65, (1 << 16) - 20, 1 << 16, (1 << 16) + 1, 200_000]),
)
contents = st.builds(lambda size, seed: bytes([seed]) * size, sizes, st.integers(0, 255))
messages = st.tuples(
    st.integers(0, 255),
    st.integers(0, (1 << 64) - 1),
    contents,
    st.lists(contents, max_size=4),
    st.booleans(),
)
streams = st.lists(messages, max_size=6)


class Line:
    """
    Frames on their way, and the segments that go with them.

    @ivar segments: those that nobody has claimed.
    """

    def __init__(self) -> None:
        self.segments: deque[bytearray] = deque()

    def framed(self, message: Message) -> bytes:
        """
        A frame; its segment goes another way.
        """
        kind, number, body, buffers, shared = message
        parts = [body, *buffers]
        lengths = [len(part) for part in parts]
        if not shared and not buffers:
            return packed(kind, number, body)
        if not shared:
            return head(kind, number, lengths) + b"".join(parts)
        offsets, size = layout(lengths)
        segment = bytearray(size)
        for part, offset in zip(parts, offsets, strict=True):
            segment[offset : offset + len(part)] = part
        self.segments.append(segment)
        return head(kind, number, lengths, shared=True)

    def claim(self, size: int, key: int) -> memoryview:
        """
        The next segment.
        """
        return memoryview(self.segments.popleft())


def plain(frames: Iterable[Any]) -> list[Any]:
    """
    Messages that can be compared.
    """
    return [
        (kind, n, bytes(body), [bytes(b) for b in buffers]) for kind, n, body, buffers in frames
    ]


def expected(stream: Iterable[Message]) -> list[Any]:
    """
    The same, of what was sent.
    """
    return [message[:4] for message in stream]


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    """
    The pieces of a stream that is cut at these places.
    """
    ends = sorted({place % (len(data) + 1) for place in places} | {len(data)})
    return [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]


# Any pieces ------------------------------------------------------------------------


@given(streams, st.lists(st.integers(0, 1 << 21), max_size=30))
@settings(deadline=None)
def test_anySplitGivesTheSameMessages(stream: list[Message], places: list[int]) -> None:
    """
    However a stream is cut, the same messages come of it, in order.
    """
    line = Line()
    decoder = Decoder(claim=line.claim)
    came = []
    for piece in cut(b"".join(map(line.framed, stream)), places):
        came += decoder.feed(piece)
    assert plain(came) == expected(stream)
    assert not line.segments
    assert decoder.missing == 0
    decoder.finish()


@given(st.lists(st.tuples(*[st.integers(0, 255)] * 2, st.binary(max_size=50)), max_size=5))
@settings(deadline=None, max_examples=30)
def test_byteByByteGivesTheSameMessages(stream: list[tuple[int, int, bytes]]) -> None:
    """
    The smallest pieces are enough.
    """
    decoder = Decoder()
    came = []
    for message in stream:
        for byte in packed(*message):
            came += decoder.feed(bytes([byte]))
    assert plain(came) == [(*message, []) for message in stream]


@given(messages, messages, st.integers(0, 1 << 21), st.lists(st.integers(0, 1 << 21), max_size=5))
@settings(deadline=None)
def test_truncatedIsToldAtTheEnd(
    first: Message, last: Message, place: int, places: list[int]
) -> None:
    """
    A stream that ends anywhere but between messages was truncated; what came
    before that has come.
    """
    line = Line()
    begin, end = line.framed(first), line.framed(last)
    end = end[: place % len(end)]
    decoder = Decoder(claim=line.claim)
    came = []
    for piece in cut(begin + end, places):
        came += decoder.feed(piece)
    assert plain(came) == expected([first])
    if not end:
        decoder.finish()
        return
    with pytest.raises(FrameTruncated) as caught:
        decoder.finish()
    assert caught.value.received == len(end) < caught.value.expected


class Streaming(RuleBasedStateMachine):
    """
    A sender, a line that gives pieces of any size, and a receiver; and a new line
    whenever one is cut.
    """

    def __init__(self) -> None:
        super().__init__()
        self.begin()

    def begin(self) -> None:
        self.line = Line()
        self.decoder = Decoder(claim=self.line.claim)
        self.sent: list[Message] = []
        # Where each message ends in the stream.
        self.ends = [0]
        self.way = bytearray()
        self.fed = 0
        self.came: list[Any] = []

    @rule(message=messages)
    def send(self, message: Message) -> None:
        frame = self.line.framed(message)
        self.sent.append(message)
        self.ends.append(self.ends[-1] + len(frame))
        self.way += frame

    @precondition(lambda self: self.way)
    @rule(size=sizes)
    def feed(self, size: int) -> None:
        piece = bytes(self.way[:size])
        del self.way[:size]
        self.fed += len(piece)
        self.came += self.decoder.feed(piece)

    @precondition(lambda self: self.way)
    @rule()
    def feedTheRest(self) -> None:
        self.feed(len(self.way))

    @rule()
    def cut(self) -> None:
        if self.fed in self.ends:
            self.decoder.finish()
        else:
            with pytest.raises(FrameTruncated):
                self.decoder.finish()
        self.begin()

    @invariant()
    def whatIsWholeHasCome(self) -> None:
        whole = sum(end <= self.fed for end in self.ends[1:])
        assert plain(self.came) == expected(self.sent[:whole])

    @invariant()
    def whatIsMissingIsAhead(self) -> None:
        assert self.decoder.missing in (0, *(end - self.fed for end in self.ends))


TestStreaming = Streaming.TestCase
TestStreaming.settings = settings(stateful_step_count=20)


# What is refused -------------------------------------------------------------------


def header(size: int, count: int = 0, flags: int = 0) -> bytes:
    """
    The first line of a frame.
    """
    return HEADER.pack(7, size, count, 1, flags)


@pytest.mark.parametrize("size", [1001, 1008, 1 << 20, 1 << 40, (1 << 64) - 17])
@pytest.mark.parametrize("flags", [0, TABLE])
def test_tooLargeIsToldByTheHeader(size: int, flags: int) -> None:
    """
    A message above the limit is refused as soon as its header is there.
    """
    begin = header(size + 16 * flags, flags, flags)
    decoder = Decoder(limit=1000)
    decoder.feed(begin[:-1])
    with pytest.raises(FrameTooLarge) as caught:
        decoder.feed(begin[-1:])
    assert (caught.value.size, caught.value.limit) == (size, 1000)


@pytest.mark.parametrize("piece", [1, 100, 1 << 20])
@pytest.mark.parametrize("size", [999, 1000, 1001])
@pytest.mark.parametrize("parts", [1, 2, 5])
@pytest.mark.parametrize("shared", [False, True])
def test_theLimitIsOfBodyAndBuffers(size: int, piece: int, parts: int, shared: bool) -> None:
    """
    Body and buffers may have as many bytes as the limit says, in any form and
    however they come; header and table do not count.
    """
    line = Line()
    body, *buffers = [b"x" * (size - parts + 1)] + [b"y"] * (parts - 1)
    data = line.framed((1, 1, body, buffers, shared))
    decoder = Decoder(1000, line.claim)
    pieces = [data[start : start + piece] for start in range(0, len(data), piece)]
    if size > 1000:
        with pytest.raises(FrameTooLarge):
            list(map(decoder.feed, pieces))
    else:
        (came,) = chain.from_iterable(map(decoder.feed, pieces))
        assert plain([came]) == [(1, 1, body, buffers)]


def test_whatIsAnnouncedTakesNoMemory() -> None:
    """
    A header that announces gigabytes within the limit takes memory only as they
    come.
    """
    decoder = Decoder()
    tracemalloc.start()
    try:
        decoder.feed(header(LARGEST))
        decoder.feed(b"x" * 1000)
        assert decoder.missing == LARGEST - 1000
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_exabytesWithinTheLimitTakeNoMemory() -> None:
    """
    Whatever the limit is, it takes no memory that does not exist.
    """
    decoder = Decoder(limit=1 << 64)
    assert decoder.feed(header((1 << 64) - 1)) == []
    with pytest.raises(FrameTruncated, match=r"20 of 18,446,744,073,709,551,635 bytes came"):
        decoder.finish()


@pytest.mark.parametrize(
    ("begin", "what"),
    [
        (header(0, flags=0x80), "flags 0x80"),
        (header(100, flags=4 | TABLE), "flags 0x5"),
        (header(1 << 30, flags=SHARED), "flags 0x2"),
        (header(7, flags=TABLE), "a frame of 7 bytes with 0 buffers"),
        (header(8, 1, TABLE), "a frame of 8 bytes with 1 buffers"),
        (header(9, 0, TABLE | SHARED), "a frame of 9 bytes"),
        (header(1 << 30, 0xFFFF, TABLE | SHARED), "65,535 buffers"),
    ],
)
def test_whatNoFrameHasIsRefusedAtOnce(begin: bytes, what: str) -> None:
    """
    A header that no frame can have is refused before anything follows it.
    """
    with pytest.raises(FrameInvalid, match=what):
        Decoder(claim=lambda size, key: memoryview(bytearray(size))).feed(begin)


@pytest.mark.parametrize("length", [0, 9, 11, (1 << 64) - 1])
@pytest.mark.parametrize("large", [0, 200_000])
def test_aTableThatDoesNotFitIsRefused(length: int, large: int) -> None:
    """
    The lengths in a table are those of what follows it, no more and no less.
    """
    size = 10 + large
    begin = header(16 + size, 1, TABLE) + Struct("<2Q").pack(large, length)
    decoder = Decoder()
    with pytest.raises(FrameError):
        decoder.feed(begin + bytes(size))


def test_aSegmentThatNobodyGivesIsRefused() -> None:
    """
    Where no segments are shared, none may be announced; nor one of another size.
    """
    data = head(1, 1, [100], shared=True)
    with pytest.raises(FrameInvalid, match="none has come"):
        Decoder().feed(data)
    with pytest.raises(FrameInvalid, match="a frame of 5 bytes, where 128"):
        Decoder(claim=lambda size, key: memoryview(bytearray(5))).feed(data)


def test_segmentsHaveKeys() -> None:
    """
    A segment is claimed by its key; frames that give some back are no messages.
    """
    claims, keys = [], []

    def claim(size: int, key: int) -> memoryview:
        claims.append((size, key))
        return memoryview(bytearray(size))

    decoder = Decoder(claim=claim, regain=keys.extend)
    data = b"".join(
        [
            head(1, 1, [64], shared=True, key=1 << 63),
            released([7, 8]),
            head(1, 2, [64], shared=True),
            released([9]),
        ]
    )
    frames = [frame for at in range(len(data)) for frame in decoder.feed(data[at : at + 1])]
    assert [number for _, number, _, _ in frames] == [1, 2]
    assert claims == [(64, 1 << 63), (64, 0)]
    assert keys == [7, 8, 9]


def test_whatNobodyHasCannotBeGivenBack() -> None:
    """
    Where no segments are shared, frames that give some back are FrameInvalid.
    """
    with pytest.raises(FrameInvalid, match="is given back"):
        Decoder().feed(released([7]))


def claimed(size: int, key: int) -> memoryview:
    """
    A segment that has what was announced, within reason.
    """
    return memoryview(bytearray(min(size, 10_000)))


lengthsOfFew = st.lists(st.integers(0, (1 << 64) - 1) | st.integers(0, 100), max_size=5)
likely = st.builds(
    lambda size, count, flags, lengths, rest: (
        header(size, count, flags) + Struct(f"<{len(lengths)}Q").pack(*lengths) + rest
    ),
    st.integers(0, (1 << 64) - 1) | st.integers(0, 200),
    st.integers(0, 3) | st.integers(0, 0xFFFF),
    st.integers(0, 4) | st.integers(0, 255),
    lengthsOfFew,
    st.binary(max_size=300),
)


@given(
    st.lists(st.binary(max_size=200) | likely, max_size=6),
    st.sampled_from([100, 100_000, LARGEST, 1 << 70]),
    st.lists(st.integers(0, 2000), max_size=5),
)
@example([header((1 << 64) - 1, 0xFFFF, 0xFF)], LARGEST, [])
@example([header(1 << 63)], 1 << 70, [3])
@settings(deadline=None, max_examples=300)
def test_garbageIsRefusedOrIncomplete(garbage: list[bytes], limit: int, places: list[int]) -> None:
    """
    Whatever comes gives messages, or is refused, or is incomplete: nothing else
    happens.
    """
    decoder = Decoder(limit, claimed)
    try:
        for piece in cut(b"".join(garbage), places):
            decoder.feed(piece)
        decoder.finish()
    except (FrameInvalid, FrameTooLarge, FrameTruncated):
        pass


def test_buffersMustNotBeTooMany() -> None:
    """
    A frame of too many buffers cannot be made; one of as many as may be can, and
    is read.
    """
    with pytest.raises(FrameInvalid, match="65,536 buffers; 65,535 may be"):
        head(1, 1, [0] * (MOST_BUFFERS + 2))
    sizes = [k % 3 for k in range(MOST_BUFFERS + 1)]
    ((_, _, body, buffers),) = Decoder().feed(head(1, 1, sizes) + bytes(sum(sizes)))
    assert [len(body), *map(len, buffers)] == sizes


# How it is laid out -----------------------------------------------------------------


@given(st.lists(st.integers(0, 1 << 40), min_size=1, max_size=20))
def test_partsOfASegmentAreAligned(lengths: list[int]) -> None:
    """
    Each part of a segment begins at a multiple of 64, after the one before, and
    not much after.
    """
    offsets, size = layout(lengths)
    assert all(offset % 64 == 0 for offset in offsets)
    ends = [offset + length for offset, length in zip(offsets, lengths, strict=True)]
    following = [*offsets[1:], size]
    assert all(0 <= after - end < 64 for end, after in zip(ends, following, strict=True))
    assert offsets[0] == 0


@pytest.mark.parametrize("size", [10, 200_000])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("pieces", [1, 2])
def test_buffersCanBeWrittenTo(size: int, shared: bool, pieces: int) -> None:
    """
    A body and its buffers are views that may be written to, and that have nothing
    in common with what was fed or with each other.
    """
    line = Line()
    data = line.framed((1, 1, b"b" * size, [b"x" * size, b"y" * size], shared))
    decoder = Decoder(claim=line.claim)
    came = decoder.feed(data) if pieces == 1 else decoder.feed(data[:50]) + decoder.feed(data[50:])
    kept = bytes(data)
    ((_, _, body, (one, two)),) = came
    one[:] = b"1" * size
    body[:] = b"2" * size
    assert (bytes(body), bytes(one), bytes(two)) == (b"2" * size, b"1" * size, b"y" * size)
    assert data == kept


@pytest.mark.parametrize("lengths", [[5], [5, 0], [0, 1, 2]])
def test_aHeadIsFollowedByWhatItSays(lengths: Sequence[int]) -> None:
    """
    The size in a header is that of all that follows it: without what is shared.
    """
    for shared in (False, True):
        begin = head(9, 8, lengths, shared)
        number, size, count, kind, flags = HEADER.unpack_from(begin)
        assert (number, count, kind) == (8, len(lengths) - 1, 9)
        assert flags == TABLE | (SHARED if shared else 0)
        assert HEADER.size + size == len(begin) + (0 if shared else sum(lengths))


@pytest.mark.parametrize("lengths", [[0], [5], [5, 0], [0, 1, 2]])
def test_aHeadIsReadAsItIsWritten(lengths: list[int]) -> None:
    """
    When a head has come as a whole, it is known what follows.
    """
    begin = packed(9, 8, bytes(lengths[0])) if len(lengths) == 1 else head(9, 8, lengths)
    size = HEADER.size + (8 * len(lengths) if len(lengths) > 1 else 0)
    assert [unpackedHead(begin[:count]) for count in range(size)] == [None] * size
    assert unpackedHead(begin) == (9, 8, lengths, size)


@pytest.mark.parametrize(
    "begin",
    [head(9, 8, [5, 6], shared=True), HEADER.pack(8, 5, 0, 9, 64), HEADER.pack(8, 9, 1, 9, TABLE)],
)
def test_otherHeadsAreRefused(begin: bytes) -> None:
    """
    A frame whose parts are elsewhere, or have no place in it, is refused by its head.
    """
    with pytest.raises(FrameInvalid):
        unpackedHead(begin)
    longer = HEADER.pack(8, 16, 0, 9, TABLE) + bytes([9] + [0] * 7)
    with pytest.raises(FrameInvalid, match="parts"):
        unpackedHead(longer)


def test_aFrameWithoutBuffersIsItsHeaderAndItsBody() -> None:
    """
    The most frequent frame has 20 bytes more than its body.
    """
    assert packed(3, 2, b"body") == HEADER.pack(2, 4, 0, 3, 0) + b"body"


def test_aLargeFrameSaysWhatIsMissing() -> None:
    """
    While a large frame comes, it is known how much of it is still to come.
    """
    data = packed(1, 1, bytes(200_000))
    decoder = Decoder()
    assert decoder.missing == 0
    decoder.feed(data[:30_000])
    assert decoder.missing == len(data) - 30_000
    decoder.feed(data[30_000:-1])
    assert decoder.missing == 1
    assert len(decoder.feed(data[-1:] + packed(1, 2, b""))) == 2
    assert decoder.missing == 0


def test_messagesBeforeWhatIsNoneAreKept() -> None:
    """
    An error has the messages that were complete before it.
    """
    with pytest.raises(FrameInvalid) as caught:
        Decoder().feed(packed(7, 1, b"good") + HEADER.pack(2, 4, 0, 7, 0xFF) + b"none")
    assert caught.value.before == [(7, 1, b"good", ())]
