"""
What processes write to standard error, on its way to that of this program.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator

import pytest

from asynqueue.processes.passing import Errors
from tests.doubles import readingLogs


class Broken(io.StringIO):
    """
    Nobody can write to it.

    @ivar error: what it raises.
    """

    error: BaseException = RuntimeError("deleted")

    def write(self, text: str) -> int:
        """
        Fail.
        """
        raise self.error


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """
    A pipe whose reading end does not block.
    """
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    yield reading, writing
    os.close(reading)
    os.close(writing)


def test_charactersInPieces(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """
    All is written here, whole characters, and the last of it is kept.
    """
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    errors = Errors()
    for byte in "äh".encode():
        os.write(pipe[1], bytes([byte]))
        assert errors.passOn(pipe[0]) == 1
    assert errors.passOn(pipe[0]) == -1
    assert sys.stderr.getvalue() == "äh"
    assert errors.tail == "äh".encode()


def test_faultsAreLoggedOnce(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Whatever it raises to write here, that is logged once, and the rest goes on.
    """
    monkeypatch.setattr(sys, "stderr", Broken())
    errors = Errors()
    with readingLogs() as logs:
        for _ in range(3):
            os.write(pipe[1], b"x")
            assert errors.passOn(pipe[0]) == 1
    assert logs.errors() == [Broken.error]
    assert errors.tail == b"xxx"


def test_interruptGoesOn(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Ctrl-C that strikes there reaches the program, every time.
    """
    broken = Broken()
    broken.error = KeyboardInterrupt()
    monkeypatch.setattr(sys, "stderr", broken)
    errors = Errors()
    for _ in range(2):
        os.write(pipe[1], b"x")
        with pytest.raises(KeyboardInterrupt):
            errors.passOn(pipe[0])


def test_nobodyToWriteTo(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Where there is no standard error, what came is kept nonetheless.
    """
    errors = Errors()
    monkeypatch.setattr(sys, "stderr", None)
    os.write(pipe[1], b"a")
    assert errors.passOn(pipe[0]) == 1
    monkeypatch.delattr(sys, "stderr")
    os.write(pipe[1], b"b")
    assert errors.passOn(pipe[0]) == 1
    assert errors.tail == b"ab"


def test_whatCannotBeReadIsAnEnd() -> None:
    """
    A descriptor that is of no use any more is at its end.
    """
    assert Errors().passOn(-1) == 0
