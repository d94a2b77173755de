"""
One connection between a queue and a host, without its I/O: boxes in, events out.

What may be said when, and the state after it, stands in L{asynqueue.wire.protocol.commands}.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from twisted.protocols.amp import ANSWER, ASK, COMMAND, ERROR

from asynqueue.errors import (
    FrameError,
    LocalProtocolError,
    RemoteProtocolError,
)
from asynqueue.framing import LARGEST
from asynqueue.wire.protocol.boxes import (
    Box,
    canonical,
    packedBox,
    packedNumber,
    unpackedBox,
    unpackedNumber,
)
from asynqueue.wire.protocol.commands import (
    LEAST_LARGEST,
    LEAST_WINDOW,
    MOST_BEATS,
    MOST_VALUE,
    TRANSITIONS,
    VERSIONS,
    Beat,
    Beaten,
    Chunk,
    Echo,
    Event,
    Frames,
    Goodbye,
    Grant,
    Greet,
    Left,
    Opened,
    Ours,
    Peer,
    Prove,
    Refuse,
    SessionState,
    Welcome,
)
from asynqueue.wire.protocol.handshake import (
    DIFFERENT_KEYS,
    NONCE_BYTES,
    ROLES,
    SOFTWARE,
    Refusal,
    Transcript,
    checkGreeting,
    checkKey,
    plain,
    refusedBy,
    refusing,
)
from asynqueue.wire.protocol.streams import Outgoing, Reassembler

# How many chunks are made at once: then the transport may say that it has enough.
_CHUNKS = 2

# The least that a round trip takes, in seconds, whatever the clock says.
_LEAST_SECONDS = 1e-6

_REPLIES = frozenset({ASK, ANSWER, ERROR})


# For hot paths: members of an enumeration are slow to look up.
_OPEN = SessionState.OPEN
_PARTING = SessionState.PARTING


class Session:
    """
    The life of one connection, as this side sees it.

    @ivar state: what it waits for.
    @ivar rtt: the seconds of the shortest round trip; C{None} before the first.
    @ivar peer: who is on the other side; C{None} before the connection is open.
    @ivar peerName: where the other side is, for messages to people.
    """

    def __init__(
        self,
        role: str,
        dialed: bool,
        *,
        key: bytes | None = None,
        codec: str = "pickle",
        largest: int = LARGEST,
        about: Mapping[str, Any] = {},
        nonce: bytes | None = None,
    ) -> None:
        """
        @param role: "queue" or "host".
        @param dialed: whether this side has dialed.
        @param key: what both sides have; C{None}: neither proves itself with a key.
        @param codec: how arguments and results are encoded.
        @param largest: how many bytes a message to this side may have.
        @param about: what the other side is told of this one; JSON.
        @param nonce: 32 bytes that were never used before, if not random ones.
        @raise ValueError: the role is unknown, the key too short, C{largest} too small or C{about}
            too large.
        """
        if role not in ROLES:
            raise ValueError(f"the role must be one of {', '.join(ROLES)}, not {role!r}")
        if largest < LEAST_LARGEST:
            raise ValueError(f"messages need {LEAST_LARGEST:,} bytes at the least, not {largest:,}")
        checkKey(key)
        self._about = json.dumps(dict(about))
        if len(self._about.encode()) > MOST_VALUE:
            raise ValueError(f"what is told about this {role} has more than {MOST_VALUE:,} bytes")
        self.state = SessionState.NEW
        self.rtt: float | None = None
        self.peer: Peer | None = None
        self.peerName = "the other side"
        self._role = role
        self._dialed = dialed
        self._key = key
        self._codec = codec
        self._largest = largest
        self._nonce = os.urandom(NONCE_BYTES) if nonce is None else nonce
        self._binding = b""
        self._greeting = b""
        self._transcript: Transcript | None = None
        self._greeted: dict[str, Any] = {}
        self._out: list[bytes] = []
        self._echoes: list[bytes] = []
        self._incoming = Reassembler(largest)
        self._outgoing = Outgoing()
        # When each beat without an echo was sent, and which of them measures chunks.
        self._beats: dict[int, float] = {}
        self._beatNumber = 0
        self._probe = 0

    # What this side does

    def start(self, binding: bytes = b"", peerName: str = "the other side") -> None:
        """
        Greet.

        @param binding: what only the two ends of the TLS channel below know.
        @param peerName: where the other side is, for messages to people.
        @raise LocalProtocolError: it was started before, or is closed.
        """
        self._binding = binding
        self.peerName = peerName
        self._greeting = packedBox(
            Greet,
            versions=VERSIONS,
            software=SOFTWARE,
            python=platform.python_version(),
            role=self._role,
            nonce=self._nonce,
            codec=self._codec,
            keyed=self._key is not None,
        )
        if not self._moves(Ours.GREET):
            raise LocalProtocolError("a session is started once, and not after its end")
        self._out.append(self._greeting)

    def send(
        self,
        kind: int,
        number: int,
        body: Any = b"",
        buffers: Sequence[Any] = (),
        behind: int | None = None,
    ) -> None:
        """
        Line a message up. A hot path.

        Messages of the same number keep their order; others may overtake large ones.

        @param kind: a L{MessageKind<asynqueue.wire.protocol.messages.MessageKind>}.
        @param buffers: objects with the buffer protocol; they must not change until
            they are sent.
        @param behind: it must not overtake messages of this number either.
        @raise LocalProtocolError: the connection is not open.
        @raise FrameTooLarge: the other side does not take messages of this size.
        @raise FrameInvalid: there are too many buffers.
        """
        if not _OPEN <= self.state <= _PARTING:
            raise LocalProtocolError(f"the connection with {self.peerName} is not open")
        self._outgoing.send(kind, number, body, buffers, behind)

    def beat(self, now: float) -> int:
        """
        Ask whether the other side is there.

        @return: the number of the beat.
        """
        self._beatNumber += 1
        if len(self._beats) < MOST_BEATS:
            self._beats[self._beatNumber] = now
            self._out.append(packedNumber(Beat, self._beatNumber))
        return self._beatNumber

    def goodbye(self, reason: str) -> None:
        """
        Say that this side begins nothing new. Messages can be sent all the same.
        """
        if self._moves(Ours.GOODBYE):
            # In its place: what was lined up before it comes before it, if it is small.
            self._out += self._outgoing.batches()
            self._out.append(packedBox(Goodbye, reason=plain(reason)))

    def refuse(self, code: str, text: str) -> None:
        """
        Have nothing more to do with the other side.

        @param code: "version", "identity", "role", "codec", "broken" or "busy".
        @param text: what is wrong, and what to do.
        """
        hasGreeted = self.state != SessionState.NEW
        if self._moves(Ours.REFUSE) and hasGreeted:
            self._out.append(packedBox(Refuse, code=code, text=plain(text)))

    # What is to be written

    def boxes(self, now: float, bulk: bool = True) -> list[bytes]:
        """
        Return what is to be written now. Chunks come a few at a time: call it again until
        there is nothing, or the transport has enough. A hot path.

        @param bulk: whether the transport can take more than small messages.
        """
        boxes, self._out = self._out, []
        if self.state == SessionState.CLOSED:
            return boxes
        if bulk and self._echoes:
            boxes += self._echoes
            self._echoes.clear()
        outgoing = self._outgoing
        if not outgoing.isEmpty:
            boxes += outgoing.batches()
            if bulk:
                boxes += outgoing.chunks(_CHUNKS)
        return boxes

    @property
    def backlog(self) -> int:
        """
        How many bytes of large messages wait for a window, or a turn.
        """
        return self._outgoing.backlog

    @property
    def hasMore(self) -> bool:
        """
        Whether there are chunks that could be written now.
        """
        return self._outgoing.hasMore

    @property
    def isDone(self) -> bool:
        """
        Whether there is nothing that waits to be sent, not even for a window.
        """
        return not self._out and self._outgoing.isEmpty

    # What the other side does

    @property
    def isProven(self) -> bool:
        """
        Whether the other side is who it has to be.
        """
        return SessionState.WELCOMING <= self.state < SessionState.CLOSED

    def receive(self, box: Box, now: float) -> Sequence[Event]:
        """
        Take a box of the other side. A hot path.

        @param now: the time in seconds, of any clock.
        @return: what has happened by it.
        @raise WireError: the session is closed by it. What is to be written then says so
            to the other side.
        """
        if self.state == SessionState.CLOSED:
            return ()
        command = box.get(COMMAND, b"")
        try:
            if not _REPLIES.isdisjoint(box):
                raise RemoteProtocolError("there are no questions and answers in this protocol")
            if not self._moves(command):
                name = plain(bytes(command[:40]).decode("latin-1"))
                raise RemoteProtocolError(f"{name!r} must not be said in {self.state.name}")
            return _HANDLERS[command](self, box, now)
        except Refusal as refusal:
            self.refuse(refusal.code, refusal.text)
            raise refusing(self.peerName, refusal) from None
        except FrameError as error:
            self.refuse("broken", str(error))
            raise RemoteProtocolError(f"{self.peerName} sent no messages: {error}") from error
        except RemoteProtocolError as error:
            self.refuse("broken", str(error))
            raise RemoteProtocolError(f"{self.peerName} broke the protocol: {error}") from None

    def _greet(self, box: Box, now: float) -> Sequence[Event]:
        self._greeted = checkGreeting(
            box, self._role, self._codec, self._key is not None, self._nonce
        )
        ours, its = self._greeting, canonical(box)
        dialer, listener = (ours, its) if self._dialed else (its, ours)
        self._transcript = Transcript(dialer, listener, self._binding)
        if self._key is None:
            self._welcome()
        elif self._dialed:
            self._prove()
        return ()

    def _proved(self, box: Box, now: float) -> Sequence[Event]:
        assert self._key is not None
        assert self._transcript is not None
        proof = unpackedBox(Prove, box)["proof"]
        if not self._transcript.isProof(self._key, not self._dialed, proof):
            raise Refusal("identity", DIFFERENT_KEYS)
        if not self._dialed:
            self._prove()
        self._welcome()
        return ()

    def _welcomed(self, box: Box, now: float) -> Sequence[Event]:
        said = unpackedBox(Welcome, box)
        try:
            about = json.loads(said["about"])
        except (ValueError, RecursionError):
            about = None
        if not isinstance(about, dict):
            raise RemoteProtocolError("it tells about itself what is no JSON object")
        if said["window"] < 0 or said["largest"] < LEAST_LARGEST:
            raise RemoteProtocolError("a Welcome that grants too little")
        self._outgoing.allowance = said["window"]
        self._outgoing.largest = said["largest"]
        greeted = self._greeted
        self.peer = Peer(
            greeted["role"],
            plain(greeted["software"]),
            plain(greeted["python"]),
            self._codec,
            about,
            said["largest"],
        )
        self.beat(now)
        return (Opened(self.peer),)

    def _refused(self, box: Box, now: float) -> Sequence[Event]:
        said = unpackedBox(Refuse, box)
        self._out.clear()
        text = plain(said["text"])
        raise refusedBy(self.peerName, said["code"], text)

    def _batch(self, box: Box, now: float) -> Sequence[Event]:
        frames = box.get(b"frames")
        if not frames:
            raise RemoteProtocolError("a batch without frames")
        return (Frames(self._incoming.batch(frames)),)

    def _chunk(self, box: Box, now: float) -> Sequence[Event]:
        stream = unpackedNumber(Chunk, box)
        data = box.get(b"data", b"")
        incoming = self._incoming
        more = incoming.window.take(len(data))
        if more:
            self._out.append(packedNumber(Grant, more))
        if not self._probe:
            self._probe = self.beat(now)
            incoming.window.mark()
        frames = incoming.chunk(stream, data)
        return (Frames(frames),) if frames else ()

    def _granted(self, box: Box, now: float) -> Sequence[Event]:
        self._outgoing.allowance += unpackedNumber(Grant, box)
        return ()

    def _beaten(self, box: Box, now: float) -> Sequence[Event]:
        # They wait while the transport is full: who does not read gets no more of them.
        self._echoes.append(packedNumber(Echo, unpackedNumber(Beat, box)))
        if len(self._echoes) > MOST_BEATS:
            raise RemoteProtocolError(f"more than {MOST_BEATS} beats, and no echo was read")
        return ()

    def _echoed(self, box: Box, now: float) -> Sequence[Event]:
        number = unpackedNumber(Echo, box)
        sent = self._beats.pop(number, None)
        if sent is None:
            raise RemoteProtocolError("an echo of no beat")
        rtt = max(now - sent, _LEAST_SECONDS)
        self.rtt = least = rtt if self.rtt is None else min(self.rtt, rtt)
        if number == self._probe:
            self._probe = 0
            self._incoming.window.measure(rtt, least)
        return (Beaten(rtt),)

    def _left(self, box: Box, now: float) -> Sequence[Event]:
        return (Left(plain(unpackedBox(Goodbye, box)["reason"])),)

    # Steps of the opening

    def _prove(self) -> None:
        assert self._key is not None
        assert self._transcript is not None
        proof = self._transcript.proof(self._key, self._dialed)
        self._out.append(packedBox(Prove, proof=proof))

    def _welcome(self) -> None:
        self._out.append(
            packedBox(Welcome, window=LEAST_WINDOW, largest=self._largest, about=self._about)
        )
        self._moves(Ours.WELCOME)

    def _moves(self, said: bytes | Ours) -> bool:
        """
        Come to the state after what is said: nothing else changes the state. A hot path.

        @return: whether it may be said now. If not, nothing changes.
        """
        following = TRANSITIONS[self.state].get(said)
        if following is None:
            return False
        self.state = following
        return True


_HANDLERS: dict[bytes, Callable[[Session, Box, float], Sequence[Event]]] = {
    b"Greet": Session._greet,
    b"Prove": Session._proved,
    b"Welcome": Session._welcomed,
    b"Refuse": Session._refused,
    b"Batch": Session._batch,
    b"Chunk": Session._chunk,
    b"Grant": Session._granted,
    b"Beat": Session._beaten,
    b"Echo": Session._echoed,
    b"Goodbye": Session._left,
}
