"""
Workers on other hosts.

::

    queue ── WireWorker ── dials ──▶ WireServer ── its own queue
    queue ── WireHub ◀── dials ── WireServer(dial=True) ── its own queue

    messages, commands:        what is said, once the connection is open, and before
    auth, streams, session:    bytes in, events out; no I/O
    connection:                a session, and what Twisted carries it with
    catalog, codecs, serving:  the host's end: names to callables, calls to a queue
    remote, worker, hub:       the queue's end
    endpoints, server, manager: who listens and dials where, and with which proof

As the package itself, this one imports nothing until a name is asked for: a process of
a host needs no more of it than the universe.
"""

from typing import TYPE_CHECKING

from asynqueue.lazy import lazyNames

if TYPE_CHECKING:
    from asynqueue.wire.catalog import WireWorkerUniverse as WireWorkerUniverse
    from asynqueue.wire.hub import WireHub as WireHub
    from asynqueue.wire.manager import ServerManager as ServerManager
    from asynqueue.wire.server import WireServer as WireServer
    from asynqueue.wire.worker import WireWorker as WireWorker

__all__ = ["ServerManager", "WireHub", "WireServer", "WireWorker", "WireWorkerUniverse"]

# What type checkers see above, and where it is found when it is asked for.
__getattr__, __dir__ = lazyNames(
    __name__,
    {
        "asynqueue.wire.catalog": ("WireWorkerUniverse",),
        "asynqueue.wire.hub": ("WireHub",),
        "asynqueue.wire.manager": ("ServerManager",),
        "asynqueue.wire.server": ("WireServer",),
        "asynqueue.wire.worker": ("WireWorker",),
    },
)
