"""
In which state a worker is, for its statistics.
"""

from __future__ import annotations

from asynqueue.workers.failing import Fault
from asynqueue.workers.waiters import Waiters


def stateOf(life: str, stopped: Waiters, fault: Fault | None = None) -> str:
    """
    Return the state of a worker, as L{WorkerSnapshot
    <asynqueue.scheduling.snapshots.WorkerSnapshot>} has it.

    @param life: what its tasks see of that: "serving", "stopping" and so on.
    @param stopped: those who wait until it has stopped.
    @param fault: what may be wrong with it for a while.
    """
    if life == "stopping" and stopped.isEmpty:
        return "stopped"
    if life == "serving" and fault is not None and fault.reason:
        return "failing"
    return life
