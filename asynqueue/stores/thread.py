"""
What makes the calls of a store that may block: a thread, or in tests nothing but the caller.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from typing import Any, Protocol

from twisted.logger import Logger

from asynqueue.forks import tellForks
from asynqueue.reactors import checkedReactor, theReactor

_log = Logger()

_Job = Callable[[], None]


class Runner(Protocol):
    """
    Makes calls one after the other, in the order in which they were asked for.
    """

    def do(self, f: Callable[[], None]) -> None:
        """
        Have a function called. Called in the reactor's thread; it does not wait.

        @raise RuntimeError: it cannot be called, as no thread can be started.
        """

    def answer(self, f: Callable[..., object], *args: Any) -> None:
        """
        Call a function in the reactor's thread. Called by what C{do} has called.
        """

    def stop(self) -> None:
        """
        Let go of what makes the calls; nothing is left to be called. The next C{do} begins anew.
        """


class ThreadRunner:
    """
    Makes calls in a thread of its own, that begins with the first one.

    The thread is a daemon: it does not keep a program from ending.
    """

    def __init__(self, name: str, reactor: Any = None) -> None:
        """
        @param name: of the thread, for people.
        @param reactor: the reactor, or an asyncio loop; C{None}: the one that runs when the thread
            begins.
        """
        self._name = name
        self._reactor = checkedReactor(reactor)
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._thread: Thread | None = None
        self._callFromThread: Callable[..., Any] | None = None
        tellForks(self)

    def forked(self) -> None:
        """
        Forget the thread: it is the parent's.
        """
        self._thread = None

    def do(self, f: Callable[[], None]) -> None:
        if self._thread is None:
            self._callFromThread = theReactor(self._reactor).callFromThread
            self._jobs = SimpleQueue()
            thread = Thread(target=_work, args=(self._jobs,), name=self._name, daemon=True)
            thread.start()
            self._thread = thread
        self._jobs.put(f)

    def answer(self, f: Callable[..., object], *args: Any) -> None:
        assert self._callFromThread is not None
        self._callFromThread(f, *args)

    def stop(self) -> None:
        thread, self._thread = self._thread, None
        if thread is not None:
            self._jobs.put(None)
            # It has nothing to do but this.
            thread.join()


def _work(jobs: SimpleQueue[_Job | None]) -> None:
    """
    Run in the thread, until it gets no job.
    """
    while (job := jobs.get()) is not None:
        try:
            job()
        except BaseException:
            # What it calls has its own seams; whatever gets past them must not end the thread.
            _log.failure("a call in the thread of a store has failed")


class DirectRunner:
    """
    Makes calls in the thread that asks for them, for stores that never block, and for tests.

    @ivar isHeld: whether calls wait for L{step}.
    """

    def __init__(self, isHeld: bool = False) -> None:
        """
        @param isHeld: whether calls wait for L{step}. If not, they are made before C{do} returns,
            or, where that is called by one of them, after that one.
        """
        self.isHeld = isHeld
        self._jobs: deque[_Job] = deque()
        self._isRunning = False

    def do(self, f: Callable[[], None]) -> None:
        self._jobs.append(f)
        if not self.isHeld:
            self.step()

    def step(self) -> None:
        """
        Make all calls that wait.
        """
        if self._isRunning:
            return
        self._isRunning = True
        try:
            while self._jobs:
                self._jobs.popleft()()
        finally:
            self._isRunning = False

    def answer(self, f: Callable[..., object], *args: Any) -> None:
        f(*args)

    def stop(self) -> None:
        """
        Do nothing: there is nothing to let go.
        """
