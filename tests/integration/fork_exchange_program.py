"""
A program that forks while exchanges compute. Parent and fork go on side by side. Both print
what became of the computations.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from typing import Any

from asynqueue.exchange import Channel, MakeParallel, Map, PersistentQueue, Queue, start
from tests.integration.forking import say


def whatComes(function: Callable[..., Any], *args: Any) -> Any:
    """
    What a function returned, or what it raised.
    """
    try:
        return function(*args)
    except Exception as error:
        # Whatever it is, it is printed.
        return f"{type(error).__name__}: {error}".split(" cannot ")[0].split(": it belongs")[0]


class Gate:
    """
    Computations wait until it is opened.
    """

    def __init__(self) -> None:
        self._reading, self._writing = os.pipe()

    def wait(self, value: int) -> int:
        """
        Wait, and return the value.
        """
        os.read(self._reading, 1)
        return value

    def open(self, times: int) -> None:
        """
        Let so many go on.
        """
        os.write(self._writing, b"!" * times)


def both(*parts: Callable[[], Any]) -> None:
    """
    Fork, do all in both processes, in the fork first, and end the fork.
    """
    pid = os.fork()
    if pid:
        say("fork ends", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    for part in parts:
        say(whatComes(part))
    if not pid:
        os._exit(0)


def ofMap() -> None:
    """
    Fork when of three computations one has ended, one is made, and one waits.
    """
    gate = Gate()
    map_ = Map(limit=1)(gate.wait, range(3))
    gate.open(1)
    assert map_[0] == 0
    gate.open(2)
    both(lambda: map_[0], lambda: map_[1], lambda: map_[2], lambda: map_(abs, [-3])[3])


def ofQueue() -> None:
    """
    Fork when of three computations two are made.
    """
    gate = Gate()
    queue = Queue(limit=2)
    for number in range(3):
        queue.start(MakeParallel(gate.wait), number)
    gate.open(3)

    def again() -> Any:
        queue.start(MakeParallel(abs), -4)
        return list(queue)

    both(lambda: sorted(queue), again, queue.finish)


def ofPersistent() -> None:
    """
    Fork when a background process was started, and nobody has connected to it.
    """
    with tempfile.TemporaryDirectory() as folder:
        queue = PersistentQueue()
        queue.start(f"{folder}/address", MakeParallel(abs), -5)
        both(lambda: list(queue), lambda: list(queue))


def ofChannel() -> None:
    """
    Fork when a channel leads to a process.
    """

    def serve(channel: Any) -> None:
        channel.send(channel.receive())

    channel: Channel = start(serve)
    both(lambda: channel.send(1), channel.receive, channel.wait)


if __name__ == "__main__":
    PARTS = {"map": ofMap, "queue": ofQueue, "persistent": ofPersistent, "channel": ofChannel}
    PARTS[sys.argv[1]]()
