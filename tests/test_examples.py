"""
The function of the demo, which parses and measures a Python module.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

PATH = Path(__file__).parent.parent / "examples" / "stdlib.py"

SOURCE = '''\
"""
A module.
"""

# A comment.
import os, sys
from . import here


class Thing:
    def method(self, x):
        if x and os and sys:
            return 1
        elif here:
            for y in x:
                assert y
        return [z for z in x if z]


async def f():
    pass
'''


@pytest.fixture(scope="module")
def stdlib() -> Any:
    """
    The module C{examples/stdlib.py}.
    """
    spec = importlib.util.spec_from_file_location("example_stdlib", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def measured(stdlib: Any, path: Path, source: bytes) -> dict[str, Any]:
    """
    The measures of a module with this source, without its path, as they are
    after a journey as JSON.
    """
    path.write_bytes(source)
    measures: dict[str, Any] = json.loads(json.dumps(stdlib.measure(str(path))))
    assert measures.pop("path") == str(path)
    assert measures.pop("bytes") == len(source)
    return measures


def test_measures(stdlib: Any, tmp_path: Path) -> None:
    """
    A module is measured as a person would do it.
    """
    assert measured(stdlib, tmp_path / "module.py", SOURCE.encode()) == {
        "lines": 21,
        "code": 15,
        "functions": 2,
        "classes": 1,
        "imports": 3,
        # if, and, and, elif, for, assert, comprehension: one each.
        "branches": 7,
        # class, def, elif, for.
        "nesting": 4,
        "longest": 7,
        "mean": 4.5,
    }


def test_emptyModule(stdlib: Any, tmp_path: Path) -> None:
    """
    A module without anything has no functions to take the mean of.
    """
    measures = measured(stdlib, tmp_path / "empty.py", b"")
    assert set(measures.values()) == {0}


def test_encodingIsRead(stdlib: Any, tmp_path: Path) -> None:
    """
    A module says in which encoding it is.
    """
    source = "# coding: latin-1\nname = 'é'\n".encode("latin-1")
    assert measured(stdlib, tmp_path / "latin.py", source)["lines"] == 2


@pytest.mark.parametrize(
    ("source", "error"),
    [
        (b"print 'two'", "SyntaxError"),
        (b"x = '\xff'", "SyntaxError"),
        (b"# coding: utf-8\n'\xff'", "UnicodeDecodeError"),
        (b"# coding: nothing\n", "SyntaxError"),
        (b"x = 1\0", ""),
        (b"(" * 10_000, ""),
    ],
)
def test_badModulesHaveAnError(stdlib: Any, tmp_path: Path, source: bytes, error: str) -> None:
    """
    What is no Python is an error in the measures, not of the function.
    """
    assert error in measured(stdlib, tmp_path / "bad.py", source)["error"]


def test_missingModule(stdlib: Any, tmp_path: Path) -> None:
    """
    A file that cannot be read is a failure.
    """
    with pytest.raises(FileNotFoundError):
        stdlib.measure(str(tmp_path / "nothing.py"))


def test_modulesAreThoseOfTheStandardLibrary(stdlib: Any) -> None:
    """
    All modules of the standard library are listed, once, and no other.
    """
    modules = stdlib.modules()
    assert len(modules) > 500
    assert modules == sorted(set(modules))
    assert json.__file__ in modules
    assert pytest.__file__ not in modules
