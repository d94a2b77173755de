"""
Help for tests: of programs that use AsynQueue, and of workers of your own.

Nothing here needs a certain test framework.

  - L{MemoryWorker} does nothing until the test says so, and L{MemoryPrefetcher}
    takes tasks ahead. L{MemoryQueue} is a queue with such workers and a clock
    that only the test moves: its tests are synchronous.
  - L{MemoryTask} stands for the task where a worker is tested without a queue.
  - L{RecordingObserver} and L{RecordingConsumer} note what they hear.
  - L{checkWorker} tests any worker for what L{IWorker
    <asynqueue.interfaces.IWorker>} promises; L{workerChecks} gives the same as
    single checks. L{checkChannel} and L{channelChecks} do so for channels, of which
    L{MemoryChannel} is one without descriptors, and L{checkPoller} and
    L{pollerChecks} for pollers. L{Gate} is where the calls of a test
    wait, wherever they run.
"""

from __future__ import annotations

from asynqueue.testing.channels import (
    ChannelCheck,
    MemoryChannel,
    channelChecks,
    checkChannel,
    memoryChannelPair,
)
from asynqueue.testing.conformance import WorkerCheck, checkWorker, workerChecks
from asynqueue.testing.doubles import (
    MemoryPrefetcher,
    MemoryQueue,
    MemoryTask,
    MemoryWorker,
    RecordingConsumer,
    RecordingObserver,
    advanceUntil,
)
from asynqueue.testing.gates import Gate
from asynqueue.testing.pollers import PollerCheck, checkPoller, pollerChecks
from asynqueue.testing.transports import RecordingTransport

__all__ = [
    "ChannelCheck",
    "Gate",
    "MemoryChannel",
    "MemoryPrefetcher",
    "MemoryQueue",
    "MemoryTask",
    "MemoryWorker",
    "PollerCheck",
    "RecordingConsumer",
    "RecordingObserver",
    "RecordingTransport",
    "WorkerCheck",
    "advanceUntil",
    "channelChecks",
    "checkChannel",
    "checkPoller",
    "checkWorker",
    "memoryChannelPair",
    "pollerChecks",
    "workerChecks",
]
