"""
AsynQueue: a task queue for Twisted and asyncio programs.

  - Queues: L{TaskQueue}; with workers of their own L{ThreadQueue}, L{ProcessQueue} and
    L{NullQueue}; L{deferToThread}. L{CallOptions} say how a call is made, L{QueueObserver}
    (L{IQueueObserver}) hears of it, and L{CallTimes} measures how long it takes.
  - Workers: L{AsyncWorker}, L{ThreadWorker}, L{ProcessWorker}, L{ExecutorWorker}, L{WireWorker}, or
    your own L{IWorker}.
  - Other hosts: L{WireServer}, L{WireHub}, L{WireWorkerUniverse}, L{ServerManager}.
  - Jobs, which outlive programs: L{DurableQueue}, with L{JobOptions} and L{Retry}, L{Job} and
    L{JobFilter}; raised by jobs L{Snooze} and L{GiveUp}.
  - Iteration: L{Deferator}, L{Consumerator}, L{Filerator}, L{OrderedItemProducer},
    L{DeferredTracker}, L{DeferredLock}.
  - Pools of processes: L{TaskPool}, L{ResultHandler}; for scripts without a reactor L{Exchange}.
  - Pollers: L{BasePoller}, L{SelectPoller}, L{PollPoller}, L{EpollPoller}, L{KQueuePoller},
    L{ReactorPoller}, and the L{Transport} that they watch.
  - Errors: L{AsynQueueError}; of queues L{QueueRunError}, L{TaskTimedOut}, L{TaskExpired},
    L{TaskInterrupted}, L{NotReadyError}, L{LoopError}, L{ForkError}, L{ImplementationError},
    L{InvariantError}; of workers L{WorkerError}, L{WorkerLost}, L{WorkerLostError},
    L{TimeLimitExceeded}, L{SoftTimeLimitExceeded}, L{RemoteError}, L{MaybeEncodingError},
    L{AcknowledgementError}; of the wire L{WireError}, L{IdentityRequired}, L{IdentityRefused},
    L{KeyFileRefused}, L{VersionRefused}, L{LocalProtocolError}, L{RemoteProtocolError},
    L{NoSuchCallable}; of frames L{FrameError}, L{FrameInvalid}, L{FrameTooLarge},
    L{FrameTruncated}.

These names are public, and so are those of L{asynqueue.exchange}, L{asynqueue.intake},
L{asynqueue.interfaces}, L{asynqueue.iteration}, L{asynqueue.pollers}, L{asynqueue.pool},
L{asynqueue.service}, L{asynqueue.testing} and L{asynqueue.wire}. Other modules are the inside.

The package imports nothing until a name is asked for (PEP 562): importing it installs no reactor,
and where only a part is needed, only that part is loaded.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from asynqueue.lazy import lazyNames

if TYPE_CHECKING:
    from asynqueue.durable.options import (
        Job as Job,
        JobOptions as JobOptions,
        Retry as Retry,
    )
    from asynqueue.durable.queue import (
        DurableQueue as DurableQueue,
    )
    from asynqueue.errors import (
        AcknowledgementError as AcknowledgementError,
        AsynQueueError as AsynQueueError,
        ForkError as ForkError,
        FrameError as FrameError,
        FrameInvalid as FrameInvalid,
        FrameTooLarge as FrameTooLarge,
        FrameTruncated as FrameTruncated,
        GiveUp as GiveUp,
        IdentityRefused as IdentityRefused,
        IdentityRequired as IdentityRequired,
        ImplementationError as ImplementationError,
        InvariantError as InvariantError,
        KeyFileRefused as KeyFileRefused,
        LocalProtocolError as LocalProtocolError,
        LoopError as LoopError,
        MaybeEncodingError as MaybeEncodingError,
        NoSuchCallable as NoSuchCallable,
        NotReadyError as NotReadyError,
        QueueRunError as QueueRunError,
        RemoteError as RemoteError,
        RemoteProtocolError as RemoteProtocolError,
        Snooze as Snooze,
        SoftTimeLimitExceeded as SoftTimeLimitExceeded,
        TaskExpired as TaskExpired,
        TaskInterrupted as TaskInterrupted,
        TaskTimedOut as TaskTimedOut,
        TimeLimitExceeded as TimeLimitExceeded,
        VersionRefused as VersionRefused,
        WireError as WireError,
        WorkerError as WorkerError,
        WorkerLost as WorkerLost,
        WorkerLostError as WorkerLostError,
    )
    from asynqueue.exchange import (
        Exchange as Exchange,
    )
    from asynqueue.interfaces import (
        IQueueObserver as IQueueObserver,
        IWorker as IWorker,
    )
    from asynqueue.iteration import (
        Consumerator as Consumerator,
        Deferator as Deferator,
        DeferredLock as DeferredLock,
        DeferredTracker as DeferredTracker,
        Filerator as Filerator,
        OrderedItemProducer as OrderedItemProducer,
    )
    from asynqueue.pollers import (
        BasePoller as BasePoller,
        EpollPoller as EpollPoller,
        KQueuePoller as KQueuePoller,
        PollPoller as PollPoller,
        ReactorPoller as ReactorPoller,
        SelectPoller as SelectPoller,
        Transport as Transport,
    )
    from asynqueue.pool import (
        ResultHandler as ResultHandler,
        TaskPool as TaskPool,
    )
    from asynqueue.queues import (
        NullQueue as NullQueue,
        ProcessQueue as ProcessQueue,
        ThreadQueue as ThreadQueue,
        deferToThread as deferToThread,
    )
    from asynqueue.scheduling.observers import (
        QueueObserver as QueueObserver,
    )
    from asynqueue.scheduling.options import (
        CallOptions as CallOptions,
    )
    from asynqueue.scheduling.times import (
        CallTimes as CallTimes,
    )
    from asynqueue.stores.records import (
        JobFilter as JobFilter,
    )
    from asynqueue.taskqueue import (
        TaskQueue as TaskQueue,
    )
    from asynqueue.wire import (
        ServerManager as ServerManager,
        WireHub as WireHub,
        WireServer as WireServer,
        WireWorker as WireWorker,
        WireWorkerUniverse as WireWorkerUniverse,
    )
    from asynqueue.workers.asynchronous import (
        AsyncWorker as AsyncWorker,
    )
    from asynqueue.workers.executor import (
        ExecutorWorker as ExecutorWorker,
    )
    from asynqueue.workers.process import (
        ProcessWorker as ProcessWorker,
    )
    from asynqueue.workers.thread import (
        ThreadWorker as ThreadWorker,
    )

__all__ = [
    "AcknowledgementError",
    "AsynQueueError",
    "AsyncWorker",
    "BasePoller",
    "CallOptions",
    "CallTimes",
    "Consumerator",
    "Deferator",
    "DeferredLock",
    "DeferredTracker",
    "DurableQueue",
    "EpollPoller",
    "Exchange",
    "ExecutorWorker",
    "Filerator",
    "ForkError",
    "FrameError",
    "FrameInvalid",
    "FrameTooLarge",
    "FrameTruncated",
    "GiveUp",
    "IQueueObserver",
    "IWorker",
    "IdentityRefused",
    "IdentityRequired",
    "ImplementationError",
    "InvariantError",
    "Job",
    "JobFilter",
    "JobOptions",
    "KQueuePoller",
    "KeyFileRefused",
    "LocalProtocolError",
    "LoopError",
    "MaybeEncodingError",
    "NoSuchCallable",
    "NotReadyError",
    "NullQueue",
    "OrderedItemProducer",
    "PollPoller",
    "ProcessQueue",
    "ProcessWorker",
    "QueueObserver",
    "QueueRunError",
    "ReactorPoller",
    "RemoteError",
    "RemoteProtocolError",
    "ResultHandler",
    "Retry",
    "SelectPoller",
    "ServerManager",
    "Snooze",
    "SoftTimeLimitExceeded",
    "TaskExpired",
    "TaskInterrupted",
    "TaskPool",
    "TaskQueue",
    "TaskTimedOut",
    "ThreadQueue",
    "ThreadWorker",
    "TimeLimitExceeded",
    "Transport",
    "VersionRefused",
    "WireError",
    "WireHub",
    "WireServer",
    "WireWorker",
    "WireWorkerUniverse",
    "WorkerError",
    "WorkerLost",
    "WorkerLostError",
    "deferToThread",
]


def _version() -> Any:
    # The module that knows takes longer to import than all that is needed here.
    return import_module("importlib.metadata").version(__name__)


# What type checkers see above, and where it is found when it is asked for.
__getattr__, __dir__ = lazyNames(
    __name__,
    {
        "asynqueue.durable.options": ("Job", "JobOptions", "Retry"),
        "asynqueue.durable.queue": ("DurableQueue",),
        "asynqueue.errors": (
            "AcknowledgementError",
            "AsynQueueError",
            "ForkError",
            "FrameError",
            "FrameInvalid",
            "FrameTooLarge",
            "FrameTruncated",
            "GiveUp",
            "IdentityRefused",
            "IdentityRequired",
            "ImplementationError",
            "InvariantError",
            "KeyFileRefused",
            "LocalProtocolError",
            "LoopError",
            "MaybeEncodingError",
            "NoSuchCallable",
            "NotReadyError",
            "QueueRunError",
            "RemoteError",
            "RemoteProtocolError",
            "Snooze",
            "SoftTimeLimitExceeded",
            "TaskExpired",
            "TaskInterrupted",
            "TaskTimedOut",
            "TimeLimitExceeded",
            "VersionRefused",
            "WireError",
            "WorkerError",
            "WorkerLost",
            "WorkerLostError",
        ),
        "asynqueue.exchange": ("Exchange",),
        "asynqueue.interfaces": ("IQueueObserver", "IWorker"),
        "asynqueue.iteration": (
            "Consumerator",
            "Deferator",
            "DeferredLock",
            "DeferredTracker",
            "Filerator",
            "OrderedItemProducer",
        ),
        "asynqueue.pollers": (
            "BasePoller",
            "EpollPoller",
            "KQueuePoller",
            "PollPoller",
            "ReactorPoller",
            "SelectPoller",
            "Transport",
        ),
        "asynqueue.pool": ("ResultHandler", "TaskPool"),
        "asynqueue.queues": ("NullQueue", "ProcessQueue", "ThreadQueue", "deferToThread"),
        "asynqueue.scheduling.observers": ("QueueObserver",),
        "asynqueue.scheduling.options": ("CallOptions",),
        "asynqueue.scheduling.times": ("CallTimes",),
        "asynqueue.stores.records": ("JobFilter",),
        "asynqueue.taskqueue": ("TaskQueue",),
        "asynqueue.wire": (
            "ServerManager",
            "WireHub",
            "WireServer",
            "WireWorker",
            "WireWorkerUniverse",
        ),
        "asynqueue.workers.asynchronous": ("AsyncWorker",),
        "asynqueue.workers.executor": ("ExecutorWorker",),
        "asynqueue.workers.process": ("ProcessWorker",),
        "asynqueue.workers.thread": ("ThreadWorker",),
    },
    computed={"__version__": _version},
)
