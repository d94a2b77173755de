"""
Pools of child processes.

::

    protocol, spawn: how a child starts, and what is said to it
    child:           what runs there; it knows no Twisted
    member, roles:   one child, from its start to its end, and who is told of it
    seat:            keeps one place filled with a child, whatever becomes of it
    pools, threaded: many places, driven by any event loop or by a thread
    taskpool:        the face of these

As the package itself, this one imports nothing until a name is asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asynqueue.errors import (
        MaybeEncodingError as MaybeEncodingError,
        SoftTimeLimitExceeded as SoftTimeLimitExceeded,
        TimeLimitExceeded as TimeLimitExceeded,
        WorkerLostError as WorkerLostError,
    )
    from asynqueue.pool.results import (
        AsyncResult as AsyncResult,
        ResultHandler as ResultHandler,
    )
    from asynqueue.pool.taskpool import TaskPool as TaskPool

# What type checkers see above, and where it is found when it is asked for.
_HOME_OF = {
    "AsyncResult": "asynqueue.pool.results",
    "MaybeEncodingError": "asynqueue.errors",
    "ResultHandler": "asynqueue.pool.results",
    "SoftTimeLimitExceeded": "asynqueue.errors",
    "TaskPool": "asynqueue.pool.taskpool",
    "TimeLimitExceeded": "asynqueue.errors",
    "WorkerLostError": "asynqueue.errors",
}

__all__ = [
    "AsyncResult",
    "MaybeEncodingError",
    "ResultHandler",
    "SoftTimeLimitExceeded",
    "TaskPool",
    "TimeLimitExceeded",
    "WorkerLostError",
]


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
