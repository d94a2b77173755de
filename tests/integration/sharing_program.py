"""
A program whose children use what has a name that all processes know: prints what comes of
it.
"""

from __future__ import annotations

import multiprocessing
import sys
from multiprocessing.managers import SyncManager
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any

from twisted.internet.task import react

from asynqueue import ProcessQueue
from tests.integration import sharing_calls as calls


async def withMemory(manager: SyncManager) -> None:
    """
    A child reads memory that was made after it had started, and makes some; both are
    there when it has ended.
    """
    queue = ProcessQueue(1)
    assert await queue.call(len, "up") == 2
    ours = SharedMemory(create=True, size=4)
    ours.buf[:4] = b"ours"
    print(await queue.call(calls.read, ours.name))
    theirs = await queue.call(calls.create, b"made")
    print("trackers", await queue.call(calls.helpers), await queue.call(calls.ownsTracker))
    await queue.shutdown()
    for name in (ours.name, theirs):
        print(calls.read(name))
        memory = SharedMemory(name)
        memory.close()
        memory.unlink()
    ours.close()


async def withManager(manager: SyncManager) -> None:
    """
    A child writes into a table of a manager. Nobody can read the key of that.
    """
    queue = ProcessQueue(1)
    table = manager.dict()
    await queue.call(calls.doubled, table, "a")
    key = bytes(multiprocessing.current_process().authkey)
    (pid,) = queue.workers()[0].pids
    for place in ("cmdline", "environ"):
        content = Path(f"/proc/{pid}/{place}").read_bytes()
        print(place, key in content or key.hex().encode() in content)
    multiprocessing.current_process().authkey = b"another one"
    print(dict(table), await queue.call(calls.keyOf))
    await queue.shutdown()


async def main(reactor: Any) -> None:
    """
    Do what is wanted.
    """
    await {"memory": withMemory, "manager": withManager}[sys.argv[1]](manager)


if __name__ == "__main__":
    # Before there are threads.
    with multiprocessing.get_context("fork").Manager() as manager:
        react(main)
