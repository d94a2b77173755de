"""
Who makes the calls of a host, and which calls.
"""

from __future__ import annotations

from typing import Any

from asynqueue.checks import wholeNumber
from asynqueue.queues import ProcessQueue
from asynqueue.taskqueue import TaskQueue
from asynqueue.wire.host.catalog import Catalog
from asynqueue.wire.host.universes import ChildCatalog, universeOf
from asynqueue.wire.protocol.codecs import Codec
from asynqueue.workers.asynchronous import AsyncWorker
from asynqueue.workers.process import ProcessWorker
from asynqueue.workers.thread import ThreadWorker


class Crew:
    """
    The workers of a host.

    @ivar series: for what calls are queued, if they do not want a thread.
    """

    def __init__(self, processes: int, threads: int | None, concurrent: int, largest: int) -> None:
        """
        @param processes: how many make the calls; 0: the reactor does.
        @param threads: how many there are for calls that want one; C{None}: as many as
            there are cores.
        @param concurrent: how many calls may wait in the reactor.
        @param largest: how many bytes a message may have.
        """
        if threads is None:
            threads = ProcessQueue.cores()
        wholeNumber(processes, "processes", least=0)
        wholeNumber(threads, "threads")
        wholeNumber(concurrent, "concurrent")
        self.series = "process" if processes else "async"
        self._processes = processes
        self._threads = threads
        self._concurrent = concurrent
        self._largest = largest

    def newQueue(self, catalog: Catalog, timeout: float, reactor: Any) -> TaskQueue:
        """
        A queue with such workers.

        @param timeout: the seconds that they may take to stop.
        """
        queue = TaskQueue(timeout=timeout, reactor=reactor)
        queue.attachWorker(ThreadWorker(threads=self._threads, reactor=reactor))
        if not self._processes:
            queue.attachWorker(AsyncWorker(concurrent=self._concurrent, reactor=reactor))
        preparation: dict[str, Any] = {}
        if isinstance(catalog, ChildCatalog):
            preparation = {"initializer": catalog.initializer, "initargs": catalog.initargs}
        for _ in range(self._processes):
            worker = ProcessWorker(largest=self._largest, reactor=reactor, **preparation)
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
    What may be called.

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
