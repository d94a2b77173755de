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
EXCHANGE_PROGRAM = Path(__file__).with_name("fork_exchange_program.py")
WIRE_PROGRAM = Path(__file__).with_name("fork_wire_program.py")

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
    [
        ("processes", QUEUE),
        ("threads", QUEUE),
        ("threadexecutor", QUEUE),
        ("processexecutor", QUEUE),
        ("pool", POOL),
        ("turned", POOL),
    ],
    ids=["processes", "threads", "threadexecutor", "processexecutor", "pool", "turned"],
)
def test_forkBeginsAnew(part: str, said: str) -> None:
    """
    In a fork, queues begin anew, those of executors with another one: what ran is lost there,
    what waits is done. A pool must be started anew, and raises until it is. The parent is not
    touched.
    """
    ran = run(PROGRAM, part)
    assert (ran.stdout, ran.stderr, ran.returncode) == (said, "", 0)


def run(program: Path, *parts: str) -> subprocess.CompletedProcess[str]:
    """
    Run parts of a program to their end.
    """
    return subprocess.run(
        [sys.executable, str(program), *parts],
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


WORKER = ["calls True", "ran None", "waited 1"], ["calls True", "ran WorkerLost True", "waited 1"]
REACTOR = ["called True", "read b'!'", "woke up"], ["called True", "woke up"]


@pytest.mark.measured
@pytest.mark.parametrize(
    ("part", "parents", "forks"),
    [
        ("worker", *WORKER),
        ("worker asyncio", *WORKER),
        ("dialing", ["calls True"], ["calls True"]),
        (
            "spawning",
            [*["calls True"] * 2, "spawned True 3"],
            ["again WireError", "spawned ForkError []"],
        ),
        ("server", [*["calls True"] * 2, "listens True"], [*["calls True"] * 2, "has None"]),
        ("hub", ["calls True"] * 3, ["has None", "workers 0"]),
        ("reactor", *REACTOR),
        ("reactor asyncio", *REACTOR),
    ],
)
def test_connectionsBelongToTheParent(part: str, parents: list[str], forks: list[str]) -> None:
    """
    Connections, what listens for them, and what the reactor of the parent watches, go on as if
    nothing had been forked, whatever the fork does with its copies. There, workers connect
    anew, and servers and hubs do not serve before they are started.
    """
    ran = run(WIRE_PROGRAM, *part.split())
    said = [f"parent {line}" for line in (*parents, "fork ends 0")]
    said += [f"fork {line}" for line in forks]
    assert sorted(ran.stdout.splitlines()) == sorted(said), ran.stderr
    assert (ran.stderr, ran.returncode) == ("", 0)


NOT_HERE = "ForkError: waiting for"


@pytest.mark.parametrize(
    ("part", "parents", "forks"),
    [
        (
            "map",
            ["0", "1", "2", "3"],
            ["0", f"{NOT_HERE} computation 1", f"{NOT_HERE} computation 2", "3"],
        ),
        ("queue", ["[0, 1, 2]", "[4]", "None"], [f"{NOT_HERE} 3 computations", "[4]", "None"]),
        ("persistent", ["[5]", "[]"], [f"{NOT_HERE} 1 computations", "[]"]),
        (
            "channel",
            ["None", "1", "0"],
            [*["OSError: [Errno 9] the channel is closed"] * 2, "None"],
        ),
    ],
    ids=["map", "queue", "persistent", "channel"],
)
def test_computationsAreTheParents(part: str, parents: list[str], forks: list[str]) -> None:
    """
    In a fork, exchanges begin anew: of what their parent computes nothing is taken, and who
    waits for it there is told. The parent gets all its results.
    """
    ran = run(EXCHANGE_PROGRAM, part)
    said = [f"fork {line}" for line in forks]
    said += [f"parent {line}" for line in ("fork ends 0", *parents)]
    assert (ran.stdout.splitlines(), ran.stderr, ran.returncode) == (said, "", 0)
