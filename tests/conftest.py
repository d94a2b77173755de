"""
How much hypothesis tries, which tests are models, and what several tests use.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterator

import pytest
from hypothesis import settings

# No deadline: nothing here asserts how long anything takes.
settings.register_profile("test", deadline=None)
settings.register_profile("soak", deadline=None, max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "test"))

# Where coverage is measured, processes that are started find here that theirs is, too.
_MEASURED = "COVERAGE_PROCESS_CONFIG"
_CONFIG = os.environ.get(_MEASURED)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """
    Measure coverage in the processes that a test starts only if it is marked: that more than
    doubles what a process costs, and most of them run what others have run.
    """
    if _CONFIG is not None and item.get_closest_marker("measured"):
        os.environ[_MEASURED] = _CONFIG
    else:
        os.environ.pop(_MEASURED, None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """
    Mark each state machine as a model, whoever wrote it: C{-m model} selects them.
    """
    for item in items:
        if hasattr(getattr(item, "obj", None), "_hypothesis_state_machine_class"):
            item.add_marker("model")


@pytest.fixture
def fewFiles() -> Iterator[Callable[[int], None]]:
    """
    Lets so many files more be open than are.
    """
    before = resource.getrlimit(resource.RLIMIT_NOFILE)

    def allow(more: int) -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        free = [os.dup(0) for _ in range(more + 1)]
        for descriptor in free:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free[-1], before[1]))

    yield allow
    resource.setrlimit(resource.RLIMIT_NOFILE, before)
