"""
Programs that fork while their queues and pools work.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("fork_program.py")

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}

# Seconds after which something does not happen.
PATIENCE = 60

QUEUE = """\
fork next 2
fork waited 1
fork ran WorkerLost
exit 0
next 2
waited 1
ran None
"""

POOL = """\
fork runs ForkError
fork waits ForkError
fork next ForkError
fork anew 3
exit 0
ran None 1 2
"""


@pytest.mark.parametrize(
    ("part", "said"),
    [("processes", QUEUE), ("threads", QUEUE), ("pool", POOL), ("turned", POOL)],
    ids=["processes", "threads", "pool", "turned"],
)
def test_forkBeginsAnew(part: str, said: str) -> None:
    """
    In a fork, queues begin anew: what ran is lost there, what waits is done. A pool must be
    started anew, and raises until it is. The parent is not touched.
    """
    ran = subprocess.run(
        [sys.executable, str(PROGRAM), part],
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (ran.stdout, ran.stderr, ran.returncode) == (said, "", 0)
