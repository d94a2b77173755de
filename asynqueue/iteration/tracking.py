"""
Waiting for many Deferreds, and taking turns.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto
from types import TracebackType
from typing import Any, TypeVar

from twisted.internet import defer
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.python.failure import Failure

from asynqueue.awaitable import AwaitableDeferred, bothWorlds
from asynqueue.checks import wholeNumber
from asynqueue.reactors import theReactor
from asynqueue.timers import later

T = TypeVar("T")


class DeferredTracker:
    """
    Waits for Deferreds without holding them, and without a place in what
    happens to their results.

    Nothing is polled: a wait ends within the event that ends it.
    """

    def __init__(
        self, interval: float | None = None, backoff: float | None = None, reactor: Any = None
    ) -> None:
        """
        @param interval: is taken from older programs, and does nothing.
        @param backoff: ignored, too.
        """
        self._reactor = reactor
        self._quit = False
        self._count = 0
        # Who waits, and below how many waits; 0 stands for the next to end.
        self._waiters: dict[Deferred[bool], int] = {}
        self._timers: dict[Deferred[bool], Any] = {}

    def __len__(self) -> int:
        """
        Return how many are being waited for.
        """
        return self._count

    def __bool__(self) -> bool:
        return True

    def put(self, d: Deferred[T]) -> Deferred[T]:
        """
        Wait for a Deferred. Its result, or failure, stays as it is.

        @return: the same one.
        @raise TypeError: if it is no Deferred.
        """
        if not isinstance(d, Deferred):
            raise TypeError(f"{d!r} is not a Deferred: give what a call returns")

        def ended(result: Any) -> Any:
            self.removeWait()
            return result

        if not self._quit:
            self.addWait()
            d.addBoth(ended)
        return d

    def addWait(self) -> None:
        """
        Wait for one L{removeWait} more.
        """
        if not self._quit:
            self._count += 1

    def removeWait(self) -> None:
        """
        Take back one L{addWait}. It is ignored if there is none.
        """
        if not self._count:
            return
        self._count -= 1
        for d, limit in list(self._waiters.items()):
            if not limit or self._count < limit:
                self._end(d, True)

    def quitWaiting(self) -> None:
        """
        Wait for nothing any more: those who wait go on, and nobody will wait
        again.
        """
        self._quit = True
        self._count = 0
        for d in list(self._waiters):
            self._end(d, True)

    def notWaiting(self) -> bool:
        """
        Tell whether nothing is being waited for.
        """
        return not self._count

    def deferToAll(self, timeout: float | None = None) -> AwaitableDeferred[bool]:
        """
        Wait until nothing is waited for.

        @param timeout: for how many seconds.
        @return: a Deferred: C{True}, or C{False} if the timeout came first.
        """
        return self._defer(self.notWaiting(), 1, timeout)

    def deferToAny(self, timeout: float | None = None) -> AwaitableDeferred[bool]:
        """
        Wait until any of those that are waited for has ended; if there are none,
        not at all.

        @param timeout: for how many seconds.
        @return: a Deferred: C{True}, or C{False} if the timeout came first.
        """
        return self._defer(self.notWaiting(), 0, timeout)

    def deferUntilFewer(self, N: int, timeout: float | None = None) -> AwaitableDeferred[bool]:
        """
        Wait until fewer than C{N} are waited for.

        @param timeout: for how many seconds.
        @return: a Deferred: C{True}, or C{False} if the timeout came first.
        @raise ValueError: if C{N} is no whole number, or less than 1, because that
            never comes.
        """
        wholeNumber(N, "N")
        return self._defer(self._count < N, N, timeout)

    def _defer(self, already: bool, limit: int, timeout: float | None) -> AwaitableDeferred[bool]:
        d: AwaitableDeferred[bool] = AwaitableDeferred(self._forget)
        if already:
            d.callback(True)
            return d
        self._waiters[d] = limit
        if timeout is not None:
            self._timers[d] = later(theReactor(self._reactor), timeout, self._end, d, False)
        return d

    def _end(self, d: Deferred[bool], value: bool) -> None:
        # One of those who wait may have cancelled another, or put one more end.
        if d in self._waiters:
            self._forget(d)
            d.callback(value)

    def _forget(self, d: Deferred[bool]) -> None:
        del self._waiters[d]
        timer = self._timers.pop(d, None)
        if timer is not None:
            timer.cancel()


class _Stage(Enum):
    OPEN = auto()
    DRAINING = auto()
    STOPPED = auto()


class DeferredLock(defer.DeferredLock):
    """
    A lock that some acquire before others, and that can be stopped for good.
    """

    def __init__(self, allowZombies: bool = False) -> None:
        """
        @param allowZombies: is taken from older programs, and does nothing.
        """
        super().__init__()
        self._stage = _Stage.OPEN
        self._vips: list[Deferred[Any]] = []
        self._stoppers: list[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]] = []
        # Who was let in without the lock and has not released it.
        self._passes = 0
        self._whenStopped: list[Deferred[None]] = []

    def acquire(self, vip: bool = False) -> AwaitableDeferred[DeferredLock]:
        """
        Wait for the lock.

        @param vip: go before all that wait and are none.
        @return: a Deferred that fires with this lock; at once, if L{stop} was
            called. It may be cancelled.
        """
        d: AwaitableDeferred[DeferredLock] = AwaitableDeferred(self._cancelAcquire)
        waiting: list[Any] = self.waiting
        if self._stage is not _Stage.OPEN:
            self._passes += 1
            d.callback(self)
        elif not self.locked:
            self.locked = True
            d.callback(self)
        elif vip:
            waiting.insert(len(self._vips), d)
            self._vips.append(d)
            d.addBoth(self._noMoreVip, d)
        else:
            waiting.append(d)
        return d

    def _noMoreVip(self, result: Any, d: Deferred[Any]) -> Any:
        self._vips.remove(d)
        return result

    def release(self) -> None:
        """
        Give up the lock, to the next one who waits.
        """
        if self._passes:
            # It may be the holder's own; then the lock goes on with the other's
            # release, later than it could, but never too early.
            self._passes -= 1
        elif self._stage is not _Stage.STOPPED:
            super().release()

    def acquireAndRelease(self, vip: bool = False) -> AwaitableDeferred[None]:
        """
        Wait for the lock and release it at once.
        """
        return bothWorlds(self.acquire(vip).addCallback(lambda lock: lock.release()))

    def context(self, vip: bool = False) -> _Held:
        """
        Hold the lock in a C{with} block, which releases it at its end::

            with lock.context() as d:
                yield d
                ...
        """
        return _Held(self, vip)

    def addStopper(self, f: Callable[..., Any], *args: Any, **kw: Any) -> None:
        """
        Have C{f(*args, **kw)} called when the lock is stopped, after those that
        were added before and the Deferreds they returned.
        """
        self._stoppers.append((f, args, kw))

    def stop(self) -> AwaitableDeferred[None]:
        """
        Stop the lock when all who wait for it have had it. From now on
        nobody waits who acquires it.

        @return: a Deferred that fires when the stoppers have run. It fails as
            the first of them that failed.
        """
        d: AwaitableDeferred[None] = AwaitableDeferred()
        if self._stage is _Stage.OPEN:
            last = super().acquire()
            self._stage = _Stage.DRAINING
            self._whenStopped.append(d)
            last.addCallback(lambda _: self._runStoppers()).addBoth(self._stopped)
        elif self._whenStopped:
            self._whenStopped.append(d)
        else:
            d.callback(None)
        return d

    async def _callStoppers(self) -> None:
        failed: Failure | None = None
        while self._stoppers:
            f, args, kw = self._stoppers.pop(0)
            try:
                await maybeDeferred(f, *args, **kw)
            except Exception:
                # The seam to the user's stoppers: one that fails spares none.
                failed = failed or Failure()
        if failed is not None:
            failed.raiseException()

    def _runStoppers(self) -> Deferred[None]:
        self._stage = _Stage.STOPPED
        return Deferred.fromCoroutine(self._callStoppers())

    def _stopped(self, result: Any) -> None:
        self.locked = False
        waiting, self._whenStopped = self._whenStopped, []
        for d in waiting:
            d.callback(result)


class _Held:
    """
    What L{DeferredLock.context} gives: it releases what it has acquired.
    """

    def __init__(self, lock: DeferredLock, vip: bool) -> None:
        self._lock = lock
        self._vip = vip
        self._d: Deferred[DeferredLock] | None = None
        self._acquired = False

    def __enter__(self) -> Deferred[DeferredLock]:
        self._d = self._lock.acquire(self._vip).addCallback(self._got)
        return self._d

    def _got(self, lock: DeferredLock) -> DeferredLock:
        self._acquired = True
        return lock

    def __exit__(
        self,
        type: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._acquired:
            self._lock.release()
        elif self._d is not None:
            # The block did not wait for it.
            self._d.addErrback(lambda failure: None)
            self._d.cancel()
