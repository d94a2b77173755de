"""
The workers of a queue, from the moment when each is attached until it is gone.

::

    attach ─▶ hire ─▶ prepare ─▶ READY ◀─▶ FAILING ─▶ dismiss ─▶ stopped ─▶ depart
      ▲                  │                    │          │                    ▲
      │                  └────────────────────┴──────────┴─ crash, resign ────┤
      └── when it has a connection again ◀────────────────────────────────────┘
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from functools import partial
from itertools import count
from typing import Any, cast

from twisted.internet.defer import Deferred, DeferredList, inlineCallbacks, maybeDeferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import Invalid

from asynqueue.errors import ImplementationError, InvariantError, WorkerLost
from asynqueue.interfaces import IConnectingWorker, ITask, IWorker
from asynqueue.reactors import theReactor
from asynqueue.scheduling.dispatch import lostTo
from asynqueue.scheduling.observers import Hook
from asynqueue.scheduling.reconnects import Reconnects
from asynqueue.scheduling.records import CHOOSING, WorkerRecord, WorkerState, traitsOf
from asynqueue.scheduling.registry import Registry
from asynqueue.scheduling.task import QUEUED, CallTuple, Task

_log = Logger()

# The states of workers that run what they are given, now or soon.
_ABLE = (WorkerState.PREPARING, WorkerState.READY)
# While it fails, it waits until it can run tasks again.
_WAITING = (WorkerState.PREPARING, WorkerState.FAILING)


class Lifecycle:
    """
    Hires the workers of a queue and lets them go, and settles what each of them leaves.

    @ivar registry: the tasks, and the workers that are hired.
    @ivar dispatcher: brings tasks to them.
    @ivar updates: the calls that a worker makes when it is hired.
    @ivar reconnects: the workers that are hired when they have a connection.
    @ivar resigned: which worker was the last that can serve no more, and why, in words.
    """

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.dispatcher = registry.dispatcher
        self.updates: list[CallTuple] = []
        self.reconnects = Reconnects(self.hire)
        self.resigned = ""
        self._watchers: dict[object, Callable[[], None]] = {}
        self._IDs = count(1)
        # Each fires when nothing is left of a worker that has crashed.
        self._lingering: dict[Deferred[None], None] = {}

    def attach(self, worker: Any) -> Deferred[int]:
        """
        Hire a worker: at once, or when it has a connection if it makes one itself.

        @return: a Deferred of its ID.
        @raise ImplementationError: it is no L{IWorker}, or is leaving.
        @raise InvariantError: its qualifications are no lists.
        """
        if not IWorker.providedBy(worker):
            raise ImplementationError(
                f"{worker!r} is no IWorker: give an object that provides that"
            )
        try:
            IWorker.validateInvariants(worker)
        except InvariantError:
            raise
        except Invalid as error:
            # It breaks another invariant, of an interface of its own.
            raise InvariantError(worker, str(error)) from error
        known = self.registry.find(worker)
        if known is not None and known.state is WorkerState.STOPPING:
            raise ImplementationError(f"{worker!r} is leaving: attach it again when it has left")
        if known is not None:
            return succeed(known.ID)
        if traitsOf(worker).connecting:
            return self.reconnects.attach(cast(IConnectingWorker, worker))
        return self.hire(worker)

    def hire(self, worker: IWorker) -> Deferred[int]:
        """
        Take a worker on. It serves once it has run the L{updates}.

        @return: a Deferred of its ID; it fails with what an update failed with,
            and then the worker is not hired.
        """
        ID = next(self._IDs)
        lane = self.dispatcher.lanes.enter([*worker.cQualified, *worker.iQualified])
        record = self.registry.records[ID] = WorkerRecord(worker, ID, lane, self.crash)
        # The ID of a worker is promised to be found there.
        record.worker.ID = ID
        self._tellOfWorker(self.registry.observers.workerHired, worker)
        if record.traits.prefetching:
            record.worker.setReturner(lambda tasks: self.dispatcher.takeBack(record, tasks))
        if record.traits.failing:
            record.worker.setReporter(partial(self._reported, record))
        worker.setResignator(lambda: self.resign(record))
        return self._prepare(record, list(self.updates))

    @inlineCallbacks
    def _prepare(self, record: WorkerRecord, updates: list[CallTuple]) -> Any:
        # All of them are lined up at once: an update that is made meanwhile comes after.
        tasks: list[Task] = []
        for callTuple in updates:
            if record.state is WorkerState.PREPARING:
                tasks.append(self.registry.newUpdate(callTuple, lasting=True))
                self.dispatcher.assign(record, tasks[-1])
        try:
            for task in tasks:
                if record.state is not WorkerState.PREPARING:
                    break
                yield task.d
                if record.ready:
                    self.dispatcher.attend(record)
        except GeneratorExit:
            # Nobody holds the queue any more.
            raise
        except BaseException:
            # Whatever it is, an exit too, it goes on to who hires; without its
            # updates the worker is not fit to serve.
            self.crash(record)
            raise
        finally:
            for task in tasks:
                # Those behind one that failed, or that the worker did not stay for.
                task.d.addErrback(lambda failure: None)
        if record.state is not WorkerState.PREPARING:
            raise WorkerLost("any call", record.name, begun=False, reason="it left")
        record.state = WorkerState.READY
        if record.fault:
            self._fail(record)
        elif record.ready:
            self.dispatcher.attend(record)
        return record.ID

    def _tellOfWorker(self, hook: Hook, worker: IWorker) -> None:
        """
        Tell observers that a worker came or went.
        """
        self.registry.observers.tell(hook, worker)
        self._tellWatchers()

    def _tellWatchers(self) -> None:
        for changed in list(self._watchers.values()):
            changed()

    def watch(self, changed: Callable[[], None]) -> Callable[[], None]:
        """
        Have something called each time that a worker came or went, or can run nothing for now,
        or can again.

        @return: what ends that.
        """
        key = object()
        self._watchers[key] = changed

        def end() -> None:
            self._watchers.pop(key, None)

        return end

    def qualify(self, record: WorkerRecord, series: Hashable) -> None:
        """
        From now on the worker may run this series, too.
        """
        worker = record.worker
        if series not in worker.iQualified:
            worker.iQualified.append(series)
        if record.state not in CHOOSING:
            # It chooses from nothing any more.
            return
        old = record.lane
        old.forget(record)
        record.lane = self.dispatcher.lanes.enter([*worker.cQualified, *worker.iQualified])
        self.dispatcher.lanes.leave(old)
        if record.ready:
            self.dispatcher.attend(record)

    def dismiss(
        self, record: WorkerRecord, limit: float | None, reassign: bool = False
    ) -> Deferred[Any]:
        """
        Let a worker end its tasks, and go.

        @param limit: the seconds that this may take before it crashes; C{None}:
            as long as its tasks take.
        @param reassign: give what it has not begun to others.
        @return: a Deferred list of the tasks it did not end.
        """
        if record.state is WorkerState.GONE:
            return succeed([])

        def outOfPatience(d: Any) -> None:
            self.crash(record, "it did not stop in time")

        left: Deferred[list[Task]] = Deferred(outOfPatience)
        record.waiters.append(left)
        isToStop = record.state is not WorkerState.STOPPING
        self._retire(record, WorkerState.STOPPING)
        if reassign and record.traits.prefetching and record.state is WorkerState.STOPPING:
            self.dispatcher.takeBack(record, record.recall())
            # One that stops already may have waited for what it has handed over.
            isToStop = True
        if record.state is WorkerState.STOPPING and isToStop:
            maybeDeferred(record.worker.stop).addBoth(self._stopped, record)
        if limit is not None and not left.called:
            left.addTimeout(limit, theReactor(self.dispatcher.reactor))
        return left

    def _stopped(self, result: Any, record: WorkerRecord) -> None:
        """
        Hear that the worker has stopped, or could not.
        """
        if record.state is WorkerState.GONE:
            return
        if isinstance(result, Failure):
            _log.failure("{worker} failed to stop", result, worker=record.name)
            self.crash(record, "it failed to stop")
        else:
            self._depart(record, (), "it stopped without ending this")

    def crash(self, record: WorkerRecord, reason: str = "", reassign: bool = False) -> list[Task]:
        """
        Have a worker crash, and settle what it leaves undone.

        @param reassign: run again elsewhere what it had begun, too.
        @return: the tasks that were not reassigned.
        """
        if record.state is WorkerState.GONE:
            return []
        self._retire(record, WorkerState.GONE)
        try:
            record.worker.crash()
        except BaseException:
            # The seam to other people's workers: it is gone all the same.
            _log.failure("{worker} failed to crash", worker=record.name)
        if record.traits.lingering:
            gone = maybeDeferred(record.worker.gone)
            self._lingering[gone] = None
            gone.addBoth(lambda _: self._lingering.pop(gone))
        notBegun = record.recall() if record.traits.prefetching else ()
        return self._depart(record, notBegun, reason or "it crashed", reassign)

    def lingered(self) -> Deferred[Any]:
        """
        Wait until nothing is left of workers that have crashed.
        """
        return DeferredList(list(self._lingering))

    def resign(self, record: WorkerRecord) -> None:
        """
        Let a worker go that can serve no more: one that makes connections may come back.
        """
        if record.state is WorkerState.GONE:
            return
        worker = record.worker
        loss = worker.loss if record.traits.telling else ""
        if loss and not record.traits.remote:
            self.resigned = f"{record.name} has resigned: {loss}"
        self.crash(record, loss or "it resigned")
        if self.dispatcher.admission.gives and record.traits.connecting:
            self.reconnects.resigned(worker)

    def _retire(self, record: WorkerRecord, state: WorkerState) -> None:
        """
        Give a worker no more tasks.
        """
        serving = record.state in CHOOSING
        # First this: what fails now may have callbacks that ask for it.
        record.state = state
        if serving:
            record.lane.forget(record)
            self.dispatcher.lanes.leave(record.lane)
            for task in list(record.updates):
                task.errback(lostTo(record, task))

    def _depart(
        self, record: WorkerRecord, again: Sequence[ITask], reason: str, reassign: bool = False
    ) -> list[Task]:
        """
        Settle each task that a worker has left that is gone, as it may be (G2).
        """
        record.state = WorkerState.GONE
        notBegun = set(again)
        if self.registry.settling(record):
            self._tellOfWorker(self.registry.observers.workerLeft, record.worker)
        lost: list[Task] = []
        # The last first: each goes back before those that were queued after it.
        for task in reversed(list(record.tasks)):
            if (
                self.dispatcher.admission.gives
                and not task.isUpdate
                and (reassign or task in notBegun)
            ):
                self.registry.taskLost(task)
                # An observer may have ended it.
                if task in record.tasks:
                    self.dispatcher.requeue(record, task, begun=task not in notBegun)
            else:
                lost.append(task)
        lost.reverse()
        for task in lost:
            begun = task not in notBegun
            task.errback(Failure(WorkerLost(task.describe(), record.name, begun, reason=reason)))
        self.registry.settled(record)
        waiters, record.waiters = record.waiters, []
        for waiter in waiters:
            waiter.callback(lost)
        self.dispatcher.resume()
        return lost

    def close(self) -> None:
        """
        Expect no worker any more, take no more tasks, and end those that no worker holds yet.
        """
        # First this: what fails now may have callbacks that ask for it.
        self.dispatcher.admission.close()
        self.reconnects.close()
        self.registry.endQueued()

    # Workers that can run nothing for now

    def _reported(
        self, record: WorkerRecord, reason: str, tasks: Sequence[Any], isHopeless: bool
    ) -> None:
        """
        Hear that a worker can run nothing for now, or can again.

        @param reason: why it cannot; empty if it can.
        @param tasks: those that it hands back.
        @param isHopeless: whether tasks for it alone shall wait no longer.
        """
        record.fault = reason
        record.hopeless = isHopeless
        if not reason:
            if record.state in _WAITING:
                if record.state is WorkerState.FAILING:
                    record.state = WorkerState.READY
                parked, record.parked = record.parked, False
                self._tellWatchers()
                if parked:
                    self.dispatcher.attend(record)
            self.dispatcher.resume()
            return
        if record.state in _ABLE:
            self._fail(record)
        for task in reversed(tasks):
            if task in record.tasks:
                if not self.dispatcher.admission.gives or record.state not in _WAITING:
                    task.errback(lostTo(record, task, reason))
                elif task.isUpdate:
                    self.dispatcher.giveAgain(record, task)
                else:
                    self.dispatcher.requeue(record, task)
        # They hear of it before calls end that wait no longer.
        self._tellWatchers()
        if isHopeless and record.state in _WAITING:
            self._endHopeless(record, reason)
        self.dispatcher.resume()

    def _fail(self, record: WorkerRecord) -> None:
        """
        Give a worker nothing until it can run tasks again.
        """
        if record.state is WorkerState.READY:
            record.state = WorkerState.FAILING
        if record.ready:
            record.ready = False
            record.parked = True
            record.lane.forget(record)

    def faultOf(self, series: Hashable) -> tuple[str, bool]:
        """
        Why no worker can run tasks of a series for now, where there are such that may.

        @return: why, in words, empty if one can or there is none; and whether there is no
            hope.
        """
        able = [
            record
            for record in self.registry.records.values()
            if record.state is not WorkerState.STOPPING and record.lane.serves(series)
        ]
        if not able or any(record.state is not WorkerState.FAILING for record in able):
            return "", False
        return able[0].fault, all(record.hopeless for record in able)

    def slots(self, series: Hashable) -> int:
        """
        Return how many calls of a series the workers can run at once that can run any.
        """
        return sum(
            record.worker.slots if record.traits.slotted else 1
            for record in self.registry.records.values()
            if not record.fault and record.lane.serves(series)
        )

    def processes(self, series: Hashable) -> int:
        """
        Return how many workers there are for a series, if all have processes; else 0.
        """
        workers = 0
        for record in self.registry.records.values():
            if record.lane.serves(series) and record.state is not WorkerState.STOPPING:
                if not record.traits.processes:
                    return 0
                workers += 1
        return workers

    def _endHopeless(self, record: WorkerRecord, reason: str) -> None:
        """
        End the queued tasks that only workers could run that cannot, and what was to prepare
        this one. One that dials may be there soon: what it could run waits.
        """
        for task in list(record.updates):
            task.errback(lostTo(record, task, reason))
        if record.state is not WorkerState.FAILING:
            # It was not hired, and nothing has waited for it.
            return
        able = [other for other in self.registry.records.values() if other.state in _ABLE]
        backlog = self.dispatcher.completeBacklog()
        hopeless = {
            flow.series
            for flow in backlog.statistics()
            if record.lane.serves(flow.series)
            and not any(other.lane.serves(flow.series) for other in able)
            and not self.reconnects.workers(flow.series)
        }
        for task in list(backlog.tasks()) if hopeless else ():
            # One may have ended another, and one that may be tried again waits again.
            if task.series in hopeless and task.state is QUEUED:
                task.errback(lostTo(record, task, reason))
