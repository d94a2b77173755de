"""
What comes back from the children of a pool: who reads it, and what callers hold.
"""

from __future__ import annotations

import fcntl
import select
import struct
import termios
from collections.abc import Callable, Iterable, Mapping
from threading import TIMEOUT_MAX, Event
from typing import Any, Protocol

from asynqueue.framing import Frame
from asynqueue.loops.adapters import LoopAdapter, adapterOf
from asynqueue.outcome import raisable
from asynqueue.processes.guard import harmless, report
from asynqueue.processes.protocol import Kind

# The seconds between looks at whether workers have exited, where nothing tells.
_JOIN_SECONDS = 0.1


class OutputQueue(Protocol):
    """
    What comes from one process.
    """

    def receive(self) -> Iterable[Frame] | None:
        """
        Read what is there, without blocking; keep what has come of a message that is
        not complete for the next call.

        @return: the messages, which have been dealt with; C{None} or nothing if there
            are none now.
        @raise EOFError: there will be no more.
        @raise OSError: there will be no more, because reading failed.
        """


class ResultHandler:
    """
    Reads the output queues of a pool's processes, driven by any event loop, or by
    the thread that stops the pool.

    @ivar fileno_to_outq: the output queue of a process, by its descriptor.
    @ivar on_process_alive: is called with the process ID when a process says that it is
        up.
    """

    def __init__(
        self,
        *args: Any,
        fileno_to_outq: Mapping[int, OutputQueue],
        on_process_alive: Callable[[int], Any],
        join_exited_workers: Callable[[], bool] = lambda: True,
        **kwargs: Any,
    ) -> None:
        """
        @param args: not used here; for those who override more.
        @param fileno_to_outq: is looked into at every event: processes may come and
            go.
        @param on_process_alive: is called with the process ID when a process says
            that it is up.
        @param join_exited_workers: is called by L{on_stop_not_started}; it reaps
            processes that have exited, and tells whether all have. By default all have.
        """
        self.fileno_to_outq = fileno_to_outq
        self.on_process_alive = on_process_alive
        self._joinExited = join_exited_workers
        self._loop: LoopAdapter | None = None

    def register_with_event_loop(self, hub: Any) -> None:
        """
        Have a loop call L{handle_event} when there is something to read.

        @param hub: a Twisted reactor, an asyncio loop, or any object with
            C{add_reader(fd, callback, *args)} and C{remove_reader(fd)}.
        @raise ImplementationError: it is none of these.
        """
        self.attach(adapterOf(hub))

    def attach(self, loop: LoopAdapter) -> None:
        """
        Have the loop of the pool call L{handle_event}.
        """
        self._loop = loop
        for fileno in list(self.fileno_to_outq):
            self.watch(fileno)

    def watch(self, fileno: int) -> None:
        """
        Have the loop, if there is one, read the queue of a process that has come.
        """
        if self._loop is not None:
            self._loop.watch(fileno, self.handle_event, fileno)

    def handle_event(self, fileno: int) -> None:
        """
        Read a queue that is readable, and have the loop watch it no more when it is at
        its end, or is not known. An event loop may hold this method, and call it with
        the descriptor. It raises nothing but the lack of a loop.

        @raise RuntimeError: no loop is registered.
        """
        if self._loop is None:
            raise RuntimeError(
                "this handler is not registered with an event loop: call register_with_event_loop"
            )
        outq = self.fileno_to_outq.get(fileno)
        # At its end the descriptor may have gone to another process already.
        if self._read(fileno) is None and self.fileno_to_outq.get(fileno) is outq:
            self._unwatch(fileno)

    def on_stop_not_started(self) -> None:
        """
        Read all queues until they are empty here, where neither a thread nor a loop
        does it, and reap the workers that exit, until all is in.
        """
        ended: dict[int, OutputQueue] = {}
        while True:
            # In this order: what a worker has sent before its exit is there to be read.
            hasAll = self._joinExited()
            for fileno, outq in list(self.fileno_to_outq.items()):
                if ended.get(fileno) is not outq and self._readAll(fileno) is None:
                    ended[fileno] = outq
                    self._unwatch(fileno)
            left = [
                fileno
                for fileno, outq in self.fileno_to_outq.items()
                if ended.get(fileno) is not outq
            ]
            if hasAll or not left:
                break
            poller = select.poll()
            for fileno in left:
                poller.register(fileno, select.POLLIN)
            poller.poll(_JOIN_SECONDS * 1000)
        self._joinExited()

    def _readAll(self, fileno: int) -> int | None:
        """
        Read a queue until nothing is there.

        @return: 0, or C{None} if there will be no more.
        """
        left = _unread(fileno)
        while (count := self._read(fileno)) is not None:
            before, left = left, _unread(fileno)
            # A part of a message may have been read, and the rest is still there.
            if not count and left >= before:
                return 0
        return None

    def _read(self, fileno: int) -> int | None:
        """
        Read what is there.

        @return: how many messages came, or C{None} if there will be no more.
        """
        outq = self.fileno_to_outq.get(fileno)
        if outq is None:
            # Its process is gone.
            return None
        count = 0
        try:
            for frame in outq.receive() or ():
                count += 1
                if frame[0] == Kind.UP:
                    harmless("telling that a process is up", self.on_process_alive, frame[1])
        except (EOFError, OSError):
            return None
        except BaseException as error:
            # The seam to other people's queues: an event loop calls this, and can do
            # nothing about it.
            report(error, "reading what a process has sent")
        return count

    def _unwatch(self, fileno: int) -> None:
        if self._loop is not None:
            # Other people's loops may not watch it.
            harmless("ending the watch of what a process sends", self._loop.unwatch, fileno)


def _unread(fileno: int) -> int:
    """
    Tell how many bytes are there to be read, 0 if the descriptor does not tell.
    """
    try:
        (count,) = struct.unpack("i", fcntl.ioctl(fileno, termios.FIONREAD, bytes(4)))
    except (OSError, ValueError):
        return 0
    return int(count)


class AsyncResult:
    """
    What becomes of one call of a pool.
    """

    def __init__(self, wait: Callable[[AsyncResult, float | None], None]) -> None:
        """
        @param wait: does or lets do what is needed until the result is here, or until the
            given seconds are over.
        """
        self._wait = wait
        self._event = Event()
        self._value: Any = None
        self._error: BaseException | None = None

    def ready(self) -> bool:
        """
        Tell whether the call has ended.
        """
        return self._event.is_set()

    def successful(self) -> bool:
        """
        Tell whether it returned.

        @raise ValueError: it has not ended.
        """
        if not self.ready():
            raise ValueError("the call has not ended: ask ready() first")
        return self._error is None

    def wait(self, timeout: float | None = None) -> bool:
        """
        Wait until it has ended, or C{timeout} seconds are over.

        @return: whether it has.
        @raise ForkError: this is a fork of the process in which the call was made.
        """
        if not self.ready():
            self._wait(self, timeout)
        return self.ready()

    def get(self, timeout: float | None = None) -> Any:
        """
        Wait for the value.

        @raise TimeoutError: it has not ended within C{timeout} seconds.
        @raise ForkError: this is a fork of the process in which the call was made.
        @raise RuntimeError: the call raised what would end more than this call: its cause is
            that. See L{raisable<asynqueue.outcome.raisable>}.
        @raise BaseException: what the call raised, or what became of it.
        """
        if not self.wait(timeout):
            raise TimeoutError(
                f"no result came within {timeout:g} s: give a longer timeout, or call get() again"
            )
        if self._error is not None:
            raise raisable(self._error, "a call", exits=True)
        return self._value

    def block(self, timeout: float | None) -> None:
        """
        Wait for another thread to end it.
        """
        self._event.wait(None if timeout is None else min(timeout, TIMEOUT_MAX))

    def succeed(self, value: Any) -> None:
        """
        Take what the call returned. What becomes of it later changes nothing.
        """
        if self.ready():
            return
        self._value = value
        self._event.set()

    def fail(self, error: BaseException) -> None:
        """
        Take what the call raised, or that it was lost. What becomes of it later changes nothing.
        """
        if self.ready():
            return
        self._error = error
        self._event.set()
