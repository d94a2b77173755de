"""
A worker with threads of its own.

::

    reactor:  run ─▶ jobs (a deque) ─┐            ┌─▶ collect: end tasks, ready
              one token for each     ▼            │
    threads:               take a token, take a job, do it ─▶ outbox

The tokens are what threads wait for; a job is what is there when one has come.
So a job can be put before others (there are two deques), and be taken back, with
nothing but the deques' own atomic operations: a thread either has a job or has it not.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from enum import Enum
from queue import SimpleQueue
from threading import Thread
from time import perf_counter
from types import CoroutineType
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure
from zope.interface import implementer

from asynqueue.checks import wholeNumber
from asynqueue.errors import WorkerLost
from asynqueue.failures import caught
from asynqueue.forks import tellForks
from asynqueue.interfaces import IFailingWorker, IPrefetchingWorker, ISlottedWorker, ITask
from asynqueue.outcome import describeCall, inWords, settled
from asynqueue.reactors import checkedReactor, theReactor
from asynqueue.scheduling.options import seriesOf
from asynqueue.scheduling.snapshots import WorkerSnapshot
from asynqueue.timers import later
from asynqueue.workers.failing import RetriedFault
from asynqueue.workers.iterators import ThreadIterators
from asynqueue.workers.outbox import Begun, Outbox
from asynqueue.workers.stale import StaleCheck
from asynqueue.workers.standing import stateOf
from asynqueue.workers.steps import Close, Step, ThreadSource
from asynqueue.workers.waiters import Waiters
from asynqueue.workers.window import Window

# The most tasks that may be sent ahead to one worker.
_MOST_AHEAD = 500

_READY: Deferred[None] = succeed(None)


class _Life(Enum):
    SERVING = "serving"
    STOPPING = "stopping"
    LEAVING = "leaving"
    CRASHED = "crashed"


@frozen
class ThreadStatistics(WorkerSnapshot):
    """
    How a thread worker stands.

    @ivar threads: how many threads it has now.
    @ivar mean: the mean seconds of the latest tasks; 0 while none has ended.
    """

    threads: int
    mean: float


class _Run:
    """
    A task in the hands of a thread, and what came of it.
    """

    __slots__ = ("failure", "seconds", "task", "value")

    def __init__(self, task: ITask) -> None:
        self.task = task
        self.value: Any = None
        self.failure: Failure | None = None
        self.seconds = 0.0

    def do(self, put: Callable[[Any], None]) -> None:
        """
        Make the call. Runs in a thread.
        """
        task = self.task
        # A task that has been cancelled by now is only handed back.
        if not task.ended:
            if task.watched:
                put(Begun(task))
            f, args, kw = task.callTuple
            start = perf_counter()
            try:
                value = task.context.run(f, *args, **kw)
                if type(value) is CoroutineType:
                    value = task.context.run(settled, value)
                self.value = value
            except BaseException as error:
                # The seam to user code: an exit or an interrupt that a task
                # raises is its outcome, and does not end the thread.
                self.failure = caught(error)
            self.seconds = perf_counter() - start
        put(self)


def _work(
    urgent: deque[Any],
    jobs: deque[Any],
    tokens: SimpleQueue[bool],
    put: Callable[[Any], None],
    left: Callable[[], None],
) -> None:
    """
    What a thread does until it gets a false token.
    """
    while tokens.get():
        try:
            # Another thread may be faster at the urgent ones.
            job = urgent.popleft() if urgent else jobs.popleft()
        except IndexError:
            try:
                job = jobs.popleft()
            except IndexError:
                # The job of this token was taken back.
                continue
        job.do(put)
    left()


@implementer(IPrefetchingWorker, IFailingWorker, ISlottedWorker)
class ThreadWorker:
    """
    Runs blocking functions in threads of its own, which end with it. A coroutine runs in
    its thread, in an asyncio loop of its own; the reactor drives an asynchronous generator.

    The caller's context variables are those of the call. A task that is cancelled
    or takes too long has its outcome at once; its thread is busy until the
    function returns, since a thread cannot be ended. The threads are daemons: one
    that hangs keeps neither the worker from crashing nor the program from ending.

    @ivar ID: the number that a queue gave to this worker.
    """

    cQualified: list[Any] = ["thread", "local"]

    def __init__(
        self,
        series: Iterable[Hashable] = (),
        *,
        raw: bool = False,
        threads: int = 1,
        reactor: Any = None,
        start: Callable[[Thread], None] = Thread.start,
    ) -> None:
        """
        @param series: what it is qualified for, besides its kind.
        @param raw: whether iterators come back as they are, where the call does
            not say.
        @param threads: how many tasks run at once. With one, they run one after
            the other, in the order they were assigned.
        @param reactor: the reactor, or an asyncio loop; C{None}: the one that runs when
            it is needed first.
        @param start: starts a thread: a test may refuse to.
        @raise TypeError: C{series} is a string, or one of them is not hashable.
        @raise ValueError: there is to be no thread.
        """
        self.iQualified: list[Any] = seriesOf(series)
        self.ID: int | None = None
        self._threads = self._unstarted = wholeNumber(threads, "threads")
        self._reactor = checkedReactor(reactor)
        self._start = start
        self._life = _Life.SERVING
        self._urgent: deque[Any] = deque()
        self._jobs: deque[Any] = deque()
        self._tokens: SimpleQueue[bool] = SimpleQueue()
        self._outbox: Outbox[Any] | None = None
        self._held: dict[ITask, None] = {}
        self._window = Window(threads, _MOST_AHEAD)
        self._ready: Deferred[None] | None = None
        self._stopped = Waiters()
        self._notBegun: list[ITask] = []
        self._returner: Callable[[Sequence[ITask]], None] | None = None
        self._iterators = ThreadIterators(
            self, raw, lambda: self._name, self._theReactor, self._checkStopped
        )
        self._fault = RetriedFault(lambda: self._name, self._theReactor, self._tryAgain)
        self._staleCheck = StaleCheck(
            lambda seconds, f: later(self._theReactor(), seconds, f),
            lambda: len(self._held) > self._threads,
            lambda: self._ended,
            self._goStale,
        )
        self._stalled = False
        self._ended = 0
        tellForks(self)

    @property
    def slots(self) -> int:
        """
        How many tasks run at once.
        """
        return self._threads

    def setResignator(self, callableObject: Any) -> None:
        """
        Never resigns: its threads are its own. One that has stopped or
        crashed begins anew.
        """
        if self._life is _Life.CRASHED:
            # The threads of the life before end when they can, and count no more.
            self._urgent, self._jobs, self._tokens = deque(), deque(), SimpleQueue()
            self._unstarted = self._threads
            self._stalled = False
            self._life = _Life.SERVING
        elif self._life is _Life.LEAVING and self._unstarted == self._threads:
            self._life = _Life.SERVING

    def setReturner(self, callableObject: Callable[[Sequence[ITask]], None]) -> None:
        self._returner = callableObject

    def setReporter(self, callableObject: Callable[[str, Sequence[ITask], bool], None]) -> None:
        self._fault.reporter = callableObject

    def run(self, task: ITask) -> Deferred[None]:
        held = self._held
        if self._stalled and len(held) >= self._window.size:
            # Tasks do not move here: better that another worker has this one.
            assert self._returner is not None
            self._returner([task])
            self._ready = Deferred()
            return self._ready
        held[task] = None
        run = _Run(task)
        if task.options.doNext:
            self._urgent.append(run)
        else:
            self._jobs.append(run)
        if self._unstarted and self._threads - self._unstarted < len(held):
            self._needThread()
        self._tokens.put(True)
        if not self._staleCheck.isRunning and len(held) > self._threads:
            self._staleCheck.start()
        if len(held) < self._window.size:
            return _READY
        self._ready = Deferred()
        return self._ready

    def stop(self) -> Deferred[None]:
        """
        Iterators may be read to their ends; one that nobody reads is closed.
        """
        d = self._stopped.wait()
        if self._life is _Life.SERVING:
            self._life = _Life.STOPPING
        self._checkStopped()
        return d

    def crash(self) -> list[ITask]:
        """
        Functions that run are left to run; what comes of them is dropped. Open generators
        are closed in a thread, one whose code is running as soon as it comes to a C{yield}.
        """
        if self._life is _Life.CRASHED:
            return []
        unbegun = self._unbegun()
        self._notBegun = [task for task in unbegun if not task.ended]
        left = [task for task in self._held if not task.ended]
        running = len(self._held) - len(unbegun)
        self._held.clear()
        self._life = _Life.CRASHED
        self._stopTimers()
        tokens, threads = self._tokens, self._threads - self._unstarted
        # Who hears of this may have the worker begin anew, with other tokens.
        left += self._iterators.crash(running, threads)
        self._letGo(tokens, threads)
        self._checkStopped()
        return left

    def takeBack(self) -> Sequence[ITask]:
        if self._life is _Life.CRASHED:
            return self._notBegun
        tasks = self._unbegun()
        for task in tasks:
            del self._held[task]
        return [task for task in tasks if not task.ended]

    def submit(self, job: Step | Close) -> None:
        """
        Have a thread do something for an iterator, before any other task. May be
        called in any thread.
        """
        self._urgent.appendleft(job)
        self._tokens.put(True)

    def sourceEnded(self, source: ThreadSource) -> None:
        """
        An iterator has ended, or was closed.
        """
        self._iterators.closed(source)
        if self._life is not _Life.SERVING:
            self._theReactor().callFromThread(self._checkStopped)

    def _needThread(self) -> None:
        """
        Have another thread for what is held. If there is none at all, the queue gives that
        to others until there is one.
        """
        if self._fault.reason:
            return
        try:
            self._startThread()
        except Exception as error:
            # The system has no room for it.
            if self._unstarted == self._threads:
                self._fail(error)

    def _fail(self, error: Exception) -> None:
        """
        There is no thread, and there will be none for a while.
        """
        tasks = self.takeBack() if self._fault.reporter is not None else ()
        self._fault.strike(f"no thread can be started: {inWords(error)}", tasks)
        if self._fault.reporter is None and self._fault.isHopeless:
            for task in self.takeBack():
                call = describeCall(*task.callTuple)
                lost = WorkerLost(call, self._name, begun=False, reason=self._fault.reason)
                task.errback(Failure(lost))
        self._checkStopped()

    def _tryAgain(self) -> None:
        """
        There may be room for a thread now.
        """
        try:
            self._startThread()
        except Exception as error:
            # There is none.
            self._fail(error)
        else:
            self._fault.end()
            self._checkReady()

    def _startThread(self) -> None:
        """
        Start a thread.

        @raise Exception: the system has no room for it.
        """
        # Kept, since threads ask for it, too.
        reactor = self._reactor = theReactor(self._reactor)
        if self._outbox is None:
            self._outbox = Outbox(reactor, self._collect)
        tokens = self._tokens
        thread: Thread = Thread(
            target=_work,
            args=(
                self._urgent,
                self._jobs,
                self._tokens,
                self._outbox.put,
                lambda: reactor.callFromThread(self._threadLeft, thread, tokens),
            ),
            name=f"asynqueue worker {self.ID} thread {self._threads - self._unstarted + 1}",
            daemon=True,
        )
        self._start(thread)
        self._unstarted -= 1

    def forked(self) -> None:
        """
        The threads are the parent's. What they had begun is lost here, what they had done
        is not; the rest is done by other threads.
        """
        if self._unstarted == self._threads:
            return
        # If one of them has forked, it ends when it comes back.
        self._tokens.put(False)
        self._tokens = SimpleQueue()
        self._unstarted = self._threads
        self._theReactor().callLater(0, self._beginAnew)

    def _beginAnew(self) -> None:
        """
        Settle what was in the hands of threads when this process was forked, and have the
        rest done.
        """
        waiting = [job for line in (self._urgent, self._jobs) for job in line]
        queued = {job.task for job in waiting if type(job) is _Run}
        reason = f"its threads belong to the process of which process {os.getpid()} is a fork"
        self._iterators.fail(reason)
        for task in [task for task in self._held if task not in queued]:
            del self._held[task]
            call = describeCall(*task.callTuple)
            task.errback(Failure(WorkerLost(call, self._name, reason=reason)))
        for _ in waiting:
            if self._unstarted:
                self._needThread()
            self._tokens.put(True)
        self._checkReady()
        self._checkStopped()

    def _threadLeft(self, thread: Thread, tokens: SimpleQueue[bool]) -> None:
        # Saying so was the last thing it did: this takes no time.
        thread.join()
        if tokens is self._tokens:
            self._unstarted += 1
        self._checkStopped()

    def _collect(self, items: list[Any]) -> None:
        """
        Take what the threads have done. A hot path.
        """
        seconds = 0.0
        held = self._held
        ended = []
        for item in items:
            if type(item) is not _Run:
                item.done()
            else:
                self._ended += 1
                seconds += item.seconds
                if item.task in held:
                    del held[item.task]
                    ended.append(item)
        if ended:
            self._stalled = False
            self._window.measured(len(ended), seconds)
        for run in ended:
            if run.failure is None:
                self._iterators.end(run.task, run.value)
            else:
                run.task.errback(run.failure)
        self._checkReady()
        if self._life is not _Life.SERVING:
            self._checkStopped()

    def _checkReady(self) -> None:
        ready = self._ready
        if ready is not None and len(self._held) < self._window.size:
            self._ready = None
            ready.callback(None)

    def _unbegun(self) -> list[ITask]:
        """
        Take back what no thread has taken.
        """
        jobs = []
        for line in (self._urgent, self._jobs):
            while True:
                try:
                    jobs.append(line.popleft())
                except IndexError:
                    break
        for job in jobs:
            if type(job) is not _Run:
                self.submit(job)
        return [job.task for job in jobs if type(job) is _Run]

    def _goStale(self) -> None:
        """
        No task has ended: others shall have what is lined up, and this worker no more until
        one has.
        """
        if self._returner is not None:
            self._stalled = True
            self._window.close()
            self._returner(self.takeBack())
            # Where the threads had begun none of them, the end of none will say so.
            self._checkReady()

    def _checkStopped(self) -> None:
        """
        When there is nothing left to do, let the threads go; when they are gone,
        say so.
        """
        if self._life is _Life.STOPPING and not self._held and not self._iterators.isDelivering:
            if self._iterators.wait("it stops"):
                return
            self._life = _Life.LEAVING
            self._stopTimers()
            self._letGo(self._tokens, self._threads - self._unstarted)
        if self._life is _Life.CRASHED or (
            self._life is _Life.LEAVING and self._unstarted == self._threads
        ):
            self._stopped.fire()

    def _letGo(self, tokens: SimpleQueue[bool], threads: int) -> None:
        """
        Have so many threads end, each when it comes to it.
        """
        for _ in range(threads):
            tokens.put(False)

    def _stopTimers(self) -> None:
        self._iterators.stop()
        self._fault.stop()
        self._staleCheck.stop()

    @property
    def _name(self) -> str:
        return f"{type(self).__name__} {self.ID}"

    def _theReactor(self) -> Any:
        return theReactor(self._reactor)

    def statistics(self) -> ThreadStatistics:
        """
        Return how it stands.
        """
        life = "stopping" if self._life is _Life.LEAVING else self._life.value
        return ThreadStatistics(
            state=stateOf(life, self._stopped, self._fault),
            slots=self._threads,
            held=len(self._held),
            ended=self._ended,
            fault=self._fault.reason,
            threads=self._threads - self._unstarted,
            mean=self._window.mean,
        )
