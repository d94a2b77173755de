"""
L{asynqueue.methods}: methods and functions are found elsewhere as what they are here.
"""

from __future__ import annotations

import functools
import pickle
from collections.abc import Callable
from types import MethodType
from typing import Any

import pytest

from asynqueue.codec import dumps


def decorated(f: Callable[..., Any]) -> Callable[..., Any]:
    """
    A decorator as most are.
    """

    @functools.wraps(f)
    def wrapper(*args: Any) -> str:
        return f"decorated {f(*args)}"

    return wrapper


def given(self: Any) -> str:
    """
    A function that an instance has for a method.
    """
    return f"given to {self.name}"


class Meta(type):
    """
    Has a method, which its classes have.
    """

    def ofMeta(cls) -> str:
        """
        Of the class.
        """
        return f"meta of {cls.__name__}"


class Base(metaclass=Meta):
    """
    Has methods of each kind.
    """

    def __init__(self, name: str = "it") -> None:
        self.name = name

    def plain(self) -> str:
        """
        A method.
        """
        return f"plain {self.name}"

    def __private(self) -> str:
        return f"private {self.name}"

    @staticmethod
    def __privateStatic() -> str:
        return "private and static"

    @classmethod
    def __privateOfClass(cls) -> str:
        return f"private of {cls.__name__}"

    class __Inner:
        def __hidden(self) -> str:
            return "hidden"

        @classmethod
        def private(cls) -> Any:
            """
            What is private here.
            """
            return cls().__hidden, cls.__hidden

    @decorated
    def wrapped(self) -> str:
        """
        A decorated one.
        """
        return f"wrapped {self.name}"

    @functools.lru_cache  # noqa: B019
    def cached(self) -> str:
        """
        One with a cache.
        """
        return f"cached {self.name}"

    @property
    def asked(self) -> str:
        """
        A property.
        """
        return f"asked {self.name}"

    @asked.setter
    def asked(self, value: str) -> None:
        self.name = value

    @functools.cached_property
    def kept(self) -> str:
        """
        One that is kept.
        """
        return f"kept {self.name}"

    @classmethod
    def ofClass(cls) -> str:
        """
        A method of the class.
        """
        return f"class {cls.__name__}"

    @classmethod
    def private(cls) -> list[Any]:
        """
        What is private here.
        """
        it = cls()
        bound = [it.__private, it.__privateStatic, it.__privateOfClass, cls.__privateOfClass]
        unbound = [cls.__private, cls.__privateStatic]
        return [*bound, *cls.__Inner.private(), cls.__Inner, *unbound]


class Sub(Base):
    """
    Puts its own in the place of some.
    """

    plain = None  # type: ignore[assignment]  # it is about that

    def wrapped(self) -> str:
        """
        Another one.
        """
        return "of the subclass"

    def inherited(self) -> Any:
        """
        The one of the base.
        """
        return super().wrapped

    @classmethod
    def ofClass(cls) -> str:
        """
        Another one.
        """
        return "of the subclass"

    @classmethod
    def inheritedOfClass(cls) -> Any:
        """
        The one of the base.
        """
        return super().ofClass


class Slotted:
    """
    Has no dictionary.
    """

    __slots__ = ()

    def plain(self) -> str:
        """
        A method.
        """
        return "slotted"


class Proxy:
    """
    Has what something else has.
    """

    def __getattribute__(self, name: str) -> Any:
        if name == "plain":
            return lambda: "of something else"
        return super().__getattribute__(name)

    def plain(self) -> str:
        """
        Its own.
        """
        return "of the proxy"


class Callee:
    """
    Can be called, and may be the function of a method.
    """

    def __call__(self, owner: Base) -> str:
        return f"called with {owner.name}"


def again(f: Any) -> Any:
    """
    What another process has of it.
    """
    pickled = dumps(f)
    assert b"cloudpickle" not in pickled
    return pickle.loads(pickled)


BOUND: list[Any] = [
    Base().plain,
    Base().wrapped,
    Base.wrapped.__wrapped__.__get__(Base()),  # type: ignore[attr-defined]
    Base().cached,
    Base.cached.__wrapped__.__get__(Base()),
    MethodType(Base.asked.fget, Base()),  # type: ignore[attr-defined]
    MethodType(given, Base()),
    MethodType(Callee(), Base()),
    Base.ofClass,
    Sub.ofClass,
    Sub().inherited(),
    Sub.inheritedOfClass(),
    Base.plain.__get__(Sub()),
    Base.ofMeta,
    Slotted().plain,
    MethodType(vars(Proxy)["plain"], Proxy()),
    *[f for f in Base.private() if type(f) is MethodType],
]

UNBOUND: list[Any] = [
    Base.plain,
    Base.wrapped,
    Base.wrapped.__wrapped__,  # type: ignore[attr-defined]
    Base.cached.__wrapped__,
    Base.asked.fget,  # type: ignore[attr-defined]
    Base.asked.fset,  # type: ignore[attr-defined]
    Base.kept.func,  # type: ignore[attr-defined]
    Base.ofClass.__func__,  # type: ignore[attr-defined]
    *[f for f in Base.private() if type(f) is not MethodType],
]


@pytest.mark.parametrize("method", BOUND, ids=lambda method: method.__func__)
def test_methodsAreThemselvesElsewhere(method: Any) -> None:
    """
    A method comes with its own function, and with what it is bound to, whatever its
    object has by that name.
    """
    there = again(method)
    assert there.__func__ is method.__func__ or type(method.__func__) is Callee
    assert type(there.__self__) is type(method.__self__)
    assert there() == method()


@pytest.mark.parametrize("f", UNBOUND, ids=lambda f: f.__qualname__)
def test_functionsAreThemselvesElsewhere(f: Any) -> None:
    """
    A function that has no name of its own, or another one within its class, is found.
    """
    assert again(f) is f


def test_attributesOfAnInstanceAreNoMethods() -> None:
    """
    A method is the one of the class, also if the instance has something by its name.
    """
    base = Base()
    method = base.plain
    base.plain = functools.partial(given, base)  # type: ignore[method-assign]
    assert again(method)() == "plain it"


def test_whatHasNoPathTravelsByValue() -> None:
    """
    A method that stands nowhere is sent with its code.
    """

    def local(self: Base) -> str:
        return f"local {self.name}"

    lost = decorated(Base.plain)
    lost.__qualname__ = "Base.nowhere"
    for function in (local, lost):
        there = pickle.loads(dumps(MethodType(function, Base())))
        assert there() == function(Base())
