"""
What those who drive child processes want of an event loop, and how each kind gives it.

An event loop is a Twisted reactor, an asyncio loop, or any object with C{add_reader(fd,
callback, *args)} and C{remove_reader(fd)}. What such an object lacks (writability,
timers) is made of readable descriptors.

An asyncio loop makes each call with the context variables of the code that asked for it,
and keeps them. What is watched for a pool serves the calls of everybody: so loops are asked
in an empty context.
"""

from __future__ import annotations

import asyncio
import os
import select
from collections.abc import Callable
from contextvars import Context
from functools import partial
from threading import TIMEOUT_MAX, Condition, Thread
from time import monotonic
from typing import Any, Protocol

from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor, IWriteDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from asynqueue.descriptors import abandon, holdStandard
from asynqueue.errors import ImplementationError
from asynqueue.reactors import loopIsClosed
from asynqueue.renewal import renewInForks
from asynqueue.timers import later


class Timer(Protocol):
    """
    A call that is to be made later.
    """

    def cancel(self) -> Any:
        """
        Do not make it. To be called before it was made only.
        """


class LoopAdapter(Protocol):
    """
    An event loop. All callbacks are called in its thread, and all methods from it. No
    callback has context variables of the code that asked for it.
    """

    @property
    def isClosed(self) -> bool:
        """
        Whether the loop was closed: nothing can be asked of it any more.
        """

    def watch(self, descriptor: int, readable: Callable[..., None], *args: Any) -> None:
        """
        Call C{readable(*args)} whenever there is something to read, or an end. Asking again
        changes what is called.
        """

    def unwatch(self, descriptor: int) -> None:
        """
        Do so no more. Called before the descriptor is closed; it may be called
        again.
        """

    def letGo(self, descriptor: int) -> None:
        """
        Watch the descriptor no more, in a fork, without a change to that of the parent, whose loop
        may have the same poller in the kernel. What it stands for is closed.
        """

    def awaitWritable(self, descriptor: int, writable: Callable[[], None]) -> None:
        """
        Call C{writable} once, when something can be written. Asking again before
        changes nothing.
        """

    def callLater(self, seconds: float, f: Callable[[], None]) -> Timer:
        """
        Call C{f} after a time; with 0, soon, but not within this call.
        """


def adapterOf(loop: Any) -> LoopAdapter:
    """
    Return an event loop as an adapter: itself, if it is one, or wrapped.

    @raise ImplementationError: the loop has not what is needed.
    """
    if IReactorFDSet.providedBy(loop):
        return ReactorAdapter(loop)
    if callable(getattr(loop, "add_reader", None)) and callable(
        getattr(loop, "remove_reader", None)
    ):
        return AsyncioAdapter(loop)
    raise ImplementationError(
        f"{loop!r} is no event loop for a pool: it must be a Twisted reactor that watches"
        " descriptors, or have add_reader and remove_reader"
    )


@implementer(IReadDescriptor, IWriteDescriptor)
class _Descriptor:
    """
    A descriptor for a reactor.
    """

    def __init__(self, descriptor: int, readable: Callable[[], None]) -> None:
        self._descriptor = descriptor
        # Reactors call this one by its name; so it costs nothing on the way.
        self.doRead = readable
        self.writable: Callable[[], None] | None = None
        self.reactor: Any = None

    def fileno(self) -> int:
        """
        Return the descriptor.
        """
        return self._descriptor

    def doWrite(self) -> None:
        """
        Say, once, that it is writable.
        """
        writable, self.writable = self.writable, None
        self.reactor.removeWriter(self)
        if writable is not None:
            writable()

    def connectionLost(self, reason: Failure) -> None:
        """
        Say that the descriptor is at its end, as the reactor found: who reads it finds out why.
        """
        self.doRead()

    def logPrefix(self) -> str:
        """
        Return what log messages begin with.
        """
        return "asynqueue.pool"


class ReactorAdapter:
    """
    A Twisted reactor. That over asyncio is an asyncio loop, as far as context variables
    are concerned.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._descriptors: dict[int, _Descriptor] = {}
        renewInForks(reactor)

    @property
    def isClosed(self) -> bool:
        return loopIsClosed(self._reactor)

    def watch(self, descriptor: int, readable: Callable[..., None], *args: Any) -> None:
        if args:
            readable = partial(readable, *args)
        watched = self._descriptors.get(descriptor)
        if watched is not None:
            # A second object with this descriptor would only confuse the reactor.
            watched.doRead = readable
        else:
            watched = self._descriptors[descriptor] = _Descriptor(descriptor, readable)
            watched.reactor = self._reactor
        # Again, too: somebody may have removed all readers, as trial does after tests.
        Context().run(self._reactor.addReader, watched)

    def unwatch(self, descriptor: int) -> None:
        watched = self._descriptors.pop(descriptor, None)
        if watched is not None:
            self._reactor.removeReader(watched)
            self._reactor.removeWriter(watched)

    def letGo(self, descriptor: int) -> None:
        # The reactor has a poller of its own here.
        self.unwatch(descriptor)
        abandon(descriptor)

    def awaitWritable(self, descriptor: int, writable: Callable[[], None]) -> None:
        watched = self._descriptors.get(descriptor)
        if watched is None:
            # Who writes there reads elsewhere, and sees an end there.
            watched = self._descriptors[descriptor] = _Descriptor(descriptor, lambda: None)
            watched.reactor = self._reactor
        if watched.writable is None:
            watched.writable = writable
            Context().run(self._reactor.addWriter, watched)

    def callLater(self, seconds: float, f: Callable[[], None]) -> Timer:
        return later(self._reactor, seconds, f)


class AsyncioAdapter:
    """
    An asyncio loop, or an object that is like one.
    """

    def __init__(self, loop: Any, system: Any = select) -> None:
        """
        Adapt a loop.

        @param system: has what the system can wait with, as the module C{select} has.
        """
        self._loop = loop
        self._system = system
        # Other loops that have add_writer may take one watch for each descriptor.
        self._watchesTwice = isinstance(loop, asyncio.AbstractEventLoop)
        self._reading: set[int] = set()
        self._writing: dict[int, Any] = {}
        self._timers: Timers | None = None
        if self._watchesTwice:
            renewInForks(loop)

    @property
    def isClosed(self) -> bool:
        return self._watchesTwice and bool(self._loop.is_closed())

    def watch(self, descriptor: int, readable: Callable[..., None], *args: Any) -> None:
        if descriptor in self._reading:
            # Not every loop bears to be asked for the same again.
            self._loop.remove_reader(descriptor)
        self._reading.add(descriptor)
        Context().run(self._loop.add_reader, descriptor, readable, *args)

    def unwatch(self, descriptor: int) -> None:
        isMine = descriptor in self._reading
        self._reading.discard(descriptor)
        try:
            self._loop.remove_reader(descriptor)
        except Exception:
            # The seam to other people's loops: not every one bears to be told of what
            # it does not watch. Somebody else may have asked for it, so it is told.
            if isMine:
                raise
        self._stopWriting(descriptor)

    def letGo(self, descriptor: int) -> None:
        if self._watchesTwice:
            # The loop has a poller of its own here.
            self.unwatch(descriptor)
            abandon(descriptor)
            return
        abandon(descriptor)
        try:
            self.unwatch(descriptor)
        except Exception:
            # The seam to other people's loops: they may complain that the system does not
            # know it, or that they are closed.
            pass

    def awaitWritable(self, descriptor: int, writable: Callable[[], None]) -> None:
        if descriptor in self._writing:
            return

        def once() -> None:
            self._stopWriting(descriptor)
            writable()

        if self._watchesTwice:
            self._writing[descriptor] = None
            Context().run(self._loop.add_writer, descriptor, once)
        else:
            self._writing[descriptor] = waiting = _writabilityOf(descriptor, self._system)
            Context().run(self._loop.add_reader, waiting.fileno(), once)

    def callLater(self, seconds: float, f: Callable[[], None]) -> Timer:
        if hasattr(self._loop, "call_later"):
            timer: Timer = Context().run(self._loop.call_later, seconds, f)
            return timer
        if self._timers is None:
            self._timers = Timers(self._loop)
        return self._timers.callLater(seconds, f)

    def _stopWriting(self, descriptor: int) -> None:
        if descriptor not in self._writing:
            return
        waiting = self._writing.pop(descriptor)
        if waiting is None:
            self._loop.remove_writer(descriptor)
        else:
            self._loop.remove_reader(waiting.fileno())
            waiting.close()


def _writabilityOf(descriptor: int, system: Any) -> Any:
    """
    Return an object whose descriptor is readable when this one is writable.
    """
    if hasattr(system, "epoll"):
        poller = system.epoll()
        poller.register(descriptor, system.EPOLLOUT)
        return poller
    queue = system.kqueue()
    queue.control([system.kevent(descriptor, system.KQ_FILTER_WRITE, system.KQ_EV_ADD)], 0)
    return queue


class _Timer:
    """
    A call to be made by L{Timers}.
    """

    def __init__(self, timers: Timers, due: float, f: Callable[[], None]) -> None:
        self._timers = timers
        self.due = due
        self.f = f

    def cancel(self) -> None:
        """
        Do not make it.
        """
        self._timers.forget(self)


class Timers:
    """
    Timers for a loop that has none: a thread sleeps until one is due, and writes
    to a pipe that the loop reads. While there are none there is no thread.
    """

    def __init__(self, loop: Any) -> None:
        self._loop = loop
        self._timers: list[_Timer] = []
        self._changed = Condition()
        self._pipe: tuple[int, int] | None = None

    def callLater(self, seconds: float, f: Callable[[], None]) -> _Timer:
        """
        Call C{f} in the loop after a time.
        """
        timer = _Timer(self, monotonic() + seconds, f)
        with self._changed:
            self._timers.append(timer)
            if self._pipe is None:
                holdStandard()
                pipe = self._pipe = os.pipe()
                os.set_blocking(pipe[0], False)
                Context().run(self._loop.add_reader, pipe[0], self._run)
                name = "asynqueue timers"
                Thread(target=self._wait, args=(pipe,), name=name, daemon=True).start()
            self._changed.notify()
        return timer

    def forget(self, timer: _Timer) -> None:
        """
        Drop a timer.
        """
        self._take(timer)
        with self._changed:
            self._changed.notify()
            self._rest()

    def _run(self) -> None:
        """
        Make the calls that are due. Called by the loop.
        """
        with self._changed:
            if self._pipe is None:
                # The loop had begun to call this before it was told not to.
                return
            try:
                os.read(self._pipe[0], 64)
            except BlockingIOError:
                # The same, and there are timers again.
                pass
            now = monotonic()
            due = sorted((t for t in self._timers if t.due <= now), key=lambda t: t.due)
        try:
            for timer in due:
                # One of those before may have cancelled it.
                if self._take(timer):
                    timer.f()
        finally:
            with self._changed:
                self._changed.notify()
                self._rest()

    def _take(self, timer: _Timer) -> bool:
        """
        @return: whether it was still there.
        """
        with self._changed:
            if timer not in self._timers:
                return False
            self._timers.remove(timer)
            return True

    def _rest(self) -> None:
        """
        With no timer left, the thread ends and closes the pipe.
        """
        if not self._timers and self._pipe is not None:
            pipe, self._pipe = self._pipe, None
            self._loop.remove_reader(pipe[0])
            os.close(pipe[0])
            os.close(pipe[1])
            self._changed.notify()

    def _wait(self, pipe: tuple[int, int]) -> None:
        """
        Run in the thread, as long as this is the pipe.
        """
        with self._changed:
            told = False
            while self._pipe is pipe:
                if told or not self._timers:
                    self._changed.wait()
                    told = False
                    continue
                left = min(timer.due for timer in self._timers) - monotonic()
                if left > 0:
                    self._changed.wait(min(left, TIMEOUT_MAX))
                else:
                    os.write(pipe[1], b"!")
                    told = True
