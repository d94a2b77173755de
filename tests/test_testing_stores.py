"""
What L{asynqueue.testing.stores} promises: each store of ours keeps what a store promises, and one
that does not is told.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import pytest_twisted
from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from asynqueue.stores.memory import MemoryEngine, MemoryStore
from asynqueue.stores.operations import Begin, Claim, Claims, Operation, Prune, Rescue
from asynqueue.stores.records import StoreEvent
from asynqueue.stores.store import Store
from asynqueue.stores.thread import DirectRunner, ThreadRunner
from asynqueue.testing import checkStore, storeChecks


@pytest.mark.parametrize("check", storeChecks(MemoryStore), ids=str)
def test_memoryStore(check: Any) -> Deferred[None]:
    """
    The store in memory keeps each promise.
    """
    return check()


@pytest_twisted.inlineCallbacks
def test_allAreChecked() -> Any:
    """
    All checks in one go are as many as there are single ones; an engine in a thread passes.
    """

    def make(clock: Clock) -> Store:
        return Store(MemoryEngine(clock.seconds), ThreadRunner("memory"))

    assert (yield checkStore(make)) == len(storeChecks(make)) > 50


class Reversing(MemoryEngine):
    """
    Claims the latest first.
    """

    def execute(self, operations: Sequence[Operation[Any]]) -> tuple[list[Any], StoreEvent]:
        answers, event = super().execute(operations)
        for place, answer in enumerate(answers):
            if isinstance(answer, Claims):
                answers[place] = evolve(answer, claimed=tuple(reversed(answer.claimed)))
        return answers, event


class Silent(MemoryEngine):
    """
    Tells of nothing.
    """

    def execute(self, operations: Sequence[Operation[Any]]) -> tuple[list[Any], StoreEvent]:
        return super().execute(operations)[0], StoreEvent()


class Replacing(MemoryEngine):
    """
    Does something else than what it is asked.
    """

    def replace(self, operation: Any) -> Any:
        return operation

    def execute(self, operations: Sequence[Operation[Any]]) -> tuple[list[Any], StoreEvent]:
        return super().execute([self.replace(operation) for operation in operations])


class Hasty(Replacing):
    """
    Heeds no margin.
    """

    def replace(self, operation: Any) -> Any:
        return evolve(operation, margin=0) if isinstance(operation, Rescue) else operation


class Eager(Replacing):
    """
    Begins all that it claims.
    """

    def replace(self, operation: Any) -> Any:
        return evolve(operation, begin=True) if isinstance(operation, Claim) else operation


class Greedy(Replacing):
    """
    Prunes all at once.
    """

    def replace(self, operation: Any) -> Any:
        return Prune() if isinstance(operation, Prune) else operation


class Lax(Replacing):
    """
    Lets all that was claimed begin.
    """

    def execute(self, operations: Sequence[Operation[Any]]) -> tuple[list[Any], StoreEvent]:
        answers, event = super().execute(operations)
        for place, operation in enumerate(operations):
            if isinstance(operation, Begin):
                answers[place] = frozenset(operation.attempts)
        return answers, event


class Forgetful(MemoryEngine):
    """
    Has nothing left when it is closed.
    """

    def close(self) -> None:
        self.__init__(self._clock)  # type: ignore[misc]


@pytest.mark.parametrize("kind", [Reversing, Silent, Hasty, Eager, Greedy, Lax, Forgetful])
@pytest_twisted.inlineCallbacks
def test_faultIsTold(kind: type[MemoryEngine]) -> Any:
    """
    A store that breaks a promise does not pass, and is told which.
    """
    with pytest.raises(AssertionError) as raised:
        yield checkStore(lambda clock: Store(kind(clock.seconds), DirectRunner()))
    assert "in the check" in raised.value.__notes__[0]
