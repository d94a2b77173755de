"""
Servers, with connections in memory and a clock that is set by hand.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from twisted.internet.address import UNIXAddress
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import CannotListenError, ConnectionDone, ConnectionRefusedError
from twisted.internet.testing import MemoryReactorClock
from twisted.test import iosim

from asynqueue.codec import decode
from asynqueue.errors import (
    IdentityRefused,
    IdentityRequired,
    NoSuchCallable,
    WireError,
)
from asynqueue.framing import Frame
from asynqueue.taskqueue import TaskQueue
from asynqueue.wire.host import universes
from asynqueue.wire.host.catalog import Catalog, WireWorkerUniverse
from asynqueue.wire.host.server import WireServer
from asynqueue.wire.host.serving import HostWorkers, buildHostQueue
from asynqueue.wire.host.universes import Blueprint, ChildCatalog, introduce, universeOf
from asynqueue.wire.protocol.codecs import codecNamed
from asynqueue.wire.protocol.messages import MessageKind, packedCall
from asynqueue.wire.protocol.session import Session
from asynqueue.wire.transport.connection import Connection
from asynqueue.wire.transport.endpoints import ENVIRONMENT, forget, know
from asynqueue.workers.asynchronous import AsyncWorker
from asynqueue.workers.thread import ThreadWorker
from tests.doubles import Heard, errorOf, readingLogs, resultOf

KEY = b"k" * 32

WHERE = "unix:/run/crew.sock"


class Universe(WireWorkerUniverse):
    """
    What is called here.
    """

    def __init__(self, wireServer: Any = None) -> None:
        super().__init__(wireServer)
        self.gates: list[Deferred[Any]] = []
        self.cancelled = 0
        self.word = "made"

    def add(self, one: int, two: int) -> int:
        """
        Something that is done at once.
        """
        return one + two

    def wait(self) -> Deferred[Any]:
        """
        Something that is done when the test wants it.
        """
        self.gates.append(Deferred(self._cancel))
        return self.gates[-1]

    def _cancel(self, d: Deferred[Any]) -> None:
        self.cancelled += 1


class Plain(WireWorkerUniverse):
    """
    A universe that wants nothing to be made.
    """

    def __init__(self) -> None:
        super().__init__()

    def one(self) -> int:
        """
        One.
        """
        return 1


class NotOne:
    """
    No universe.
    """


class Unpicklable(Universe):
    """
    A universe that cannot be copied.
    """

    def __reduce__(self) -> Any:
        raise RuntimeError("not this one")


class Reactor(MemoryReactorClock):
    """
    A reactor in memory, which can be told to refuse to listen.
    """

    def __init__(self) -> None:
        super().__init__()
        self.refuses = False
        self.stoppers: list[Any] = []

    def addSystemEventTrigger(self, phase: Any, event: Any, f: Any, *args: Any, **kw: Any) -> Any:
        """
        Somebody wants to know when it stops.
        """
        self.stoppers.append(f)
        return f

    def removeSystemEventTrigger(self, trigger: Any) -> None:
        """
        Somebody does so no more.
        """
        self.stoppers.remove(trigger)

    def listenUNIX(self, address: Any, *args: Any, **kw: Any) -> Any:
        """
        Listen, or not.
        """
        if self.refuses:
            raise CannotListenError(None, address, OSError("taken"))
        return super().listenUNIX(address, *args, **kw)


def transportOf(protocol: Any, isServer: bool) -> iosim.FakeTransport:
    """
    One end of a UNIX socket in memory.
    """
    here = UNIXAddress(b"/run/crew.sock" if isServer else None)
    there = UNIXAddress(None if isServer else b"/run/crew.sock")
    return iosim.FakeTransport(protocol, isServer, here, there)


class Caller:
    """
    A queue at the other end of a connection.

    @ivar frames: what it was told.
    @ivar events: what happened to the connection.
    @ivar error: why that was lost.
    @ivar far: the connection at the server's end.
    """

    def __init__(
        self, reactor: Reactor, key: bytes | None = None, factory: Any = None, dials: bool = True
    ) -> None:
        self.frames: list[Frame] = []
        self.events: list[str] = []
        self.error: Exception | None = None
        theirs = (factory or reactor.unixServers[-1][1]).buildProtocol(UNIXAddress(None))
        self.far: Any = theirs
        session = Session("queue", dials, key=key)
        self.connection = Connection(session, self, reactor=reactor, heartbeat=None)
        there = transportOf(theirs, dials)
        here = transportOf(self.connection, not dials)
        self._pump = iosim.connect(theirs, there, self.connection, here, clock=reactor)

    def opened(self, connection: Connection) -> None:
        """
        It is open.
        """
        self.events.append("opened")

    def received(self, connection: Connection, frames: list[Frame]) -> None:
        """
        It was told something.
        """
        self.frames += frames

    def leaving(self, connection: Connection, reason: str) -> None:
        """
        The host says goodbye: nothing else will be called.
        """
        self.events.append(f"leaving: {reason}")
        connection.goodbye("")

    def lost(self, connection: Connection, error: Exception) -> None:
        """
        It is over.
        """
        self.events.append("lost")
        self.error = error

    def run(self) -> None:
        """
        Let all that was written arrive.
        """
        self._pump.flush()

    def call(self, number: int, name: str, *args: Any) -> None:
        """
        Have something called.
        """
        arguments = pickle.dumps((args, {}))
        self.connection.send(MessageKind.CALL, number, packedCall(0, name, arguments))
        self.run()

    def outcomes(self) -> list[tuple[int, MessageKind]]:
        """
        What came of which calls.
        """
        return [
            (frame[1], MessageKind(frame[0]))
            for frame in self.frames
            if frame[0] != MessageKind.CAPACITY
        ]

    def value(self) -> Any:
        """
        What the last call returned.
        """
        kind, _, body, buffers = self.frames[-1]
        assert kind == MessageKind.RETURNED
        return decode(body, buffers)


class Stranger:
    """
    Somebody who connects and says nothing.
    """

    def __init__(self, reactor: Reactor) -> None:
        self.protocol = reactor.unixServers[-1][1].buildProtocol(UNIXAddress(None))
        self.transport = transportOf(self.protocol, True)
        self.protocol.makeConnection(self.transport)

    @property
    def isCut(self) -> bool:
        """
        Whether the server has closed the connection.
        """
        return bool(self.transport.disconnecting)

    def leave(self) -> None:
        """
        Close it from here.
        """
        self.transport.reportDisconnect()


@pytest.fixture
def reactor() -> Reactor:
    """
    A reactor in memory.
    """
    return Reactor()


@pytest.fixture(autouse=True)
def _noKeyAround(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENVIRONMENT, raising=False)


@pytest.fixture
def hub() -> Iterator[Callable[[Any], None]]:
    """
    Takes the endpoint that is dialed here.
    """
    yield lambda endpoint: know(WHERE, KEY, endpoint)
    forget(WHERE)


@pytest.fixture
def universe() -> Universe:
    """
    A universe.
    """
    return Universe()


@pytest.fixture
def server(reactor: Reactor, universe: Universe) -> WireServer:
    """
    A server that listens.
    """
    made = WireServer(WHERE, universe, reactor=reactor)
    resultOf(made.start())
    return made


def settle(reactor: Reactor, heard: Heard) -> None:
    """
    Let whatever takes no time be done, and see that the Deferred has fired.
    """
    for _ in range(10):
        reactor.advance(0)
    assert len(heard.results) == 1, "it has not fired"
    resultOf(heard.d)


# What it is made of


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"wwuOrFQN": None}, ValueError),
        ({"wwuOrFQN": NotOne}, TypeError),
        ({"wwuOrFQN": "nowhere.Universe"}, ImportError),
        ({"wwuOrFQN": "Universe"}, ImportError),
        ({"wwuOrFQN": "os.NoUniverse"}, ImportError),
        ({"wwuOrFQN": "os:path.none"}, ImportError),
        ({"trust": "everybody"}, ValueError),
        ({"trust": "code", "codec": "cbor"}, ValueError),
        ({"trust": "modules"}, ValueError),
        ({"codec": "xml"}, ValueError),
        ({"processes": -1}, ValueError),
        ({"threads": 0}, ValueError),
        ({"concurrent": 0}, ValueError),
        ({"processes": True}, ValueError),
        ({"threads": 1.5}, ValueError),
        ({"concurrent": "2"}, ValueError),
    ],
)
def test_whatHasNoSense(wrong: dict[str, Any], error: type[Exception]) -> None:
    """
    What a server cannot be made of is refused as it is made.
    """
    with pytest.raises(error):
        WireServer(WHERE, **{"wwuOrFQN": Universe, **wrong})


def test_queueAndProcesses(reactor: Reactor) -> None:
    """
    A server uses a queue, or makes processes, not both.
    """
    with pytest.raises(ValueError, match="queue"):
        WireServer(WHERE, Universe, queue=TaskQueue(reactor=reactor), processes=2)


@pytest.mark.parametrize("given", ["os.path", "os:path"])
def test_whatIsNamedMustBeOne(given: str) -> None:
    """
    A name is looked up, and what is found must be a universe.
    """
    with pytest.raises(TypeError, match="no instance"):
        WireServer(WHERE, given)


def test_universeIsMade() -> None:
    """
    A class is called with the server, if it wants that; an instance is left alone; and a
    name may be that of either.
    """
    server = object()
    assert universeOf(Universe, server).wireServer is server
    assert isinstance(universeOf(Plain, server), Plain)
    one = Plain()
    assert universeOf(one, server) is one
    name = f"{__name__}.Plain"
    assert type(universeOf(name)).__name__ == "Plain"


def test_workersOfAHost(reactor: Reactor) -> None:
    """
    Without processes the reactor makes the calls, and there are threads for those that
    want one.
    """
    workers = HostWorkers(0, 3, 7, 1 << 20)
    assert workers.series == "async"
    queue = buildHostQueue(workers, Catalog(Universe()), 1.0, reactor)
    assert {type(worker) for worker in queue.workers()} == {AsyncWorker, ThreadWorker}


# Beginning


def test_startListens(reactor: Reactor) -> None:
    """
    It fires when the server listens; there is an address, and the service runs.
    """
    server = WireServer(WHERE, Universe, reactor=reactor)
    assert server.address is None
    resultOf(server.start())
    assert server.address.name == b"/run/crew.sock"
    assert server.service.running
    assert "serves" in repr(server)
    resultOf(server.start())
    assert len(reactor.unixServers) == 1


def test_serviceListens(reactor: Reactor) -> None:
    """
    The service of the server does the same.
    """
    server = WireServer(WHERE, Universe, reactor=reactor)
    server.service.startService()
    assert server.address is not None
    heard = Heard(server.service.stopService())
    settle(reactor, heard)
    assert server.address is None


def test_noIdentity(reactor: Reactor) -> None:
    """
    Where others could run calls a server without a key does not start, and nothing
    listens or is left.
    """
    server = WireServer("tcp:4000", Universe, reactor=reactor)
    assert isinstance(errorOf(server.start()), IdentityRequired)
    assert not server.service.running
    assert not reactor.tcpServers
    assert not reactor.stoppers


def test_keyMakesItSafe(reactor: Reactor) -> None:
    """
    With a key it does.
    """
    server = WireServer("tcp:4000", Universe, key=KEY, reactor=reactor)
    resultOf(server.start())
    assert reactor.tcpServers[0][0] == 4000


def test_cannotListen(reactor: Reactor) -> None:
    """
    If the address is taken the start fails with that, and can be tried again.
    """
    reactor.refuses = True
    server = WireServer(WHERE, Universe, reactor=reactor)
    assert isinstance(errorOf(server.start()), CannotListenError)
    reactor.refuses = False
    resultOf(server.start())


def test_serviceThatCannotStartRaises(reactor: Reactor) -> None:
    """
    Whoever starts only the service gets the reason as an exception.
    """
    reactor.refuses = True
    server = WireServer(WHERE, Universe, reactor=reactor)
    with pytest.raises(CannotListenError):
        server.service.startService()
    assert not server.service.running


def test_stopWhileItStarts(reactor: Reactor, hub: Callable[[Any], None]) -> None:
    """
    Who waits for the start is told that it will not come.
    """
    stopped: list[bool] = []

    class Never:
        def connect(self, factory: Any) -> Deferred[Any]:
            return Deferred(lambda _: stopped.append(True))

    hub(Never())
    server = WireServer(WHERE, Universe, dial=True, reactor=reactor)
    starting = Heard(server.start())
    settle(reactor, Heard(server.stop()))
    assert isinstance(starting.error, CancelledError)
    assert stopped


# Serving


def test_callsAreMade(server: WireServer, reactor: Reactor) -> None:
    """
    A queue that connects may call the methods of the universe, and nothing else.
    """
    caller = Caller(reactor)
    assert caller.events == ["opened"]
    assert caller.connection.peer.about["names"] == ["add", "wait"]
    caller.call(1, "add", 3, 4)
    assert caller.value() == 7
    caller.call(2, "wireServer")
    assert caller.outcomes()[-1] == (2, MessageKind.RAISED)
    assert isinstance(codecNamed("pickle").decodeRaised(caller.frames[-1][2]).error, NoSuchCallable)


def test_wrongKey(reactor: Reactor) -> None:
    """
    A queue with another key is refused, and that is logged with where it came from.
    """
    resultOf(WireServer(WHERE, Universe, key=KEY, reactor=reactor).start())
    with readingLogs() as logs:
        caller = Caller(reactor, key=b"other" * 8)
        reactor.advance(60)
        caller.run()
    assert isinstance(caller.error, IdentityRefused)
    assert any("no connection with" in said for said in logs.said())


def test_manyStrangers(server: WireServer, reactor: Reactor) -> None:
    """
    If too many connect and say nothing the oldest are cut, and who proves itself is
    served.
    """
    strangers = [Stranger(reactor) for _ in range(300)]
    caller = Caller(reactor)
    assert [stranger.isCut for stranger in strangers] == [True] * 45 + [False] * 255
    caller.call(1, "add", 1, 1)
    assert caller.value() == 2


@pytest.mark.bulk
def test_whoHasProvedItselfIsNoStranger(server: WireServer, reactor: Reactor) -> None:
    """
    Queues that have proved themselves take no stranger's place, also while their
    connections close.
    """
    stranger = Stranger(reactor)
    callers = [Caller(reactor) for _ in range(300)]
    for caller in callers[:-1]:
        # What is written now stays on its way.
        caller.far.close()
    reactor.advance(0)
    assert [caller.far.isProven for caller in callers] == [False] * 299 + [True]
    Stranger(reactor)
    assert not stranger.isCut
    callers[-1].call(1, "add", 1, 1)
    assert callers[-1].value() == 2


def test_queueThatBreaksTheRules(server: WireServer, reactor: Reactor) -> None:
    """
    If one that has proved itself says what it must not, that is logged with where it is.
    """
    caller = Caller(reactor)
    with readingLogs() as logs:
        caller.connection.send(MessageKind.RETURNED, 1, b"")
        caller.run()
        reactor.advance(10)
        caller.run()
    assert caller.events[-1] == "lost"
    assert any("UNIX socket /run/crew.sock is over" in said for said in logs.said())


def test_givenQueue(reactor: Reactor) -> None:
    """
    A queue that was given makes the calls, with whatever workers it has, and lives on.
    """
    queue = TaskQueue(AsyncWorker(reactor=reactor), reactor=reactor)
    server = WireServer(WHERE, Universe, queue=queue, reactor=reactor)
    resultOf(server.start())
    caller = Caller(reactor)
    caller.call(1, "add", 1, 2)
    assert caller.value() == 3
    heard = Heard(server.stop())
    caller.run()
    settle(reactor, heard)
    assert queue.isRunning()
    assert len(queue) == 1


# The end


def test_stopSaysGoodbye(server: WireServer, reactor: Reactor) -> None:
    """
    A queue is told that the host stops, its connection is closed, and nobody listens.
    """
    caller = Caller(reactor)
    heard = Heard(server.stop())
    caller.run()
    settle(reactor, heard)
    assert caller.events == ["opened", "leaving: the host stops", "lost"]
    assert isinstance(caller.error, ConnectionDone)
    assert reactor.unixServers[-1][1].buildProtocol(UNIXAddress(None)) is None
    assert not reactor.stoppers
    assert not reactor.getDelayedCalls()


def test_stopWaitsForCalls(server: WireServer, reactor: Reactor, universe: Universe) -> None:
    """
    What has begun ends, and its result is sent; what comes now is given back.
    """
    caller = Caller(reactor)
    caller.call(1, "wait")
    heard = Heard(server.stop())
    caller.run()
    assert not heard.results
    caller.call(2, "add", 1, 1)
    universe.gates[0].callback("done")
    caller.run()
    settle(reactor, heard)
    assert caller.outcomes() == [(2, MessageKind.GIVEN_BACK), (1, MessageKind.RETURNED)]


def test_statistics(server: WireServer, reactor: Reactor, universe: Universe) -> None:
    """
    A server tells its state by a word, who is connected, with how many calls, and how its
    queue stands; as a dict it goes into JSON.
    """
    reactor.advance(3)
    stranger = Stranger(reactor)
    caller = Caller(reactor)
    caller.call(1, "wait")
    told = server.statistics()
    assert (told.state, told.seconds, told.unproven) == ("serving", 3.0, 1)
    assert told.description == told.address == WHERE
    assert [each.held for each in told.sessions] == [1]
    assert json.loads(json.dumps(told.as_dict()))["queue"]["running"] == 1
    heard = Heard(server.stop())
    caller.run()
    assert server.statistics().state == "stopping"
    stranger.leave()
    universe.gates[0].callback("done")
    caller.run()
    settle(reactor, heard)
    told = server.statistics()
    assert (told.state, told.seconds, told.sessions, told.queue) == ("idle", 0.0, (), None)
    assert told.address == ""


def test_graceHasAnEnd(server: WireServer, reactor: Reactor, universe: Universe) -> None:
    """
    When the grace is over the call is cancelled, the connection is cut, and the server
    has stopped.
    """
    caller = Caller(reactor)
    caller.call(1, "wait")
    heard = Heard(server.stop())
    caller.run()
    reactor.advance(9.9)
    caller.run()
    assert not heard.results
    with readingLogs() as logs:
        reactor.advance(0.2)
        caller.run()
    settle(reactor, heard)
    assert universe.cancelled == 1
    assert caller.events[-1] == "lost"
    assert any("no more time" in said for said in logs.said())


def test_stopAtOnce(server: WireServer, reactor: Reactor, universe: Universe) -> None:
    """
    Asked again, without any grace, it ends now: both who asked are told.
    """
    caller = Caller(reactor)
    caller.call(1, "wait")
    first = Heard(server.stop())
    caller.run()
    second = Heard(server.stop(grace=0))
    caller.run()
    settle(reactor, second)
    settle(reactor, first)
    assert not reactor.getDelayedCalls()


def test_moreGraceIsNotGranted(server: WireServer, reactor: Reactor, universe: Universe) -> None:
    """
    Who asks later, and for more, changes nothing.
    """
    caller = Caller(reactor)
    caller.call(1, "wait")
    heard = Heard(server.stop(grace=2))
    caller.run()
    server.stop(grace=100)
    reactor.advance(2)
    caller.run()
    settle(reactor, heard)


def test_strangersAreNotWaitedFor(server: WireServer, reactor: Reactor) -> None:
    """
    A connection that was never open is cut as the server stops.
    """
    stranger = Stranger(reactor)
    heard = Heard(server.stop())
    assert stranger.isCut
    stranger.leave()
    settle(reactor, heard)


def test_startAgain(server: WireServer, reactor: Reactor) -> None:
    """
    A server that was stopped can start again; while it stops it cannot.
    """
    caller = Caller(reactor)
    heard = Heard(server.stop())
    assert isinstance(errorOf(server.start()), WireError)
    caller.run()
    settle(reactor, heard)
    resultOf(server.start())
    caller = Caller(reactor)
    caller.call(1, "add", 1, 1)
    assert caller.value() == 2


def test_stopOfWhatDoesNotServe(reactor: Reactor) -> None:
    """
    There is nothing to be done, and that is done at once.
    """
    assert resultOf(WireServer(WHERE, Universe, reactor=reactor).stop()) is None


def test_stopsWithTheReactor(server: WireServer, reactor: Reactor) -> None:
    """
    The reactor that stops waits for the server, which was told before the queue was.
    """
    stopping = Heard(reactor.stoppers[0]())
    assert server.address is None
    settle(reactor, stopping)


# Dialing


class Endpoint:
    """
    An endpoint that connects when the test wants it.

    @ivar attempts: the Deferreds of all attempts.
    @ivar factory: that of the last one.
    """

    def __init__(self) -> None:
        self.attempts: list[Deferred[Any]] = []
        self.factory: Any = None

    def connect(self, factory: Any) -> Deferred[Any]:
        """
        Somebody dials.
        """
        self.factory = factory
        self.attempts.append(Deferred())
        return self.attempts[-1]


@pytest.fixture
def endpoint(hub: Callable[[Any], None]) -> Endpoint:
    """
    What servers dial here.
    """
    made = Endpoint()
    hub(made)
    return made


@pytest.fixture
def dialing(reactor: Reactor, endpoint: Endpoint) -> tuple[WireServer, Heard]:
    """
    A server that dials a hub, and its start.
    """
    server = WireServer(WHERE, Universe, key=KEY, dial=True, reactor=reactor)
    return server, Heard(server.start())


def test_dialedHub(dialing: tuple[WireServer, Heard], endpoint: Endpoint, reactor: Reactor) -> None:
    """
    A server that dials has started when the hub has accepted it, and serves as any other.
    """
    _, started = dialing
    assert not started.results
    caller = Caller(reactor, key=KEY, factory=endpoint.factory, dials=False)
    endpoint.attempts[0].callback(None)
    assert started.result is None
    caller.call(1, "add", 1, 1)
    assert caller.value() == 2


def test_hubRefuses(
    dialing: tuple[WireServer, Heard], endpoint: Endpoint, reactor: Reactor
) -> None:
    """
    If the hub does not want it the start fails, and the hub is not dialed again.
    """
    server, started = dialing
    with readingLogs() as logs:
        caller = Caller(reactor, key=b"other" * 8, factory=endpoint.factory, dials=False)
        endpoint.attempts[0].callback(None)
        for _ in range(20):
            reactor.advance(10)
            caller.run()
    assert isinstance(started.error, IdentityRefused)
    assert any("the proof of identity" in said for said in logs.said())
    assert len(endpoint.attempts) == 1
    assert "does not serve" in repr(server)


def test_lateFailureIsLogged(endpoint: Endpoint, reactor: Reactor) -> None:
    """
    If it is found out later that the server cannot serve, and nobody waits, it is logged.
    """
    server = WireServer(WHERE, Universe, key=KEY, dial=True, reactor=reactor)
    server.service.startService()
    with readingLogs() as logs:
        caller = Caller(reactor, key=b"other" * 8, factory=endpoint.factory, dials=False)
        endpoint.attempts[0].callback(None)
        for _ in range(20):
            reactor.advance(10)
            caller.run()
    assert [type(error) for error in logs.errors()] == [IdentityRefused]


def test_hubIsDialedAgain(
    dialing: tuple[WireServer, Heard], endpoint: Endpoint, reactor: Reactor
) -> None:
    """
    A hub that cannot be reached is dialed again, after pauses that grow and have an end;
    and so is one whose connection was lost.
    """
    _, started = dialing
    pauses = []
    for _ in range(12):
        endpoint.attempts[-1].errback(ConnectionRefusedError())
        (timer,) = reactor.getDelayedCalls()
        pauses.append(timer.getTime() - reactor.seconds())
        reactor.advance(pauses[-1])
    assert pauses[0] < 3
    assert pauses[2] < pauses[-1] <= 31
    assert not started.results
    caller = Caller(reactor, key=KEY, factory=endpoint.factory, dials=False)
    endpoint.attempts[-1].callback(None)
    assert started.result is None
    reactor.advance(6)
    caller.connection.abort()
    caller.run()
    count = len(endpoint.attempts)
    reactor.advance(3)
    assert len(endpoint.attempts) == count + 1


def test_stopEndsDialing(
    dialing: tuple[WireServer, Heard], endpoint: Endpoint, reactor: Reactor
) -> None:
    """
    A server that stops between two attempts makes no other.
    """
    server, started = dialing
    endpoint.attempts[-1].errback(ConnectionRefusedError())
    settle(reactor, Heard(server.stop()))
    assert isinstance(started.error, CancelledError)
    assert not reactor.getDelayedCalls()


def test_stoppedServerSaysGoodbyeToItsHub(
    dialing: tuple[WireServer, Heard], endpoint: Endpoint, reactor: Reactor
) -> None:
    """
    It drains as any other, and does not dial again.
    """
    server, _ = dialing
    caller = Caller(reactor, key=KEY, factory=endpoint.factory, dials=False)
    endpoint.attempts[0].callback(None)
    heard = Heard(server.stop())
    caller.run()
    settle(reactor, heard)
    assert caller.events == ["opened", "leaving: the host stops", "lost"]
    assert not reactor.getDelayedCalls()


# Universes of processes


def test_blueprintOfAClass() -> None:
    """
    A class that others can import travels as its name.
    """
    blueprint = Blueprint.of(WireWorkerUniverse)
    assert blueprint.name == "asynqueue.wire.host.catalog:WireWorkerUniverse"
    assert not blueprint.pickled
    assert isinstance(blueprint.make(), WireWorkerUniverse)


def test_blueprintOfALocalClass() -> None:
    """
    Another class travels itself.
    """

    class Local(WireWorkerUniverse):
        def two(self) -> int:
            return 2

    assert Blueprint.of(Local).make().two() == 2


def test_blueprintOfAnInstance() -> None:
    """
    Of an instance travels a copy.
    """
    universe = Universe()
    universe.word = "changed"
    made = Blueprint.of(universe).make()
    assert made is not universe
    assert made.word == "changed"


def test_blueprintOfWhatCannotTravel() -> None:
    """
    What cannot be copied is refused as the server is made, with what to do.
    """
    with pytest.raises(WireError, match="give its class"):
        WireServer(WHERE, Unpicklable(), processes=1)


def test_childCatalog() -> None:
    """
    A method has one function, which calls it in the process where it is called, and
    nothing else can be called by it.
    """
    universe = Universe()
    catalog = ChildCatalog(universe, universe, (), "universe")
    add = catalog.resolve("add")
    assert add is catalog.resolve("add")
    assert add(1, 2) == 3
    assert "Universe.add" in repr(add)
    with pytest.raises(NoSuchCallable):
        catalog.resolve("__init__")


def test_childMakesItsUniverse() -> None:
    """
    A process that was told of the universe makes it when it is called first.
    """
    universe = Universe()
    catalog = ChildCatalog(Universe, universe, (), "universe")
    add = catalog.resolve("add")
    token, blueprint = catalog.initargs
    del catalog
    # As in a process that has only heard of it.
    assert token not in universes._made
    introduce(token, blueprint)
    assert add(2, 2) == 4
    assert token in universes._made
