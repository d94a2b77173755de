"""
A program whose own functions and classes are called in processes: prints what came of
that, a line for each thing that is promised of them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from enum import Enum
from functools import cache, partial, singledispatch
from multiprocessing import get_context
from traceback import print_exc
from typing import Any, NewType

from twisted.internet.defer import gatherResults
from twisted.internet.task import react

from asynqueue import (
    ExecutorWorker,
    ProcessQueue,
    ServerManager,
    TaskPool,
    TaskQueue,
    WireWorker,
)
from asynqueue.exchange import pmap

RATE = 1
TABLE = {"rate": 1}
NESTED = {"rates": [1]}
MISSING = object()


class Unset:
    """
    A sentinel with a class of its own.
    """


UNSET = Unset()
LOCK = threading.Lock()
Number = NewType("Number", int)


class Plain:
    """
    Counts its instances, and uses a global.
    """

    made = 0

    class Inner:
        """
        Is found within.
        """

    def __init__(self) -> None:
        Plain.made += 1

    def price(self) -> int:
        return RATE


class Later:
    """
    As it is pickled, another class changes.
    """

    def __getstate__(self) -> dict[str, Any]:
        Plain.made = 1000
        return {}


@dataclass(slots=True)
class Slotted:
    """
    Has no dictionary.
    """

    x: int


class Colour(Enum):
    """
    Its members are themselves everywhere.
    """

    RED = 1


class Odd(Exception):
    """
    An exception of the program.
    """


def helper() -> str:
    return "old"


@cache
def fib(n: int) -> int:
    return n if n < 2 else fib(n - 1) + fib(n - 2)


@singledispatch
def kind(_: Any) -> str:
    return "any"


@kind.register
def _(_: int) -> str:
    return "int"


def rate() -> int:
    return RATE


def table() -> tuple[int, int]:
    return TABLE["rate"], NESTED["rates"][0]


def helped() -> str:
    return helper()


def price() -> int:
    return Plain().price()


def label() -> str:
    return str(getattr(Plain, "label", "none"))


def same(value: Any) -> Any:
    return value


def isMissing(value: Any = MISSING, other: Any = UNSET) -> bool:
    return value is MISSING and other is UNSET


def work(n: int) -> int:
    return fib(n) * 2


def number() -> int:
    return Number(7)


def call(f: Callable[[], Any]) -> Any:
    return f()


def raiseOdd() -> None:
    raise Odd("odd")


def setOwn(value: int) -> None:
    global OWN  # noqa: PLW0603
    OWN = value


def own() -> int:
    return OWN  # type: ignore[name-defined,no-any-return]


def ownOf(_: Any) -> int:
    return own()


def locked() -> None:
    with LOCK:
        pass


def inner() -> Any:
    return Plain.Inner()


def kinds() -> list[str]:
    return [kind(1), kind("x")]


def say(what: str, *values: Any) -> None:
    print(what, *values, flush=True)


def local() -> tuple[type, Callable[..., Any]]:
    class Local:
        count = 0

    def make() -> Local:
        return Local()

    return Local, make


async def doBack(queue: TaskQueue) -> None:
    """
    What comes back is of the program's own classes, and leaves these as they are.
    """
    back = await queue.call(same, [Plain(), Later()])
    say("instance", type(back[0]) is Plain, Plain.made)
    say("inner", type(await queue.call(inner)) is Plain.Inner)
    say("slots", await queue.call(same, Slotted(3)) == Slotted(3))
    say("enum", await queue.call(same, Colour.RED) is Colour.RED)
    say("class", await queue.call(same, Plain) is Plain)
    say("function", await queue.call(same, helper) is helper)
    try:
        await queue.call(raiseOdd)
    except Exception as error:
        say("exception", type(error) is Odd)
    made, make = local()
    back = queue.call(make)
    made.count = 3  # type: ignore[attr-defined]
    say("local", type(await back) is made, made.count)  # type: ignore[attr-defined]


async def doBehind(queue: TaskQueue) -> None:
    """
    What goes by its name, though it is no function or class.
    """
    say("cache", await queue.call(work, 20), await queue.call(fib, 20))
    say("newtype", await queue.call(number), await queue.call(same, Number) is Number)
    say("default", await queue.call(isMissing), await queue.call(isMissing, 1))
    say("sentinel", await queue.call(isMissing, MISSING, UNSET))
    back = await queue.call(same, (MISSING, UNSET))
    say("sentinel back", back[0] is MISSING, back[1] is UNSET)
    say("dispatch", await queue.call(kinds))


async def doFresh(queue: TaskQueue) -> None:
    """
    Calls get what the program has when they are made.
    """
    global RATE  # noqa: PLW0603
    lines: dict[str, Callable[[], Any]] = {
        "global": lambda: queue.call(rate),
        "containers": lambda: queue.call(table),
        "helper": lambda: queue.call(helped),
        "class method": lambda: queue.call(price),
        "class attribute": lambda: queue.call(label),
        "partial": lambda: queue.call(partial(same, 1)).addCallback(lambda _: queue.call(rate)),
        "bound": lambda: queue.call(plain.price),
        "argument": lambda: queue.call(applied, plain),
    }
    plain = Plain()

    async def everywhere(make: Callable[[], Any]) -> list[Any]:
        # More of them than there are processes.
        return sorted(set(await gatherResults([make() for _ in range(6)])))

    before = {name: await everywhere(make) for name, make in lines.items()}
    RATE = 2
    TABLE["rate"] = 2
    NESTED["rates"][0] = 2
    Plain.label = "new"  # type: ignore[attr-defined]
    exec("def helper(): return 'new'", globals())
    for name, make in lines.items():
        say(name, *before[name], *await everywhere(make))
    RATE = 1
    say("back again", *await everywhere(lines["global"]))
    first = [queue.call(rate) for _ in range(3)]
    RATE = 5
    say("in order", await gatherResults([*first, queue.call(rate)]))


def applied(plain: Plain) -> int:
    return plain.price()


def numbers() -> Iterator[int]:
    for _ in range(2):
        yield RATE


async def doOne(queue: TaskQueue) -> None:
    """
    The main module of a process is one: what a call sets there, others see.
    """
    await queue.update(setOwn, 5)
    say("update", await queue.call(own), await queue.call(lambda: OWN))  # type: ignore[name-defined]
    say("map", [x async for x in queue.map(ownOf, range(3))])
    say("instances mapped", [type(x) is Plain async for x in queue.map(same, [Plain(), Plain()])])
    try:
        await queue.call(locked)
    except Exception as error:
        say("lock", error)


async def doHost() -> None:
    """
    The same with a host that takes code.
    """
    global RATE  # noqa: PLW0603
    manager = ServerManager(processes=1)
    where = manager.newSocket()
    await manager.spawn(where)
    queue = TaskQueue()
    await queue.attachWorker(WireWorker(None, where))
    Plain.made = RATE = 0
    back = await queue.call(same, [Plain(), Later()])
    say("host", type(back[0]) is Plain, Plain.made, await queue.call(work, 20))
    first = await queue.call(rate)
    RATE = 1
    say("host later", first, await queue.call(rate))
    await doElsewhere(queue, "host's")
    await queue.shutdown()
    await manager.shutdown()


async def doElsewhere(queue: TaskQueue, whose: str) -> None:
    """
    What calls set in another program, later calls of this one see.
    """
    await queue.call(setOwn, 5)
    say(f"{whose} global", await queue.call(own), await queue.call(ownOf, None))
    sentinel = await queue.call(isMissing), await queue.call(isMissing, MISSING, UNSET)
    back = await queue.call(same, MISSING), await queue.call(same, UNSET)
    say(f"{whose} sentinel", *sentinel, back[0] is MISSING, back[1] is UNSET)
    Plain.label = "first"  # type: ignore[attr-defined]
    first = await queue.call(label)
    Plain.label = "second"  # type: ignore[attr-defined]
    say(f"{whose} class", first, await queue.call(label))


def inSpawned() -> None:
    """
    Run in a process of multiprocessing, whose main module is this one under another name.
    """

    async def inner(_: Any) -> None:
        queue = ProcessQueue(1)
        back = await queue.call(same, Plain())
        say("spawned", await queue.call(rate), type(back) is Plain)
        await queue.shutdown()

    react(inner)


def inForks() -> None:
    before = Plain()
    values = list(pmap(same, [before, Colour.RED, helper], 2))
    say("forks", type(values[0]) is Plain, values[1] is Colour.RED, values[2] is helper)
    try:
        list(pmap(call, [raiseOdd], 2))
    except Exception as error:
        say("fork's exception", type(error) is Odd)


def inPool() -> None:
    pool = TaskPool(1, threads=True, initializer=setOwn, initargs=(7,))
    pool.start()
    say("initializer", pool.apply_async(own).get(60))
    pool.stop()


async def main(_: Any) -> None:
    queue: TaskQueue = ProcessQueue(2, minimum=2)
    for part in (doBack, doBehind, doFresh, doOne):
        try:
            await part(queue)
        except Exception:
            # The others can be told all the same.
            print_exc()
    await queue.shutdown()
    with ProcessPoolExecutor(1) as executor:
        queue = TaskQueue(ExecutorWorker(executor))
        Plain.made = 0
        back = await queue.call(same, [Plain(), Later()])
        say("executor", type(back[0]) is Plain, Plain.made, await queue.call(work, 20))
        await doElsewhere(queue, "executor's")
        await queue.shutdown()
    await doHost()


if __name__ == "__main__":
    for part in (inForks, inPool):
        try:
            part()
        except Exception:
            print_exc()
    process = get_context("spawn").Process(target=inSpawned)
    process.start()
    process.join()
    react(main)
