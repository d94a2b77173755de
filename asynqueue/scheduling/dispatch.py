"""
Brings tasks to workers, and outcomes to tasks, whatever happens to the workers.

::

    submit ─▶ Scheduler ─▶ serve: a ready worker, its next task ─▶ IWorker.run
                 ▲                      ▲            │
                 │ not begun            └── ready ───┤
                 └── resigned, given back ◀──────────┘

One loop serves: whatever a worker, a task or a callback does meanwhile only adds
to what the loop has before it. So nothing recurses, however many tasks end at
once, and after some milliseconds the reactor has its turn.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from enum import Enum
from functools import partial
from itertools import count
from time import perf_counter
from typing import Any

from twisted.internet.defer import Deferred, DeferredList, inlineCallbacks, maybeDeferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from asynqueue.errors import ImplementationError, QueueRunError, WorkerLost
from asynqueue.interfaces import IConnectingWorker, IResigningWorker, ITask, IWorker
from asynqueue.reactors import theReactor
from asynqueue.scheduling.arrivals import Arrivals
from asynqueue.scheduling.flows import Lane, Scheduler
from asynqueue.scheduling.ledger import Ledger, WorkerState
from asynqueue.scheduling.observers import Hook, Observers
from asynqueue.scheduling.options import DEFAULT, CallOptions
from asynqueue.scheduling.task import (
    ASSIGNED,
    ENDED,
    QUEUED,
    CallTuple,
    LastingUpdate,
    Task,
    Update,
)
from asynqueue.scheduling.timetable import Timetable
from asynqueue.timers import later

_log = Logger()

# The loop gives the reactor a turn after so many seconds, and looks at the clock
# after so many tasks.
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

# The states of workers that choose from a lane, now or later; and of those that run what they
# are given, now or soon.
_CHOOSING = (WorkerState.PREPARING, WorkerState.READY, WorkerState.FAILING)
_ABLE = (WorkerState.PREPARING, WorkerState.READY)
# While it fails, it waits until it can run tasks again.
_WAITING = (WorkerState.PREPARING, WorkerState.FAILING)


class Dispatcher:
    """
    The workers of a queue, and the tasks on their way to them and back.

    @ivar reactor: the reactor; C{None} while it is not known.
    @ivar scheduler: the tasks that wait for a worker.
    @ivar later: those that wait for their time.
    @ivar observers: whom to tell.
    @ivar ledgers: the workers by ID.
    @ivar lastNumber: that of the task that was made last.
    @ivar running: how many tasks workers hold.
    @ivar done: how many tasks have ended.
    @ivar failed: how many of them failed.
    @ivar tellsBegun: whether anybody wants to hear when a task begins.
    @ivar open: whether tasks are given to workers, and tried again if they were lost.
    @ivar takes: whether there may be more tasks.
    @ivar updates: the calls that a worker makes when it is hired.
    @ivar arrivals: the workers that are hired when they have a connection.
    @ivar resigned: which worker was the last that can serve no more, and why, in words.
    @ivar watchers: are called when a worker was hired or is gone.
    """

    def __init__(self, reactor: Any = None) -> None:
        self.reactor = reactor
        self.updates: list[CallTuple] = []
        self.arrivals = Arrivals(self.hire)
        self.watchers: dict[object, Callable[[], None]] = {}
        self.scheduler = Scheduler()
        self.later = Timetable(lambda: theReactor(self.reactor), self._begins)
        self._expiring = Timetable(lambda: theReactor(self.reactor), self._expires)
        self.observers = Observers()
        self.tellsBegun = False
        self.ledgers: dict[int, Ledger] = {}
        self.running = 0
        self.done = 0
        self.failed = 0
        self.open = True
        self.takes = True
        self._refuses = False
        self.resigned = ""
        self.lastNumber = 0
        self._IDs = count(1)
        self._ready: deque[Ledger] = deque()
        # Each fires when nothing is left of a worker that has crashed.
        self._lingering: dict[Deferred[None], None] = {}
        self._loop = RESTING

    # Tasks

    def newTask(self, callTuple: CallTuple, options: CallOptions) -> Task:
        """
        Make a task of a call.
        """
        number = self.lastNumber = self.lastNumber + 1
        return Task(self, callTuple, options, number)

    def newUpdate(self, callTuple: CallTuple, lasting: bool) -> Task:
        """
        Make a task of a call that is made to one worker.

        @param lasting: whether that worker makes it again if it begins anew.
        """
        kind = LastingUpdate if lasting else Update
        self.lastNumber += 1
        return kind(self, callTuple, DEFAULT, self.lastNumber)

    def submit(self, task: Task) -> None:
        """
        Queue a task. It may begin within this call. A hot path.
        """
        if task.options.isTimed and self._isPostponed(task):
            return
        hook = self.observers.taskQueued
        if hook:
            # It is queued before it is told of: an observer may end it.
            lanes = self.scheduler.push(task)
            self.observers.tell(hook, task)
            self._wake(lanes)
            return
        if self._loop is RESTING and not self.scheduler.queued:
            # Where nothing waits there is no order to be kept, nor a share.
            ledger = self.scheduler.takeIdle(task.options.series)
            if ledger is not None:
                ledger.ready = False
                self._loop = SERVING
                try:
                    self._give(ledger, task)
                finally:
                    self._loop = RESTING
                # The worker may have handed it back at once, which wakes nobody.
                if self._ready or self.scheduler.queued:
                    self._serve()
                return
        self._wake(self.scheduler.push(task))

    def _isPostponed(self, task: Task) -> bool:
        """
        Take note of the times of a task that is queued.

        @return: whether it waits for its time.
        """
        after, expires = task.options.after, task.options.expires
        if expires is not None:
            self._expiring.add(task, expires)
        if after is None:
            return False
        self.later.add(task, after)
        self.observers.tell(self.observers.taskQueued, task)
        return True

    def _begins(self, task: Task) -> None:
        """
        The time of a task has come: it waits for a worker, before those that were queued
        after it.
        """
        self._wake(self.scheduler.putBack(task))

    def _expires(self, task: Task) -> None:
        """
        The time in which a task must begin is over. One that may have begun is left alone,
        but its worker may hand it back.
        """
        if task.state is QUEUED:
            task.expire()
        elif task.state is ASSIGNED:
            ledger: Ledger = task.holder
            tasks = self._handedOver(ledger)
            if task in tasks:
                task.expire()
            else:
                self._expiring.add(task, _LOOK_SECONDS)
            self._takeBack(ledger, tasks)

    def assign(self, ledger: Ledger, task: Task) -> None:
        """
        Give a task to one worker, before those that are queued.
        """
        task.holder = ledger
        ledger.updates.append(task)
        self.observers.tell(self.observers.taskQueued, task)
        if ledger.ready:
            self._attend(ledger)

    def addObserver(self, observer: Any) -> None:
        """
        Tell an observer what happens.

        @raise ImplementationError: it is no C{IQueueObserver}.
        """
        self.observers.add(observer)
        self.tellsBegun = bool(self.observers.taskBegun)

    def removeObserver(self, observer: Any) -> None:
        """
        Tell an observer no more.
        """
        self.observers.remove(observer)
        self.tellsBegun = bool(self.observers.taskBegun)

    def load(self) -> int:
        """
        How many tasks have no outcome.
        """
        waiting = sum(len(ledger.updates) for ledger in self.ledgers.values())
        return self.scheduler.queued + len(self.later) + self.running + waiting

    @property
    def isBusy(self) -> bool:
        """
        Whether a worker has a task, or is to be given one.
        """
        return self.running > 0 or self._loop is not RESTING

    def tasks(self, queued: bool = True, held: bool = True) -> Iterator[Task]:
        """
        The tasks that have no outcome: those queued, those that workers hold.
        """
        if queued:
            yield from self.scheduler.tasks()
            yield from self.later
        for ledger in self.ledgers.values():
            if queued:
                yield from ledger.updates
            if held:
                yield from ledger.tasks

    def withdraw(self, task: Task) -> bool:
        """
        Take out a task of this queue that no worker holds yet, as if it had never been
        queued.

        @return: whether it was one.
        """
        if task.owner is not self or task.state is not QUEUED or task.isUpdate:
            return False
        task.withdraw()
        return True

    def close(self) -> None:
        """
        Take no more tasks, and end those that no worker holds yet.
        """
        self.open = self.takes = False
        self.arrivals.close()
        for task in list(self.tasks(held=False)):
            task.errback(Failure(QueueRunError(task.describe())))

    def refuse(self) -> None:
        """
        Take no more tasks from now on; end those that there are.
        """
        self._refuses = True
        self.takes = False

    def reopen(self) -> None:
        """
        Give tasks to workers again, after L{close}.
        """
        self.open = True
        self.takes = not self._refuses

    def taskBegun(self, task: Task) -> None:
        """
        Announce that a task began.
        """
        self.observers.tell(self.observers.taskBegun, task, task.holder.worker)

    def taskEnded(self, task: Task, outcome: Any, failed: bool, counts: bool = True) -> None:
        """
        Take a task out of the books.
        """
        self._release(task)
        if task.options.isTimed:
            self._expiring.discard(task)
        if counts:
            self.done += 1
            if failed:
                self.failed += 1
        hook = self.observers.taskDone
        if hook:
            ledger: Ledger | None = task.holder
            self.observers.tell(hook, task, outcome, None if ledger is None else ledger.worker)

    def taskGivenUp(self, task: Task) -> None:
        """
        Have the worker end the run of a task, if it can.
        """
        ledger: Ledger = task.holder
        if ledger.cancelling and ledger.state is not WorkerState.GONE:
            try:
                ledger.worker.cancel(task)
            except BaseException:
                # The seam to other people's workers: the task has ended anyway.
                _log.failure("{worker} failed to cancel a task", worker=ledger.name)

    def taskLost(self, task: Task) -> None:
        """
        Announce that the worker that held a task is gone.
        """
        ledger: Ledger | None = task.holder
        hook = self.observers.taskLost
        if hook and ledger is not None and task in ledger.tasks:
            self.observers.tell(hook, task, ledger.worker)

    def retryTask(self, task: Task) -> bool:
        """
        Queue the next attempt of a task whose worker was lost, while the queue
        is open.
        """
        if not self.open or task.isUpdate:
            return False
        self._release(task)
        self._wake(self.scheduler.putBack(task.nextAttempt(spent=1)))
        return True

    def startTimer(self, seconds: float, f: Callable[[], None]) -> Any:
        """
        Call C{f} after a time.
        """
        return later(theReactor(self.reactor), seconds, f)

    def _release(self, task: Task) -> None:
        """
        A task leaves the hands of its worker, or the queue.
        """
        ledger: Ledger | None = task.holder
        if ledger is None:
            if task in self.later:
                self.later.discard(task)
            else:
                self.scheduler.discard(task)
        elif task in ledger.tasks:
            del ledger.tasks[task]
            ledger.done += 1
            self.running -= 1
        else:
            ledger.updates.remove(task)

    # Workers

    def hire(self, worker: IWorker) -> Deferred[int]:
        """
        Take a worker on. It serves once it has run the L{updates}.

        @return: a Deferred of its ID; it fails with what an update failed with,
            and then the worker is not hired.
        """
        ID = next(self._IDs)
        lane = self.scheduler.enter([*worker.cQualified, *worker.iQualified])
        ledger = self.ledgers[ID] = Ledger(worker, ID, lane)
        ledger.ready = True
        # The ID of a worker is promised to be found there.
        ledger.worker.ID = ID
        self._tellOfWorker(self.observers.workerHired, worker)
        if ledger.prefetching:
            ledger.worker.setReturner(lambda tasks: self._takeBack(ledger, tasks))
        if ledger.failing:
            ledger.worker.setReporter(partial(self._reported, ledger))
        worker.setResignator(lambda: self.resign(ledger))
        return self._prepare(ledger, list(self.updates))

    @inlineCallbacks
    def _prepare(self, ledger: Ledger, updates: list[CallTuple]) -> Any:
        # All of them are lined up at once: an update that is made meanwhile comes after.
        tasks: list[Task] = []
        for callTuple in updates:
            if ledger.state is WorkerState.PREPARING:
                tasks.append(self.newUpdate(callTuple, lasting=True))
                self.assign(ledger, tasks[-1])
        try:
            for task in tasks:
                if ledger.state is not WorkerState.PREPARING:
                    break
                yield task.d
                if ledger.ready:
                    self._attend(ledger)
        except GeneratorExit:
            # Nobody holds the queue any more.
            raise
        except BaseException:
            # Whatever it is, an exit too, it goes on to who hires; without its
            # updates the worker is not fit to serve.
            self.fire(ledger)
            raise
        finally:
            for task in tasks:
                # Those behind one that failed, or that the worker did not stay for.
                task.d.addErrback(lambda failure: None)
        if ledger.state is not WorkerState.PREPARING:
            raise WorkerLost("any call", ledger.name, begun=False, reason="it left")
        ledger.state = WorkerState.READY
        if ledger.fault:
            self._fail(ledger)
        elif ledger.ready:
            self._attend(ledger)
        return ledger.ID

    def _tellOfWorker(self, hook: Hook, worker: IWorker) -> None:
        """
        A worker came or went.
        """
        self.observers.tell(hook, worker)
        self._tellWatchers()

    def _tellWatchers(self) -> None:
        for changed in list(self.watchers.values()):
            changed()

    def qualify(self, ledger: Ledger, series: Hashable) -> None:
        """
        From now on the worker may run this series, too.
        """
        worker = ledger.worker
        if series not in worker.iQualified:
            worker.iQualified.append(series)
        if ledger.state not in _CHOOSING:
            # It chooses from nothing any more.
            return
        old = ledger.lane
        old.idle.pop(ledger, None)
        ledger.lane = self.scheduler.enter([*worker.cQualified, *worker.iQualified])
        self.scheduler.leave(old)
        if ledger.ready:
            self._attend(ledger)

    def dismiss(self, ledger: Ledger, limit: float | None, reassign: bool = False) -> Deferred[Any]:
        """
        Let a worker end its tasks, and go.

        @param limit: the seconds that this may take before it crashes; C{None}:
            as long as its tasks take.
        @param reassign: give what it has not begun to others.
        @return: a Deferred list of the tasks it did not end.
        """
        if ledger.state is WorkerState.GONE:
            return succeed([])

        def outOfPatience(d: Any) -> None:
            self.fire(ledger, "it did not stop in time")

        left: Deferred[list[Task]] = Deferred(outOfPatience)
        ledger.waiters.append(left)
        isToStop = ledger.state is not WorkerState.STOPPING
        self._retire(ledger, WorkerState.STOPPING)
        if reassign and ledger.prefetching and ledger.state is WorkerState.STOPPING:
            self._takeBack(ledger, self._handedOver(ledger))
            # One that stops already may have waited for what it has handed over.
            isToStop = True
        if ledger.state is WorkerState.STOPPING and isToStop:
            maybeDeferred(ledger.worker.stop).addBoth(self._stopped, ledger)
        if limit is not None and not left.called:
            left.addTimeout(limit, theReactor(self.reactor))
        return left

    def _stopped(self, result: Any, ledger: Ledger) -> None:
        """
        The worker has stopped, or could not.
        """
        if ledger.state is WorkerState.GONE:
            return
        if isinstance(result, Failure):
            _log.failure("{worker} failed to stop", result, worker=ledger.name)
            self.fire(ledger, "it failed to stop")
        else:
            self._depart(ledger, (), "it stopped without ending this")

    def fire(self, ledger: Ledger, reason: str = "", reassign: bool = False) -> list[Task]:
        """
        Have a worker crash, and settle what it leaves undone.

        @param reassign: run again elsewhere what it had begun, too.
        @return: the tasks that were not reassigned.
        """
        if ledger.state is WorkerState.GONE:
            return []
        self._retire(ledger, WorkerState.GONE)
        try:
            ledger.worker.crash()
        except BaseException:
            # The seam to other people's workers: it is gone all the same.
            _log.failure("{worker} failed to crash", worker=ledger.name)
        if ledger.lingering:
            gone = maybeDeferred(ledger.worker.gone)
            self._lingering[gone] = None
            gone.addBoth(lambda _: self._lingering.pop(gone))
        notBegun = self._handedOver(ledger) if ledger.prefetching else ()
        return self._depart(ledger, notBegun, reason or "it crashed", reassign)

    def lingered(self) -> Deferred[Any]:
        """
        Wait until nothing is left of workers that have crashed.
        """
        return DeferredList(list(self._lingering))

    def _handedOver(self, ledger: Ledger) -> Sequence[ITask]:
        """
        The tasks that a worker hands over, not begun.
        """
        try:
            tasks: Sequence[ITask] = ledger.worker.takeBack()
        except BaseException:
            # The seam to other people's workers: what it does not hand over may
            # have begun.
            _log.failure("{worker} failed to hand over its tasks", worker=ledger.name)
            return ()
        return tasks

    def resign(self, ledger: Ledger) -> None:
        """
        A worker can serve no more: one that makes connections may come back.
        """
        if ledger.state is WorkerState.GONE:
            return
        worker = ledger.worker
        loss = worker.loss if ledger.remote or IResigningWorker.providedBy(worker) else ""
        if loss and not ledger.remote:
            self.resigned = f"{ledger.name} has resigned: {loss}"
        self.fire(ledger, loss or "it resigned")
        if self.open and IConnectingWorker.providedBy(worker):
            self.arrivals.resigned(worker)

    def _retire(self, ledger: Ledger, state: WorkerState) -> None:
        """
        A worker gets no more tasks.
        """
        serving = ledger.state in _CHOOSING
        # First this: what fails now may have callbacks that ask for it.
        ledger.state = state
        if serving:
            ledger.lane.idle.pop(ledger, None)
            self.scheduler.leave(ledger.lane)
            for task in list(ledger.updates):
                task.errback(self._lostTo(ledger, task))

    def _depart(
        self, ledger: Ledger, again: Sequence[ITask], reason: str, reassign: bool = False
    ) -> list[Task]:
        """
        A worker is gone: settle each task that it left, as it may be (G2).
        """
        ledger.state = WorkerState.GONE
        notBegun = set(again)
        if self.ledgers.pop(ledger.ID, None) is not None:
            self._tellOfWorker(self.observers.workerLeft, ledger.worker)
        lost: list[Task] = []
        # The last first: each goes back before those that were queued after it.
        for task in reversed(list(ledger.tasks)):
            if self.open and not task.isUpdate and (reassign or task in notBegun):
                self.taskLost(task)
                # An observer may have ended it.
                if task in ledger.tasks:
                    self._requeue(ledger, task, begun=task not in notBegun)
            else:
                lost.append(task)
        lost.reverse()
        for task in lost:
            begun = task not in notBegun
            task.errback(Failure(WorkerLost(task.describe(), ledger.name, begun, reason=reason)))
        waiters, ledger.waiters = ledger.waiters, []
        for waiter in waiters:
            waiter.callback(lost)
        self._resume()
        return lost

    def _takeBack(self, ledger: Ledger, tasks: Sequence[Any]) -> None:
        """
        A worker hands back tasks that it has not begun.
        """
        for task in reversed(tasks):
            if task in ledger.tasks:
                if not self.open:
                    task.errback(Failure(QueueRunError(task.describe())))
                elif not task.isUpdate:
                    self._requeue(ledger, task)
                elif ledger.state in _CHOOSING:
                    self._reassign(ledger, task)
                else:
                    task.errback(self._lostTo(ledger, task, "it left"))
        if ledger.ready and ledger.updates:
            self._attend(ledger)
        else:
            self._resume()

    def _reported(
        self, ledger: Ledger, reason: str, tasks: Sequence[Any], isHopeless: bool
    ) -> None:
        """
        A worker can run nothing for now, or can again.

        @param reason: why it cannot; empty if it can.
        @param tasks: those that it hands back.
        @param isHopeless: whether tasks for it alone shall wait no longer.
        """
        ledger.fault = reason
        ledger.hopeless = isHopeless
        if not reason:
            if ledger.state in _WAITING:
                if ledger.state is WorkerState.FAILING:
                    ledger.state = WorkerState.READY
                if ledger.parked:
                    ledger.parked = False
                    self._ready.append(ledger)
                self._tellWatchers()
            self._resume()
            return
        if ledger.state in _ABLE:
            self._fail(ledger)
        for task in reversed(tasks):
            if task in ledger.tasks:
                if not self.open or ledger.state not in _WAITING:
                    task.errback(self._lostTo(ledger, task, reason))
                elif task.isUpdate:
                    self._reassign(ledger, task)
                else:
                    self._requeue(ledger, task)
        # They hear of it before calls end that wait no longer.
        self._tellWatchers()
        if isHopeless and ledger.state in _WAITING:
            self._endHopeless(ledger, reason)
        self._resume()

    def _fail(self, ledger: Ledger) -> None:
        """
        A worker is given nothing until it can run tasks again.
        """
        if ledger.state is WorkerState.READY:
            ledger.state = WorkerState.FAILING
        if ledger.ready:
            ledger.ready = False
            ledger.parked = True
            ledger.lane.idle.pop(ledger, None)

    def faultOf(self, series: Hashable) -> tuple[str, bool]:
        """
        Why no worker can run tasks of a series for now, where there are such that may.

        @return: why, in words, empty if one can or there is none; and whether there is no
            hope.
        """
        able = [
            ledger
            for ledger in self.ledgers.values()
            if ledger.state is not WorkerState.STOPPING and ledger.lane.serves(series)
        ]
        if not able or any(ledger.state is not WorkerState.FAILING for ledger in able):
            return "", False
        return able[0].fault, all(ledger.hopeless for ledger in able)

    def _endHopeless(self, ledger: Ledger, reason: str) -> None:
        """
        End the queued tasks that only workers could run that cannot, and what was to prepare
        this one. One that dials may be there soon: what it could run waits.
        """
        for task in list(ledger.updates):
            task.errback(self._lostTo(ledger, task, reason))
        if ledger.state is not WorkerState.FAILING:
            # It was not hired, and nothing has waited for it.
            return
        able = [other for other in self.ledgers.values() if other.state in _ABLE]
        for flow in list(self.scheduler.flows()):
            if (
                ledger.lane.serves(flow.series)
                and not any(other.lane.serves(flow.series) for other in able)
                and not self.arrivals.workers(flow.series)
            ):
                for task in list(flow.tasks):
                    # One may have ended another, and one that may be tried again waits again.
                    if task.state is QUEUED:
                        task.errback(self._lostTo(ledger, task, reason))

    def _lostTo(self, ledger: Ledger, task: Task, reason: str = "") -> Failure:
        return Failure(WorkerLost(task.describe(), ledger.name, begun=False, reason=reason))

    def _requeue(self, ledger: Ledger, task: Task, begun: bool = False) -> None:
        """
        A task waits again, in its old place. Nobody is woken for it yet: those
        that go before it may follow.
        """
        lane = ledger.tasks.pop(task)
        self.running -= 1
        if begun:
            # What the worker says of it from now on has no effect. Its flow has had what
            # it was charged for.
            task, lane = task.nextAttempt(), None
        else:
            task.putBack()
        self.scheduler.putBack(task, lane)

    def _reassign(self, ledger: Ledger, update: Task) -> None:
        """
        A worker has handed back a call that only it can make: it is given that again.
        """
        del ledger.tasks[update]
        self.running -= 1
        update.putBack()
        update.holder = ledger
        ledger.updates.appendleft(update)

    # The loop

    def _wake(self, lanes: list[Lane]) -> None:
        """
        There is a task for these lanes: attend to who has waited the longest.
        """
        for lane in lanes:
            if lane.idle:
                self._attend(next(iter(lane.idle)))
                return

    def _attend(self, ledger: Ledger) -> None:
        """
        A worker that waits has something to do.
        """
        ledger.ready = False
        ledger.lane.idle.pop(ledger, None)
        self._ready.append(ledger)
        self._resume()

    def _resume(self) -> None:
        """
        There may be tasks for those who wait.
        """
        if self._loop is RESTING:
            self._serve()

    def _wakeAnother(self) -> bool:
        """
        A worker that was woken for a task may have taken another, or left: see
        whether one that waits is to look, too.
        """
        lane = self.scheduler.wantedLane()
        if lane is None:
            return False
        self._attend(next(iter(lane.idle)))
        return True

    def _becameReady(self, result: Any, ledger: Ledger) -> None:
        """
        A worker is ready for another task.
        """
        self._ready.append(ledger)
        self._resume()

    def _serve(self) -> None:
        """
        Give tasks to workers while there are both; then rest. A hot path.
        """
        self._loop = SERVING
        ready = self._ready
        given = 0
        started = perf_counter()
        try:
            while ready or (self.scheduler.queued and self._wakeAnother()):
                ledger = ready.popleft()
                task = self._next(ledger)
                if task is None:
                    continue
                self._give(ledger, task, ledger.lane)
                given += 1
                if given % _LOOK == 0 and perf_counter() - started > _SLICE:
                    self._loop = POSTPONED
                    later(theReactor(self.reactor), 0, self._serve)
                    return
        finally:
            if self._loop is SERVING:
                self._loop = RESTING

    def _next(self, ledger: Ledger) -> Task | None:
        """
        The next task for a ready worker. If there is none, it waits.
        """
        state = ledger.state
        if state is _SERVES:
            if ledger.updates:
                return ledger.updates.popleft()
            task = self.scheduler.pick(ledger.lane)
            if task is None:
                ledger.ready = True
                ledger.lane.idle[ledger] = None
            return task
        if state is WorkerState.FAILING or (state is WorkerState.PREPARING and ledger.fault):
            ledger.parked = True
        elif state is WorkerState.PREPARING:
            # One after the other: each may need what those before it have done.
            if ledger.updates and not ledger.tasks:
                return ledger.updates.popleft()
            ledger.ready = True
        return None

    def _give(self, ledger: Ledger, task: Task, lane: Lane | None = None) -> None:
        """
        Have a worker run a task, and go on when it is ready. A hot path.

        @param lane: where the flow of the task was charged for it, if anywhere.
        """
        task.holder = ledger
        task.state = ASSIGNED
        ledger.tasks[task] = lane
        self.running += 1
        if not ledger.prefetching:
            task.begin()
            if task.state is ENDED:
                # An observer that heard of the beginning has ended it.
                self._ready.append(ledger)
                return
        try:
            ready = ledger.worker.run(task)
        except BaseException as error:
            # The seam to other people's workers: the fault is the worker's, not
            # the queue's, an exit too.
            self._broken(ledger, task, f"run() raised {type(error).__name__}", Failure())
            return
        if not isinstance(ready, Deferred):
            self._broken(ledger, task, f"run() returned {ready!r}, no Deferred", None)
        elif ready.called and not ready.paused and ready.result is None:
            self._ready.append(ledger)
        else:
            ready.addCallbacks(
                self._becameReady,
                self._neverReady,
                callbackArgs=(ledger,),
                errbackArgs=(ledger, task),
            )

    def _neverReady(self, failure: Failure, ledger: Ledger, task: Task) -> None:
        if ledger.state is not WorkerState.GONE:
            self._broken(ledger, task, "the Deferred of run() failed", failure)

    def _broken(self, ledger: Ledger, task: Task, what: str, failure: Failure | None) -> None:
        """
        A worker broke its contract, and is not given another task.
        """
        text = f"{ledger.name} does not keep to IWorker: {what}"
        error = ImplementationError(text)
        if failure is not None:
            error.__cause__ = failure.value
        _log.failure("{what}", failure or Failure(error), what=text)
        task.errback(Failure(error))
        self.fire(ledger, what)
