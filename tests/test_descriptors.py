"""
The places of the standard descriptors.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from asynqueue.descriptors import aboveStandard, holdStandard

_PROGRAM = """
import os
from asynqueue.descriptors import aboveStandard, holdStandard
os.closerange(0, 2)
moved = aboveStandard(os.dup(2))
where = [os.readlink(f"/proc/self/fd/{number}") for number in range(2)]
os.write(2, repr((moved > 2, where, os.get_inheritable(0), os.get_inheritable(moved))).encode())
"""


@pytest.mark.measured
def test_held() -> None:
    """
    What takes the place of a closed standard descriptor is moved, and the null device is
    there from then on, also for other programs.
    """
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert done.stderr == repr((True, ["/dev/null"] * 2, True, False)).encode()


def test_untouched() -> None:
    """
    Where all of them are open, nothing is opened or moved.
    """
    before = os.listdir("/proc/self/fd")
    descriptor = os.dup(0)
    holdStandard()
    assert aboveStandard(descriptor) == descriptor
    os.close(descriptor)
    assert os.listdir("/proc/self/fd") == before
