"""
The same queue where the program runs on asyncio: a program of its own, because
a process has one reactor.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.process_checks import complaints

PROGRAM = Path(__file__).with_name("asyncio_program.py")

# Seconds after which the program hangs.
PATIENCE = 60


def partsOf(program: Path) -> list[str]:
    """
    The names of what the program can do.
    """
    lines = program.read_text(encoding="utf-8").splitlines()
    prefix = "async def do"
    return [line.split("(")[0].removeprefix(prefix) for line in lines if line.startswith(prefix)]


@pytest.mark.parametrize("part", partsOf(PROGRAM))
def test_onAsyncio(part: str) -> None:
    """
    What the docstring of that part of the program says.
    """
    ran = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", str(PROGRAM), part],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (ran.returncode, ran.stdout, complaints(ran.stderr)) == (0, "done\n", "")
