"""
What L{asynqueue.channels} promises: messages between two processes arrive whole,
and nothing of them is left behind.
"""

from __future__ import annotations

import errno
import os
import pickle
import socket
from collections.abc import Callable
from threading import Thread
from typing import Any

import pytest

from asynqueue.channels import Channel, channelPair
from asynqueue.errors import FrameInvalid, FrameTruncated
from asynqueue.framing import head, packed
from asynqueue.segments import anonymousFile
from asynqueue.testing.channels import (
    ChannelCheck,
    MemoryChannel,
    channelChecks,
    checkChannel,
    memoryChannelPair,
)

# Goes through a shared segment.
LARGE = bytes(range(250)) * 400

HUGE = 1 << 40


def narrowPair(**kw: Any) -> tuple[Channel, Channel]:
    """
    Both ends of a connection that takes little at once.
    """
    here, there = socket.socketpair()
    for end in (here, there):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        end.setblocking(False)
    return Channel(here, **kw), Channel(there, **kw)


def inlinePair(**kw: Any) -> tuple[Channel, Channel]:
    """
    Both ends of a connection without shared segments.
    """
    return channelPair(sharedFrom=HUGE, **kw)


def narrowInlinePair(**kw: Any) -> tuple[Channel, Channel]:
    """
    The same, and it takes little at once.
    """
    return narrowPair(sharedFrom=HUGE, **kw)


def sharedPair(**kw: Any) -> tuple[Channel, Channel]:
    """
    Both ends of a connection that shares everything.
    """
    return channelPair(sharedFrom=0, **kw)


def keptPair(**kw: Any) -> tuple[Channel, Channel]:
    """
    Both ends of a connection that shares everything, in segments that are used again.
    """
    pair = sharedPair(**kw)
    for end in pair:
        end.segments.most = 1 << 20
    return pair


def pipedPair(**kw: Any) -> tuple[Channel, Channel]:
    """
    Both ends of a connection whose messages go through pipes.
    """
    here, there = socket.socketpair()
    pipes = os.pipe(), os.pipe()
    for end in (here, there, *pipes[0], *pipes[1]):
        os.set_blocking(end if isinstance(end, int) else end.fileno(), False)
    (inlet, farOutlet), (farInlet, outlet) = pipes
    one = Channel(here, inlet=inlet, outlet=outlet, **kw)
    return one, Channel(there, inlet=farInlet, outlet=farOutlet, **kw)


def pipedSharedPair(**kw: Any) -> tuple[Channel, Channel]:
    """
    The same, and all that is sent is shared.
    """
    return pipedPair(sharedFrom=0, **kw)


def smallMemoryPair(**kw: Any) -> tuple[MemoryChannel, MemoryChannel]:
    """
    Doubles that take little at once.
    """
    return memoryChannelPair(capacity=5000, **kw)


PAIRS = [
    channelPair,
    narrowPair,
    inlinePair,
    narrowInlinePair,
    sharedPair,
    keptPair,
    pipedPair,
    pipedSharedPair,
    memoryChannelPair,
    smallMemoryPair,
]
CHECKS = [
    pytest.param(check, id=f"{check}-{makePair.__name__}")
    for makePair in PAIRS
    for check in channelChecks(makePair)
]


@pytest.mark.parametrize("check", CHECKS)
def test_channelsConform(check: ChannelCheck) -> None:
    """
    Channels of any kind, and their double, keep what is promised of channels.
    """
    check()


# The suite itself ------------------------------------------------------------------


def test_suiteTellsWhatIsBroken() -> None:
    """
    The suite fails with the name and the promise of what is not kept.
    """

    class Forgetful(MemoryChannel):
        """
        Loses what does not fit.
        """

        def flush(self) -> bool:
            super().flush()
            self._waiting.clear()
            return True

    def makePair(**kw: Any) -> tuple[MemoryChannel, MemoryChannel]:
        here, there = memoryChannelPair(**kw)
        here.__class__ = Forgetful
        return here, there

    with pytest.raises(AssertionError, match="too long") as caught:
        checkChannel(makePair, limit=0.1)
    (note,) = caught.value.__notes__
    assert note.startswith("in the check keepsTheOrder: Messages arrive in the order")


def test_suiteCounts() -> None:
    """
    The suite says how many checks were passed.
    """
    assert checkChannel(memoryChannelPair) == len(channelChecks(memoryChannelPair))


def test_suiteSeesWhatIsNotRefused() -> None:
    """
    A channel that takes messages of any size does not pass.
    """

    def boundless(limit: int = HUGE) -> tuple[MemoryChannel, MemoryChannel]:
        return memoryChannelPair()

    checks = {check.name: check for check in channelChecks(boundless, limit=0.1)}
    with pytest.raises(AssertionError, match="sending 100,001 bytes raised no FrameTooLarge"):
        checks["tooLargeIsNotSent"]()
    with pytest.raises(AssertionError, match="too long"):
        checks["tooLargeIsNotReceived"]()


def test_suiteSeesWhatIsInDisorder() -> None:
    """
    A channel that gives messages in another order does not pass.
    """

    class Hasty(MemoryChannel):
        def receive(self) -> Any:
            return super().receive()[::-1]

    def hasty(**kw: Any) -> tuple[MemoryChannel, MemoryChannel]:
        here, there = memoryChannelPair(**kw)
        there.__class__ = Hasty
        return here, there

    checks = {check.name: check for check in channelChecks(hasty)}
    with pytest.raises(AssertionError, match="what came is not what was sent"):
        checks["keepsTheOrder"]()


def test_suiteShortensWhatItShows() -> None:
    """
    What is not as it was promised is shown, and no megabytes of it.
    """

    def talkative(**kw: Any) -> tuple[MemoryChannel, MemoryChannel]:
        here, there = memoryChannelPair(**kw)
        here.send(1, 1, bytes(10_000))
        here.receive = there.receive  # type: ignore[method-assign]
        return here, there

    checks = {check.name: check for check in channelChecks(talkative)}
    with pytest.raises(AssertionError, match=r"what came is \(\[\(1, 1.*\.\.\., not") as caught:
        checks["nothingIsNoMessage"]()
    assert len(str(caught.value)) < 500


def test_suiteDoesWithoutCountingDescriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Where the system does not tell which files are open, none are counted.
    """
    monkeypatch.setattr(os.path, "isdir", lambda path: False)
    (check,) = (c for c in channelChecks(channelPair) if c.name == "leavesNothingOpen")
    check()


# Shared segments -------------------------------------------------------------------


def descriptors() -> int:
    """
    How many files this process has open.
    """
    return len(os.listdir("/dev/fd"))


@pytest.fixture
def ends() -> Any:
    """
    Ends that are closed when the test is over.
    """
    ends: list[Any] = []
    yield ends
    for end in ends:
        end.close()


@pytest.fixture
def pair(ends: list[Any]) -> Any:
    """
    A connection that shares what is large.
    """
    ends += channelPair()
    return ends


@pytest.fixture
def raw(ends: list[Any]) -> Any:
    """
    A socket, and the channel at the other end.
    """
    here, there = socket.socketpair()
    there.setblocking(False)
    ends += here, Channel(there)
    return ends


def test_segmentsThatNeverCameAreMissed(ends: list[Any]) -> None:
    """
    A message that announces a segment, where none was sent over the connection before, is none.
    """
    here, there = socket.socketpair()
    inlet, outlet = os.pipe()
    channel = Channel(there, inlet=inlet)
    ends += here, channel
    there.setblocking(False)
    os.write(outlet, head(1, 1, [5], shared=True))
    os.close(outlet)
    with pytest.raises(FrameInvalid, match="none has come"):
        channel.receive()


def test_pipesAreWatchedEachForItsOwn(ends: list[Any]) -> None:
    """
    A channel says which descriptor tells of what comes, which of room for what goes, and none
    once it is closed.
    """
    here, there = ends[:] = pipedPair()
    assert len({here.fileno(), here.outgoing, there.fileno(), there.outgoing}) == 4
    assert here.descriptors == {here.fileno(), here.outgoing}
    here.close()
    assert (here.fileno(), here.outgoing, here.descriptors) == (-1, -1, set())


@pytest.mark.bulk
def test_withoutMemfdFilesAreUsed(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Where the system has no anonymous memory, files without names serve as well.
    """
    monkeypatch.delattr(os, "memfd_create", raising=False)
    descriptor = anonymousFile()
    try:
        assert not os.get_inheritable(descriptor)
        assert os.fstat(descriptor).st_nlink == 0
    finally:
        os.close(descriptor)
    assert checkChannel(sharedPair)


def test_segmentsAreNotInherited() -> None:
    """
    A child that executes something else has no descriptor of a segment.
    """
    descriptor = anonymousFile()
    try:
        assert not os.get_inheritable(descriptor)
    finally:
        os.close(descriptor)


def test_segmentThatCannotBeWrittenIsNotSent(pair: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    When there is no memory for a segment, nothing is sent and nothing left open.
    """
    here, there = pair

    def noSpace(*args: Any) -> int:
        raise OSError(errno.ENOSPC, "no space")

    before = descriptors()
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", noSpace)
        with pytest.raises(OSError, match="no space"):
            here.send(1, 1, LARGE)
    assert (descriptors(), here.unsent) == (before, 0)
    here.send(1, 2, LARGE)
    ((_, number, body, _),) = there.receive()
    assert (number, body) == (2, LARGE)


def test_segmentIsWrittenInParts(pair: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A system that writes less than it was asked to is asked again.
    """
    here, there = pair
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: pwrite(fd, data[:7000], at))
    here.send(1, 1, LARGE, [LARGE[::-1]])
    ((_, _, body, (buffer,)),) = there.receive()
    assert (body, buffer) == (LARGE, LARGE[::-1])


def test_segmentsAreGivenBackWithSmallMessages(ends: list[Any]) -> None:
    """
    Where all that is large goes one way, a few segments serve for any number of messages.
    """
    here, there = ends[:] = channelPair()
    here.segments.most = there.segments.most = 1 << 20
    for number in range(20):
        here.send(1, number, LARGE)
        ((_, _, body, _),) = there.receive()
        assert body == LARGE
        del body
        there.send(2, number, b"small")
        assert here.receive() == [(2, number, b"small", ())]
    assert (here.segments.made, there.segments.made) == (2, 0)


def test_segmentsGoWithTheirChannel(ends: list[Any]) -> None:
    """
    A channel that is closed keeps no segment; what came in one can still be read.
    """
    before = descriptors()
    here, there = channelPair()
    here.segments.most = there.segments.most = 1 << 20
    here.send(1, 1, LARGE)
    ((_, _, body, _),) = there.receive()
    here.close()
    there.close()
    assert body == LARGE
    del body
    assert descriptors() == before


def test_segmentOfAnotherSizeIsRefused(raw: Any) -> None:
    """
    A segment that has not the size of what it is to contain is FrameInvalid, and
    not left open.
    """
    sender, channel = raw
    descriptor = anonymousFile()
    os.ftruncate(descriptor, 100)
    socket.send_fds(sender, [head(1, 1, [5000], shared=True)], [descriptor])
    os.close(descriptor)
    before = descriptors()
    with pytest.raises(FrameInvalid, match="a segment of 100 bytes, where 5,056"):
        channel.receive()
    assert descriptors() == before


def test_segmentMayComeBeforeItsFrameIsWhole(raw: Any) -> None:
    """
    A segment comes with the first byte of its frame, and waits for the rest.
    """
    sender, channel = raw
    descriptor = anonymousFile()
    os.pwrite(descriptor, b"x" * 64, 0)
    begin = head(1, 1, [60], shared=True)
    socket.send_fds(sender, [begin[:1]], [descriptor])
    os.close(descriptor)
    assert channel.receive() == []
    sender.send(begin[1:])
    assert [bytes(body) for _, _, body, _ in channel.receive()] == [b"x" * 60]


def test_segmentOfNoFrameIsClosed(raw: Any) -> None:
    """
    Segments whose frames never came are closed with the channel.
    """
    sender, channel = raw
    descriptor = anonymousFile()
    before = descriptors()
    socket.send_fds(sender, [b"x"], [descriptor])
    os.close(descriptor)
    channel.receive()
    assert descriptors() == before
    channel.close()
    assert descriptors() == before - 2


def test_lostSegmentHarmsItsMessageOnly(raw: Any, fewFiles: Callable[[int], None]) -> None:
    """
    When a segment cannot be received because too many files are open, the body of its
    message says so as it is loaded, and the next segment is not taken for it.
    """
    sender, channel = raw
    segments = [anonymousFile() for _ in range(2)]
    for number, segment in enumerate(segments):
        os.pwrite(segment, bytes([number]) * 64, 0)
        socket.send_fds(sender, [head(1, number, [64], shared=True)], [segment])
    fewFiles(0)
    ((_, number, body, buffers),) = channel.receive()
    fewFiles(8)
    assert (number, buffers) == (0, ())
    with pytest.raises(OSError, match="too many files are open"):
        pickle.loads(body)
    ((_, number, body, _),) = channel.receive()
    assert (number, bytes(body)) == (1, b"\1" * 64)
    for segment in segments:
        os.close(segment)


def test_segmentThatCannotBeMappedIsCopied(raw: Any, fewFiles: Callable[[int], None]) -> None:
    """
    Where no descriptor is left to map a segment with, its contents are copied.
    """
    sender, channel = raw
    descriptor = anonymousFile()
    os.pwrite(descriptor, b"x" * 64, 0)
    socket.send_fds(sender, [head(1, 1, [64], shared=True)], [descriptor])
    fewFiles(1)
    ((_, _, body, _),) = channel.receive()
    assert bytes(body) == b"x" * 64
    os.close(descriptor)


def test_lostSegmentIsNotClosed(raw: Any, fewFiles: Callable[[int], None]) -> None:
    """
    A channel can be closed when the last segment that came was lost, before its message
    was complete.
    """
    sender, channel = raw
    descriptor = anonymousFile()
    fewFiles(0)
    socket.send_fds(sender, [head(1, 1, [64], shared=True)[:8]], [descriptor])
    assert channel.receive() == []
    channel.close()
    os.close(descriptor)


def test_moreMayBeKeptThanFilesMayBeOpen(pair: Any) -> None:
    """
    Programs may keep any number of large messages: beyond some, those hold no
    descriptor, and can be written to like the others.
    """
    here, there = pair
    before = descriptors()
    kept = []
    for number in range(200):
        here.send(1, number, b"", [number.to_bytes(1, "big") * 100_000])
        kept += there.receive()
    assert descriptors() <= before + 128
    for number, (_, _, _, (buffer,)) in enumerate(kept):
        assert (buffer[0], buffer[-1]) == (number, number)
        buffer[0] = 1
    del kept, buffer
    assert descriptors() == before


@pytest.mark.skipif(not hasattr(socket, "SO_PASSCRED"), reason="Linux tells who sends")
def test_otherAncillaryDataIsPassedOver(ends: list[Any]) -> None:
    """
    What comes along and is no descriptor is not taken for one.
    """
    here, there = ends[:] = channelPair(sharedFrom=0)
    with socket.socket(fileno=os.dup(there.fileno())) as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    here.send(1, 1, b"body")
    assert [bytes(body) for _, _, body, _ in there.receive()] == [b"body"]


# What is particular -----------------------------------------------------------------


@pytest.mark.parametrize("sharedFrom", [0, HUGE])
def test_buffersOfAnyTypeAreBytes(sharedFrom: int, ends: list[Any]) -> None:
    """
    Buffers are sent as bytes, whatever their items and their shape.
    """
    here, there = ends[:] = channelPair(sharedFrom=sharedFrom)
    square = memoryview(bytes(range(100))).cast("B", (10, 10))
    wide = memoryview(bytes(range(96))).cast("d")
    here.send(1, 1, b"body", [square, wide, bytearray(), square.cast("B")[:0]])
    ((_, _, _, buffers),) = there.receive()
    assert [bytes(buffer) for buffer in buffers] == [bytes(square), bytes(wide), b"", b""]


class Reluctant(socket.socket):
    """
    Says for some time that there is too much to carry.
    """

    refusals = 0
    number = 0

    def _refuse(self) -> None:
        if self.refusals:
            self.refusals -= 1
            raise OSError(self.number, "too much")

    def send(self, *args: Any) -> int:
        self._refuse()
        return super().send(*args)

    def sendmsg(self, *args: Any) -> int:
        self._refuse()
        return super().sendmsg(*args)


@pytest.mark.parametrize("body", [b"small", LARGE])
@pytest.mark.parametrize("number", [errno.ENOBUFS, errno.ETOOMANYREFS, errno.EAGAIN])
def test_tooMuchToCarryIsNoEnd(number: int, body: bytes, ends: list[Any]) -> None:
    """
    When the system has no room at the moment, the message waits to be flushed.
    """
    one, two = socket.socketpair()
    two.setblocking(False)
    reluctant = Reluctant(fileno=one.detach())
    here, there = ends[:] = Channel(reluctant), Channel(two)
    reluctant.number, reluctant.refusals = number, 3
    assert not here.send(1, 1, body)
    assert (here.unsent, there.receive()) == (1, [])
    assert not here.flush() or reluctant.refusals == 0
    while not here.flush():
        pass
    assert [bytes(come) for _, _, come, _ in there.receive()] == [body]


def test_blockingEndWaits(ends: list[Any]) -> None:
    """
    Over a socket that blocks, all is written when send returns, and receive waits
    for something.
    """
    one, two = socket.socketpair()
    here, there = ends[:] = Channel(one, sharedFrom=HUGE), Channel(two, sharedFrom=HUGE)
    body = bytes(3_000_000)
    sent: list[bool] = []
    sender = Thread(target=lambda: sent.append(here.send(1, 1, body)))
    sender.start()
    frames = []
    while not frames:
        frames += there.receive()
    sender.join(60)
    assert sent == [True]
    assert frames[0][2] == body


def test_endWithUnreadMessagesIsAnEnd(pair: Any) -> None:
    """
    An end that went without reading what it was sent is an end like any other,
    after its last words.
    """
    here, there = pair
    here.send(1, 1, b"never read")
    there.send(1, 2, b"last")
    there.close()
    assert here.receive() == [(1, 2, b"last", ())]
    with pytest.raises(EOFError) as caught:
        here.receive()
    assert not isinstance(caught.value, FrameTruncated)


def test_framedMessagesAreWrittenTogether(pair: Any) -> None:
    """
    Several framed messages may be written by one call, and are received by one.
    """
    here, there = pair
    assert here.write(b"".join(packed(1, number, b"") for number in range(3)))
    assert [number for _, number, _, _ in there.receive()] == [0, 1, 2]


def test_doubleHasAPlaceInMemory() -> None:
    """
    What is on its way between two doubles is bounded by their capacity.
    """
    here, there = memoryChannelPair(capacity=100)
    assert here.send(1, 1, bytes(80))
    assert not here.send(1, 2, bytes(80))
    assert (here.fileno(), here.unsent, there.unsent) == (-1, 1, 0)
    assert [number for _, number, _, _ in there.receive()] == [1]
    assert here.flush()
    assert [number for _, number, _, _ in there.receive()] == [2]
