"""
Which tasks a queue takes, and which it gives to workers.
"""

from __future__ import annotations

from enum import Enum


class Stage(Enum):
    """
    How far a queue is open.
    """

    OPEN = "all tasks"
    FINISHING = "those that there are, and no others"
    CLOSED = "none, until it is opened again"
    FINISHED = "none, and if it is opened again, those that there are"


OPEN, FINISHING, CLOSED, FINISHED = Stage
_CLOSED = {OPEN: CLOSED, FINISHING: FINISHED}
_REFUSING = {OPEN: FINISHING, CLOSED: FINISHED}
_REOPENED = {after: before for before, after in _CLOSED.items()}


class Admission:
    """
    How far a queue is open, and what changes that.

    @ivar stage: see L{Stage}. While it is L{OPEN} tasks are taken.
    """

    __slots__ = ("stage",)

    def __init__(self) -> None:
        self.stage = OPEN

    @property
    def gives(self) -> bool:
        """
        Whether tasks are given to workers, and tried again if they were lost.
        """
        return self.stage in _CLOSED

    def refuse(self) -> None:
        """
        Take no more tasks from now on; end those that there are.
        """
        self.stage = _REFUSING.get(self.stage, self.stage)

    def close(self) -> None:
        """
        Take no more tasks, and give workers no more.
        """
        self.stage = _CLOSED.get(self.stage, self.stage)

    def reopen(self) -> None:
        """
        Give tasks to workers again, after L{close}.
        """
        self.stage = _REOPENED.get(self.stage, self.stage)
