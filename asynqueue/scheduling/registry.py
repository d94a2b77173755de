"""
The tasks of a queue that have no outcome, and the workers that have them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

from twisted.logger import Logger
from twisted.python.failure import Failure

from asynqueue.errors import QueueRunError
from asynqueue.reactors import theReactor
from asynqueue.scheduling.dispatch import Dispatcher
from asynqueue.scheduling.observers import logFailed
from asynqueue.scheduling.options import DEFAULT
from asynqueue.scheduling.records import WorkerRecord, WorkerState
from asynqueue.scheduling.task import QUEUED, CallTuple, LastingUpdate, Task, Update
from asynqueue.timers import later

_log = Logger()


class Registry:
    """
    Hears from each task of a queue how it goes on, and tells the observers.

    @ivar dispatcher: brings tasks to workers.
    @ivar observers: whom to tell.
    @ivar records: the workers by ID. C{Lifecycle} puts them in and takes them out.
    @ivar lastNumber: the number of the task that was made last: see C{TaskQueue.call}.
    @ivar done: how many tasks have ended.
    @ivar failed: how many of them failed.
    """

    def __init__(self, dispatcher: Dispatcher) -> None:
        self.dispatcher = dispatcher
        self.observers = dispatcher.observers
        self.records: dict[int, WorkerRecord] = {}
        self.lastNumber = 0
        self.done = 0
        self.failed = 0
        # Workers that are gone, while it is settled what becomes of their tasks.
        self._settling: dict[WorkerRecord, None] = {}

    @property
    def reactor(self) -> Any:
        """
        The reactor; C{None} while it is not known.
        """
        return self.dispatcher.reactor

    # Tasks

    def newUpdate(self, callTuple: CallTuple, lasting: bool) -> Task:
        """
        Make a task of a call that is made to one worker.

        @param lasting: whether that worker makes it again if it begins anew.
        """
        kind = LastingUpdate if lasting else Update
        self.lastNumber += 1
        return kind(self, *callTuple, DEFAULT, self.lastNumber)

    def tasks(self, queued: bool = True, held: bool = True) -> Iterator[Task]:
        """
        Yield the tasks that have no outcome: those queued, those that workers hold.
        """
        if queued:
            yield from self.dispatcher.tasks()
        for record in chain(self.records.values(), self._settling):
            if queued:
                yield from record.updates
            if held:
                yield from record.tasks

    @property
    def running(self) -> int:
        """
        How many tasks workers hold.
        """
        return sum(len(record.tasks) for record in chain(self.records.values(), self._settling))

    def load(self) -> int:
        """
        Return how many tasks have no outcome.
        """
        waiting = sum(len(record.updates) for record in self.records.values())
        return self.dispatcher.waiting + len(self.dispatcher.later) + self.running + waiting

    @property
    def isBusy(self) -> bool:
        """
        Whether a worker has a task, or is to be given one.
        """
        return self.running > 0 or self.dispatcher.isServing

    def find(self, workerOrID: Any) -> WorkerRecord | None:
        """
        Return the record of a worker, or of an ID, if it is hired.
        """
        for ID, record in self.records.items():
            if record.worker is workerOrID or (type(workerOrID) is int and workerOrID == ID):
                return record
        return None

    def withdraw(self, task: Task) -> bool:
        """
        Take out a task of this queue that no worker holds yet, as if it had never been
        queued.

        @return: whether it was one.
        """
        owner: object = task.owner
        if owner is not self or task.state is not QUEUED or task.isUpdate:
            return False
        task.withdraw()
        return True

    def cancel(self, chosen: Callable[[Task], bool], running: bool) -> int:
        """
        Cancel tasks, but no updates.

        @param chosen: tells whether a task is one of them.
        @param running: whether those that workers hold are looked at, too.
        @return: how many were cancelled.
        """
        tasks = [task for task in self.tasks(held=running) if not task.isUpdate and chosen(task)]
        cancelled = 0
        for task in tasks:
            # The callbacks of one may have ended another.
            if not task.ended:
                task.cancel()
                cancelled += 1
        return cancelled

    def settling(self, record: WorkerRecord) -> bool:
        """
        Forget a worker that is gone: what it left is settled next.

        @return: whether it was known until now.
        """
        known = self.records.pop(record.ID, None) is not None
        self._settling[record] = None
        return known

    def settled(self, record: WorkerRecord) -> None:
        """
        Note that nothing is left of the tasks of a worker that is gone.
        """
        self._settling.pop(record, None)

    def endQueued(self) -> None:
        """
        End the tasks that no worker holds yet.
        """
        for task in list(self.tasks(held=False)):
            task.errback(Failure(QueueRunError(task.describe())))

    # Observers

    def addObserver(self, observer: Any) -> None:
        """
        Tell an observer what happens.

        @raise ImplementationError: it is no C{IQueueObserver}.
        """
        self.observers.add(observer)

    def removeObserver(self, observer: Any) -> None:
        """
        Tell an observer no more.
        """
        self.observers.remove(observer)

    # What tasks tell: see L{asynqueue.scheduling.task.TaskOwner}

    def taskEnded(self, task: Task, outcome: Any, failed: bool, counts: bool = True) -> None:
        """
        Take a task out of the books. A hot path.
        """
        record: WorkerRecord | None = task.holder
        if record is not None and task in record.tasks:
            # Most are there: it is what L{_release} does, in place.
            del record.tasks[task]
            record.done += 1
        else:
            self._release(task)
        if task.options.isTimed:
            self.dispatcher.expiring.discard(task)
        if counts:
            self.done += 1
            if failed:
                self.failed += 1
        tell = self.observers.taskDone
        if tell is not None:
            try:
                tell(task, outcome, None if record is None else record.worker)
            except BaseException:
                logFailed(tell)

    def taskGivenUp(self, task: Task) -> None:
        """
        Have the worker end the run of a task, if it can.
        """
        record: WorkerRecord = task.holder
        if record.traits.cancelling and record.state is not WorkerState.GONE:
            try:
                record.worker.cancel(task)
            except BaseException:
                # The seam to other people's workers: the task has ended anyway.
                _log.failure("{worker} failed to cancel a task", worker=record.name)

    def taskLost(self, task: Task) -> None:
        """
        Announce that the worker that held a task is gone.
        """
        record: WorkerRecord | None = task.holder
        hook = self.observers.taskLost
        if hook is not None and record is not None and task in record.tasks:
            self.observers.tell(hook, task, record.worker)

    def retryTask(self, task: Task) -> bool:
        """
        Queue the next attempt of a task whose worker was lost, while the queue
        is open.
        """
        if not self.dispatcher.admission.gives or task.isUpdate:
            return False
        again = task.nextAttempt(spent=1)
        self._release(task)
        self.dispatcher.submitAgain(again)
        return True

    def startTimer(self, seconds: float, f: Callable[[], None]) -> Any:
        """
        Call C{f} after a time.
        """
        return later(theReactor(self.reactor), seconds, f)

    def _release(self, task: Task) -> None:
        """
        Forget a task that leaves the hands of its worker, or the queue.
        """
        record: WorkerRecord | None = task.holder
        if record is None:
            self.dispatcher.discard(task)
        elif task in record.tasks:
            del record.tasks[task]
            record.done += 1
        else:
            record.updates.remove(task)
