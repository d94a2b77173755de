"""
What programs whose own functions, classes and globals are used in processes are promised.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = Path(__file__).with_name("main_program.py")
SECONDS = 120

# What it prints, in the order of its promises.
PROMISES = {
    "instance": "True 1000",
    "inner": "True",
    "slots": "True",
    "enum": "True",
    "class": "True",
    "function": "True",
    "exception": "True",
    "local": "True 3",
    "cache": "13530 6765",
    "newtype": "7 True",
    "default": "True False",
    "sentinel": "True",
    "sentinel back": "True True",
    "dispatch": "['int', 'any']",
    "global": "1 2",
    "containers": "(1, 1) (2, 2)",
    "helper": "old new",
    "class method": "1 2",
    "class attribute": "none new",
    "partial": "1 2",
    "bound": "1 2",
    "argument": "1 2",
    "back again": "1",
    "in order": "[1, 1, 1, 5]",
    "update": "5 5",
    "initializer": "7",
    "map": "[5, 5, 5]",
    "instances mapped": "[True, True]",
    "spawned": "1 True",
    "executor": "True 1000 13530",
    "executor's global": "5 5",
    "executor's sentinel": "True True True True",
    "executor's class": "first second",
    "host": "True 1000 13530",
    "host's global": "5 5",
    "host's sentinel": "True True True True",
    "host's class": "first second",
    "host later": "0 1",
    "forks": "True True True",
    "fork's exception": "True",
}


@pytest.fixture(scope="module")
def lines() -> list[str]:
    """
    What the program prints.
    """
    done = subprocess.run(
        [sys.executable, PROGRAM],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    print(done.stderr)
    return done.stdout.splitlines()


@pytest.mark.parametrize("name", PROMISES)
def test_namesOfTheProgramMeanOneThing(lines: list[str], name: str) -> None:
    """
    In each process a name of the main program means one object, which is the program's as
    it is when the call is made; and what comes back under that name is the program's own.
    """
    assert f"{name} {PROMISES[name]}" in lines


def test_globalsThatCannotBePickledAreNamed(lines: list[str]) -> None:
    """
    The error names the function, its global, and what can be done.
    """
    line = next(line for line in lines if line.startswith("lock "))
    assert "locked() uses the global LOCK" in line
    assert "initializer" in line
