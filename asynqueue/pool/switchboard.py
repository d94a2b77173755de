"""
A hub that works with or without an event loop.

Without one, somebody calls L{Switchboard.turn}: a thread, again and again, or a
caller who waits for a result. With one, the loop does it all.
"""

from __future__ import annotations

import os
import select
from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from threading import Lock
from time import monotonic

from asynqueue.pool.hubs import Hub, Timer


class _Delayed:
    """
    A call to be made later, by whoever turns, or by the loop that came meanwhile.
    """

    def __init__(self, due: float, f: Callable[[], None]) -> None:
        self.due = due
        self._f: Callable[[], None] | None = f
        self.timer: Timer | None = None

    @property
    def waits(self) -> bool:
        """
        Whether it was neither made nor cancelled.
        """
        return self._f is not None

    def run(self) -> None:
        """
        Make it.
        """
        f, self._f = self._f, None
        if f is not None:
            f()

    def cancel(self) -> None:
        """
        Do not make it.
        """
        self._f = None
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


class Switchboard:
    """
    Knows all descriptors and timers of a pool, and gives them to an event loop when
    there is one.
    """

    def __init__(self) -> None:
        self._hub: Hub | None = None
        self._readable: dict[int, Callable[[], None]] = {}
        self._writable: dict[int, Callable[[], None]] = {}
        self._poll = select.poll()
        self._delayed: list[tuple[float, int, _Delayed]] = []
        self._numbers = count()
        self._calls: deque[Callable[[], None]] = deque()
        self._wakeUp: tuple[int, int] | None = None
        self._lock = Lock()

    def register(self, hub: Hub) -> None:
        """
        From now on the loop does it.
        """
        for descriptor in self._readable:
            if self._hub is not None:
                self._hub.unwatch(descriptor)
        self._hub = hub
        for descriptor, readable in self._readable.items():
            hub.watch(descriptor, readable)
        writable, self._writable = self._writable, {}
        for descriptor, f in writable.items():
            self.awaitWritable(descriptor, f)
        delayed, self._delayed = self._delayed, []
        for due, _, call in delayed:
            if call.waits:
                call.timer = hub.callLater(max(0.0, due - monotonic()), call.run)

    def turn(self, timeout: float | None) -> None:
        """
        Do what there is to do.

        @param timeout: how many seconds to wait for something; C{None}: for as long
            as it takes.
        """
        calls, self._calls = self._calls, deque()
        for call in calls:
            call()
        if calls:
            timeout = 0.0
        if self._delayed:
            left = max(0.0, self._delayed[0][0] - monotonic())
            timeout = left if timeout is None else min(timeout, left)
        # Upwards: a timer must not be found to be early by a fraction of this.
        wait = None if timeout is None else int(timeout * 1000) + (timeout > 0)
        for descriptor, events in self._poll.poll(wait):
            if events & ~select.POLLOUT and descriptor in self._readable:
                self._readable[descriptor]()
            if events & select.POLLOUT and descriptor in self._writable:
                f = self._writable.pop(descriptor)
                self._listen(descriptor)
                f()
        now = monotonic()
        while self._delayed and self._delayed[0][0] <= now:
            heappop(self._delayed)[2].run()

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
        reading, writing = self._wakeUp = os.pipe()
        os.set_blocking(reading, False)
        os.set_blocking(writing, False)
        self.watch(reading, lambda: self._drain(reading))

    def closeWakeUp(self) -> None:
        """
        No other thread will. What they asked for before is done by the next turn.
        """
        with self._lock:
            if self._wakeUp is not None:
                reading, writing = self._wakeUp
                self._wakeUp = None
                self.unwatch(reading)
                os.close(reading)
                os.close(writing)

    # Hub

    def watch(self, descriptor: int, readable: Callable[[], None]) -> None:
        self._readable[descriptor] = readable
        self._listen(descriptor)
        if self._hub is not None:
            self._hub.watch(descriptor, readable)

    def unwatch(self, descriptor: int) -> None:
        self._readable.pop(descriptor, None)
        self._writable.pop(descriptor, None)
        self._listen(descriptor)
        if self._hub is not None:
            self._hub.unwatch(descriptor)

    def awaitWritable(self, descriptor: int, writable: Callable[[], None]) -> None:
        if self._hub is not None:
            self._hub.awaitWritable(descriptor, writable)
        else:
            self._writable[descriptor] = writable
            self._listen(descriptor)

    def callLater(self, seconds: float, f: Callable[[], None]) -> Timer:
        call = _Delayed(monotonic() + seconds, f)
        if self._hub is not None:
            call.timer = self._hub.callLater(seconds, call.run)
        else:
            heappush(self._delayed, (call.due, next(self._numbers), call))
        return call

    def _listen(self, descriptor: int) -> None:
        events = (select.POLLIN if descriptor in self._readable else 0) | (
            select.POLLOUT if descriptor in self._writable else 0
        )
        if events:
            self._poll.register(descriptor, events)
        else:
            try:
                self._poll.unregister(descriptor)
            except KeyError:
                # It was not there.
                pass

    @staticmethod
    def _drain(descriptor: int) -> None:
        try:
            while os.read(descriptor, 4096):
                pass
        except BlockingIOError:
            pass
