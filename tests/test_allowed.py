"""
L{asynqueue.allowed}: what can be called by a name, and that nothing else is imported. What more
there is to it, the tests of L{asynqueue.wire.host.catalog} show.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from asynqueue.allowed import AllowedModules
from asynqueue.errors import NoSuchCallable


def test_functionsOfAllowedModulesAreFound() -> None:
    """
    A function is found by the name of its module and its own.
    """
    assert AllowedModules(["posixpath"]).resolve("posixpath:basename")("/a/b") == "b"


def test_modulesThatAreNotAllowedAreNotImported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A name of a module that nobody has allowed does not have it imported.
    """
    (tmp_path / "nobodys.py").write_text("def f(): pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(NoSuchCallable, match="none of the modules allowed"):
        AllowedModules(["posixpath"]).resolve("nobodys:f")
    assert "nobodys" not in sys.modules


def test_whatAModuleHasImportedIsNotItsOwn() -> None:
    """
    Functions that an allowed module has imported from another cannot be called through it.
    """
    with pytest.raises(NoSuchCallable, match="defines no such function"):
        AllowedModules(["tempfile"]).resolve("tempfile:Random")


def test_packagesAreAllowedWithAllBelow() -> None:
    """
    C{package.*} allows the package and its modules, and no other whose name begins so.
    """
    allowed = AllowedModules(["json.*"])
    assert allowed.allows("json.decoder")
    assert not allowed.allows("jsonschema")
