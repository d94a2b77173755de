"""
What makes the calls of a store.
"""

from __future__ import annotations

import threading
from queue import SimpleQueue
from threading import Thread, get_ident
from typing import Any

import pytest

from asynqueue.stores.errors import StoreUnavailable
from asynqueue.stores.operations import Pause
from asynqueue.stores.store import Store
from asynqueue.stores.thread import DirectRunner, ThreadRunner
from tests.doubles import Heard, errorOf, readingLogs
from tests.engines import ToldEngine

# Seconds after which a test has failed. None waits so long.
PATIENCE = 30


class ThreadReactor:
    """
    A reactor whose calls from threads are made when the test says so.
    """

    def __init__(self) -> None:
        self._calls: SimpleQueue[Any] = SimpleQueue()

    def callFromThread(self, f: Any, *args: Any) -> None:
        """
        Note what to call.
        """
        self._calls.put((f, args))

    def callLater(self, seconds: float, f: Any, *args: Any) -> Any:
        """
        Take a timer that never rings.
        """
        return self

    def active(self) -> bool:
        """
        Say that it does not ring any more.
        """
        return False

    def turn(self) -> None:
        """
        Wait for the next call from a thread, and make it.
        """
        f, args = self._calls.get(timeout=PATIENCE)
        f(*args)

    def result(self, heard: Heard) -> Any:
        """
        Make calls until a Deferred has fired.
        """
        while not heard.results:
            self.turn()
        return heard.result


def test_threadMakesCallsInOrder() -> None:
    """
    Calls are made in another thread, one after the other, and answered in the reactor's.
    """
    reactor = ThreadReactor()
    runner = ThreadRunner("calls", reactor)
    made: list[Any] = []
    runner.do(lambda: made.append(get_ident()))
    runner.do(lambda: runner.answer(made.append, "answered"))
    reactor.turn()
    runner.stop()
    assert made[0] != get_ident()
    assert made[1:] == ["answered"]


def test_threadEndsWhenItIsStopped() -> None:
    """
    A runner that is stopped has no thread, and begins anew when it is used again.
    """
    reactor = ThreadReactor()
    runner = ThreadRunner("calls of a test", reactor)
    for _ in range(2):
        runner.do(lambda: runner.answer(lambda: None))
        reactor.turn()
        assert "calls of a test" in {thread.name for thread in threading.enumerate()}
        runner.stop()
        assert "calls of a test" not in {thread.name for thread in threading.enumerate()}


@pytest.mark.parametrize("error", [ZeroDivisionError, SystemExit])
def test_threadSurvivesWhatACallRaises(error: type[BaseException]) -> None:
    """
    What a call raises is logged, and the next one is made.
    """
    reactor = ThreadReactor()
    runner = ThreadRunner("calls", reactor)

    def failing() -> None:
        raise error

    with readingLogs() as logs:
        runner.do(failing)
        runner.do(lambda: runner.answer(lambda: None))
        reactor.turn()
    runner.stop()
    assert [type(error) for error in logs.errors()] == [error]


def test_threadIsADaemon() -> None:
    """
    The thread does not keep a program from ending.
    """
    reactor = ThreadReactor()
    runner = ThreadRunner("calls", reactor)
    threads: list[Thread] = []
    runner.do(lambda: threads.append(threading.current_thread()))
    runner.stop()
    assert threads[0].daemon


def test_forkHasNoThread() -> None:
    """
    In a fork a runner begins a thread of its own.
    """
    reactor = ThreadReactor()
    runner = ThreadRunner("calls", reactor)
    threads: list[int] = []
    runner.do(lambda: runner.answer(threads.append, get_ident()))
    reactor.turn()
    theirs = runner._thread
    runner.forked()
    runner.do(lambda: runner.answer(threads.append, get_ident()))
    reactor.turn()
    runner.stop()
    assert theirs is not None
    assert len(set(threads)) == 2


def test_storeInAThread() -> None:
    """
    A store opens, does and closes in a thread of its own, which is gone when it is closed.
    """
    reactor = ThreadReactor()
    engine = ToldEngine()
    store = Store(engine, reactor=reactor)
    threads: set[int] = set()
    engine.onOpen = engine.onClose = lambda: threads.add(get_ident())
    reactor.result(Heard(store.open()))
    assert reactor.result(Heard(store.do(Pause("a")))) == Pause("a")
    reactor.result(Heard(store.close()))
    assert len(threads) == 1
    assert get_ident() not in threads
    assert "asynqueue told" not in {thread.name for thread in threading.enumerate()}


def test_manyShareTransactions() -> None:
    """
    What is asked while the engine is busy is done in one transaction.
    """
    reactor = ThreadReactor()
    engine = ToldEngine()
    store = Store(engine, reactor=reactor)
    reactor.result(Heard(store.open()))
    isFree = threading.Event()
    isBusy = threading.Event()

    def answer(operation: Any) -> Any:
        isBusy.set()
        assert isFree.wait(PATIENCE)
        return operation

    engine.answer = answer
    store.do(Pause("first"))
    assert isBusy.wait(PATIENCE)
    heard = [Heard(store.do(Pause(str(n)))) for n in range(100)]
    isFree.set()
    assert [reactor.result(each) for each in heard] == [Pause(str(n)) for n in range(100)]
    reactor.result(Heard(store.close()))
    assert [len(each) for each in engine.transactions] == [1, 100]


def test_noThreadCanBeStarted() -> None:
    """
    Where no thread can be started a store cannot be opened, and says so.
    """

    class Threadless(DirectRunner):
        def do(self, f: Any) -> None:
            raise RuntimeError("can't start new thread")

    error = errorOf(Store(ToldEngine(), Threadless()).open())
    assert isinstance(error, StoreUnavailable)
    assert error.reason == "can't start new thread"
