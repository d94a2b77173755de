"""
Jobs of a store, page by page.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred

from asynqueue.durable.options import jobOf
from asynqueue.iteration.deferator import Deferator
from asynqueue.iteration.sources import PullSource
from asynqueue.stores.operations import Find
from asynqueue.stores.records import JobFilter, JobRecord

# How many jobs are read at once.
_PAGE = 100

# What a L{PullSource} is given: the item, whether it is one, and whether more may follow.
_Item = tuple[Any, bool, bool]


class _Pages:
    """
    Gives one job after the other.
    """

    def __init__(
        self,
        find: Callable[[Find], Deferred[Sequence[JobRecord]]],
        filter: JobFilter,
        newestFirst: bool,
    ) -> None:
        self._find = find
        self._filter = filter
        self._newestFirst = newestFirst
        self._page: deque[JobRecord] = deque()
        self._last: str | None = None
        self._isOver = False

    def ask(self) -> _Item | Deferred[_Item]:
        """
        Return the next job, as L{PullSource} wants it.
        """
        if self._page or self._isOver:
            return self._give()
        d = self._find(Find(self._filter, self._last, _PAGE, self._newestFirst))
        return d.addCallback(self._found)

    def _found(self, records: Sequence[JobRecord]) -> _Item:
        self._page.extend(records)
        self._isOver = len(records) < _PAGE
        return self._give()

    def _give(self) -> _Item:
        if not self._page:
            return None, False, False
        record = self._page.popleft()
        self._last = record.job.id
        return jobOf(record), True, bool(self._page) or not self._isOver


def jobsOf(
    find: Callable[[Find], Deferred[Sequence[JobRecord]]], filter: JobFilter, newestFirst: bool
) -> Deferator:
    """
    Iterate over the jobs of a filter, in the order of their age.

    @param find: asks a store.
    """
    return Deferator.fromSource(PullSource(_Pages(find, filter, newestFirst).ask), "jobs", 2)
