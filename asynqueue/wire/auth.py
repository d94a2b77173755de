"""
Keys and proofs. Bytes in, bytes out; no I/O.

Both sides of a connection have the same key, and each proves it without showing it: by
a digest of both greetings, which hold a fresh nonce each, and of the TLS channel below,
if there is one. Who listens to one connection can prove nothing on another; who stands
between two TLS channels has two digests that do not agree; and as the digest names the
side that made it, nobody proves itself with what the other side has said.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from typing import NamedTuple

NONCE_BYTES = 32
PROOF_BYTES = 32

LEAST_KEY_BYTES = 16
"""A shorter key could be guessed by somebody who gets hold of a proof."""

_CONTEXT = b"asynqueue-wire-1"
_DIALER = b"dialer"
_LISTENER = b"listener"


def newNonce() -> bytes:
    """
    Bytes that were never used before.
    """
    return os.urandom(NONCE_BYTES)


def checkKey(key: bytes | None) -> None:
    """
    @raise ValueError: this is no good key.
    """
    if key is not None and len(key) < LEAST_KEY_BYTES:
        raise ValueError(
            f"a key of {len(key)} bytes can be guessed: it needs {LEAST_KEY_BYTES} at least;"
            " `asynqueue keys DIRECTORY` makes one"
        )


class Exchange(NamedTuple):
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
        The proof that one side gives.

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
        Whether this is the proof of that side. It takes the same time for each one that
        is not.
        """
        return hmac.compare_digest(self.proof(key, dialed), proof)
