"""
Queues that come with their workers.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.defer import Deferred, succeed

from asynqueue.awaitable import AwaitableDeferred, bothWorlds
from asynqueue.checks import wholeNumber
from asynqueue.cores import cores
from asynqueue.taskqueue import TaskQueue
from asynqueue.workers.asynchronous import AsyncWorker
from asynqueue.workers.process import ProcessStatistics, ProcessWorker
from asynqueue.workers.thread import ThreadWorker


class NullQueue(TaskQueue):
    """
    A queue that runs its tasks in the reactor, one after the other.
    """

    def __init__(self, concurrent: int = 1, **kw: Any) -> None:
        """
        @param concurrent: how many tasks may wait for their results at once.
        @param kw: keywords of L{TaskQueue}.
        """
        super().__init__(AsyncWorker(concurrent=concurrent, reactor=kw.get("reactor")), **kw)


class ThreadQueue(TaskQueue):
    """
    A queue that runs its tasks in threads of its own. With one, they run one after the
    other.
    """

    def __init__(self, threads: int | None = None, *, raw: bool = False, **kw: Any) -> None:
        """
        @param threads: how many tasks run at once; C{None}: as many as a
            C{concurrent.futures.ThreadPoolExecutor} would run, which is four more than
            there are cores, and at most 32. A thread is started when there is a task
            for it.
        @param raw: whether iterators come back as they are.
        @param kw: keywords of L{TaskQueue}.
        @raise ValueError: there is to be no thread.
        """
        most = _usualThreads() if threads is None else threads
        self._worker = ThreadWorker(raw=raw, threads=most, reactor=kw.get("reactor"))
        super().__init__(self._worker, **kw)

    def deferToThread(self, f: Callable[..., Any], *args: Any, **kw: Any) -> AwaitableDeferred[Any]:
        """
        Call a function in one of the threads, before all that is queued.

        @return: a Deferred of its result.
        @raise QueueRunError: the queue is shut down.
        """
        return self._callDirectly(self._worker, (f, args, kw))


def _usualThreads() -> int:
    """
    Return how many threads an executor of the standard library has by default.
    """
    # Python 3.13 looks at which cores this process may use.
    count: Callable[[], int | None] = getattr(os, "process_cpu_count", os.cpu_count)
    return min(32, (count() or 1) + 4)


class ProcessQueue(TaskQueue):
    """
    A queue that runs its tasks in processes of its own, each with one worker.

    C{minimum} processes are started at once and kept; the others, up
    to C{N}, are started as there is work for them, and end when they have had none
    for a while.
    """

    def __init__(
        self,
        N: int | None = None,
        *,
        raw: bool = False,
        minimum: int | None = None,
        maximum: int | None = None,
        idleTimeout: float = 60.0,
        initializer: Callable[..., Any] | None = None,
        initargs: Iterable[Any] = (),
        maxTasks: int | None = None,
        maxMemory: int | None = None,
        grace: float = 1.0,
        **kw: Any,
    ) -> None:
        """
        @param N: how many tasks run at once; C{None}: as many as this process may use
            cores. C{maximum} is another word for it.
        @param raw: whether iterators are pickled as they are.
        @param minimum: how many processes there are without work; C{None}: those
            that were started are kept.
        @param idleTimeout: the seconds after which one beyond the minimum is ended.
        @param initializer: is called with C{initargs} in each process, before any
            task.
        @param maxTasks: how many tasks a process runs before it is replaced.
        @param maxMemory: the bytes of memory that a process may have, as
            L{ProcessWorker} has it.
        @param grace: the seconds that a cancelled task has to clean up.
        @param kw: keywords of L{TaskQueue}.
        @raise ValueError: a number is out of its range, or they contradict each other.
        """
        most, kept = _howMany(N, minimum, maximum)
        workers = [
            ProcessWorker(
                raw=raw,
                initializer=initializer,
                initargs=initargs,
                maxTasks=maxTasks,
                maxMemory=maxMemory,
                idleTimeout=None if number < kept else idleTimeout,
                grace=grace,
                reactor=kw.get("reactor"),
            )
            for number in range(most)
        ]
        super().__init__(*workers, **kw)
        if minimum is not None:
            for worker in workers[:minimum]:
                self._whenBegun(worker.start)

    @staticmethod
    def cores() -> int:
        """
        Return how many cores this process may use: those that it is bound to, and not more than the
        quota of its control group is worth.
        """
        return cores()

    def stats(self) -> list[ProcessStatistics]:
        """
        Return what each of the workers has done by now.
        """
        return [worker.stats() for worker in self.workers() if isinstance(worker, ProcessWorker)]


def _howMany(N: int | None, minimum: int | None, maximum: int | None) -> tuple[int, int]:
    """
    Return the largest number of processes, and the number that there is without work.

    @raise ValueError: a number is out of its range, or they contradict each other.
    """
    for name, number in (("N", N), ("maximum", maximum)):
        if number is not None:
            wholeNumber(number, name)
    if None not in (N, maximum) and maximum != N:
        raise ValueError(f"N={N} and maximum={maximum} are two words for one number: give one")
    most = N or maximum or cores()
    if minimum is None:
        return most, most
    if wholeNumber(minimum, "minimum", least=0) > most:
        raise ValueError(f"minimum={minimum} is more than there are at the most, {most}")
    return most, minimum


class _Shared:
    """
    The queue behind L{deferToThread}, while there is one.
    """

    def __init__(self) -> None:
        self.queue: ThreadQueue | None = None


_shared = _Shared()


def deferToThread(*fargs: Any, **kw: Any) -> AwaitableDeferred[Any]:
    """
    Call C{f(*args, **kw)} in a thread that this function keeps for itself, and
    so after all the calls that were made with it before.

    Options of L{TaskQueue.call}, such as C{doNext} and C{consumer}, may be given.
    Without anything to call it ends the thread, until it is needed again.

    @return: a Deferred of the result, or of the end of the thread.
    """
    if not fargs:
        queue, _shared.queue = _shared.queue, None
        ended: Deferred[None] = succeed(None) if queue is None else queue.shutdown()
        return bothWorlds(ended)
    if _shared.queue is None or not _shared.queue.isRunning():
        _shared.queue = ThreadQueue(1)
    return _shared.queue.call(*fargs, **kw)
