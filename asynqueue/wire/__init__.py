"""
Workers on other hosts.

::

    queue ── WireWorker ── dials ──▶ WireServer ── its own queue
    queue ── WireHub ◀── dials ── WireServer(dial=True) ── its own queue

    spawning:  hosts that this process starts
    client:    the queue's end: workers whose calls are made by hosts
    host:      the host's end: names to callables, calls to a queue
    transport: what carries a session; who listens and dials, and with which proof
    protocol:  bytes in, events out; no I/O

As the package itself, this one imports nothing until a name is asked for: a process of
a host needs no more of it than the universe.
"""

from typing import TYPE_CHECKING

from asynqueue.lazy import lazyNames

if TYPE_CHECKING:
    from asynqueue.wire.client.hub import WireHub as WireHub
    from asynqueue.wire.client.worker import WireWorker as WireWorker
    from asynqueue.wire.host.catalog import WireWorkerUniverse as WireWorkerUniverse
    from asynqueue.wire.host.server import WireServer as WireServer
    from asynqueue.wire.spawning.manager import ServerManager as ServerManager

__all__ = ["ServerManager", "WireHub", "WireServer", "WireWorker", "WireWorkerUniverse"]

# What type checkers see above, and where it is found when it is asked for.
__getattr__, __dir__ = lazyNames(
    __name__,
    {
        "asynqueue.wire.host.catalog": ("WireWorkerUniverse",),
        "asynqueue.wire.client.hub": ("WireHub",),
        "asynqueue.wire.spawning.manager": ("ServerManager",),
        "asynqueue.wire.host.server": ("WireServer",),
        "asynqueue.wire.client.worker": ("WireWorker",),
    },
)
