"""
What the contenders of the benchmarks of the wire have in common.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.process_figures import MEGA

HOSTS = 2

BURST = 100_000
ONE_BY_ONE = 3_000

LARGE = 64 * MEGA
TRIPS = 5
# Stop-and-wait over a long line takes very long: a part of it tells the rate.
PART_OF_LARGE = 2 * MEGA
CHUNK = 64_000

DELAY_SECONDS = 0.030
GENERATED = 100_000

CONNECTIONS = 200
IDLE_SECONDS = 30

Figures = dict[str, float]


class Hosts:
    """
    Far processes, which end with this.
    """

    def __init__(self) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="wire-")
        self.processes: list[subprocess.Popen[str]] = []

    def path(self, name: str) -> str:
        """
        A path in a folder of its own.
        """
        return str(Path(self.folder.name) / name)

    def start(self, *command: str, **environment: str) -> str:
        """
        Start C{python -m command}, and wait until it says that it is ready.

        @return: the line in which it says so.
        """
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )
        self.processes.append(process)
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"{command} did not start")
        return line.strip()

    def pids(self) -> list[int]:
        """
        Their process IDs.
        """
        return [process.pid for process in self.processes]

    def __enter__(self) -> Hosts:
        return self

    def __exit__(self, *_: Any) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
        self.folder.cleanup()
