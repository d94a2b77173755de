"""
Calls that an executor has refused: whether it will take others, and whether it has them all
the same.
"""

from __future__ import annotations

from concurrent.futures import BrokenExecutor, Executor


def isFinal(error: Exception) -> bool:
    """
    Whether an executor that raised this as it was given a call will take no other one.

    That it is shut down is told in words only, by the standard library's and loky's.
    """
    return isinstance(error, BrokenExecutor) or "shutdown" in str(error)


def isWithdrawn(executor: Executor, name: str) -> bool:
    """
    Whether a call that was refused will surely not be made.

    The process pools of the standard library and of loky note a call before they start a
    process for it, and would make it when they have one. They tell of it by no public name.

    @param name: the last argument of the call, which no other one has.
    """
    for item in list(getattr(executor, "_pending_work_items", {}).values()):
        if item.args and item.args[-1] == name:
            cancelled: bool = item.future.cancel()
            return cancelled
    return True
