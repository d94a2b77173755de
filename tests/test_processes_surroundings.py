"""
L{asynqueue.processes.surroundings}: what a child is told, and what it makes of that.
"""

from __future__ import annotations

import logging
import os
import sys
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from asynqueue.processes.surroundings import Latecomers, Surroundings, follow, importPath


@pytest.fixture
def path(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """
    A path for imports that is as it was afterwards.
    """
    path = list(sys.path)
    monkeypatch.setattr(sys, "path", path)
    return path


def test_nothingNew(path: list[str]) -> None:
    """
    As long as nothing has changed, after the first time, there is nothing to tell.
    """
    surroundings = Surroundings()
    surroundings.news()
    assert surroundings.news() is None


def test_levelsAreTold(path: list[str]) -> None:
    """
    The levels of loggers are told to each child, and again when one has been set.
    """
    logger = logging.getLogger("surroundings.of.tests")
    surroundings = Surroundings()
    first: Any = surroundings.news()
    assert first["levels"][""] == logging.root.level
    logger.setLevel(5)
    second: Any = surroundings.news()
    assert second["levels"][logger.name] == 5
    logger.setLevel(5)
    assert surroundings.news() is None
    logger.setLevel(logging.NOTSET)
    third: Any = surroundings.news()
    assert logger.name not in third["levels"]


def test_pathIsToldOnce(path: list[str]) -> None:
    """
    A path that has changed is told once, without what is no text.
    """
    surroundings = Surroundings()
    path.insert(0, "/first")
    path.append(Path("/last"))  # type: ignore[arg-type]  # programs do that
    news: Any = surroundings.news()
    assert news["path"] == importPath()
    assert news["path"][0] == "/first"
    assert "/last" not in news["path"]
    assert surroundings.news() is None
    path.remove("/first")
    assert surroundings.news() is not None


def loaded(name: str, file: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """
    A module that is loaded from a file, as programs load their plugins.
    """
    spec = spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module


def test_pluginsAreTold(path: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A module that was loaded from a file is told with that, once; one that imports find is
    not.
    """
    surroundings = Surroundings()
    surroundings.news()
    folder = tmp_path / "plugged_in"
    folder.mkdir()
    for file in (tmp_path / "plugged.py", folder / "__init__.py", folder / "found.py"):
        file.write_text("number = 7\n", encoding="utf-8")
    loaded("plugged_in_by_hand", tmp_path / "plugged.py", monkeypatch)
    loaded("plugged_in", folder / "__init__.py", monkeypatch)
    monkeypatch.delitem(sys.modules, "plugged_in.found", raising=False)
    import_module("plugged_in.found")
    assert surroundings.news() == {
        "files": {
            "plugged_in_by_hand": str(tmp_path / "plugged.py"),
            "plugged_in": str(folder / "__init__.py"),
        }
    }
    assert surroundings.news() is None


def test_pluginsInThePlaceOfOthers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A plugin that is loaded when another one is dropped is told, too.
    """
    file = tmp_path / "plugged.py"
    file.write_text("number = 7\n", encoding="utf-8")
    loaded("first_by_hand", file, monkeypatch)
    surroundings = Surroundings()
    surroundings.news()
    monkeypatch.delitem(sys.modules, "first_by_hand")
    loaded("second_by_hand", file, monkeypatch)
    assert surroundings.news() == {"files": {"second_by_hand": str(file)}}


def test_pluginsAreFound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A module that the parent has loaded from a file is found there.
    """
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Latecomers])
    monkeypatch.setattr(Latecomers, "files", {})
    file = tmp_path / "plugged.py"
    file.write_text("number = 7\n", encoding="utf-8")
    follow({"files": {"third_by_hand": str(file)}})
    try:
        assert import_module("third_by_hand").number == 7
    finally:
        sys.modules.pop("third_by_hand", None)


def test_foldersThatCameLater(
    path: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A folder that was not there when it was first looked into is looked into again, and
    one that is still not there is not.
    """
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Latecomers])
    folder = tmp_path / "later"
    path[:0] = [str(folder), str(tmp_path / "never")]
    with pytest.raises(ModuleNotFoundError):
        import_module("came_with_its_folder")
    folder.mkdir()
    (folder / "came_with_its_folder.py").write_text("number = 7\n", encoding="utf-8")
    try:
        assert import_module("came_with_its_folder").number == 7
    finally:
        sys.modules.pop("came_with_its_folder", None)


def test_pathIsFollowed(path: list[str]) -> None:
    """
    The path becomes that of the parent; what was added here stays, before it.
    """
    before = list(path)
    path[:] = ["/ours", *before, "/both"]
    follow({"before": before, "path": ["/first", *before[1:], "/both"]})
    assert path == ["/ours", "/first", *before[1:], "/both"]


class Tracker:
    """
    Stands for the module of the resource tracker, and for the tracker.
    """

    def __init__(self, descriptor: int | None = None, pid: int | None = None) -> None:
        self._resource_tracker = self
        self._fd = descriptor
        self._pid = pid
        self.starts: list[int] = []

    def getfd(self) -> int:
        """
        Start the tracker, if the test says how.
        """
        if not self.starts:
            raise OSError("no room for another process")
        self._fd = self.starts.pop()
        return self._fd


class Process:
    """
    Stands for C{multiprocessing.process}, and for the process.
    """

    authkey = b"a key"

    def current_process(self) -> Process:
        """
        This one.
        """
        return self


def shared(monkeypatch: pytest.MonkeyPatch, tracker: Tracker) -> Process:
    """
    Let the program have imported what shares by name.
    """
    process = Process()
    modules = {"resource_tracker": tracker, "process": process, "shared_memory": None}
    for name, module in {**modules, "managers": None}.items():
        monkeypatch.setitem(sys.modules, f"multiprocessing.{name}", module)  # type: ignore[arg-type]
    return process


def test_whatIsSharedByName(path: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The key and the tracker of a program that shares by name are told, and again when they
    have changed; where no tracker can be started, none is.
    """
    tracker = Tracker()
    process = shared(monkeypatch, tracker)
    surroundings = Surroundings()
    told = surroundings.news()
    assert told is not None
    assert (told["key"], "tracker" in told) == (b"a key", False)
    assert surroundings.news() is None
    tracker.starts = [7]
    assert surroundings.news() == {"tracker": f"/proc/{os.getpid()}/fd/7"}
    process.authkey = b"another"
    assert surroundings.news() == {"key": b"another"}


def test_whatIsSharedIsFollowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A child has the key of its parent, and the tracker that it has last; of one that it
    cannot have it takes no notice.
    """
    tracker = Tracker()
    process = shared(monkeypatch, tracker)
    reading, writing = os.pipe()
    try:
        follow({"key": b"theirs", "tracker": f"/proc/self/fd/{writing}"})
        assert process.authkey == b"theirs"
        first = tracker._fd
        assert first is not None
        assert os.path.sameopenfile(first, writing)
        follow({"tracker": "/proc/self/fd/none"})
        assert tracker._fd == first
        follow({"tracker": f"/proc/self/fd/{writing}"})
        second = tracker._fd
        assert second is not None
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(first)
        os.close(second)
    finally:
        os.close(reading)
        os.close(writing)


def test_aTrackerOfItsOwnIsKept(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A process that has begun to track something by itself goes on so.
    """
    tracker = Tracker(descriptor=-7, pid=7)
    shared(monkeypatch, tracker)
    follow({"tracker": os.devnull})
    assert tracker._fd == -7
