"""
Drive what is watched and timed, by an event loop or by those who call.

Without one, somebody calls L{OwnLoop.turn}: a thread, again and again, or a
caller who waits for a result. With one, the loop does it all.
"""

from __future__ import annotations

import os
import select
from collections import deque
from collections.abc import Callable
from functools import partial
from threading import RLock
from time import monotonic
from typing import Any

from asynqueue.descriptors import holdStandard
from asynqueue.loops.adapters import LoopAdapter, Timer

# No wait of the system may be much longer, in seconds: a longer one is several turns.
_LONGEST = 86_400.0


class _Delayed:
    """
    A call to be made later, by the thread that turns or by the loop: the first that comes to it.
    """

    def __init__(
        self,
        due: float,
        f: Callable[[], None],
        delayed: dict[_Delayed, None],
        loop: LoopAdapter | None,
        now: Callable[[], float],
    ) -> None:
        """
        @param delayed: those that wait, in the order in which they were asked for.
        @param now: tells the time, as in C{due}.
        """
        self.due = due
        self._f = f
        self._delayed = delayed
        self._timer: Timer | None = None
        self._now = now
        delayed[self] = None
        if loop is not None:
            self.giveTo(loop)

    def giveTo(self, loop: LoopAdapter) -> None:
        """
        Have a loop make it, too.
        """
        self.takeBack()
        self._timer = loop.callLater(max(0.0, self.due - self._now()), self._ring)

    def takeBack(self) -> None:
        """
        Have no loop make it.
        """
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def run(self) -> None:
        """
        Make it, unless it was made or cancelled.
        """
        if self in self._delayed:
            self.cancel()
            self._f()

    def cancel(self) -> None:
        """
        Do not make it.
        """
        self._delayed.pop(self, None)
        self.takeBack()

    def _ring(self) -> None:
        self._timer = None
        self.run()


class OwnLoop:
    """
    Knows all descriptors and timers of a pool, and has an event loop look after them,
    too, when there is one. Somebody may turn even then: who stops the pool waits for
    its end, and the loop waits for him.
    """

    def __init__(self, *, now: Callable[[], float] = monotonic) -> None:
        """
        @param now: tells the time, in seconds.
        """
        self._now = now
        self._loop: LoopAdapter | None = None
        self._readable: dict[int, Callable[[], None]] = {}
        self._writable: dict[int, Callable[[], None]] = {}
        self._poll = select.poll()
        self._delayed: dict[_Delayed, None] = {}
        self._calls: deque[Callable[[], None]] = deque()
        self._wakeUp: tuple[int, int] | None = None
        # The garbage collector may ask for something in the middle of that.
        self._lock = RLock()

    @property
    def isDriven(self) -> bool:
        """
        Whether a loop does it.
        """
        return self._openLoop() is not None

    @property
    def isClosed(self) -> bool:
        """
        Never: somebody can always turn.
        """
        return False

    def register(self, loop: LoopAdapter) -> None:
        """
        From now on the loop does it.
        """
        self.unregister()
        self._loop = loop
        for descriptor, readable in self._readable.items():
            loop.watch(descriptor, readable)
        for descriptor in self._writable:
            loop.awaitWritable(descriptor, partial(self._writeTo, descriptor))
        for call in self._delayed:
            call.giveTo(loop)

    def unregister(self) -> None:
        """
        From now on only who turns does it. The loop may be closed already.
        """
        loop, self._loop = self._loop, None
        if loop is not None:
            for descriptor in self._readable:
                loop.unwatch(descriptor)
            for call in self._delayed:
                call.takeBack()

    def turn(self, timeout: float | None) -> None:
        """
        Do what there is to do.

        @param timeout: how many seconds to wait for something; C{None}: for as long
            as it takes.
        """
        if self.makeCalls():
            timeout = 0.0
        if self._delayed:
            left = max(0.0, min(call.due for call in self._delayed) - self._now())
            timeout = left if timeout is None else min(timeout, left)
        if timeout is not None:
            timeout = min(timeout, _LONGEST)
        # Upwards: a timer must not be found to be early by a fraction of this.
        wait = None if timeout is None else int(timeout * 1000) + (timeout > 0)
        for descriptor, events in self._poll.poll(wait):
            if events & ~select.POLLOUT and descriptor in self._readable:
                self._readable[descriptor]()
            if events & ~select.POLLIN:
                # A writer to what is at its end finds out so, too.
                self._writeTo(descriptor)
        now = self._now()
        for call in sorted((c for c in self._delayed if c.due <= now), key=lambda c: c.due):
            call.run()

    def makeCalls(self) -> int:
        """
        Do what other threads have asked for by now.

        @return: how many calls that were.
        """
        count = len(self._calls)
        for _ in range(count):
            self._calls.popleft()()
        return count

    def callFromThread(self, f: Callable[[], None]) -> bool:
        """
        Have a function called by the thread that turns. May be called in any
        thread.

        @return: whether it will be; not before L{openWakeUp}, nor after
            L{closeWakeUp}.
        """
        with self._lock:
            if self._wakeUp is None:
                return False
            self._calls.append(f)
            try:
                os.write(self._wakeUp[1], b"!")
            except BlockingIOError:
                # It has been woken up often enough.
                pass
            return True

    def openWakeUp(self) -> None:
        """
        Let other threads wake up the one that turns.
        """
        holdStandard()
        reading, writing = self._wakeUp = os.pipe()
        os.set_blocking(reading, False)
        os.set_blocking(writing, False)
        self.watch(reading, lambda: self._drain(reading))

    def closeWakeUp(self) -> None:
        """
        Close the pipe by which other threads wake this one: none will. What they asked for before
        is done by the next turn.
        """
        with self._lock:
            if self._wakeUp is not None:
                reading, writing = self._wakeUp
                self._wakeUp = None
                self.unwatch(reading)
                os.close(reading)
                os.close(writing)

    def forked(self) -> None:
        """
        Leave the pipe to the parent's: in a fork no other thread turns.
        """
        # Another thread of the parent may have been about to give it back.
        self._lock = RLock()
        self.closeWakeUp()
        self._calls.clear()

    # LoopAdapter

    def watch(self, descriptor: int, readable: Callable[..., None], *args: Any) -> None:
        if args:
            readable = partial(readable, *args)
        self._readable[descriptor] = readable
        self._listen(descriptor)
        loop = self._openLoop()
        if loop is not None:
            loop.watch(descriptor, readable)

    def unwatch(self, descriptor: int) -> None:
        self._readable.pop(descriptor, None)
        self._writable.pop(descriptor, None)
        self._listen(descriptor)
        loop = self._openLoop()
        if loop is not None:
            loop.unwatch(descriptor)

    def letGo(self, descriptor: int) -> None:
        loop, self._loop = self._loop, None
        self.unwatch(descriptor)
        if loop is not None:
            loop.letGo(descriptor)
            self._loop = loop

    def awaitWritable(self, descriptor: int, writable: Callable[[], None]) -> None:
        if descriptor not in self._writable:
            self._writable[descriptor] = writable
            self._listen(descriptor)
            loop = self._openLoop()
            if loop is not None:
                loop.awaitWritable(descriptor, partial(self._writeTo, descriptor))

    def callLater(self, seconds: float, f: Callable[[], None]) -> Timer:
        due = self._now() + seconds
        return _Delayed(due, f, self._delayed, self._openLoop(), self._now)

    def _openLoop(self) -> LoopAdapter | None:
        """
        Return the loop, unless it was closed: then only who turns does something.
        """
        if self._loop is not None and self._loop.isClosed:
            self.unregister()
        return self._loop

    def _writeTo(self, descriptor: int) -> None:
        """
        Tell that a descriptor is writable, as the other loop or this one has found.
        """
        f = self._writable.pop(descriptor, None)
        if f is not None:
            self._listen(descriptor)
            f()

    def _listen(self, descriptor: int) -> None:
        events = (select.POLLIN if descriptor in self._readable else 0) | (
            select.POLLOUT if descriptor in self._writable else 0
        )
        if events:
            self._poll.register(descriptor, events)
        else:
            try:
                self._poll.unregister(descriptor)
            except (KeyError, ValueError):
                # It was not there; and -1 is what has been closed.
                pass

    @staticmethod
    def _drain(descriptor: int) -> None:
        try:
            while os.read(descriptor, 4096):
                pass
        except BlockingIOError:
            pass
