"""
A universe for servers in processes of their own.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from asynqueue.wire.host.catalog import WireWorkerUniverse


class Trouble(Exception):
    """
    An exception of the user's.
    """


class Universe(WireWorkerUniverse):
    """
    What tests call.
    """

    def __init__(self, wireServer: Any = None) -> None:
        super().__init__(wireServer)
        self._count = 0

    def add(self, one: Any, two: Any) -> Any:
        """
        Something quick.
        """
        return one + two

    def pid(self) -> int:
        """
        Where this runs.
        """
        return os.getpid()

    def niceness(self) -> int:
        """
        How nice that is.
        """
        return os.nice(0)

    def count(self) -> tuple[int, int]:
        """
        How often this was called here, and where that is.
        """
        self._count += 1
        return os.getpid(), self._count

    def trouble(self) -> None:
        """
        Raise.
        """
        raise Trouble("as it should")

    def items(self, number: int) -> Iterator[int]:
        """
        Some items.
        """
        yield from range(number)

    def say(self, text: str) -> None:
        """
        Print something.
        """
        print(text, flush=True)

    def help(self) -> int:
        """
        Start a program that never ends.
        """
        helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
        # Nobody shall complain that it was not waited for.
        helper.returncode = 0
        return helper.pid

    def die(self) -> None:
        """
        End the process.
        """
        os.kill(os.getpid(), signal.SIGKILL)

    def pipe(self, path: str) -> str:
        """
        Say in a named pipe that this runs, and end when another has a line. To be called
        in a thread, or a process.
        """
        Path(f"{path}.begun").write_text("yes")
        return Path(path).read_text()

    def hang(self, path: str) -> None:
        """
        Block whatever runs this, for ever.
        """
        Path(f"{path}.begun").write_text("yes")
        while True:
            time.sleep(1000)

    def freeze(self, path: str) -> None:
        """
        Let nothing else of this process run, for hours: a search that has no end, which
        lets no other thread in.
        """
        Path(f"{path}.begun").write_text("yes")
        re.match("(a|a)*b", "a" * 60)
