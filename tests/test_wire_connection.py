"""
What L{asynqueue.wire.transport.connection} promises, over transports in memory: its owner is told
everything once, a silent or talkative stranger costs little, and whatever goes wrong
ends this connection only.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings, strategies as st
from twisted.internet.abstract import FileDescriptor
from twisted.internet.address import UNIXAddress
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.task import Clock
from twisted.protocols.amp import COMMAND

from asynqueue.errors import (
    FrameTooLarge,
    IdentityRefused,
    LocalProtocolError,
    RemoteProtocolError,
    WireError,
)
from asynqueue.wire.protocol.boxes import BATCH_HEAD, packedBatch, packedBox, packedNumber
from asynqueue.wire.protocol.commands import (
    LEAST_LARGEST,
    MOST_UNPROVEN_BYTES,
    OPENING_SECONDS,
    Beat,
    Goodbye,
    Greet,
    Prove,
    Welcome,
)
from asynqueue.wire.protocol.session import Session
from asynqueue.wire.transport.connecting import RefusalLog
from asynqueue.wire.transport.sockets import tune
from tests.doubles import readingLogs
from tests.wires import KEY, End, FakeTransport, Wire, parsed

KEYED = {"key": KEY}
HEARTBEAT = 10.0


@pytest.fixture
def wire() -> Wire:
    """
    A queue and a host with the same key, and an open connection.
    """
    return Wire(queue=KEYED, host=KEYED).open()


def listener(**options: Any) -> End:
    """
    A host that needs a key, and to which somebody has connected.
    """
    end = End(Session("host", False, key=KEY), Clock(), **{"heartbeat": None, **options})
    end.connect()
    return end


def commandsOf(transport: FakeTransport) -> list[bytes]:
    """
    What was written, in the order.
    """
    return [box[COMMAND] for box in parsed(transport.taken())]


def greet(**changes: Any) -> bytes:
    """
    The greeting of a queue with a key.
    """
    said = {
        "versions": [1],
        "software": "Other 2",
        "python": "3.12.1",
        "role": "queue",
        "nonce": b"n" * 32,
        "codec": "pickle",
        "keyed": True,
    }
    return packedBox(Greet, **{**said, **changes})


# The opening


def test_bothOwnersAreTold(wire: Wire) -> None:
    """
    Once it is open, both owners know who is there.
    """
    for end in (wire.queue, wire.host):
        assert end.owner.told == ["opened"]
        assert end.connection.isOpen
        assert end.connection.rtt is not None
        assert end.connection.description == "host 192.0.2.7:4000"
    assert wire.queue.connection.peer.role == "host"


@pytest.mark.parametrize("piece", [1, 3, 100])
def test_piecesOfAnySizeOpenIt(piece: int) -> None:
    """
    Bytes may arrive one by one.
    """
    wire = Wire(queue=KEYED, host=KEYED)
    wire.queue.connect()
    wire.host.connect()
    wire.carry(piece)
    wire.queue.connection.send(1, 1, b"body")
    assert wire.carry(piece).host.owner.frames == [(1, 1, b"body", [])]


def test_messagesCanBeSentWhenItOpens() -> None:
    """
    An owner may send as soon as it is told, and what follows the opening in the same
    piece is received.
    """
    wire = Wire(queue=KEYED, host={**KEYED, "about": {"names": ["n" * 30] * 1000}})
    owner = wire.queue.owner
    owner.opened = lambda connection: connection.send(1, 1, b"first")  # type: ignore[method-assign]
    assert wire.open().host.owner.frames == [(1, 1, b"first", [])]


def test_theWrongKeyIsToldToBoth() -> None:
    """
    Neither side opens, and both owners hear why, once.
    """
    wire = Wire(queue={"key": b"the key of somebody else"}, host=KEYED).open()
    for end in (wire.queue, wire.host):
        assert end.owner.told == ["lost"]
        assert isinstance(end.owner.error, IdentityRefused)
        assert not end.connection.isOpen
    with pytest.raises(WireError, match="not open"):
        assert wire.queue.connection.peer


def test_twoThatRefuseEachOtherPartAtOnce() -> None:
    """
    Nobody waits for the other to close.
    """
    wire = Wire(queue={}, host=KEYED).open()
    assert wire.clock.seconds() == 0
    for end in (wire.queue, wire.host):
        assert "the host has a key, and the queue has none" in str(end.owner.error)
        assert end.transport.isHalfClosed


def test_itMustOpenInTime() -> None:
    """
    Whoever says nothing, or not enough, is let go after ten seconds.
    """
    for said in (b"", greet()):
        end = listener()
        end.connection.dataReceived(said)
        end.connection._reactor.advance(OPENING_SECONDS - 0.1)
        assert not end.transport.isBroken
        end.connection._reactor.advance(0.2)
        assert end.transport.isBroken
        end.lose(ConnectionAborted())
        assert "not open within 10 s" in str(end.owner.error)


def test_itHasNoTimerWhenItIsOpenAndWhenItIsLost(wire: Wire) -> None:
    """
    Without a heartbeat an open connection costs no timer, and a lost one never does.
    """
    assert wire.clock.getDelayedCalls() == []
    other = Wire(heartbeat=HEARTBEAT).open()
    assert len(other.clock.getDelayedCalls()) == 2
    other.queue.connection.abort()
    other.carry()
    assert other.clock.getDelayedCalls() == []


# Before somebody has proved itself


def test_bytesAreLimitedBeforeProof() -> None:
    """
    A stranger who announces, or sends, more than is allowed is refused, and what it
    sends then is not kept.
    """
    end = listener()
    end.connection.dataReceived(BATCH_HEAD + b"\xff\xff" + b"x" * MOST_UNPROVEN_BYTES)
    assert commandsOf(end.transport) == [b"Greet", b"Refuse"]
    for _ in range(20):
        end.connection.dataReceived(b"x" * 10_000)
    assert end.transport.isBroken
    end.lose(ConnectionAborted())
    assert "before a connection is open" in str(end.owner.error)


def test_aLargeGreetingIsRefused() -> None:
    """
    So is a greeting of more bytes than are allowed, before all of it has come.
    """
    end = listener()
    said = greet(software="x" * 2 * MOST_UNPROVEN_BYTES)
    end.connection.dataReceived(said[: MOST_UNPROVEN_BYTES - 100])
    assert commandsOf(end.transport) == [b"Greet", b"Refuse"]


def test_aFloodBeforeProofIsRefusedAtItsFirstBox() -> None:
    """
    A batch before the proof is not looked into.
    """
    end = listener()
    end.connection.dataReceived(greet() + packedBatch([bytes(20)], 20) * 10)
    assert commandsOf(end.transport) == [b"Greet", b"Refuse"]
    end.lose(ConnectionLost())
    assert "'Batch' must not be said in PROVING" in str(end.owner.error)
    assert end.owner.frames == []


def test_whoIsRefusedAndStaysIsLetGo() -> None:
    """
    The refusal has two seconds to be read.
    """
    end = listener()
    end.connection.dataReceived(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert commandsOf(end.transport) == [b"Greet", b"Refuse"]
    assert not end.transport.isClosing
    end.connection._reactor.advance(2.1)
    assert end.transport.isBroken
    end.lose(ConnectionAborted())
    assert "no AMP box" in str(end.owner.error)


@settings(max_examples=200)
@given(st.lists(st.binary(min_size=1, max_size=300), max_size=8), st.integers(0, 2))
def test_garbageEndsThisConnectionOnly(pieces: list[bytes], stage: int) -> None:
    """
    Whatever comes, at whatever stage, is an error that the owner is told once, or
    something that is waited for; and nothing is raised.
    """
    wire = Wire(queue=KEYED, host=KEYED)
    host = wire.host
    if stage == 2:
        wire.open()
    else:
        host.connect()
        host.connection.dataReceived(greet() * stage)
    for piece in pieces:
        host.connection.dataReceived(piece)
    host.lose(ConnectionLost())
    assert len(host.owner.errors) == 1
    assert host.owner.told[-1] == "lost"
    assert wire.queue.owner.told in ([], ["opened"])


# RefusalLog


def strangers(refusals: RefusalLog, count: int, clock: Clock) -> None:
    """
    So many come and say what is no greeting.
    """
    for _ in range(count):
        end = End(Session("host", False, key=KEY), clock, onRefused=refusals.add)
        end.connect()
        end.connection.dataReceived(b"GET / HTTP/1.1\r\n")
        end.lose(ConnectionLost())


def test_strangersAreLogged() -> None:
    """
    With their address, and what is wrong with them.
    """
    clock = Clock()
    with readingLogs() as logs:
        strangers(RefusalLog(clock), 1, clock)
    [said] = logs.said()
    assert "192.0.2.7:4000" in said
    assert "no AMP box" in said


def test_manyStrangersDoNotFillTheLog() -> None:
    """
    A few in a minute are logged, the others are counted.
    """
    clock = Clock()
    refusals = RefusalLog(clock, most=3)
    with readingLogs() as logs:
        strangers(refusals, 50, clock)
        clock.advance(61)
        strangers(refusals, 1, clock)
    said = logs.said()
    assert len(said) == 5
    assert said[3] == "47 more connections could not be opened"


def test_whoJustLooksIsNotLogged() -> None:
    """
    Somebody who connects and leaves without a word may watch whether this side lives;
    a connection that was open is its owner's affair.
    """
    clock = Clock()
    refusals = RefusalLog(clock)
    with readingLogs() as logs:
        end = listener(onRefused=refusals.add)
        end.lose(ConnectionDone())
        wire = Wire(refusals=refusals).open()
        wire.queue.connection.abort()
        wire.carry()
    assert logs.events == []


# Sending


def test_whatIsSentInATurnLeavesTogether(wire: Wire) -> None:
    """
    Nothing is written within C{send}; at the end of the turn all leaves in one box.
    """
    written = wire.queue.transport.written
    for number in range(100):
        wire.queue.connection.send(1, number)
    assert wire.queue.transport.written == written
    wire.clock.advance(0)
    assert commandsOf(wire.queue.transport) == [b"Batch"]


def test_anAnswerLeavesWithTheTurnInWhichItIsGiven(wire: Wire) -> None:
    """
    What an owner sends when it is told of messages waits for no other turn.
    """
    wire.host.owner.received = (  # type: ignore[method-assign]
        lambda connection, frames: connection.send(17, 1)
    )
    wire.host.connection.dataReceived(packedBatch([bytes(20)], 20))
    assert commandsOf(wire.host.transport) == [b"Batch"]


def test_aMessageThatIsTooLargeIsTheCallersError(wire: Wire) -> None:
    """
    It is raised at once, and the connection goes on.
    """
    wire = Wire(host={"largest": LEAST_LARGEST}).open()
    with pytest.raises(FrameTooLarge):
        wire.queue.connection.send(1, 1, bytes(LEAST_LARGEST + 1))
    wire.queue.connection.send(1, 2)
    assert len(wire.carry().host.owner.frames) == 1


def test_aFullTransportStopsOnlyWhatIsLarge(wire: Wire) -> None:
    """
    Chunks wait for the transport; small messages go on, and overtake them.
    """
    queue = wire.queue
    queue.connection.send(1, 1, bytes(1_000_000))
    wire.clock.advance(0)
    assert queue.transport.isPaused
    assert queue.transport.size < 200_000
    for number in range(2, 5):
        queue.connection.send(1, number, b"small")
        wire.clock.advance(0)
    assert queue.transport.size < 200_000
    wire.carry()
    assert [number for _, number, *_ in wire.host.owner.frames] == [2, 3, 4, 1]


def test_whatWaitsIsCounted(wire: Wire) -> None:
    """
    Large messages until they are written, and all that is written while the transport is
    full.
    """
    queue = wire.queue
    assert queue.connection.backlog == 0
    queue.connection.send(1, 1, bytes(1_000_000))
    assert queue.connection.backlog == 1_000_028
    wire.clock.advance(0)
    left = queue.connection.backlog
    assert left >= 1_000_028
    queue.connection.send(1, 2, bytes(10_000))
    wire.clock.advance(0)
    assert queue.connection.backlog > left + 10_000
    wire.carry()
    assert queue.connection.backlog == 0


def test_whoWaitsIsCalledWhenLessWaits(wire: Wire) -> None:
    """
    Once, each at its own mark, and never within the call that asks for it.
    """
    queue = wire.queue
    called: list[tuple[str, int]] = []

    def note(name: str) -> Any:
        return lambda: called.append((name, queue.connection.backlog))

    queue.connection.whenEased(1, note("now"))
    assert called == []
    wire.clock.advance(0)
    assert called == [("now", 0)]
    queue.connection.send(1, 1, bytes(3_000_000))
    queue.connection.whenEased(2_000_000, note("half"))
    queue.connection.whenEased(1, note("empty"))
    wire.clock.advance(0)
    assert called == [("now", 0)]
    wire.carry()
    assert [name for name, _ in called] == ["now", "half", "empty"]
    assert 1_500_000 < called[1][1] < 2_000_000


def test_whoWaitsForALostConnectionIsForgotten(wire: Wire) -> None:
    """
    There is nothing to go on with.
    """
    wire.queue.connection.send(1, 1, bytes(3_000_000))
    wire.queue.connection.whenEased(1, lambda: wire.queue.owner.told.append("eased"))
    wire.queue.connection.abort()
    wire.advance(100)
    assert wire.queue.owner.told == ["opened", "lost"]


def test_whatAWaiterRaisesEndsTheConnection(wire: Wire) -> None:
    """
    It is logged, and the owner is told.
    """
    error = ZeroDivisionError()

    def oops() -> None:
        raise error

    wire.queue.connection.whenEased(1, oops)
    with readingLogs() as logs:
        wire.carry()
    assert logs.errors() == [error]
    assert wire.queue.owner.error is error


def test_whoWaitsIsForgottenWhenAnotherEndsTheConnection(wire: Wire) -> None:
    """
    Of several who wait for the same, the others are not called once one has ended it.
    """
    called: list[str] = []

    def end() -> None:
        called.append("end")
        wire.queue.connection.abort()

    for f in (end, lambda: called.append("late")):
        wire.queue.connection.whenEased(1, f)
    wire.carry()
    assert called == ["end"]


def test_largeMessagesPassBothWays(wire: Wire) -> None:
    """
    As many bytes as one likes, at once in both directions.
    """
    body = bytes(range(256)) * 20_000
    wire.queue.connection.send(1, 1, body, [body])
    wire.host.connection.send(17, 1, body)
    wire.carry()
    assert wire.host.owner.frames == [(1, 1, body, [body])]
    assert wire.queue.owner.frames == [(17, 1, body, [])]


def test_nothingIsSentWhenItIsLost(wire: Wire) -> None:
    """
    It is an error of the caller's.
    """
    wire.queue.connection.abort()
    wire.carry()
    with pytest.raises(LocalProtocolError):
        wire.queue.connection.send(1, 1)
    wire.queue.connection.goodbye()
    wire.queue.connection.close()
    wire.queue.connection.abort()
    wire.advance(100)
    assert wire.queue.owner.told == ["opened", "lost"]


# Owners


def test_whatAnOwnerRaisesEndsItsConnection(wire: Wire) -> None:
    """
    It is logged, and the owner is told that it is over.
    """
    error = wire.host.owner.raises["received"] = ZeroDivisionError("oops")
    wire.queue.connection.send(1, 1)
    with readingLogs() as logs:
        wire.carry()
    assert logs.errors() == [error]
    assert wire.host.owner.error is error
    assert isinstance(wire.queue.owner.error, ConnectionLost)


def test_anOwnerCanRefuse(wire: Wire) -> None:
    """
    An error of the wire that an owner raises is told to the other side, and not logged.
    """
    wire.host.owner.raises["received"] = RemoteProtocolError("call 1 is there already")
    wire.queue.connection.send(1, 1)
    with readingLogs() as logs:
        wire.carry()
    assert logs.errors() == []
    assert str(wire.host.owner.error) == "call 1 is there already"
    assert isinstance(wire.queue.owner.error, LocalProtocolError)
    assert "call 1 is there already" in str(wire.queue.owner.error)


@pytest.mark.parametrize("what", ["opened", "leaving: bye"])
def test_whateverAnOwnerRaisesIsLogged(what: str) -> None:
    """
    Also what it raises when it is told of something else than messages.
    """
    wire = Wire()
    wire.host.owner.raises[what] = ZeroDivisionError()
    with readingLogs() as logs:
        wire.open()
        wire.queue.connection.goodbye("bye")
        wire.carry()
    assert len(logs.errors()) == 1
    assert len(wire.host.owner.errors) == 1


def test_whatAnOwnerRaisesAtTheEndIsLogged(wire: Wire) -> None:
    """
    The transport does not suffer from it.
    """
    wire.host.owner.raises["lost"] = ZeroDivisionError()
    with readingLogs() as logs:
        wire.queue.connection.close()
        wire.carry()
    assert len(logs.errors()) == 1


def test_anOwnerMayAbortWhenItIsTold(wire: Wire) -> None:
    """
    Nothing more is heard after that, even of what has come already.
    """
    error = RemoteProtocolError("enough")
    host = wire.host
    host.owner.received = (  # type: ignore[method-assign]
        lambda connection, frames: (host.owner.told.append("got"), connection.abort(error))
    )
    host.connection.dataReceived(packedBatch([bytes(20)], 20) * 3)
    wire.carry()
    assert host.owner.told == ["opened", "got", "lost"]
    assert host.owner.error is error


# Heartbeats


def test_whoIsSilentIsAskedAndLives() -> None:
    """
    A connection without messages lives as long as both sides do.
    """
    wire = Wire(heartbeat=HEARTBEAT).open()
    written = wire.queue.transport.written
    wire.advance(1000, 1000)
    assert wire.queue.connection.isOpen
    assert wire.host.connection.isOpen
    # Not more than a beat and an echo each time.
    assert wire.queue.transport.written - written < 100 * 60


def test_aHalfOpenConnectionIsFound() -> None:
    """
    When nothing passes any more, and nobody says so, both sides find out after three
    heartbeats.
    """
    wire = Wire(heartbeat=HEARTBEAT).open()
    wire.isCut = True
    wire.advance(3 * HEARTBEAT - 1, 29)
    assert wire.queue.owner.errors == wire.host.owner.errors == []
    wire.advance(2, 2)
    for end in (wire.queue, wire.host):
        assert isinstance(end.owner.error, RemoteProtocolError)
        assert "silent for 30 s" in str(end.owner.error)


def test_withoutHeartbeatItIsNotFound() -> None:
    """
    C{None} means that nobody asks.
    """
    wire = Wire().open()
    wire.isCut = True
    wire.advance(1e6)
    assert wire.queue.connection.isOpen


def test_aClockThatJumpsEndsNothing() -> None:
    """
    When the clock is set, or this process has slept, the other side is asked first.
    """
    wire = Wire(heartbeat=HEARTBEAT).open()
    wire.advance(3600)
    wire.advance(100, 100)
    assert wire.queue.connection.isOpen
    wire.clock.rightNow -= 7200
    wire.advance(7300, 73)
    assert wire.queue.connection.isOpen
    wire.clock.rightNow -= 7200
    wire.isCut = True
    wire.advance(7200 + 4 * HEARTBEAT, 7240)
    assert not wire.queue.connection.isOpen


def test_whoOnlyHearsSaysThatItLives() -> None:
    """
    A side that receives for a long time beats, too: its echoes may wait behind much
    else, and then the sender would hear nothing.
    """
    wire = Wire(heartbeat=HEARTBEAT).open()
    for _ in range(12):
        wire.clock.advance(1)
        # What the queue says, without anything that wants an answer.
        wire.host.connection.dataReceived(packedBatch([bytes(20)], 20))
    assert b"Beat" in commandsOf(wire.host.transport)


# The end


def test_whatIsLinedUpIsWrittenBeforeItCloses(wire: Wire) -> None:
    """
    Also what needs more than one window.
    """
    wire.queue.connection.send(1, 1, bytes(2_000_000))
    wire.queue.connection.send(1, 2)
    wire.queue.connection.close()
    assert not wire.queue.connection.isOpen
    wire.carry()
    assert [number for _, number, *_ in wire.host.owner.frames] == [2, 1]
    for end in (wire.queue, wire.host):
        assert isinstance(end.owner.error, ConnectionDone)
        assert end.owner.told[-1] == "lost"


def test_aGoodbyeIsTold(wire: Wire) -> None:
    """
    After it messages pass, until somebody closes.
    """
    wire.host.connection.goodbye("the host stops")
    wire.carry()
    assert wire.queue.owner.told == ["opened", "leaving: the host stops"]
    wire.host.connection.send(17, 1)
    wire.carry()
    assert len(wire.queue.owner.frames) == 1
    wire.queue.connection.close()
    wire.carry()
    assert wire.host.owner.told[-1] == "lost"


def test_aTransportThatDoesNotCloseIsBroken(wire: Wire) -> None:
    """
    If the other side reads nothing any more, closing takes ten seconds.
    """
    wire.queue.connection.send(1, 1)
    wire.queue.connection.close()
    wire.clock.advance(0)
    assert wire.queue.transport.isClosing
    wire.clock.advance(10.1)
    assert wire.queue.transport.isBroken
    wire.carry()
    assert isinstance(wire.queue.owner.error, ConnectionAborted)


def test_itCanBeEndedBeforeItBegins() -> None:
    """
    Closed or aborted before there is a transport, or before it is open.
    """
    for act in ("close", "abort"):
        early = End(Session("queue", True), Clock())
        getattr(early.connection, act)()
        early.connect()
        assert early.transport.isBroken
        assert early.transport.written == 0
        late = listener()
        getattr(late.connection, act)()
        assert late.transport.isClosing
        late.lose(ConnectionAborted())
        assert late.owner.told == ["lost"]


def test_theErrorOfTheTransportIsTold(wire: Wire) -> None:
    """
    If nothing else is known.
    """
    error = ConnectionLost("reset by peer")
    wire.queue.lose(error)
    assert wire.queue.owner.error is error


def test_itIsLostOnce(wire: Wire) -> None:
    """
    Whatever comes together at the end, the owner is told once.
    """
    wire.queue.connection.dataReceived(b"\0\0")
    wire.queue.connection.abort()
    wire.queue.connection.connectionLost()
    wire.queue.connection.connectionLost()
    wire.queue.connection.dataReceived(b"late")
    assert isinstance(wire.queue.owner.error, RemoteProtocolError)


# After the opening


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        greet(),
        packedBox(Prove, proof=b"p" * 32),
        packedBox(Welcome, window=1, largest=LEAST_LARGEST, about="{}"),
        packedBatch([b"no frame at all, but longer"], 27),
        packedBatch([bytes(19)], 19),
        packedBatch([], 0),
        packedBox(Goodbye, reason="") * 2,
        packedNumber(Beat, 1) * 100_000,
    ],
    ids=[
        "garbage",
        "greeting again",
        "proof again",
        "welcome again",
        "no frames",
        "truncated",
        "empty",
        "twice goodbye",
        "beats",
    ],
)
def test_whoHasProvedItselfAndBreaksTheProtocolIsRefused(wire: Wire, data: bytes) -> None:
    """
    Both sides are told what was wrong.
    """
    for begin in range(0, len(data), 1 << 16):
        wire.host.connection.dataReceived(data[begin : begin + (1 << 16)])
        wire.host.transport.pause()
    wire.carry()
    assert isinstance(wire.host.owner.error, RemoteProtocolError)
    assert wire.queue.owner.told[-1] == "lost"


def test_aMessageThatIsCutOffIsNotReceived(wire: Wire) -> None:
    """
    When the connection ends within a message, nobody sees a part of it.
    """
    wire.queue.connection.send(1, 1, bytes(100_000))
    wire.clock.advance(0)
    wire.host.connection.dataReceived(wire.queue.transport.taken()[:-1])
    wire.host.lose(ConnectionLost())
    assert wire.host.owner.frames == []


@pytest.mark.parametrize(("peer", "here"), [(b"/run/x", None), (None, b"/run/x")])
def test_aUNIXSocketIsDescribedByItsName(peer: bytes | None, here: bytes | None) -> None:
    """
    On both sides, though only one has a name.
    """
    end = End(Session("host", False), Clock())
    end.transport.peer = UNIXAddress(peer)
    end.transport.here = UNIXAddress(here)
    end.connect()
    assert end.connection.description == "UNIX socket /run/x"


def test_asMuchIsReadAtOnceAsIsSent() -> None:
    """
    What one side sends at once, the other side reads at once.
    """
    transport = FileDescriptor(Clock())  # type: ignore[arg-type]  # nothing but time is wanted
    tune(transport)
    assert transport.bufferSize == transport.SEND_LIMIT
