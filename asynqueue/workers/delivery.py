"""
What becomes of an iterator that a task returned: a Deferator for the caller, or
items for a consumer.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from asynqueue.interfaces import IItemSource, ITask
from asynqueue.iteration.deferator import Deferator
from asynqueue.iteration.producers import IterationProducer


def deliverItems(task: ITask, source: IItemSource, representation: str, window: int) -> None:
    """
    End a task with the items of a source.

    Without a consumer the task ends at once, with a Deferator. With one it ends
    when the consumer has had the last item; if it ends before (it is cancelled,
    or takes too long), the source is stopped.
    """
    deferator = Deferator.fromSource(source, representation, window)
    consumer = task.options.consumer
    if consumer is None:
        task.callback(deferator)
        return
    produced: Deferred[Any] = IterationProducer(deferator, consumer).run()
    produced.addCallbacks(task.callback, task.errback)
    if not task.ended:
        # The task's own Deferred tells of an early end, and passes it on.
        task.d.addErrback(_stopped, deferator)


def _stopped(failure: Any, deferator: Deferator) -> Any:
    deferator.stop()
    return failure
