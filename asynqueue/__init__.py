"""
AsynQueue: a task queue for Twisted and asyncio programs.

This package imports nothing until a name is asked for (PEP 562): importing it
installs no reactor, and where only a part is needed, only that part is loaded.
"""

from importlib import import_module
from importlib.metadata import version
from typing import Any

_HOMES = {
    "asynqueue.errors": (
        "AsynQueueError",
        "ImplementationError",
        "InvariantError",
        "MaybeEncodingError",
        "NotReadyError",
        "QueueRunError",
        "RemoteError",
        "TaskTimedOut",
        "WorkerError",
        "WorkerLost",
    ),
    "asynqueue.interfaces": ("IQueueObserver", "IWorker"),
    "asynqueue.iteration": (
        "Consumerator",
        "DeferredLock",
        "DeferredTracker",
        "Deferator",
        "Filerator",
        "OrderedItemProducer",
    ),
    "asynqueue.queues": ("NullQueue", "ThreadQueue", "deferToThread"),
    "asynqueue.scheduling.options": ("CallOptions",),
    "asynqueue.taskqueue": ("TaskQueue",),
    "asynqueue.workers.asynchronous": ("AsyncWorker",),
    "asynqueue.workers.executor": ("ExecutorWorker",),
    "asynqueue.workers.thread": ("ThreadWorker",),
}

_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return version(__name__)
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
