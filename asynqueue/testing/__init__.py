"""
Help for tests: of programs that use AsynQueue, and of workers of your own.

Nothing here needs a certain test framework.

  - L{MemoryWorker} does nothing until the test says so, and L{MemoryPrefetcher}
    takes tasks ahead. L{MemoryQueue} is a queue with such workers and a clock
    that only the test moves: its tests are synchronous.
  - L{MemoryTask} stands for the task where a worker is tested without a queue.
  - L{RecordingObserver} and L{RecordingConsumer} note what they hear, and
    L{RecordingBacklog} what a queue asks of its backlog.
  - L{checkWorker} tests any worker for what L{IWorker
    <asynqueue.interfaces.IWorker>} promises; L{workerChecks} gives the same as
    single checks. L{checkChannel} and L{channelChecks} do so for channels, of which
    L{MemoryChannel} is one without descriptors, and L{checkPoller} and
    L{pollerChecks} for pollers, L{checkBacklog} and L{backlogChecks} for backlogs, and
    L{checkStore} and L{storeChecks} for stores of durable calls. L{FaultyStore} is one
    that is away, is lost, or hesitates when the test says so.
    L{Gate} is where the calls of a test wait, wherever they run.

As the package itself, this one imports nothing until a name is asked for: the process in
which a call of a test is made needs no more of it than the call.
"""

from typing import TYPE_CHECKING

from asynqueue.lazy import lazyNames

if TYPE_CHECKING:
    from asynqueue.testing.backlogchecks import (
        BacklogCheck as BacklogCheck,
        backlogChecks as backlogChecks,
        checkBacklog as checkBacklog,
    )
    from asynqueue.testing.backlogs import (
        RecordingBacklog as RecordingBacklog,
    )
    from asynqueue.testing.channels import (
        ChannelCheck as ChannelCheck,
        MemoryChannel as MemoryChannel,
        channelChecks as channelChecks,
        checkChannel as checkChannel,
        memoryChannelPair as memoryChannelPair,
    )
    from asynqueue.testing.conformance import (
        WorkerCheck as WorkerCheck,
        checkWorker as checkWorker,
        workerChecks as workerChecks,
    )
    from asynqueue.testing.doubles import (
        MemoryPrefetcher as MemoryPrefetcher,
        MemoryQueue as MemoryQueue,
        MemoryTask as MemoryTask,
        MemoryWorker as MemoryWorker,
        RecordingConsumer as RecordingConsumer,
        RecordingObserver as RecordingObserver,
        advanceUntil as advanceUntil,
    )
    from asynqueue.testing.faultystores import (
        FaultyStore as FaultyStore,
    )
    from asynqueue.testing.gates import (
        Gate as Gate,
    )
    from asynqueue.testing.pollers import (
        PollerCheck as PollerCheck,
        checkPoller as checkPoller,
        pollerChecks as pollerChecks,
    )
    from asynqueue.testing.stores import (
        StoreCheck as StoreCheck,
        checkStore as checkStore,
        storeChecks as storeChecks,
    )
    from asynqueue.testing.transports import (
        RecordingTransport as RecordingTransport,
    )

__all__ = [
    "BacklogCheck",
    "ChannelCheck",
    "FaultyStore",
    "Gate",
    "MemoryChannel",
    "MemoryPrefetcher",
    "MemoryQueue",
    "MemoryTask",
    "MemoryWorker",
    "PollerCheck",
    "RecordingBacklog",
    "RecordingConsumer",
    "RecordingObserver",
    "RecordingTransport",
    "StoreCheck",
    "WorkerCheck",
    "advanceUntil",
    "backlogChecks",
    "channelChecks",
    "checkBacklog",
    "checkChannel",
    "checkPoller",
    "checkStore",
    "checkWorker",
    "memoryChannelPair",
    "pollerChecks",
    "storeChecks",
    "workerChecks",
]

# What type checkers see above, and where it is found when it is asked for.
__getattr__, __dir__ = lazyNames(
    __name__,
    {
        "asynqueue.testing.backlogchecks": ("BacklogCheck", "backlogChecks", "checkBacklog"),
        "asynqueue.testing.backlogs": ("RecordingBacklog",),
        "asynqueue.testing.channels": (
            "ChannelCheck",
            "MemoryChannel",
            "channelChecks",
            "checkChannel",
            "memoryChannelPair",
        ),
        "asynqueue.testing.conformance": ("WorkerCheck", "checkWorker", "workerChecks"),
        "asynqueue.testing.doubles": (
            "MemoryPrefetcher",
            "MemoryQueue",
            "MemoryTask",
            "MemoryWorker",
            "RecordingConsumer",
            "RecordingObserver",
            "advanceUntil",
        ),
        "asynqueue.testing.faultystores": ("FaultyStore",),
        "asynqueue.testing.gates": ("Gate",),
        "asynqueue.testing.pollers": ("PollerCheck", "checkPoller", "pollerChecks"),
        "asynqueue.testing.stores": ("StoreCheck", "checkStore", "storeChecks"),
        "asynqueue.testing.transports": ("RecordingTransport",),
    },
)
