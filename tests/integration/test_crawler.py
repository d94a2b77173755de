"""
The example of the crawler: a program with hosts in real processes, and in network
namespaces where the machine allows them.
"""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
PROGRAM = [sys.executable, str(EXAMPLES / "crawler.py")]

# Seconds after which a program hangs.
PATIENCE = 120

# The line of a host in the summary: fetched, lost, hires.
HOST = re.compile(r"^host (\d) +(\d+) +(\d+) +(\d+)$", re.MULTILINE)


def namespacesAreAllowed() -> bool:
    """
    Whether the example can have network namespaces here.
    """
    code = "import _machines; print(_machines.namespacesAreAllowed())"
    asked = subprocess.run(
        [sys.executable, "-c", code], cwd=EXAMPLES, stdout=subprocess.PIPE, check=True
    )
    return asked.stdout == b"True\n"


@pytest.fixture(params=["sockets", "namespaces"])
def network(request: pytest.FixtureRequest) -> str:
    """
    Each way in which the hosts can be apart.
    """
    name = str(request.param)
    if name == "namespaces" and not namespacesAreAllowed():
        pytest.skip("this machine does not allow network namespaces")
    return name


@pytest.fixture
def running(network: str, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """
    The program, which has just killed one of its hosts.
    """
    with subprocess.Popen(
        [*PROGRAM, "--network", network, "--pages", "500"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={"TMPDIR": str(tmp_path), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
    ) as program:
        try:
            assert program.stdout is not None
            for line in program.stdout:
                if "was killed" in line:
                    break
            else:
                pytest.fail("no host was killed")
            yield program
        finally:
            program.kill()


def test_nothingIsLost(network: str, tmp_path: Path) -> None:
    """
    All pages are found and read, though a host is killed with the pages it is fetching:
    it is hired again, and they are fetched again.
    """
    done = subprocess.run(
        [*PROGRAM, "--network", network, "--pages", "500"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert "the index is right, and nothing was lost" in done.stdout
    assert "500 pages and 10 dead links" in done.stdout
    hosts = [tuple(map(int, counts)) for counts in HOST.findall(done.stdout)]
    numbers, fetched, lost, hires = zip(*hosts, strict=True)
    assert numbers == (1, 2, 3)
    assert sum(fetched) == 510
    assert all(fetched)
    assert lost[0] == lost[2] == 0
    assert 0 < lost[1] <= 8
    assert hires == (1, 2, 1)


@pytest.mark.parametrize(
    ("right", "wrong", "complaint"),
    [
        ("data.split()", "data.split()[1:]", "the index is not that of the site"),
        ("raise LookupError(", "return Counter(), [] and (", "the index is not that of the site"),
        ("dict(reader.words)", "dict(reader.wrods)", "has no attribute 'wrods'"),
    ],
)
def test_whatIsWrongIsFound(right: str, wrong: str, complaint: str, tmp_path: Path) -> None:
    """
    If the hosts do not do what they should, the program says what is wrong, and fails.
    """
    for path in EXAMPLES.glob("*.py"):
        shutil.copy(path, tmp_path)
    fetcher = tmp_path / "_fetcher.py"
    source = fetcher.read_text(encoding="utf-8")
    assert right in source
    fetcher.write_text(source.replace(right, wrong), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "crawler.py", "--network", "sockets", "--pages", "100"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "wrong: " in done.stderr
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_interruptedItLeavesNothing(
    running: subprocess.Popen[str], number: signal.Signals, tmp_path: Path
) -> None:
    """
    A program that is interrupted says so, fails, and has no processes and no files left.
    """
    children = psutil.Process(running.pid).children(recursive=True)
    assert children
    running.send_signal(number)
    told, _ = running.communicate(timeout=PATIENCE)
    assert told.splitlines()[-1] == "interrupted"
    assert "Traceback" not in told
    assert "Unhandled" not in told
    assert running.returncode == 1
    assert not [child for child in children if child.is_running()]
    assert not list(tmp_path.iterdir())


def test_killedItLeavesNothing(running: subprocess.Popen[str]) -> None:
    """
    The hosts, and the namespaces that they are in, end with the program, though it has no
    time to end them.
    """
    children = psutil.Process(running.pid).children(recursive=True)
    assert children
    running.kill()
    _, left = psutil.wait_procs(children, timeout=PATIENCE)
    assert not left


def test_helpIsGiven() -> None:
    """
    The program says what it does, and which options it has.
    """
    done = subprocess.run(
        [*PROGRAM, "--help"], capture_output=True, text=True, timeout=PATIENCE, check=True
    )
    assert "crawled by three hosts" in done.stdout
    assert "--network" in done.stdout
    assert "--moved" not in done.stdout


def test_tooFewPagesAreRefused() -> None:
    """
    A site that is too small for an accident is wrong usage.
    """
    done = subprocess.run(
        [*PROGRAM, "--pages", "7"], capture_output=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 2
