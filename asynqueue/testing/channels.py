"""
What a L{Channel<asynqueue.channels.Channel>} promises, as checks for anything that
stands for one; and a double that has no descriptor.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pickle import PickleBuffer
from time import monotonic
from typing import Any

from attrs import field, frozen

from asynqueue.errors import FrameInvalid, FrameTooLarge, FrameTruncated
from asynqueue.framing import LARGEST, MOST_BUFFERS, Decoder, Frame, checkSize, head, packed

_CHUNK = 1 << 14

# Messages in a row.
_MANY = 2000

_MEGABYTE = 1_000_000
_SIZES = (0, 1, 20, (1 << 16) - 1, 1 << 16, (1 << 16) + 1, _MEGABYTE, 20 * _MEGABYTE)


class _Pipe:
    """
    Bytes on their way from one end to the other.

    @ivar open: whether neither end is closed.
    """

    def __init__(self, capacity: int) -> None:
        self.data = bytearray()
        self.capacity = capacity
        self.open = True


class MemoryChannel:
    """
    One end of a connection that stays in this process, as L{memoryChannelPair} makes
    it. It is a L{Channel<asynqueue.channels.Channel>} without a descriptor: the test
    says when there is something to be received, or room to flush.

    @ivar unsent: how many pieces wait to be written.
    """

    def __init__(self, incoming: _Pipe, outgoing: _Pipe, limit: int = LARGEST) -> None:
        """
        @param incoming: what the other end writes to.
        @param outgoing: what the other end reads from.
        @param limit: how many bytes a message may have, either way.
        """
        self._incoming = incoming
        self._outgoing = outgoing
        self._limit = limit
        self._decoder = Decoder(limit)
        self._waiting: deque[memoryview] = deque()
        self._closed = False

    def fileno(self) -> int:
        """
        Return -1: there is no descriptor.
        """
        return -1

    @property
    def unsent(self) -> int:
        return len(self._waiting)

    def send(self, kind: int, number: int, body: Any, buffers: Sequence[Any] = ()) -> bool:
        """
        Send a message, as L{Channel.send<asynqueue.channels.Channel.send>} does.
        """
        parts = [PickleBuffer(part).raw() for part in (body, *buffers)]
        lengths = [part.nbytes for part in parts]
        checkSize(sum(lengths), self._limit)
        if not buffers:
            return self.write(packed(kind, number, bytes(body)))
        return self.write(b"".join([head(kind, number, lengths), *parts]))

    def write(self, data: bytes) -> bool:
        """
        Send what is framed already.
        """
        self._waiting.append(memoryview(data))
        return self.flush()

    def flush(self) -> bool:
        """
        Write what waits, as far as it fits.

        @raise OSError: either end is closed.
        """
        if self._closed:
            raise OSError(errno.EBADF, "this end is closed")
        pipe = self._outgoing
        while self._waiting:
            if not pipe.open:
                raise BrokenPipeError(errno.EPIPE, "the other end is closed")
            piece = self._waiting[0]
            room = pipe.capacity - len(pipe.data)
            pipe.data += piece[:room]
            if len(piece) > room:
                self._waiting[0] = piece[room:]
                return False
            self._waiting.popleft()
        return True

    def receive(self) -> list[Frame]:
        """
        Read what there is, once, as
        L{Channel.receive<asynqueue.channels.Channel.receive>} does.
        """
        pipe = self._incoming
        size = max(_CHUNK, self._decoder.missing)
        data = b"" if self._closed else bytes(pipe.data[:size])
        del pipe.data[: len(data)]
        if data:
            return self._decoder.feed(data)
        if pipe.open:
            return []
        self._decoder.finish()
        raise EOFError("the other end is closed")

    def close(self) -> None:
        """
        Close the connection. It may be called more than once.
        """
        self._closed = True
        self._incoming.open = self._outgoing.open = False
        self._waiting.clear()


def memoryChannelPair(
    limit: int = LARGEST, capacity: int = 1 << 16
) -> tuple[MemoryChannel, MemoryChannel]:
    """
    Both ends of a new connection.

    @param limit: how many bytes a message may have.
    @param capacity: how many bytes may be on their way to either end.
    """
    one, two = _Pipe(capacity), _Pipe(capacity)
    return MemoryChannel(one, two, limit), MemoryChannel(two, one, limit)


class ChannelTrial:
    """
    One check of channels, and what must be cleaned up after it.
    """

    def __init__(self, makePair: Callable[..., tuple[Any, Any]], seconds: float) -> None:
        self._makePair = makePair
        self._end = monotonic() + seconds
        self._made: list[Any] = []

    def pair(self, **kw: Any) -> tuple[Any, Any]:
        """
        Two new ends of one connection.
        """
        pair = self._makePair(**kw)
        self._made += pair
        return pair

    def turn(self) -> None:
        """
        Another turn of a loop, unless the time is up.
        """
        _require(monotonic() < self._end, "it takes too long")

    def filled(self, sender: Any, size: int) -> int:
        """
        Send messages of C{size} bytes until one does not fit any more.

        @return: how many there were; they are numbered, from 1.
        """
        count = 1
        while sender.send(1, count, _bytes(size)):
            self.turn()
            count += 1
        return count

    def carried(self, sender: Any, receiver: Any, count: int) -> list[Frame]:
        """
        Have both ends work until C{count} messages have come.
        """
        frames: list[Frame] = []
        while len(frames) < count or sender.unsent:
            self.turn()
            sender.flush()
            frames += receiver.receive()
        return frames

    def errorAtReceive(self, receiver: Any) -> Exception:
        """
        Return what is raised when everything that came is read.
        """
        while True:
            self.turn()
            try:
                receiver.receive()
            except Exception as error:
                # Which it is, is what the check is about.
                return error

    def end(self) -> None:
        """
        Leave nothing behind.
        """
        for channel in self._made:
            channel.close()


Body = Callable[[ChannelTrial], None]

_bodies: list[Body] = []


def _check(body: Body) -> Body:
    """
    Take a function for a check.
    """
    _bodies.append(body)
    return body


@frozen
class ChannelCheck:
    """
    One promise of a channel, to be checked by a call.

    @ivar name: its name, which is also its text.
    @ivar promise: what is promised, in a sentence.
    """

    name: str
    promise: str
    _body: Body = field(repr=False)
    _makePair: Callable[..., tuple[Any, Any]] = field(repr=False)
    _limit: float = field(repr=False)

    def __str__(self) -> str:
        return self.name

    def __call__(self) -> None:
        """
        Make new channels and check them.

        @raise AssertionError: the promise is not kept, or not within the time
            limit.
        """
        trial = ChannelTrial(self._makePair, self._limit)
        try:
            self._body(trial)
        finally:
            trial.end()


def channelChecks(
    makePair: Callable[..., tuple[Any, Any]], *, limit: float = 30.0
) -> list[ChannelCheck]:
    """
    Return the checks of what a L{Channel<asynqueue.channels.Channel>} promises. Each is
    called, and returns when the promise was kept::

        @pytest.mark.parametrize("check", channelChecks(makePair), ids=str)
        def test_myChannel(check):
            check()

    @param makePair: makes both ends of a new connection, neither of which may
        block. It takes the keyword C{limit}: how many bytes a message may have.
    @param limit: how many seconds a check may take.
    """
    return [
        ChannelCheck(body.__name__, " ".join((body.__doc__ or "").split()), body, makePair, limit)
        for body in _bodies
    ]


def checkChannel(makePair: Callable[..., tuple[Any, Any]], **kw: Any) -> int:
    """
    Run all checks, one after the other.

    @param kw: keywords of L{channelChecks}.
    @return: how many there were.
    @raise AssertionError: at the first promise that is not kept; or what the
        channel raised.
    """
    checks = channelChecks(makePair, **kw)
    for check in checks:
        try:
            check()
        except Exception as error:
            error.add_note(f"in the check {check.name}: {check.promise}")
            raise
    return len(checks)


# What checks are made of


def _expect(actual: Any, expected: Any, what: str) -> None:
    if actual != expected:
        raise AssertionError(f"{what} is {_short(actual)}, not {_short(expected)}")


def _require(condition: Any, what: str) -> None:
    if not condition:
        raise AssertionError(what)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else text[:197] + "..."


@contextmanager
def _refused(errorType: type[Exception], what: str) -> Iterator[None]:
    """
    Expect that what is done here raises this, or one of its kind.
    """
    try:
        yield
    except errorType:
        return
    raise AssertionError(f"{what} raised no {errorType.__name__}")


def _bytes(size: int) -> bytes:
    """
    Return C{size} bytes, not all of them equal.
    """
    return (bytes(range(251)) * (size // 251 + 1))[:size]


def _plain(frames: Sequence[Frame]) -> list[tuple[int, int, bytes, list[bytes]]]:
    """
    Messages that can be compared.
    """
    return [
        (kind, number, bytes(body), [bytes(buffer) for buffer in buffers])
        for kind, number, body, buffers in frames
    ]


def _descriptors() -> int:
    """
    Return how many files this process has open; 0 where that is not told.
    """
    for directory in ("/proc/self/fd", "/dev/fd"):
        if os.path.isdir(directory):
            return len(os.listdir(directory))
    return 0


# Messages


@_check
def keepsTheOrder(trial: ChannelTrial) -> None:
    """
    Messages arrive in the order in which they were sent, each as it was.
    """
    here, there = trial.pair()
    frames: list[Any] = []
    for number in range(_MANY):
        # Some go another way than those around them.
        size = _MEGABYTE // 10 if number % 500 == 250 else number % 99
        frames.append((number % 256, (1 << 64) - 1 - number, _bytes(size), []))
        here.send(*frames[-1])
    _require(_plain(trial.carried(here, there, _MANY)) == frames, "what came is not what was sent")


@_check
def carriesAnySize(trial: ChannelTrial) -> None:
    """
    Messages may be empty, or have many megabytes.
    """
    here, there = trial.pair()
    for size in _SIZES:
        body = _bytes(size)
        here.send(1, size, body)
        (_, number, came, buffers), *more = trial.carried(here, there, 1)
        _expect((number, list(buffers), more), (size, [], []), "what came with the body")
        _require(came == body, f"a body of {size:,} bytes is not what was sent")


@_check
def carriesBuffers(trial: ChannelTrial) -> None:
    """
    Buffers of any number and size arrive beside their body, each by itself.
    """
    here, there = trial.pair()
    for sizes in ((0,), (1, 0, 2), (63, 64, 65), (1 << 16, 0, 5 * _MEGABYTE), (3,) * 1000):
        frame = (2, 3, _bytes(len(sizes)), [_bytes(size) for size in sizes])
        here.send(*frame)
        _require(
            _plain(trial.carried(here, there, 1)) == [frame],
            f"buffers of {_short(sizes)} bytes are not what was sent",
        )


@_check
def buffersAreTheReceivers(trial: ChannelTrial) -> None:
    """
    Buffers that have come may be written to, stay when the channel is closed,
    and are not those of the sender, which may be changed as soon as all is sent.
    """
    here, there = trial.pair()
    for size in (100, _MEGABYTE):
        sent = bytearray(size)
        here.send(1, 1, b"", [sent])
        frames = []
        while not here.flush():
            trial.turn()
            frames += there.receive()
        sent[:] = b"s" * size
        ((_, _, _, (came,)),) = frames or trial.carried(here, there, 1)
        _require(bytes(came) == bytes(size), "what was changed after it was sent has come")
        came[:] = b"r" * size
        _require(sent == b"s" * size, "what the receiver wrote is with the sender")
    here.close()
    there.close()
    _require(bytes(came) == b"r" * size, "it went with the channel")


@_check
def goesBothWaysAtOnce(trial: ChannelTrial) -> None:
    """
    Both ends may send before either receives.
    """
    here, there = trial.pair()
    frames: list[Any] = [(1, number, _bytes(_MEGABYTE // 5 * number), []) for number in range(5)]
    for frame in frames:
        here.send(*frame)
        there.send(*frame)
    one: list[Frame] = []
    other: list[Frame] = []
    while min(len(one), len(other)) < len(frames):
        trial.turn()
        here.flush()
        there.flush()
        one += here.receive()
        other += there.receive()
    _require(_plain(one) == _plain(other) == frames, "what came is not what was sent")


@_check
def nothingIsNoMessage(trial: ChannelTrial) -> None:
    """
    Where nothing has come, there is no message, and no waiting.
    """
    here, there = trial.pair()
    _expect((here.receive(), there.receive()), ([], []), "what came")
    here.write(packed(1, 2, b"three")[:-1])
    _expect(there.receive(), [], "what came of a part")
    here.write(b"e")
    _expect(_plain(there.receive()), [(1, 2, b"three", [])], "what came of the whole")


# A receiver that does not read


@_check
def keepsWhatDoesNotFit(trial: ChannelTrial) -> None:
    """
    While the other end does not read, send says that not all is written, and
    keeps it; it is flushed as the other end reads.
    """
    here, there = trial.pair()
    _expect((here.unsent, here.flush()), (0, True), "what waits at first, and its flush")
    count = trial.filled(here, 10_000)
    _require(here.unsent > 0, "nothing waits, though not all is written")
    for _ in range(3):
        count += 1
        _require(not here.send(1, count, _bytes(100_000)), "it was written before what waits")
    _require(not here.flush(), "all is flushed, though the other end did not read")
    frames = trial.carried(here, there, count)
    _expect([number for _, number, _, _ in frames], list(range(1, count + 1)), "what came")
    _expect((here.unsent, here.flush()), (0, True), "what waits at last, and its flush")


# Ends


@_check
def sendingToNobodyFails(trial: ChannelTrial) -> None:
    """
    When the other end is gone, sending is an OSError and receiving an EOFError.
    """
    here, there = trial.pair()
    there.close()
    for size in (0, 100, _MEGABYTE):
        with _refused(OSError, "sending to nobody"):
            here.send(1, 1, _bytes(size))
    for _ in range(2):
        with _refused(EOFError, "receiving from nobody"):
            here.receive()


@_check
def flushingToNobodyFails(trial: ChannelTrial) -> None:
    """
    When the other end goes before it has read all, flushing the rest is an
    OSError, and receiving ends.
    """
    here, there = trial.pair()
    trial.filled(here, 10_000)
    there.close()
    with _refused(OSError, "flushing to nobody"):
        here.flush()
    _require(isinstance(trial.errorAtReceive(here), EOFError), "it does not end")


@_check
def lastWordsAreHeard(trial: ChannelTrial) -> None:
    """
    What was sent before the end was closed still arrives; then comes EOFError.
    """
    here, there = trial.pair()
    here.send(1, 1, b"last")
    here.send(1, 2, b"words")
    here.close()
    frames: list[Frame] = []
    try:
        while True:
            trial.turn()
            frames += there.receive()
    except EOFError as error:
        _require(not isinstance(error, FrameTruncated), "it ended in the middle of a message")
    _expect([body for _, _, body, _ in frames], [b"last", b"words"], "what came")


@_check
def truncatedIsToldApart(trial: ChannelTrial) -> None:
    """
    When the other end goes in the middle of a message, that is FrameTruncated.
    """
    whole = packed(1, 1, _bytes(200_000))
    for sent in (1, 19, 20, 21, 100):
        here, there = trial.pair()
        here.write(packed(1, 0, b"") + whole[:sent])
        here.close()
        error = trial.errorAtReceive(there)
        _expect(type(error), FrameTruncated, f"what was raised after {sent} bytes")


@_check
def tooLargeIsNotSent(trial: ChannelTrial) -> None:
    """
    A message of more bytes than the limit is FrameTooLarge, and nothing of it is
    sent; one of exactly that many is.
    """
    here, there = trial.pair(limit=100_000)
    for sizes in ((100_001,), (99_999, 2), (_MEGABYTE,), (0, _MEGABYTE)):
        body, *buffers = map(_bytes, sizes)
        with _refused(FrameTooLarge, f"sending {sum(sizes):,} bytes"):
            here.send(1, 1, body, buffers)
    _expect((here.unsent, there.receive()), (0, []), "what was sent")
    here.send(1, 2, _bytes(100_000))
    here.send(1, 3, b"", [_bytes(100_000)])
    frames = trial.carried(here, there, 2)
    _expect([number for _, number, _, _ in frames], [2, 3], "what came of what is allowed")


@_check
def tooLargeIsNotReceived(trial: ChannelTrial) -> None:
    """
    A message that is announced with more bytes than the limit is FrameTooLarge,
    before it comes.
    """
    for lengths in ([100_001], [0, 1 << 60]):
        here, there = trial.pair(limit=100_000)
        here.write(head(1, 1, lengths))
        error = trial.errorAtReceive(there)
        _expect(type(error), FrameTooLarge, "what was raised")


@_check
def garbageIsRefused(trial: ChannelTrial) -> None:
    """
    What is no message is FrameInvalid.
    """
    shared = head(1, 1, [5], shared=True)
    for garbage in (b"\x00" * 19 + b"\x80", shared):
        here, there = trial.pair()
        here.write(garbage)
        _expect(type(trial.errorAtReceive(there)), FrameInvalid, "what was raised")


@_check
def unfitBuffersAreNotSent(trial: ChannelTrial) -> None:
    """
    Too many buffers, or one that is not contiguous, are refused, and nothing of
    the message is sent.
    """
    here, there = trial.pair()
    with _refused(FrameInvalid, "sending too many buffers"):
        here.send(1, 1, b"", [b""] * (MOST_BUFFERS + 1))
    with _refused(BufferError, "sending a buffer with holes"):
        here.send(1, 2, b"", [memoryview(bytes(100))[::2]])
    here.send(1, 3, b"")
    _expect(_plain(trial.carried(here, there, 1)), [(1, 3, b"", [])], "what came")


@_check
def closesTwice(trial: ChannelTrial) -> None:
    """
    A channel may be closed more than once. Then it has no descriptor, nothing
    waits, sending is an OSError and receiving an EOFError.
    """
    here, there = trial.pair()
    trial.filled(here, 10_000)
    for channel in (here, there, here, there):
        channel.close()
    for channel in (here, there):
        _expect((channel.fileno(), channel.unsent), (-1, 0), "the descriptor, and what waits")
        for size in (0, _MEGABYTE):
            with _refused(OSError, "sending through what is closed"):
                channel.send(1, 1, _bytes(size))
        with _refused(EOFError, "receiving from what is closed"):
            channel.receive()


@_check
def leavesNothingOpen(trial: ChannelTrial) -> None:
    """
    When both ends are closed, nothing of theirs is left open: not what was
    received, not what was sent and not read, not what was not even sent.
    """
    before = _descriptors()
    here, there = trial.pair()
    for number in range(10):
        here.send(1, number, b"", [_bytes(_MEGABYTE)])
    frames = trial.carried(here, there, 3)
    del frames
    trial.filled(here, _MEGABYTE // 10)
    here.send(1, 1, _bytes(_MEGABYTE))
    here.write(packed(1, 1, _bytes(_MEGABYTE)))
    there.receive()
    here.close()
    there.close()
    with _refused(OSError, "sending through what is closed"):
        here.send(1, 1, _bytes(_MEGABYTE))
    _expect(_descriptors(), before, "the number of open files")
