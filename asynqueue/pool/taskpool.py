"""
A pool of processes as other programs know it: with callbacks, and with results that
can be waited for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import Enum
from typing import Any
from warnings import warn
from weakref import finalize

from asynqueue.checks import wholeNumber
from asynqueue.errors import ForkError, QueueRunError
from asynqueue.forks import tellForks
from asynqueue.outcome import describeCall
from asynqueue.pool.eventpool import EventPool
from asynqueue.pool.results import AsyncResult
from asynqueue.pool.threadpool import ThreadedPool


class _State(Enum):
    NEW = "not started"
    RUN = "running"
    CLOSE = "takes no new calls"
    TERMINATE = "is gone"


class TaskPool:
    """
    A number of processes that make calls.

    With C{threads=True} (the default) a thread of its own drives it, and callbacks
    are called in that thread; with C{threads=False} an event loop does, which
    L{register_with_event_loop} names. Without such a loop calls are sent, and results and
    callbacks come, only while somebody waits: in C{get()} or C{wait()} of a result,
    L{restart}, L{flush} or L{stop}.

    @cvar Pool: what drives it by an event loop.
    @cvar BlockingPool: what drives it by a thread.
    @cvar uses_semaphore: that a process gets a call when it has room for it.
    @cvar write_stats: what C{info} says of writes; a callable, or C{None}.
    @ivar limit: how many processes there are to be, as it was given.
    @ivar options: the options, as they were given.
    """

    Pool: type[EventPool] = EventPool
    BlockingPool: type[EventPool] = ThreadedPool
    uses_semaphore = True
    write_stats: Callable[[], Any] | None = None

    def __init__(self, limit: int | None = None, **options: Any) -> None:
        """
        @param limit: how many processes; C{None}: as many as this process may use cores.
        @param options: C{threads}, and the keywords of L{EventPool
            <asynqueue.pool.eventpool.EventPool>}: C{initializer}, C{initargs},
            C{maxtasksperchild}, C{max_memory_per_child} (kB), C{timeout} and
            C{soft_timeout} (seconds), C{proc_alive_timeout}, C{on_process_exit},
            C{putlocks}.
        @raise ValueError: C{limit} is out of its range.
        """
        self.limit = None if limit is None else wholeNumber(limit, "limit")
        self.options = options
        self._threads = bool(options.get("threads", True))
        self._state = _State.NEW
        self._pool: EventPool | None = None
        # Ends the processes of one that was dropped.
        self._dropped: finalize[[EventPool], TaskPool] | None = None
        # Whether the parent of this process, which is a fork, has one.
        self._isParents = False
        tellForks(self)

    # Its life

    def start(self) -> None:
        """
        Start the processes.
        """
        if self._state is not _State.RUN:
            # One that was only closed may still end its calls.
            self.on_stop()
            self.on_start()
            self._state = _State.RUN

    def stop(self) -> None:
        """
        End all calls that were made, and let the processes go.
        """
        self.on_stop()
        self._state = _State.TERMINATE

    def terminate(self) -> None:
        """
        End the processes at once.
        """
        self._state = _State.TERMINATE
        self.on_terminate()

    def close(self) -> None:
        """
        Take no more calls.
        """
        if self._state is _State.RUN:
            self._state = _State.CLOSE
        self.on_close()

    def on_start(self) -> None:
        """
        Do what L{start} does.
        """
        options = {key: value for key, value in self.options.items() if key != "threads"}
        kind = self.BlockingPool if self._threads else self.Pool
        self._pool = kind(self.limit, **options)

        self._dropped = finalize(self, _leave, self._pool)
        # At the end of the program they end with it.
        self._dropped.atexit = False

    def on_stop(self) -> None:
        """
        Do what L{stop} does: take no more calls, finish those that were made, and wait for the ends
        of the processes. Again, it does nothing.
        """
        pool = self._pool
        if pool is not None:
            pool.leaveLoop()
            pool.close()
            pool.join()
            # Not before: who is interrupted here may still want to terminate it.
            self._forget()

    def on_terminate(self) -> None:
        """
        Do what L{terminate} does. Again, it does nothing.
        """
        pool = self._pool
        if pool is not None:
            pool.leaveLoop()
            pool.terminate()
            pool.join()
            self._forget()

    def on_close(self) -> None:
        """
        Do what L{close} does.
        """
        if self._pool is not None:
            self._pool.close()

    def did_start_ok(self) -> bool:
        """
        Tell whether it runs, and no process has died as it started.
        """
        return self._pool is not None and self._pool.did_start_ok()

    def register_with_event_loop(self, loop: Any) -> None:
        """
        Have an event loop drive it.

        @param loop: a Twisted reactor, an asyncio loop, or any object with
            C{add_reader(fd, callback, *args)} and C{remove_reader(fd)}.
        @raise QueueRunError: it is not started.
        """
        self._running("register_with_event_loop()").register_with_event_loop(loop)

    def restart(self) -> None:
        """
        Replace all processes by fresh ones, and wait until one of these has made a
        call.
        """
        self._running("restart()").restart().get()

    def forked(self) -> None:
        """
        Take the pool for one that is not started: the processes are the parent's.
        """
        if self._pool is not None:
            self._forget()
            self._state = _State.NEW
            self._isParents = True

    # Calls

    def apply_async(
        self,
        target: Callable[..., Any],
        args: Iterable[Any] | None = None,
        kwargs: dict[str, Any] | None = None,
        **options: Any,
    ) -> AsyncResult:
        """
        Have a call made in one of the processes.

        @param options: C{callback(value)}, C{error_callback(exception)},
            C{accept_callback(pid, time)}, C{timeout_callback(soft, seconds)},
            C{soft_timeout} and C{timeout} in seconds.
        @return: what becomes of it. It may fail with what the call raised, or with
            L{WorkerLostError<asynqueue.pool.WorkerLostError>},
            L{TimeLimitExceeded<asynqueue.pool.TimeLimitExceeded>} or
            L{MaybeEncodingError<asynqueue.pool.MaybeEncodingError>}.
        @raise QueueRunError: it is not running.
        """
        pool = self._running(describeCall(target, tuple(args or ()), kwargs or {}))
        return pool.apply_async(target, args or (), kwargs, **options)

    def terminate_job(self, pid: int, signal: int | None = None) -> None:
        """
        Send a signal to the process that makes a call: SIGTERM, if nothing else is
        said.

        @raise ValueError: no process of this pool has this ID.
        """
        self._running("terminate_job()").terminate_job(pid, signal)

    # Its size

    @property
    def num_processes(self) -> int:
        """
        How many processes there are to be.
        """
        return 0 if self._pool is None else self._pool.size

    def grow(self, n: int = 1) -> None:
        """
        Have C{n} more processes.

        @raise ValueError: that is no whole number, or less than 0.
        """
        self._running("grow()").grow(n)

    def shrink(self, n: int = 1) -> None:
        """
        Have C{n} processes less.

        @raise ValueError: that is no whole number, or less than 0, or none would be left.
        """
        self._running("shrink()").shrink(n)

    def maintain_pool(self) -> None:
        """
        Replace processes that are gone. This happens by itself; it does no harm.
        """
        if self._pool is not None:
            self._pool.maintain()

    def flush(self) -> None:
        """
        Send at once what waits to be sent.
        """
        if self._pool is not None:
            self._pool.flush()

    @property
    def active(self) -> bool:
        """
        Whether it takes calls.
        """
        return self._state is _State.RUN

    @property
    def info(self) -> dict[str, Any]:
        """
        Return the state of the pool: what C{json.dumps} takes.
        """
        options = self.options
        return {
            "max-concurrency": self.num_processes or self.limit,
            "processes": [] if self._pool is None else self._pool.pids(),
            "max-tasks-per-child": options.get("maxtasksperchild") or "N/A",
            "put-guarded-by-semaphore": bool(options.get("putlocks", True)),
            "timeouts": (options.get("soft_timeout") or 0, options.get("timeout") or 0),
            "writes": "N/A" if self.write_stats is None else self.write_stats(),
        }

    def _forget(self) -> None:
        self._pool = None
        if self._dropped is not None:
            self._dropped.detach()

    def _running(self, what: str) -> EventPool:
        if self._pool is None:
            raise ForkError(what, "pool") if self._isParents else QueueRunError(what)
        return self._pool


def _leave(pool: EventPool) -> None:
    """
    Let the processes of a pool go that was dropped, when they have ended their calls.
    """
    then = (
        "its processes end when its calls have ended"
        if pool.isDriven
        else "no event loop drives it, so its processes are killed when nobody has a result of it"
        " that he may wait for"
    )
    pool.leave()
    warn(f"a TaskPool was dropped without stop(): {then}", ResourceWarning, stacklevel=2)
