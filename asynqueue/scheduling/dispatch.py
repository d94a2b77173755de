"""
Brings tasks to workers, and outcomes to tasks, whatever happens to the workers.

::

    submit ─▶  Backlog  ─▶ serve: a ready worker, its next task ─▶ IWorker.run
                 ▲                      ▲            │
                 │ not begun            └── ready ───┤
                 └── resigned, given back ◀──────────┘

One loop serves: whatever a worker, a task or a callback does meanwhile only adds
to what the loop has before it. So nothing recurses, however many tasks end at
once, and after some milliseconds the reactor has its turn.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from time import perf_counter
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from asynqueue.errors import ImplementationError, QueueRunError, WorkerLost
from asynqueue.interfaces import IBacklog
from asynqueue.outcome import inWords
from asynqueue.reactors import theReactor
from asynqueue.scheduling.admission import Admission
from asynqueue.scheduling.backlog import FairBacklog
from asynqueue.scheduling.lanes import Lane, Lanes
from asynqueue.scheduling.observers import Observers, logFailed
from asynqueue.scheduling.records import CHOOSING, WorkerRecord, WorkerState
from asynqueue.scheduling.task import ASSIGNED, BEGUN, ENDED, QUEUED, Task
from asynqueue.scheduling.timetable import Timetable
from asynqueue.timers import later

_log = Logger()

# The seconds after which the loop gives the reactor a turn, and the tasks after which it looks at
# the clock.
_SLICE = 0.01
_LOOK = 32

# The seconds between two looks at a task that has expired and may have begun: its worker may
# hand it back.
_LOOK_SECONDS = 1.0


class Loop(Enum):
    """
    What the serving loop is doing.
    """

    RESTING = "nothing to do"
    SERVING = "at work, further down the stack"
    POSTPONED = "goes on in the reactor's next turn"


# By names, for each task: see L{asynqueue.outcome.ITERATOR}.
RESTING, SERVING, POSTPONED = Loop
_SERVES = WorkerState.READY


class Dispatcher:
    """
    Tasks on their way to the workers of a queue, and back.

    @ivar reactor: the reactor; C{None} while it is not known.
    @ivar lanes: the workers by what they choose from.
    @ivar later: those that wait for their time.
    @ivar expiring: those that must begin within a time.
    @ivar observers: whom to tell.
    @ivar admission: which tasks are taken, and given to workers.
    """

    def __init__(self, reactor: Any = None, backlog: IBacklog | None = None) -> None:
        """
        @param backlog: an empty one; C{None}: one in memory, with fair shares.
        @raise ImplementationError: it is no L{IBacklog}.
        """
        if backlog is not None and not IBacklog.providedBy(backlog):
            raise ImplementationError(
                f"{backlog!r} is no IBacklog: give an object that provides that"
            )
        self.reactor = reactor
        self._backlog: IBacklog = FairBacklog() if backlog is None else backlog
        self.lanes = Lanes(self._backlog)
        self.later = Timetable(lambda: theReactor(self.reactor), self.submitAgain)
        self.expiring = Timetable(lambda: theReactor(self.reactor), self._expires)
        self.observers = Observers()
        self.admission = Admission()
        self._ready: deque[WorkerRecord] = deque()
        self._loop = RESTING
        # A task whose observers are being told, and which no one has looked at.
        self._announced: Task | None = None

    # Tasks

    def submit(self, task: Task) -> None:
        """
        Queue a task. It may begin within this call. A hot path.
        """
        options = task.options
        if options.isTimed and self._isPostponed(task):
            return
        tell = self.observers.taskQueued
        if tell is not None and self._announce(tell, task):
            return
        backlog = self._backlog
        series = options.series
        for lane in self.lanes.each:
            idle = lane.idle
            if idle and (series is None or series in lane.qualified):
                break
        else:
            backlog.push(task)
            return
        if self._loop is not RESTING or backlog.queued:
            backlog.push(task)
            self.attend(idle[0])
            return
        # Where nothing waits there is no order to be kept, nor a share: it is given at once.
        record = idle.popleft()
        record.ready = False
        self._loop = SERVING
        try:
            isReady = self._give(record, task)
        finally:
            self._loop = RESTING
        if self._ready or backlog.queued or record.updates or record.state is not _SERVES:
            # A task may have been handed back at once, which wakes nobody.
            if isReady:
                self._ready.append(record)
            self._serve()
        elif isReady:
            # It is ready again at once, and nothing is there for it.
            record.ready = True
            record.lane.idle.append(record)

    def _announce(self, tell: Callable[[Task], Any], task: Task) -> bool:
        """
        Tell observers of a task as if it waited with the others. It is put there only if they
        look: most do not, and it can still be given to a worker that waits.

        @return: whether nothing is left to be done for it.
        """
        if self._announced is not None:
            # It was queued by one of those who are told of another, which goes before.
            self.completeBacklog()
        self._announced = task
        try:
            tell(task)
        except BaseException:
            logFailed(tell)
        if self._announced is task:
            self._announced = None
            return False
        if task.state is QUEUED and task.holder is None:
            self._wake(task)
        return True

    def _wake(self, task: Task) -> None:
        """
        Have a worker look that waits, if one does that may run a task.
        """
        record = self.lanes.idle(task.options.series)
        if record is not None:
            self.attend(record)

    def _isPostponed(self, task: Task) -> bool:
        """
        Take note of the times of a task that is queued.

        @return: whether it waits for its time.
        """
        after, expires = task.options.after, task.options.expires
        if expires is not None:
            self.expiring.add(task, expires)
        if after is None:
            return False
        self.later.add(task, after)
        self.observers.tell(self.observers.taskQueued, task)
        return True

    def submitAgain(self, task: Task) -> None:
        """
        Queue a task before those of its kind that were made after it: its time has come, or
        it is another attempt.
        """
        self._backlog.putBack(task)
        self._wake(task)

    def _expires(self, task: Task) -> None:
        """
        End a task that has not begun in time. One that may have begun is left alone, but its worker
        may hand it back.
        """
        if task.state is QUEUED:
            task.expire()
        elif task.state is ASSIGNED:
            record: WorkerRecord = task.holder
            tasks = record.recall()
            if task in tasks:
                task.expire()
            else:
                self.expiring.add(task, _LOOK_SECONDS)
            self.takeBack(record, tasks)

    def assign(self, record: WorkerRecord, task: Task) -> None:
        """
        Give a task to one worker, before those that are queued.
        """
        task.holder = record
        record.updates.append(task)
        self.observers.tell(self.observers.taskQueued, task)
        if record.ready:
            self.attend(record)

    def completeBacklog(self) -> IBacklog:
        """
        Put the task of which observers are being told, if there is one, with those that wait for
        a worker, and return them all.
        """
        task, self._announced = self._announced, None
        if task is not None:
            self._backlog.push(task)
        return self._backlog

    @property
    def waiting(self) -> int:
        """
        How many tasks wait for a worker.
        """
        return self._backlog.queued + (self._announced is not None)

    @property
    def isServing(self) -> bool:
        """
        Whether a worker is to be given a task.
        """
        return self._loop is not RESTING

    def tasks(self) -> Iterator[Task]:
        """
        Yield the tasks that wait for a worker, or for their time.
        """
        yield from self.completeBacklog().tasks()
        yield from self.later

    def discard(self, task: Task) -> None:
        """
        Take out a task that waits, and is ending.
        """
        if task is self._announced:
            self._announced = None
        elif task in self.later:
            self.later.discard(task)
        else:
            self._backlog.discard(task)

    # Back from workers

    def takeBack(self, record: WorkerRecord, tasks: Sequence[Any]) -> None:
        """
        Take back tasks that a worker has not begun.
        """
        for task in reversed(tasks):
            if task in record.tasks:
                if not self.admission.gives:
                    task.errback(Failure(QueueRunError(task.describe())))
                elif not task.isUpdate:
                    self.requeue(record, task)
                elif record.state in CHOOSING:
                    self.giveAgain(record, task)
                else:
                    task.errback(lostTo(record, task, "it left"))
        if record.ready and record.updates:
            self.attend(record)
        else:
            self.resume()

    def requeue(self, record: WorkerRecord, task: Task, begun: bool = False) -> None:
        """
        Put a task back in its old place. Nobody is woken for it yet: those that go before it may
        follow.
        """
        lane = record.tasks.pop(task)
        if begun:
            # What the worker says of it from now on has no effect. Its flow has had what
            # it was charged for.
            task, lane = task.nextAttempt(), None
        else:
            task.putBack()
        self._backlog.putBack(task, lane)

    def giveAgain(self, record: WorkerRecord, update: Task) -> None:
        """
        Give a worker a call again that it has handed back, and that only it can make.
        """
        del record.tasks[update]
        update.putBack()
        update.holder = record
        record.updates.appendleft(update)

    # The loop

    def attend(self, record: WorkerRecord) -> None:
        """
        Wake a worker that waits: it has something to do.
        """
        record.ready = False
        record.lane.forget(record)
        self._ready.append(record)
        self.resume()

    def resume(self) -> None:
        """
        Look for tasks for those who wait: there may be some.
        """
        if self._loop is RESTING:
            self._serve()

    def _wakeAnother(self) -> bool:
        """
        See whether a worker that waits is to look for tasks, too: one that was woken may have taken
        another, or left.
        """
        record = self.lanes.wanted()
        if record is None:
            return False
        self.attend(record)
        return True

    def _becameReady(self, result: Any, record: WorkerRecord) -> None:
        """
        Hear that a worker is ready for another task.
        """
        self._ready.append(record)
        self.resume()

    def _serve(self) -> None:
        """
        Give tasks to workers while there are both; then rest. A hot path.
        """
        self._loop = SERVING
        ready = self._ready
        given = 0
        started = perf_counter()
        try:
            while ready or (self._backlog.queued and self._wakeAnother()):
                record = ready.popleft()
                task = self._next(record)
                if task is None:
                    continue
                if self._give(record, task, record.lane):
                    ready.append(record)
                given += 1
                if given % _LOOK == 0 and perf_counter() - started > _SLICE:
                    self._loop = POSTPONED
                    later(theReactor(self.reactor), 0, self._serve)
                    return
        finally:
            if self._loop is SERVING:
                self._loop = RESTING

    def _next(self, record: WorkerRecord) -> Task | None:
        """
        Return the next task for a ready worker. If there is none, it waits.
        """
        state = record.state
        if state is _SERVES:
            if record.updates:
                return record.updates.popleft()
            task: Task | None = self._backlog.pick(record.lane)
            if task is None:
                record.rest()
            return task
        if state is WorkerState.FAILING or (state is WorkerState.PREPARING and record.fault):
            record.parked = True
        elif state is WorkerState.PREPARING:
            # One after the other: each may need what those before it have done.
            if record.updates and not record.tasks:
                return record.updates.popleft()
            record.ready = True
        return None

    def _give(self, record: WorkerRecord, task: Task, lane: Lane | None = None) -> bool:
        """
        Have a worker run a task, and hear when it is ready for another one. A hot path.

        @param lane: where the flow of the task was charged for it, if anywhere.
        @return: whether it is ready at once.
        """
        task.holder = record
        record.tasks[task] = lane
        if record.traits.prefetching:
            task.state = ASSIGNED
        else:
            # It is what Task.begin does, in place.
            task.state = BEGUN
            if task.options.timeout is not None:
                task.startClock()
            tell = self.observers.taskBegun
            if tell is not None:
                try:
                    tell(task, record.worker)
                except BaseException:
                    logFailed(tell)
                if task.state is ENDED:
                    # An observer that heard of the beginning has ended it.
                    return True
        try:
            ready = record.worker.run(task)
        except BaseException as error:
            # The seam to other people's workers: the fault is the worker's, not
            # the queue's, an exit too.
            _broken(record, task, f"run() raised {inWords(error)}", Failure())
            return False
        if not isinstance(ready, Deferred):
            _broken(record, task, f"run() returned {ready!r}, no Deferred", None)
            return False
        if ready.called and not ready.paused and ready.result is None:
            return True
        ready.addCallbacks(
            self._becameReady,
            self._neverReady,
            callbackArgs=(record,),
            errbackArgs=(record, task),
        )
        return False

    def _neverReady(self, failure: Failure, record: WorkerRecord, task: Task) -> None:
        if record.state is not WorkerState.GONE:
            _broken(record, task, "the Deferred of run() failed", failure)


def _broken(record: WorkerRecord, task: Task, what: str, failure: Failure | None) -> None:
    """
    Give no more tasks to a worker that broke its contract.
    """
    text = f"{record.name} does not keep to IWorker: {what}"
    error = ImplementationError(text)
    if failure is not None:
        error.__cause__ = failure.value
    _log.failure("{what}", failure or Failure(error), what=text)
    task.errback(Failure(error))
    record.onBroken(record, what)


def lostTo(record: WorkerRecord, task: Task, reason: str = "") -> Failure:
    """
    Return the failure of a task that a worker has not begun, and never will.
    """
    return Failure(WorkerLost(task.describe(), record.name, begun=False, reason=reason))
