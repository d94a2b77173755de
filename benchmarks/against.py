"""
Today's AsynQueue beside an earlier revision of itself, in one run.

Both are measured by the same benchmarks, those of this folder.
"""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path
from statistics import median

from benchmarks.rounds import ROOT, Figures, runOnce, table

# What is measured of each contender: its figure, and whether more of it is better.
_CONTENDERS = {
    "queue alone": ("throughput:queueAlone", "calls/s", True),
    "NullQueue, all at once": ("throughput:nullQueue", "calls/s", True),
    "threads, all at once": ("throughput:threadQueue", "calls/s", True),
    "threads, one at a time": ("throughput:threadQueue", "p50 us", False),
    "bytes a queued task": ("backlog:queued", "bytes/task", False),
    "a call, a million queued": ("backlog:queued", "call us", False),
    "a dispatch, a million queued": ("backlog:queued", "dispatch us", False),
    "processes, all at once": ("process_reactor:oursBurst", "calls/s", True),
    "processes, 100 outstanding": ("process_reactor:outstanding", "calls/s", True),
    "processes, one at a time": ("process_reactor:oursLatency", "p50 us", False),
    "the same on one CPU": ("process_reactor:oursLatencyOnOneCpu", "p50 us", False),
    "1 MB there and back": ("process_reactor:oursMegabyte", "MB/s", True),
    "numpy array of 64 MB": ("process_reactor:numpy", "MB/s", True),
    "tasks of 5 ms": ("process_reactor:cpu", "of ideal", True),
    "generator in a process": ("process_reactor:generator", "items/s", True),
    "map of 1,000,000": ("process_reactor:mapped", "items/s", True),
    "short tasks behind a long one": ("process_reactor:longFirst", "seconds", False),
    "doNext under load, p99": ("process_reactor:doNext", "p99 ms", False),
    "first result of a process": ("process_reactor:oursFirst", "ms", False),
    "hosts, all at once": ("wire_ours:unixBurst", "calls/s", True),
    "hosts with TLS and key": ("wire_ours:tlsBurst", "calls/s", True),
    "hosts, one at a time": ("wire_ours:latency", "p50 us", False),
    "64 MB to a host and back": ("wire_ours:largeNear", "MB/s", True),
    "the same, 60 ms away": ("wire_ours:largeFarAway", "MB/s", True),
    "small calls beside 64 MB, p99": ("wire_ours:besideBytes", "p99 us beside", False),
    "generator, 60 ms away": ("wire_ours:generator", "items/s", True),
}


def against(revision: str, rounds: int, names: tuple[str, ...] = ()) -> str:
    """
    Compare the working tree with a revision, which take turns within each round.

    @param revision: what git calls it.
    @param names: the starts of the contenders to run, C{process_reactor:} say; none
        are all.
    @return: a table of medians; a ratio over 1 means that today's is better.
    """
    rows = {
        work: row
        for work, row in _CONTENDERS.items()
        if not names or row[0].startswith(tuple(names))
    }
    before = _checkout(revision)
    measured: dict[tuple[str, Path], list[Figures]] = {}
    for number in range(rounds):
        for contender in dict.fromkeys(row[0] for row in rows.values()):
            # Each has the first turn as often as the other.
            places = (before, ROOT) if number % 2 else (ROOT, before)
            for place in places:
                figures = runOnce(contender, folder=place)
                measured.setdefault((contender, place), []).append(figures)
    lines = []
    for work, (contender, key, moreIsBetter) in rows.items():
        old, new = (
            median(figures[key] for figures in measured[contender, place])
            for place in (before, ROOT)
        )
        ratio = new / old if moreIsBetter else old / new
        lines.append([f"{work}, {key}", f"{old:,.4g}", f"{new:,.4g}", f"{ratio:.2f}"])
    columns = ["work", revision, "today", "better by"]
    return table(f"Before and after, medians of {rounds} rounds", columns, lines)


def _checkout(revision: str) -> Path:
    """
    Unpack the package of a revision beside a link to the benchmarks of today.
    """
    command = ["git", "rev-parse", "--short", "--verify", f"{revision}^{{commit}}"]
    commit = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    folder = ROOT / "build" / f"before-{commit.stdout.strip()}"
    if not folder.exists():
        folder.mkdir(parents=True)
        command = ["git", "archive", revision, "asynqueue"]
        archive = subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout
        with tarfile.open(fileobj=io.BytesIO(archive)) as package:
            package.extractall(folder, filter="data")
        (folder / "benchmarks").symlink_to(ROOT / "benchmarks")
    return folder
