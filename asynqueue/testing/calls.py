"""
What the checks have workers call, wherever those run it: so these functions can
be imported there, and import little themselves.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextvars import ContextVar
from itertools import count
from typing import Any, NoReturn, Protocol

from attrs import frozen

#: Is set by a caller and looked at by what it calls.
whose: ContextVar[str] = ContextVar("whose", default="nobody's")

_numbers = count()


class Token(Protocol):
    """
    Stands for a gate where a call runs.
    """

    def wait(self) -> Any:
        """
        Wait until the gate is open.

        @return: in the reactor, a Deferred that fires then.
        """

    def signal(self) -> None:
        """
        Tell the gate that somebody has come by.
        """


@frozen
class Address:
    """
    A gate that is reached from other threads, and from other processes of this
    host: to be connected is to have come, and to be disconnected is to go on.
    """

    host: str
    port: int

    def wait(self) -> None:
        """
        Block until the gate is open, or gone.
        """
        try:
            with socket.create_connection((self.host, self.port)) as connection:
                while connection.recv(1):
                    pass
        except OSError:
            # The gate is gone: nobody is to wait any more.
            pass

    def signal(self) -> None:
        """
        Connect, and leave.
        """
        try:
            socket.create_connection((self.host, self.port)).close()
        except OSError:
            # The gate is gone: nobody counts any more.
            pass


class AwkwardError(Exception):
    """
    Cannot be made from its C{args} alone, as unpickling would.
    """

    def __init__(self, name: str, number: int) -> None:
        super().__init__(f"{name} {number}")
        self.name = name
        self.number = number


class StuckError(Exception):
    """
    Cannot be pickled.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.lock = threading.Lock()


class Unsendable:
    """
    Cannot be pickled.
    """

    def __reduce__(self) -> NoReturn:
        raise TypeError("this stays where it is")


class CheckedError(ValueError):
    """
    What a call raises, and no library does.
    """


def echo(*args: Any, **kw: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """
    Return what it was called with.
    """
    return args, kw


def nextNumber() -> int:
    """
    Return a number one higher than that of the last call in the same process.
    """
    return next(_numbers)


def numbered(name: int) -> tuple[int, int]:
    """
    Return what it was called with, and the next number.
    """
    return name, nextNumber()


def signalAt(gate: Token) -> None:
    """
    Only be counted.
    """
    gate.signal()


def whereAmI() -> tuple[int, int]:
    """
    Return the process and the thread of the call.
    """
    return os.getpid(), threading.get_ident()


def whoseCall() -> str:
    """
    Return what the caller's context variable says.
    """
    return whose.get()


def raiseChecked(text: str) -> NoReturn:
    """
    Fail.
    """
    raise CheckedError(text)


def raiseAwkward() -> NoReturn:
    """
    Fail with what unpickling cannot make.
    """
    raise AwkwardError("awkward", 2)


def raiseStuck() -> NoReturn:
    """
    Fail with what cannot be pickled.
    """
    raise StuckError("stuck")


def raiseIt(error: type[BaseException]) -> NoReturn:
    """
    Fail with an exception of a type.
    """
    raise error("raised by a task")


def makeUnsendable() -> Unsendable:
    """
    Return a result that cannot be pickled.
    """
    return Unsendable()


def sayHello() -> str:
    """
    Write to the standard output.
    """
    # The standard output of a child may be anything; it must not be what its
    # results are sent by.
    print("hello from a task", flush=True)  # noqa: T201
    return "said"


def waitAt(gate: Token) -> Any:
    """
    Wait until the gate is open.
    """
    return gate.wait()


def numbersTo(end: int) -> Iterator[int]:
    """
    Return an iterator of the numbers below C{end}.
    """
    yield from range(end)


def numbersThenRaise(end: int, text: str) -> Iterator[int]:
    """
    Return an iterator of the numbers below C{end}, which then fails.
    """
    yield from range(end)
    raise CheckedError(text)


def numbersForever(each: Token, end: Token) -> Iterator[int]:
    """
    Give an infinite iterator, which signals at each number, and as it is closed.
    """
    try:
        for number in count():
            each.signal()
            yield number
    finally:
        end.signal()
