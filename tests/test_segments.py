"""
Segments of shared memory: what is in them is nobody else's as long as somebody looks at it, and
they are used again when nobody does.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from asynqueue.errors import FrameInvalid
from asynqueue.segments import Segments, anonymousFile

SIZE = 1 << 17

ONE, TWO, THREE = (bytes([number]) * SIZE for number in (1, 2, 3))


def segments() -> int:
    """
    How many descriptors of segments this process has.
    """
    links = []
    for name in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):
            links.append(os.readlink(f"/proc/self/fd/{name}"))
    return sum("memfd:asynqueue" in link for link in links)


class Line:
    """
    Both ends of a channel, as far as segments are concerned.

    @ivar keys: the keys of the messages.
    """

    def __init__(self, most: int = 1 << 20) -> None:
        self.here = Segments(most)
        self.there = Segments(most)
        self.keys: list[int] = []

    def carry(self, data: bytes, back: bool = False) -> memoryview:
        """
        Send a message, there or back.

        @return: what comes.
        """
        near, far = (self.there, self.here) if back else (self.here, self.there)
        key, descriptor = near.fill([memoryview(data)], [0], len(data))
        self.keys.append(key)
        return far.claim(key, len(data), descriptor)

    @property
    def made(self) -> int:
        """
        How many segments there were.
        """
        return self.here.made + self.there.made


@pytest.fixture
def line() -> Iterator[Line]:
    """
    A line that keeps a megabyte, and leaves nothing open.
    """
    before = segments()
    line = Line()
    yield line
    line.here.clear()
    line.there.clear()
    assert segments() == before


def test_segmentsAreUsedAgain(line: Line) -> None:
    """
    A message goes in the segment of one that came, when nobody looks at that any longer, also if
    it is smaller.
    """
    assert line.carry(ONE) == ONE
    assert line.carry(TWO[:-5000], back=True) == TWO[:-5000]
    assert line.carry(THREE) == THREE
    assert len(set(line.keys)) == line.made == 1


def test_whatIsLookedAtStays(line: Line) -> None:
    """
    What came stays as it is, as long as there is a view of any part of it.
    """
    part = line.carry(ONE)[5:10]
    assert line.carry(TWO, back=True) == TWO
    assert part == ONE[5:10]
    del part
    assert line.carry(THREE, back=True) == THREE
    assert line.keys[2] == line.keys[0]


def test_whatIsNotOursIsNotWritten(line: Line) -> None:
    """
    What was sent is not written to before it has come back.
    """
    there = line.carry(ONE)
    line.carry(TWO)
    assert there == ONE
    assert len(set(line.keys)) == 2


def test_oneWaySegmentsAreGivenBack(line: Line) -> None:
    """
    Where messages come and none go, what is free is given back, and nothing else.
    """
    kept = line.carry(ONE)
    line.carry(TWO)
    line.carry(THREE)
    keys = line.there.release()
    assert keys == [line.keys[1]]
    assert line.there.release() == []
    line.here.regain([*keys, 5])
    line.carry(TWO)
    assert line.keys[3] == line.keys[1]
    assert kept == ONE


def test_aMuchLargerSegmentIsNotUsed(line: Line) -> None:
    """
    A small message takes no large segment.
    """
    line.carry(ONE)
    line.carry(TWO[: SIZE // 5], back=True)
    assert line.made == 2


@pytest.mark.parametrize(("most", "size"), [(0, 1000), (999, 1000), (1 << 20, 0)])
def test_whatIsNotKept(most: int, size: int) -> None:
    """
    Where nothing may be kept, and what is too large for it or empty, has a new segment each
    time.
    """
    before = segments()
    line = Line(most)
    for data in (ONE[:size], TWO[:size]):
        assert line.carry(data) == data
    assert (line.keys, line.made) == ([0, 0], 2)
    assert segments() == before


@pytest.mark.parametrize(("size", "most"), [(10, 6), (SIZE, 3)])
def test_whatIsKeptHasALimit(size: int, most: int) -> None:
    """
    A few segments are kept, of some bytes together: the latest.
    """
    line = Line(3 * SIZE)
    before = segments()
    views = [line.carry(ONE[:size]) for _ in range(10)]
    kept = segments() - before
    assert all(view == ONE[:size] for view in views)
    del views[:-1]
    line.carry(TWO[:size], back=True)
    assert line.keys[10] in line.keys[10 - most : 9]
    # A descriptor is kept, and one goes with each mapping until Python 3.13.
    assert kept <= 10 + 3 * most
    line.here.clear()
    line.there.clear()


def test_eitherEndMayForget(line: Line) -> None:
    """
    An end that has forgotten a segment learns of it anew when it comes again.
    """
    line.carry(ONE)
    line.here.clear()
    assert line.carry(TWO, back=True) == TWO
    assert line.carry(THREE) == THREE
    assert len(set(line.keys)) == 1


def test_aForkGoesOnLooking(line: Line) -> None:
    """
    What a fork of this process looks at stays as it is, though nobody here looks at it any
    longer.
    """
    there = line.carry(ONE)
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        os.read(reading, 1)
        os._exit(there != ONE)
    del there
    line.carry(TWO, back=True)
    os.write(writing, b"!")
    assert os.waitpid(pid, 0)[1] == 0
    assert len(set(line.keys)) == 2
    os.close(reading)
    os.close(writing)


def test_aSegmentThatIsTooSmallIsRefused(line: Line) -> None:
    """
    A segment with less than was announced is FrameInvalid, and not left open.
    """
    descriptor = anonymousFile()
    os.ftruncate(descriptor, 100)
    with pytest.raises(FrameInvalid, match="a segment of 100 bytes, where 200 were announced"):
        line.here.claim(5, 200, descriptor)


def test_withoutDescriptorsNothingIsKept(line: Line, fewFiles: Callable[[int], Any]) -> None:
    """
    Where no descriptor is free to keep a segment by, messages go all the same.
    """
    descriptors = []
    for data in (ONE, TWO):
        descriptor = anonymousFile()
        os.pwrite(descriptor, data, 0)
        descriptors.append(descriptor)
    for more, data, descriptor in zip((0, 1), (ONE, TWO), descriptors, strict=True):
        fewFiles(more)
        assert line.here.claim(5, SIZE, descriptor) == data
