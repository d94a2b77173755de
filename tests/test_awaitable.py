"""
What L{asynqueue.awaitable} promises: Deferreds for the coroutines of Twisted and
of asyncio.
"""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
from collections.abc import Callable, Generator
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.python.failure import Failure

from asynqueue.awaitable import AwaitableDeferred, bothWorlds, deferAwaitable
from tests.doubles import Heard, errorOf, readingLogs, resultOf


class Oops(Exception):
    """
    What user code raises.
    """


def plain() -> tuple[Deferred[Any], Any]:
    """
    An AwaitableDeferred, and the one to fire.
    """
    d: AwaitableDeferred[Any] = AwaitableDeferred()
    return d, d


def chained() -> tuple[Deferred[Any], Any]:
    """
    A Deferred of both worlds, and the one to fire.
    """
    d: Deferred[Any] = Deferred()
    return bothWorlds(d), d


@pytest.fixture(params=[plain, chained])
def make(request: Any) -> Any:
    """
    Both kinds.
    """
    return request.param


def twisted(coroutine: Any) -> Deferred[Any]:
    return Deferred.fromCoroutine(coroutine)


async def taking(awaitable: Any) -> Any:
    """
    A coroutine that awaits one thing.
    """
    return await awaitable


async def turns(count: int = 5) -> None:
    """
    Let the asyncio loop go round.
    """
    for _ in range(count):
        await asyncio.sleep(0)


# Awaited by Twisted --------------------------------------------------------------


def test_twistedAwaits(make: Any) -> None:
    """
    A coroutine of Twisted gets the value, now or later.
    """
    d, source = make()
    waiting = Heard(twisted(taking(d)))
    assert waiting.results == []
    source.callback(7)
    assert waiting.result == 7
    d, source = make()
    source.callback(8)
    assert resultOf(twisted(taking(d))) == 8


def test_twistedAwaitsFailures(make: Any) -> None:
    """
    A failure raises in the coroutine, with its type.
    """
    d, source = make()
    waiting = Heard(twisted(taking(d)))
    source.errback(Oops())
    assert isinstance(waiting.error, Oops)


def test_twistedCancels(make: Any) -> None:
    """
    Cancelling the coroutine cancels what it awaits.
    """
    d, source = make()
    waiting = Heard(twisted(taking(d)))
    waiting.d.cancel()
    assert isinstance(waiting.error, CancelledError)
    assert source.called


# Awaited by asyncio --------------------------------------------------------------


def test_asyncioAwaits(make: Any) -> None:
    """
    A task of asyncio gets the value, now or later.
    """

    async def main() -> Any:
        d, source = make()
        asyncio.get_running_loop().call_soon(source.callback, 7)
        later = await d
        d, source = make()
        source.callback(8)
        return later, await d

    assert asyncio.run(main()) == (7, 8)


def test_asyncioAwaitsFailures(make: Any) -> None:
    """
    A failure raises in the task, with its type, and is not logged.
    """

    async def main() -> None:
        d, source = make()
        asyncio.get_running_loop().call_soon(source.errback, Oops())
        with pytest.raises(Oops):
            await d

    with readingLogs() as logs:
        asyncio.run(main())
        gc.collect()
    assert not [error for error in logs.errors() if isinstance(error, Oops)]


@pytest.mark.parametrize("world", [twisted, asyncio.run])
def test_stopIterationIsNotTheEnd(world: Callable[[Any], Any]) -> None:
    """
    A failure with StopIteration raises; as from any coroutine, a RuntimeError.
    """

    async def main() -> Any:
        d: AwaitableDeferred[Any] = AwaitableDeferred()
        d.errback(StopIteration("no value"))
        with pytest.raises(RuntimeError) as caught:
            await d
        return type(caught.value.__cause__)

    result = world(main())
    assert (resultOf(result) if isinstance(result, Deferred) else result) is StopIteration


def test_asyncioCancels(make: Any) -> None:
    """
    Cancelling the task cancels the Deferred, and nobody hears of that but it.
    """

    async def main() -> Any:
        d, source = make()
        task = asyncio.ensure_future(taking(d))
        await turns()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return source

    gc.collect()
    with readingLogs() as logs:
        source = asyncio.run(main())
        assert source.called
        del source
        gc.collect()
    assert logs.errors() == []


def test_cancelledDeferredRaisesInAsyncio(make: Any) -> None:
    """
    A Deferred that somebody cancels raises Twisted's error: the task goes on.
    """

    async def main() -> None:
        d, _ = make()
        asyncio.get_running_loop().call_soon(d.cancel)
        with pytest.raises(CancelledError):
            await d

    asyncio.run(main())


def test_asyncioAwaitsChainedResults() -> None:
    """
    A Deferred that fired with another one, or is paused, is awaited to its end.
    """

    async def main() -> Any:
        loop = asyncio.get_running_loop()
        inner: Deferred[Any] = Deferred()
        d: AwaitableDeferred[Any] = AwaitableDeferred()
        d.addCallback(lambda _: inner)
        d.callback(1)
        loop.call_soon(inner.callback, "inner")
        first = await d
        paused: AwaitableDeferred[Any] = AwaitableDeferred()
        paused.pause()
        paused.callback("paused")
        loop.call_soon(paused.unpause)
        return first, await paused

    assert asyncio.run(main()) == ("inner", "paused")


def test_asyncioWaitsForWhatComesWhileItIsWoken() -> None:
    """
    A Deferred that waits again, between its firing and the task's turn, is waited
    for again.
    """

    async def main() -> Any:
        loop = asyncio.get_running_loop()
        d: AwaitableDeferred[Any] = AwaitableDeferred()
        inner: Deferred[Any] = Deferred()

        def fire() -> None:
            d.callback(1)
            d.addCallback(lambda _: inner)
            loop.call_later(0, inner.callback, 2)

        loop.call_soon(fire)
        return await d

    assert asyncio.run(main()) == 2


def test_manyTasksOfAsyncioAwait() -> None:
    """
    Several tasks can await Deferreds at once.
    """

    async def main() -> Any:
        ds: list[AwaitableDeferred[int]] = [AwaitableDeferred() for _ in range(5)]
        for n, d in enumerate(ds):
            asyncio.get_running_loop().call_soon(d.callback, n)
        return await asyncio.gather(*map(taking, ds))

    assert asyncio.run(main()) == [0, 1, 2, 3, 4]


def test_twistedWithinATaskOfAsyncio(make: Any) -> None:
    """
    A coroutine of Twisted that is started from within a task of asyncio gets the
    value as well.
    """

    async def main() -> Any:
        d, source = make()
        waiting = Heard(twisted(taking(d)))
        assert waiting.results == []
        source.callback(7)
        return waiting.result

    assert asyncio.run(main()) == 7


def test_twistedWithinATaskFails(make: Any) -> None:
    """
    So it is with failures, and with cancellations.
    """

    async def main() -> None:
        d, source = make()
        waiting = Heard(twisted(taking(d)))
        source.errback(Oops())
        assert isinstance(waiting.error, Oops)
        d, _ = make()
        waiting = Heard(twisted(taking(d)))
        waiting.d.cancel()
        assert isinstance(waiting.error, CancelledError)

    asyncio.run(main())


def test_bothWorldsCancels() -> None:
    """
    Who cancels the new Deferred cancels the old one.
    """
    asked: list[Any] = []
    d: Deferred[Any] = Deferred(asked.append)
    assert isinstance(cancelled(bothWorlds(d)), CancelledError)
    assert asked == [d]


def cancelled(d: Deferred[Any]) -> Any:
    d.cancel()
    return errorOf(d)


# What tasks return ---------------------------------------------------------------


class Custom:
    """
    May be awaited, and is neither coroutine nor future.
    """

    def __await__(self) -> Generator[Any, Any, int]:
        return succeed(7).__await__()


def test_deferredStaysWhatItIs() -> None:
    """
    A Deferred is its own Deferred.
    """
    d: Deferred[int] = succeed(7)
    assert deferAwaitable(d) is d


@pytest.mark.parametrize("make", [lambda: taking(succeed(7)), Custom])
def test_awaitablesWithoutALoop(make: Any) -> None:
    """
    Where no asyncio loop runs, Twisted drives coroutines, and what else can be
    awaited.
    """
    assert resultOf(deferAwaitable(make())) == 7
    assert isinstance(errorOf(deferAwaitable(taking(fail(Oops())))), Oops)


def test_futuresAreDeferred() -> None:
    """
    A future of asyncio is waited for, and cancelled.
    """

    async def main() -> Any:
        loop = asyncio.get_running_loop()
        future, other = loop.create_future(), loop.create_future()
        loop.call_soon(future.set_result, 7)
        abandoned = deferAwaitable(other)
        abandoned.cancel()
        abandoned.addErrback(lambda _: None)
        result = await bothWorlds(deferAwaitable(future))
        return result, other.cancelled()

    assert asyncio.run(main()) == (7, True)


def test_coroutineUnderALoopAwaitsBothWorlds() -> None:
    """
    While a loop runs, a coroutine may await futures, Deferreds of both kinds, and
    other coroutines.
    """

    async def both(later: Deferred[int], fired: Deferred[int]) -> Any:
        await asyncio.sleep(0)
        a = await later
        await asyncio.sleep(0)
        b = await bothWorlds(fired)
        return a, b, await taking(succeed(3)), await Custom()

    async def main() -> Any:
        later: Deferred[int] = Deferred()
        d = deferAwaitable(both(later, succeed(2)))
        await turns()
        later.callback(1)
        return await bothWorlds(d)

    assert asyncio.run(main()) == (1, 2, 3, 7)


def test_coroutineUnderALoopHandlesErrors() -> None:
    """
    What fails raises within the coroutine, which may go on, or fail itself.
    """

    async def careful() -> Any:
        future = asyncio.get_running_loop().create_future()
        future.set_exception(KeyError())
        caught = []
        for bad in (fail(Oops()), future):
            try:
                await bad
            except (Oops, KeyError) as error:
                caught.append(type(error))
        return caught

    async def careless() -> None:
        await fail(Oops())

    async def main() -> Any:
        caught = await bothWorlds(deferAwaitable(careful()))
        with pytest.raises(Oops):
            await bothWorlds(deferAwaitable(careless()))
        return caught

    assert asyncio.run(main()) == [Oops, KeyError]


@pytest.mark.parametrize("kind", [Deferred, AwaitableDeferred])
def test_coroutineUnderALoopIsCancelled(kind: Any) -> None:
    """
    Cancelling its Deferred cancels what it awaits, lets it clean up, and leaves
    nothing in the log.
    """
    cleaned: list[bool] = []

    async def waits(d: Deferred[Any]) -> None:
        try:
            await d
        finally:
            cleaned.append(d.called)

    async def main() -> None:
        d = deferAwaitable(waits(kind()))
        d.addErrback(lambda failure: failure.trap(CancelledError, asyncio.CancelledError))
        await turns()
        d.cancel()
        await turns()

    gc.collect()
    with readingLogs() as logs:
        asyncio.run(main())
        gc.collect()
    assert len(cleaned) == 1
    assert logs.errors() == []


def test_coroutineUnderALoopMayRefuseToBeCancelled() -> None:
    """
    A coroutine that catches the cancellation goes on.
    """
    done: list[int] = []

    async def stubborn() -> None:
        try:
            await Deferred()
        except (CancelledError, asyncio.CancelledError):
            done.append(await succeed(7))

    async def main() -> None:
        d = deferAwaitable(stubborn())
        d.addErrback(lambda _: None)
        await turns()
        d.cancel()
        await turns()

    asyncio.run(main())
    assert done == [7]


def test_cancelledDeferredWithinACoroutineUnderALoop() -> None:
    """
    A Deferred that is cancelled by somebody else raises in the coroutine.
    """

    async def main() -> None:
        d: Deferred[Any] = Deferred()
        waiting = deferAwaitable(taking(d))
        await turns()
        d.cancel()
        with pytest.raises(CancelledError):
            await bothWorlds(waiting)

    asyncio.run(main())


CHILD = """
import asyncio
from twisted.internet import asyncioreactor
loop = asyncio.new_event_loop()
asyncio.set_event_loop(loop)
asyncioreactor.install(loop)
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from asynqueue import NullQueue

async def sleeps(value):
    await asyncio.sleep(0)
    d = Deferred()
    reactor.callLater(0, d.callback, value)
    return await d

async def asyncioMain(queue):
    return await asyncio.gather(*(queue.call(sleeps, n) for n in range(3)))

async def twistedMain():
    queue = NullQueue()
    own = await queue.call(sleeps, "twisted")
    theirs = await Deferred.fromFuture(asyncio.ensure_future(asyncioMain(queue)))
    await queue.shutdown()
    print(own, theirs)

def start():
    d = Deferred.fromCoroutine(twistedMain())
    d.addErrback(lambda failure: print(failure.getTraceback()))
    d.addBoth(lambda _: reactor.stop())

reactor.callWhenRunning(start)
reactor.run()
"""


def test_bothWorldsUnderTheAsyncioReactor() -> None:
    """
    Under the asyncio reactor tasks await both worlds, and are awaited by both.
    """
    child = subprocess.run(
        [sys.executable, "-c", CHILD], capture_output=True, text=True, timeout=60, check=False
    )
    assert (child.stdout, child.stderr) == ("twisted [0, 1, 2]\n", "")


def test_failuresKeepTheirTracebacks() -> None:
    """
    A failure that is awaited by asyncio leads to where it was raised.
    """

    def raises() -> None:
        raise Oops

    async def main() -> Any:
        d: AwaitableDeferred[Any] = AwaitableDeferred()
        try:
            raises()
        except Oops:
            d.errback(Failure())
        with pytest.raises(Oops) as caught:
            await d
        return [entry.name for entry in caught.traceback]

    assert "raises" in asyncio.run(main())
