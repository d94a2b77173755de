"""
Who makes the calls: threads, or processes that are replaced when they die.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.python.failure import Failure

from asynqueue.command.child import prepare, ready
from asynqueue.command.job import Failed, failed
from asynqueue.errors import WorkerLost, signalName
from asynqueue.taskqueue import TaskQueue
from asynqueue.workers.process import ProcessWorker
from asynqueue.workers.thread import ThreadWorker

# So many processes in a row may die before they are ready for their first input.
_FALSE_STARTS = 3


def failedWith(failure: Failure) -> Failed:
    """
    What a Deferred failed with, in words.
    """
    assert failure.value is not None
    return failed(failure.value)


def howLost(lost: WorkerLost) -> str:
    """
    How a worker ended, in words; empty if that is not known.
    """
    if lost.signal is not None:
        return f"killed by {signalName(lost.signal)}"
    return lost.reason if lost.exitCode is None else f"exit code {lost.exitCode}"


class Crew(Protocol):
    """
    The workers of the command.
    """

    def need(self, calls: int) -> None:
        """
        So many calls have no result yet: have workers for them, up to the limit.
        """

    def dismiss(self) -> Deferred[Any]:
        """
        Nobody is needed any more, and nobody runs anything.

        @return: a Deferred that fires when all are gone.
        """

    def end(self) -> None:
        """
        End at once the workers that can be ended, and wait for that.
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

    def dismiss(self) -> Deferred[Any]:
        """
        They are daemons: nobody waits for them.
        """
        self.end()
        return succeed(None)

    def end(self) -> None:
        """
        One that runs something cannot be ended, and nobody waits for it.
        """
        self._queue.detachWorker(self._worker, crash=True)


class ProcessCrew:
    """
    Processes, each with a worker of its own: one that dies costs the input that it
    was at, and its worker replaces it.
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
        self._limited = limited
        self._gaveUp = gaveUp
        self._reactor = reactor
        # Whether they have been ready for inputs.
        self._workers: dict[ProcessWorker, bool] = {}
        self._calls = 0
        self._falseStarts = 0
        self._open = True
        queue.update(ready, where)

    def need(self, calls: int) -> None:
        self._calls = calls
        while self._open and len(self._workers) < min(calls, self._most):
            self._hire()

    def dismiss(self) -> Deferred[Any]:
        """
        Those that are not ready yet are ended.
        """
        self._open = False
        return gatherResults(
            [
                self._queue.detachWorker(worker, crash=not isReady)
                for worker, isReady in self._workers.items()
            ]
        )

    def end(self) -> None:
        self._open = False
        for worker in self._workers:
            self._queue.detachWorker(worker, crash=True)

    def _hire(self) -> None:
        worker = ProcessWorker(
            initializer=prepare, initargs=(self._limited,), reactor=self._reactor
        )
        self._workers[worker] = False
        hired: Deferred[int] = self._queue.attachWorker(worker)
        hired.addCallbacks(
            self._hired, self._notHired, callbackArgs=(worker,), errbackArgs=(worker,)
        )

    def _hired(self, ID: int, worker: ProcessWorker) -> None:
        self._workers[worker] = True
        self._falseStarts = 0

    def _notHired(self, failure: Failure, worker: ProcessWorker) -> None:
        """
        A process could not be started, or could not get ready.
        """
        if not self._open:
            return
        del self._workers[worker]
        error = failure.value
        if isinstance(error, WorkerLost):
            self._falseStarts += 1
            if self._falseStarts < _FALSE_STARTS:
                self.need(self._calls)
                return
            how = howLost(error)
            reason = f"{_FALSE_STARTS} processes in a row died as they started"
            reason += f" ({how})" if how else ""
        else:
            reason = f"a process cannot get ready: {failedWith(failure).oneLine()}"
        self._open = False
        self._gaveUp(reason)
