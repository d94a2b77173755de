"""
L{TaskPool}, driven by each kind of event loop, by a thread, and by whoever waits.
"""

from __future__ import annotations

import errno
import gc
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from functools import partial
from math import inf, nan
from pathlib import Path
from time import monotonic
from typing import Any

import psutil
import pytest

from asynqueue.cores import cores
from asynqueue.errors import QueueRunError, WorkerError
from asynqueue.pool import (
    AsyncResult,
    MaybeEncodingError,
    SoftTimeLimitExceeded,
    TaskPool,
    TimeLimitExceeded,
    WorkerLostError,
)
from asynqueue.pool.eventpool import EventPool
from asynqueue.pool.threadpool import ThreadedPool
from asynqueue.testing.calls import (
    AwkwardError,
    CheckedError,
    Unsendable,
    echo,
    makeUnsendable,
    numbersTo,
    raiseAwkward,
    raiseChecked,
    raiseIt,
    raiseStuck,
)
from tests.doubles import readingLogs
from tests.test_loops_adapters import DRIVERS, PATIENCE, STEP

KINDS = [*DRIVERS, "threads", "nobody"]

# Seconds that no call of these tests takes.
LONG = 10_000

ROOT = Path(__file__).parent.parent.parent

# A context variable of the one who makes a call.
WHOSE = ContextVar("WHOSE", default="nobody's")


class Driven:
    """
    Pools that are driven in one of the ways.

    @ivar driver: the event loop, if there is one.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.driver = DRIVERS[kind]() if kind in DRIVERS else None
        self._pools: list[TaskPool] = []

    def start(self, limit: int = 1, **options: Any) -> TaskPool:
        """
        A pool that runs.
        """
        pool = TaskPool(limit, threads=self.kind == "threads", **options)
        self._pools.append(pool)
        pool.start()
        if self.driver is not None:
            pool.register_with_event_loop(self.driver.loop)
        return pool

    def until(self, condition: Callable[[], Any]) -> None:
        """
        Drive them until a condition holds.
        """
        if self.driver is not None:
            self.driver.until(condition)
            return
        end = monotonic() + PATIENCE
        waiting = threading.Event()
        while not condition():
            assert monotonic() < end, "it does not happen"
            if self.kind == "nobody":
                for pool in self._pools:
                    pool.flush()
            waiting.wait(STEP)

    def get(self, *results: AsyncResult) -> list[Any]:
        """
        The values of results.
        """
        if self.driver is not None:
            self.until(lambda: all(result.ready() for result in results))
        return [result.get(PATIENCE) for result in results]

    def error(self, result: AsyncResult) -> Any:
        """
        What a result raises.
        """
        try:
            value = self.get(result)
        except BaseException as error:
            return error
        raise AssertionError(f"it returned {value!r}")

    def close(self) -> None:
        """
        End all.
        """
        for pool in self._pools:
            pool.terminate()
        if self.driver is not None:
            self.driver.close()


@pytest.fixture(autouse=True)
def noChildSignals() -> Iterator[None]:
    """
    While the main thread waits for that of a pool, nobody handles signals; and Python
    3.11 spins in a thread that is traced, for coverage, as long as one waits for that.
    The reactor has a handler for those of children.
    """
    before = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGCHLD, before)


@pytest.fixture(params=KINDS)
def driven(request: pytest.FixtureRequest) -> Iterator[Driven]:
    """
    Each of the ways to drive a pool.
    """
    driven = Driven(request.param)
    yield driven
    driven.close()


@pytest.fixture(params=["plain", "threads"])
def either(request: pytest.FixtureRequest) -> Iterator[Driven]:
    """
    A loop or a thread: where the way makes no other difference.
    """
    driven = Driven(request.param)
    yield driven
    driven.close()


@pytest.fixture
def plain() -> Iterator[Driven]:
    """
    A loop that has only add_reader and remove_reader.
    """
    driven = Driven("plain")
    yield driven
    driven.close()


@pytest.fixture
def threads() -> Iterator[Driven]:
    """
    A thread.
    """
    driven = Driven("threads")
    yield driven
    driven.close()


class Heard:
    """
    What the callbacks of a call were called with, in their order.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.options: dict[str, Any] = {
            name: partial(self._hear, name)
            for name in ("callback", "error_callback", "accept_callback", "timeout_callback")
        }

    def _hear(self, name: str, *args: Any) -> None:
        self.calls.append((name.removesuffix("callback").rstrip("_"), *args))

    @property
    def names(self) -> list[str]:
        """
        Which were called.
        """
        return [call[0] for call in self.calls]

    def of(self, name: str) -> list[tuple[Any, ...]]:
        """
        What one of them was called with.
        """
        return [call[1:] for call in self.calls if call[0] == name]


class Fifo:
    """
    Where a call waits: C{read}, given to a pool, returns when this is opened.
    """

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.read = path.read_text
        self._path = path
        self._writing = -1

    def isRead(self) -> bool:
        """
        Whether a call waits.
        """
        if self._writing == -1:
            try:
                self._writing = os.open(self._path, os.O_WRONLY | os.O_NONBLOCK)
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
        return self._writing != -1

    def open(self) -> None:
        """
        Let it go on.
        """
        os.write(self._writing, b"opened")
        self.close()

    def close(self) -> None:
        """
        It is used no more.
        """
        if self._writing != -1:
            os.close(self._writing)
            self._writing = -1


@pytest.fixture
def fifo(tmp_path: Path) -> Iterator[Fifo]:
    """
    Where one call waits.
    """
    fifo = Fifo(tmp_path / "fifo")
    yield fifo
    fifo.close()


def _exiting() -> Callable[[int], None]:
    def exitWith(code: int) -> None:
        os._exit(code)

    return exitWith


# Travels by value: the import of this module costs more than many calls.
exitWith = _exiting()


def isGone(pid: int) -> bool:
    """
    Whether there is no such process, or only its remains.
    """
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def inUse() -> tuple[int, int, list[str]]:
    """
    How many descriptors and child processes there are, and which threads.
    """
    children = psutil.Process().children(recursive=True)
    names = sorted(thread.name for thread in threading.enumerate())
    return len(os.listdir("/proc/self/fd")), len(children), names


# Calls


def test_callsAndTheirCallbacks(driven: Driven) -> None:
    """
    A call is accepted by a process, and its value is told once.
    """
    pool = driven.start(2)
    heard = Heard()
    before = monotonic()
    result = pool.apply_async(echo, (1, "two"), {"three": 3}, **heard.options)
    assert driven.get(result) == [((1, "two"), {"three": 3})]
    driven.until(lambda: len(heard.calls) == 2)
    assert result.successful()
    assert heard.names == ["accept", ""]
    assert heard.of("") == [(((1, "two"), {"three": 3}),)]
    ((pid, at),) = heard.of("accept")
    assert pid in pool.info["processes"]
    assert before <= at <= monotonic()


def test_callbacksHaveNoContext(driven: Driven) -> None:
    """
    A callback sees no context variables of anybody: not of the one who waits for a result, and
    so drives the pool, and not of the one who made the call.
    """
    pool = driven.start()
    seen: list[str] = []
    token = WHOSE.set("the caller's")
    try:
        for _ in range(2):
            # The second time there is a process that is up.
            result = pool.apply_async(abs, (-1,), callback=lambda _: seen.append(WHOSE.get()))
            assert result.get(PATIENCE) == 1
        driven.until(lambda: len(seen) == 2)
    finally:
        WHOSE.reset(token)
    assert seen == ["nobody's"] * 2


@pytest.mark.parametrize("seconds", [25 * 86400, 10 * threading.TIMEOUT_MAX, inf])
def test_longWaits(driven: Driven, seconds: float) -> None:
    """
    A result may be waited for longer than the system can wait at once, and a call may take
    longer than that.
    """
    pool = driven.start()
    result = pool.apply_async(abs, (-1,), timeout=seconds, soft_timeout=seconds)
    assert result.get(seconds) == 1


def test_errorsKeepTheirTypes(either: Driven) -> None:
    """
    What a call raises is raised by its result, and told once.
    """
    pool = either.start()
    heard = Heard()
    error = either.error(pool.apply_async(raiseChecked, ("text",), **heard.options))
    either.until(lambda: len(heard.calls) == 2)
    assert type(error) is CheckedError
    assert str(error) == "text"
    assert heard.names == ["accept", "error"]
    assert heard.of("error") == [(error,)]


@pytest.mark.bulk
def test_manyCalls(driven: Driven) -> None:
    """
    Two thousand calls all end, each with its own value, and each told once.
    """
    pool = driven.start(2)
    told: list[int] = []
    results = [pool.apply_async(abs, (-n,), callback=told.append) for n in range(2000)]
    assert driven.get(*results) == list(range(2000))
    driven.until(lambda: len(told) == 2000)
    assert sorted(told) == list(range(2000))


def test_manyLargeCallsAhead(driven: Driven) -> None:
    """
    Without the guard calls are sent ahead, more than fits at once, and each of
    them is accepted and told.
    """
    pool = driven.start(2, putlocks=False)
    heard = [Heard() for _ in range(200)]
    sent = [bytes([n]) * 60_000 for n in range(200)]
    results = [
        pool.apply_async(bytes.upper, (data,), **one.options)
        for data, one in zip(sent, heard, strict=True)
    ]
    assert driven.get(*results) == [data.upper() for data in sent]
    driven.until(lambda: all(len(one.calls) == 2 for one in heard))
    assert all(one.names == ["accept", ""] for one in heard)


def test_callsAheadAreSpread(plain: Driven, tmp_path: Path) -> None:
    """
    Without the guard, too, all processes get calls before one gets two.
    """
    pool = plain.start(2, putlocks=False)
    plain.get(pool.apply_async(abs, (1,)))
    fifos = [Fifo(tmp_path / str(n)) for n in range(2)]
    plain.until(lambda: pool.apply_async(abs, (1,)).get(PATIENCE) and len(pool._pool.pids()) == 2)  # type: ignore[union-attr]
    plain.until(lambda: all(child.calls.isUp for child in pool._pool._supervisors.children))  # type: ignore[union-attr]
    results = [pool.apply_async(one.read) for one in fifos]
    plain.until(lambda: min(one.isRead() for one in fifos))
    for one in fifos:
        one.open()
    assert plain.get(*results) == ["opened"] * 2


def test_callsFromManyThreads(threads: Driven) -> None:
    """
    Any thread may make calls, and wait for them.
    """
    pool = threads.start(2)
    got: dict[int, list[int]] = {}

    def run(name: int) -> None:
        results = [pool.apply_async(abs, (-n,)) for n in range(250)]
        got[name] = [result.get(PATIENCE) for result in results]

    callers = [threading.Thread(target=run, args=(name,)) for name in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert got == {name: list(range(250)) for name in range(4)}


def test_callbacksMayMakeCalls(either: Driven) -> None:
    """
    A callback may make the next call.
    """
    pool = either.start()
    told: list[int] = []

    def returned(value: int) -> None:
        told.append(value)
        if value < 5:
            pool.apply_async(abs, (-value - 1,), callback=returned)

    pool.apply_async(abs, (-1,), callback=returned)
    either.until(lambda: len(told) == 5)
    assert told == [1, 2, 3, 4, 5]


def test_callbacksMayWait(either: Driven) -> None:
    """
    A callback may wait for the result of another call.
    """
    pool = either.start()
    told: list[int] = []

    def returned(value: int) -> None:
        told.append(pool.apply_async(abs, (-value - 1,)).get(PATIENCE))

    pool.apply_async(abs, (-1,), callback=returned)
    either.until(lambda: told)
    assert told == [2]


@pytest.mark.parametrize("error", [LookupError, SystemExit])
def test_callbacksThatRaiseHarmNobody(either: Driven, error: type[BaseException]) -> None:
    """
    What a callback raises is logged, and all goes on: that call, and the next.
    """

    def fail(*args: Any) -> None:
        raise error("of a test")

    names = ("callback", "error_callback", "accept_callback", "timeout_callback")
    options: dict[str, Any] = dict.fromkeys(names, fail)
    with readingLogs() as logs:
        pool = either.start(on_process_exit=fail)
        assert either.get(pool.apply_async(abs, (-1,), **options)) == [1]
        lost = pool.apply_async(time.sleep, (LONG,), timeout=0.1, **options)
        assert isinstance(either.error(lost), TimeLimitExceeded)
        assert either.get(pool.apply_async(abs, (-2,))) == [2]
        pool.stop()
    raised = [str(failure) for failure in logs.errors() if isinstance(failure, error)]
    assert raised == ["of a test"] * 7


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, AwkwardError])
def test_anythingMayBeRaised(threads: Driven, error: type[BaseException]) -> None:
    """
    Exits, and what cannot be made again here, are told like all others, and end no
    process.
    """
    pool = threads.start()
    call: Any = (raiseAwkward, ()) if error is AwkwardError else (raiseIt, (error,))
    result = threads.error(pool.apply_async(*call))
    assert error.__name__ in f"{type(result).__name__} {result}"
    assert threads.get(pool.apply_async(os.getpid)) == pool.info["processes"]


def test_stuckErrorsAreTold(threads: Driven) -> None:
    """
    An exception that cannot be pickled is told in words.
    """
    pool = threads.start()
    assert "StuckError: stuck" in str(threads.error(pool.apply_async(raiseStuck)))


# What cannot be sent


def test_argumentsThatCannotBeSent(either: Driven) -> None:
    """
    A call whose arguments cannot be pickled fails with an error that names the call, and
    harms no other.
    """
    pool = either.start()
    told: list[BaseException] = []
    result = pool.apply_async(echo, (Unsendable(),), error_callback=told.append)
    error = either.error(result)
    assert isinstance(error, MaybeEncodingError)
    assert str(error).startswith("the call echo(")
    assert "this stays where it is" in str(error)
    either.until(lambda: told)
    assert told == [error]
    assert either.get(pool.apply_async(abs, (-1,))) == [1]


@pytest.mark.parametrize("call", [(makeUnsendable, ()), (numbersTo, (3,)), (threading.Lock, ())])
def test_resultsThatCannotBeSent(plain: Driven, call: tuple[Any, Any]) -> None:
    """
    A call whose result must stay where it is fails, and says why.
    """
    pool = plain.start()
    heard = Heard()
    error = plain.error(pool.apply_async(*call, **heard.options))
    assert isinstance(error, MaybeEncodingError)
    assert error.reason
    assert heard.names == ["accept", "error"]
    assert plain.get(pool.apply_async(os.getpid)) == pool.info["processes"]


# Processes that die


def test_processesThatExit(either: Driven) -> None:
    """
    The call of a process that exits fails, its exit is told, and another process
    takes its place.
    """
    exits: list[tuple[int, int]] = []
    pool = either.start(on_process_exit=lambda pid, code: exits.append((pid, code)))
    (pid,) = either.get(pool.apply_async(os.getpid))
    error = either.error(pool.apply_async(exitWith, (7,)))
    assert type(error) is WorkerLostError
    assert (error.pid, error.exitCode, error.signal) == (pid, 7, None)
    assert "exitWith(7)" in str(error)
    either.until(lambda: exits)
    assert exits == [(pid, 7)]
    (other,) = either.get(pool.apply_async(os.getpid))
    assert other != pid


def test_processesThatAreKilled(either: Driven, fifo: Fifo) -> None:
    """
    So it is with one that is killed; the calls that wait are made.
    """
    exits: list[tuple[int, int]] = []
    pool = either.start(on_process_exit=lambda pid, code: exits.append((pid, code)))
    heard = Heard()
    lost = pool.apply_async(fifo.read, **heard.options)
    others = [pool.apply_async(os.getpid) for _ in range(3)]
    either.until(fifo.isRead)
    ((pid, _),) = heard.of("accept")
    os.kill(pid, signal.SIGKILL)
    error = either.error(lost)
    assert type(error) is WorkerLostError
    assert (error.pid, error.exitCode, error.signal) == (pid, None, signal.SIGKILL)
    assert pid not in either.get(*others)
    assert exits == [(pid, -signal.SIGKILL)]
    assert heard.names == ["accept", "error"]


def test_idleProcessesThatDie(plain: Driven) -> None:
    """
    A process that dies without a call is replaced, and nobody else hears of it.
    """
    exits: list[int] = []
    pool = plain.start(on_process_exit=lambda pid, code: exits.append(pid))
    (pid,) = plain.get(pool.apply_async(os.getpid))
    os.kill(pid, signal.SIGKILL)
    plain.until(lambda: exits)
    assert pid not in plain.get(pool.apply_async(os.getpid))
    assert exits == [pid]
    assert pool.did_start_ok()


@pytest.mark.parametrize("number", [None, signal.SIGKILL])
def test_terminateJob(either: Driven, fifo: Fifo, number: int | None) -> None:
    """
    A call can be ended by a signal to its process.
    """
    pool = either.start()
    heard = Heard()
    lost = pool.apply_async(fifo.read, **heard.options)
    either.until(fifo.isRead)
    ((pid, _),) = heard.of("accept")
    if number is None:
        pool.terminate_job(pid)
    else:
        pool.terminate_job(pid, number)
    error = either.error(lost)
    assert type(error) is WorkerLostError
    assert error.signal == (number or signal.SIGTERM)
    with pytest.raises(ValueError, match="no process of this pool"):
        pool.terminate_job(pid)


# Time limits


def test_hardLimits(driven: Driven) -> None:
    """
    A call that takes too long is ended with its process, and that is told.
    """
    pool = driven.start()
    heard = Heard()
    (pid,) = driven.get(pool.apply_async(os.getpid))
    error = driven.error(pool.apply_async(time.sleep, (LONG,), timeout=0.2, **heard.options))
    assert type(error) is TimeLimitExceeded
    assert error.seconds == 0.2
    driven.until(lambda: len(heard.calls) == 3)
    assert heard.names == ["accept", "timeout", "error"]
    assert heard.of("timeout") == [(False, 0.2)]
    assert pid not in driven.get(pool.apply_async(os.getpid))


def test_softLimits(either: Driven) -> None:
    """
    In a call that takes too long an exception is raised, and that is told; the
    process lives on.
    """
    pool = either.start()
    heard = Heard()
    (pid,) = either.get(pool.apply_async(os.getpid))
    error = either.error(pool.apply_async(time.sleep, (LONG,), soft_timeout=0.2, **heard.options))
    assert type(error) is SoftTimeLimitExceeded
    assert error.seconds == 0.2
    either.until(lambda: len(heard.calls) == 3)
    assert heard.names == ["accept", "timeout", "error"]
    assert heard.of("timeout") == [(True, 0.2)]
    assert either.get(pool.apply_async(os.getpid)) == [pid]


def test_softLimitsCanBeCaught(plain: Driven) -> None:
    """
    The call may clean up, and return.
    """

    def clean() -> str:
        try:
            time.sleep(LONG)
        except SoftTimeLimitExceeded as error:
            return f"cleaned up: {error.seconds}"
        return "too late"

    pool = plain.start()
    assert plain.get(pool.apply_async(clean, soft_timeout=0.2)) == ["cleaned up: 0.2"]


def test_theHardLimitComesAfterTheSoft(plain: Driven) -> None:
    """
    A call that goes on after its soft limit is ended at its hard limit.
    """

    def goOn() -> None:
        while True:
            try:
                time.sleep(LONG)
            except SoftTimeLimitExceeded:
                pass

    pool = plain.start(soft_timeout=0.2, timeout=0.4)
    heard = Heard()
    assert isinstance(plain.error(pool.apply_async(goOn, **heard.options)), TimeLimitExceeded)
    assert heard.of("timeout") == [(True, 0.2), (False, 0.4)]


def test_limitsOfTheCallCount(plain: Driven) -> None:
    """
    What is said with a call replaces what was said with the pool, and calls that end
    in time hear nothing of it.
    """
    pool = plain.start(timeout=LONG, soft_timeout=LONG)
    heard = Heard()
    assert isinstance(
        plain.error(pool.apply_async(time.sleep, (LONG,), timeout=0.1)), TimeLimitExceeded
    )
    assert plain.get(pool.apply_async(abs, (-1,), **heard.options)) == [1]
    assert heard.names == ["accept", ""]


def test_limitsBeginWithTheCall(plain: Driven) -> None:
    """
    The start of a process takes nothing of the time of a call.
    """

    def slow() -> None:
        time.sleep(0.5)

    pool = plain.start(initializer=slow, timeout=0.4)
    assert plain.get(pool.apply_async(abs, (-1,))) == [1]


# The start of processes


def test_initializers(either: Driven) -> None:
    """
    Each process makes the initial call, once, before all others.
    """

    def initialize(*args: Any) -> None:
        os.environ["ASYNQUEUE_TEST"] = os.environ.get("ASYNQUEUE_TEST", "") + repr(args)

    pool = either.start(2, initializer=initialize, initargs=[1, "two"])
    results = [pool.apply_async(os.getenv, ("ASYNQUEUE_TEST",)) for _ in range(6)]
    assert either.get(*results) == ["(1, 'two')"] * 6
    assert pool.did_start_ok()


def test_initializersThatRaise(either: Driven) -> None:
    """
    Where the initial call raises, calls fail and say why.
    """
    pool = either.start(initializer=raiseChecked, initargs=("no database",))
    error = either.error(pool.apply_async(abs, (1,)))
    assert isinstance(error, WorkerError)
    assert "no database" in str(error)
    either.until(lambda: not pool.did_start_ok())
    again = either.error(pool.apply_async(abs, (1,)))
    assert "no database" in str(again)


def test_initializersThatCannotBeSent(plain: Driven) -> None:
    """
    So it is if the initial call cannot even be sent: each call fails, also a later
    one.
    """
    pool = plain.start(initializer=echo, initargs=(Unsendable(),))
    for _ in range(5):
        error = plain.error(pool.apply_async(abs, (1,)))
        assert "this stays where it is" in str(error)
    assert not pool.did_start_ok()
    pool.stop()


def test_initializersThatExit(either: Driven) -> None:
    """
    A process that dies as it starts is seen.
    """
    exits: list[int] = []
    pool = either.start(
        initializer=exitWith, initargs=(3,), on_process_exit=lambda pid, code: exits.append(code)
    )
    either.until(lambda: not pool.did_start_ok())
    either.until(lambda: exits)
    assert exits[0] == 3


def test_initializersThatHang(either: Driven, tmp_path: Path) -> None:
    """
    A process that is not of use in time is ended, and another one tried.
    """
    exits: list[tuple[int, int]] = []
    flag = str(tmp_path / "flag")

    def hangOnce() -> None:
        if not os.path.exists(flag):
            os.close(os.open(flag, os.O_CREAT))
            time.sleep(LONG)

    pool = either.start(
        initializer=hangOnce,
        proc_alive_timeout=1.0,
        on_process_exit=lambda pid, code: exits.append((pid, code)),
    )
    (first,) = pool.info["processes"]
    (pid,) = either.get(pool.apply_async(os.getpid))
    assert exits[0] == (first, -signal.SIGKILL)
    assert pid != first
    assert not pool.did_start_ok()


def test_processesThatAreUpInTimeStay(plain: Driven) -> None:
    """
    One that is up in time is not ended, with an initializer or without.
    """
    exits: list[int] = []
    kinds: list[dict[str, Any]] = [{}, {"initializer": abs, "initargs": (1,)}]
    pools = [
        plain.start(
            proc_alive_timeout=1.5, on_process_exit=lambda pid, code: exits.append(pid), **options
        )
        for options in kinds
    ]
    assert all(pool.did_start_ok() for pool in pools)
    results = [pool.apply_async(time.sleep, (1.6,)) for pool in pools]
    assert plain.get(*results) == [None, None]
    assert exits == []


# Processes that are replaced


@pytest.mark.parametrize("options", [{}, {"initializer": abs, "initargs": (1,)}])
def test_maxTasksPerChild(either: Driven, options: dict[str, Any]) -> None:
    """
    A process makes so many calls, and is replaced then.
    """
    pool = either.start(maxtasksperchild=2, **options)
    pids = either.get(*[pool.apply_async(os.getpid) for _ in range(6)])
    assert pids[0::2] == pids[1::2]
    assert len(set(pids)) == 3
    either.until(lambda: all(isGone(pid) for pid in pids))


def test_maxMemoryPerChild(plain: Driven) -> None:
    """
    One that has too much memory is replaced as its call ends, and not before.
    """
    pool = plain.start(max_memory_per_child=1)
    pids = plain.get(*[pool.apply_async(os.getpid) for _ in range(3)])
    assert len(set(pids)) == 3
    assert plain.get(pool.apply_async(time.sleep, (0.4,))) == [None]


def test_enoughMemoryIsNoReason(plain: Driven) -> None:
    """
    One that has less lives on.
    """
    pool = plain.start(max_memory_per_child=10 << 20)
    pids = plain.get(*[pool.apply_async(os.getpid) for _ in range(3)])
    assert len(set(pids)) == 1


def test_restart(either: Driven) -> None:
    """
    All processes are replaced by fresh ones, of which one has made a call.
    """
    pool = either.start(2)
    either.get(pool.apply_async(abs, (1,)))
    before = set(pool.info["processes"])
    pool.restart()
    either.until(lambda: all(isGone(pid) for pid in before))
    either.until(lambda: len(pool.info["processes"]) == 2)
    assert not before & set(pool.info["processes"])
    assert pool.active
    assert pool.did_start_ok()
    assert either.get(pool.apply_async(os.getpid))[0] in pool.info["processes"]


def test_restartEndsCallsFirst(either: Driven, fifo: Fifo) -> None:
    """
    A process that is busy ends its call, and takes no other.
    """
    pool = either.start()
    result = pool.apply_async(fifo.read)
    either.until(fifo.isRead)
    (before,) = pool.info["processes"]
    waiting = pool.apply_async(os.getpid)
    fifo.open()
    pool.restart()
    assert either.get(result) == ["opened"]
    either.get(waiting)
    either.until(lambda: before not in pool.info["processes"])


def test_restartTakesCallsBack(either: Driven, fifo: Fifo) -> None:
    """
    What was sent ahead to a process, and has not begun, is made by a fresh one, and
    its callbacks are told once of its value.
    """
    pool = either.start(putlocks=False)
    heard = [Heard() for _ in range(20)]
    result = pool.apply_async(fifo.read)
    ahead = [pool.apply_async(os.getpid, **one.options) for one in heard]
    either.until(fifo.isRead)
    (before,) = pool.info["processes"]
    fifo.open()
    pool.restart()
    assert either.get(result) == ["opened"]
    either.get(*ahead)
    either.until(lambda: before not in pool.info["processes"])
    either.until(lambda: all(len(one.of("")) == 1 for one in heard))
    assert all(one.of("accept")[-1][0] == one.of("")[0][0] for one in heard)


# Their number


def test_growAndShrink(either: Driven) -> None:
    """
    A pool can be made larger and smaller, while it works.
    """
    pool = either.start()
    pool.grow(2)
    assert pool.num_processes == 3
    either.until(lambda: len(pool.info["processes"]) == 3)
    results = [pool.apply_async(abs, (-n,)) for n in range(50)]
    pool.shrink()
    assert pool.num_processes == 2
    assert either.get(*results) == list(range(50))
    either.until(lambda: len(pool.info["processes"]) == 2)
    pool.shrink(1)
    either.until(lambda: len(pool.info["processes"]) == 1)
    assert pool.info["max-concurrency"] == 1
    assert pool.did_start_ok()


def test_sizesThatCannotBe(threads: Driven) -> None:
    """
    A pool has one process or more, and grows and shrinks by whole numbers, never backwards.
    """
    pool = threads.start(2)
    for change in (pool.grow, pool.shrink):
        for number in (-1, 1.5, 1.0, True, "1", None):
            with pytest.raises(ValueError, match="n must be a whole number, 0 or more"):
                change(number)
    with pytest.raises(ValueError, match="cannot shrink by 2"):
        pool.shrink(2)
    assert pool.num_processes == 2
    for limit in (0, -1, 1.5):
        with pytest.raises(ValueError, match="limit must be a whole number, 1 or more"):
            TaskPool(limit)


@pytest.mark.parametrize("name", ["timeout", "soft_timeout", "proc_alive_timeout"])
def test_limitsThatCannotBe(threads: Driven, name: str) -> None:
    """
    A limit is a number of seconds above 0, for a pool and for a call.
    """
    match = f"{name} must be a number of seconds above 0"
    pool = threads.start(1)
    for limit in (-1, nan):
        with pytest.raises(ValueError, match=match):
            TaskPool(1, **{name: limit}).start()
        if name != "proc_alive_timeout":
            with pytest.raises(ValueError, match=match):
                pool.apply_async(abs, (-1,), **{name: limit})


def test_shrinkEndsCallsFirst(either: Driven, tmp_path: Path) -> None:
    """
    A process that is taken away ends its call first; one without work goes before
    one with.
    """
    pool = either.start(2)
    fifos = [Fifo(tmp_path / str(n)) for n in range(2)]
    results = [pool.apply_async(one.read) for one in fifos]
    either.until(lambda: min(one.isRead() for one in fifos))
    waiting = pool.apply_async(abs, (-5,))
    pool.shrink()
    assert len(pool.info["processes"]) == 2
    for one in fifos:
        one.open()
    assert either.get(*results, waiting) == ["opened", "opened", 5]
    either.until(lambda: len(pool.info["processes"]) == 1)


def test_shrinkEndsWhoIsComing(plain: Driven, tmp_path: Path) -> None:
    """
    A process that is taken away as it starts ends; it is no failure.
    """
    pool = plain.start(2, initializer=abs, initargs=(1,))
    pool.shrink()
    assert plain.get(pool.apply_async(abs, (-1,))) == [1]
    plain.until(lambda: len(pool.info["processes"]) == 1)
    assert pool.did_start_ok()


def test_maintainPool(either: Driven) -> None:
    """
    To maintain a pool does no harm, in any state.
    """
    pool = TaskPool(1)
    pool.maintain_pool()
    pool.flush()
    pool = either.start()
    pool.maintain_pool()
    assert pool.num_processes == len(pool.info["processes"]) == 1
    pool.flush()
    assert either.get(pool.apply_async(abs, (-1,))) == [1]
    pool.stop()
    pool.maintain_pool()
    pool.flush()
    assert pool.info["processes"] == []


# What it says of itself


def test_infoIsComplete(either: Driven) -> None:
    """
    What a pool says of itself is complete, and JSON can carry it.
    """
    pool = either.start(
        2, maxtasksperchild=5, timeout=20.5, soft_timeout=10, putlocks=False, on_process_exit=print
    )
    info = json.loads(json.dumps(pool.info))
    assert len(info.pop("processes")) == 2
    assert info == {
        "max-concurrency": 2,
        "max-tasks-per-child": 5,
        "put-guarded-by-semaphore": False,
        "timeouts": [10, 20.5],
        "writes": "N/A",
    }


def test_infoBeforeTheStart() -> None:
    """
    A pool that never started has no processes to speak of.
    """
    assert json.loads(json.dumps(TaskPool(3).info)) == {
        "max-concurrency": 3,
        "processes": [],
        "max-tasks-per-child": "N/A",
        "put-guarded-by-semaphore": True,
        "timeouts": [0, 0],
        "writes": "N/A",
    }


def test_attributesOfTheClass(plain: Driven) -> None:
    """
    What others look at is there, and what they override is used.
    """
    assert TaskPool.uses_semaphore is True
    assert TaskPool.write_stats is None
    assert issubclass(TaskPool.Pool, EventPool)
    assert issubclass(TaskPool.BlockingPool, ThreadedPool)

    class OwnPool(EventPool):
        pass

    class OwnBlockingPool(ThreadedPool):
        pass

    class Own(TaskPool):
        Pool = OwnPool
        BlockingPool = OwnBlockingPool

        def write_stats(self) -> dict[str, int]:
            return {"total": 5}

    for threaded, kind in ((True, OwnBlockingPool), (False, OwnPool)):
        pool = Own(1, threads=threaded)
        pool.start()
        assert type(pool._pool) is kind
        assert pool.info["writes"] == {"total": 5}
        pool.terminate()


def test_asManyAsThereAreCores() -> None:
    """
    Without a limit there are as many processes as cores that this one may use.
    """
    pool = TaskPool()
    pool.start()
    assert pool.num_processes == cores()
    pool.terminate()


# Its end


def test_stopEndsAllCalls(driven: Driven) -> None:
    """
    To stop is to finish all that was submitted, with its callbacks, and to wait for
    the ends of the processes.
    """
    before = inUse()
    told: list[int] = []
    pool = driven.start(2)
    results = [pool.apply_async(abs, (-n,), callback=told.append) for n in range(50)]
    assert pool.active
    pool.stop()
    assert [result.get(0) for result in results] == list(range(50))
    assert sorted(told) == list(range(50))
    assert not pool.active
    assert pool.info["processes"] == []
    pool.stop()
    pool.terminate()
    pool.close()
    with pytest.raises(QueueRunError):
        pool.apply_async(abs, (1,))
    if driven.driver is not None:
        driven.driver.step()
    assert inUse() == before


def test_terminateEndsAllAtOnce(driven: Driven, fifo: Fifo) -> None:
    """
    To terminate ends the processes; the calls that they make fail, and so do those
    that wait.
    """
    before = inUse()
    pool = driven.start()
    begun = pool.apply_async(fifo.read)
    told: list[BaseException] = []
    waiting = [pool.apply_async(abs, (1,), error_callback=told.append) for _ in range(5)]
    driven.until(fifo.isRead)
    pool.terminate()
    fifo.close()
    assert type(driven.error(begun)) is WorkerLostError
    assert all(type(driven.error(result)) is QueueRunError for result in waiting)
    assert len(told) == 5
    pool.terminate()
    pool.stop()
    assert pool.info["processes"] == []
    assert not pool.did_start_ok()
    assert inUse() == before


def test_terminateWithCallsAhead(either: Driven, fifo: Fifo) -> None:
    """
    Calls that were sent ahead, and had not begun, fail as well, and no process is
    started for them.
    """
    pool = either.start(putlocks=False)
    begun = pool.apply_async(fifo.read)
    ahead = [pool.apply_async(abs, (1,)) for _ in range(50)]
    either.until(fifo.isRead)
    pool.terminate()
    assert type(either.error(begun)) is WorkerLostError
    assert all(type(either.error(result)) is QueueRunError for result in ahead)
    assert pool.info["processes"] == []


@pytest.mark.parametrize("end", ["stop", "terminate"])
def test_endsWhileAProcessStarts(driven: Driven, end: str) -> None:
    """
    A pool can be ended while its processes start, and be started again.
    """
    before = inUse()
    pool = driven.start(2)
    getattr(pool, end)()
    assert inUse() == before
    pool.start()
    getattr(pool, end)()
    assert inUse() == before


@pytest.mark.parametrize("end", ["stop", "terminate", "close"])
def test_neverStarted(end: str) -> None:
    """
    A pool that never started can be ended in any way, again and again, and takes
    no calls.
    """
    pool = TaskPool(2)
    getattr(pool, end)()
    getattr(pool, end)()
    assert not pool.active
    assert not pool.did_start_ok()
    assert pool.num_processes == 0
    for use in (partial(pool.apply_async, abs, (1,)), pool.restart, pool.grow, pool.shrink):
        with pytest.raises(QueueRunError):
            use()
    with pytest.raises(QueueRunError, match="register_with_event_loop"):
        pool.register_with_event_loop(object())


def test_closedTakesNoCalls(either: Driven, fifo: Fifo) -> None:
    """
    A closed pool ends the calls that it has, those that wait, too, and takes no
    other; then its processes go.
    """
    pool = either.start()
    results = [pool.apply_async(fifo.read), pool.apply_async(abs, (-5,))]
    either.until(fifo.isRead)
    pool.close()
    pool.close()
    assert not pool.active
    with pytest.raises(QueueRunError, match="abs"):
        pool.apply_async(abs, (1,))
    fifo.open()
    assert either.get(*results) == ["opened", 5]
    either.until(lambda: pool.info["processes"] == [])
    pool.stop()
    assert not pool.active


def test_startAfterClose(plain: Driven) -> None:
    """
    A closed pool that is started again ends its calls first.
    """
    pool = plain.start()
    result = pool.apply_async(os.getpid)
    pool.close()
    pool.start()
    pool.start()
    assert result.ready()
    assert pool.active
    pool.register_with_event_loop(plain.driver.loop)  # type: ignore[union-attr]
    assert plain.get(pool.apply_async(os.getpid)) != [result.get(0)]


def test_closeWithAProcessThatDies(either: Driven) -> None:
    """
    A closed pool replaces a process that it still needs.
    """
    pool = either.start()
    lost = pool.apply_async(exitWith, (3,))
    result = pool.apply_async(abs, (-5,))
    pool.close()
    assert either.get(result) == [5]
    assert type(either.error(lost)) is WorkerLostError
    pool.stop()


def test_stopObeysTimeLimits(driven: Driven) -> None:
    """
    Time limits hold while somebody waits for the end of a pool.
    """
    pool = driven.start()
    soft = pool.apply_async(time.sleep, (LONG,), soft_timeout=0.1)
    hard = pool.apply_async(time.sleep, (LONG,), timeout=0.1)
    pool.stop()
    assert type(driven.error(soft)) is SoftTimeLimitExceeded
    assert type(driven.error(hard)) is TimeLimitExceeded


def test_stopWritesWhatWaits(driven: Driven) -> None:
    """
    What waits to be written is written while somebody waits for the end.
    """
    pool = driven.start(putlocks=False)
    driven.get(pool.apply_async(abs, (1,)))
    results = [pool.apply_async(len, (bytes(60_000),)) for _ in range(40)]
    pool.stop()
    assert [result.get(0) for result in results] == [60_000] * 40


@pytest.mark.parametrize("end", ["stop", "terminate"])
def test_endsWithinACallback(either: Driven, end: str) -> None:
    """
    A callback may end the pool.
    """
    pool = either.start(2)
    done: list[str] = []

    def returned(value: int) -> None:
        getattr(pool, end)()
        done.append("ended")

    result = pool.apply_async(abs, (-1,), callback=returned)
    assert either.get(result) == [1]
    either.until(lambda: done)
    either.until(lambda: pool.info["processes"] == [])
    assert not pool.active


def test_terminateWhileAnotherThreadStops(threads: Driven, fifo: Fifo) -> None:
    """
    While one thread waits for the end, another one may lose its patience.
    """
    pool = threads.start()
    result = pool.apply_async(fifo.read)
    threads.until(fifo.isRead)
    stopper = threading.Thread(target=pool.stop)
    stopper.start()
    threads.until(lambda: pool._pool is None or pool._pool._jobs._life.name == "CLOSED")
    pool.terminate()
    stopper.join()
    assert type(threads.error(result)) is WorkerLostError


def test_terminateWhileThreadsMakeCalls(threads: Driven) -> None:
    """
    Every call that is taken while the pool is ended, ends.
    """
    pool = threads.start()
    taken: list[AsyncResult] = []
    busy = threading.Event()

    def run() -> None:
        try:
            while True:
                taken.append(pool.apply_async(abs, (-1,)))
                if len(taken) > 100:
                    busy.set()
        except QueueRunError:
            pass

    callers = [threading.Thread(target=run) for _ in range(3)]
    for caller in callers:
        caller.start()
    busy.wait(PATIENCE)
    pool.terminate()
    for caller in callers:
        caller.join()
    assert all(result.wait(PATIENCE) for result in taken)


def test_queuesAreReadWithoutALoop() -> None:
    """
    With neither a thread nor a loop, what a closed pool has left is read and reaped.
    """
    pool = EventPool(2)
    assert pool.apply_async(abs, (-1,)).get(PATIENCE) == 1
    pool.close()
    with readingLogs() as logs:
        pool._outputs.results.on_stop_not_started()
    pool.join()
    assert logs.errors() == []
    assert pool.pids() == []


def test_stopAfterTheLoop() -> None:
    """
    A pool can be stopped when its loop is closed already.
    """
    before = inUse()
    driven = Driven("asyncio")
    pool = driven.start()
    results = [pool.apply_async(abs, (-n,), timeout=LONG) for n in range(5)]
    assert driven.driver is not None
    driven.driver.close()
    pool.stop()
    assert [result.get(0) for result in results] == [0, 1, 2, 3, 4]
    assert inUse() == before


def test_whoWaitsMayBeInTheLoop(plain: Driven) -> None:
    """
    Who asks for a result in the loop drives the pool for so long, and no longer.
    """
    pool = plain.start()
    result = pool.apply_async(abs, (-1,))
    assert result.get(PATIENCE) == 1
    late = pool.apply_async(time.sleep, (LONG,))
    with pytest.raises(TimeoutError):
        late.get(0.05)
    assert not late.ready()


# Signals


def test_processesIgnoreInterrupts(either: Driven, fifo: Fifo) -> None:
    """
    Ctrl-C does nothing to a process, whether it works or not.
    """
    pool = either.start()
    result = pool.apply_async(fifo.read)
    either.until(fifo.isRead)
    (pid,) = pool.info["processes"]
    os.kill(pid, signal.SIGINT)
    fifo.open()
    assert either.get(result) == ["opened"]
    os.kill(pid, signal.SIGINT)
    assert either.get(pool.apply_async(os.getpid)) == [pid]


def runProgram(text: str) -> subprocess.Popen[str]:
    """
    Start a program of its own.
    """
    return subprocess.Popen(
        [sys.executable, "-c", text], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )


SIGNALS = """
import signal
from asynqueue.pool import TaskPool

{before}
pool = TaskPool(1)
pool.start()
names = ["SIGTERM", "SIGHUP", "SIGUSR2", "SIGQUIT"]
results = [pool.apply_async(signal.getsignal, (getattr(signal, name),)) for name in names]
print(*[result.get(60) == signal.SIG_DFL for result in results])
blocked = pool.apply_async(signal.pthread_sigmask, (signal.SIG_BLOCK, []))
print(len(blocked.get(60)))
pool.stop()
"""

HANDLED = """
for name in ("SIGTERM", "SIGHUP", "SIGUSR2"):
    signal.signal(getattr(signal, name), lambda *args: None)
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGUSR2})
"""

IGNORED = """
for name in ("SIGTERM", "SIGHUP", "SIGUSR2"):
    signal.signal(getattr(signal, name), signal.SIG_IGN)
"""


@pytest.mark.parametrize(
    "before",
    [
        HANDLED,
        IGNORED,
    ],
    ids=["handled", "ignored"],
)
def test_signalsAreReset(before: str) -> None:
    """
    What the parent does at signals, ignores or blocks, its processes do not.
    """
    with runProgram(SIGNALS.format(before=before)) as program:
        said = program.communicate(timeout=PATIENCE)[0]
    assert said.splitlines() == ["True True True True", "0"]


PARENT = """
import time
from asynqueue.pool import TaskPool

pool = TaskPool(2, threads={threads})
pool.start()
pool.apply_async(abs, (1,)).get(60)
busy = pool.apply_async(time.sleep, (10_000,))
print(*pool.info["processes"], flush=True)
{end}
"""


@pytest.mark.parametrize("kind", [True, False])
def test_processesDieWithTheirParent(kind: bool) -> None:
    """
    When the parent is killed, all its processes end, also in the middle of a call.
    """
    with runProgram(PARENT.format(threads=kind, end="busy.get()")) as program:
        assert program.stdout is not None
        pids = [int(word) for word in program.stdout.readline().split()]
        assert len(pids) == 2
        program.kill()
    Driven("nobody").until(lambda: all(isGone(pid) for pid in pids))


def test_aProgramNeedNotStopIt() -> None:
    """
    A program that ends without a word to its pool ends, and so do its processes.
    """
    with runProgram(PARENT.format(threads=True, end="")) as program:
        said = program.communicate(timeout=PATIENCE)[0]
    assert program.returncode == 0
    Driven("nobody").until(lambda: all(isGone(int(pid)) for pid in said.split()))


class BreakablePool(ThreadedPool):
    """
    A pool whose thread can be made to fail.
    """

    def breakThread(self, error: BaseException) -> None:
        """
        Have the thread raise something.
        """

        def fail() -> None:
            raise error

        self._loop.callFromThread(fail)


class BreakableTaskPool(TaskPool):
    """
    Those of these tests.
    """

    BlockingPool = BreakablePool


@pytest.mark.parametrize("error", [OSError("no descriptors"), SystemExit(3)], ids=repr)
def test_threadThatDiesFailsAll(error: BaseException) -> None:
    """
    If the thread that drives a pool dies of anything, all that wait are told why, nothing
    is left of the processes, and the pool can be stopped and started again.
    """
    pool = BreakableTaskPool(1)
    pool.start()
    running = pool.apply_async(time.sleep, (LONG,))
    waiting = pool.apply_async(pow, (2, 5))
    broken = pool._pool
    assert isinstance(broken, BreakablePool)
    pids = broken.pids()
    with readingLogs() as logs:
        broken.breakThread(error)
        for result in (running, waiting):
            with pytest.raises(WorkerError, match="what drives its pool has failed") as caught:
                result.get(PATIENCE)
            assert caught.value.__cause__ is error
        broken.join()
    with pytest.raises(QueueRunError) as refused:
        pool.apply_async(pow, (2, 5))
    assert refused.value.__cause__ is error
    assert not any(psutil.pid_exists(pid) for pid in pids)
    assert logs.errors() == [error]
    pool.stop()
    pool.start()
    assert pool.apply_async(pow, (2, 5)).get(PATIENCE) == 32
    pool.stop()


@pytest.mark.parametrize("kind", ["callback", "error_callback", "accept_callback"])
def test_callbacksMayRaiseAnything(threads: Driven, kind: str) -> None:
    """
    What a callback raises is logged, and ends nothing, whatever it is.
    """

    def fail(*args: Any) -> None:
        raise GeneratorExit(kind)

    pool = threads.start()
    exponent = -1 if kind == "error_callback" else 3
    with readingLogs() as logs:
        pool.apply_async(pow, (0, exponent), **{kind: fail}).wait(PATIENCE)
        assert threads.get(pool.apply_async(pow, (2, 5))) == [32]
        pool.stop()
    assert [str(error) for error in logs.errors()] == [kind]


def test_droppedPool() -> None:
    """
    A pool that is dropped without C{stop()} is named in a warning, makes the calls that it
    has, and leaves no process.
    """
    pool = TaskPool(1)
    pool.start()
    result = pool.apply_async(abs, (-1,))
    (pid,) = pool.info["processes"]
    with pytest.warns(ResourceWarning, match="without stop"):
        del pool
    assert result.get(PATIENCE) == 1
    (thread,) = [each for each in threading.enumerate() if each.name == "asynqueue pool"]
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert not psutil.pid_exists(pid)


def test_droppedPoolOnALoop() -> None:
    """
    A pool that a loop drives, and is dropped without C{stop()}, makes the calls that it has,
    calls their callbacks, and leaves no process.
    """
    driver = DRIVERS["asyncio"]()
    pool = TaskPool(1, threads=False)
    pool.start()
    pool.register_with_event_loop(driver.loop)
    (pid,) = pool.info["processes"]
    values: list[Any] = []
    pool.apply_async(time.sleep, (0.01,), callback=values.append)
    pool.apply_async(abs, (-1,), callback=values.append)
    with pytest.warns(ResourceWarning, match="end when its calls have ended"):
        del pool
    driver.until(lambda: not psutil.pid_exists(pid))
    assert values == [None, 1]
    driver.close()


def test_droppedPoolOfNobody() -> None:
    """
    A pool that nothing drives, and is dropped without C{stop()}, makes its calls while
    somebody waits for a result. When nobody can any more, it leaves no process, no descriptor,
    and no warning of these.
    """
    before = len(os.listdir("/proc/self/fd"))
    pool = TaskPool(1, threads=False)
    pool.start()
    (pid,) = pool.info["processes"]
    results = [pool.apply_async(abs, (-number,)) for number in range(3)]
    results += [pool.apply_async(time.sleep, (PATIENCE,))]
    with pytest.warns(ResourceWarning, match="no event loop drives it"):
        del pool
    assert results[1].get(PATIENCE) == 1
    assert psutil.pid_exists(pid)
    results.clear()
    gc.collect()
    assert not psutil.pid_exists(pid)
    assert len(os.listdir("/proc/self/fd")) == before


def test_poolWhoseLoopIsClosed() -> None:
    """
    When its loop is closed, a pool is as one that was registered with none: who waits for a
    result drives it, and it can be dropped.
    """
    driver = DRIVERS["asyncio"]()
    pool = TaskPool(1, threads=False)
    pool.start()
    pool.register_with_event_loop(driver.loop)
    driver.close()
    (pid,) = pool.info["processes"]
    assert pool.apply_async(abs, (-1,), timeout=PATIENCE).get(PATIENCE) == 1
    with pytest.warns(ResourceWarning, match="no event loop drives it"):
        del pool
    gc.collect()
    assert not psutil.pid_exists(pid)
