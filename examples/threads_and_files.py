"""
A pipeline of blocking code, none of which blocks the reactor or fills the memory.

    measurements ──▶ Consumerator ──▶ pack ──▶ Filerator ──▶ save
      (thread)        (reactor)     (thread)               (thread)

The one that is ahead waits for the one that is behind.
"""

import csv
import gzip
import io
import tempfile
from pathlib import Path

from twisted.internet.defer import gatherResults
from twisted.internet.task import LoopingCall, react

from asynqueue import Consumerator, Filerator, TaskQueue, ThreadWorker

ROWS = 50_000


def measurements(count):
    """
    Makes rows, one by one.
    """
    for n in range(count):
        yield n, n * n % 997, f"sensor {n % 7}"


def pack(rows, file):
    """
    Writes rows to anything that has a write(), here a file that nobody has.
    """
    with file, gzip.GzipFile(fileobj=file, mode="wb") as zipped:
        writer = csv.writer(io.TextIOWrapper(zipped, write_through=True))
        writer.writerows(rows)


def save(blocks, path):
    """
    Writes what comes to a disk, which may be slow.
    """
    with open(path, "wb") as file:
        return sum(file.write(block) for block in blocks)


async def main(reactor):
    beats = 0

    def beat():
        nonlocal beats
        beats += 1

    # What would stop if somebody blocked the reactor.
    heart = LoopingCall(beat)
    heart.start(0.01)

    queue = TaskQueue(ThreadWorker(threads=3))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "measurements.csv.gz"
        rows, file = Consumerator(), Filerator()
        *_, size = await gatherResults(
            [
                queue.call(measurements, ROWS, consumer=rows),
                queue.call(pack, rows, file),
                queue.call(save, file, path),
            ]
        )
        with gzip.open(path, "rt", newline="") as again:
            count = sum(1 for row in csv.reader(again))
    heart.stop()
    print(f"{count:,} rows in {size:,} bytes, while the heart of the reactor beat {beats} times")
    assert count == ROWS
    await queue.shutdown()


if __name__ == "__main__":
    react(main)
