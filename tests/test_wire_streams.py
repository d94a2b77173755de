"""
What L{asynqueue.wire.protocol.boxes} and L{asynqueue.wire.protocol.streams} promise: however
the bytes are cut, the same messages come out of them, each number's in their order, small
ones first, large ones by turns, and never more of them than was granted.
"""

from __future__ import annotations

import pickle
from collections import defaultdict
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st
from twisted.protocols.amp import COMMAND, parseString

from asynqueue.errors import FrameError, FrameTooLarge, RemoteProtocolError
from asynqueue.framing import head
from asynqueue.wire.protocol.boxes import (
    BoxParser,
    canonical,
    chunkTail,
    packedBatch,
    packedBox,
    packedChunk,
)
from asynqueue.wire.protocol.commands import (
    LEAST_WINDOW,
    MOST_SMALL,
    MOST_STREAMS,
    MOST_VALUE,
    MOST_WINDOW,
    Beat,
    Chunk,
    Goodbye,
    Refuse,
)
from asynqueue.wire.protocol.messages import MessageKind, packedCall, unpackedCall
from asynqueue.wire.protocol.streams import Outgoing, Reassembler, ReceiveWindow
from tests.wires import LongWay, Pair, parsed, plainFrames

LARGEST = 1 << 24

sizes = st.one_of(
    st.integers(0, 200),
    st.sampled_from(
        [MOST_SMALL - 1, MOST_SMALL, MOST_SMALL + 1, MOST_VALUE - 21, MOST_VALUE, 70_000, 140_000]
    ),
)
contents = st.builds(lambda size, seed: bytes([seed]) * size, sizes, st.integers(0, 255))
messages = st.tuples(
    st.integers(1, 24), st.integers(0, 5), contents, st.lists(contents, max_size=3)
)


def parserOf(data: bytes) -> BoxParser:
    """
    A parser without limits, with so much data.
    """
    parser = BoxParser(1 << 30, 1 << 30)
    parser.lift()
    parser.add(data)
    return parser


def received(incoming: Reassembler, boxes: list[bytes]) -> list[Any]:
    """
    The messages in some boxes.
    """
    frames = []
    for box in parsed(b"".join(boxes)):
        if box[COMMAND] == b"Batch":
            frames += incoming.batch(box[b"frames"])
        else:
            frames += incoming.chunk(int(box[b"stream"]), box[b"data"])
    return plainFrames(frames)


def everything(outgoing: Outgoing) -> list[bytes]:
    """
    All boxes that wait, with a window without end.
    """
    outgoing.allowance = 1 << 40
    boxes = outgoing.batches()
    while chunks := outgoing.chunks(3):
        boxes += chunks
    return boxes


def chunksOf(boxes: list[bytes]) -> list[tuple[int, int]]:
    """
    The stream and the size of each chunk.
    """
    return [
        (int(box[b"stream"]), len(box[b"data"]))
        for box in parsed(b"".join(boxes))
        if box[COMMAND] == b"Chunk"
    ]


# Boxes


@given(st.lists(messages, max_size=6), st.lists(st.integers(1, 70_000), max_size=20))
def test_anySplitGivesTheSameMessages(some: list[Any], cuts: list[int]) -> None:
    """
    However the stream of bytes is cut, the messages that were sent come out of it, those
    of each number in their order.
    """
    outgoing = Outgoing()
    for message in some:
        outgoing.send(*message)
    data = b"".join(everything(outgoing))
    parser = BoxParser(1 << 30, 1 << 30)
    parser.lift()
    incoming = Reassembler(LARGEST)
    got = []
    for size in [*cuts, len(data) + 1]:
        parser.add(data[:size])
        data = data[size:]
        while (box := parser.next()) is not None:
            got += received(incoming, [canonical({k: bytes(v) for k, v in box.items()})])
    for number in range(6):
        assert [each for each in got if each[1] == number] == [
            each for each in some if each[1] == number
        ]


@given(
    st.lists(
        st.dictionaries(
            st.binary(min_size=1, max_size=255).filter(lambda key: key != COMMAND),
            st.binary(max_size=300),
            min_size=1,
            max_size=16,
        ),
        max_size=5,
    ),
    st.integers(1, 400),
)
def test_boxesAreThoseOfAMP(some: list[dict[bytes, bytes]], piece: int) -> None:
    """
    What Twisted serializes is parsed, in pieces of any size.
    """
    data = b"".join(canonical(box) for box in some)
    parser = BoxParser(len(data), len(some))
    got = []
    for begin in range(0, len(data), piece):
        parser.add(data[begin : begin + piece])
        while (box := parser.next()) is not None:
            got.append(box)
    assert got == some


def test_ourBoxesAreThoseOfAMP() -> None:
    """
    What is written without Twisted's help is what Twisted reads.
    """
    boxes = [
        packedBatch([b"a", b"bc"], 3),
        packedChunk([b"de", memoryview(b"f")], 3, chunkTail(17)),
        packedBox(Goodbye, reason="är"),
    ]
    assert parseString(b"".join(boxes)) == [
        {b"_command": b"Batch", b"frames": b"abc"},
        {b"_command": b"Chunk", b"data": b"def", b"stream": b"17"},
        {b"_command": b"Goodbye", b"reason": "är".encode()},
    ]


def test_theOrderOfTheKeysDoesNotMatter() -> None:
    """
    Another implementation may write the keys of a chunk in any order.
    """
    fields = [(b"stream", b"1"), (b"data", b"xyz"), (COMMAND, b"Chunk")]
    data = (
        b"".join(len(part).to_bytes(2, "big") + part for field in fields for part in field)
        + b"\0\0"
    )
    assert parsed(data) == [dict(fields)]


@pytest.mark.parametrize(
    "data",
    [
        b"\0\0",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x01\x00" + b"k" * 256,
        b"\0\1a\0\0" * 2 + b"\0\0",
        b"".join(b"\0\2%02d\0\0" % i for i in range(17)) + b"\0\0",
        b"".join(b"\0\1%c\xff\xff" % i + bytes(65535) for i in range(65, 68)),
    ],
    ids=["empty", "HTTP", "long key", "twice", "many keys", "large"],
)
def test_whatIsNoBoxIsRefused(data: bytes) -> None:
    """
    Bytes that no box of ours begins with are an error, as soon as that is seen.
    """
    with pytest.raises(RemoteProtocolError):
        parserOf(data).next()


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"\x15\x03\x01\x00\x02\x02\x46", "looks like TLS: either both"),
        (b"\x16\x03\x01\x02\x00\x01\x00", "looks like TLS: either both"),
        (b"GET / HTTP/1.1\r\n", "looks like HTTP"),
        (b"HTTP/1.1 400 Bad Request\r\n", "looks like HTTP"),
    ],
)
def test_aCommonMistakeIsNamed(data: bytes, text: str) -> None:
    """
    Who forgets TLS on one side, or dials something else, reads what it is.
    """
    with pytest.raises(RemoteProtocolError, match=text):
        parserOf(data).next()


@pytest.mark.parametrize("piece", [1, 7, 1 << 20])
def test_beforeProofBytesAreLimited(piece: int) -> None:
    """
    A box that exceeds what is left is refused before it has come.
    """
    parser = BoxParser(100, 4)
    fed: list[bytes] = []

    def feed() -> None:
        data = packedBox(Goodbye, reason="x" * 100)
        for begin in range(0, len(data), piece):
            fed.append(data[begin : begin + piece])
            parser.add(fed[-1])
            assert parser.next() is None

    with pytest.raises(RemoteProtocolError, match="before"):
        feed()
    assert sum(map(len, fed)) <= max(100, piece)


def test_beforeProofBoxesAreLimited() -> None:
    """
    After so many boxes there must be a proof.
    """
    parser = BoxParser(1000, 4)
    parser.add(packedBox(Beat, number=1) * 5)
    for _ in range(4):
        assert parser.next() is not None
    with pytest.raises(RemoteProtocolError, match="before"):
        parser.next()


def test_limitsAreLiftedWithinOnePiece() -> None:
    """
    What comes in one piece with a proof may be large.
    """
    parser = BoxParser(100, 1)
    parser.add(packedBox(Beat, number=1) + packedBox(Goodbye, reason="x" * 5000))
    assert parser.next() is not None
    parser.lift()
    box = parser.next()
    assert box is not None
    assert len(box[b"reason"]) == 5000


# Small and large


def test_smallMessagesShareABox() -> None:
    """
    What is sent in one turn leaves in one box, as far as it fits.
    """
    outgoing = Outgoing()
    for number in range(1000):
        outgoing.send(1, number, b"x" * 50)
    boxes = outgoing.batches()
    assert len(boxes) == 2
    assert [each[1] for each in received(Reassembler(LARGEST), boxes)] == list(range(1000))
    assert outgoing.isEmpty


def test_smallMessagesOvertakeLargeOnes() -> None:
    """
    A large message on its way delays no small one.
    """
    outgoing = Outgoing()
    outgoing.allowance = 1 << 30
    outgoing.send(1, 1, b"L" * 1_000_000)
    boxes = outgoing.chunks(2)
    outgoing.send(1, 2, b"small")
    boxes += outgoing.batches() + everything(outgoing)
    assert [number for _, number, *_ in received(Reassembler(LARGEST), boxes)] == [2, 1]


def test_messagesOfANumberKeepTheirOrder() -> None:
    """
    The end of an iterator does not come before its items, nor a cancel before its call.
    """
    outgoing = Outgoing()
    outgoing.send(MessageKind.ITEMS, 1, b"L" * 100_000)
    outgoing.send(MessageKind.ITEMS, 1, b"small")
    outgoing.send(MessageKind.RETURNED, 2, b"other")
    outgoing.send(MessageKind.END, 1)
    got = received(Reassembler(LARGEST), everything(outgoing))
    assert [(kind, number) for kind, number, *_ in got] == [
        (MessageKind.RETURNED, 2),
        (MessageKind.ITEMS, 1),
        (MessageKind.ITEMS, 1),
        (MessageKind.END, 1),
    ]


def test_aMessageCanStandBehindAnother() -> None:
    """
    A call waits for what it names, and its cancel for the call.
    """
    outgoing = Outgoing()
    outgoing.send(MessageKind.DEFINE, 7, b"L" * 100_000)
    outgoing.send(MessageKind.CALL, 8, b"a call of 7", behind=7)
    outgoing.send(MessageKind.CANCEL, 8)
    outgoing.send(MessageKind.CALL, 9, b"an other call", behind=6)
    got = received(Reassembler(LARGEST), everything(outgoing))
    assert [number for _, number, *_ in got] == [9, 7, 8, 8]


def test_whatIsNoCallHasNoOrder() -> None:
    """
    The number of a capacity is none of a call: it waits for nothing.
    """
    outgoing = Outgoing()
    outgoing.send(MessageKind.RETURNED, 4, b"L" * 100_000)
    outgoing.send(MessageKind.CAPACITY, 4)
    got = received(Reassembler(LARGEST), everything(outgoing))
    assert [kind for kind, *_ in got] == [MessageKind.CAPACITY, MessageKind.RETURNED]


def test_largeMessagesTakeTurns() -> None:
    """
    Chunk by chunk: a message of a few chunks does not wait for one of many.
    """
    outgoing = Outgoing()
    outgoing.send(1, 1, b"a" * 2_000_000)
    outgoing.send(1, 2, b"b" * 200_000)
    outgoing.send(1, 3, b"c" * 200_000)
    boxes = everything(outgoing)
    assert [stream for stream, _ in chunksOf(boxes)][:10] == [1, 2, 3, 1, 2, 3, 1, 2, 3, 1]
    assert [each[1] for each in received(Reassembler(LARGEST), boxes)] == [2, 3, 1]


def test_onlySomeTakeTurns() -> None:
    """
    The others begin when one has ended: the receiver keeps few halves.
    """
    outgoing = Outgoing()
    count = 3 * MOST_STREAMS
    for number in range(count):
        outgoing.send(1, number, bytes(100_000))
    boxes = everything(outgoing)
    begun: dict[int, int] = defaultdict(int)
    most = 0
    for stream, size in chunksOf(boxes):
        begun[stream] += size
        most = max(most, sum(have < 100_000 for have in begun.values()))
    assert most <= MOST_STREAMS
    assert len(received(Reassembler(LARGEST), boxes)) == count


def test_aLargeMessageIsNotCopiedBeforeItLeaves() -> None:
    """
    Buffers are views until they are cut into chunks.
    """
    buffer = bytearray(200_000)
    outgoing = Outgoing()
    outgoing.send(1, 1, b"body", [buffer])
    buffer[-1] = 1
    [(_, _, body, [got])] = received(Reassembler(LARGEST), everything(outgoing))
    assert body == b"body"
    assert got == buffer


def test_whatComesInChunksCanBeWrittenTo() -> None:
    """
    Large buffers of a message are memory that is nobody else's.
    """
    outgoing = Outgoing()
    outgoing.send(1, 1, b"body", [bytes(200_000)])
    incoming = Reassembler(LARGEST)
    frames: list[Any] = []
    for box in parsed(b"".join(everything(outgoing))):
        frames += incoming.chunk(int(box[b"stream"]), box[b"data"])
    assert not frames[0][3][0].readonly


def cut(message: bytes, size: int) -> Any:
    """
    What comes of a message in chunks of C{size} bytes.
    """
    incoming = Reassembler(LARGEST)
    frames: list[Any] = []
    for at in range(0, len(message), size):
        assert frames == []
        frames = incoming.chunk(1, memoryview(message)[at : at + size])
    [frame] = frames
    return frame


def framed(kind: int, body: bytes, buffers: list[Any]) -> bytes:
    """
    The frame of a message.
    """
    return b"".join([head(kind, 1, [len(body), *map(len, buffers)]), body, *buffers])


@pytest.mark.parametrize("size", [1, 2, 21, 100, 1000, 70_000])
@pytest.mark.parametrize("isCall", [False, True])
def test_largeBytesAreMadeOnce(isCall: bool, size: int) -> None:
    """
    Buffers that a pickle has as bytes come as bytes, which it need not copy; those that it may
    write to come as memory for that, and no more of it than is wanted.
    """
    buffers: list[pickle.PickleBuffer] = []
    value = [Apart(b"abc" * 100), Apart(bytearray(b"defg" * 50)), Apart(b""), b"in it"]
    body = pickle.dumps(value, 5, buffer_callback=buffers.append)
    kind = MessageKind.RETURNED
    if isCall:
        body = packedCall(0, "a name", body)
        kind = MessageKind.CALL
    _, _, body, got = cut(framed(kind, body, [buffer.raw() for buffer in buffers]), size)
    if isCall:
        assert unpackedCall(body)[:2] == (0, "a name")
        body = unpackedCall(body)[2]
    assert [type(each) for each in got] == [bytes, memoryview, bytes]
    first, second, third, last = pickle.loads(body, buffers=got)
    assert (first, second, third, last) == (b"abc" * 100, b"defg" * 50, b"", b"in it")
    assert first is got[0]
    second[0] = 0


class Apart:
    """
    Bytes that are no part of their pickle, or a view of them that can be written to.
    """

    def __init__(self, data: bytes | bytearray) -> None:
        self.data = data

    def __reduce__(self) -> Any:
        kind = bytes if isinstance(self.data, bytes) else memoryview
        return kind, (pickle.PickleBuffer(self.data),)


@pytest.mark.parametrize("body", [b"", b"no pickle", pickle.dumps(5), b"\x98.", bytes(1 << 15)])
def test_otherBodiesHaveBuffersToWriteTo(body: bytes) -> None:
    """
    Of what is no pickle with such buffers nothing is thought.
    """
    for kind in (MessageKind.RETURNED, MessageKind.CALL):
        _, _, got, [buffer] = cut(framed(kind, body, [b"a buffer"]), 30)
        assert got == body
        assert not buffer.readonly


def test_aMessageIsTooLargeBeforeItIsLinedUp() -> None:
    """
    What the other side does not take is an error of the caller's, and of nobody else.
    """
    outgoing = Outgoing()
    outgoing.largest = 100_000
    with pytest.raises(FrameTooLarge, match=r"100,001 bytes .* 100,000"):
        outgoing.send(1, 1, bytes(50_001), [bytes(50_000)])
    assert outgoing.isEmpty
    outgoing.send(1, 1, bytes(50_000), [bytes(50_000)])


# The window


@given(st.integers(1, 400_000))
def test_noMoreThanTheWindowIsSent(window: int) -> None:
    """
    Chunks fill what is granted, and stop there.
    """
    outgoing = Outgoing()
    outgoing.allowance = window
    for number in range(4):
        outgoing.send(1, number, bytes(90_000))
    boxes = []
    while chunks := outgoing.chunks(2):
        boxes += chunks
    sent = sum(size for _, size in chunksOf(boxes))
    assert sent == min(window, 4 * (90_000 + 28))
    assert outgoing.hasMore is False


def test_moreThanWasGrantedIsRefused() -> None:
    """
    Who ignores the window breaks the protocol.
    """
    intake = ReceiveWindow()
    for _ in range(3):
        intake.take(LEAST_WINDOW >> 3)
    with pytest.raises(RemoteProtocolError, match="granted"):
        intake.take(LEAST_WINDOW + 1)


@settings(max_examples=50)
@given(st.lists(st.integers(1, MOST_VALUE), min_size=1, max_size=200))
def test_whatWasTakenIsGrantedAgain(some: list[int]) -> None:
    """
    The sender can never be stuck: with all that was granted, half a window is left.
    """
    intake = ReceiveWindow()
    allowance = LEAST_WINDOW
    for size in some:
        allowance += intake.take(size) - size
        assert LEAST_WINDOW // 2 <= allowance <= LEAST_WINDOW


def test_theWindowIsBounded() -> None:
    """
    No measurement makes it smaller than at first, or larger than it may be.
    """
    intake = ReceiveWindow()
    intake.measure(1.0, 1.0)
    assert intake.size == LEAST_WINDOW
    for _ in range(2000):
        intake.take(MOST_VALUE)
    intake.measure(1.0, 1.0)
    assert intake.size == MOST_WINDOW


def test_theWindowOfAShortWayStaysSmall() -> None:
    """
    Where round trips are short no stream needs a large window, however much comes; one
    that became large by mistake is made small again.
    """
    intake = ReceiveWindow()
    for _ in range(2000):
        intake.take(MOST_VALUE)
    intake.measure(0.001, 0.001)
    assert intake.size == 1_000_000
    intake.measure(0.0001, 0.0001)
    assert intake.size == LEAST_WINDOW


def test_theWindowDoesNotGrowWhileSomethingWaits() -> None:
    """
    A round trip that is more than twice as long as it could be has waited behind what is
    on the way: that is no reason for more.
    """
    intake = ReceiveWindow()
    for _ in range(100):
        intake.take(MOST_VALUE)
    intake.measure(0.21, 0.1)
    assert intake.size == LEAST_WINDOW


def transferred(size: int, seconds: float, rate: float) -> tuple[float, int]:
    """
    The seconds that a large message needs over a way, and the window after it.
    """
    pair = Pair()
    way = LongWay(pair, seconds, rate)
    pair.start()
    while way.turn():
        pass
    begin = way.now
    pair.queue.session.send(1, 1, bytes(size))
    while not pair.host.messages:
        assert way.turn()
    # Grants that are still under way.
    while way.turn():
        pass
    return way.now - begin, pair.host.session._incoming.window.size


def test_aLongWayIsFilled() -> None:
    """
    Over a fast link of 60 ms, 64 MB need a few round trips more than the link does.
    """
    seconds, _ = transferred(64 << 20, 0.03, 1e9)
    assert seconds < 0.067 + 14 * 0.06


def test_theWindowIsThatOfTheLink() -> None:
    """
    What would only wait on the way is not asked for: about twice what the link holds.
    """
    rate = 12.5e6
    seconds, window = transferred(32 << 20, 0.03, rate)
    assert seconds < 1.2 * (32 << 20) / rate
    assert rate * 0.06 <= window <= 6 * rate * 0.06


@pytest.mark.parametrize(
    ("seconds", "rate"), [(0.00005, 5e8), (0.0005, 1.25e8)], ids=["within a machine", "LAN"]
)
def test_aNearbyHostIsSentToAtFullRate(seconds: float, rate: float) -> None:
    """
    Where a round trip is about as long as a chunk, the sender need not stand still.
    """
    took, window = transferred(32 << 20, seconds, rate)
    assert took < 1.1 * (32 << 20) / rate
    assert window <= 1 << 19


def test_aShortWayIsNotFlooded() -> None:
    """
    Where a round trip takes no time, the window stays small.
    """
    _, window = transferred(32 << 20, 0.0001, 1e9)
    assert window <= 1 << 20


# What the other side gets wrong


def test_streamsBeginInOrder() -> None:
    """
    A stream of a later number is none.
    """
    with pytest.raises(RemoteProtocolError, match="stream 3 after 0"):
        Reassembler(LARGEST).chunk(3, b"x")


def test_aStreamThatHasEndedHasEnded() -> None:
    """
    Nothing follows the message of a stream.
    """
    outgoing = Outgoing()
    outgoing.send(1, 1, bytes(20_000))
    incoming = Reassembler(LARGEST)
    received(incoming, everything(outgoing))
    with pytest.raises(RemoteProtocolError, match="stream 1 after 1"):
        incoming.chunk(1, b"x")


def test_tooManyStreamsAreRefused() -> None:
    """
    More halves of messages than are allowed are not kept.
    """
    incoming = Reassembler(LARGEST)
    for stream in range(1, MOST_STREAMS + 1):
        incoming.chunk(stream, b"x")
    with pytest.raises(RemoteProtocolError, match="at once"):
        incoming.chunk(MOST_STREAMS + 1, b"x")


def test_aChunkWithoutDataIsRefused() -> None:
    """
    Such chunks would be boxes without end, and no window would bound them.
    """
    with pytest.raises(RemoteProtocolError, match="without data"):
        Reassembler(LARGEST).chunk(1, b"")


@pytest.mark.parametrize("cut", [1, 20, 30])
def test_aBatchHoldsWholeMessages(cut: int) -> None:
    """
    A message that is cut off in a batch is an error, not the begin of the next.
    """
    outgoing = Outgoing()
    outgoing.send(1, 1, b"x" * 20)
    outgoing.send(1, 2, b"y" * 20)
    [box] = parsed(outgoing.batches()[0])
    with pytest.raises(FrameError):
        Reassembler(LARGEST).batch(box[b"frames"][:-cut])


def test_aMessageThatIsAnnouncedTooLargeIsRefused() -> None:
    """
    It is refused with its first chunk: no memory is set aside for it.
    """
    outgoing = Outgoing()
    outgoing.send(1, 1, bytes(LARGEST + 1))
    outgoing.allowance = 1000
    [box] = parsed(outgoing.chunks(1)[0])
    with pytest.raises(FrameTooLarge):
        Reassembler(LARGEST).chunk(1, box[b"data"])


def test_twoMessagesInAStreamAreRefused() -> None:
    """
    A stream is one message.
    """
    outgoing = Outgoing()
    outgoing.send(1, 1, b"x")
    outgoing.send(1, 2, b"y")
    [box] = parsed(outgoing.batches()[0])
    with pytest.raises(RemoteProtocolError, match="more than one"):
        Reassembler(LARGEST).chunk(1, box[b"frames"])


@given(st.binary(max_size=300))
def test_garbageIsAnErrorOfTheWire(data: bytes) -> None:
    """
    Whatever comes in a batch or a chunk, only these two errors come out.
    """
    for take in (Reassembler(LARGEST).batch, lambda data: Reassembler(LARGEST).chunk(1, data)):
        try:
            take(data)
        except (FrameError, RemoteProtocolError):
            pass


def test_commandsHaveTheirNames() -> None:
    """
    A command is called on the wire as it is called here.
    """
    for command in (Beat, Chunk, Goodbye, Refuse):
        assert command.commandName.decode() == command.__name__
        assert command.requiresAnswer is False
