"""
How many cores a process may use.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from asynqueue.cores import cores

# As many as this process may have here; tests bind it to some of them at the most.
BOUND = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def system(root: Path, groups: str, files: dict[str, str]) -> str:
    """
    Make what a system says of control groups.

    @param groups: the groups of this process.
    @param files: what files below C{sys/fs/cgroup} say.
    """
    files = {"proc/self/cgroup": groups} | {
        f"sys/fs/cgroup/{name}": said for name, said in files.items()
    }
    for name, said in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(said)
    return str(root)


def test_noneButThoseThatItIsBoundTo(tmp_path: Path) -> None:
    """
    Where there is no quota it is they that count.
    """
    assert cores(str(tmp_path)) == BOUND
    assert 1 <= cores() <= BOUND


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system binds no processes")
def test_boundLater() -> None:
    """
    They are counted each time: a process may be bound at any time.
    """
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert cores() == 1
    finally:
        os.sched_setaffinity(0, before)


def test_withoutTheSystemsWord(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Not all systems bind processes to cores.
    """
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert cores(str(tmp_path)) == (os.cpu_count() or 1)


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        # The second version.
        ("0::/", {"cpu.max": "50000 100000"}, 1),
        ("0::/", {"cpu.max": "max 100000"}, None),
        ("0::/", {"cpu.max": "150000 100000"}, 2),
        # Its own group has none, but the one around it.
        ("0::/a/b", {"a/b/cpu.max": "max 100000", "a/cpu.max": "100000 100000"}, 1),
        # In a container, the path may be one that only the host has.
        ("0::/docker/0123", {"cpu.max": "100000 100000"}, 1),
        # The first version.
        (
            "5:memory:/x\n4:cpu,cpuacct:/x",
            {
                "cpu,cpuacct/x/cpu.cfs_quota_us": "100000",
                "cpu,cpuacct/x/cpu.cfs_period_us": "100000",
            },
            1,
        ),
        (
            "4:cpu,cpuacct:/x",
            {"cpu,cpuacct/cpu.cfs_quota_us": "-1", "cpu,cpuacct/cpu.cfs_period_us": "100000"},
            None,
        ),
        (
            "4:cpuacct,cpu:/x",
            {"cpu/x/cpu.cfs_quota_us": "100000", "cpu/x/cpu.cfs_period_us": "100000"},
            1,
        ),
        ("4:cpuset:/x", {"cpuset/cpu.cfs_quota_us": "1", "cpuset/cpu.cfs_period_us": "1"}, None),
        # What nobody expects is no quota.
        ("0::/", {"cpu.max": ""}, None),
        ("0::/", {"cpu.max": "100000 0"}, None),
        ("nothing", {"cpu.max": "100000 100000"}, None),
    ],
)
def test_theQuotaOfAControlGroup(
    tmp_path: Path, groups: str, files: dict[str, str], expected: int | None
) -> None:
    """
    It is rounded up to whole cores, and the least of all around a process counts.
    """
    found = cores(system(tmp_path, groups, files))
    assert found == (BOUND if expected is None else min(BOUND, expected))
