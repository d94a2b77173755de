"""
The switchboard of a pool, turned by hand, and with each kind of event loop.
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
def board() -> Iterator[OwnLoop]:
    """
    A new one.
    """
    board = OwnLoop()
    yield board
    board.closeWakeUp()


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


def test_turnReadsWhatCanBeRead(board: OwnLoop, sockets: Sockets) -> None:
    """
    A turn calls who reads what has come, and nobody else.
    """
    here, there = sockets
    got: list[bytes] = []
    board.watch(here.fileno(), lambda: got.append(here.recv(10)))
    board.turn(0)
    assert got == []
    there.send(b"one")
    board.turn(None)
    assert got == [b"one"]


def test_unwatchedIsNotRead(board: OwnLoop, sockets: Sockets) -> None:
    """
    What is not watched any more is not told, and may be unwatched again.
    """
    here, there = sockets
    told: list[str] = []
    board.watch(here.fileno(), lambda: told.append("no"))
    board.unwatch(here.fileno())
    board.unwatch(here.fileno())
    there.send(b"one")
    board.turn(0)
    assert told == []


def test_oneReaderMayUnwatchTheNext(board: OwnLoop, sockets: Sockets) -> None:
    """
    Who is unwatched in the same turn is not called any more.
    """
    told: list[int] = []

    def readable(mine: socket.socket, other: socket.socket) -> None:
        told.append(mine.fileno())
        board.unwatch(other.fileno())

    here, there = sockets
    board.watch(here.fileno(), lambda: readable(here, there))
    board.watch(there.fileno(), lambda: readable(there, here))
    here.send(b"one")
    there.send(b"two")
    board.turn(None)
    assert len(told) == 1


def test_writableIsToldOnce(board: OwnLoop, sockets: Sockets) -> None:
    """
    That something can be written is told when it can, and once.
    """
    here, there = sockets
    told: list[str] = []
    board.watch(here.fileno(), lambda: None)
    fill(here)
    board.awaitWritable(here.fileno(), lambda: told.append("first"))
    board.awaitWritable(here.fileno(), lambda: told.append("again"))
    board.turn(0)
    assert told == []
    drain(there)
    board.turn(None)
    board.turn(0)
    assert told == ["first"]


def test_unwatchedIsNotWritten(board: OwnLoop, sockets: Sockets) -> None:
    """
    To unwatch a descriptor also ends the wait for its writability.
    """
    told: list[str] = []
    board.watch(sockets[0].fileno(), lambda: None)
    board.awaitWritable(sockets[0].fileno(), lambda: told.append("no"))
    board.unwatch(sockets[0].fileno())
    board.turn(0)
    assert told == []


def test_turnMakesWhatIsDue(board: OwnLoop) -> None:
    """
    A turn waits for the first timer, and makes what is due in its order.
    """
    made: list[str] = []
    board.callLater(NEVER, lambda: made.append("never"))
    board.callLater(0.002, lambda: made.append("last"))
    board.callLater(0, lambda: made.append("first"))
    board.callLater(0, lambda: made.append("second"))
    assert made == []
    while "last" not in made:
        board.turn(None)
    assert made == ["first", "second", "last"]


def test_turnEndsInTime(board: OwnLoop) -> None:
    """
    A turn that may wait for a moment only ends, though a timer is far away.
    """
    made: list[str] = []
    board.callLater(NEVER, lambda: made.append("never"))
    board.turn(0.001)
    assert made == []


def test_cancelledIsNotMade(board: OwnLoop) -> None:
    """
    What is cancelled before is not made; and again, or afterwards, that does
    nothing.
    """
    made: list[str] = []
    cancelled = board.callLater(0, lambda: made.append("no"))
    cancelled.cancel()
    cancelled.cancel()
    timer = board.callLater(0, lambda: made.append("yes"))
    board.turn(None)
    timer.cancel()
    board.turn(0)
    assert made == ["yes"]


def test_oneTimerMayCancelTheNext(board: OwnLoop) -> None:
    """
    What is cancelled is not made, even if it is due at the same time.
    """
    made: list[str] = []
    later: list[Timer] = []

    def first() -> None:
        later[0].cancel()

    board.callLater(0, first)
    later.append(board.callLater(0, lambda: made.append("no")))
    board.turn(None)
    board.turn(0)
    assert made == []


def test_aTimerMayAskForTheNext(board: OwnLoop) -> None:
    """
    What is asked for within a turn waits for the next one.
    """
    made: list[int] = []

    def again() -> None:
        made.append(len(made))
        board.callLater(0, again)

    board.callLater(0, again)
    for turns in range(1, 4):
        board.turn(None)
        assert len(made) == turns


def test_threadsAreHeard(board: OwnLoop) -> None:
    """
    What another thread asks for ends the wait, and is done by who turns.
    """
    board.openWakeUp()
    made: list[int] = []
    thread = threading.Thread(
        target=lambda: board.callFromThread(lambda: made.append(threading.get_ident()))
    )
    thread.start()
    while not made:
        board.turn(None)
    thread.join()
    assert made == [threading.get_ident()]


def test_manyThreadsAreHeard(board: OwnLoop) -> None:
    """
    Nothing that several threads ask for, more than the pipe takes, is lost, and
    that of each comes in its order.
    """
    board.openWakeUp()
    made: dict[int, list[int]] = {name: [] for name in range(4)}

    def ask(name: int) -> None:
        for number in range(5000):
            board.callFromThread(lambda number=number: made[name].append(number))  # type: ignore[misc]

    threads = [threading.Thread(target=ask, args=(name,)) for name in made]
    for thread in threads:
        thread.start()
    while sum(map(len, made.values())) < 20_000:
        board.turn(None)
    for thread in threads:
        thread.join()
    assert all(numbers == list(range(5000)) for numbers in made.values())


@pytest.mark.bulk
def test_aFullPipeIsNoHindrance(board: OwnLoop) -> None:
    """
    More can be asked for between two turns than the pipe has room for.
    """
    board.openWakeUp()
    made: list[int] = []
    for _ in range(100_000):
        assert board.callFromThread(lambda: made.append(1))
    board.turn(None)
    assert len(made) == 100_000


def test_threadsAreNotHeardOutsideOfItsTime(board: OwnLoop) -> None:
    """
    Before it is open, and after it is closed, nothing is taken; what was before
    the end is done.
    """
    made: list[str] = []
    assert not board.callFromThread(lambda: made.append("too early"))
    board.openWakeUp()
    assert board.callFromThread(lambda: made.append("in time"))
    board.closeWakeUp()
    board.closeWakeUp()
    assert not board.callFromThread(lambda: made.append("too late"))
    board.turn(0)
    assert made == ["in time"]


@pytest.mark.parametrize("far", [25 * 86_400.0, 1e12, float("inf")])
def test_aTimerFarAwayHindersNobody(board: OwnLoop, sockets: Sockets, far: float) -> None:
    """
    A time that is longer than the system can wait, even an infinite one, is waited for in
    parts.
    """
    here, there = sockets
    got: list[bytes] = []
    board.watch(here.fileno(), lambda: got.append(here.recv(10)))
    timer = board.callLater(far, lambda: got.append(b"no"))
    there.send(b"one")
    board.turn(None)
    timer.cancel()
    there.send(b"two")
    board.turn(far)
    assert got == [b"one", b"two"]


# With a loop


def test_registerMovesAll(board: OwnLoop, sockets: Sockets, driver: Driver) -> None:
    """
    What is watched, awaited and timed by then, the loop looks after.
    """
    here, there = sockets
    told: list[str] = []
    board.watch(here.fileno(), lambda: told.append(here.recv(10).decode()))
    board.awaitWritable(here.fileno(), lambda: told.append("writable"))
    board.callLater(0, lambda: told.append("timer"))
    board.callLater(0, lambda: told.append("no")).cancel()
    board.register(adapterOf(driver.loop))
    there.send(b"readable")
    driver.until(lambda: len(told) == 3)
    driver.step()
    board.unwatch(here.fileno())
    assert sorted(told) == ["readable", "timer", "writable"]


def test_laterOnesGoToTheLoop(board: OwnLoop, sockets: Sockets, driver: Driver) -> None:
    """
    So does what comes after that.
    """
    here, there = sockets
    told: list[str] = []
    board.register(adapterOf(driver.loop))
    board.watch(here.fileno(), lambda: told.append(here.recv(10).decode()))
    board.awaitWritable(here.fileno(), lambda: told.append("writable"))
    board.callLater(0, lambda: told.append("timer"))
    board.callLater(0, lambda: told.append("no")).cancel()
    there.send(b"readable")
    driver.until(lambda: len(told) == 3)
    driver.step()
    board.unwatch(here.fileno())
    assert sorted(told) == ["readable", "timer", "writable"]


def test_whoTurnsDoesItDespiteALoop(board: OwnLoop, sockets: Sockets, driver: Driver) -> None:
    """
    Who cannot wait for the loop turns, and what was done so the loop does not do
    again.
    """
    here, there = sockets
    told: list[str] = []
    board.register(adapterOf(driver.loop))
    board.watch(here.fileno(), lambda: told.append(here.recv(10).decode()))
    board.awaitWritable(here.fileno(), lambda: told.append("writable"))
    board.callLater(0, lambda: told.append("timer"))
    there.send(b"readable")
    while len(told) < 3:
        board.turn(None)
    driver.step()
    driver.step()
    board.unwatch(here.fileno())
    assert sorted(told) == ["readable", "timer", "writable"]


def test_aSecondLoopTakesOver(board: OwnLoop, sockets: Sockets, driver: Driver) -> None:
    """
    A loop that is registered after another one does all, and the other nothing.
    """
    here, there = sockets
    first = DRIVERS["plain"]()
    told: list[str] = []
    board.watch(here.fileno(), lambda: told.append(here.recv(10).decode()))
    board.callLater(0, lambda: told.append("timer"))
    board.register(adapterOf(first.loop))
    board.register(adapterOf(driver.loop))
    assert first.loop.watched == 0
    there.send(b"readable")
    driver.until(lambda: len(told) == 2)
    board.unwatch(here.fileno())
    first.close()
    assert sorted(told) == ["readable", "timer"]


def test_unregisterTakesAllBack(board: OwnLoop, sockets: Sockets, driver: Driver) -> None:
    """
    After that only who turns does anything, even if the loop is closed by then.
    """
    here, there = sockets
    told: list[str] = []
    board.register(adapterOf(driver.loop))
    board.watch(here.fileno(), lambda: told.append(here.recv(10).decode()))
    board.awaitWritable(here.fileno(), lambda: told.append("writable"))
    board.callLater(0, lambda: told.append("timer"))
    there.send(b"readable")
    board.unregister()
    board.unregister()
    driver.step()
    assert told == []
    while len(told) < 3:
        board.turn(None)
    assert sorted(told) == ["readable", "timer", "writable"]
