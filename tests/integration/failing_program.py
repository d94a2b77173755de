"""
A program that has no room for another process: of several workers one has its process.
"""

from __future__ import annotations

import os
import resource
from typing import Any

from twisted.internet.defer import DeferredList
from twisted.internet.task import react

from asynqueue import ProcessQueue
from tests.integration.process_checks import until


async def main(reactor: Any) -> None:
    """
    Make calls while there is no room, and when there is again.
    """
    queue = ProcessQueue(3)
    first = await queue.call(os.getpid)
    resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))
    kept = []
    try:
        while True:
            kept.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        # So many are needed to look for what has come.
        for _ in range(4):
            os.close(kept.pop())
    results = await DeferredList([queue.call(os.getpid) for _ in range(20)], consumeErrors=True)
    print(*sorted({str(value) for _, value in results}), flush=True)
    print(first)
    for descriptor in kept:
        os.close(descriptor)
    # The others try again by themselves.
    await until(lambda: sum(len(worker.pids) for worker in queue.workers()) == 3)
    print("all", flush=True)
    await queue.shutdown()


if __name__ == "__main__":
    react(main)
