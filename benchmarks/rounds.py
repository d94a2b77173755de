"""
Contenders in turn, each in an interpreter of its own, and their medians.

The machine may be shared and noisy. So contenders alternate within each round,
what is compared was measured in the same run, and ratios are what is quoted.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parent.parent

# AsynQueue 0.9.9 has the same package name, so it lives by itself.
OLD_VERSION = "0.9.9"
OLD_HOME = ROOT / "build" / f"asynqueue-{OLD_VERSION}"

Figures = dict[str, float]


def command(contender: str) -> list[str]:
    """
    How to run a contender: C{module:function} of ours, or a script for the old
    version.
    """
    if contender.startswith("old:"):
        script = Path(__file__).parent / contender.removeprefix("old:")
        return [str(oldPython()), str(script)]
    return [sys.executable, "-m", "benchmarks.contender", contender]


def oldPython() -> Path:
    """
    The interpreter that has AsynQueue 0.9.9, which is installed when missing.
    """
    python = OLD_HOME / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(OLD_HOME)], check=True)
        install = [str(python), "-m", "pip", "install", "-qq", f"asynqueue=={OLD_VERSION}"]
        subprocess.run(install, check=True)
    return python


def runOnce(contender: str, timeout: float = 600, folder: Path = ROOT) -> Figures:
    """
    Run a contender in a fresh interpreter.

    @param timeout: the seconds that it may take.
    @param folder: the folder that has the packages C{asynqueue} and C{benchmarks}.
    @return: the figures that it printed, as JSON, in its last line.
    """
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        command(contender),
        check=False,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    if done.returncode:
        raise RuntimeError(f"{contender} failed:\n{done.stderr}")
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures


def runRounds(contenders: list[str], rounds: int) -> dict[str, Figures]:
    """
    Run contenders in turn.

    @return: the median of each figure of each contender.
    """
    measured: dict[str, list[Figures]] = {contender: [] for contender in contenders}
    for number in range(rounds):
        for contender in contenders:
            print(f"  round {number + 1} of {rounds}: {contender}", file=sys.stderr, flush=True)
            measured[contender].append(runOnce(contender))
    return {
        contender: {key: median(figures[key] for figures in several) for key in several[0]}
        for contender, several in measured.items()
    }


def table(title: str, columns: list[str], rows: list[list[str]]) -> str:
    """
    A table that reads well as text and as reStructuredText.
    """
    widths = [max(len(row[i]) for row in [columns, *rows]) for i in range(len(columns))]
    rule = "  ".join("=" * width for width in widths)

    def line(row: list[str]) -> str:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        return "  ".join(cells).rstrip()

    lines = [title, "-" * len(title), "", rule, line(columns), rule, *map(line, rows), rule]
    return "\n".join(lines) + "\n"
