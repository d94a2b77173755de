"""
Those who observe a queue: it tells them what happens, and knows none of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IConsumer, IPushProducer
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from asynqueue.errors import ImplementationError
from asynqueue.interfaces import IQueueObserver, ITask, IWorker

_log = Logger()

# What is told of one kind of event; C{None} where nobody listens.
Hook = Callable[..., Any] | None


@implementer(IQueueObserver)
class QueueObserver:
    """
    An observer that hears nothing: override the methods for what you want to hear. Those that
    are not overridden are never called.
    """

    def taskQueued(self, task: ITask) -> None:
        pass

    def taskBegun(self, task: ITask, worker: IWorker) -> None:
        pass

    def taskDone(self, task: ITask, outcome: Any, worker: IWorker | None) -> None:
        pass

    def taskLost(self, task: ITask, worker: IWorker) -> None:
        pass

    def workerHired(self, worker: IWorker) -> None:
        pass

    def workerLeft(self, worker: IWorker) -> None:
        pass


_HOOKS = tuple(IQueueObserver)


class Observers:
    """
    Those who observe a queue: for each method of L{IQueueObserver}, what is called. Of one who
    listens, that is the method itself; of several, what calls theirs, in the order in which they
    were added. Where nobody listens, there is none, and the queue calls nothing.
    """

    __slots__ = ("_observers", *_HOOKS)

    taskQueued: Hook
    taskBegun: Hook
    taskDone: Hook
    taskLost: Hook
    workerHired: Hook
    workerLeft: Hook

    def __init__(self) -> None:
        self._observers: list[Any] = []
        self._gather()

    def add(self, observer: Any) -> None:
        """
        Tell an observer, unless it is told already.

        @raise ImplementationError: it is no L{IQueueObserver}.
        """
        if not IQueueObserver.providedBy(observer):
            raise ImplementationError(
                f"{observer!r} is no IQueueObserver: derive its class from QueueObserver"
            )
        if observer not in self._observers:
            self._observers.append(observer)
            self._gather()

    def remove(self, observer: Any) -> None:
        """
        Tell an observer no more, if it was told.
        """
        if observer in self._observers:
            self._observers.remove(observer)
            self._gather()

    def _gather(self) -> None:
        for name in _HOOKS:
            methods = (getattr(observer, name) for observer in self._observers)
            ignored = getattr(QueueObserver, name)
            heard = [each for each in methods if getattr(each, "__func__", None) is not ignored]
            setattr(self, name, _together(heard))

    @staticmethod
    def tell(hook: Hook, *args: Any) -> None:
        """
        Tell those who listen to one hook.
        """
        if hook is not None:
            try:
                hook(*args)
            except BaseException:
                logFailed(hook)


def _together(methods: list[Callable[..., Any]]) -> Hook:
    """
    Return what calls some methods: the method itself if it is one, nothing if there is none.
    """
    if len(methods) < 2:
        return methods[0] if methods else None

    def callEach(*args: Any) -> None:
        for method in methods:
            try:
                method(*args)
            except BaseException:
                logFailed(method)

    return callEach


def logFailed(method: Callable[..., Any]) -> None:
    """
    Log what a method of somebody's observer has raised, an exit too. That is its own fault, and
    harms neither the queue nor the next observer. What is told for each call is told in place of
    L{Observers.tell}, as that costs as much again as a short method.
    """
    _log.failure("{method!r} of an observer failed", method=method)


@implementer(IPushProducer)
class LoadProducer(QueueObserver):
    """
    Writes the load of a queue, queued and running tasks together, to a consumer
    at every change. While it is paused it writes nothing; then, the last figure.
    """

    def __init__(self, consumer: Any, load: int, stopped: Callable[[Any], None]) -> None:
        """
        @param consumer: an C{IConsumer} of whole numbers.
        @param load: the load as it is.
        @param stopped: is called with this object when the consumer wants no
            more.
        """
        if not IConsumer.providedBy(consumer):
            raise ImplementationError(
                f"{consumer!r} is no IConsumer: give an object that provides that"
            )
        self._consumer: Any = consumer
        self._load = load
        self._written = load
        self._paused = False
        self._stopped = stopped
        consumer.registerProducer(self, True)

    def taskQueued(self, task: ITask) -> None:
        self._change(1)

    def taskDone(self, task: ITask, outcome: Any, worker: IWorker | None) -> None:
        self._change(-1)

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False
        if self._written != self._load:
            self._change(0)

    def stopProducing(self) -> None:
        self._stopped(self)

    def end(self) -> None:
        """
        Write nothing more: the queue is gone.
        """
        self._stopped(self)
        try:
            self._consumer.unregisterProducer()
        except BaseException:
            # The seam to other people's consumers: the queue ends all the same.
            _log.failure("{consumer!r} failed at the end", consumer=self._consumer)

    def _change(self, by: int) -> None:
        self._load += by
        if not self._paused:
            self._written = self._load
            self._consumer.write(self._load)


class CallLogger(QueueObserver):
    """
    Logs errors of tasks, cancellations apart; with C{spew}, every call; with
    C{verbose}, what was called with what.
    """

    def __init__(self, verbose: bool, spew: bool) -> None:
        self._verbose = verbose or spew
        self._spew = spew

    def taskDone(self, task: Any, outcome: Any, worker: IWorker | None) -> None:
        if not issubclass(type(outcome), Failure):
            if self._spew:
                _log.info("{call} returned", call=self._call(task))
        elif not outcome.check(CancelledError) and task.options.returnFailure is not False:
            # Cancelled ones are not logged, and those that return no failure log themselves.
            _log.failure("{call} failed", outcome, call=self._call(task))

    def _call(self, task: Any) -> str:
        call: str = task.describe() if self._verbose else f"task {task.ID}"
        return call
