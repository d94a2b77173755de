"""
What the tests of processes have children do: so children can import it, and it
imports little itself.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import gc
import logging
import mmap
import os
import pickle
import resource
import signal
import subprocess
import sys
import threading
import time
import warnings
import weakref
from collections.abc import Iterator
from itertools import count
from typing import Any, NoReturn

from asynqueue.testing.calls import Token

_started = count(1)
_prepared: list[str] = []


# Those that say that they begin


def note(path: str, text: str) -> None:
    """
    Append a line to a file, as a whole.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, f"{text}\n".encode())
    os.close(descriptor)


def notedNumber(path: str, number: int) -> tuple[int, int]:
    """
    Note the number, work for a millisecond, and give it back with the process.
    """
    note(path, str(number))
    end = time.perf_counter() + 0.001
    while time.perf_counter() < end:
        pass
    return number, os.getpid()


def aTick() -> None:
    """
    Run until the clock has gone on, which it need not do between two looks.
    """
    start = time.perf_counter()
    while time.perf_counter() <= start:
        pass


def notedSpan(path: str) -> None:
    """
    Note when this begins and ends.
    """
    note(path, "begin")
    pid()
    note(path, "end")


def pid() -> int:
    """
    The process of the call.
    """
    return os.getpid()


def callsHere() -> tuple[int, int]:
    """
    The process of the call, and how many calls of this were made in it.
    """
    return os.getpid(), next(_started)


# Those that never return


def loopForever(gate: Token) -> None:
    """
    A loop in Python.
    """
    gate.signal()
    while True:
        pass


def holdForever(gate: Token) -> None:
    """
    A call in C that never returns, and never lets anybody else run.
    """
    _lockTwice(gate, ctypes.PyDLL(None))


def lockForever(gate: Token) -> None:
    """
    A call in C that never returns.
    """
    _lockTwice(gate, ctypes.CDLL(None))


def _lockTwice(gate: Token, library: Any) -> None:
    # Unlike most that wait, this is not ended by a signal.
    mutex = ctypes.create_string_buffer(256)
    library.pthread_mutex_init(mutex, None)
    library.pthread_mutex_lock(mutex)
    gate.signal()
    library.pthread_mutex_lock(mutex)


def swallowForever(gate: Token) -> None:
    """
    A task that will not be interrupted.
    """
    waits = [lambda: time.sleep(60), gate.signal]
    while True:
        try:
            waits.pop()() if waits[1:] else waits[0]()
        except BaseException:
            pass


def waitInterrupted(gate: Token, path: str) -> None:
    """
    Wait, and note what ends that.
    """
    try:
        gate.signal()
        time.sleep(60)
    except BaseException as error:
        note(path, type(error).__name__)
        raise
    finally:
        note(path, "finally")


# Those that end their process


def exitAtOnce(code: int) -> NoReturn:
    """
    End the process.
    """
    os._exit(code)


def abort() -> NoReturn:
    """
    End it as C code does that gives up.
    """
    os.abort()


def crashInC() -> None:
    """
    Read what is not there.
    """
    ctypes.string_at(0)


def closeAll() -> None:
    """
    Close all descriptors.
    """
    os.closerange(0, 1024)


def closeOutputs() -> None:
    """
    Close the standard output and the standard error.
    """
    os.close(1)
    os.close(2)


def closeStreams() -> None:
    """
    Close the objects of both.
    """
    sys.stdout.close()
    sys.stderr.close()


def allocateForever() -> None:
    """
    Have more and more memory.
    """
    kept = []
    while True:
        kept.append(bytearray(os.urandom(1 << 12) * (1 << 10)))


_leak: list[bytearray] = []


def leak(size: int) -> int:
    """
    Keep so many bytes for ever.
    """
    _leak.append(bytearray(b"x" * size))
    return os.getpid()


def recurse(depth: int = 0) -> int:
    """
    Call itself without end.
    """
    return recurse(depth + 1) + 1


def nested(depth: int) -> list[Any]:
    """
    A list in a list in a list.
    """
    result: list[Any] = []
    for _ in range(depth):
        result = [result]
    return result


# Values


class Breaks:
    """
    Cannot be unpickled in a process of a kind.
    """

    def __init__(self, parent: int, inParent: bool, what: str) -> None:
        self._state = parent, inParent, what

    def __reduce__(self) -> Any:
        return breakIn, self._state


def breakIn(parent: int, inParent: bool, what: str) -> Breaks:
    """
    Unpickle, where that can be done.
    """
    if (os.getpid() == parent) is inParent:
        if what == "exit":
            os._exit(7)
        if what == "sys.exit":
            sys.exit(7)
        raise LookupError(f"{what} cannot be made here")
    return Breaks(parent, inParent, what)


def makeBreaks(parent: int, inParent: bool, what: str) -> Breaks:
    """
    A result of that kind.
    """
    return Breaks(parent, inParent, what)


class Leaving:
    """
    Leaves as it is pickled.
    """

    def __reduce__(self) -> Any:
        sys.exit(4)


class Sly:
    """
    Raises when it is asked for its class.
    """

    @property
    def __class__(self) -> Any:
        raise RuntimeError("no class today")

    def __reduce__(self) -> Any:
        return str, ("sly",)


_made = count(1)


def countMade() -> int:
    """
    Return how often this was called here.
    """
    return next(_made)


def makeLock() -> Any:
    """
    What cannot be pickled.
    """
    return threading.Lock()


def make(kind: type[Any]) -> Any:
    """
    An instance.
    """
    return kind()


def counting(number: int) -> Iterator[int]:
    """
    Some numbers.
    """
    yield from range(number)


def zeros(size: int) -> bytearray:
    """
    So many bytes.
    """
    return bytearray(size)


class Buffer:
    """
    Many bytes that are not there yet, and that travel beside the pickle.
    """

    def __init__(self, size: int) -> None:
        self.size = size

    def __reduce__(self) -> Any:
        return len, (pickle.PickleBuffer(mmap.mmap(-1, self.size)),)


def makeBuffer(size: int) -> Buffer:
    """
    A large result, cheap as long as nobody looks into it.
    """
    return Buffer(size)


def raiseLarge(size: int) -> NoReturn:
    """
    Fail with a message of so many characters.
    """
    raise ValueError("x" * size)


def raiseUnpicklable() -> NoReturn:
    """
    Fail with an exception that a lock is attached to.
    """
    error = ValueError("with a lock")
    error.lock = threading.Lock()  # type: ignore[attr-defined]
    raise error


def raiseLeaving() -> NoReturn:
    """
    Fail with an exception that leaves as it is pickled.
    """
    error = ValueError("with an exit")
    error.leaving = Leaving()  # type: ignore[attr-defined]
    raise error


# What tasks do beside


def sayAll(text: str) -> None:
    """
    Print to both outputs.
    """
    print(f"out {text}")
    print(f"err {text}", file=sys.stderr)


def sayMuch(lines: int) -> None:
    """
    Print very much to the standard error.
    """
    for _ in range(lines):
        sys.stderr.write("äöüß€" * 20 + "\n")


def chatter(gate: Token) -> None:
    """
    Start a thread that logs, warns and prints without end.
    """

    def run() -> None:
        log = logging.getLogger("chatter")
        log.warning("it begins")
        gate.signal()
        while True:
            log.debug("again")
            print("chatter")

    threading.Thread(target=run, daemon=True).start()


def startHelper(path: str) -> int:
    """
    Start a program that never ends, and note its process ID.
    """
    helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
    note(path, str(helper.pid))
    # Nobody shall complain that it was not waited for.
    helper.returncode = 0
    return helper.pid


def startHelperAndHold(gate: Token, path: str) -> None:
    """
    Start one, and never return.
    """
    startHelper(path)
    forkForever(path)
    swallowForever(gate)


def startHelperAndExit(path: str, code: int) -> NoReturn:
    """
    Start one, and end the process.
    """
    startHelper(path)
    os._exit(code)


def forkForever(path: str) -> None:
    """
    Fork, and note the process ID of the fork, which never ends.
    """
    if not os.fork():
        note(path, str(os.getpid()))
        while True:
            signal.pause()


def forkAndWait(code: int) -> int:
    """
    Fork, and tell how the fork ended.
    """
    forked = os.fork()
    if not forked:
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(forked, 0)[1])


def forkAndReturn() -> int:
    """
    Fork, and return in both.
    """
    return os.fork()


def printBoth(text: str) -> None:
    """
    Print text, and bytes after it.
    """
    print(text, end="", flush=True)
    sys.stdout.buffer.write("ä\n".encode())


def printLines(count: int, text: str) -> None:
    """
    Print lines in pieces.
    """
    for _ in range(count):
        print(text, end="", flush=True)
        print(text)


def printItems(count: int) -> Iterator[int]:
    """
    Print each item that is given.
    """
    for number in range(count):
        print(number)
        yield number
    print("end")


def printInAFork() -> None:
    """
    Print in a process of its own, with what was printed before it.
    """
    if os.fork() == 0:
        print("fork", flush=True)
        os._exit(0)
    os.wait()
    print("child")


def printForever() -> None:
    """
    Print numbers, until this is interrupted.
    """
    for number in count():
        print(number)


class FlushExits:
    """
    A stream of somebody's.
    """

    def write(self, text: str) -> int:
        """
        Write nothing.
        """
        return len(text)

    def flush(self) -> NoReturn:
        """
        Exit.
        """
        sys.exit(3)


def replaceOutput() -> int:
    """
    Have such a standard output.
    """
    sys.stdout = FlushExits()  # type: ignore[assignment]
    return os.getpid()


def logAt(*names: str) -> None:
    """
    Log at a low level.
    """
    for name in names:
        logging.getLogger(name).debug("by %s", name)


def setLevel(name: str, level: int) -> None:
    """
    Set the level of a logger.
    """
    logging.getLogger(name).setLevel(level)


def levelsOf(*names: str) -> list[int]:
    """
    Return from which levels on loggers handle records.
    """
    return [logging.getLogger(name).getEffectiveLevel() for name in names]


def logAll(name: str) -> None:
    """
    Log at some levels, and an exception.
    """
    log = logging.getLogger(name)
    log.debug("too low")
    log.warning("beware of %s", "this")
    try:
        int("x")
    except ValueError:
        log.exception("it failed")


def logObjects(name: str) -> None:
    """
    Log what cannot be pickled.
    """
    lock = threading.Lock()
    logging.getLogger(name).error("a lock: %r", lock, extra={"lock": lock, "plain": 5})


class OwnWarning(UserWarning):
    """
    A warning that is ours.
    """


def warn(text: str) -> None:
    """
    Warn.
    """
    warnings.warn(text, OwnWarning, stacklevel=1)


def ownQueue() -> tuple[int, str]:
    """
    Run a program with a ProcessQueue of its own.
    """
    code = (
        "from twisted.internet.task import react\n"
        "from asynqueue import ProcessQueue\n"
        "async def main(reactor):\n"
        "    queue = ProcessQueue(1)\n"
        "    print(await queue.call(pow, 2, 5))\n"
        "    await queue.shutdown()\n"
        "react(lambda reactor: __import__('twisted.internet.defer').internet.defer.Deferred"
        ".fromCoroutine(main(reactor)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def queueWithin() -> int:
    """
    Run a reactor here, with a ProcessQueue.
    """
    from twisted.internet.defer import Deferred

    from asynqueue import ProcessQueue
    from asynqueue.reactors import theReactor

    results: list[int] = []
    loop = theReactor()

    async def main() -> None:
        queue = ProcessQueue(1)
        results.append(await queue.call(pow, 2, 5))
        await queue.shutdown()
        loop.stop()

    loop.callWhenRunning(lambda: Deferred.fromCoroutine(main()))
    loop.run()
    return results[0]


# Preparations


def prepare(word: str) -> None:
    """
    Remember a word.
    """
    _prepared.append(word)


def preparedWith() -> tuple[int, list[str]]:
    """
    The process, and what was remembered in it.
    """
    return os.getpid(), list(_prepared)


def refuse() -> NoReturn:
    """
    An initializer that fails.
    """
    raise LookupError("no database today")


# Streams


def largeItems(path: str, size: int) -> Iterator[bytes]:
    """
    Large items without end, each of which is noted.
    """
    for number in count():
        note(path, str(number))
        yield bytes(size)


def badItem(bad: int, end: int) -> Iterator[Any]:
    """
    Numbers, one of which cannot be pickled.
    """
    for number in range(end):
        yield threading.Lock() if number == bad else number


def dyingNumbers(end: int) -> Iterator[int]:
    """
    Numbers, until the process ends.
    """
    yield from range(end)
    os.kill(os.getpid(), 9)


# Callables


class Counter:
    """
    Has methods, and can be called.
    """

    def __init__(self) -> None:
        self.number = 0

    def get(self) -> int:
        """
        Its number.
        """
        return self.number

    def increase(self, by: int) -> int:
        """
        Its number, greater by so much.
        """
        self.number += by
        return self.number

    def __call__(self, more: int) -> int:
        return self.number + more


class Falsy(list[int]):
    """
    Keeps what it is called with, and is false while that is nothing.
    """

    def __call__(self, n: int) -> int:
        self.append(n)
        return len(self)


def lengthWith(rows: list[int], n: int) -> int:
    """
    The length of a list that has one more.
    """
    rows.append(n)
    return len(rows)


add = functools.partial(sum, start=5)


def killedAsItSends(size: int) -> bytearray:
    """
    A large result, and the end of the process while it is sent.
    """

    def run() -> None:
        time.sleep(0.02)
        os.kill(os.getpid(), 9)

    threading.Thread(target=run, daemon=True).start()
    return bytearray(size)


def waitForNothing() -> None:
    """
    Wait, but not for ever.
    """
    time.sleep(60)


def forkAndLog() -> int:
    """
    Have a fork log, and tell how it ended.
    """
    forked = os.fork()
    if not forked:
        logging.getLogger("fork").error("from a fork")
        sys.stderr.flush()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(forked, 0)[1])


class Garbage:
    """
    Logs as it is collected.
    """

    def __init__(self) -> None:
        self.myself = self
        self.last: Any = None

    def __del__(self) -> None:
        logging.getLogger("garbage").warning("collected")


def collectOften() -> None:
    """
    Have garbage collected at every opportunity.
    """
    gc.set_threshold(1)


async def awaitedByNobody() -> None:
    """
    Do nothing.
    """


def collectAtExit() -> None:
    """
    Leave garbage that logs, warns and prints as it is collected, when this process ends.
    """
    gc.disable()
    Garbage()
    printing, waiting = Garbage(), Garbage()
    printing.last = weakref.finalize(printing, print, "collected")
    waiting.last = awaitedByNobody()
    atexit.register(gc.collect)


def makeGarbage(number: int) -> int:
    """
    Leave something that can be collected.
    """
    Garbage()
    return number


def limitMemory(more: int) -> None:
    """
    Allow this process so many bytes of address space more than it has.
    """
    with open("/proc/self/statm") as file:
        size = int(file.read().split()[0]) * mmap.PAGESIZE + more
    resource.setrlimit(resource.RLIMIT_AS, (size, size))


def numbersBehind(gate: Token, end: int) -> Iterator[int]:
    """
    An iterator of so many numbers, of which all but the first are behind a gate.
    """
    yield 0
    gate.wait()
    yield from range(1, end)


class Sized:
    """
    Has so many bytes.
    """

    def __init__(self, size: int) -> None:
        self.content = bytes(size)


def sizeOf(sized: Sized) -> int:
    """
    How many it has.
    """
    return len(sized.content)
