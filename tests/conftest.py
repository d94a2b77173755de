"""
How much hypothesis tries, and which tests are models.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

# No deadline: nothing here asserts how long anything takes.
settings.register_profile("test", deadline=None)
settings.register_profile("soak", deadline=None, max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "test"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """
    Mark each state machine as a model, whoever wrote it: C{-m model} selects them.
    """
    for item in items:
        if hasattr(getattr(item, "obj", None), "_hypothesis_state_machine_class"):
            item.add_marker("model")
