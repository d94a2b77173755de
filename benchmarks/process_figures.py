"""
What the contenders of the benchmarks of processes have in common: how much work
there is, and how figures are made of it.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterable
from pathlib import Path

WORKERS = 2

WARM_UP = 200
BURST = 100_000
# Slower contenders get a part of the burst; the rate is what counts.
PART_OF_BURST = 20_000
OUTSTANDING = 100
ONE_BY_ONE = 5_000

MEGA = 1_000_000
MEGABYTES = 200
ARRAY_BYTES = 64 * MEGA
ARRAYS = 10

CPU_TASKS = 2_000
CPU_SECONDS = 0.005

GENERATED = 100_000
MAPPED = 1_000_000
MAP_CHUNK = 100

LONG_SECONDS = 3
SHORT_TASKS = 500
SHORT_SECONDS = 0.001

REPLACED_AFTER = 5
REPLACED_TASKS = 40
REPLACED_SECONDS = 0.05

BACKLOG = 1_000
URGENT = 500
URGENT_EVERY = 0.02

SETTLE_SECONDS = 1
IDLE_SECONDS = 10

MANY = 1_000_000
MANY_OUTSTANDING = 10_000

Figures = dict[str, float]


def percentiles(times: list[float], unit: str = "us", perSecond: float = 1e6) -> Figures:
    """
    The median and the 99th percentile of times in seconds, in a unit of which a
    second has so many.
    """
    times = sorted(times)
    return {
        f"p50 {unit}": times[len(times) // 2] * perSecond,
        f"p99 {unit}": times[len(times) * 99 // 100] * perSecond,
    }


def stayOnOneCpu() -> None:
    """
    Keep this process on one CPU, and with it the threads and the processes that it
    will start.
    """
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def thereAndBack(trips: int, size: int, seconds: float) -> Figures:
    """
    The speed of so many bytes that went there and came back, counted both ways.
    """
    return {"MB/s": 2 * trips * size / seconds / MEGA}


def fractionOfIdeal(seconds: float) -> Figures:
    """
    How near the tasks that use a CPU came to two CPUs that do nothing else.
    """
    return {"of ideal": CPU_TASKS * CPU_SECONDS / WORKERS / seconds}


def residentMegabytes(pids: Iterable[int]) -> float:
    """
    The resident memory of processes.
    """
    pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids)
    return pages * resource.getpagesize() / MEGA


class Activity:
    """
    How often processes wake up, and how much they use of a CPU.
    """

    def __init__(self, children: Iterable[int]) -> None:
        self._pids = (os.getpid(), *children)
        self._before = self._counts()

    def _counts(self) -> tuple[int, int]:
        """
        All context switches and all ticks of a CPU so far.
        """
        switches = ticks = 0
        for pid in self._pids:
            # The name of the program, in parentheses, may have blanks.
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
            for status in Path(f"/proc/{pid}/task").glob("*/status"):
                for line in status.read_text().splitlines():
                    if "ctxt_switches" in line:
                        switches += int(line.split()[1])
        return switches, ticks

    def figures(self) -> Figures:
        """
        What happened since this was made.
        """
        switches, ticks = (
            now - before for now, before in zip(self._counts(), self._before, strict=True)
        )
        # The one that brings us here is not the contender's.
        return {"wake-ups": switches - 1, "cpu ms": ticks * 1e3 / os.sysconf("SC_CLK_TCK")}
