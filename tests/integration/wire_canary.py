"""
A host for test_wire_unauthenticated: whatever is unpickled in it leaves a mark.

C{python wire_canary.py FOLDER KEY} listens, prints the port, and serves until its
standard input ends.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from twisted.internet.protocol import Protocol
from twisted.internet.stdio import StandardIO
from twisted.python.failure import Failure

from asynqueue.reactors import theReactor
from asynqueue.wire.host.catalog import WireWorkerUniverse
from asynqueue.wire.host.server import WireServer


class Universe(WireWorkerUniverse):
    """
    What can be called, with the key.
    """

    def add(self, one: int, two: int) -> int:
        """
        Something quick.
        """
        return one + two


class Watch(Protocol):
    """
    Ends this process with the one that started it.
    """

    def connectionLost(self, reason: Failure | None = None) -> None:
        """
        The standard input has ended.
        """
        theReactor().stop()


def main(folder: str, key: str) -> None:
    """
    Serve.
    """
    server = WireServer("tcp:0:interface=127.0.0.1", Universe, key=key.encode())

    def listens(_: Any) -> None:
        # From here on, nobody has a reason to unpickle anything.
        sys.addaudithook(mark)
        print(server.address.port, flush=True)

    def mark(event: str, arguments: Any) -> None:
        if event in ("pickle.find_class", "marshal.loads", "exec", "compile"):
            Path(folder, event).touch()

    server.start().addCallbacks(listens, lambda failure: failure.printTraceback())
    StandardIO(Watch())
    theReactor().run()


if __name__ == "__main__":
    main(*sys.argv[1:])
