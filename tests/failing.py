"""
A worker that fails when the test says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from zope.interface import implementer

from asynqueue.interfaces import IFailingWorker, ITask
from asynqueue.testing import MemoryPrefetcher


@implementer(IFailingWorker)
class Failing(MemoryPrefetcher):
    """
    Fails when it is told to.
    """

    def __init__(self, *args: Any, **kw: Any) -> None:
        super().__init__(*args, **kw)
        self.report: Callable[[str, Sequence[ITask], bool], None] | None = None

    def setReporter(self, callableObject: Callable[[str, Sequence[ITask], bool], None]) -> None:
        self.report = callableObject

    def breakDown(self, isHopeless: bool = False) -> None:
        """
        Hand back all, as nothing can be run.
        """
        tasks = self.takeBack()
        assert self.report is not None
        self.report("no room", tasks, isHopeless)
        self.becomeReady()

    def recover(self) -> None:
        """
        Be able to run tasks again.
        """
        assert self.report is not None
        self.report("", (), False)
