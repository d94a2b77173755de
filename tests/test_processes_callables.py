"""
The numbers that stand for callables, and what a child is told of them.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from asynqueue.constancy import ClosedCallable
from asynqueue.processes.callables import Callables
from asynqueue.testing.calls import echo, nextNumber, numbered, whereAmI


class Told:
    """
    A child that notes what it is told.

    @ivar known: what it knows, by number.
    @ivar defined: all numbers that it was ever told.
    """

    def __init__(self, **options: Any) -> None:
        self.known: dict[int, bytes] = {}
        self.defined: list[int] = []
        self.callables = Callables(self.define, self.forget, **options)

    def define(self, name: int, pickled: bytes) -> None:
        """
        Note one.
        """
        self.defined.append(name)
        self.known[name] = pickled

    def forget(self, name: int) -> None:
        """
        Forget one.
        """
        del self.known[name]

    def call(self, f: Callable[..., Any], call: int = 1, oldest: int = 1) -> Any:
        """
        What the child would call.
        """
        return pickle.loads(self.known[self.callables.nameOf(f, call, oldest)])


class Counter:
    """
    Has a state, and can be called.
    """

    def __init__(self) -> None:
        self.number = 0

    def get(self) -> int:
        """
        Its number.
        """
        return self.number

    def __call__(self) -> int:
        return self.number


@pytest.fixture
def told() -> Told:
    """
    A new one.
    """
    return Told()


@pytest.mark.parametrize("f", [echo, len, dict, dict.fromkeys, Counter, partial(echo, 1)])
def test_aCallableIsToldOnce(told: Told, f: Callable[..., Any]) -> None:
    """
    A child is told of each callable once, however often it is called.
    """
    names = {told.callables.nameOf(f, call, call) for call in range(1, 10)}
    assert names == set(told.defined) == {1}


def test_numbersAreDifferent(told: Told) -> None:
    """
    Each callable has a number of its own, and stands for itself.
    """
    functions: list[Any] = [echo, nextNumber, len, dict, partial(echo, 1)]
    called = [told.call(f) for f in functions]
    assert called[:4] == functions[:4]
    assert called[4](2) == ((1, 2), {})
    assert told.defined == [1, 2, 3, 4, 5]


def test_whatCamePickledIsToldAsItCame(told: Told) -> None:
    """
    A callable that is pickled already is not looked into, and told once.
    """
    closed = ClosedCallable(b"whatever this is")
    assert told.callables.nameOf(closed, 1, 1) == told.callables.nameOf(closed, 2, 2)
    assert told.known == {1: b"whatever this is"}


def test_eachChildIsTold() -> None:
    """
    What one child knows, another one must be told, too.
    """
    first, second = Told(), Told()
    assert first.call(echo) is echo
    assert second.call(echo) is echo
    assert first.defined == second.defined == [1]


def test_aChangedObjectIsToldAnew(told: Told) -> None:
    """
    A bound method whose object has changed is another one; if it has not, it is
    the same.
    """
    counter = Counter()
    assert told.call(counter.get)() == 0
    counter.number = 7
    assert told.call(counter.get)() == 7
    assert told.call(counter.get)() == 7
    assert told.defined == [1, 2]


def test_aChangedInstanceIsToldAnew(told: Told) -> None:
    """
    So it is with an instance that can be called.
    """
    counter = Counter()
    assert told.call(counter)() == 0
    counter.number = 7
    assert told.call(counter)() == 7


def test_aChangedListIsToldAnew(told: Told) -> None:
    """
    And with a method of what is written in C.
    """
    items = [1]
    assert told.call(items.copy)() == [1]
    items.append(2)
    assert told.call(items.copy)() == [1, 2]


def test_equalPartialsAreOne(told: Told) -> None:
    """
    What is pickled alike is the same.
    """
    assert told.call(partial(echo, 1))() == told.call(partial(echo, 1))()
    assert told.defined == [1]


def test_whatCannotBePickledIsNotNumbered(told: Told) -> None:
    """
    If pickling raises, the child is told nothing, and all goes on.
    """
    with pytest.raises(TypeError):
        told.callables.nameOf(partial(echo, (n for n in range(3))), 1, 1)
    assert told.call(echo) is echo
    assert told.defined == [1]


def test_whatCannotBeToldIsToldLater(told: Told) -> None:
    """
    If a callable cannot be sent, it is sent with the next call.
    """
    failures = [OSError("of a test")]

    def define(name: int, pickled: bytes) -> None:
        if failures:
            raise failures.pop()
        told.define(name, pickled)

    names = Callables(define, told.forget)
    with pytest.raises(OSError, match="of a test"):
        names.nameOf(echo, 1, 1)
    assert pickle.loads(told.known[names.nameOf(echo, 1, 1)]) is echo


def test_tooManyAreForgotten(told: Told) -> None:
    """
    A child never knows more than a thousand; those that were not used for longest
    are forgotten, and told again when they are needed.
    """
    for number in range(1, 3001):
        told.callables.nameOf(partial(echo, number), number, number)
        assert len(told.known) <= 1000
    assert len(told.defined) == 3000
    told.call(partial(echo, 2999), 3001, 3001)
    assert len(told.defined) == 3000
    told.call(partial(echo, 1), 3002, 3002)
    assert len(told.defined) == 3001


def test_whatIsUsedAgainIsKept(told: Told) -> None:
    """
    What is used now and then is not among the forgotten.
    """
    for number in range(1, 5001):
        told.callables.nameOf(echo if number % 100 == 1 else partial(echo, number), number, number)
    assert pickle.loads(told.known[1]) is echo
    told.call(echo, 5001, 5001)
    assert told.defined.count(1) == 1


def test_whatIsInUseIsNeverForgotten(told: Told) -> None:
    """
    What a call needs that may still be made stays, even if there are more than a
    thousand.
    """
    for number in range(1, 1501):
        told.callables.nameOf(partial(echo, number), number, 1)
    assert len(told.known) == 1500
    told.callables.nameOf(partial(echo, 1501), 1501, 1400)
    assert set(range(1400, 1502)) <= set(told.known)
    assert len(told.known) < 1000


def test_bytesAreBound() -> None:
    """
    Large ones are forgotten when they have too many bytes together.
    """
    told = Told(mostBytes=10_000)
    for number in range(1, 101):
        told.callables.nameOf(partial(echo, bytes(1000), number), number, number)
        assert sum(map(len, told.known.values())) < 12_000
    for f in (numbered, whereAmI):
        assert told.call(f, 101, 101) is f


def test_closuresAreSentAgainWhenTheyHaveChanged() -> None:
    """
    A function that cannot be imported is sent again when what it refers to has changed, and
    not before.
    """
    rate = 1
    rates = [1]

    def product() -> int:
        return rate * rates[0]

    told = Told()
    assert told.call(product)() == 1
    rate = 2
    assert told.call(product)() == 2
    rates[0] = 3
    assert told.call(product)() == 6
    assert told.call(product)() == 6
    assert len(told.defined) == 3
