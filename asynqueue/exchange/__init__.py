"""
Parallel computations for scripts without a reactor: processes by fork, channels, and
exchanges that collect what they send.

  - L{pmap} calls a function with each item of a sequence, in processes.
  - L{Map} and L{Queue} give results in the order of their start, or of their
    arrival; L{Exchange} lets a subclass say what to do with them.
  - L{start} and L{create} make one process, and a L{Channel} to it.
  - L{BackgroundCallable} leaves a process behind, whose result is collected through
    an address.

The names are those of pprocess, by Paul Boddie; the code is not.
"""

from __future__ import annotations

from asynqueue.errors import AcknowledgementError
from asynqueue.exchange.background import (
    BackgroundCallable,
    PersistentChannel,
    connect_persistent,
    create_persistent,
    start_persistent,
)
from asynqueue.exchange.channel import Channel
from asynqueue.exchange.creating import create, exit, start, waitall
from asynqueue.exchange.exchange import Exchange, ManagedCallable
from asynqueue.exchange.parallel import (
    MakeParallel,
    MakeReusable,
    Map,
    Queue,
    get_number_of_cores,
    pmap,
)
from asynqueue.exchange.persistent import (
    BackgroundQueue,
    PersistentCallable,
    PersistentExchange,
    PersistentQueue,
)

__all__ = [
    "AcknowledgementError",
    "BackgroundCallable",
    "BackgroundQueue",
    "Channel",
    "Exchange",
    "MakeParallel",
    "MakeReusable",
    "ManagedCallable",
    "Map",
    "PersistentCallable",
    "PersistentChannel",
    "PersistentExchange",
    "PersistentQueue",
    "Queue",
    "connect_persistent",
    "create",
    "create_persistent",
    "exit",
    "get_number_of_cores",
    "pmap",
    "start",
    "start_persistent",
    "waitall",
]
