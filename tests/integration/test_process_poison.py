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

# More than a child is allowed by calls.limitMemory.
_TOO_LARGE = 1 << 26
_ALLOWED = 1 << 24


@ensureDeferred
async def test_aCallThatNoProcessLivesToBegin() -> None:
    """
    A call that is too large for its process is given to three alone, and fails; those
    that were lined up with it are made.
    """
    queue = ProcessQueue(1, initializer=calls.limitMemory, initargs=[_ALLOWED])
    await gatherResults([queue.call(abs, number) for number in range(50)])
    before: list[Any] = [Heard(queue.call(abs, number)) for number in range(20)]
    poison = Heard(queue.call(len, bytes(_TOO_LARGE)))
    after: list[Any] = [Heard(queue.call(abs, number)) for number in range(20)]
    heard = [*before, poison, *after]
    await DeferredList([each.d for each in heard]).addTimeout(60, theReactor(None))
    assert isinstance(poison.error, WorkerLost)
    assert not poison.error.begun
    assert "3 processes ended before they began it" in str(poison.error)
    assert [each.result for each in (*before, *after)] == 2 * list(range(20))
    # The first may die with others lined up, which tells nothing of any.
    assert queue.stats()[0].lost in (3, 4)
    await queue.shutdown()


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
