"""
Deferreds for coroutines of two worlds: Twisted's and asyncio's.

A Deferred can be awaited where Twisted drives the coroutine; asyncio wants its
own futures. What AsynQueue returns can be awaited in both, and what a task
returns may come from both.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Coroutine, Generator
from contextlib import suppress
from typing import Any, NoReturn, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from asynqueue.failures import isOf
from asynqueue.outcome import presented, raisable
from asynqueue.reactors import checkDrives, runningLoop

T = TypeVar("T")


def _insideAsyncioTask() -> bool:
    return runningLoop() is not None and asyncio.current_task() is not None


class _Closing(Failure):
    """
    The failure of what raised a C{GeneratorExit}. Thrown into a coroutine of Twisted, that
    would close each one which that awaits, and only the outermost would hear of it: so it is
    another exception that is thrown.
    """

    def __init__(self, closing: GeneratorExit, thrown: BaseException) -> None:
        super().__init__(closing)  # type: ignore[no-untyped-call]
        self._thrown = thrown

    def throwExceptionIntoGenerator(self, g: Any) -> Any:
        return g.throw(self._thrown)


class AwaitableDeferred(Deferred[T]):
    """
    A Deferred that may be awaited by Twisted's coroutines and by asyncio's.

    When an asyncio task that awaits it is cancelled, so is the Deferred. Where nobody
    would ever drive it, awaiting raises L{LoopError<asynqueue.errors.LoopError>}.

    A failure raises its exception where it is awaited, unless that would not be taken for
    a failure there: see L{raisable<asynqueue.outcome.raisable>}. Errbacks get it as it is.

    @ivar reactor: the reactor that its result comes from, where that is known.
    """

    reactor: Any = None

    def drivenBy(self) -> Any:
        """
        Return the reactor that the result comes from, or C{None} if it is not known.
        """
        return self.reactor

    def __await__(self) -> Generator[Any, None, T]:
        if not self.called:
            checkDrives(self.drivenBy(), "waiting for a result")
        return self._await(_insideAsyncioTask())

    def errback(self, fail: Any = None) -> None:
        value = fail.value if issubclass(type(fail), Failure) else fail
        if issubclass(type(value), GeneratorExit):
            fail = _Closing(value, self._toRaise(value, True))
        super().errback(fail)

    def asFuture(self, loop: asyncio.AbstractEventLoop) -> asyncio.Future[T]:
        """
        Hand the result on to a future of asyncio, which cannot have every exception.
        """

        def toRaise(failure: Failure) -> Any:
            value: Any = failure.value
            error = self._toRaise(value, True)
            return failure if error is value else Failure(error)

        self.addErrback(toRaise)
        return super().asFuture(loop)

    def _toRaise(self, error: BaseException, exits: bool) -> BaseException:
        """
        See L{raisable<asynqueue.outcome.raisable>}.
        """
        return raisable(error, "a call", exits=exits)

    def _await(self, isInTask: bool) -> Generator[Any, None, T]:
        """
        Wait until there is a result, then take it. A hot path.
        """
        if isInTask and (not self.called or self.paused):
            isInTask = yield from self._waitInTask()
        try:
            while not self.called or self.paused:
                yield self
        except BaseException as thrown:
            # If the result is a failure, Twisted throws its exception in. All else comes from
            # who drives the coroutine.
            failure: Any = getattr(self, "result", None)
            if type(failure) is not Failure or failure.value is not thrown:
                raise
        result: Any = self.result
        # Not of the result: somebody's __class__ may raise.
        if not issubclass(type(result), Failure):
            return result  # type: ignore[no-any-return]
        with suppress(BaseException):
            # So Twisted knows that somebody has heard of the failure.
            yield from super().__await__()
        _raiseAs(result, self._toRaise(result.value, isInTask))

    def _waitInTask(self) -> Generator[Any, None, bool]:
        """
        Wait on a future until there is a result.

        Twisted may drive a coroutine from within an asyncio task. It then hands
        the future straight back, which a future answers with a RuntimeError: the
        sign to go on with the Deferred alone.

        @return: whether it is asyncio that drives the coroutine.
        """
        while not self.called or self.paused:
            future = asyncio.get_running_loop().create_future()

            def fired(result: Any, future: asyncio.Future[None] = future) -> Any:
                if not future.done():
                    future.set_result(None)
                return result

            self.addBoth(fired)
            try:
                yield from future
            except asyncio.CancelledError:
                self.cancel()
                self.addErrback(lambda failure: None)
                raise
            except RuntimeError:
                future.cancel()
                return False
        return True


def raiseHere(failure: Failure, what: str) -> NoReturn:
    """
    Raise the exception of a failure in the coroutine that runs now.

    @param what: what has failed, in words.
    """
    value: Any = failure.value
    _raiseAs(failure, raisable(value, what, exits=_insideAsyncioTask()))


def _raiseAs(failure: Failure, error: BaseException) -> NoReturn:
    """
    Raise what L{raisable<asynqueue.outcome.raisable>} made of the exception of a failure.
    """
    if error is failure.value:
        failure.raiseException()
    raise error


def bothWorlds(d: Deferred[T], reactor: Any = None) -> AwaitableDeferred[T]:
    """
    Chain a Deferred to a new one that can be awaited everywhere. A cancellation
    of the new one goes on to the old.

    @param reactor: the reactor that the result comes from, if it is known.
    """
    awaitable: AwaitableDeferred[T] = AwaitableDeferred(lambda _: d.cancel())
    awaitable.reactor = reactor
    d.chainDeferred(awaitable)
    return awaitable


async def _withDeferreds(coroutine: Coroutine[Any, Any, T], loop: asyncio.AbstractEventLoop) -> Any:
    """
    Run a coroutine in an asyncio task, and let it await Deferreds as well.

    @return: its result; or the failure of an exit, which asyncio would take for its own.
    """
    try:
        return await _Bridge(coroutine, loop)
    except (KeyboardInterrupt, SystemExit):
        return Failure()


async def _carried(awaitable: Awaitable[T]) -> T:
    """
    Wait for the result of somebody's coroutine, and look whether a Deferred can carry it.

    @raise MaybeEncodingError: it cannot: it does not say of what class it is.
    """
    value: T = await presented(awaitable)
    isOf(value, Deferred)
    return value


class _Bridge:
    """
    Passes on what a coroutine awaits, each Deferred as a future.
    """

    def __init__(
        self, coroutine: Coroutine[Any, Any, Any], loop: asyncio.AbstractEventLoop
    ) -> None:
        self._coroutine = coroutine
        self._loop = loop

    def __await__(self) -> Generator[Any, Any, Any]:
        value: Any = None
        error: BaseException | None = None
        while True:
            try:
                if error is None:
                    awaited = self._coroutine.send(value)
                else:
                    awaited = self._coroutine.throw(error)
            except StopIteration as stop:
                return stop.value
            value = error = None
            try:
                if isinstance(awaited, Deferred):
                    # The coroutine takes the result from the Deferred itself.
                    yield from bothWorlds(_observed(awaited)).asFuture(self._loop)
                else:
                    value = yield awaited
            except BaseException as raised:
                # Everything goes in, a cancellation too: it is the coroutine's.
                error = raised
                if isinstance(awaited, Deferred):
                    # Only that: and the coroutine will not take the result.
                    awaited.cancel()
                    awaited.addErrback(lambda failure: None)


def _observed(d: Deferred[Any]) -> Deferred[None]:
    """
    Return a Deferred that fires with C{None} when C{d} has a result, of whatever kind, which stays
    where it is.
    """
    seen: Deferred[None] = Deferred(lambda _: d.cancel())

    def fired(result: Any) -> Any:
        if not seen.called:
            seen.callback(None)
        return result

    d.addBoth(fired)
    return seen


def deferAwaitable(awaitable: Awaitable[T]) -> Deferred[T]:
    """
    Return a Deferred for the result of what may be awaited: a Deferred, a coroutine, an asyncio
    future, or any other awaitable.

    While an asyncio loop runs this code, coroutines are tasks of that loop, and
    may await futures as well as Deferreds. Cancelling the Deferred cancels what
    it stands for.
    """
    if isinstance(awaitable, Deferred):
        return awaitable
    if asyncio.isfuture(awaitable):
        return Deferred.fromFuture(awaitable)
    coroutine = _carried(awaitable)
    loop = runningLoop()
    if loop is None:
        return Deferred.fromCoroutine(coroutine)
    task = loop.create_task(_withDeferreds(coroutine, loop))

    def done(_: Any) -> None:
        # It may have been cancelled before its first step.
        coroutine.close()
        if inspect.iscoroutine(awaitable):
            awaitable.close()

    task.add_done_callback(done)
    return Deferred.fromFuture(task)
