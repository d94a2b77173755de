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

from typing import TYPE_CHECKING

from asynqueue.lazy import lazyNames

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

__all__ = [
    "AsyncResult",
    "MaybeEncodingError",
    "ResultHandler",
    "SoftTimeLimitExceeded",
    "TaskPool",
    "TimeLimitExceeded",
    "WorkerLostError",
]

# What type checkers see above, and where it is found when it is asked for.
__getattr__, __dir__ = lazyNames(
    __name__,
    {
        "asynqueue.errors": (
            "MaybeEncodingError",
            "SoftTimeLimitExceeded",
            "TimeLimitExceeded",
            "WorkerLostError",
        ),
        "asynqueue.pool.results": ("AsyncResult", "ResultHandler"),
        "asynqueue.pool.taskpool": ("TaskPool",),
    },
)
