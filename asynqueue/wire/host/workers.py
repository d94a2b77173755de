"""
Who makes the calls of a host, and which calls.
"""

from __future__ import annotations

from typing import Any

from attrs import field, frozen

from asynqueue.checks import wholeNumber
from asynqueue.queues import ProcessQueue
from asynqueue.taskqueue import TaskQueue
from asynqueue.wire.host.catalog import Catalog
from asynqueue.wire.host.universes import ChildCatalog, universeOf
from asynqueue.wire.protocol.codecs import Codec
from asynqueue.workers.asynchronous import AsyncWorker
from asynqueue.workers.process import ProcessWorker
from asynqueue.workers.thread import ThreadWorker


def _atLeast(least: int) -> Any:
    return lambda _, field, value: wholeNumber(value, field.name, least=least)


def _orCores(count: int | None) -> int:
    return ProcessQueue.cores() if count is None else count


@frozen
class HostWorkers:
    """
    Which workers a host has. Raises C{ValueError} for numbers that are too small or not whole.

    @ivar processes: how many processes make the calls; 0: the reactor does.
    @ivar threads: how many threads there are for calls that want one; C{None}: as many as
        there are cores.
    @ivar concurrent: how many calls may wait in the reactor.
    @ivar largest: how many bytes a message may have.
    """

    processes: int = field(validator=_atLeast(0))
    threads: int = field(converter=_orCores, validator=_atLeast(1))
    concurrent: int = field(validator=_atLeast(1))
    largest: int

    @property
    def series(self) -> str:
        """
        The series of calls that do not want a thread.
        """
        return "process" if self.processes else "async"


def buildHostQueue(
    workers: HostWorkers, catalog: Catalog, timeout: float, reactor: Any
) -> TaskQueue:
    """
    Return a queue with these workers.

    @param timeout: the seconds that they may take to stop.
    """
    queue = TaskQueue(timeout=timeout, reactor=reactor)
    queue.attachWorker(ThreadWorker(threads=workers.threads, reactor=reactor))
    if not workers.processes:
        queue.attachWorker(AsyncWorker(concurrent=workers.concurrent, reactor=reactor))
    preparation: dict[str, Any] = {}
    if isinstance(catalog, ChildCatalog):
        preparation = {"initializer": catalog.initializer, "initargs": catalog.initargs}
    for _ in range(workers.processes):
        worker = ProcessWorker(largest=workers.largest, reactor=reactor, **preparation)
        queue.attachWorker(worker)
        worker.start()
    return queue


def newCatalog(
    server: Any,
    given: Any,
    allow: tuple[str, ...],
    trust: str,
    processes: int,
    codec: Codec,
) -> Catalog:
    """
    Return what may be called.

    @param given: what the user gave for the universe.
    """
    if allow and trust == "universe":
        trust = "modules"
    if given is None and trust == "universe":
        raise ValueError(
            "nothing could be called: give a universe, the modules whose functions may be"
            " called (allow=), or trust='code'"
        )
    if trust == "code" and codec.name != "pickle":
        raise ValueError(f"trust='code' needs codec='pickle', not {codec.name!r}")
    if given is None:
        return Catalog(None, allow, trust)
    universe = universeOf(given, server)
    if processes:
        return ChildCatalog(given, universe, allow, trust)
    return Catalog(universe, allow, trust)
