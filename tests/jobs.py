"""
Jobs and nodes for tests of stores.
"""

from __future__ import annotations

from itertools import count
from typing import Any
from uuid import UUID

from asynqueue.stores.records import JobState, NewJob, NodeRecord, Outcome

DONE = Outcome(kind=JobState.DONE, value=b"done")

_numbers = count(1)


def someJobs(number: int, **options: Any) -> tuple[NewJob, ...]:
    """
    Return new jobs, whose IDs are in their order.
    """
    options = {"name": "shop.tasks:act", "payload": b"payload", **options}
    ids = [str(UUID(int=next(_numbers))) for _ in range(number)]
    return tuple(NewJob(id=id, **options) for id in ids)


def node(id: str) -> NodeRecord:
    """
    Return a node.
    """
    return NodeRecord(id=id, name=f"of {id}", host="here", pid=1)
