"""
Programs with a durable queue, in one process and without a thread: they go on when a test says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from asynqueue.durable.queue import DurableQueue
from asynqueue.stores.errors import StoreError
from asynqueue.stores.memory import MemoryEngine
from asynqueue.stores.operations import Find, Operation
from asynqueue.stores.records import ALL, JobFilter, JobRecord, StoreEvent
from asynqueue.stores.store import Store
from asynqueue.stores.thread import DirectRunner
from asynqueue.workers.asynchronous import AsyncWorker
from tests import durablejobs as jobs
from tests.doubles import resultOf

ALLOWED = ["tests.durablejobs"]


class FaultyEngine:
    """
    An engine around another, that fails when it is told to.

    @ivar fault: is called with the operations before they are done; what it returns is called
        after that. Both may raise.
    @ivar done: the operations that were done.
    """

    name = "faulty:"

    def __init__(self, engine: MemoryEngine) -> None:
        self.isShared = engine.isShared
        self.fault: Callable[[Sequence[Any]], Callable[[], None] | None] | None = None
        self.done: list[Operation[Any]] = []
        self._engine = engine

    def open(self) -> None:
        self._engine.open()

    def execute(self, operations: Sequence[Operation[Any]]) -> tuple[list[Any], StoreEvent]:
        after = None if self.fault is None else self.fault(operations)
        answer = self._engine.execute(operations)
        self.done += operations
        if after is not None:
            after()
        return answer

    def close(self) -> None:
        self._engine.close()


@contextmanager
def failing(
    engine: FaultyEngine, kind: type, error: StoreError, isDone: bool = False
) -> Iterator[None]:
    """
    Have all transactions fail that have an operation of a kind.

    @param isDone: whether they are done nevertheless.
    """

    def raiseIt() -> None:
        raise error

    def fault(operations: Sequence[Any]) -> Callable[[], None] | None:
        if any(isinstance(operation, kind) for operation in operations):
            if isDone:
                return raiseIt
            raise error
        return None

    engine.fault = fault
    try:
        yield
    finally:
        engine.fault = None


class Machine:
    """
    What outlives programs: a store in memory, and a clock.
    """

    def __init__(self, isShared: bool = False) -> None:
        self.clock = Clock()
        self.clock.advance(1_000_000)
        self.memory = MemoryEngine(self.clock.seconds)
        self.memory.isShared = isShared
        jobs.CALLS.clear()
        jobs.WAITING.clear()

    def program(self, *workers: Any, **options: Any) -> Program:
        """
        Start a program with a queue.
        """
        return Program(self, *workers, **options)

    def records(self, jobs: JobFilter = ALL) -> list[JobRecord]:
        """
        Return what the store has.
        """
        [found], _ = self.memory.execute([Find(jobs)])
        return list(found)


class Program:
    """
    A program with a durable queue, which runs.
    """

    def __init__(self, machine: Machine, *workers: Any, **options: Any) -> None:
        """
        @param workers: C{()}: one that runs calls in the reactor, one at a time.
        """
        self.machine = machine
        self.clock = machine.clock
        self.engine = FaultyEngine(machine.memory)
        self.runner = DirectRunner()
        self.store = Store(self.engine, self.runner, reactor=self.clock)
        workers = workers or (AsyncWorker(reactor=self.clock),)
        self.queue = DurableQueue(
            self.store, *workers, allow=ALLOWED, reactor=self.clock, **options
        )
        resultOf(self.queue.start())
        self.turn()

    def turn(self) -> None:
        """
        Do all that can be done now.
        """
        for _ in range(20):
            self.clock.advance(0)

    def after(self, d: Deferred[Any]) -> Any:
        """
        Do all that can be done now, and return what a Deferred has fired with.
        """
        self.turn()
        return resultOf(d)

    def added(self, f: Any, *args: Any, **options: Any) -> str:
        """
        Enqueue a job, and return its ID.
        """
        id: str = self.after(self.queue.enqueue(f, *args, **options)).id
        return id

    def states(self) -> list[str]:
        """
        Return the states of all jobs, the oldest first.
        """
        return [record.state.value for record in self.machine.records()]

    def stop(self) -> None:
        """
        Stop the queue.
        """
        d = self.queue.stop()
        self.turn()
        resultOf(d)
