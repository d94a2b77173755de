"""
A program with two servers, for tests that end it: it prints the process IDs of all, and
the folder that they have.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from twisted.internet import task
from twisted.internet.defer import Deferred

from asynqueue.taskqueue import TaskQueue
from asynqueue.wire.client.worker import WireWorker
from asynqueue.wire.spawning.manager import ServerManager
from tests.integration.wire_universe import Universe


async def main(reactor: Any, part: str) -> None:
    """
    Spawn the servers, and let them do something for ever.
    """
    manager = ServerManager("tests.integration.wire_universe.Universe", processes=1)
    queue = TaskQueue()
    pids = []
    for stdio in (False, True):
        where = manager.newSocket()
        spawned = await manager.spawn(where, stdio=stdio)
        worker = WireWorker(Universe(), where)
        await worker.whenConnected()
        await queue.attachWorker(worker)
        pids += [spawned.pid if stdio else spawned, await queue.call("pid")]
        folder = where.removeprefix("unix:").rpartition("/")[0]
    calls = []
    if part == "Hanging":
        # The first server blocks its reactor, as no method should; it cannot be told to end.
        calls.append(queue.call("freeze", f"{folder}/frozen", thread=True))
        while not os.path.exists(f"{folder}/frozen.begun"):
            await task.deferLater(reactor, 0.01)
    if part == "Forked" and os.fork() == 0:
        # It lives on for a while when its parent is gone.
        time.sleep(30)
        os._exit(0)
    print(folder, *pids, flush=True)
    if part == "Stopping":
        reactor.callLater(0, reactor.stop)
    await Deferred()


if __name__ == "__main__":
    task.react(lambda reactor: Deferred.fromCoroutine(main(reactor, sys.argv[1])))
