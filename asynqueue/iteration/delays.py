"""
Waiting for a time to pass, or for something to become true.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorCore

from asynqueue.awaitable import AwaitableDeferred, bothWorlds
from asynqueue.reactors import checkedReactor, theReactor
from asynqueue.timers import later

_INTERVAL = 0.001
_BACKOFF = 1.10


def deferToDelay(seconds: float, reactor: Any = None) -> AwaitableDeferred[None]:
    """
    Return a Deferred that fires after some seconds, or as the reactor shuts down.
    """
    return Delay(reactor=reactor)(seconds)


class Delay:
    """
    Delays things, and waits for what only a repeated look can tell.

    No delay outlives its reactor: all end as it shuts down.

    @ivar interval: how many seconds a delay takes if it is not said, and the
        first interval between two looks.
    @ivar backoff: what each interval is longer by than the one before.
    @ivar timeout: after how many seconds to look no more, or C{None}.
    """

    def __init__(
        self,
        interval: float | None = None,
        backoff: float | None = None,
        timeout: float | None = None,
        reactor: Any = None,
    ) -> None:
        """
        @param interval: 1 ms if it is not given.
        @param backoff: between 1.0 and 1.3; 1.1 if it is not given.
        @raise ValueError: for another backoff.
        """
        self.interval = _INTERVAL if interval is None else interval
        self.backoff = _BACKOFF if backoff is None else backoff
        self.timeout = timeout
        if not 1.0 <= self.backoff <= 1.3:
            raise ValueError(f"the backoff must be from 1.0 to 1.3, not {self.backoff!r}")
        self._reactor = checkedReactor(reactor)
        self._running = True
        # The delays that have not ended, and what ends them, with their timers.
        self._timers: dict[Deferred[None], Any] = {}
        self._trigger: Any = None

    def shutdown(self) -> None:
        """
        End all delays now, and those asked for later at once.

        What waits in L{untilEvent} goes on, with C{True}.
        """
        self._running = False
        for d in list(self._timers):
            # One of them may have ended another.
            if d in self._timers:
                self._timers[d].cancel()
                self._end(d)

    def _reactorStops(self) -> None:
        # A trigger that has fired must not be removed.
        self._trigger = None
        self.shutdown()

    def __call__(self, delay: float | None = None) -> AwaitableDeferred[None]:
        """
        Return a Deferred that fires after C{delay} seconds, or after L{interval}. With 0 it fires
        in the next turn of the reactor.
        """
        d: AwaitableDeferred[None] = AwaitableDeferred(self._cancelled)
        if not self._running:
            d.callback(None)
            return d
        seconds = self.interval if delay is None else delay
        reactor = self._reactor = theReactor(self._reactor)
        self._timers[d] = later(reactor, seconds, self._end, d)
        if self._trigger is None and IReactorCore.providedBy(reactor):
            self._trigger = reactor.addSystemEventTrigger("before", "shutdown", self._reactorStops)
        return d

    def _end(self, d: Deferred[None]) -> None:
        self._forget(d)
        d.callback(None)

    def _cancelled(self, d: Deferred[None]) -> None:
        self._timers[d].cancel()
        self._forget(d)

    def _forget(self, d: Deferred[None]) -> None:
        """
        Forget a delay that is over. Nothing of this is left in the reactor after the last.
        """
        del self._timers[d]
        if self._trigger is not None and not self._timers:
            trigger, self._trigger = self._trigger, None
            self._reactor.removeSystemEventTrigger(trigger)

    def untilEvent(
        self, check: Callable[..., object], *args: Any, **kw: Any
    ) -> AwaitableDeferred[bool | None]:
        """
        Call C{check(*args, **kw)}, now and again less and less often, until it
        gives something true.

        Prefer what tells by itself when it happens.

        @return: a Deferred: C{True}; C{False} if the timeout came first; C{None}
            if the check raised.
        @raise TypeError: if the check cannot be called.
        """
        if not callable(check):
            raise TypeError(f"{check!r} cannot be called to check for an event: give a function")
        return bothWorlds(Deferred.fromCoroutine(self._poll(lambda: check(*args, **kw))))

    async def _poll(self, check: Callable[[], object]) -> bool | None:
        reactor = self._reactor = theReactor(self._reactor)
        began = reactor.seconds()
        interval = 0.0
        while self._running:
            try:
                if check():
                    return True
            except Exception:
                # The seam to the user's check: that it raised is the answer.
                return None
            left = interval
            if self.timeout is not None:
                left = self.timeout - (reactor.seconds() - began)
                if left <= 0:
                    return False
            await self(min(interval, left))
            interval = interval * self.backoff or self.interval
        return True
