"""
Iteration whose items come later: in loops, to consumers, and to threads.
"""

from __future__ import annotations

from asynqueue.iteration.bridges import Consumerator, Filerator
from asynqueue.iteration.deferator import Deferator
from asynqueue.iteration.delays import Delay, deferToDelay
from asynqueue.iteration.ordered import OrderedItemProducer
from asynqueue.iteration.prefetch import Prefetcherator
from asynqueue.iteration.producers import IterationProducer, ListConsumer, iteratorToProducer
from asynqueue.iteration.sources import AsyncIteratorSource, IteratorSource, PullSource, isIterator
from asynqueue.iteration.tracking import DeferredLock, DeferredTracker

__all__ = [
    "AsyncIteratorSource",
    "Consumerator",
    "Deferator",
    "DeferredLock",
    "DeferredTracker",
    "Delay",
    "Filerator",
    "IterationProducer",
    "IteratorSource",
    "ListConsumer",
    "OrderedItemProducer",
    "Prefetcherator",
    "PullSource",
    "deferToDelay",
    "isIterator",
    "iteratorToProducer",
]
