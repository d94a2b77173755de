"""
Pools of child processes.

::

    taskpool:              the face of these
    eventpool, threadpool: many children, driven by any event loop or by a thread
    dispatcher:            which child makes which call. With it: jobs, supervisors
    results, outputs:      what callers hold, and who reads what comes back

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
