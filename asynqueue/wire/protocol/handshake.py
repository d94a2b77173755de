"""
How a connection opens: greetings, proofs and refusals. Bytes in, bytes out; no I/O.

Both sides of a connection have the same key, and each proves it without showing it: by
a digest of both greetings, which hold a fresh nonce each, and of the TLS channel below,
if there is one. Who listens to one connection can prove nothing on another; who stands
between two TLS channels has two digests that do not agree; and as the digest names the
side that made it, nobody proves itself with what the other side has said.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, NamedTuple

from asynqueue.errors import (
    IdentityRefused,
    LocalProtocolError,
    RemoteProtocolError,
    VersionRefused,
    WireError,
)
from asynqueue.wire.protocol.boxes import Box, unpackedBox
from asynqueue.wire.protocol.commands import VERSIONS, Greet, Versions

NONCE_BYTES = 32
PROOF_BYTES = 32

LEAST_KEY_BYTES = 16
"""A shorter key could be guessed by somebody who gets hold of a proof."""

_CONTEXT = b"asynqueue-wire-1"
_DIALER = b"dialer"
_LISTENER = b"listener"

SOFTWARE = f"AsynQueue {version('asynqueue')}"
"""What runs here."""

ROLES = {"queue": "host", "host": "queue"}
"""Each role, and who can be on the other side."""

DIFFERENT_KEYS = (
    "both sides have different keys, or somebody is between them: give both the same key file"
)

_MOST_TEXT = 1000


class Refusal(Exception):
    """
    The other side has to be refused. For use within the wire.
    """

    def __init__(self, code: str, text: str) -> None:
        """
        @param code: see L{refusedBy}.
        @param text: what is wrong, and what to do, as both sides can read it.
        """
        super().__init__(code, text)
        self.code = code
        self.text = text


def plain(text: str) -> str:
    """
    Return somebody's text, fit for a log.
    """
    return "".join(c if c.isprintable() else " " for c in text[:_MOST_TEXT])


def checkGreeting(box: Box, role: str, codec: str, keyed: bool, nonce: bytes) -> dict[str, Any]:
    """
    Return what the other side says in its greeting.

    @param role: of this side, as all that follows.
    @raise Refusal: both sides cannot work together.
    @raise RemoteProtocolError: this is no greeting.
    """
    # Another version may have other arguments: nothing else is looked at before.
    versions = unpackedBox(Versions, box)["versions"]
    if not set(versions) & set(VERSIONS):
        raise Refusal("version", _differentVersions(role, versions))
    greeted = unpackedBox(Greet, box)
    if len(greeted["nonce"]) != NONCE_BYTES or greeted["nonce"] == nonce:
        raise RemoteProtocolError("a nonce that is none")
    other = ROLES[role]
    if greeted["role"] != other:
        text = f"one side is a {plain(greeted['role'])!r} and the other a {role!r}"
        raise Refusal("role", f"{text}: one has to be the queue, the other the host")
    if greeted["codec"] != codec:
        text = f"the {role} uses codec={codec!r}, the {other} codec={plain(greeted['codec'])!r}"
        raise Refusal("codec", f"{text}: give both the same")
    if greeted["keyed"] != keyed:
        has, hasNot = (role, other) if keyed else (other, role)
        raise Refusal(
            "identity",
            f"the {has} has a key, and the {hasNot} has none: give it the same one"
            " (keyFile=, --key-file, or ASYNQUEUE_KEY_FILE)",
        )
    return greeted


def refusing(peerName: str, refusal: Refusal) -> WireError:
    """
    Return the error of the side that refuses.
    """
    if refusal.code == "identity":
        return IdentityRefused(peerName, refusal.text)
    return VersionRefused(peerName, refusal.text)


def refusedBy(peerName: str, code: str, text: str) -> WireError:
    """
    Return the error of the side that was refused.

    @param code: "version", "role" and "codec": both sides cannot work together;
        "identity": one did not prove itself; "broken": this side broke the protocol;
        "busy", and what is not known: the other side does not want to.
    """
    match code:
        case "identity":
            return IdentityRefused(peerName, f"it says: {text}")
        case "version" | "role" | "codec":
            return VersionRefused(peerName, f"it says: {text}")
        case "broken":
            return LocalProtocolError(f"{peerName} says that this side broke the protocol: {text}")
    return WireError(f"{peerName} refused the connection: {text}")


def _differentVersions(role: str, theirs: Sequence[int]) -> str:
    here, there = (", ".join(map(str, some[:10])) or "none" for some in (VERSIONS, theirs))
    return (
        f"the {role} ({SOFTWARE}) speaks version {here} of the protocol, and the {ROLES[role]}"
        f" speaks {there}: install the same release on both sides"
    )


def checkKey(key: bytes | None) -> None:
    """
    Check a key.

    @raise ValueError: it is too short.
    """
    if key is not None and len(key) < LEAST_KEY_BYTES:
        raise ValueError(
            f"a key of {len(key)} bytes can be guessed: it needs {LEAST_KEY_BYTES} at least;"
            " `asynqueue keys DIRECTORY` makes one"
        )


class Transcript(NamedTuple):
    """
    What both sides of one connection have seen, if nobody is between them.

    @ivar dialer: the greeting of the side that has dialed, as a serialized box.
    @ivar listener: that of the other side.
    @ivar binding: what only the two ends of the TLS channel know; C{b""} without one.
    """

    dialer: bytes
    listener: bytes
    binding: bytes

    def proof(self, key: bytes, dialed: bool) -> bytes:
        """
        Return the proof that one side gives.

        @param dialed: whether it is the side that has dialed.
        """
        message = (
            _CONTEXT
            + (_DIALER if dialed else _LISTENER)
            + hashlib.sha256(self.dialer).digest()
            + hashlib.sha256(self.listener).digest()
            + self.binding
        )
        return hmac.digest(key, message, hashlib.sha256)

    def isProof(self, key: bytes, dialed: bool, proof: bytes) -> bool:
        """
        Return whether this is the proof of that side. It takes the same time for each one that
        is not.
        """
        return hmac.compare_digest(self.proof(key, dialed), proof)
