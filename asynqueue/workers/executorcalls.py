"""
What an executor is given to call, how much of that, and what may be known of it: in threads of
this process, and elsewhere.
"""

from __future__ import annotations

import pickle
from collections import deque
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor
from functools import partial
from itertools import count
from math import inf
from time import perf_counter
from types import FunctionType
from typing import Any, Protocol
from uuid import uuid4

from twisted.python.failure import Failure

from asynqueue.calling import perform, performNamed, settled
from asynqueue.codec import PLAIN, dumps, located
from asynqueue.errors import Unsendable, WorkerError
from asynqueue.failures import caught, failureOf
from asynqueue.interfaces import ITask
from asynqueue.outcome import Raised, Returned, presentable, shortRepr
from asynqueue.program import ELSEWHERE, keptElsewhere
from asynqueue.workers.outbox import Begun

# The worker count of an executor that does not tell it.
_UNKNOWN = 1


def executorWorkers(executor: Executor) -> int:
    """
    Return how many workers an executor has now.

    No executor tells this by a public name. The standard library's and loky's
    have C{_max_workers}; Dask's has a client, which knows the workers of its
    cluster.
    """
    most: int | None = getattr(executor, "_max_workers", None)
    if most is None:
        # What the client was last told, without asking the scheduler: this is
        # called in the reactor's thread. Dask has it told every few seconds.
        known = getattr(daskClient(executor), "_scheduler_identity", None) or {}
        most = known.get("total_threads")
        if most is None:
            most = sum(worker["nthreads"] for worker in known.get("workers", {}).values())
    return most or _UNKNOWN


def daskClient(executor: Executor) -> Any:
    """
    Return the client of Dask's executor; C{None} for the others.
    """
    return getattr(executor, "_client", None)


def isFinal(error: Exception) -> bool:
    """
    Tell whether an executor that raised this as it was given a call will take no other one.

    That it is shut down is told in words only, by the standard library's and loky's.
    """
    return isinstance(error, BrokenExecutor) or "shutdown" in str(error)


class Places:
    """
    As many tasks as an executor has workers, as far as we know, and a number more, whatever
    they take.

    @ivar size: how many there may be now.
    @ivar mean: how long tasks run; nobody knows.
    @ivar isClosed: whether nothing may be sent ahead, until a task has ended.
    """

    mean = inf

    def __init__(self, executor: Executor, ahead: int) -> None:
        self._executor = executor
        self._ahead = ahead
        self.isClosed = False

    @property
    def size(self) -> int:
        return executorWorkers(self._executor) + (0 if self.isClosed else self._ahead)

    def measured(self, tasks: int, seconds: float) -> None:
        """
        Tasks have ended.
        """
        self.isClosed = False

    def close(self) -> None:
        """
        Send nothing ahead until a task has ended.
        """
        self.isClosed = True


class ExecutorCalls(Protocol):
    """
    Makes calls for an executor.
    """

    def make(
        self, task: ITask, put: Callable[[Any], None]
    ) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """
        Return what the executor is to call for a task, and its arguments.

        @param put: may be called in any thread, with what is to be done in the reactor.
        @raise BaseException: somebody's objects cannot be pickled.
        """

    def isWithdrawn(self, executor: Executor, args: tuple[Any, ...]) -> bool:
        """
        Tell whether a call that the executor has refused will surely not be made.

        @param args: what it was to be called with.
        """

    def end(self, task: ITask, result: Any, deliver: Callable[[ITask, Any], None]) -> None:
        """
        End a task by what came of its call. A hot path.

        @param deliver: ends it with the value that the call returned.
        """

    def measure(self, measured: Callable[[int, float], None]) -> None:
        """
        Tell how many calls have ended since this was asked last, if any, and how many seconds
        they ran, all together; 0 if that is not known. A hot path.
        """

    def unhurried(self, ahead: int) -> int:
        """
        Tell how many calls may end before the reactor looks at the first of them; 0: it is to
        look at once.

        @param ahead: how many calls the executor has besides those that its workers run.
        """


def _end(task: ITask, outcome: Any, deliver: Callable[[ITask, Any], None]) -> None:
    match outcome:
        case Returned(value):
            deliver(task, value)
        case Raised(error, trace):
            task.errback(failureOf(outcome) if trace else caught(error))
        case _:
            text = (
                f"the executor gave {shortRepr(outcome)}, which is no outcome: install the same"
                " release of asynqueue where it makes calls"
            )
            task.errback(Failure(WorkerError(text)))


class CallsHere:
    """
    Makes calls for threads of this process.
    """

    def __init__(self) -> None:
        # The seconds of calls that have ended.
        self._ran: deque[float] = deque()

    def make(
        self, task: ITask, put: Callable[[Any], None]
    ) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        begun = partial(put, Begun(task)) if task.watched else None
        return self._run, (task, [None], begun)

    def isWithdrawn(self, executor: Executor, args: tuple[Any, ...]) -> bool:
        return _isFirst(args[1])

    def end(self, task: ITask, result: Any, deliver: Callable[[ITask, Any], None]) -> None:
        _end(task, result, deliver)

    def _run(
        self, task: ITask, claim: list[None], begun: Callable[[], None] | None
    ) -> Returned | Raised:
        """
        Make the call of a task. Runs in a thread.

        @param claim: is empty if the call is not to be made: the executor has refused it, and
            kept it. Who takes out what is in it decides.
        """
        # One that has been cancelled by now is only handed back.
        if task.ended or not _isFirst(claim):
            return Returned(None)
        if begun is not None:
            begun()
        f, args, kw = task.callTuple
        start = perf_counter()
        try:
            value = task.context.run(f, *args, **kw)
            outcome: Returned | Raised = Returned(task.context.run(settled, value))
        except BaseException as error:
            # The seam to user code: an exit or an interrupt is an outcome.
            outcome = Raised(presentable(error), "")
        self._ran.append(perf_counter() - start)
        return outcome

    def measure(self, measured: Callable[[int, float], None]) -> None:
        ran = self._ran
        if ran:
            take = ran.popleft
            seconds = [take() for _ in range(len(ran))]
            measured(len(seconds), sum(seconds))

    def unhurried(self, ahead: int) -> int:
        """
        Have the reactor look at once: a thread is waiting for what an iterator is to do next.
        """
        return 0


def _isFirst(claim: list[None]) -> bool:
    """
    Tell whether nobody has asked this before. May be called in any thread.
    """
    try:
        claim.pop()
    except IndexError:
        return False
    return True


class CallsElsewhere:
    """
    Makes calls for other processes, pickled.
    """

    def __init__(self) -> None:
        # Calls of this one are unlike those of all others, also elsewhere.
        self._mark = uuid4().hex
        self._numbers = count()
        self._ended = 0

    def make(
        self, task: ITask, put: Callable[[Any], None]
    ) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        # Nobody hears from another process that a call begins.
        f, args, kw = task.callTuple
        number = f"{self._mark}-{next(self._numbers)}"
        kept = keptElsewhere(f)
        if kept is f and type(f) is FunctionType and not kw and PLAIN.issuperset(map(type, args)):
            # Nothing of that needs a closer look, nor a pickle of its own.
            return performNamed, (f.__module__, f.__qualname__, args, number)
        try:
            packed = dumps((kept, args, kw), ELSEWHERE)
        except Unsendable as error:
            raise located(error, args, kw, lambda arg: dumps(arg, ELSEWHERE)) from None
        return perform, (packed, number)

    def isWithdrawn(self, executor: Executor, args: tuple[Any, ...]) -> bool:
        """
        Take a call back that a process pool of the standard library or of loky has noted before it
        started a process: it would make the call when it has one, and tells of it by no public
        name. No other call has the same last argument.
        """
        for item in list(getattr(executor, "_pending_work_items", {}).values()):
            if item.args and item.args[-1] == args[-1]:
                cancelled: bool = item.future.cancel()
                return cancelled
        return True

    def end(self, task: ITask, result: Any, deliver: Callable[[ITask, Any], None]) -> None:
        self._ended += 1
        if type(result) is tuple and len(result) == 1:
            # It is surely no iterator.
            task.callback(result[0])
            return
        try:
            outcome = pickle.loads(result) if isinstance(result, bytes) else result
        except BaseException as unreadable:
            # Somebody's objects.
            task.errback(caught(unreadable))
        else:
            _end(task, outcome, deliver)

    def measure(self, measured: Callable[[int, float], None]) -> None:
        ended, self._ended = self._ended, 0
        if ended:
            measured(ended, 0.0)

    def unhurried(self, ahead: int) -> int:
        """
        Have the reactor look when half of what is ahead has ended: so no worker rests.
        """
        return max(0, ahead // 2)
