"""
What an executor is given to call, and what may be known of that: in threads of this process,
and elsewhere.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor
from functools import partial
from itertools import count
from typing import Any, Protocol
from uuid import uuid4

from asynqueue.codec import dumps, located
from asynqueue.errors import Unsendable
from asynqueue.interfaces import ITask
from asynqueue.outcome import Raised, Returned, perform, presentable, settled
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


class CallsHere:
    """
    Makes calls for threads of this process.
    """

    def make(
        self, task: ITask, put: Callable[[Any], None]
    ) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return _runHere, (task, [None], partial(put, Begun(task)) if task.watched else None)

    def isWithdrawn(self, executor: Executor, args: tuple[Any, ...]) -> bool:
        return _isFirst(args[1])


def _isFirst(claim: list[None]) -> bool:
    """
    Tell whether nobody has asked this before. May be called in any thread.
    """
    try:
        claim.pop()
    except IndexError:
        return False
    return True


def _runHere(task: ITask, claim: list[None], begun: Callable[[], None] | None) -> Returned | Raised:
    """
    Make the call of a task in a thread of this process.

    @param claim: is empty if the call is not to be made: the executor has refused it, and
        kept it. Who takes out what is in it decides.
    """
    if not _isFirst(claim):
        return Returned(None)
    if begun is not None:
        begun()
    f, args, kw = task.callTuple
    try:
        value = task.context.run(f, *args, **kw)
        outcome: Returned | Raised = Returned(task.context.run(settled, value))
    except BaseException as error:
        # The seam to user code: an exit or an interrupt is an outcome.
        outcome = Raised(presentable(error), "")
    return outcome


class CallsElsewhere:
    """
    Makes calls for other processes, pickled.
    """

    def __init__(self) -> None:
        # Calls of this one are unlike those of all others, also elsewhere.
        self._mark = uuid4().hex
        self._numbers = count()

    def make(
        self, task: ITask, put: Callable[[Any], None]
    ) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        # Nobody hears from another process that a call begins.
        f, args, kw = task.callTuple
        try:
            packed = dumps((keptElsewhere(f), args, kw), ELSEWHERE)
        except Unsendable as error:
            raise located(error, args, kw, lambda arg: dumps(arg, ELSEWHERE)) from None
        return perform, (packed, f"{self._mark}-{next(self._numbers)}")

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


def outcomeOf(result: Any) -> Any:
    """
    Return the outcome that such a call gave.

    @raise BaseException: unpickling it runs other people's code, and may raise anything.
    """
    return pickle.loads(result) if isinstance(result, bytes) else result
