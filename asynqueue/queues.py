"""
Queues that come with their workers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, succeed

from asynqueue.awaitable import AwaitableDeferred, bothWorlds
from asynqueue.taskqueue import TaskQueue
from asynqueue.workers.asynchronous import AsyncWorker
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
    A queue that runs its tasks in threads of its own: by default in one, so one
    after the other.
    """

    def __init__(self, raw: bool = False, threads: int = 1, **kw: Any) -> None:
        """
        @param raw: whether iterators come back as they are.
        @param threads: how many tasks run at once.
        @param kw: keywords of L{TaskQueue}.
        """
        self._worker = ThreadWorker(raw=raw, threads=threads, reactor=kw.get("reactor"))
        super().__init__(self._worker, **kw)

    def deferToThread(self, f: Callable[..., Any], *args: Any, **kw: Any) -> AwaitableDeferred[Any]:
        """
        Call a function in one of the threads, before all that is queued.

        @return: a Deferred of its result.
        @raise QueueRunError: the queue is shut down.
        """
        return self._callDirectly(self._worker, (f, args, kw))


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
        _shared.queue = ThreadQueue()
    return _shared.queue.call(*fargs, **kw)
