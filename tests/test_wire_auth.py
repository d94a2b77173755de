"""
What L{asynqueue.wire.protocol.handshake} promises: a proof holds for one key, one side, one pair of
greetings and one channel.
"""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from asynqueue.wire.protocol.handshake import (
    NONCE_BYTES,
    PROOF_BYTES,
    Transcript,
    checkKey,
)
from asynqueue.wire.protocol.session import Session
from tests.wires import KEY, parsed

TRANSCRIPT = Transcript(b"greeting of the dialer", b"greeting of the listener", b"a channel")

changes = st.tuples(st.integers(0, 2), st.binary(max_size=40))


def test_aProofIsTheDigestThatTheDocumentSays() -> None:
    """
    The formula is the one of the protocol, so that others can speak it.
    """
    message = (
        b"asynqueue-wire-1dialer"
        + hashlib.sha256(b"greeting of the dialer").digest()
        + hashlib.sha256(b"greeting of the listener").digest()
        + b"a channel"
    )
    assert TRANSCRIPT.proof(KEY, True) == hmac.new(KEY, message, "sha256").digest()


def test_theProofsAreThoseOfTheDocument() -> None:
    """
    The example of the protocol page holds.
    """
    transcript = Transcript(b"greeting of the dialer", b"greeting of the listener", b"")
    text = (Path(__file__).parents[1] / "docs" / "protocol.rst").read_text(encoding="utf-8")
    for dialed in (True, False):
        assert transcript.proof(bytes(range(32)), dialed).hex() in text


def test_aProofIsBelieved() -> None:
    """
    Each side believes what the other has proved.
    """
    for dialed in (True, False):
        proof = TRANSCRIPT.proof(KEY, dialed)
        assert len(proof) == PROOF_BYTES
        assert TRANSCRIPT.isProof(KEY, dialed, proof)


def test_aProofIsOfOneSide() -> None:
    """
    Nobody proves itself with what the other side has said.
    """
    assert not TRANSCRIPT.isProof(KEY, False, TRANSCRIPT.proof(KEY, True))


@given(changes)
def test_aProofIsOfOneConnection(change: tuple[int, bytes]) -> None:
    """
    With another greeting of either side, or another channel, it is none.
    """
    index, value = change
    parts = list(TRANSCRIPT)
    isOther = parts[index] != value
    parts[index] = value
    other = Transcript(*parts)
    assert TRANSCRIPT.isProof(KEY, True, other.proof(KEY, True)) is not isOther


@given(st.binary(max_size=64))
def test_whatIsNoProofIsNotBelieved(proof: bytes) -> None:
    """
    Bytes of any length are compared, and refused.
    """
    assert not TRANSCRIPT.isProof(KEY, True, proof)


@given(st.binary(min_size=16, max_size=64).filter(lambda key: key.rstrip(b"\0") != KEY))
def test_aProofIsOfOneKey(key: bytes) -> None:
    """
    Another key makes another proof.
    """
    assert not TRANSCRIPT.isProof(key, True, TRANSCRIPT.proof(KEY, True))


def test_noncesAreNew() -> None:
    """
    No nonce comes twice.
    """
    nonces = set()
    for _ in range(100):
        session = Session("queue", True)
        session.start()
        (box,) = parsed(b"".join(session.boxes(0.0)))
        nonces.add(bytes(box[b"nonce"]))
    assert len(nonces) == 100
    assert {len(nonce) for nonce in nonces} == {NONCE_BYTES}


def test_aShortKeyIsRefused() -> None:
    """
    A key that can be guessed is an error that says what to do.
    """
    with pytest.raises(ValueError, match="asynqueue keys"):
        checkKey(b"fifteen bytes..")
    checkKey(b"sixteen bytes...")
    checkKey(None)
