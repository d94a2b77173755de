"""
Odd objects in the processes of L{ProcessQueue}: each harms its own call only.
"""

from __future__ import annotations

from typing import Any

import pytest
from pytest_twisted import ensureDeferred

from asynqueue import ProcessQueue, WorkerLost
from asynqueue.errors import MaybeEncodingError
from tests.integration import odd_calls as odd, process_calls as calls

pytestmark = pytest.mark.measured


async def outcomes(stream: Any) -> list[Any]:
    """
    The items of an iteration, or the types of their failures.
    """
    found: list[Any] = []
    for d in stream:
        try:
            found.append(await d)
        except Exception as error:
            found.append(type(error))
    return found


@ensureDeferred
async def test_oddObjects() -> None:
    """
    Exceptions that cannot be formatted, and iterators that raise when they are looked at
    or pickled, are told as what they are, and harm no other call.
    """
    queue = ProcessQueue(1)
    first = await queue.call(calls.pid)
    with pytest.raises(SyntaxError, match="unexpected token"):
        await queue.call(odd.raiseSyntaxError)
    with pytest.raises(RuntimeError, match="no next today"):
        await queue.call(odd.makeIterator, odd.NoNext)
    assert await outcomes(await queue.call(odd.makeIterator, odd.NoClass)) == [0, 1, 2]
    items = await outcomes(await queue.call(odd.someUnwilling))
    assert items == [0, 1, MaybeEncodingError, 3, MaybeEncodingError, 5]
    assert await queue.call(calls.pid) == first
    await queue.shutdown()


@ensureDeferred
async def test_faultOfTheChild(capfd: pytest.CaptureFixture[str]) -> None:
    """
    A child that fails itself is lost with its exit code, and says why.
    """
    queue = ProcessQueue(1)
    await queue.call(odd.breakTheLoop)
    with pytest.raises(WorkerLost, match="exit code 1"):
        await queue.call(pow, 2, 5)
    assert await queue.call(pow, 2, 5) == 32
    await queue.shutdown()
    assert "RuntimeError: a bug" in capfd.readouterr().err


@ensureDeferred
async def test_itemsThatAreOnlyThere() -> None:
    """
    An item that cannot be made again here fails in its place, wherever that is in a batch.
    """
    queue = ProcessQueue(1)
    for bad in (0, 1, 500, 999):
        items = await outcomes(await queue.call(odd.onlyThere, bad, 1000))
        assert items == [*range(bad), MaybeEncodingError, *range(bad + 1, 1000)]
    await queue.shutdown()
