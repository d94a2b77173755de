"""
Exits that user code raises, ends of iterations that are none, and consumers that want no
items: each is the outcome of its own call, and the next call works.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer
from zope.interface import implementer

from asynqueue.awaitable import AwaitableDeferred, bothWorlds, deferAwaitable
from asynqueue.iteration.deferator import Deferator
from asynqueue.queues import NullQueue
from asynqueue.reactors import theReactor
from asynqueue.taskqueue import TaskQueue
from asynqueue.workers.asynchronous import AsyncWorker
from asynqueue.workers.process import ProcessWorker
from asynqueue.workers.thread import ThreadWorker
from tests.doubles import outcomes
from tests.ends import Odd, OddAsynchronous, leaving, raises

# No wait here may be a hang.
PATIENCE = 20

KINDS = [AsyncWorker, ThreadWorker, ProcessWorker]


def soon(d: Any) -> Deferred[Any]:
    """
    The same, but not for ever.
    """
    waited: Deferred[Any] = Deferred.fromCoroutine(d) if asyncio.iscoroutine(d) else d
    return waited.addTimeout(PATIENCE, theReactor())


async def allOf(items: AsyncIterator[Any]) -> list[Any]:
    """
    The items, and the type of what ended them, if that is an exception.
    """
    came: list[Any] = []
    try:
        async for item in items:
            came += [item]
    except BaseException as error:
        came.append(type(error))
    return came


@pytest.mark.parametrize("kind", KINDS)
@pytest_twisted.ensureDeferred
async def test_theWrongEndIsAFailure(kind: Callable[[], Any]) -> None:
    """
    An asynchronous loop over an iterator that raises C{StopAsyncIteration} does not end as if
    all had come; nor does one over what raises C{StopIteration} asynchronously.
    """
    queue = TaskQueue(kind())
    items = await soon(queue.call(Odd, StopAsyncIteration))
    assert await soon(allOf(items)) == [1, 0, RuntimeError]
    if kind is ProcessWorker:
        items = await soon(queue.call(OddAsynchronous, StopIteration))
        assert await soon(allOf(items)) == [1, 0, RuntimeError]
    await soon(queue.shutdown())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("error", [StopIteration, StopAsyncIteration])
@pytest_twisted.ensureDeferred
async def test_aMapGoesOnToTheEnd(kind: Callable[[], Any], error: type[Exception]) -> None:
    """
    A call of a map that raises what ends iterations is a call that failed.
    """
    queue = TaskQueue(kind())
    results = queue.map(raises, [error])
    assert await soon(allOf(results)) == [RuntimeError]
    with pytest.raises((RuntimeError, error)):
        await soon(queue.call(raises, error))
    await soon(queue.shutdown())


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit])
@pytest_twisted.ensureDeferred
async def test_anIterableThatExits(
    kind: Callable[[], Any], error: type[BaseException], ordered: bool
) -> None:
    """
    What the iterable of a map raises is its last item, whatever it is; without an order it
    comes when it comes.
    """
    queue = TaskQueue(kind())
    results = queue.map(abs, leaving(error("bad line")), ordered=ordered)
    came = await soon(allOf(results))
    # What would close the coroutine that waits for it is told as a RuntimeError.
    assert came[-1] is error or (error is GeneratorExit and came[-1] is RuntimeError)
    assert came[:-1] == [0, 1, 2] if ordered else set(came[:-1]) <= {0, 1, 2}
    assert await soon(queue.call(abs, -1)) == 1
    await soon(queue.shutdown())


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_aCoroutineThatExitsUnderAsyncio(error: type[BaseException]) -> None:
    """
    It does not end the loop that runs it, but fails its own call.
    """

    async def leave() -> None:
        await asyncio.sleep(0)
        raise error(3)

    async def main() -> Any:
        return type((await thrown(bothWorlds(deferAwaitable(leave())))).__cause__)

    assert asyncio.run(asyncio.wait_for(main(), PATIENCE)) is error


ENDS = [StopIteration, StopAsyncIteration]
EXITS = [GeneratorExit, asyncio.CancelledError, SystemExit, KeyboardInterrupt]


async def thrown(d: Any) -> BaseException:
    """
    What awaiting a Deferred raises; the next turn of whatever runs this comes.
    """
    try:
        await d
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


def failing(error: type[BaseException], *, later: bool) -> AwaitableDeferred[Any]:
    """
    A Deferred that has failed, or fails in the next turn of the running loop.
    """
    d: AwaitableDeferred[Any] = AwaitableDeferred()
    if later:
        asyncio.get_running_loop().call_soon(d.errback, error("of a call"))
    else:
        d.errback(error("of a call"))
    return d


@pytest.mark.parametrize("later", [True, False])
@pytest.mark.parametrize("error", [*ENDS, *EXITS])
def test_whatIsAwaitedInAsyncioEndsNothing(error: type[BaseException], later: bool) -> None:
    """
    A call that raised what ends iterations, tasks or loops of asyncio raises a RuntimeError
    in who awaits it, which names that and has it as its cause.
    """

    async def main() -> BaseException:
        return await thrown(failing(error, later=later))

    told = asyncio.run(asyncio.wait_for(main(), PATIENCE))
    assert type(told) is RuntimeError
    assert error.__name__ in str(told)
    assert type(told.__cause__) is error


@pytest.mark.parametrize("later", [True, False])
@pytest.mark.parametrize("error", [*ENDS, *EXITS])
def test_whatTwistedAwaitsEndsNoIteration(error: type[BaseException], later: bool) -> None:
    """
    What ends iterations is the cause of a RuntimeError in a coroutine of Twisted; exits,
    which end nothing there, come as they are, but for a GeneratorExit that comes later.
    """
    d: AwaitableDeferred[Any] = AwaitableDeferred()
    if not later:
        d.errback(error("of a call"))
    told = Deferred.fromCoroutine(thrown(d))
    if later:
        d.errback(error("of a call"))
    raised: Any = told.result
    isTold = error in ENDS or (later and error is GeneratorExit)
    assert type(raised) is (RuntimeError if isTold else error)
    assert error in (type(raised), type(raised.__cause__))


@pytest.mark.parametrize("source", ["call", "map"])
@pytest_twisted.ensureDeferred
async def test_whatTwistedAwaitsClosesNoCoroutine(source: str) -> None:
    """
    A GeneratorExit that comes later is thrown as the cause of a RuntimeError: by itself it
    would close each coroutine that it passes, and only the outermost would hear of it.
    """
    queue = NullQueue()
    gate: Deferred[None] = Deferred()

    async def fails(_: Any = None) -> None:
        await gate
        raise GeneratorExit("of a call")

    async def first(deferator: Any) -> None:
        await anext(deferator)

    async def outer() -> BaseException:
        if source == "call":
            return await thrown(queue.call(fails))
        return await thrown(first(queue.map(fails, [1])))

    told = Deferred.fromCoroutine(outer())
    theReactor().callLater(0, gate.callback, None)
    raised = await soon(told)
    assert type(raised) is RuntimeError
    assert type(raised.__cause__) is GeneratorExit
    await soon(queue.shutdown())


@pytest.mark.parametrize("error", [*ENDS, *EXITS])
def test_anErrbackGetsWhatWasRaised(error: type[BaseException]) -> None:
    """
    The failure has the type of what the call raised, whatever that is.
    """
    failures: list[Any] = []
    failing(error, later=False).addErrback(failures.append)
    assert failures[0].type is error


def test_aCoroutineMayBeClosedWhileItWaits() -> None:
    """
    The end of a coroutine is no failure of what it awaits.
    """
    waiting = thrown(AwaitableDeferred())
    waiting.send(None)
    with pytest.raises(StopIteration) as ended:
        waiting.throw(GeneratorExit())
    assert type(ended.value.value) is GeneratorExit


@pytest.mark.parametrize("error", [*ENDS, *EXITS])
def test_aFutureOfAResultEndsNothing(error: type[BaseException]) -> None:
    """
    A future of asyncio fires, and raises nothing that ends who awaits it.
    """

    async def main() -> BaseException:
        return await thrown(failing(error, later=True).asFuture(asyncio.get_running_loop()))

    told = asyncio.run(asyncio.wait_for(main(), PATIENCE))
    assert (type(told), type(told.__cause__)) == (RuntimeError, error)


@pytest.mark.parametrize("error", [*ENDS, *EXITS])
@pytest.mark.parametrize("isHere", [True, False])
def test_itemsInAsyncioEndNothing(error: type[BaseException], isHere: bool) -> None:
    """
    An item that failed with what ends tasks or loops raises a RuntimeError in the
    asynchronous loop, and the items after it come.
    """

    def give(n: int) -> Deferred[int]:
        d: Deferred[int] = Deferred()
        ready = (d.callback, n) if n != 1 else (d.errback, error("of an item"))
        if isHere:
            ready[0](ready[1])  # type: ignore[operator]
        else:
            asyncio.get_running_loop().call_soon(*ready)  # type: ignore[arg-type]
        return d

    async def main() -> list[Any]:
        return [outcome async for outcome in outcomes(Deferator(map(give, range(3))))]

    first, told, last = asyncio.run(asyncio.wait_for(main(), PATIENCE))
    assert (first, last) == (0, 2)
    assert (type(told), type(told.__cause__)) == (RuntimeError, error)


def test_aCoroutineThatIsCancelledBeforeItRan() -> None:
    """
    Nobody complains that it was never awaited.
    """

    async def never() -> None:
        raise AssertionError("it was to be cancelled")

    async def main() -> None:
        d = deferAwaitable(never())
        d.cancel()
        d.addErrback(lambda failure: None)
        await asyncio.sleep(0)

    asyncio.run(asyncio.wait_for(main(), PATIENCE))


@implementer(IConsumer)
class Unwilling:
    """
    A consumer that fails, or stops, where it is to become one.
    """

    def __init__(self, behaviour: str) -> None:
        self.behaviour = behaviour
        self.written: list[Any] = []

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """
        Refuse it.
        """
        match self.behaviour:
            case "raises":
                raise AttributeError("the client is gone")
            case "exits":
                sys.exit("the client is gone")
            case "stops":
                producer.stopProducing()

    def unregisterProducer(self) -> None:
        """
        Let it go.
        """
        if self.behaviour == "fails at the end":
            raise LookupError("there was none")

    def write(self, data: Any) -> None:
        """
        Keep it.
        """
        if self.behaviour == "cannot write":
            raise OSError("the disk is full")
        self.written.append(data)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("behaviour", "error"),
    [
        ("raises", AttributeError),
        ("exits", SystemExit),
        ("fails at the end", LookupError),
        ("cannot write", OSError),
    ],
)
@pytest_twisted.ensureDeferred
async def test_aConsumerThatFails(
    kind: Callable[[], Any], behaviour: str, error: type[BaseException]
) -> None:
    """
    Whatever it raises fails the call, and the worker goes on.
    """
    queue = TaskQueue(kind())
    with pytest.raises(error):
        await soon(queue.call(Odd, StopIteration, consumer=Unwilling(behaviour)))
    assert await soon(queue.call(abs, -1)) == 1
    await soon(queue.shutdown())


@pytest.mark.parametrize("kind", KINDS)
@pytest_twisted.ensureDeferred
async def test_aConsumerThatStopsAtOnce(kind: Callable[[], Any]) -> None:
    """
    It gets nothing, and the call ends with it.
    """
    queue = TaskQueue(kind())
    consumer = Unwilling("stops")
    assert await soon(queue.call(Odd, StopIteration, consumer=consumer)) is consumer
    assert consumer.written == []
    assert await soon(queue.call(abs, -1)) == 1
    await soon(queue.shutdown())


def test_endsInThePlainLoopAreFailuresToo() -> None:
    """
    The Deferred of the item fails, and another one tells the end.
    """
    failed = list(Deferator(Odd(StopAsyncIteration)))[-1]
    failures: list[Any] = []
    failed.addErrback(failures.append)
    assert failures[0].check(RuntimeError)
    assert isinstance(failures[0].value.__cause__, StopAsyncIteration)


class Leaver:
    """
    An argument that ends programs where it is pickled.
    """

    def __init__(self, error: type[BaseException]) -> None:
        self.error = error

    def __reduce__(self) -> Any:
        raise self.error(3)


@pytest.mark.parametrize("error", [SystemExit, GeneratorExit])
@pytest_twisted.ensureDeferred
async def test_anArgumentThatExits(error: type[BaseException]) -> None:
    """
    It fails its own call, and the worker goes on.
    """
    queue = TaskQueue(ProcessWorker())
    d = soon(queue.call(id, Leaver(error)))
    failures: list[Any] = []
    await d.addErrback(failures.append)
    assert failures[0].check(error)
    assert await soon(queue.call(abs, -1)) == 1
    assert await soon(allOf(queue.map(id, [Leaver(error)]))) != []
    assert await soon(queue.call(abs, -1)) == 1
    await soon(queue.shutdown())
