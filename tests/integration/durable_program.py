"""
A program with a durable queue on a file, that kills itself at a given point.

C{python -m tests.integration.durable_program FOLDER WORKER POINT NUMBER JOBS}: enqueue some jobs,
and end when all jobs of the store have ended. With a point C{Claim-before} it dies by SIGKILL
before the transaction with the NUMBERth L{Claim}; with C{Claim-after} when that is committed, and
has not been answered. C{none}: it lives.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twisted.internet.defer import ensureDeferred
from twisted.internet.task import deferLater, react

from asynqueue import DurableQueue, ProcessWorker, Retry, ThreadWorker
from asynqueue.durable.options import JobOptions
from asynqueue.stores.operations import Operation
from asynqueue.stores.records import ENDED, StoreEvent
from asynqueue.stores.sqlite.engine import SQLiteEngine
from asynqueue.stores.store import Store

WORKERS: dict[str, Any] = {"thread": ThreadWorker, "process": ProcessWorker}


def note(path: str, name: str) -> str:
    """
    Add a line to a file, at once.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, f"{name}\n".encode())
    os.close(descriptor)
    return name


class KillingEngine(SQLiteEngine):
    """
    An engine that ends its program at a point.
    """

    point = "none"
    left = 0

    def execute(self, operations: Sequence[Operation[Any]]) -> tuple[list[Any], StoreEvent]:
        """
        Do operations, and die before it or after it, if it is time.
        """
        kind, _, when = self.point.partition("-")
        if any(type(operation).__name__ == kind for operation in operations):
            self.left -= 1
        isTime = kind != "none" and self.left == 0
        if isTime and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        answer = super().execute(operations)
        if isTime:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer


async def main(reactor: Any, folder: str, worker: str, point: str, number: str, jobs: str) -> None:
    """
    Enqueue jobs, and wait for all.
    """
    engine = KillingEngine(Path(folder, "jobs.db"))
    engine.point, engine.left = point, int(number)
    queue = DurableQueue(
        Store(engine), WORKERS[worker](), allow=["tests.integration.durable_program"]
    )
    await queue.start()
    runs, stored = str(Path(folder, "runs")), str(Path(folder, "stored"))
    for each in range(int(jobs)):
        isRepeated = each % 2 == 1
        name = f"{each}-{'loss' if isRepeated else 'once'}"
        options = JobOptions(key=name, retry=Retry(3, loss=isRepeated))
        call = "tests.integration.durable_program:note"
        job = await queue.enqueueWith(options, call, runs, name)
        note(stored, job.id)
    while not set(await queue.count()) <= ENDED:
        await deferLater(reactor, 0.01)
    await queue.stop()


if __name__ == "__main__":
    react(lambda reactor: ensureDeferred(main(reactor, *sys.argv[1:])))
