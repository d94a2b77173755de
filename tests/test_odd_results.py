"""
Results that cannot be looked at, or only look like iterators.
"""

from __future__ import annotations

import codecs
import csv
import io
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.task import deferLater

from asynqueue.errors import MaybeEncodingError
from asynqueue.iteration.deferator import Deferator
from asynqueue.iteration.sources import isIterator
from asynqueue.outcome import Shape, shapeOf
from asynqueue.reactors import theReactor
from asynqueue.taskqueue import TaskQueue
from asynqueue.workers.asynchronous import AsyncWorker
from asynqueue.workers.thread import ThreadWorker
from tests.doubles import outcomes

# No wait here may be a hang.
PATIENCE = 20


class Odd:
    """
    Says nothing of its class, whatever asks.
    """

    @property
    def __class__(self) -> Any:
        raise LookupError("no request")


class Local:
    """
    A proxy of what a request has, as web frameworks have it; there is no request.
    """

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError("working outside of a request")

    def __iter__(self) -> Any:
        raise RuntimeError("working outside of a request")

    __next__ = __iter__


class Bound:
    """
    A proxy of what there is: it says that it is of that class.
    """

    @property
    def __class__(self) -> Any:
        return dict

    def __iter__(self) -> Any:
        return iter({})

    def __next__(self) -> Any:
        raise TypeError("'dict' object is not an iterator")


class OddIterator(Odd):
    """
    An iterator by design that says nothing of its class.
    """

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        raise StopIteration


class Meta(type):  # noqa: PLW1641 -- that is the point
    """
    A metaclass that compares, and so has no hash.
    """

    def __eq__(cls, other: object) -> bool:
        return cls is other


class Counter:
    """
    An iterator by design, which knows no other attribute.
    """

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        raise StopIteration

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)


class Lines(Counter):
    """
    A reader of lines, which has nothing else of a file.
    """

    def readline(self) -> str:
        return ""


class Wrapped(Counter):
    """
    A reader that passes on what it does not know to a file.
    """

    def __getattr__(self, name: str) -> Any:
        return getattr(io.BytesIO(), name)


def dead() -> Any:
    return weakref.proxy(Counter())


async def itsItems(result: Any) -> None:
    """
    Wait for a result, and for the items of an iterator.
    """
    async for _ in await result:
        pass


class Ring(list[int]):
    """
    A container whose items can be taken in turn.
    """

    def __next__(self) -> int:
        self.append(self.pop(0))
        return self[-1]


def numbers() -> Iterator[int]:
    yield from range(3)


async def later() -> Any:
    yield 1


ODD = [Odd, Local, dead]
VALUES = [Odd, dead, Bound, Meta("Unhashable", (), {}), dict, list, partial(range, 3)]
AS_THEY_ARE = [
    partial(io.BytesIO, b"a\nb\n"),
    partial(io.StringIO, "a\nb\n"),
    lambda: codecs.getreader("utf-8")(io.BytesIO(b"a\n")),
    Lines,
    Wrapped,
    partial(Ring, [1, 2]),
]


@pytest.mark.parametrize("make", [*VALUES, *AS_THEY_ARE])
def test_whatOnlyLooksLikeAnIteratorIsNone(make: Callable[[], Any]) -> None:
    """
    Files, containers, proxies and what cannot be looked at go to the caller as they are.
    """
    value = make()
    assert shapeOf(value) is None
    assert not isIterator(value)


@pytest.mark.parametrize(
    "make",
    [
        numbers,
        Counter,
        OddIterator,
        partial(map, str, []),
        partial(zip, []),
        partial(filter, None, []),
        partial(iter, []),
        partial(csv.reader, []),
    ],
)
def test_iteratorsByDesignAreIterators(make: Callable[[], Any]) -> None:
    """
    Whatever has C{__iter__} and C{__next__} for its type is one.
    """
    value = make()
    assert shapeOf(value) is Shape.ITERATOR
    assert isIterator(value)


def test_asynchronousIteratorsAreTold() -> None:
    """
    They are no plain iterators.
    """
    assert shapeOf(later()) is Shape.ASYNC_ITERATOR
    assert shapeOf(Deferator([])) is Shape.ASYNC_ITERATOR


@pytest.mark.parametrize("kind", [AsyncWorker, ThreadWorker])
@pytest_twisted.ensureDeferred
async def test_anOddResultHarmsItsOwnCallOnly(kind: Callable[[], Any]) -> None:
    """
    Calls beside one whose result cannot be looked at have their results, as have later ones.
    """
    queue = TaskQueue(kind())
    for make in ODD:
        odd = queue.call(make)
        beside = [queue.call(abs, -n) for n in range(3)]
        with pytest.raises((MaybeEncodingError, RuntimeError, LookupError, ReferenceError)):
            await itsItems(odd.addTimeout(PATIENCE, theReactor()))
        assert [await d.addTimeout(PATIENCE, theReactor()) for d in beside] == [0, 1, 2]
    await queue.shutdown().addTimeout(PATIENCE, theReactor())


@pytest.mark.parametrize("kind", [AsyncWorker, ThreadWorker])
@pytest_twisted.ensureDeferred
async def test_anOddItemIsAFailureInItsPlace(kind: Callable[[], Any]) -> None:
    """
    The items before and after it come as they are.
    """
    queue = TaskQueue(kind())
    deferator = await queue.call(lambda: iter([1, Odd(), dead(), 2])).addTimeout(
        PATIENCE, theReactor()
    )
    came: list[Any] = []
    for d in deferator:
        try:
            came.append(await d.addTimeout(PATIENCE, theReactor()))
        except MaybeEncodingError as error:
            came.append(error.reason.partition(":")[0])
    assert came == [1, "LookupError", "ReferenceError", 2]
    await queue.shutdown().addTimeout(PATIENCE, theReactor())


@pytest.mark.parametrize("ready", [True, False])
@pytest_twisted.ensureDeferred
async def test_anOddItemIsAFailureInAnAsynchronousLoop(ready: bool) -> None:
    """
    It makes no difference whether it is here before it is asked for.
    """
    queue = TaskQueue(ThreadWorker() if ready else AsyncWorker())
    deferator = await queue.call(lambda: iter([1, Odd(), dead(), 2])).addTimeout(
        PATIENCE, theReactor()
    )
    if ready:
        # What a thread has produced is delivered before this is.
        await queue.call(abs, 1).addTimeout(PATIENCE, theReactor())
    first, *odd, last = [outcome async for outcome in outcomes(deferator)]
    assert (first, last) == (1, 2)
    assert [type(error) for error in odd] == [MaybeEncodingError] * 2
    assert [error.reason.partition(":")[0] for error in odd] == ["LookupError", "ReferenceError"]
    await queue.shutdown().addTimeout(PATIENCE, theReactor())


@pytest.mark.parametrize("kind", [AsyncWorker, ThreadWorker])
@pytest_twisted.ensureDeferred
async def test_aFileComesAsItIs(kind: Callable[[], Any]) -> None:
    """
    A result that can be read is no iteration over its lines.
    """
    queue = TaskQueue(kind())
    file = await queue.call(io.BytesIO, b"a\nb\n").addTimeout(PATIENCE, theReactor())
    assert file.read() == b"a\nb\n"
    await queue.shutdown().addTimeout(PATIENCE, theReactor())


@pytest_twisted.ensureDeferred
async def test_anOddResultOfACoroutine() -> None:
    """
    A coroutine that has waited fails its own call with what no Deferred can carry.
    """

    async def odd(make: Callable[[], Any]) -> Any:
        await deferLater(theReactor(), 0)
        return make()

    queue = TaskQueue(AsyncWorker())
    for make in ODD:
        with pytest.raises((MaybeEncodingError, RuntimeError)):
            await queue.call(odd, make).addTimeout(PATIENCE, theReactor())
    assert await queue.call(abs, -1).addTimeout(PATIENCE, theReactor()) == 1
    await queue.shutdown().addTimeout(PATIENCE, theReactor())


@pytest.mark.parametrize("work", [lambda item: item, lambda item: iter([item])])
@pytest.mark.parametrize("kind", [AsyncWorker, ThreadWorker])
@pytest_twisted.ensureDeferred
async def test_whatHasNoHashHarmsNothingBesideIt(
    kind: Callable[[], Any], work: Callable[[Any], Any]
) -> None:
    """
    A result or an item of a class without a hash comes, or fails alone.
    """
    queue = TaskQueue(kind())
    came: list[Any] = []
    for item in (1, Meta("Unhashable", (), {})(), 2):
        result = queue.call(work, item).addTimeout(PATIENCE, theReactor())
        try:
            value = await result
            came.append(await next(value) if type(value) is Deferator else value)
        except (MaybeEncodingError, TypeError):
            came.append("failed")
    assert (came[0], came[2]) == (1, 2)
    await queue.shutdown().addTimeout(PATIENCE, theReactor())


@pytest.mark.parametrize("kind", [AsyncWorker, ThreadWorker])
@pytest_twisted.ensureDeferred
async def test_aMapOverWhatHasNoHash(kind: Callable[[], Any]) -> None:
    """
    Items may be of a class without a hash.
    """
    queue = TaskQueue(kind())
    items = [Meta("Unhashable", (), {})() for _ in range(3)]
    results = queue.map(id, iter(items))
    for item in items:
        assert await next(results).addTimeout(PATIENCE, theReactor()) == id(item)
    await queue.shutdown().addTimeout(PATIENCE, theReactor())
