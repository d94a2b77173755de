"""
The children of a supervisor that are not gone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from asynqueue.processes.process import ChildProcess


class Children:
    """
    The children that are not gone: one may come, and others go. Iterate over them also
    while they go.
    """

    def __init__(self) -> None:
        self._children: list[ChildProcess] = []

    def __len__(self) -> int:
        return len(self._children)

    def __iter__(self) -> Iterator[ChildProcess]:
        return iter(self._children)

    def add(self, child: ChildProcess) -> None:
        """
        Take note that a child was started.
        """
        self._children = [*self._children, child]

    def remove(self, child: ChildProcess) -> None:
        """
        Take note that a child is gone.
        """
        self._children = [other for other in self._children if other is not child]

    @property
    def busy(self) -> list[ChildProcess]:
        """
        The children that make calls, if only the last that they make.
        """
        return [child for child in self._children if child.calls.held]

    @property
    def progress(self) -> list[int]:
        """
        How far the calls have come. It changes as one begins, which is known before anything
        is heard of it.
        """
        return [child.calls.begun for child in self._children]

    @property
    def mayMove(self) -> bool:
        """
        Whether a child has begun none of the calls that it has, and may be ending; or has
        said what was not read yet.
        """
        return any(child.calls.isBetween or child.hasNews for child in self._children)

    def find(self, job: Any) -> tuple[ChildProcess, int] | None:
        """
        Return the child that has the call of a job, and the number of the call.
        """
        for child in self._children:
            for number, held in child.calls.held.items():
                if held is job:
                    return child, number
        return None

    def takeBack(self, spared: ChildProcess | None = None) -> list[Any]:
        """
        Take back all calls that have not begun: they are never made.

        @param spared: a child that keeps its calls.
        @return: their jobs, in order.
        """
        children = [child for child in self._children if child is not spared]
        return [job for child in children for job in child.calls.takeBack()]
