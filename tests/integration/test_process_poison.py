"""
Calls that no process lives to begin.
"""

from __future__ import annotations

from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import DeferredList, gatherResults

from asynqueue import ProcessQueue, TaskPool, WorkerLost
from asynqueue.pool import WorkerLostError
from asynqueue.reactors import theReactor
from tests.doubles import Heard
from tests.integration import process_calls as calls
from tests.integration.process_checks import until

# More than a child is allowed by calls.limitMemory.
_TOO_LARGE = 1 << 26
_ALLOWED = 1 << 24


@pytest.mark.bulk
@pytest.mark.parametrize(("count", "retries"), [(1, 0), (3, 0), (2, 2)])
@ensureDeferred
async def test_aCallThatNoProcessLivesToBegin(count: int, retries: int) -> None:
    """
    A call that is too large for its process ends three of them, however many there are, and
    one more for each of its retries; then it fails. Those that were lined up with it are
    made, and so are others that go before it.
    """
    queue = ProcessQueue(count, initializer=calls.limitMemory, initargs=[_ALLOWED])
    await gatherResults([queue.call(abs, number) for number in range(200)])
    before: list[Any] = [Heard(queue.call(abs, number)) for number in range(20)]
    poison = Heard(queue.call(len, bytes(_TOO_LARGE), retries=retries))
    after: list[Any] = [Heard(queue.call(abs, number)) for number in range(20)]
    urgent: list[Any] = []

    def isOver() -> bool:
        urgent.append(Heard(queue.call(abs, -1, doNext=True)))
        return bool(poison.results)

    await until(isOver)
    heard = [*before, *after, *urgent]
    await DeferredList([each.d for each in heard]).addTimeout(60, theReactor(None))
    assert isinstance(poison.error, WorkerLost)
    assert not poison.error.begun
    assert f"{3 + retries} processes ended before they began it" in str(poison.error)
    assert [each.result for each in (*before, *after)] == 2 * list(range(20))
    assert {each.result for each in urgent} == {1}
    assert sum(each.lost for each in queue.stats()) == 3 + retries
    await queue.shutdown()


@pytest.mark.bulk
@ensureDeferred
async def test_anItemThatNoProcessLivesToBegin() -> None:
    """
    In a map, too, only the item that is too large is lost.
    """
    queue = ProcessQueue(1, initializer=calls.limitMemory, initargs=[_ALLOWED])
    sizes = [*range(50), _TOO_LARGE, *range(50)]
    results: list[Any] = []
    for d in queue.map(calls.sizeOf, map(calls.Sized, sizes)):
        try:
            results.append(await d)
        except WorkerLost as error:
            results.append(error.begun)
    sizes[50] = False
    assert results == sizes
    await queue.shutdown()


@pytest.mark.bulk
@pytest.mark.measured
def test_aPoolGivesSuchACallUp() -> None:
    """
    A pool, too, fails a call that three processes did not live to begin, and makes the
    others.
    """
    pool = TaskPool(1, initializer=calls.limitMemory, initargs=[_ALLOWED])
    pool.start()
    before = [pool.apply_async(abs, (number,)) for number in range(5)]
    poison = pool.apply_async(len, (bytes(_TOO_LARGE),))
    after = [pool.apply_async(abs, (number,)) for number in range(5)]
    with pytest.raises(WorkerLostError, match="3 processes ended before they began it"):
        poison.get(60)
    assert [result.get(60) for result in (*before, *after)] == 2 * list(range(5))
    pool.stop()
