"""
A main module in the place of that of the test run.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest


def mainOf(program: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """
    Have a program be the main module until the end of the test.

    @param program: its code, which is run.
    @return: its names.
    """
    module = ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", module)
    exec(program, vars(module))
    return vars(module)
