"""
Names of a package whose modules are imported when a name is asked for (PEP 562).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any


def lazyNames(
    package: str,
    homes: Mapping[str, Sequence[str]],
    computed: Mapping[str, Callable[[], Any]] | None = None,
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """
    Return C{__getattr__} and C{__dir__} for a package.

    A name is looked up once in the module that has it, and then is an attribute of the
    package as any other.

    @param package: the name of the package.
    @param homes: the names to take from each module.
    @param computed: what makes the values of further names, each time they are asked for.
    """
    makers = computed or {}
    homeOf = {name: home for home, names in homes.items() for name in names}

    def find(name: str) -> Any:
        if name in makers:
            return makers[name]()
        home = homeOf.get(name)
        if home is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(home), name)
        setattr(sys.modules[package], name, value)
        return value

    def listAll() -> list[str]:
        return sorted({*vars(sys.modules[package]), *homeOf, *makers})

    return find, listAll
