"""
What L{asynqueue.scheduling.records} promises: what a worker can do is known from its interfaces.
"""

from __future__ import annotations

from typing import Any

import pytest
from attrs import asdict
from zope.interface import directlyProvides

from asynqueue.interfaces import (
    ICancellingWorker,
    IConnectingWorker,
    IFailingWorker,
    ILingeringWorker,
    IPrefetchingWorker,
    IProcessWorker,
    IRemoteWorker,
    IResigningWorker,
    ISlottedWorker,
    IWorker,
)
from asynqueue.scheduling.records import traitsOf


class Anybody:
    """
    Says by the interfaces that a test gives it what it can do.
    """


@pytest.mark.parametrize(
    ("interface", "traits"),
    [
        (IWorker, set()),
        (IPrefetchingWorker, {"prefetching"}),
        (ICancellingWorker, {"cancelling"}),
        (IFailingWorker, {"failing"}),
        (ILingeringWorker, {"lingering"}),
        (IResigningWorker, {"telling"}),
        (IRemoteWorker, {"telling", "remote"}),
        (IConnectingWorker, {"telling", "remote", "connecting"}),
        (IProcessWorker, {"processes"}),
        (ISlottedWorker, {"slotted"}),
    ],
)
def test_traitsAreThoseOfTheInterfaces(interface: Any, traits: set[str]) -> None:
    """
    Each interface of workers is a trait, and brings those of the interfaces that it extends.
    """
    worker = Anybody()
    directlyProvides(worker, interface)
    assert {name for name, has in asdict(traitsOf(worker)).items() if has} == traits
