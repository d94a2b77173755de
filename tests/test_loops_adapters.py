"""
Adapters, over each kind of event loop: a Twisted reactor, an asyncio loop, and an object
that has only add_reader and remove_reader.
"""

from __future__ import annotations

import asyncio
import os
import selectors
import socket
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar, copy_context
from math import inf
from time import monotonic
from types import SimpleNamespace
from typing import Any

import pytest
from kombu.asynchronous import Hub as KombuHub
from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.task import Clock

from asynqueue.errors import ImplementationError
from asynqueue.loops.adapters import AsyncioAdapter, LoopAdapter, ReactorAdapter, adapterOf

# Seconds after which something does not happen.
PATIENCE = 60

# Seconds that a loop waits for something, before a test looks.
STEP = 0.01

# Seconds until what a test never reaches.
NEVER = 10_000


class PlainLoop:
    """
    The least that is an event loop.

    @ivar events: how many events it has seen.
    """

    def __init__(self) -> None:
        self.events = 0
        self._selector = selectors.DefaultSelector()

    def add_reader(self, fd: int, callback: Callable[..., Any], *args: Any) -> None:
        """
        Call this when there is something to read.
        """
        self._selector.register(fd, selectors.EVENT_READ, (callback, args))

    def remove_reader(self, fd: int) -> None:
        """
        Do so no more. It must have been asked for.
        """
        self._selector.unregister(fd)

    def step(self, timeout: float = STEP) -> None:
        """
        Wait for events, and make the calls.
        """
        for key, _ in self._selector.select(timeout):
            if self._selector.get_map().get(key.fd) == key:
                self.events += 1
                callback, args = key.data
                callback(*args)

    @property
    def watched(self) -> int:
        """
        How many descriptors it watches.
        """
        return len(self._selector.get_map())

    def close(self) -> None:
        """
        It is used no more.
        """
        self._selector.close()


class Driver:
    """
    An event loop, and how to let it run.
    """

    def __init__(self, loop: Any, step: Callable[[], Any], close: Callable[[], Any]) -> None:
        self.loop = loop
        self.step = step
        self.close = close

    def until(self, condition: Callable[[], Any]) -> None:
        """
        Let the loop run until a condition holds.
        """
        end = monotonic() + PATIENCE
        while not condition():
            assert monotonic() < end, "it does not happen"
            self.step()


def plainDriver() -> Driver:
    """
    With an object that has only what is needed.
    """
    loop = PlainLoop()
    return Driver(loop, loop.step, loop.close)


def asyncioDriver() -> Driver:
    """
    With an asyncio loop.
    """
    loop = asyncio.new_event_loop()

    def step() -> None:
        loop.call_later(STEP, loop.stop)
        loop.run_forever()

    return Driver(loop, step, loop.close)


def reactorDriver() -> Driver:
    """
    With a Twisted reactor that is not the installed one.
    """
    reactor: Any = EPollReactor()

    def close() -> None:
        waker = reactor._internalReaders.pop()
        reactor.removeReader(waker)
        os.close(waker.i)
        os.close(waker.o)
        reactor._poller.close()

    return Driver(reactor, lambda: reactor.iterate(STEP), close)


def kombuDriver() -> Driver:
    """
    With the loop that kombu and Celery have: of each descriptor it takes one watch.
    """
    loop = KombuHub()

    def step() -> None:
        loop.call_later(STEP, lambda: None)
        loop.run_once()

    # The loop makes its own descriptors in its first turn.
    step()
    return Driver(loop, step, loop.close)


DRIVERS = {
    "plain": plainDriver,
    "asyncio": asyncioDriver,
    "reactor": reactorDriver,
    "kombu": kombuDriver,
}


@pytest.fixture(params=DRIVERS)
def driver(request: pytest.FixtureRequest) -> Iterator[Driver]:
    """
    An event loop of each kind.
    """
    driver = DRIVERS[request.param]()
    yield driver
    driver.close()


@pytest.fixture
def adapter(driver: Driver) -> LoopAdapter:
    """
    The adapter that is made of its loop.
    """
    return adapterOf(driver.loop)


@pytest.fixture
def sockets() -> Iterator[tuple[socket.socket, socket.socket]]:
    """
    Two that are connected, and do not block.
    """
    here, there = socket.socketpair()
    with here, there:
        here.setblocking(False)
        there.setblocking(False)
        yield here, there


def fill(connection: socket.socket) -> int:
    """
    Send until nothing more fits.

    @return: how many bytes did.
    """
    sent = 0
    try:
        while True:
            sent += connection.send(bytes(1 << 16))
    except BlockingIOError:
        return sent


def drain(connection: socket.socket) -> None:
    """
    Read all that is there.
    """
    try:
        while connection.recv(1 << 16):
            pass
    except BlockingIOError:
        pass


def timerThreads() -> list[threading.Thread]:
    """
    The threads that wait for timers.
    """
    return [thread for thread in threading.enumerate() if thread.name == "asynqueue timers"]


def inFork(f: Callable[[], Any]) -> int:
    """
    Do something in a fork, and nothing else.

    @return: its exit code.
    """
    pid = os.fork()
    if not pid:
        try:
            f()
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


# What can be adapted


def test_aReactorIsAHub() -> None:
    """
    A Twisted reactor that watches descriptors has an adapter of its own kind.
    """
    driver = reactorDriver()
    assert isinstance(adapterOf(driver.loop), ReactorAdapter)
    driver.close()


@pytest.mark.parametrize("make", [plainDriver, asyncioDriver])
def test_whatHasReadersIsAHub(make: Callable[[], Driver]) -> None:
    """
    Any object with add_reader and remove_reader has an adapter.
    """
    driver = make()
    assert isinstance(adapterOf(driver.loop), AsyncioAdapter)
    driver.close()


@pytest.mark.parametrize(
    "loop", [None, Clock(), SimpleNamespace(add_reader=print), SimpleNamespace(remove_reader=print)]
)
def test_whatIsNoLoopIsRefused(loop: Any) -> None:
    """
    What cannot watch descriptors is refused, in words that say what is wanted.
    """
    with pytest.raises(ImplementationError, match="add_reader and remove_reader"):
        adapterOf(loop)


# Descriptors


def test_watchTellsWhatCanBeRead(driver: Driver, adapter: LoopAdapter, sockets: Any) -> None:
    """
    When something has come, the callback is called.
    """
    here, there = sockets
    got: list[bytes] = []
    adapter.watch(here.fileno(), lambda: got.append(here.recv(10)))
    there.send(b"one")
    driver.until(lambda: got)
    there.send(b"two")
    driver.until(lambda: len(got) == 2)
    adapter.unwatch(here.fileno())
    assert got == [b"one", b"two"]


def test_watchTellsTheEnd(driver: Driver, adapter: LoopAdapter, sockets: Any) -> None:
    """
    When the other end is closed, the callback is called, too.
    """
    here, there = sockets
    got: list[bytes] = []

    def readable() -> None:
        got.append(here.recv(10))
        adapter.unwatch(here.fileno())

    adapter.watch(here.fileno(), readable)
    there.close()
    driver.until(lambda: got)
    assert got == [b""]


def test_unwatchedIsNotRead(driver: Driver, adapter: LoopAdapter, sockets: Any) -> None:
    """
    What is not watched any more is not told, and may be unwatched again.
    """
    here, there = sockets
    told: list[str] = []
    adapter.watch(here.fileno(), lambda: told.append("no"))
    adapter.unwatch(here.fileno())
    adapter.unwatch(here.fileno())
    there.send(b"one")
    adapter.callLater(0, lambda: told.append("later"))
    driver.until(lambda: told)
    driver.step()
    assert told == ["later"]


def test_writableIsToldOnce(driver: Driver, adapter: LoopAdapter, sockets: Any) -> None:
    """
    That something can be written is told when it can, once for any number of
    requests, and again if it is asked for again.
    """
    here, there = sockets
    told: list[str] = []
    adapter.watch(here.fileno(), lambda: None)
    fill(here)
    adapter.awaitWritable(here.fileno(), lambda: told.append("first"))
    adapter.awaitWritable(here.fileno(), lambda: told.append("again"))
    driver.step()
    assert told == []
    drain(there)
    driver.until(lambda: told)
    driver.step()
    assert told == ["first"]
    adapter.awaitWritable(here.fileno(), lambda: told.append("second"))
    driver.until(lambda: len(told) == 2)
    adapter.unwatch(here.fileno())
    assert told == ["first", "second"]


def test_writableIsToldWhereNothingIsRead(
    driver: Driver, adapter: LoopAdapter, sockets: Any
) -> None:
    """
    That something can be written is told of a descriptor that nobody watches, too.
    """
    here, there = sockets
    told: list[str] = []
    fill(here)
    adapter.awaitWritable(here.fileno(), lambda: told.append("told"))
    driver.step()
    assert told == []
    drain(there)
    driver.until(lambda: told)
    adapter.unwatch(here.fileno())
    assert told == ["told"]


def test_writableMayAskAgainWithin(driver: Driver, adapter: LoopAdapter, sockets: Any) -> None:
    """
    Who could not write all may ask for the next time within the callback.
    """
    here, _ = sockets
    told: list[int] = []

    def writable() -> None:
        told.append(len(told))
        if len(told) < 3:
            adapter.awaitWritable(here.fileno(), writable)

    adapter.watch(here.fileno(), lambda: None)
    adapter.awaitWritable(here.fileno(), writable)
    driver.until(lambda: len(told) == 3)
    driver.step()
    adapter.unwatch(here.fileno())
    assert told == [0, 1, 2]


def test_unwatchedIsNotWritten(driver: Driver, adapter: LoopAdapter, sockets: Any) -> None:
    """
    To unwatch a descriptor also ends the wait for its writability.
    """
    here, _ = sockets
    told: list[str] = []
    adapter.watch(here.fileno(), lambda: None)
    adapter.awaitWritable(here.fileno(), lambda: told.append("no"))
    adapter.unwatch(here.fileno())
    driver.step()
    assert told == []


# Timers


def test_callLaterIsNotNow(driver: Driver, adapter: LoopAdapter) -> None:
    """
    Even with no time at all, the call is not made within this one.
    """
    made: list[str] = []
    adapter.callLater(0, lambda: made.append("made"))
    assert made == []
    driver.until(lambda: made)
    driver.step()
    assert made == ["made"]


def test_callsAreMadeInTheirOrder(driver: Driver, adapter: LoopAdapter) -> None:
    """
    Whichever is due first is made first.
    """
    made: list[str] = []
    last = adapter.callLater(PATIENCE, lambda: made.append("last"))
    adapter.callLater(0, lambda: made.append("first"))
    adapter.callLater(0.01, lambda: made.append("second"))
    driver.until(lambda: len(made) == 2)
    last.cancel()
    assert made == ["first", "second"]


def test_cancelledIsNotMade(driver: Driver, adapter: LoopAdapter) -> None:
    """
    What is cancelled before is not made; the others are.
    """
    made: list[str] = []
    adapter.callLater(0, lambda: made.append("no")).cancel()
    adapter.callLater(0, lambda: made.append("yes"))
    driver.until(lambda: made)
    driver.step()
    assert made == ["yes"]


def test_callsMayAskForOthers(driver: Driver, adapter: LoopAdapter) -> None:
    """
    A call may ask for the next one.
    """
    made: list[int] = []

    def again() -> None:
        made.append(len(made))
        if len(made) < 3:
            adapter.callLater(0, again)

    adapter.callLater(0, again)
    driver.until(lambda: len(made) == 3)
    assert made == [0, 1, 2]


def test_aTimerFarAwayIsNotDue(driver: Driver, adapter: LoopAdapter) -> None:
    """
    A time may be longer than any loop can wait, and may be infinite.
    """
    made: list[str] = []
    timers = [adapter.callLater(far, lambda: made.append("no")) for far in (1e8, 1e12, inf)]
    adapter.callLater(0, lambda: made.append("yes"))
    driver.until(lambda: made)
    driver.step()
    for timer in timers:
        timer.cancel()
    assert made == ["yes"]


# Context variables

variable: ContextVar[str] = ContextVar("variable", default="empty")


def asyncioReactorDriver() -> Driver:
    """
    With a Twisted reactor over an asyncio loop.
    """
    loop = asyncio.new_event_loop()
    reactor: Any = AsyncioSelectorReactor(loop)

    def step() -> None:
        loop.call_later(STEP, loop.stop)
        loop.run_forever()

    def close() -> None:
        waker = reactor._internalReaders.pop()
        reactor.removeReader(waker)
        os.close(waker.i)
        os.close(waker.o)
        loop.close()

    return Driver(reactor, step, close)


@pytest.mark.parametrize("make", [asyncioDriver, asyncioReactorDriver])
def test_contextVariablesStayWithTheCaller(make: Callable[[], Driver], sockets: Any) -> None:
    """
    What a loop calls, it calls in an empty context: not in that of whoever asked for
    it first, which would be kept alive with all that is in it.
    """
    driver = make()
    adapter = adapterOf(driver.loop)
    here, there = sockets
    told: dict[str, str] = {}

    def readable() -> None:
        here.recv(10)
        told["readable"] = variable.get()

    def ask() -> None:
        variable.set("of the caller")
        adapter.watch(here.fileno(), readable)
        adapter.awaitWritable(here.fileno(), lambda: told.update(writable=variable.get()))
        adapter.callLater(0, lambda: told.update(timer=variable.get()))

    copy_context().run(ask)
    there.send(b"one")
    driver.until(lambda: len(told) == 3)
    adapter.unwatch(here.fileno())
    driver.close()
    assert told == dict.fromkeys(("readable", "writable", "timer"), "empty")


# What a reactor does besides


def test_readableAtTheEndOfAReactor(sockets: Any) -> None:
    """
    Who reads a descriptor hears of it when the reactor finds it at its end.
    """
    driver = reactorDriver()
    adapter = adapterOf(driver.loop)
    told: list[str] = []
    adapter.watch(sockets[0].fileno(), lambda: told.append("told"))
    for reader in driver.loop.removeAll():
        reader.connectionLost(None)
        assert reader.logPrefix() == "asynqueue.pool"
    driver.close()
    assert told == ["told"]


def test_aReactorMayTellTooMuch(sockets: Any) -> None:
    """
    A second word that something can be written calls nobody.
    """
    driver = reactorDriver()
    adapter = adapterOf(driver.loop)
    told: list[str] = []
    adapter.watch(sockets[0].fileno(), lambda: None)
    adapter.awaitWritable(sockets[0].fileno(), lambda: told.append("told"))
    (watched,) = driver.loop.getWriters()
    watched.doWrite()
    watched.doWrite()
    adapter.unwatch(sockets[0].fileno())
    driver.close()
    assert told == ["told"]


def test_watchAgainReplaces(driver: Driver, adapter: LoopAdapter, sockets: Any) -> None:
    """
    To watch what is watched already only changes who is told.
    """
    told: list[str] = []
    adapter.watch(sockets[0].fileno(), lambda: told.append("first"))
    adapter.watch(sockets[0].fileno(), lambda: told.append(str(sockets[0].recv(10))))
    sockets[1].send(b"one")
    driver.until(lambda: told)
    adapter.unwatch(sockets[0].fileno())
    driver.step()
    assert told == ["b'one'"]


def test_watchAgainAfterAllReadersWereRemoved(sockets: Any) -> None:
    """
    Somebody else may take all readers out of a reactor: what is watched again is read.
    """
    driver = reactorDriver()
    adapter = adapterOf(driver.loop)
    told: list[str] = []
    adapter.watch(sockets[0].fileno(), lambda: told.append("never"))
    driver.loop.removeAll()
    adapter.watch(sockets[0].fileno(), lambda: told.append(str(sockets[0].recv(10))))
    sockets[1].send(b"one")
    driver.until(lambda: told)
    adapter.unwatch(sockets[0].fileno())
    driver.close()
    assert told == ["b'one'"]


# What a plain loop lacks


@pytest.fixture
def plain() -> Iterator[PlainLoop]:
    """
    A loop without timers.
    """
    loop = PlainLoop()
    yield loop
    loop.close()


def test_writabilityIsMadeOfWhatTheSystemHas(plain: PlainLoop, sockets: Any) -> None:
    """
    Where there is no epoll, a kqueue is asked for writability.
    """
    asked: list[Any] = []
    here, there = sockets
    queue = SimpleNamespace(
        control=lambda changes, most: asked.append((changes, most)),
        fileno=here.fileno,
        close=lambda: asked.append("closed"),
    )
    system = SimpleNamespace(
        kqueue=lambda: queue,
        kevent=lambda *words: words,
        KQ_FILTER_WRITE="write",
        KQ_EV_ADD="add",
    )
    AsyncioAdapter(plain, system).awaitWritable(5, lambda: asked.append("told"))
    there.send(b"it is")
    plain.step()
    assert asked == [([(5, "write", "add")], 0), "closed", "told"]


def until(condition: Callable[[], Any]) -> None:
    """
    Wait for another thread.
    """
    end = monotonic() + PATIENCE
    waiting = threading.Event()
    while not condition():
        assert monotonic() < end, "it does not happen"
        waiting.wait(STEP)


def test_timersEndTheirThread(plain: PlainLoop) -> None:
    """
    With the last timer go the thread and the pipe; the next one brings others.
    """
    adapter = AsyncioAdapter(plain)
    made: list[str] = []
    for name in ("first", "second"):
        adapter.callLater(0, lambda name=name: made.append(name))  # type: ignore[misc]
        assert plain.watched == 1
        while name not in made:
            plain.step()
        assert plain.watched == 0
        until(lambda: not timerThreads())


def test_cancelledTimersEndTheThread(plain: PlainLoop) -> None:
    """
    The thread also ends when the last timer is cancelled, however far away.
    """
    adapter = AsyncioAdapter(plain)
    timers = [adapter.callLater(NEVER, lambda: None) for _ in range(3)]
    assert len(timerThreads()) == 1
    for timer in timers:
        timer.cancel()
    timers[0].cancel()
    assert plain.watched == 0
    until(lambda: not timerThreads())


def test_idleTimersWakeNothing(plain: PlainLoop) -> None:
    """
    As long as no timer is due, the loop has nothing to do.
    """
    adapter = AsyncioAdapter(plain)
    timers = [adapter.callLater(NEVER, lambda: None) for _ in range(3)]
    for _ in range(5):
        plain.step()
    assert plain.events == 0
    for timer in timers:
        timer.cancel()


def test_aDueTimerIsToldOnce(plain: PlainLoop) -> None:
    """
    While the loop is busy with something else, it is told once that a timer is due.
    """
    adapter = AsyncioAdapter(plain)
    made: list[str] = []
    adapter.callLater(0, lambda: made.append("made"))
    late = adapter.callLater(NEVER, lambda: None)
    while not plain.events:
        plain.step()
    plain.step()
    assert made == ["made"]
    assert plain.events == 1
    late.cancel()


def test_oneTimerMayCancelTheNext(plain: PlainLoop) -> None:
    """
    What is cancelled is not made, even if it is due at the same time.
    """
    adapter = AsyncioAdapter(plain)
    made: list[str] = []

    def first() -> None:
        made.append("first")
        second.cancel()

    adapter.callLater(0, first)
    second = adapter.callLater(0, lambda: made.append("second"))
    until(lambda: len(timerThreads()) == 1)
    while not made:
        plain.step()
    plain.step()
    assert made == ["first"]


def test_aTimerThatRaisesHarmsNoOther(plain: PlainLoop) -> None:
    """
    If one raises, the loop sees that; the others are made.
    """
    adapter = AsyncioAdapter(plain)
    made: list[str] = []

    def fail() -> None:
        raise LookupError("a timer of a test")

    adapter.callLater(0, fail)
    adapter.callLater(0, lambda: made.append("made"))

    def run() -> None:
        while True:
            plain.step()

    with pytest.raises(LookupError, match="of a test"):
        run()
    while not made:
        plain.step()
    assert plain.watched == 0


def test_aLateEventIsHarmless(plain: PlainLoop) -> None:
    """
    A loop that has the event of the timers already, as the last one is cancelled,
    makes no call, and does not wait; nor if there are timers again.
    """
    adapter = AsyncioAdapter(plain)
    made: list[str] = []
    timer = adapter.callLater(NEVER, lambda: made.append("no"))
    (late,) = [key.data[0] for key in plain._selector.get_map().values()]
    timer.cancel()
    late()
    other = adapter.callLater(NEVER, lambda: made.append("no"))
    late()
    other.cancel()
    assert made == []


# Forks


def test_aForkLetsGoForItself(adapter: LoopAdapter, driver: Driver, sockets: Any) -> None:
    """
    What a fork lets go is watched by its parent as before, and stands there for a connection
    that has ended.
    """
    here, there = sockets
    came: list[bytes] = []
    adapter.watch(here.fileno(), lambda: came.append(here.recv(1)))

    def letGo() -> None:
        adapter.letGo(here.fileno())
        assert here.recv(1) == b""

    assert inFork(letGo) == 0
    there.send(b"1")
    driver.until(lambda: came)
    assert came == [b"1"]
    adapter.unwatch(here.fileno())


def test_aForkRenewsWhatItCan() -> None:
    """
    A reactor that is closed keeps no other from having its own poller in a fork.
    """
    closed, *drivers = (reactorDriver() for _ in range(4))
    adapters = [adapterOf(driver.loop) for driver in (closed, *drivers)]
    closed.loop._poller.close()
    reading, writing = os.pipe()
    for adapter in adapters[1:]:
        adapter.watch(reading, lambda: None)

    def unwatch() -> None:
        for adapter in adapters[1:]:
            adapter.unwatch(reading)

    assert inFork(unwatch) == 0
    os.write(writing, b"!")
    for driver in drivers:
        poller = driver.loop._poller
        assert reading in [descriptor for descriptor, _ in poller.poll(0)]
        driver.close()
    (waker,) = closed.loop._internalReaders
    for descriptor in (reading, writing, waker.i, waker.o):
        os.close(descriptor)
