"""
Jobs in the rows of databases, which all engines name and read in the same way. No Twisted.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from asynqueue.stores.records import Band, Flow, NewJob, OnTaken

# The columns of a job, in the order in which L{newJob} reads them.
COLUMNS = (
    "id",
    "name",
    "payload",
    "codec",
    "options",
    "series",
    "niceness",
    "band",
    "attempts",
    "loss",
    "key",
    "on_taken",
    "after",
    "expires",
    "keep",
    "keep_dead",
    "trace",
    "parent",
)


@lru_cache(1024)
def flowOf(series: str, niceness: int, band: int) -> Flow:
    """
    Return a flow as it is in rows.
    """
    return Flow(series, niceness, Band(band))


def newJob(row: Sequence[Any]) -> NewJob:
    """
    Return the job of a row that begins with the columns C{COLUMNS}.
    """
    return NewJob(
        id=row[0],
        name=row[1],
        payload=row[2],
        codec=row[3],
        options=row[4],
        flow=flowOf(row[5], row[6], row[7]),
        attempts=row[8],
        loss=bool(row[9]),
        key=row[10],
        onTaken=OnTaken(row[11]),
        after=row[12],
        expires=row[13],
        keep=row[14],
        keepDead=row[15],
        trace=row[16],
        parent=row[17],
    )
