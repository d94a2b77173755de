"""
Packages whose names are imported when they are asked for.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import import_module
from types import ModuleType

import pytest

from asynqueue.lazy import lazyNames

PACKAGES = [
    "asynqueue",
    "asynqueue.pollers",
    "asynqueue.pool",
    "asynqueue.service",
    "asynqueue.testing",
    "asynqueue.wire",
]


@pytest.fixture
def package() -> Iterator[ModuleType]:
    """
    A package that exists for one test.
    """
    made = ModuleType("lazily")
    sys.modules[made.__name__] = made
    yield made
    del sys.modules[made.__name__]


@pytest.mark.parametrize("name", PACKAGES)
def test_allNamesAreThereAndListed(name: str) -> None:
    """
    Each package has and lists what its C{__all__} says.
    """
    package = import_module(name)
    assert all(hasattr(package, each) for each in package.__all__)
    assert set(package.__all__) <= set(dir(package))


@pytest.mark.parametrize("name", PACKAGES)
def test_unknownNamesAreRefusedByTheName(name: str) -> None:
    """
    A name that a package does not have is refused as any module does.
    """
    with pytest.raises(AttributeError, match=f"module '{name}' has no attribute 'noSuchName'"):
        _ = import_module(name).noSuchName


def test_nameIsLookedUpOnce(package: ModuleType) -> None:
    """
    A name that was asked for is an attribute of the package from then on.
    """
    find, _ = lazyNames("lazily", {"string": ["digits"]})
    assert "digits" not in vars(package)
    assert find("digits") == package.digits == "0123456789"


def test_computedNameIsMadeEachTime(package: ModuleType) -> None:
    """
    A computed name is made each time that it is asked for, and is listed.
    """
    find, listAll = lazyNames("lazily", {}, computed={"fresh": object})
    assert find("fresh") is not find("fresh")
    assert "fresh" in listAll()
