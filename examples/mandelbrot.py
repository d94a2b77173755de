"""
A part of the Mandelbrot set, computed by all cores, written as it comes.

    row ─┐
    row ─┼▶ ProcessQueue ──▶ OrderedItemProducer ──▶ paint ──▶ PNG
    row ─┘   (processes)     (in order, reactor)    (thread)

Some rows take much longer than others, and they are done in any order. They are
painted in theirs, and none is kept for longer than that needs.

    python examples/mandelbrot.py --width 1920 --height 1080 --output set.png
"""

import argparse
import math
import struct
import tempfile
import time
import zlib
from pathlib import Path

from twisted.internet.defer import gatherResults
from twisted.internet.interfaces import IConsumer
from twisted.internet.task import react
from zope.interface import implementer

from asynqueue import OrderedItemProducer, ProcessQueue

# What is shown: the middle, and the width, of the complex plane.
CENTER = -0.7463 + 0.1102j
WIDTH = 0.011

# A point that is not far away after so many steps belongs to the set.
STEPS = 500

# The colours between which the others lie: those of points that go far away soon,
# and of those that take their time.
STOPS = (
    (9, 20, 52),
    (24, 82, 152),
    (112, 183, 214),
    (250, 244, 214),
    (240, 168, 48),
    (128, 34, 20),
)


def paletteOf(stops):
    """
    The colour of the set, and 255 between the stops.
    """
    colours = [(6, 6, 12)]
    for n in range(255):
        place = n / 254 * (len(stops) - 1)
        first = min(int(place), len(stops) - 2)
        share = place - first
        colours.append(
            tuple(
                round(a + share * (b - a))
                for a, b in zip(stops[first], stops[first + 1], strict=True)
            )
        )
    return colours


def row(y, width, height):
    """
    Compute a row of the picture: the number of the colour of each point. This runs
    in a process.
    """
    scale = WIDTH / width
    imaginary = (height / 2 - y - 0.5) * scale + CENTER.imag
    colours = bytearray(width)
    for x in range(width):
        c = complex((x + 0.5 - width / 2) * scale + CENTER.real, imaginary)
        if isInside(c):
            continue
        z = 0j
        for step in range(STEPS):
            z = z * z + c
            if z.real * z.real + z.imag * z.imag > 1000:
                # How far it went beyond, too: else there would be stripes.
                steps = step + 1 - math.log2(math.log(abs(z)) / math.log(2))
                share = (max(steps, 0) / STEPS) ** 0.42
                colours[x] = 1 + min(254, int(share * 255))
                break
    return bytes(colours)


def isInside(c):
    """
    Whether a point is in one of the two large parts of the set, which would take the
    longest.
    """
    x, y2 = c.real - 0.25, c.imag * c.imag
    q = x * x + y2
    return q * (q + x) <= y2 / 4 or (c.real + 1) ** 2 + y2 <= 1 / 16


@implementer(IConsumer)
class PNG:
    """
    Writes rows into a picture as they come: each is compressed and in the file before
    the next one is there.
    """

    def __init__(self, file, width, height, palette):
        self._file = file
        self._producer = None
        self._compressor = zlib.compressobj(9)
        file.write(b"\x89PNG\r\n\x1a\n")
        # Eight bits for each point, which are a number in the palette.
        self._chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0))
        self._chunk(b"PLTE", b"".join(map(bytes, palette)))

    def registerProducer(self, producer, streaming):
        if self._producer is not None:
            raise RuntimeError("one at a time")
        self._producer = producer

    def write(self, data):
        # 0: the row is as it is, and not told by its differences from another one.
        compressed = self._compressor.compress(b"\0" + data)
        self._data(compressed + self._compressor.flush(zlib.Z_SYNC_FLUSH))

    def unregisterProducer(self):
        self._producer = None
        self._data(self._compressor.flush())
        self._chunk(b"IEND", b"")

    def _data(self, data):
        self._chunk(b"IDAT", data)

    def _chunk(self, kind, data):
        check = zlib.crc32(kind + data)
        self._file.write(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check))


def paint(rows, picture):
    """
    Give rows to the picture. This runs in a thread, and may wait for the disk: the
    rows, which are made elsewhere, then wait for it.
    """
    picture.registerProducer(rows, True)
    painted = 0
    for data in rows:
        picture.write(data)
        painted += 1
    picture.unregisterProducer()
    return painted


async def draw(path, width, height):
    queue = ProcessQueue()
    producer = OrderedItemProducer()
    with path.open("wb") as file:
        await producer.start(paint, PNG(file, width, height, paletteOf(STOPS)))
        made = [producer.produceItem(queue.call, row, y, width, height) for y in range(height)]
        await gatherResults(made)
        painted = await producer.stop()
    await queue.shutdown()
    return painted


async def main(reactor):
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--width", type=int, default=280)
    parser.add_argument("--height", type=int, default=210)
    parser.add_argument("--output", type=Path, help="the picture to write")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = options.output or Path(folder) / "mandelbrot.png"
        started = time.perf_counter()
        painted = await draw(path, options.width, options.height)
        seconds = time.perf_counter() - started
        size = path.stat().st_size
    print(f"{painted} rows of {options.width} points in {seconds:.1f} s, {size:,} bytes")
    if options.output:
        print(f"written to {path}")


if __name__ == "__main__":
    react(main)
