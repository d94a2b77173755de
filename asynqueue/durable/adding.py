"""
New jobs, as they are stored.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import field, frozen

from asynqueue.durable.ids import createdOf, newId
from asynqueue.durable.options import Job, JobOptions, templateOf
from asynqueue.durable.payloads import Payloads
from asynqueue.stores.records import Added, NewJob

DEFAULT = JobOptions()


@frozen
class Call:
    """
    A call for L{enqueueMany<asynqueue.durable.queue.DurableQueue.enqueueMany>}.
    """

    f: Callable[..., Any] | str
    args: tuple[Any, ...] = field(default=(), converter=tuple)
    kw: dict[str, Any] = field(factory=dict)
    options: JobOptions = DEFAULT


class JobMaker:
    """
    Makes jobs of calls.
    """

    def __init__(self, payloads: Payloads) -> None:
        self._payloads = payloads
        # What was made last, with which options, and what makes such jobs: mostly the next one is
        # like it.
        self._latest: tuple[Any, JobOptions, str, Callable[..., NewJob]] | None = None

    def make(
        self, options: JobOptions, f: Callable[..., Any] | str, args: Any, kw: dict[str, Any]
    ) -> NewJob:
        """
        Make a job as it is stored. A hot path.

        @raise NotStorable: it cannot be stored.
        """
        payloads = self._payloads
        latest = self._latest
        if latest is None or latest[0] is not f or latest[1] is not options:
            name = payloads.nameOf(f)
            template = templateOf(options, name, payloads.codec)
            latest = self._latest = f, options, name, template
        payload = payloads.packCall(latest[2], args, kw) if args or kw else b""
        return latest[3](id=newId(), payload=payload)


def jobAdded(new: NewJob, added: Added) -> Job:
    """
    Return a job as it was just added; of one that was joined, as far as that is known.
    """
    created = createdOf(added.id)
    flow = new.flow
    due = created if added.joined else created + new.after
    state = added.state
    return Job(added.id, new.name, flow.series, flow.niceness, state, 0, due, created, new.key)
