"""
The loop of a pool, turned by hand, and with each kind of event loop.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from asynqueue.loops.adapters import Timer, adapterOf
from asynqueue.loops.own import OwnLoop
from tests import test_loops_adapters as ofLoops
from tests.test_loops_adapters import DRIVERS, NEVER, Driver, drain, fill

Sockets = tuple[socket.socket, socket.socket]


@pytest.fixture
def own() -> Iterator[OwnLoop]:
    """
    A new one.
    """
    own = OwnLoop()
    yield own
    own.closeWakeUp()


@pytest.fixture
def sockets() -> Iterator[Sockets]:
    """
    Two that are connected, and do not block.
    """
    here, there = socket.socketpair()
    with here, there:
        here.setblocking(False)
        there.setblocking(False)
        yield here, there


# An event loop of each kind.
driver = ofLoops.driver


# Without a loop


def test_turnReadsWhatCanBeRead(own: OwnLoop, sockets: Sockets) -> None:
    """
    A turn calls who reads what has come, and nobody else.
    """
    here, there = sockets
    got: list[bytes] = []
    own.watch(here.fileno(), lambda: got.append(here.recv(10)))
    own.turn(0)
    assert got == []
    there.send(b"one")
    own.turn(None)
    assert got == [b"one"]


def test_unwatchedIsNotRead(own: OwnLoop, sockets: Sockets) -> None:
    """
    What is not watched any more is not told, and may be unwatched again.
    """
    here, there = sockets
    told: list[str] = []
    own.watch(here.fileno(), lambda: told.append("no"))
    own.unwatch(here.fileno())
    own.unwatch(here.fileno())
    there.send(b"one")
    own.turn(0)
    assert told == []


def test_oneReaderMayUnwatchTheNext(own: OwnLoop, sockets: Sockets) -> None:
    """
    Who is unwatched in the same turn is not called any more.
    """
    told: list[int] = []

    def readable(mine: socket.socket, other: socket.socket) -> None:
        told.append(mine.fileno())
        own.unwatch(other.fileno())

    here, there = sockets
    own.watch(here.fileno(), lambda: readable(here, there))
    own.watch(there.fileno(), lambda: readable(there, here))
    here.send(b"one")
    there.send(b"two")
    own.turn(None)
    assert len(told) == 1


def test_writableIsToldOnce(own: OwnLoop, sockets: Sockets) -> None:
    """
    That something can be written is told when it can, and once.
    """
    here, there = sockets
    told: list[str] = []
    own.watch(here.fileno(), lambda: None)
    fill(here)
    own.awaitWritable(here.fileno(), lambda: told.append("first"))
    own.awaitWritable(here.fileno(), lambda: told.append("again"))
    own.turn(0)
    assert told == []
    drain(there)
    own.turn(None)
    own.turn(0)
    assert told == ["first"]


def test_unwatchedIsNotWritten(own: OwnLoop, sockets: Sockets) -> None:
    """
    To unwatch a descriptor also ends the wait for its writability.
    """
    told: list[str] = []
    own.watch(sockets[0].fileno(), lambda: None)
    own.awaitWritable(sockets[0].fileno(), lambda: told.append("no"))
    own.unwatch(sockets[0].fileno())
    own.turn(0)
    assert told == []


def test_turnMakesWhatIsDue(own: OwnLoop) -> None:
    """
    A turn waits for the first timer, and makes what is due in its order.
    """
    made: list[str] = []
    own.callLater(NEVER, lambda: made.append("never"))
    own.callLater(0.002, lambda: made.append("last"))
    own.callLater(0, lambda: made.append("first"))
    own.callLater(0, lambda: made.append("second"))
    assert made == []
    while "last" not in made:
        own.turn(None)
    assert made == ["first", "second", "last"]


def test_turnEndsInTime(own: OwnLoop) -> None:
    """
    A turn that may wait for a moment only ends, though a timer is far away.
    """
    made: list[str] = []
    own.callLater(NEVER, lambda: made.append("never"))
    own.turn(0.001)
    assert made == []


def test_cancelledIsNotMade(own: OwnLoop) -> None:
    """
    What is cancelled before is not made; and again, or afterwards, that does
    nothing.
    """
    made: list[str] = []
    cancelled = own.callLater(0, lambda: made.append("no"))
    cancelled.cancel()
    cancelled.cancel()
    timer = own.callLater(0, lambda: made.append("yes"))
    own.turn(None)
    timer.cancel()
    own.turn(0)
    assert made == ["yes"]


def test_oneTimerMayCancelTheNext(own: OwnLoop) -> None:
    """
    What is cancelled is not made, even if it is due at the same time.
    """
    made: list[str] = []
    later: list[Timer] = []

    def first() -> None:
        later[0].cancel()

    own.callLater(0, first)
    later.append(own.callLater(0, lambda: made.append("no")))
    own.turn(None)
    own.turn(0)
    assert made == []


def test_aTimerMayAskForTheNext(own: OwnLoop) -> None:
    """
    What is asked for within a turn waits for the next one.
    """
    made: list[int] = []

    def again() -> None:
        made.append(len(made))
        own.callLater(0, again)

    own.callLater(0, again)
    for turns in range(1, 4):
        own.turn(None)
        assert len(made) == turns


def test_threadsAreHeard(own: OwnLoop) -> None:
    """
    What another thread asks for ends the wait, and is done by who turns.
    """
    own.openWakeUp()
    made: list[int] = []
    thread = threading.Thread(
        target=lambda: own.callFromThread(lambda: made.append(threading.get_ident()))
    )
    thread.start()
    while not made:
        own.turn(None)
    thread.join()
    assert made == [threading.get_ident()]


def test_manyThreadsAreHeard(own: OwnLoop) -> None:
    """
    Nothing that several threads ask for, more than the pipe takes, is lost, and
    that of each comes in its order.
    """
    own.openWakeUp()
    made: dict[int, list[int]] = {name: [] for name in range(4)}

    def ask(name: int) -> None:
        for number in range(5000):
            own.callFromThread(lambda number=number: made[name].append(number))  # type: ignore[misc]

    threads = [threading.Thread(target=ask, args=(name,)) for name in made]
    for thread in threads:
        thread.start()
    while sum(map(len, made.values())) < 20_000:
        own.turn(None)
    for thread in threads:
        thread.join()
    assert all(numbers == list(range(5000)) for numbers in made.values())


@pytest.mark.bulk
def test_aFullPipeIsNoHindrance(own: OwnLoop) -> None:
    """
    More can be asked for between two turns than the pipe has room for.
    """
    own.openWakeUp()
    made: list[int] = []
    for _ in range(100_000):
        assert own.callFromThread(lambda: made.append(1))
    own.turn(None)
    assert len(made) == 100_000


def test_threadsAreNotHeardOutsideOfItsTime(own: OwnLoop) -> None:
    """
    Before it is open, and after it is closed, nothing is taken; what was before
    the end is done.
    """
    made: list[str] = []
    assert not own.callFromThread(lambda: made.append("too early"))
    own.openWakeUp()
    assert own.callFromThread(lambda: made.append("in time"))
    own.closeWakeUp()
    own.closeWakeUp()
    assert not own.callFromThread(lambda: made.append("too late"))
    own.turn(0)
    assert made == ["in time"]


@pytest.mark.parametrize("far", [25 * 86_400.0, 1e12, float("inf")])
def test_aTimerFarAwayHindersNobody(own: OwnLoop, sockets: Sockets, far: float) -> None:
    """
    A time that is longer than the system can wait, even an infinite one, is waited for in
    parts.
    """
    here, there = sockets
    got: list[bytes] = []
    own.watch(here.fileno(), lambda: got.append(here.recv(10)))
    timer = own.callLater(far, lambda: got.append(b"no"))
    there.send(b"one")
    own.turn(None)
    timer.cancel()
    there.send(b"two")
    own.turn(far)
    assert got == [b"one", b"two"]


# With a loop


def askForAll(own: OwnLoop, here: socket.socket) -> list[str]:
    """
    Have a loop watch a socket, wait until it is writable, and make a call later; one more is
    cancelled.

    @return: what it has told.
    """
    told: list[str] = []
    own.watch(here.fileno(), lambda: told.append(here.recv(10).decode()))
    own.awaitWritable(here.fileno(), lambda: told.append("writable"))
    own.callLater(0, lambda: told.append("timer"))
    own.callLater(0, lambda: told.append("no")).cancel()
    return told


def test_registerMovesAll(own: OwnLoop, sockets: Sockets, driver: Driver) -> None:
    """
    What is watched, awaited and timed by then, the loop looks after.
    """
    here, there = sockets
    told = askForAll(own, here)
    own.register(adapterOf(driver.loop))
    there.send(b"readable")
    driver.until(lambda: len(told) == 3)
    driver.step()
    own.unwatch(here.fileno())
    assert sorted(told) == ["readable", "timer", "writable"]


def test_laterOnesGoToTheLoop(own: OwnLoop, sockets: Sockets, driver: Driver) -> None:
    """
    So does what comes after that.
    """
    here, there = sockets
    own.register(adapterOf(driver.loop))
    told = askForAll(own, here)
    there.send(b"readable")
    driver.until(lambda: len(told) == 3)
    driver.step()
    own.unwatch(here.fileno())
    assert sorted(told) == ["readable", "timer", "writable"]


def test_whoTurnsDoesItDespiteALoop(own: OwnLoop, sockets: Sockets, driver: Driver) -> None:
    """
    Who cannot wait for the loop turns, and what was done so the loop does not do
    again.
    """
    here, there = sockets
    own.register(adapterOf(driver.loop))
    told = askForAll(own, here)
    there.send(b"readable")
    while len(told) < 3:
        own.turn(None)
    driver.step()
    driver.step()
    own.unwatch(here.fileno())
    assert sorted(told) == ["readable", "timer", "writable"]


def test_aSecondLoopTakesOver(own: OwnLoop, sockets: Sockets, driver: Driver) -> None:
    """
    A loop that is registered after another one does all, and the other nothing.
    """
    here, there = sockets
    first = DRIVERS["plain"]()
    told: list[str] = []
    own.watch(here.fileno(), lambda: told.append(here.recv(10).decode()))
    own.callLater(0, lambda: told.append("timer"))
    own.register(adapterOf(first.loop))
    own.register(adapterOf(driver.loop))
    assert first.loop.watched == 0
    there.send(b"readable")
    driver.until(lambda: len(told) == 2)
    own.unwatch(here.fileno())
    first.close()
    assert sorted(told) == ["readable", "timer"]


def test_unregisterTakesAllBack(own: OwnLoop, sockets: Sockets, driver: Driver) -> None:
    """
    After that only who turns does anything, even if the loop is closed by then.
    """
    here, there = sockets
    own.register(adapterOf(driver.loop))
    told = askForAll(own, here)
    there.send(b"readable")
    own.unregister()
    own.unregister()
    driver.step()
    assert told == []
    while len(told) < 3:
        own.turn(None)
    assert sorted(told) == ["readable", "timer", "writable"]
