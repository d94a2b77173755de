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
from queue import SimpleQueue
from threading import Thread
from time import perf_counter
from types import CoroutineType
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from zope.interface import implementer

from asynqueue.calling import settled
from asynqueue.checks import wholeNumber
from asynqueue.failures import caught
from asynqueue.forks import tellForks
from asynqueue.interfaces import IFailingWorker, IPrefetchingWorker, ISlottedWorker, ITask
from asynqueue.outcome import VALUES, inWords
from asynqueue.reactors import checkedReactor, theReactor
from asynqueue.scheduling.options import seriesOf
from asynqueue.scheduling.snapshots import WorkerSnapshot
from asynqueue.timers import later
from asynqueue.workers.failing import RetriedFault
from asynqueue.workers.iterators import ThreadIterators
from asynqueue.workers.outbox import Begun, Outbox
from asynqueue.workers.prefetch import Life, Prefetch, Prefetching
from asynqueue.workers.steps import Close, Step
from asynqueue.workers.window import Window

# The most tasks that may be sent ahead to one worker.
_MOST_AHEAD = 500


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
    Run in a thread, until it gets a false token.
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
class ThreadWorker(Prefetching[Window]):
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
        self._urgent: deque[Any] = deque()
        self._jobs: deque[Any] = deque()
        self._tokens: SimpleQueue[bool] = SimpleQueue()
        self._outbox: Outbox[Any] | None = None
        # By the runs that are with threads, or wait for one.
        self._tasks = Prefetch(
            self,
            Window(threads, _MOST_AHEAD),
            lambda seconds, f: later(self._theReactor(), seconds, f),
            slots=threads,
        )
        self._iterators = ThreadIterators(
            self.submit, raw, self._tasks.name, self._theReactor, self._tasks.checkStopped
        )
        self._fault = RetriedFault(self._tasks.name, self._theReactor, self._tryAgain)
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
        if self._tasks.life is Life.CRASHED:
            # The threads of the life before end when they can, and count no more.
            self._urgent, self._jobs, self._tokens = deque(), deque(), SimpleQueue()
            self._unstarted = self._threads
            self._tasks.revive()
        elif self._tasks.life is Life.LEAVING and self.isGone:
            self._tasks.revive()

    def setReporter(self, callableObject: Callable[[str, Sequence[ITask], bool], None]) -> None:
        self._fault.reporter = callableObject

    def run(self, task: ITask) -> Deferred[None]:
        tasks = self._tasks
        held = tasks.held
        window = tasks.window
        if window.isClosed and len(held) >= window.size and tasks.turnsAway(task):
            return tasks.wait()
        run = _Run(task)
        held[run] = task
        if task.options.doNext:
            self._urgent.append(run)
        else:
            self._jobs.append(run)
        if self._unstarted and self._threads - self._unstarted < len(held):
            self._needThread()
        self._tokens.put(True)
        return tasks.taken()

    def crash(self) -> list[ITask]:
        """
        Functions that run are left to run; what comes of them is dropped. Open generators
        are closed in a thread, one whose code is running as soon as it comes to a C{yield}.
        """
        if self._tasks.life is Life.CRASHED:
            return []
        left, begun = self._tasks.crash()
        self._fault.stop()
        tokens, threads = self._tokens, self._threads - self._unstarted
        # Who hears of this may have the worker begin anew, with other tokens.
        left += self._iterators.crash(len(begun), threads)
        _letGo(tokens, threads)
        self._tasks.sayStopped()
        return left

    def submit(self, job: Step | Close) -> None:
        """
        Have a thread do something for an iterator, before any other task. May be
        called in any thread.
        """
        self._urgent.appendleft(job)
        self._tokens.put(True)

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
        Note that there is no thread, and there will be none for a while.
        """
        tasks = self.takeBack() if self._fault.reporter is not None else ()
        self._fault.strike(f"no thread can be started: {inWords(error)}", tasks)
        if self._fault.reporter is None and self._fault.isHopeless:
            self._tasks.lose(self.takeBack(), self._fault.reason, begun=False)
        self._tasks.checkStopped()

    def _tryAgain(self) -> None:
        """
        Try again to have a thread: there may be room now.
        """
        try:
            self._startThread()
        except Exception as error:
            # There is none.
            self._fail(error)
        else:
            self._fault.end()
            self._tasks.checkReady()

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
        Lose, in a fork, what the threads had begun, which are the parent's. What they had done is
        kept, and the rest is done by other threads.
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
        waiting = dict.fromkeys((*self._urgent, *self._jobs))
        held = self._tasks.held
        begun = [run for run in held if run not in waiting]
        reason = f"its threads belong to the process of which process {os.getpid()} is a fork"
        self._iterators.fail(reason)
        self._tasks.lose([held.pop(run) for run in begun], reason)
        for _ in waiting:
            if self._unstarted:
                self._needThread()
            self._tokens.put(True)
        self._tasks.checkReady()
        self._tasks.checkStopped()

    def _threadLeft(self, thread: Thread, tokens: SimpleQueue[bool]) -> None:
        # Saying so was the last thing it did: this takes no time.
        thread.join()
        if tokens is self._tokens:
            self._unstarted += 1
        self._tasks.checkStopped()

    def _collect(self, items: list[Any]) -> None:
        """
        Take what the threads have done. A hot path.
        """
        seconds = 0.0
        tasks = self._tasks
        held = tasks.held
        ended = []
        for item in items:
            if type(item) is not _Run:
                item.done()
            else:
                seconds += item.seconds
                if item in held:
                    del held[item]
                    ended.append(item)
        if ended:
            tasks.ended += len(ended)
            tasks.window.measured(len(ended), seconds)
        for run in ended:
            if run.failure is not None:
                run.task.errback(run.failure)
                continue
            # Most values need no closer look; a class with a metaclass of somebody's may not
            # be looked up.
            kind = type(run.value)
            if type(kind) is type and kind in VALUES:
                run.task.callback(run.value)
            else:
                self._iterators.end(run.task, run.value)
        tasks.checkReady()
        tasks.checkStopped()

    # PrefetchDelegate

    def takeUnbegun(self) -> list[ITask]:
        """
        Take what no thread has taken.
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
        return [self._tasks.held.pop(job) for job in jobs if type(job) is _Run]

    def letGo(self) -> bool:
        """
        Have the threads end.
        """
        if self._iterators.wait("it stops"):
            return False
        self._fault.stop()
        _letGo(self._tokens, self._threads - self._unstarted)
        return True

    @property
    def isGone(self) -> bool:
        """
        Whether no thread is left.
        """
        return self._unstarted == self._threads

    def _theReactor(self) -> Any:
        return theReactor(self._reactor)

    def statistics(self) -> ThreadStatistics:
        """
        Return a snapshot of the worker.
        """
        tasks = self._tasks
        return ThreadStatistics(
            state=tasks.state(self._fault),
            slots=self._threads,
            held=tasks.count,
            ended=tasks.ended,
            fault=self._fault.reason,
            threads=self._threads - self._unstarted,
            mean=tasks.window.mean,
        )


def _letGo(tokens: SimpleQueue[bool], threads: int) -> None:
    """
    Have some threads end, each when it comes to it.
    """
    for _ in range(threads):
        tokens.put(False)
