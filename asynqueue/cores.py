"""
How many cores this process may use.

This module imports no Twisted.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from math import ceil
from pathlib import Path, PurePosixPath


def cores(root: str = "/") -> int:
    """
    Count the cores that this process may use: those that it is bound to, and not more than
    the quota of its control group is worth, rounded up. It is looked up anew each time.

    @param root: where C{proc} and C{sys} are, for tests.
    @return: 1 or more.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    bound = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    return max(1, min([bound, *(ceil(quota) for quota in _quotas(Path(root)))]))


def _quotas(root: Path) -> Iterator[float]:
    """
    Give the quotas of the control group of this process and of those around it, in cores.
    """
    for line in _read(root / "proc/self/cgroup").splitlines():
        # number:controllers:path, of which the second version has one, 0::path.
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        mounted = root / "sys/fs/cgroup"
        if number == "0" and not controllers:
            for folder in _around(mounted, path):
                quota, _, period = _read(folder / "cpu.max").partition(" ")
                yield from _quota(quota, period)
        elif "cpu" in controllers.split(","):
            # Where the folder is named in another order, there is a link of this name.
            for name in (controllers, "cpu"):
                for folder in _around(mounted / name, path):
                    quota, period = (
                        _read(folder / f"cpu.cfs_{each}_us") for each in ("quota", "period")
                    )
                    yield from _quota(quota, period)


def _around(mounted: Path, path: str) -> Iterator[Path]:
    """
    Give the folders of a control group and of those around it. In a container the path may be one
    that only its host has: then the last of them is that of the container.
    """
    names = PurePosixPath(path.lstrip("/"))
    yield from (mounted / each for each in (names, *names.parents))


def _quota(quota: str, period: str) -> Iterator[float]:
    try:
        share = int(quota) / int(period)
    except (ValueError, ZeroDivisionError):
        # There is none, or "max".
        return
    # The first version says -1 where there is none.
    if share > 0:
        yield share


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, ValueError):
        # Other systems have no such file, and some do not let it be read.
        return ""
