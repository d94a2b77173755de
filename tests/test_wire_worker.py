"""
L{WireWorker}, over a network that is only pretended: how it comes to its connections.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost, ConnectionRefusedError
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer
from zope.interface.verify import verifyObject

from asynqueue.errors import IdentityRefused, IdentityRequired, VersionRefused, WireError
from asynqueue.interfaces import IConnectingWorker
from asynqueue.testing import MemoryTask
from asynqueue.wire.client.worker import WireWorker
from asynqueue.wire.host.catalog import WireWorkerUniverse
from asynqueue.wire.protocol.session import Session
from asynqueue.wire.transport.endpoints import forget, know
from tests.doubles import Heard, errorOf, readingLogs
from tests.wires import KEY, End, FakeTransport

WHERE = "memory:"


class Transport(FakeTransport):
    """
    One that may be asked to close while it has a producer: then it waits for that.
    """

    def loseConnection(self) -> None:
        if self.producer is None:
            super().loseConnection()


class Link:
    """
    A connection between the worker and a host in memory.
    """

    def __init__(self, clock: Clock, protocol: Any, key: bytes, codec: str) -> None:
        self.clock = clock
        self.near = protocol
        self.transport = Transport()
        self.isLost = False
        about = {"slots": 2, "trust": "modules"}
        session = Session("host", False, key=key, codec=codec, about=about)
        self.far = End(session, clock, heartbeat=None)
        self.far.connect()
        protocol.makeConnection(self.transport)

    def carry(self) -> Link:
        """
        Carry what both say, until they are silent.
        """
        isBusy = True
        while isBusy:
            self.clock.advance(0)
            toFar, toNear = self.transport.taken(), self.far.transport.taken()
            isBusy = bool(toFar or toNear)
            if toFar and not self.far.isLost:
                self.far.connection.dataReceived(toFar)
            if toNear and not self.isLost:
                self.near.dataReceived(toNear)
            isOver = self.transport.isClosing or any(
                each.isHalfClosed and not each.waiting
                for each in (self.transport, self.far.transport)
            )
            if isOver and not self.isLost:
                self.lose(ConnectionDone())
        return self

    def lose(self, error: Exception | None = None) -> None:
        """
        It is over.
        """
        if not self.isLost:
            self.isLost = True
            self.far.lose(error or ConnectionLost())
            self.near.connectionLost(Failure(error or ConnectionLost()))


@implementer(IStreamClientEndpoint)
class Network:
    """
    What the worker dials, and the worker.

    @ivar dialed: when it dialed.
    @ivar attempts: those that have no answer.
    """

    def __init__(self) -> None:
        self.clock = Clock()
        self.dialed: list[float] = []
        self.attempts: list[tuple[Deferred[Any], Any]] = []
        know(WHERE, KEY, self)
        self.worker = WireWorker(None, WHERE, heartbeat=None, reactor=self.clock)

    def connect(self, factory: Any) -> Deferred[Any]:
        """
        The worker dials.
        """
        d: Deferred[Any] = Deferred(lambda d: self.attempts.remove((d, factory)))
        self.dialed.append(self.clock.seconds())
        self.attempts.append((d, factory))
        return d

    def refuse(self) -> None:
        """
        Nobody is there.
        """
        d, _ = self.attempts.pop()
        d.errback(ConnectionRefusedError())

    def accept(self, key: bytes = KEY, codec: str = "pickle") -> Link:
        """
        Somebody is there; it is connected, and nothing was said yet.
        """
        d, factory = self.attempts.pop()
        protocol = factory.buildProtocol(None)
        link = Link(self.clock, protocol, key, codec)
        d.callback(protocol)
        return link

    def nextPause(self) -> float:
        """
        Let time pass until the worker dials again.
        """
        before, start = len(self.dialed), self.clock.seconds()
        while len(self.dialed) == before:
            self.clock.advance(0.01)
            assert self.clock.seconds() < start + 100
        return self.clock.seconds() - start

    @property
    def isQuiet(self) -> bool:
        """
        Whether nothing is going on.
        """
        return not self.attempts and not self.clock.getDelayedCalls()


@pytest.fixture
def network() -> Iterator[Network]:
    """
    A network with a worker.
    """
    yield Network()
    forget(WHERE)


# Connecting


def test_providesItsRole(network: Network) -> None:
    """
    It is a worker that connects.
    """
    verifyObject(IConnectingWorker, network.worker)
    assert network.worker.host == WHERE
    assert network.worker.peer is None


def test_dialsWhenItIsWanted(network: Network) -> None:
    """
    It dials when somebody waits for that, and tells when it can serve: not before both
    sides have proved themselves.
    """
    assert network.isQuiet
    connected = Heard(network.worker.whenConnected())
    link = network.accept()
    assert connected.results == []
    link.carry()
    assert connected.result is None
    assert network.worker.peer is not None
    assert network.worker.statistics().slots == 2


def test_severalMayWait(network: Network) -> None:
    """
    Whoever waits is told; one dials.
    """
    heard = [Heard(network.worker.whenConnected()) for _ in range(3)]
    network.accept().carry()
    heard.append(Heard(network.worker.whenConnected()))
    assert [each.result for each in heard] == [None] * 4
    assert len(network.dialed) == 1


def test_pausesGrow(network: Network) -> None:
    """
    While nobody is there it goes on trying, after pauses that grow to some seconds; they
    are not all alike.
    """
    network.worker.whenConnected()
    network.refuse()
    pauses = []
    for _ in range(30):
        pauses.append(network.nextPause())
        network.refuse()
    assert 0.04 <= pauses[0] <= 0.16
    assert min(pauses[-5:]) >= 9
    assert max(pauses) <= 31
    assert len({round(pause, 1) for pause in pauses[-8:]}) > 1


def test_aTaskIsReasonEnough(network: Network) -> None:
    """
    Without a queue it dials for a task, and sends it when it is connected.
    """
    task = MemoryTask("f")
    network.worker.run(task)
    link = network.accept().carry()
    assert len(link.far.owner.frames) == 1


def test_itTellsWhatItDoes(network: Network) -> None:
    """
    While it has no connection it says where it dials, why that failed and when it tries
    again, whatever came of the attempts; and logs each reason once.
    """
    worker, heard = network.worker, []
    assert worker.dialing == ""
    with readingLogs() as logs:
        worker.whenConnected()
        heard.append(worker.dialing)
        for _ in range(2):
            network.refuse()
            heard.append(worker.dialing.partition(", next try in 0.")[0])
            network.nextPause()
        assert repr(worker) == f"<WireWorker {worker.dialing}>"
        # It is there, and hangs up.
        network.accept().lose()
        heard.append(worker.dialing.partition(", next try in 0.")[0])
        network.nextPause()
        heard.append(worker.dialing)
        network.accept().carry()
        heard.append(worker.dialing)
    refused = f"dialing {WHERE}: connection was refused by other side"
    lost = f"dialing {WHERE}: connection to the other side was lost in a non-clean fashion"
    assert heard == [f"dialing {WHERE}", refused, refused, lost, f"{lost}, trying again", ""]
    assert [event["reason"] for event in logs.events if "reason" in event] == [
        refused.partition(": c")[2].join(["c", ""]),
        lost.partition(": c")[2].join(["c", ""]),
    ]
    assert repr(worker) == f"<WireWorker {worker.host}>"


def test_itTellsOfALoss(network: Network) -> None:
    """
    When a connection was lost, that is the reason why it dials; when it is let go, it does
    nothing.
    """
    worker = network.worker
    worker.whenConnected()
    network.accept().carry().lose(ConnectionDone())
    assert worker.dialing == ""
    worker.whenConnected()
    assert "connection was closed cleanly, next try in 0." in worker.dialing
    worker.crash()
    assert worker.dialing == ""


# Losing


def test_lostAndBack(network: Network) -> None:
    """
    After a loss it resigns, and dials again when it is wanted, after a short pause.
    """
    resigned: list[Any] = []

    def resign() -> None:
        resigned.append(network.worker.crash())
        resigned.append(Heard(network.worker.whenConnected()))

    network.worker.whenConnected()
    network.worker.setResignator(resign)
    network.accept().carry().lose()
    left, connected = resigned
    assert left == []
    assert network.attempts == []
    assert 0.04 <= network.nextPause() <= 0.16
    network.accept().carry()
    assert connected.result is None


def test_oneThatIsLostAtOnceIsNoSuccess(network: Network) -> None:
    """
    Where connections are lost as soon as they are there, the pauses grow; after one that
    lasted they are short again.
    """
    pauses = []
    for seconds in (*[0.0] * 12, 10.0):
        network.worker.whenConnected()
        if not network.attempts:
            pauses.append(network.nextPause())
        link = network.accept().carry()
        network.clock.advance(seconds)
        link.lose()
    network.worker.whenConnected()
    pauses.append(network.nextPause())
    assert max(pauses) > 1
    assert pauses[-1] <= 0.16


def test_oneThatNeverOpensIsNoSuccess(network: Network) -> None:
    """
    A server that accepts and says nothing, or hangs up, is tried again after pauses that
    grow.
    """
    connected = Heard(network.worker.whenConnected())
    network.accept().lose()
    pauses = []
    for _ in range(10):
        pauses.append(network.nextPause())
        network.accept().lose()
    assert pauses[-1] > 1
    assert connected.results == []


# Refusals


def test_refusedForGood(network: Network) -> None:
    """
    Who has another key is told to who waits, and not dialed again.
    """
    connected = Heard(network.worker.whenConnected())
    network.accept(key=b"another key than all others have").carry()
    assert isinstance(connected.error, IdentityRefused)
    assert network.attempts == []
    network.clock.advance(100)
    assert network.isQuiet


def test_otherVersion(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A host that speaks another version of the protocol is not dialed again, and the error
    names both.
    """
    connected = Heard(network.worker.whenConnected())
    with monkeypatch.context() as patch:
        patch.setattr("asynqueue.wire.protocol.session.VERSIONS", (7,))
        link = network.accept()
    link.carry()
    assert isinstance(connected.error, VersionRefused)
    assert "version 1" in str(connected.error)
    assert "7" in str(connected.error)
    network.clock.advance(100)
    assert network.isQuiet


def test_otherCodec(network: Network) -> None:
    """
    One that reads and writes values in another way is refused likewise.
    """
    connected = Heard(network.worker.whenConnected())
    network.accept(codec="cbor").carry()
    assert isinstance(connected.error, VersionRefused)
    assert "cbor" in str(connected.error)


def test_refusedTasks(network: Network) -> None:
    """
    Tasks that wait without a queue fail when the host refuses.
    """
    task = MemoryTask("f")
    network.worker.run(task)
    network.accept(key=b"another key than all others have").carry()
    assert isinstance(errorOf(task.d), IdentityRefused)


@pytest.mark.parametrize(
    ("description", "options", "error"),
    [
        ("tcp:192.0.2.1:4000", {}, IdentityRequired),
        ("nonsense:", {}, ValueError),
        ("unix:/tmp/x", {"keyFile": "/nonexistent"}, OSError),
        ("unix:/tmp/x", {"key": b"short"}, (WireError, ValueError)),
    ],
)
def test_whatCannotBeDialed(description: str, options: Any, error: Any) -> None:
    """
    What can never succeed fails at once, but not within the call.
    """
    clock = Clock()
    worker = WireWorker(None, description, reactor=clock, **options)
    connected = Heard(worker.whenConnected())
    assert connected.results == []
    clock.advance(0)
    assert isinstance(connected.error, error)
    assert clock.getDelayedCalls() == []


def test_keyOfTheEnvironment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """
    Without a key of its own, it has that of the file that the environment names, if it is
    a good one.
    """
    clock = Clock()
    monkeypatch.setenv("ASYNQUEUE_KEY_FILE", str(tmp_path / "missing"))
    connected = Heard(WireWorker(None, "unix:/tmp/x", reactor=clock).whenConnected())
    clock.advance(0)
    assert isinstance(connected.error, OSError)


# The end of the trying


@pytest.mark.parametrize("when", ["dialing", "connected", "pausing", "restarting"])
@pytest.mark.parametrize("how", ["crash", "stop", "cancel"])
def test_theTryingEnds(network: Network, when: str, how: str) -> None:
    """
    When the worker crashes or is stopped, or when nobody wants it, it dials no more, and
    leaves nothing behind; who waits is told.
    """
    worker = network.worker
    if when == "restarting":
        worker.whenConnected()
        network.accept().carry().lose()
    connected = Heard(worker.whenConnected())
    link = None
    if when == "connected":
        link = network.accept()
    elif when == "pausing":
        network.refuse()
    if how == "crash":
        assert worker.crash() == []
    elif how == "stop":
        assert Heard(worker.stop()).result is None
    else:
        connected.d.cancel()
    assert isinstance(connected.error, CancelledError)
    if link is not None:
        assert link.transport.isBroken
        link.lose(ConnectionDone())
    network.clock.advance(100)
    assert network.isQuiet


def test_oneOfTwoMayGo(network: Network) -> None:
    """
    As long as somebody waits, it goes on.
    """
    first, second = (Heard(network.worker.whenConnected()) for _ in range(2))
    first.d.cancel()
    network.accept().carry()
    assert second.result is None


def test_aNewLife(network: Network) -> None:
    """
    One that has stopped, or crashed, can be wanted again.
    """
    for end in (network.worker.stop, network.worker.crash):
        connected = Heard(network.worker.whenConnected())
        if not network.attempts:
            network.nextPause()
        link = network.accept().carry()
        assert connected.result is None
        end()
        link.carry()
        network.clock.advance(100)
        assert network.isQuiet


# What it is made of


def test_theUniverseIsOne() -> None:
    """
    What says which methods there are is an instance of a universe.
    """
    for wrong in (object(), WireWorkerUniverse):
        with pytest.raises(TypeError):
            WireWorker(wrong, "unix:/tmp/x")  # type: ignore[arg-type]


def test_itsSeries() -> None:
    """
    It is qualified for its kind, and for what it is given.
    """
    worker = WireWorker(WireWorkerUniverse(), "unix:/tmp/x", ["a", 5])
    assert worker.cQualified == ["wire", "remote"]
    assert worker.iQualified == ["a", 5]
