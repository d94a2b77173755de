"""
What a test that fails leaves behind, under trial: after each test trial takes all readers
out of the reactor and cancels all that is due in it. Then it stops the reactor, and waits.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.process_checks import PATIENCE

PROGRAM = """
import os

from twisted.trial.unittest import TestCase

from asynqueue import ProcessQueue
from asynqueue.wire import ServerManager

kept = []


class Left(TestCase):
    async def test_processes(self):
        kept.append(ProcessQueue(2))
        await kept[-1].call(abs, -1)
        self.fail("left behind")

    async def test_servers(self):
        kept.append(ServerManager())
        await kept[-1].spawn("unix:left.sock")
        self.fail("left behind")

    async def test_serversThatStart(self):
        kept.append(ServerManager())
        kept[-1].spawn("unix:starts.sock").addErrback(lambda _: None)
        self.fail("left behind")
"""


@pytest.mark.parametrize("name", ["processes", "servers", "serversThatStart"])
def test_whatAFailingTestLeavesEndsWithTrial(name: str, tmp_path: Path) -> None:
    """
    The run ends, having told of the failure, and nothing of what was left goes on.
    """
    (tmp_path / "test_left.py").write_text(PROGRAM)
    ran = subprocess.run(
        [sys.executable, "-m", "twisted.trial", f"test_left.Left.test_{name}"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert "FAILED (failures=1" in ran.stdout
    # Had a process been waited for until the last limit, it would have been told.
    assert "did not" not in ran.stdout
