"""
L{ProcessQueue} in programs that have changed what is around it.
"""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import gatherResults

from asynqueue import ProcessQueue
from asynqueue.testing.calls import echo
from tests.integration import odd_calls as odd
from tests.integration.process_checks import PATIENCE

pytestmark = pytest.mark.measured

PROGRAM = Path(__file__).with_name("sharing_program.py")
TASKS = Path(__file__).with_name("tasks_sharing_program.py")


@pytest.fixture
def defaultTimeout() -> Iterator[None]:
    """
    A default timeout for sockets.
    """
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(30)
    yield
    socket.setdefaulttimeout(before)


@ensureDeferred
async def test_defaultTimeoutOfSockets(defaultTimeout: None) -> None:
    """
    A child waits in the system for its parent, and for room for results, whatever the
    program or a task says about new sockets.
    """
    queue = ProcessQueue(1)
    assert await queue.call(odd.socketsThatDoNotBlock) == []
    await queue.call(socket.setdefaulttimeout, 1e-6)
    results = await gatherResults([queue.call(bytes, 60_000) for _ in range(30)])
    assert {len(result) for result in results} == {60_000}
    await queue.shutdown()


def output(part: str, program: Path = PROGRAM) -> list[str]:
    """
    The lines that a program prints. It says nothing else.
    """
    done = subprocess.run(
        [sys.executable, str(program), part],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_sharedMemoryOutlivesAChild() -> None:
    """
    Memory with a name that a child has read or made is there when that has ended: it
    shares the resource tracker of the program, and nothing is left over or complained of.
    """
    assert output("memory") == ["b'ours'", "trackers 0 False", "b'ours'", "b'made'"]


def test_sharedMemoryOfCallsAlone() -> None:
    """
    It is there, too, where the program itself shares nothing: what calls share in one process
    is tracked by the program, and is there in the next one.
    """
    assert output("", TASKS) == ["b'made' 0", "False"]


def test_managersKnowAChild() -> None:
    """
    A child can use what a manager has: it shows the key of the program, also if that
    changes, and nobody else can read it.
    """
    assert output("manager") == [
        "cmdline False",
        "environ False",
        "{'a': 'aa'} b'another one'",
    ]


@ensureDeferred
async def test_pluginsThatCameLater(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A child finds a module that the program has loaded from a file after it had started, and
    a package with what is in it.
    """
    queue = ProcessQueue(1)
    await queue.call(len, "up")
    folder = tmp_path / "package"
    folder.mkdir()
    for file in (tmp_path / "plugin.py", folder / "__init__.py", folder / "inner.py"):
        file.write_text("def double(n): return 2 * n\n", encoding="utf-8")
    for name, file in (
        ("plugin_by_hand", tmp_path / "plugin.py"),
        ("package_by_hand", folder / "__init__.py"),
    ):
        spec = importlib.util.spec_from_file_location(name, file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        assert await queue.call(module.double, 4) == 8
    inner = importlib.import_module("package_by_hand.inner")
    assert await queue.call(inner.double, 5) == 10
    monkeypatch.delitem(sys.modules, inner.__name__)
    await queue.shutdown()


@ensureDeferred
async def test_modulesThatCameLater(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A child finds modules in a folder that was put into the path after it had started, in
    calls, in arguments and in maps.
    """
    queue = ProcessQueue(1)
    await queue.call(len, "up")
    for number in range(3):
        name = f"came_later_{number}"
        folder = tmp_path / name
        folder.mkdir()
        (folder / f"{name}.py").write_text(
            "def double(n): return 2 * n\nclass Thing: number = 7\n", encoding="utf-8"
        )
        monkeypatch.syspath_prepend(str(folder))
        module = importlib.import_module(name)
        if number == 0:
            assert await queue.call(module.double, 4) == 8
        elif number == 1:
            assert (await queue.call(echo, module.Thing()))[0][0].number == 7
        else:
            assert [n async for n in queue.map(module.double, range(3))] == [0, 2, 4]
        monkeypatch.delitem(sys.modules, name)
    await queue.shutdown()


@pytest.mark.parametrize("when", ["start", "later"])
def test_closedDescriptors(when: str, tmp_path: Path) -> None:
    """
    Where the standard descriptors are closed, when a program starts or later, nothing that
    code in C prints gets into what goes between a queue and its processes.
    """
    report = tmp_path / "report"
    closing = 'exec "$0" "$@" <&- >&- 2>&-' if when == "start" else 'exec "$0" "$@"'
    program = str(Path(__file__).with_name("closed_program.py"))
    subprocess.run(
        ["/bin/sh", "-c", closing, sys.executable, program, when, str(report)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        timeout=PATIENCE,
        capture_output=True,
        check=True,
    )
    assert report.read_text() == repr([True] * 4)
