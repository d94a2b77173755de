"""
What is done in each process of the command before it is given inputs.

The processes import this, and no Twisted.
"""

from __future__ import annotations

import os
import sys

from asynqueue.command.job import findFunction, obeyLimits


def prepare(limited: bool) -> None:
    """
    Do the first thing in a new process. This must not raise.

    @param limited: whether calls have time limits.
    """
    # Standard output is for the results; what a function prints stands beside it.
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    if limited:
        obeyLimits()


def ready(where: str) -> None:
    """
    Have the function at hand.
    """
    findFunction(where)
