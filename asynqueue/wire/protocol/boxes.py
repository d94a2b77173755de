"""
AMP boxes to bytes and back. No I/O.

::

    | length 2 | key | length 2 | value | ... | 0 0 |        big-endian

Twisted's own parser passes each key and each value through a state machine in Python;
this one takes a box at a time, and does not copy what is large in it. It needs a seventh
of the time for small batches (0.7 instead of 4.7 microseconds each), and two thirds for
chunks.
"""

from __future__ import annotations

from struct import Struct
from typing import Any

from twisted.protocols.amp import COMMAND, AmpBox, Command

from asynqueue.errors import RemoteProtocolError
from asynqueue.wire.protocol.commands import MOST_VALUE, Beat, Chunk, Echo, Grant

# Keys and values as they came. A value of a chunk is a view: it may be large.
Box = dict[bytes, Any]

_LENGTH = Struct(">H")
_LENGTH_SIZE = 2
_END = b"\0\0"
_MOST_KEY = 0xFF

# No box of ours has more keys, so none of the other side's needs more.
_MOST_KEYS = 16
_MOST_BOX = MOST_VALUE + (1 << 12)

# What else somebody may send here by mistake.
_TLS = "TLS", "either both sides or none must use a tls: endpoint"
_HTTP = "HTTP", "there is no web server here"
_OTHERS = ((b"\x15\x03", *_TLS), (b"\x16\x03", *_TLS), (b"GET ", *_HTTP), (b"HTTP/", *_HTTP))

_TOO_LARGE = f"an AMP box of more than {_MOST_BOX:,} bytes"
_TOO_EARLY = "more was sent than is allowed before a connection is open"

# A remainder of fewer bytes is copied, so that it does not keep what it is a part of.
_SMALL = 1 << 10


def _field(text: bytes) -> bytes:
    return _LENGTH.pack(len(text)) + text


# How boxes begin that come often, if their keys are sorted, as AMP's are.
BATCH_HEAD = _field(COMMAND) + _field(b"Batch") + _field(b"frames")
CHUNK_HEAD = _field(COMMAND) + _field(b"Chunk") + _field(b"data")
_BATCH_SIZE = len(BATCH_HEAD) + _LENGTH_SIZE
_CHUNK_SIZE = len(CHUNK_HEAD) + _LENGTH_SIZE
_CHUNK_KEY = _field(b"stream")

_NUMBER_KEYS: dict[type[Command], bytes] = {
    command: command.arguments[0][0] for command in (Beat, Chunk, Echo, Grant)
}
_NUMBER_HEADS = {
    command: _field(COMMAND) + _field(command.commandName) + _field(key)
    for command, key in _NUMBER_KEYS.items()
}
_MOST_NUMBER = (1 << 63) - 1


def packedBox(command: type[Command], **arguments: object) -> bytes:
    """
    Return a box that says something. Not for batches and chunks.
    """
    box: AmpBox = command.makeArguments(arguments, None)
    box[COMMAND] = command.commandName
    return bytes(box.serialize())


def packedBatch(frames: list[bytes], size: int) -> bytes:
    """
    Return the box of a batch of frames, which have C{size} bytes together. A hot path.
    """
    return b"".join((BATCH_HEAD, _LENGTH.pack(size), *frames, _END))


def chunkTail(stream: int) -> bytes:
    """
    Return how each chunk of a stream ends.
    """
    return _CHUNK_KEY + _field(str(stream).encode()) + _END


def packedChunk(pieces: list[Any], size: int, tail: bytes) -> bytes:
    """
    Return the box of a chunk, whose pieces have C{size} bytes together. A hot path.
    """
    return b"".join((CHUNK_HEAD, _LENGTH.pack(size), *pieces, tail))


def packedNumber(command: type[Command], number: int) -> bytes:
    """
    Return the box of a command whose one argument is a number. It comes with every few chunks.
    """
    return _NUMBER_HEADS[command] + _field(b"%d" % number) + _END


def unpackedNumber(command: type[Command], box: Box) -> int:
    """
    Return the number of such a box: no negative one, and none without end.

    @raise RemoteProtocolError: it is none.
    """
    try:
        number = int(box[_NUMBER_KEYS[command]])
    except (KeyError, ValueError):
        number = -1
    if not 0 <= number <= _MOST_NUMBER:
        raise RemoteProtocolError(f"a {command.commandName.decode()} without sense")
    return number


def unpackedBox(command: type[Command], box: Box) -> dict[str, Any]:
    """
    Return what a box says. Not for batches and chunks.

    @raise RemoteProtocolError: an argument is missing, or is none.
    """
    try:
        arguments: dict[str, Any] = command.parseArguments(box, None)
    except Exception as error:
        # Somebody's bytes: Twisted's types of arguments raise what they like.
        name = command.commandName.decode()
        raise RemoteProtocolError(f"a {name} without sense: {error!r:.200}") from None
    return arguments


def canonical(box: Box) -> bytes:
    """
    Return the bytes of a box, its keys in ascending order: the same on both sides.
    """
    return bytes(AmpBox(box).serialize())


def _noBox(data: bytes) -> str:
    """
    Return what is wrong with the beginning of something else.
    """
    for begin, name, todo in _OTHERS:
        if data.startswith(begin):
            return f"this is no AMP box, but looks like {name}: {todo}"
    return "this is no AMP box"


class BoxParser:
    """
    Finds the boxes in a stream that arrives in pieces.
    """

    def __init__(self, bytesAllowed: int, boxesAllowed: int) -> None:
        """
        @param bytesAllowed: how many bytes may come until the limits are lifted.
        @param boxesAllowed: how many boxes.
        """
        self._data: bytes = b""
        self._start = 0
        # What has come since, as long as it is not enough to go on.
        self._later: list[bytes] = []
        self._have = 0
        self._wanted = 1
        self._bytesLeft: int | None = bytesAllowed
        self._boxesLeft = boxesAllowed

    def lift(self) -> None:
        """
        From now on, only each single box is limited.
        """
        self._bytesLeft = None

    def add(self, data: bytes) -> None:
        """
        Take a piece of the stream.
        """
        self._have += len(data)
        if self._start == len(self._data):
            self._data = data
            self._start = 0
        else:
            self._later.append(data)

    def next(self) -> Box | None:
        """
        Return the next box, or C{None} if it has not come as a whole. A hot path.

        @raise RemoteProtocolError: this is no box, or more than is allowed. Nothing more
            can be had of the stream after that.
        """
        if self._have < self._wanted:
            return None
        data = self._data
        start = self._start
        if self._later:
            rest: Any = memoryview(data)[start:]
            data = self._data = b"".join((rest, *self._later))
            self._later.clear()
            start = self._start = 0
        if self._bytesLeft is not None:
            return self._nextLimited()
        if data.startswith(BATCH_HEAD, start):
            begin = start + _BATCH_SIZE
            if begin <= len(data):
                end = begin + (data[begin - 2] << 8 | data[begin - 1])
                stop = end + 2
                if stop > len(data):
                    self._wanted = stop - start
                    return None
                if data.startswith(_END, end):
                    self._taken(stop)
                    return {COMMAND: b"Batch", b"frames": data[begin:end]}
        elif data.startswith(CHUNK_HEAD, start):
            box = self._nextChunk(data, start)
            if box is not None:
                return box
        return self._nextBox(data, start)

    def _nextChunk(self, data: bytes, start: int) -> Box | None:
        """
        Return a chunk as we would write it. A hot path.
        """
        begin = start + _CHUNK_SIZE
        if begin > len(data):
            return None
        end = begin + (data[begin - 2] << 8 | data[begin - 1])
        digits = end + len(_CHUNK_KEY) + _LENGTH_SIZE
        if digits > len(data) or not data.startswith(_CHUNK_KEY, end):
            return None
        digitsEnd = digits + (data[digits - 2] << 8 | data[digits - 1])
        if not data.startswith(_END, digitsEnd):
            return None
        self._taken(digitsEnd + 2)
        return {
            COMMAND: b"Chunk",
            b"data": memoryview(data)[begin:end],
            b"stream": data[digits:digitsEnd],
        }

    def _nextLimited(self) -> Box | None:
        """
        Return a box of somebody who has not proved itself.
        """
        assert self._bytesLeft is not None
        before = self._have
        box = self._nextBox(self._data, self._start)
        if box is not None:
            self._bytesLeft -= before - self._have
            self._boxesLeft -= 1
            if self._bytesLeft < 0 or self._boxesLeft < 0:
                raise RemoteProtocolError(_TOO_EARLY)
        return box

    def _nextBox(self, data: bytes, start: int) -> Box | None:
        """
        Any box.
        """
        box: Box = {}
        at = start
        end = len(data)
        while True:
            if at + _LENGTH_SIZE > end:
                return self._awaited(at + _LENGTH_SIZE - start)
            length = data[at] << 8 | data[at + 1]
            at += _LENGTH_SIZE
            if not length:
                break
            if length > _MOST_KEY:
                raise RemoteProtocolError(_noBox(data[at - _LENGTH_SIZE :]))
            value = at + length + _LENGTH_SIZE
            if value > end:
                return self._awaited(value - start)
            key = data[at : at + length]
            at = value + (data[value - 2] << 8 | data[value - 1])
            if at > end:
                return self._awaited(at - start)
            if key in box or len(box) == _MOST_KEYS:
                raise RemoteProtocolError("an AMP box with too many keys, or the same key twice")
            box[key] = data[value:at]
        if not box:
            raise RemoteProtocolError("an empty AMP box")
        if at - start > _MOST_BOX:
            raise RemoteProtocolError(_TOO_LARGE)
        self._taken(at)
        return box

    def _awaited(self, wanted: int) -> Box | None:
        """
        Return how many bytes of the next box have to come before it is worth another look.

        @return: no box.
        """
        if self._bytesLeft is not None and wanted > self._bytesLeft:
            raise RemoteProtocolError(_TOO_EARLY)
        if wanted > _MOST_BOX:
            raise RemoteProtocolError(_TOO_LARGE)
        self._wanted = wanted
        return None

    def _taken(self, stop: int) -> None:
        """
        Take the end of the box. A hot path.
        """
        self._have -= stop - self._start
        self._wanted = 1
        data = self._data
        if stop == len(data):
            self._data = b""
            self._start = 0
        elif stop + _SMALL > len(data):
            self._data = data[stop:]
            self._start = 0
        else:
            self._start = stop
