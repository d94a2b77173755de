"""
What L{asynqueue.wire.protocol.session} promises: two sides that fit together open a connection,
all others learn why not; and whatever a side says at the wrong time ends it.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from twisted.protocols.amp import COMMAND

from asynqueue.errors import (
    FrameTooLarge,
    IdentityRefused,
    LocalProtocolError,
    RemoteProtocolError,
    VersionRefused,
    WireError,
)
from asynqueue.wire.protocol.boxes import Box, canonical, packedBox, packedNumber
from asynqueue.wire.protocol.commands import (
    LEAST_LARGEST,
    MOST_BEATS,
    Beat,
    Beaten,
    Echo,
    Goodbye,
    Grant,
    Greet,
    Left,
    Opened,
    Prove,
    Refuse,
    SessionState,
    Welcome,
)
from asynqueue.wire.protocol.session import Session
from tests.wires import KEY, Pair, Side, parsed

KEYED = {"key": KEY}
OTHER_KEY = {"key": b"another key, of another cluster"}


def opened(side: Side) -> Opened:
    """
    What a side knows of the other, from the one time that it opened.
    """
    [event] = [event for event in side.events if isinstance(event, Opened)]
    return event


def isOpen(side: Side) -> bool:
    """
    Whether a side has opened.
    """
    return any(isinstance(event, Opened) for event in side.events)


def greeting(**changes: Any) -> Box:
    """
    The greeting of a queue.
    """
    said = {
        "versions": [1],
        "software": "Other 2",
        "python": "3.12.1",
        "role": "queue",
        "nonce": b"n" * 32,
        "codec": "pickle",
        "keyed": False,
    }
    [box] = parsed(packedBox(Greet, **{**said, **changes}))
    return box


def hostThatHeard(*boxes: Box, **options: Any) -> Side:
    """
    A host that has greeted, and was told this.
    """
    side = Side(Session("host", False, **options))
    side.session.start(b"", "somebody")
    side.hear(boxes)
    return side


def refusalOf(side: Side) -> dict[str, str]:
    """
    What a side says of why it has refused the other.
    """
    box = parsed(b"".join(side.say()))[-1]
    assert box[COMMAND] == b"Refuse"
    return {key: box[key.encode()].decode() for key in ("code", "text")}


# The opening


@pytest.mark.parametrize("options", [{}, KEYED, {"codec": "cbor"}])
def test_twoThatFitOpen(options: dict[str, Any]) -> None:
    """
    Both open once, and know each other.
    """
    pair = Pair({**options, "about": {"x": 1}}, {**options, "about": {"slots": 3}}).open()
    peer = opened(pair.queue).peer
    assert (peer.role, peer.about, peer.codec) == ("host", {"slots": 3}, pair.queue.session._codec)
    assert opened(pair.host).peer.about == {"x": 1}
    assert pair.queue.session.peer == peer
    assert pair.queue.session.rtt is not None


@pytest.mark.parametrize("dialer", ["queue", "host"])
def test_whoDialsDoesNotMatter(dialer: str) -> None:
    """
    A host can dial a queue.
    """
    pair = Pair(
        {**KEYED, "dialed": dialer == "queue"}, {**KEYED, "dialed": dialer == "host"}
    ).open()
    assert isOpen(pair.queue)
    assert isOpen(pair.host)


def test_theListenerProvesItselfLast() -> None:
    """
    Who dials a listener without having the key gets no proof to try keys with.
    """
    pair = Pair(OTHER_KEY, KEYED).open()
    said = [box[COMMAND] for box in parsed(b"".join(pair.host.said))]
    assert said == [b"Greet", b"Refuse"]


@pytest.mark.parametrize(
    ("queue", "host", "text"),
    [
        (OTHER_KEY, KEYED, "different keys"),
        ({}, KEYED, "the host has a key, and the queue has none"),
        (KEYED, {}, "the queue has a key, and the host has none"),
    ],
)
def test_withoutTheKeyNobodyComesIn(queue: dict[str, Any], host: dict[str, Any], text: str) -> None:
    """
    Both sides are told that, and why, and neither opens.
    """
    pair = Pair(queue, host).open()
    for side in (pair.queue, pair.host):
        assert isinstance(side.error, IdentityRefused)
        assert text in str(side.error)
        assert not isOpen(side)
        assert side.session.state == SessionState.CLOSED


def test_anotherChannelIsRefused() -> None:
    """
    Who stands between two TLS channels can carry the greetings, but not the proofs.
    """
    pair = Pair(KEYED, KEYED).start(b"one channel", b"another").talk()
    assert isinstance(pair.host.error, IdentityRefused)
    assert isinstance(pair.queue.error, IdentityRefused)
    assert isOpen(Pair(KEYED, KEYED).start(b"one channel", b"one channel").talk().host)


@pytest.mark.parametrize("field", [name.decode() for name, _ in Greet.arguments] + ["more"])
@pytest.mark.parametrize("victim", ["queue", "host"])
def test_greetingsCannotBeChangedOnTheWay(field: str, victim: str) -> None:
    """
    Whoever changes anything in a greeting on its way makes the proofs fail, or is
    refused at once.
    """
    pair = Pair(KEYED, KEYED).start()
    fromQueue, fromHost = (parsed(b"".join(side.say())) for side in (pair.queue, pair.host))
    [greeted] = fromQueue if victim == "host" else fromHost
    changes = {
        "versions": b"\0\x011\0\x012",
        "keyed": b"False",
        "nonce": b"m" * 32,
        "more": b"anything",
    }
    changed = changes.get(field, greeted.get(field.encode(), b"") + b"x")
    assert greeted.get(field.encode()) != changed
    greeted[field.encode()] = changed
    pair.host.hear(fromQueue)
    pair.queue.hear(fromHost)
    pair.talk()
    assert not isOpen(pair.queue)
    assert not isOpen(pair.host)
    assert pair.queue.error is not None
    assert pair.host.error is not None


def test_aProofCannotBeReplayed() -> None:
    """
    Whoever has listened to a whole opening and says the same again is refused.
    """
    pair = Pair(KEYED, KEYED).open()
    again = hostThatHeard(*parsed(b"".join(pair.queue.said))[:2], **KEYED)
    assert isinstance(again.error, IdentityRefused)


def test_aProofCannotBeReflected() -> None:
    """
    Whoever says all that it hears is refused: by its nonce, and if it has one of its
    own, by the proof.
    """
    dialer = Side(Session("queue", True, **KEYED))
    dialer.session.start()
    [greeted] = parsed(b"".join(dialer.say()))
    dialer.hear([{**greeted, b"role": b"host"}])
    assert isinstance(dialer.error, RemoteProtocolError)

    dialer = Side(Session("queue", True, **KEYED))
    dialer.session.start()
    [greeted] = parsed(b"".join(dialer.say()))
    dialer.hear([{**greeted, b"role": b"host", b"nonce": b"n" * 32}])
    [proof] = parsed(b"".join(dialer.say()))
    dialer.hear([proof])
    assert isinstance(dialer.error, IdentityRefused)


def test_anUnknownVersionIsRefusedByName() -> None:
    """
    Both versions are named, on both sides, whatever else a later greeting has.
    """
    greeted = {COMMAND: b"Greet", b"versions": b"\0\x017\0\x018", b"news": b"?"}
    side = hostThatHeard(greeted)
    refusal = refusalOf(side)
    assert isinstance(side.error, VersionRefused)
    assert refusal["code"] == "version"
    for text in (str(side.error), refusal["text"]):
        assert "speaks version 1 of" in text
        assert "7, 8" in text


def test_aVersionInCommonIsEnough() -> None:
    """
    The other side may speak others, too.
    """
    assert hostThatHeard(greeting(versions=[1, 2, 3])).error is None


@pytest.mark.parametrize(
    ("changes", "code", "text"),
    [
        ({"role": "host"}, "role", "one has to be the queue"),
        ({"role": "boss\n"}, "role", "'boss '"),
        ({"codec": "cbor"}, "codec", "codec='pickle', the queue codec='cbor'"),
        ({"keyed": True}, "identity", "--key-file"),
    ],
)
def test_thoseThatDoNotFitAreRefused(changes: dict[str, Any], code: str, text: str) -> None:
    """
    A refusal says what is wrong, and what to do.
    """
    side = hostThatHeard(greeting(**changes))
    refusal = refusalOf(side)
    assert refusal["code"] == code
    assert text in refusal["text"]
    assert text in str(side.error)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("version", VersionRefused),
        ("role", VersionRefused),
        ("codec", VersionRefused),
        ("identity", IdentityRefused),
        ("broken", LocalProtocolError),
        ("busy", WireError),
        ("of the future", WireError),
    ],
)
def test_aRefusalIsAnErrorHere(code: str, kind: type[WireError]) -> None:
    """
    Who is refused learns what the other side said, in one line.
    """
    [refusal] = parsed(packedBox(Refuse, code=code, text="because\nof\x1b[2J that"))
    side = hostThatHeard(refusal)
    assert type(side.error) is kind
    assert "because of [2J that" in str(side.error)
    assert side.session.state == SessionState.CLOSED
    assert [box[COMMAND] for box in parsed(b"".join(side.say()))] in ([], [b"Greet"])


@pytest.mark.parametrize("about", ["[]", "1", "{", "[" * 60_000])
def test_whatIsToldOfItselfIsAnObject(about: str) -> None:
    """
    Text that is no JSON object is refused, however deep it is.
    """
    [welcome] = parsed(packedBox(Welcome, window=1, largest=LEAST_LARGEST, about=about))
    assert isinstance(hostThatHeard(greeting(), welcome).error, RemoteProtocolError)


@pytest.mark.parametrize("number", [b"", b"x", b"-1", b"9" * 5000])
@pytest.mark.parametrize("field", [b"window", b"largest"])
def test_aWelcomeHasNumbersWithSense(field: bytes, number: bytes) -> None:
    """
    Numbers that are none are refused.
    """
    [welcome] = parsed(packedBox(Welcome, window=1, largest=LEAST_LARGEST, about="{}"))
    side = hostThatHeard(greeting(), {**welcome, field: number})
    assert isinstance(side.error, RemoteProtocolError)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"role": "boss"}, "boss"),
        ({"largest": 1000}, "131,072"),
        ({"key": b"short"}, "asynqueue keys"),
        ({"about": {"names": ["x" * 70_000]}}, "65,535"),
    ],
)
def test_whatHasNoSenseIsRefusedHere(options: dict[str, Any], text: str) -> None:
    """
    A session that could not work is not made.
    """
    with pytest.raises(ValueError, match=text):
        Session(**{"role": "host", "dialed": False, **options})


# Messages


def test_messagesPassOnceItIsOpen() -> None:
    """
    Small and large ones, both ways.
    """
    pair = Pair(KEYED, KEYED).open()
    pair.queue.session.send(1, 5, b"small")
    pair.host.session.send(17, 5, b"L" * 3_000_000, [b"B" * 30_000])
    pair.talk()
    assert pair.host.messages == [(1, 5, b"small", [])]
    assert pair.queue.messages == [(17, 5, b"L" * 3_000_000, [b"B" * 30_000])]
    assert pair.queue.session.isDone
    assert pair.host.session.isDone


def test_nothingIsSentBeforeItIsOpen() -> None:
    """
    It is an error of the caller's.
    """
    for pair in (Pair(KEYED, KEYED), Pair(KEYED, KEYED).start()):
        with pytest.raises(LocalProtocolError, match="not open"):
            pair.queue.session.send(1, 1)


def test_aSessionIsStartedOnce() -> None:
    """
    To start it again, or after its end, is an error of the caller's.
    """
    closed = Pair().queue.session
    closed.refuse("busy", "no more")
    for session in (Pair().start().queue.session, closed):
        with pytest.raises(LocalProtocolError, match="once"):
            session.start()


def test_theOtherSideSaysWhatIsTooLarge() -> None:
    """
    A message that it would not take is an error of the caller's; the connection stays.
    """
    pair = Pair(host={"largest": 200_000}).open()
    with pytest.raises(FrameTooLarge):
        pair.queue.session.send(1, 1, bytes(200_001))
    pair.queue.session.send(1, 2, bytes(200_000))
    assert [number for _, number, *_ in pair.talk().host.messages] == [2]


def test_whileTheTransportIsFullOnlySmallMessagesLeave() -> None:
    """
    Chunks and echoes wait; what is small does not.
    """
    pair = Pair().open()
    queue = pair.queue
    queue.session.send(1, 1, bytes(100_000))
    queue.session.send(1, 2, b"small")
    queue.hear(parsed(packedNumber(Beat, 9)))
    assert [box[COMMAND] for box in parsed(b"".join(queue.say(bulk=False)))] == [b"Batch"]
    rest = [box[COMMAND] for box in parsed(b"".join(queue.say()))]
    assert rest == [b"Echo", b"Chunk", b"Chunk"]


# Beats


def test_theShortestRoundTripCounts() -> None:
    """
    Each echo tells how long it took, and the least is kept.
    """
    pair = Pair().open()
    session = pair.queue.session
    for sent, back in ((10.0, 10.5), (20.0, 20.25), (30.0, 31.0)):
        session.beat(sent)
        pair.host.hear(parsed(b"".join(pair.queue.say())), sent)
        pair.queue.hear(parsed(b"".join(pair.host.say())), back)
    beaten = [event.rtt for event in pair.queue.events if isinstance(event, Beaten)]
    assert beaten[-3:] == [0.5, 0.25, 1.0]
    assert session.rtt == min(beaten)


def test_aClockThatIsSetBackDoesNoHarm() -> None:
    """
    A round trip that ends before it began took some time all the same.
    """
    pair = Pair().open()
    pair.queue.session.beat(100.0)
    pair.host.hear(parsed(b"".join(pair.queue.say())))
    pair.queue.hear(parsed(b"".join(pair.host.say())), 50.0)
    assert pair.queue.session.rtt is not None
    assert pair.queue.session.rtt > 0


def test_anEchoOfNoBeatIsRefused() -> None:
    """
    Nobody makes round trips shorter than they are.
    """
    pair = Pair().open()
    pair.queue.hear(parsed(packedNumber(Echo, 77)))
    assert isinstance(pair.queue.error, RemoteProtocolError)


def test_whoBeatsAndDoesNotReadIsRefused() -> None:
    """
    Echoes that nobody takes do not fill the memory.
    """
    pair = Pair().open()
    for number in range(MOST_BEATS):
        pair.host.hear(parsed(packedNumber(Beat, number)))
    assert pair.host.error is None
    assert pair.host.say(bulk=False) == []
    pair.host.hear(parsed(packedNumber(Beat, 99)))
    assert isinstance(pair.host.error, RemoteProtocolError)


def test_beatsAreNotWithoutEnd() -> None:
    """
    A side that gets no echo does not beat for ever.
    """
    pair = Pair().open()
    for _ in range(3 * MOST_BEATS):
        pair.queue.session.beat(0.0)
    pair.talk()
    assert pair.host.error is None


# The end


def test_afterAGoodbyeMessagesPass() -> None:
    """
    Both sides can still end what they have, and say goodbye, too.
    """
    pair = Pair().open()
    pair.host.session.send(17, 1, b"before")
    pair.host.session.goodbye("the host stops")
    pair.talk()
    assert pair.queue.events[-1] == Left("the host stops")
    pair.host.session.send(17, 2, b"after")
    pair.queue.session.goodbye("so be it")
    pair.queue.session.goodbye("and again")
    pair.talk()
    assert [number for _, number, *_ in pair.queue.messages] == [1, 2]
    assert [event for event in pair.host.events if isinstance(event, Left)] == [Left("so be it")]
    assert (pair.queue.session.state, pair.host.session.state) == (SessionState.PARTING,) * 2


def test_aSecondGoodbyeIsRefused() -> None:
    """
    Who has left cannot leave again.
    """
    pair = Pair().open()
    pair.host.hear(parsed(packedBox(Goodbye, reason="") * 2))
    assert isinstance(pair.host.error, RemoteProtocolError)


def test_afterARefusalNothingIsHeard() -> None:
    """
    A closed session says nothing more, and does not answer.
    """
    pair = Pair().open()
    pair.host.session.refuse("busy", "no more")
    pair.host.session.refuse("busy", "not again")
    pair.queue.session.send(1, 1, b"x")
    pair.talk()
    assert pair.host.messages == []
    assert str(pair.queue.error) == "the host refused the connection: no more"
    assert pair.host.say() == pair.queue.say() == []
    with pytest.raises(LocalProtocolError):
        pair.host.session.send(17, 1)


# Whatever else


BOXES = {
    "Greet": [greeting()],
    "Prove": parsed(packedBox(Prove, proof=b"p" * 32)),
    "Welcome": parsed(packedBox(Welcome, window=0, largest=LEAST_LARGEST, about="{}")),
    "Batch": [{COMMAND: b"Batch", b"frames": bytes(20)}],
    "Chunk": [{COMMAND: b"Chunk", b"stream": b"1", b"data": b"x"}],
    "Grant": parsed(packedNumber(Grant, 1)),
    "Beat": parsed(packedNumber(Beat, 1)),
    "Echo": parsed(packedNumber(Echo, 1)),
    "Goodbye": parsed(packedBox(Goodbye, reason="")),
}

STAGES = {
    "GREETING": ({"Greet"}, 0),
    "PROVING": ({"Prove"}, 1),
    "WELCOMING": ({"Welcome"}, 2),
    "OPEN": ({"Batch", "Chunk", "Grant", "Beat", "Echo", "Goodbye"}, 3),
}


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("command", BOXES)
def test_onlyWhatTheTableAllowsMayBeSaid(command: str, stage: str) -> None:
    """
    Any command at the wrong time is refused, with the name of both.
    """
    allowed, steps = STAGES[stage]
    pair = Pair(KEYED, KEYED).start()
    [hello] = parsed(b"".join(pair.host.say()))
    pair.queue.hear([hello])
    script = parsed(b"".join(pair.queue.say()))
    pair.host.hear(script[:steps])
    if steps > 1:
        pair.queue.hear(parsed(b"".join(pair.host.say())))
        pair.host.hear(parsed(b"".join(pair.queue.say()))[:1] if steps > 2 else [])
    assert pair.host.session.state.name == stage
    pair.host.hear(BOXES[command])
    if command in allowed:
        text = str(pair.host.error)
        assert "must not be said" not in text
    else:
        assert isinstance(pair.host.error, RemoteProtocolError)
        assert f"'{command}' must not be said in {stage}" in str(pair.host.error)
        assert refusalOf(pair.host)["code"] == "broken"


@pytest.mark.parametrize("reply", [b"_ask", b"_answer", b"_error"])
def test_thereAreNoQuestions(reply: bytes) -> None:
    """
    What AMP has for questions and answers is refused, with any command.
    """
    pair = Pair().open()
    pair.host.hear([{**BOXES["Beat"][0], reply: b"1"}])
    assert "questions" in str(pair.host.error)


boxes = st.dictionaries(
    st.sampled_from(
        [COMMAND, b"_ask", b"frames", b"data", b"stream", b"number", b"bytes", b"about", b"proof"]
        + [name for name, _ in Greet.arguments]
    ),
    st.one_of(
        st.binary(max_size=60),
        st.integers(-5, 1 << 70).map(lambda number: str(number).encode()),
        st.sampled_from([name.encode() for name in BOXES] + [b"True", b"queue", b"pickle"]),
    ),
    min_size=1,
)


# No state machine, and quick: whatever the profile, it tries more than most.
@settings(max_examples=300)
@given(st.booleans(), st.lists(boxes, max_size=8))
def test_noBoxRaisesAnythingElse(isItOpen: bool, some: list[Box]) -> None:
    """
    Whatever is said, before or after the opening, ends in silence or an error of the
    wire.
    """
    pair = Pair(KEYED, KEYED).start()
    if isItOpen:
        pair.talk()
    pair.host.hear(some)
    if pair.host.error is not None:
        assert pair.host.session.state == SessionState.CLOSED
        assert isinstance(
            pair.host.error, (RemoteProtocolError, IdentityRefused, VersionRefused, WireError)
        )


class Conversation(RuleBasedStateMachine):
    """
    Two sides that say what they like, when they may, over ways that deliver when they
    like, in pieces of any size: what is sent is what comes, each number's in order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.sides: tuple[Side, ...] = ()

    @initialize(keyed=st.booleans(), dialer=st.booleans())
    def begin(self, keyed: bool, dialer: bool) -> None:
        key = KEY if keyed else None
        self.pair = Pair({"key": key, "dialed": dialer}, {"key": key, "dialed": not dialer})
        self.sides = (self.pair.queue, self.pair.host)
        self.sent: dict[Side, list[Any]] = {side: [] for side in self.sides}
        self.ways: dict[Side, bytearray] = {side: bytearray() for side in self.sides}
        self.pair.start()
        self.now = 0.0

    def _other(self, side: Side) -> Side:
        return self.sides[side is self.sides[0]]

    @rule(which=st.integers(0, 1), bulk=st.booleans())
    def write(self, which: int, bulk: bool) -> None:
        side = self.sides[which]
        self.ways[side] += b"".join(side.say(self.now, bulk))

    @rule(which=st.integers(0, 1), boxes=st.integers(1, 9))
    def deliver(self, which: int, boxes: int) -> None:
        side = self.sides[which]
        self.now += 0.01
        heard = parsed(bytes(self.ways[side]))[:boxes]
        del self.ways[side][: sum(len(canonical(plain(box))) for box in heard)]
        self._other(side).hear(heard, self.now)

    @rule(
        which=st.integers(0, 1),
        number=st.integers(0, 3),
        size=st.sampled_from([0, 10, 20_000, 70_000, 400_000]),
        hasBuffer=st.booleans(),
    )
    def send(self, which: int, number: int, size: int, hasBuffer: bool) -> None:
        side = self.sides[which]
        if SessionState.OPEN <= side.session.state <= SessionState.PARTING:
            buffers = [bytes(size)] if hasBuffer else []
            body = len(self.sent[side]).to_bytes(4, "big")
            side.session.send(1, number, body, buffers)
            self.sent[side].append((1, number, body, buffers))

    @rule(which=st.integers(0, 1))
    def beat(self, which: int) -> None:
        side = self.sides[which]
        if SessionState.OPEN <= side.session.state <= SessionState.PARTING:
            side.session.beat(self.now)

    @rule(which=st.integers(0, 1))
    def leave(self, which: int) -> None:
        self.sides[which].session.goodbye("bye")

    @invariant()
    def nothingIsWrong(self) -> None:
        for side in self.sides:
            assert side.error is None
            sent = self.sent[self._other(side)]
            for number in range(4):
                came = [each for each in side.messages if each[1] == number]
                assert came == [each for each in sent if each[1] == number][: len(came)]

    def teardown(self) -> None:
        for side in self.sides:
            self._other(side).hear(parsed(bytes(self.ways[side])), self.now)
        if self.sides:
            self.pair.talk(self.now)
        for side in self.sides:
            assert isOpen(side)
            assert sorted(side.messages) == sorted(self.sent[self._other(side)])


def plain(box: Box) -> Box:
    """
    A box of bytes only.
    """
    return {key: bytes(value) for key, value in box.items()}


Conversation.TestCase.settings = settings(stateful_step_count=40)
test_conversation = Conversation.TestCase
