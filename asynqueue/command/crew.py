"""
Where calls are made, and who makes them: threads, or processes that are replaced when they die.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.python.failure import Failure

from asynqueue.command.child import prepare, ready
from asynqueue.command.job import JobFailure, LineJob, failed
from asynqueue.errors import WorkerLost, signalName
from asynqueue.taskqueue import TaskQueue
from asynqueue.workers.process import ProcessWorker
from asynqueue.workers.thread import ThreadWorker

# How many processes in a row may die before they are ready for their first input.
_FALSE_STARTS = 3

# How many inputs may be under way, and beyond that how many for each worker: enough to keep all
# busy, few enough that an early end wastes little.
_SPARE = 64
_EACH = 4

# For each process, where inputs are short: what travels together at the most, three times.
_SHORT = 1500


def failedWith(failure: Failure) -> JobFailure:
    """
    Return what a Deferred failed with, in words.
    """
    assert failure.value is not None
    return failed(failure.value)


def howLost(lost: WorkerLost) -> str:
    """
    Return how a worker ended, in words; empty if that is not known.
    """
    if lost.signal is not None:
        return f"killed by {signalName(lost.signal)}"
    return lost.reason if lost.exitCode is None else f"exit code {lost.exitCode}"


class CrewDelegate(NamedTuple):
    """
    Whom a crew works for.

    @ivar queue: makes the calls.
    @ivar say: tells people something, in one line.
    @ivar gaveUp: is called when no worker can be had, with the reason.
    @ivar reactor: the reactor; C{None}: the one that runs.
    """

    queue: TaskQueue
    say: Callable[[str], None]
    gaveUp: Callable[[str], None]
    reactor: Any


class Crew(Protocol):
    """
    The workers of the command.
    """

    def need(self, calls: int) -> None:
        """
        Have workers, up to the limit, for as many calls as have no result yet.
        """

    def dismiss(self) -> Deferred[Any]:
        """
        Let all workers go: nobody is needed any more, and nobody runs anything.

        @return: a Deferred that fires when all are gone.
        """

    def end(self) -> None:
        """
        End at once the workers that can be ended, and wait for that.
        """


class Placement(Protocol):
    """
    What is called for each input, and where.

    @ivar function: what the queue calls.
    @ivar room: how many inputs may be under way.
    @ivar leastRoom: how many of them, however long they are.
    """

    function: Any
    room: int
    leastRoom: int

    def argument(self, text: str) -> Any:
        """
        Return what to call the function with.

        @raise NoJSON: the input is none.
        """

    def line(self, result: Any) -> bytes | JobFailure:
        """
        Return the line of what a call gave, or why it has none.

        @param result: a value, or the C{Failure} of the call.
        """

    def crew(self, delegate: CrewDelegate) -> Crew:
        """
        Return the workers that make the calls.
        """


class Here:
    """
    Has calls made by this machine. Who makes them reads and writes JSON, too.
    """

    def __init__(self, job: LineJob, most: int, processes: bool) -> None:
        """
        @param most: how many calls run at once.
        @param processes: whether they are made in processes, or in threads.
        """
        self.function = job
        self.leastRoom = _SPARE + _EACH * most
        self.room = _SHORT * most if processes else self.leastRoom
        self._most = most
        self._processes = processes

    def argument(self, text: str) -> str:
        return text

    def line(self, result: bytes | JobFailure | Failure) -> bytes | JobFailure:
        if not isinstance(result, Failure):
            return result
        error = result.value
        if isinstance(error, WorkerLost):
            how = howLost(error)
            message = "the process that ran it died" + (f" ({how})" if how else "")
            return JobFailure(type(error).__name__, message, f"{error}\n")
        return failedWith(result)

    def crew(self, delegate: CrewDelegate) -> Crew:
        if not self._processes:
            return ThreadCrew(delegate.queue, self._most)
        job = self.function
        return ProcessCrew(delegate, self._most, job.where, job.limit is not None)


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
        Do nothing: a worker starts its threads as it needs them.
        """

    def dismiss(self) -> Deferred[Any]:
        """
        Let the threads go. They are daemons: nobody waits for them.
        """
        self.end()
        return succeed(None)

    def end(self) -> None:
        """
        Give the threads up: one that runs something cannot be ended.
        """
        self._queue.detachWorker(self._worker, crash=True)


class ProcessCrew:
    """
    Processes, each with a worker of its own: one that dies costs the input that it
    was at, and its worker replaces it.
    """

    def __init__(self, delegate: CrewDelegate, most: int, where: str, limited: bool) -> None:
        """
        @param most: how many processes.
        @param where: the function that each must have, as C{MODULE:FUNCTION}.
        @param limited: whether calls have time limits.
        """
        self._delegate = delegate
        self._queue = delegate.queue
        self._most = most
        self._limited = limited
        # Whether they have been ready for inputs.
        self._workers: dict[ProcessWorker, bool] = {}
        self._calls = 0
        self._falseStarts = 0
        self._open = True
        self._queue.update(ready, where)

    def need(self, calls: int) -> None:
        self._calls = calls
        while self._open and len(self._workers) < min(calls, self._most):
            self._hire()

    def dismiss(self) -> Deferred[Any]:
        """
        End those that are not ready yet, and let the others go.
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
            initializer=prepare, initargs=(self._limited,), reactor=self._delegate.reactor
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
        Try again where a process died as it started, and give up where it cannot get ready.
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
        self._delegate.gaveUp(reason)
