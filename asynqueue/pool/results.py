"""
What comes back from the children of a pool: who reads it, and what callers hold.
"""

from __future__ import annotations

import select
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from threading import Event
from typing import Any, Protocol

from twisted.logger import Logger

from asynqueue.framing import Frame
from asynqueue.pool.hubs import Hub, hubOf
from asynqueue.pool.protocol import Kind

_log = Logger()

# The seconds between looks at whether workers have exited, where nothing tells.
_JOIN_SECONDS = 0.1


class OutputQueue(Protocol):
    """
    What comes from one process.
    """

    def receive(self) -> Sequence[Frame]:
        """
        Take what is there, without blocking; what has come of a message that is not
        complete is kept for the next time.

        @return: the messages. They have been dealt with.
        @raise EOFError: there will be no more.
        @raise OSError: likewise.
        """


class ResultHandler:
    """
    Reads the output queues of a pool's processes, driven by any event loop, or by
    whoever stops the pool.

    @ivar fileno_to_outq: the output queue of a process, by its descriptor.
    """

    def __init__(
        self,
        *args: Any,
        fileno_to_outq: Mapping[int, OutputQueue],
        on_process_alive: Callable[[int], None],
        join_exited_workers: Callable[[], bool] = lambda: True,
        **kwargs: Any,
    ) -> None:
        """
        @param args: not used here; for those who override more.
        @param fileno_to_outq: is looked into at every event: processes may come and
            go.
        @param on_process_alive: is called with the process ID when a process says
            that it is up.
        @param join_exited_workers: is called when queues are read to their ends; it
            reaps processes that have exited, and tells whether all is in.
        """
        self.fileno_to_outq = fileno_to_outq
        self._alive = on_process_alive
        self._joinExited = join_exited_workers
        self._hub: Hub | None = None

    def register_with_event_loop(self, hub: Any) -> None:
        """
        Have a loop call L{handle_event} when there is something to read.

        @param hub: a Twisted reactor, an asyncio loop, or any object with
            C{add_reader(fd, callback, *args)} and C{remove_reader(fd)}.
        @raise ImplementationError: it is none of these.
        """
        self.attach(hubOf(hub))

    def attach(self, hub: Hub) -> None:
        """
        The same, for a hub of the pool's own.
        """
        self._hub = hub
        for fileno in list(self.fileno_to_outq):
            self.watch(fileno)

    def watch(self, fileno: int) -> None:
        """
        A process has come: read its queue, too.
        """
        if self._hub is not None:
            self._hub.watch(fileno, partial(self.handle_event, fileno))

    def handle_event(self, fileno: int) -> None:
        """
        A queue is readable. Nothing but the lack of a loop is raised.

        @raise RuntimeError: no loop is registered.
        """
        if self._hub is None:
            raise RuntimeError("not registered with an event loop: call register_with_event_loop")
        outq = self.fileno_to_outq.get(fileno)
        # At its end the descriptor may have gone to another process already.
        if not self._read(fileno) and self.fileno_to_outq.get(fileno) is outq:
            self._hub.unwatch(fileno)

    def on_stop_not_started(self) -> None:
        """
        Read all queues to their ends here, where neither a thread nor a loop does
        it, and reap the workers that exit, until all is in.
        """
        open_ = set(self.fileno_to_outq)
        while open_ and not self._joinExited():
            open_ &= set(self.fileno_to_outq)
            poller = select.poll()
            for fileno in open_:
                poller.register(fileno, select.POLLIN)
            for fileno, _ in poller.poll(_JOIN_SECONDS * 1000):
                if not self._read(fileno):
                    open_.discard(fileno)
                    if self._hub is not None:
                        self._hub.unwatch(fileno)
        self._joinExited()

    def _read(self, fileno: int) -> bool:
        """
        @return: whether there may be more.
        """
        outq = self.fileno_to_outq.get(fileno)
        if outq is None:
            # Its process is gone.
            return False
        try:
            frames = outq.receive()
        except (EOFError, OSError):
            return False
        except Exception:
            # The seam to other people's queues: an event loop calls this, and can do
            # nothing about it.
            _log.failure("reading what a process has sent")
            return True
        for frame in frames:
            if frame[0] == Kind.UP:
                try:
                    self._alive(frame[1])
                except Exception:
                    # The seam to other people's callbacks, as above.
                    _log.failure("telling that a process is up")
        return True


class AsyncResult:
    """
    What becomes of one call of a pool.
    """

    def __init__(self, wait: Callable[[AsyncResult, float | None], None]) -> None:
        """
        @param wait: does or lets do what is needed until the result is here, for as
            many seconds at the most.
        """
        self._wait = wait
        self._event = Event()
        self._value: Any = None
        self._error: BaseException | None = None

    def ready(self) -> bool:
        """
        Whether the call has ended.
        """
        return self._event.is_set()

    def successful(self) -> bool:
        """
        Whether it returned.

        @raise ValueError: it has not ended.
        """
        if not self.ready():
            raise ValueError("the call has not ended: see ready()")
        return self._error is None

    def wait(self, timeout: float | None = None) -> bool:
        """
        Wait until it has ended, for so many seconds at the most.

        @return: whether it has.
        """
        if not self.ready():
            self._wait(self, timeout)
        return self.ready()

    def get(self, timeout: float | None = None) -> Any:
        """
        Wait for the value.

        @raise TimeoutError: it has not ended within so many seconds.
        @raise BaseException: what the call raised, or what became of it.
        """
        if not self.wait(timeout):
            raise TimeoutError(f"no result within {timeout:g} s")
        if self._error is not None:
            raise self._error
        return self._value

    def block(self, timeout: float | None) -> None:
        """
        Wait for another thread to end it.
        """
        self._event.wait(timeout)

    def succeed(self, value: Any) -> None:
        """
        The call returned.
        """
        self._value = value
        self._event.set()

    def fail(self, error: BaseException) -> None:
        """
        The call raised, or was lost.
        """
        self._error = error
        self._event.set()
