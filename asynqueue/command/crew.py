"""
Who makes the calls: threads, or processes that are replaced when they die.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from asynqueue.command.child import OneProcess, endAll, ready
from asynqueue.command.job import Failed, failed
from asynqueue.errors import WorkerLost
from asynqueue.reactors import theReactor
from asynqueue.scheduling.events import SilentObserver
from asynqueue.taskqueue import TaskQueue
from asynqueue.workers.executor import ExecutorWorker
from asynqueue.workers.thread import ThreadWorker

# So many processes in a row may die before they are ready for their first input.
_FALSE_STARTS = 3


def failedWith(failure: Failure) -> Failed:
    """
    What a Deferred failed with, in words.
    """
    assert failure.value is not None
    return failed(failure.value)


class Crew(Protocol):
    """
    The workers of the command.
    """

    def need(self, calls: int) -> None:
        """
        So many calls have no result yet: have workers for them, up to the limit.
        """

    def explain(self, lost: WorkerLost) -> str:
        """
        What is known of the end of a worker, in words.
        """

    def dismiss(self) -> None:
        """
        Nobody is needed any more, and nobody runs anything.
        """

    def end(self) -> None:
        """
        End at once whoever can be ended, and wait for that.
        """

    def close(self) -> None:
        """
        Wait until those who were dismissed are gone.
        """


class ThreadCrew:
    """
    Threads of the command itself.
    """

    def __init__(self, queue: TaskQueue, most: int) -> None:
        """
        @param most: how many threads.
        """
        self._queue = queue
        self._worker = ThreadWorker(threads=most)
        queue.attachWorker(self._worker)

    def need(self, calls: int) -> None:
        """
        A worker starts its threads as it needs them.
        """

    def explain(self, lost: WorkerLost) -> str:
        """
        Threads are not lost while the command runs.
        """
        return lost.reason

    def dismiss(self) -> None:
        self._queue.detachWorker(self._worker, crash=True)

    def end(self) -> None:
        """
        Threads cannot be ended.
        """

    def close(self) -> None:
        """
        They are daemons: nobody waits for them.
        """


class ProcessCrew(SilentObserver):
    """
    Processes, each with an executor and a worker of its own: one that dies costs
    what it was running, and is replaced.
    """

    def __init__(
        self,
        queue: TaskQueue,
        most: int,
        where: str,
        limited: bool,
        gaveUp: Callable[[str], None],
        reactor: Any = None,
    ) -> None:
        """
        @param most: how many processes.
        @param where: the function that each must have, as C{MODULE:FUNCTION}.
        @param limited: whether calls have time limits.
        @param gaveUp: is called when no process can be had, with the reason.
        """
        self._queue = queue
        self._most = most
        self._where = where
        self._limited = limited
        self._gaveUp = gaveUp
        self._reactor = reactor
        self._members: set[ExecutorWorker] = set()
        self._executors: dict[ExecutorWorker, OneProcess] = {}
        self._calls = 0
        self._falseStarts = 0
        self._open = True
        queue.update(ready, where)
        queue.addObserver(self)

    def need(self, calls: int) -> None:
        self._calls = calls
        while self._open and len(self._members) < min(self._calls, self._most):
            self._hire()

    def workerLeft(self, worker: Any) -> None:
        """
        A process died: another one takes its place.
        """
        self._members.discard(worker)
        # An observer must not call the queue, and what the worker leaves undone
        # is explained first.
        theReactor(self._reactor).callLater(0, self._replace, worker)

    def explain(self, lost: WorkerLost) -> str:
        for worker, executor in self._executors.items():
            if lost.worker == f"{type(worker).__name__} {worker.ID}":
                return executor.howEnded()
        return ""

    def dismiss(self) -> None:
        self._open = False
        self._queue.removeObserver(self)
        for worker in list(self._members):
            self._queue.detachWorker(worker, crash=True)

    def end(self) -> None:
        endAll(self._executors.values())

    def close(self) -> None:
        # Not left to the end of the interpreter, where the threads of the executors
        # and who wakes them up may be in each other's way.
        for executor in self._executors.values():
            executor.shutdown(wait=True, cancel_futures=True)

    def _replace(self, worker: ExecutorWorker) -> None:
        # Its process is dead: there is hardly anything to wait for.
        self._executors.pop(worker).shutdown(wait=True)
        self.need(self._calls)

    def _hire(self) -> None:
        executor = OneProcess(self._limited)
        worker = ExecutorWorker(executor, reactor=self._reactor)
        self._members.add(worker)
        self._executors[worker] = executor
        hired: Deferred[int] = self._queue.attachWorker(worker)
        hired.addCallbacks(self._hired, self._notHired, errbackArgs=(executor,))

    def _hired(self, ID: int) -> None:
        self._falseStarts = 0

    def _notHired(self, failure: Failure, executor: OneProcess) -> None:
        """
        A process could not be started, or could not get ready.
        """
        if not self._open:
            return
        if failure.check(WorkerLost):
            self._falseStarts += 1
            if self._falseStarts < _FALSE_STARTS:
                return
            how = executor.howEnded()
            reason = f"{_FALSE_STARTS} processes in a row died as they started"
            reason += f" ({how})" if how else ""
        else:
            reason = f"a process cannot get ready: {failedWith(failure).oneLine()}"
        self._open = False
        self._gaveUp(reason)
