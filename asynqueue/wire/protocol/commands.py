"""
What a queue and a host can say to each other, as AMP commands.

None of them is answered: what follows upon what stands in L{asynqueue.wire.protocol.session},
and what is in the frames of a batch in L{asynqueue.wire.protocol.messages}. C{docs/protocol.rst}
tells all of it to people who write the other side.
"""

from __future__ import annotations

from twisted.protocols.amp import Boolean, Command, Integer, ListOf, String, Unicode

VERSIONS = (1,)
"""The versions of the protocol that this side speaks."""

MOST_VALUE = 0xFFFF
"""The most bytes that a value in a box has (AMP)."""

MOST_SMALL = 1 << 14
"""The most bytes of a message that is sent in a batch; a larger one is sent in chunks."""

MOST_STREAMS = 64
"""The most messages that may be under way in chunks, in one direction at once."""

LEAST_LARGEST = 1 << 17
"""The least bytes of a message that each side takes: what is wrong with a larger one must fit."""

LEAST_WINDOW = 1 << 17
"""The bytes of chunks that each side grants to begin with, and always."""

MOST_WINDOW = 1 << 26
"""The most bytes of chunks that a side grants."""

MOST_UNPROVEN_BYTES = 1 << 12
"""The most bytes that a peer may send before it has proved itself ..."""

MOST_UNPROVEN_BOXES = 4
"""... and the most boxes ..."""

OPENING_SECONDS = 10.0
"""... and the seconds after which a connection is open, or lost."""

MOST_BEATS = 64
"""The most beats of a side that may be without echo."""


class Statement(Command):
    """
    What is not answered. Its name is that of its class, if nothing else stands there.
    """

    requiresAnswer = False


class Versions(Statement):
    """
    What a L{Greet} has in every version of the protocol.
    """

    commandName = b"Greet"
    arguments = [(b"versions", ListOf(Integer()))]


class Greet(Statement):
    """
    Who I am. Both sides say it at once.
    """

    arguments = [
        (b"versions", ListOf(Integer())),
        (b"software", Unicode()),
        (b"python", Unicode()),
        (b"role", Unicode()),
        (b"nonce", String()),
        (b"codec", Unicode()),
        (b"keyed", Boolean()),
    ]


class Prove(Statement):
    """
    I have the key.
    """

    arguments = [(b"proof", String())]


class Welcome(Statement):
    """
    I believe who you are: this is what I am ready for.
    """

    arguments = [(b"window", Integer()), (b"largest", Integer()), (b"about", Unicode())]


class Refuse(Statement):
    """
    I will have nothing to do with you. The connection ends with it.
    """

    arguments = [(b"code", Unicode()), (b"text", Unicode())]


class Batch(Statement):
    """
    Messages: their frames, one after the other.
    """

    arguments = [(b"frames", String())]


class Chunk(Statement):
    """
    A piece of the frame of one large message.
    """

    arguments = [(b"stream", Integer()), (b"data", String())]


class Grant(Statement):
    """
    You may send more bytes of chunks.
    """

    arguments = [(b"bytes", Integer())]


class Beat(Statement):
    """
    Are you there?
    """

    arguments = [(b"number", Integer())]


class Echo(Statement):
    """
    I am.
    """

    arguments = [(b"number", Integer())]


class Goodbye(Statement):
    """
    I begin nothing new.
    """

    arguments = [(b"reason", Unicode())]
