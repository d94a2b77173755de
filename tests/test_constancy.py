"""
L{asynqueue.constancy}: what is made once, and what for each call anew.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from functools import lru_cache, partial, wraps
from typing import Any

import cloudpickle
import pytest

from asynqueue.constancy import ClosedCallable, Constant, isConstant
from asynqueue.outcome import describeCall
from asynqueue.testing.calls import echo


class Thing:
    """
    Has methods of each kind.
    """

    def method(self) -> None:
        """
        Of an instance.
        """

    @classmethod
    def ofClass(cls) -> None:
        """
        Of the class.
        """

    @staticmethod
    def static() -> None:
        """
        Of none.
        """

    def __call__(self) -> None:
        """
        Of what can be called.
        """


class Ours(Constant):
    """
    Says of itself that it is constant.
    """

    def __call__(self) -> None:
        """
        It does nothing.
        """


def closure(value: Any) -> Callable[[], Any]:
    """
    A function that has a value of the function around it.
    """
    return lambda: value


def factorial() -> Callable[[int], int]:
    """
    A function that has itself.
    """

    def inner(n: int) -> int:
        return n * inner(n - 1) if n else 1

    return inner


def counting() -> Callable[[], int]:
    """
    A function that counts its calls.
    """
    n = 0

    def inner() -> int:
        nonlocal n
        n += 1
        return n

    return inner


def countingWithin() -> Callable[[], Callable[[], None]]:
    """
    The same, by a function within it.
    """
    n = 0

    def inner() -> Callable[[], None]:
        def set() -> None:
            nonlocal n
            n += 1

        return set

    return inner


def deleting() -> Callable[[], None]:
    """
    A function that deletes a variable of the function around it.
    """
    n = 0

    def inner() -> None:
        nonlocal n
        del n

    return inner


def unset() -> Callable[[], Any]:
    """
    A function that has a variable of the function around it that is not set.
    """

    def inner() -> Any:
        return never

    if not inner:
        never = 1
    return inner


def selfNoting() -> Callable[[], None]:
    """
    A function that counts in an attribute of itself, when it is called.
    """

    def inner() -> None:
        inner.calls = getattr(inner, "calls", 0) + 1  # type: ignore[attr-defined]

    return inner


def decorated(f: Callable[..., Any]) -> Callable[..., Any]:
    """
    A function in another one, which tells of it.
    """

    @wraps(f)
    def inner(*args: Any) -> Any:
        return f(*args)

    return inner


def noted() -> Callable[[], None]:
    """
    A function that may count in an attribute of itself.
    """

    def inner() -> None:
        """
        It does nothing.
        """

    inner.calls = 0  # type: ignore[attr-defined]
    return inner


def again(f: Any) -> Any:
    """
    The same callable by value, as a child has it.
    """
    return pickle.loads(cloudpickle.dumps(f))


@pytest.mark.parametrize(
    "f",
    [
        echo,
        len,
        math.floor,
        dict,
        Thing,
        Thing.static,
        Ours(),
        again(lambda n: n),
        again(lambda n, k=(1, frozenset({"a"})): n),
        again(closure(3)),
        again(closure(math)),
        again(closure((1, closure(2)))),
        again(factorial()),
        again(decorated(closure(3))),
    ],
)
def test_whatNoCallChangesIsConstant(f: Callable[..., Any]) -> None:
    """
    Functions, classes and closures of what cannot change are constant.
    """
    assert isConstant(f)


@pytest.mark.parametrize(
    "f",
    [
        Thing().method,
        Thing(),
        [].append,
        "{}".format,
        partial(echo, 1),
        lru_cache(echo),
        again(counting()),
        again(countingWithin()),
        again(deleting()),
        again(unset()),
        again(noted()),
        again(selfNoting()),
        again(decorated(noted())),
        again(decorated(counting())),
        again(closure([])),
        again(closure(Thing())),
        again(closure(closure({}))),
        again(lambda n, k=[]: n),
        again(lambda *, k=[]: k),
    ],
)
def test_whatACallMayChangeIsNot(f: Callable[..., Any]) -> None:
    """
    What has a state, or may have one, is not.
    """
    assert not isConstant(f)


def test_aClosedCallableOpensItselfAsItIsCalled() -> None:
    """
    A callable that is still pickled can be called like any other, also after a journey; what
    a call may change is made for each. What it is called is not known before.
    """
    echoing = ClosedCallable(pickle.dumps(echo))
    assert echoing(1, two=2) == pickle.loads(pickle.dumps(echoing))(1, two=2)
    assert echoing.opened() is echo
    counted = ClosedCallable(cloudpickle.dumps(counting()))
    assert (counted(), counted()) == (1, 1)
    with pytest.raises(TypeError, match="cannot be called"):
        ClosedCallable(pickle.dumps("no function"))()
    assert describeCall(counted, (1,), {}) == "<a callable that came pickled>(1)"
