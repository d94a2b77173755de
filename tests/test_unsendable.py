"""
What was not awaited, and what stays where it was made, is refused by name.
"""

from __future__ import annotations

import asyncio
import pickle
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator, Iterator
from concurrent.futures import Future
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from asynqueue.awaitable import AwaitableDeferred
from asynqueue.cbor import CborCodec
from asynqueue.codec import dumps, encodeCall
from asynqueue.errors import MaybeEncodingError, Unsendable
from asynqueue.iteration.deferator import Deferator
from asynqueue.mapping.chunks import pack
from asynqueue.program import ELSEWHERE


async def fetch() -> None:
    """
    It does nothing.
    """


async def feed() -> AsyncIterator[int]:
    """
    It gives one.
    """
    yield 1


def rows() -> Iterator[int]:
    """
    It gives one.
    """
    yield 1


class Handle:
    """
    Can be awaited, and be sent.
    """

    def __await__(self) -> Generator[Any, Any, None]:
        yield

    def add_done_callback(self) -> None:
        """
        As one that is waited for has it.
        """


class Compiled(Coroutine[Any, Any, None]):
    """
    Is a coroutine, and none that Python has made.
    """

    def send(self, value: Any) -> Any:
        """
        It does nothing.
        """

    def throw(self, *error: Any) -> Any:
        """
        It does nothing.
        """

    def __await__(self) -> Generator[Any, Any, None]:
        yield


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """
    An asyncio loop, which is closed afterwards.
    """
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.fixture(
    params=["coroutine", "future", "task", "Deferred", "awaitable", "result", "compiled"]
)
def pending(request: Any, loop: asyncio.AbstractEventLoop) -> Iterator[tuple[Any, str]]:
    """
    Something that was not waited for, and what it is called.
    """
    coroutine = fetch()
    task = loop.create_task(fetch())
    loop.run_until_complete(task)
    made: dict[str, tuple[Any, str]] = {
        "coroutine": (coroutine, "a coroutine (fetch)"),
        "future": (loop.create_future(), "an asyncio Future"),
        "task": (task, "an asyncio Task"),
        "Deferred": (Deferred(), "a Deferred"),
        "awaitable": (AwaitableDeferred(), "a Deferred"),
        "result": (Future(), "a Future"),
        "compiled": (Compiled(), "a coroutine"),
    }
    yield made[request.param]
    coroutine.close()


class Holder:
    """
    Has something within.
    """

    def __init__(self, held: Any) -> None:
        self.held = held


CODECS: list[Callable[..., Any]] = [encodeCall, CborCodec().encodeCall]


@pytest.mark.parametrize("encode", CODECS, ids=["pickle", "cbor"])
def test_argumentThatWasNotAwaited(encode: Any, pending: tuple[Any, str]) -> None:
    """
    An argument that was not waited for is refused: the error tells what it is, which
    argument it is in, and what to do.
    """
    value, what = pending
    with pytest.raises(Unsendable, match=rf"{re.escape(what)} in argument 2: .*first|result"):
        encode((1, value), {})
    with pytest.raises(Unsendable, match=rf"{re.escape(what)} in the argument url=: "):
        encode((1,), {"a": [], "url": [{"deep": (value,)}]})


def test_withinObjectsAndCode(pending: tuple[Any, str]) -> None:
    """
    It is found within objects, and beside what is sent with its code.
    """
    value, what = pending
    for names in (None, ELSEWHERE):
        for args in ((Holder(value),), ([lambda: value],), ([lambda: 0, Holder([value])],)):
            with pytest.raises(Unsendable, match=rf"{re.escape(what)} in argument 1: "):
                encodeCall(args, {}, names)


def test_deferatorsStay() -> None:
    """
    So is a Deferator.
    """
    with pytest.raises(Unsendable, match="a Deferator in argument 1: pass a list"):
        encodeCall((Deferator(rows()),), {})


@pytest.mark.parametrize("encode", CODECS, ids=["pickle", "cbor"])
@pytest.mark.parametrize(("make", "what"), [(rows, "a generator"), (feed, "an asynchronous ge")])
def test_generatorsStay(encode: Any, make: Any, what: str) -> None:
    """
    A generator is refused, and the error says what can be sent in its place.
    """
    with pytest.raises(Unsendable, match=rf"{what}.*{make.__name__}.*argument 1: pass a list"):
        encode((make(),), {})


def test_resultsAreRefused(pending: tuple[Any, str]) -> None:
    """
    Elsewhere than in arguments it is refused as well.
    """
    value, what = pending
    with pytest.raises(Unsendable, match=rf"cannot pickle {re.escape(what)}: "):
        dumps([value])
    with pytest.raises(MaybeEncodingError, match=re.escape(what)):
        CborCodec().encode([value])


def test_itemsOfMapsAreRefused(pending: tuple[Any, str]) -> None:
    """
    An item of a map is the first argument of its call.
    """
    value, what = pending
    with pytest.raises(Unsendable, match=rf"{re.escape(what)} in argument 1: "):
        pack([value, 2])
    assert pack([[], value])[2] == 1


def test_whatCanBeSentIsSent() -> None:
    """
    What can be awaited, and is nothing of these, is sent as ever.
    """
    handle: Awaitable[None] = pickle.loads(dumps(Handle()))
    assert type(handle) is Handle


def test_theOtherArgumentIsNotBlamed() -> None:
    """
    An argument that cannot be sent for another reason does not hide which one it is.
    """
    with pytest.raises(Unsendable, match="argument 2"):
        encodeCall((Stubborn(), rows()), {})


class Stubborn:
    """
    Can be pickled once.
    """

    times = 0

    def __reduce__(self) -> Any:
        type(self).times += 1
        if type(self).times > 2:
            raise ValueError("not again")
        return int, ()


def test_whatIsInNoArgument() -> None:
    """
    If no argument has it when one looks again, the error is as it was.
    """
    with pytest.raises(Unsendable, match="cannot pickle it: wait"):
        encodeCall((Passing(),), {})


class Passing:
    """
    Cannot be sent, at first.
    """

    times = 0

    def __reduce__(self) -> Any:
        type(self).times += 1
        if type(self).times < 3:
            raise Unsendable("it", "wait")
        return int, ()


def test_theErrorTravels() -> None:
    """
    The error itself can be sent.
    """
    error = Unsendable("a coroutine", "await it first", "argument 1")
    assert str(pickle.loads(dumps(error))) == str(error)
