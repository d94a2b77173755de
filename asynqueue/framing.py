"""
Frames: messages in a stream of bytes. Bytes in, messages out; no I/O.

::

    | number 8 | size 8 | buffers 2 | kind 1 | flags 1 |    little-endian
    | length 8 of the body, and of each buffer |            only with TABLE
    | key 8 of the segment                     |            only with KEPT
    | body, then the buffers                   |            not with SHARED

A frame has a kind and a number (of the task that it is about), whose meaning is
the users', a body, which is a pickle mostly, and buffers, which belong to that
pickle. C{size} counts all the bytes of the frame that follow the first line. With
SHARED, body and buffers are in a segment of shared memory; the segments come by
another way, in the order of their frames. With KEPT, it may come again. A frame with KEPT
and without SHARED is no message: its table has the keys of segments that are given back.

This module imports no Twisted.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from itertools import accumulate
from struct import Struct
from typing import Any, NoReturn

from asynqueue.errors import FrameError, FrameInvalid, FrameTooLarge, FrameTruncated

# The bytes that a body and its buffers may have together, if nothing else is said.
LARGEST = 2 << 30

_HEADER = Struct("<QQHBB")
_HEADER_SIZE = _HEADER.size
_KEY = Struct("<Q")
_LENGTH_SIZE = 8

_TABLE = 1
_SHARED = 2
_KEPT = 4
_RELEASED = _TABLE | _KEPT
_WITHOUT_BODY = {_TABLE | _SHARED, _TABLE | _SHARED | _KEPT, _RELEASED}

# In a shared segment every part begins at a multiple of this, as arrays like it.
_ALIGNMENT = 64

# The buffers that may belong to one body.
MOST_BUFFERS = 0xFFFF

# A frame that has more bytes to come than this is collected in one place.
_LARGE = 1 << 16

# The kind, the number, the body, the buffers. A tuple, not a class: there is one
# for every result.
Frame = tuple[int, int, Any, Sequence[Any]]


class Unavailable(bytes):
    """
    The body of a message whose segment cannot be had here: a pickle that raises
    C{OSError} as it is loaded, and says why. The messages beside it are unharmed.
    """


def _unavailable(error: BaseException) -> Unavailable:
    return Unavailable(pickle.dumps(_Missing(f"a shared segment cannot be had: {error}")))


class _Missing:
    """
    Pickled, it raises an error where it is loaded.
    """

    def __init__(self, text: str) -> None:
        self._text = text

    def __reduce__(self) -> tuple[Callable[[str], NoReturn], tuple[str]]:
        return _raiseMissing, (self._text,)


def _raiseMissing(text: str) -> NoReturn:
    raise OSError(text)


def packed(kind: int, number: int, body: bytes) -> bytes:
    """
    Return a frame without buffers, in one piece. A hot path: sizes are not checked.
    """
    return _HEADER.pack(number, len(body), 0, kind, 0) + body


def head(
    kind: int, number: int, lengths: Sequence[int], shared: bool = False, key: int = 0
) -> bytes:
    """
    Return what stands before the body of a frame that has buffers, or is shared.

    @param lengths: the bytes of the body, and of each buffer.
    @param shared: whether all that is in a shared segment.
    @param key: that of the segment; 0: it does not come again.
    @raise FrameInvalid: there are too many buffers.
    """
    count = len(lengths) - 1
    if count > MOST_BUFFERS:
        raise FrameInvalid(f"{count:,} buffers; {MOST_BUFFERS:,} may be in a frame")
    table = Struct(f"<{count + 1}Q").pack(*lengths)
    size = len(table) + (0 if shared else sum(lengths))
    flags = _TABLE | (_SHARED if shared else 0)
    if key:
        table += _KEY.pack(key)
        size += _KEY.size
        flags |= _KEPT
    return _HEADER.pack(number, size, count, kind, flags) + table


def unpackedHead(data: Any) -> tuple[int, int, list[int], int] | None:
    """
    Read what stands before the body of a frame that is not shared.

    @param data: how a frame begins.
    @return: its kind, its number, the bytes of its body and of each buffer, and where the body
        begins; C{None} if more has to come for that.
    @raise FrameInvalid: no such frame begins so.
    """
    if len(data) < _HEADER_SIZE:
        return None
    number, size, count, kind, flags = _HEADER.unpack_from(data)
    if flags not in (0, _TABLE):
        raise FrameInvalid(f"a frame with flags {flags:#x}, where no segments are shared")
    table = _tableSize(size, count, flags)
    first = _HEADER_SIZE + table
    if len(data) < first:
        return None
    lengths = [size]
    if table:
        lengths = list(Struct(f"<{count + 1}Q").unpack_from(data, _HEADER_SIZE))
    if sum(lengths) != size - table:
        raise FrameInvalid(f"a frame of {size - table:,} bytes, whose parts have {sum(lengths):,}")
    return kind, number, lengths, first


def released(keys: Sequence[int]) -> bytes:
    """
    Return a frame that gives segments back.

    @param keys: theirs, one or more.
    """
    table = Struct(f"<{len(keys)}Q").pack(*keys)
    return _HEADER.pack(0, len(table), len(keys) - 1, 0, _RELEASED) + table


def checkSize(size: int, limit: int) -> None:
    """
    @raise FrameTooLarge: a message has more bytes than it may have.
    """
    if size > limit:
        raise FrameTooLarge(size, limit)


def layout(lengths: Sequence[int]) -> tuple[list[int], int]:
    """
    Return where the parts of a frame are in a shared segment.

    @return: the offset of each part, and the size of the segment.
    """
    offsets = []
    end = 0
    for length in lengths:
        offsets.append(end)
        end += length + -length % _ALIGNMENT
    return offsets, end


def _tableSize(size: int, count: int, flags: int) -> int:
    """
    Return how many bytes of a frame are its table.

    @raise FrameInvalid: no frame has such a header.
    """
    if not flags:
        return 0
    table = _LENGTH_SIZE * (count + 1)
    if flags == _TABLE | _SHARED | _KEPT:
        table += _KEY.size
    if (flags == _TABLE and size >= table) or (flags in _WITHOUT_BODY and size == table):
        return table
    raise FrameInvalid(f"a frame of {size:,} bytes with {count:,} buffers and flags {flags:#x}")


def _noSegment(size: int, key: int) -> memoryview:
    raise FrameInvalid("a shared segment was announced, and none has come")


def _noKeys(keys: Sequence[int]) -> None:
    raise FrameInvalid("a shared segment is given back, and there was none")


class Decoder:
    """
    Finds the frames in a stream that arrives in pieces.

    Buffers that it gives, and the body where there are any, are views of memory
    that may be written to and is nobody else's.
    """

    def __init__(
        self,
        limit: int = LARGEST,
        claim: Callable[[int, int], memoryview] = _noSegment,
        regain: Callable[[Sequence[int]], None] = _noKeys,
    ) -> None:
        """
        @param limit: how many bytes a body and its buffers may have together.
        @param claim: gives the next shared segment, of a size in bytes and with a key, or 0. If
            it raises C{OSError} or C{MemoryError}, the frame has an L{Unavailable} body.
        @param regain: is told the keys of segments that are given back.
        """
        self._limit = limit
        self._claim = claim
        self._regain = regain
        # What has come of a frame that is not complete; a large one has its own place.
        self._rest = b""
        self._large: bytearray | None = None
        self._whole = 0

    @property
    def missing(self) -> int:
        """
        How many bytes a large frame still wants; 0 if none is under way.
        """
        return 0 if self._large is None else self._whole - len(self._large)

    def feed(self, data: bytes) -> list[Frame]:
        """
        Take a piece of the stream. A hot path.

        @return: the frames that are complete with it.
        @raise FrameTooLarge: a frame is larger than it may be.
        @raise FrameInvalid: this is no stream of frames. After either, nothing
            more can be had of it; C{before} of the error has the frames that came before.
        """
        frames: list[Frame] = []
        large = self._large
        try:
            if large is not None:
                wanted = self._whole - len(large)
                large += data[:wanted]
                if len(large) < self._whole:
                    return frames
                self._large = None
                number, _, count, kind, flags = _HEADER.unpack_from(large)
                view = memoryview(large)[_HEADER_SIZE:]
                frames += self._taken(number, count, kind, flags, view)
                data = data[wanted:]
            elif self._rest:
                data = self._rest + data
            limit = self._limit
            unpack = _HEADER.unpack_from
            append = frames.append
            end = len(data)
            # What is smaller altogether, has no frame that is larger.
            isChecked = end > limit
            stop = 0
            while (body := stop + _HEADER_SIZE) <= end:
                number, size, count, kind, flags = unpack(data, stop)
                if body + size > end:
                    self._expect(data[stop:], size, count, flags)
                    return frames
                stop = body + size
                if flags:
                    view = memoryview(bytearray(data[body:stop]))
                    frames += self._taken(number, count, kind, flags, view)
                elif isChecked and size > limit:
                    raise FrameTooLarge(size, limit)
                else:
                    append((kind, number, data[body:stop], ()))
            self._rest = data[stop:]
        except FrameError as error:
            error.before = frames
            raise
        return frames

    def finish(self) -> None:
        """
        Note that the stream has ended.

        @raise FrameTruncated: in the middle of a frame.
        """
        if self._large is not None:
            raise FrameTruncated(len(self._large), self._whole)
        if len(self._rest) >= _HEADER_SIZE:
            size = _HEADER.unpack_from(self._rest)[1]
            raise FrameTruncated(len(self._rest), _HEADER_SIZE + size)
        if self._rest:
            raise FrameTruncated(len(self._rest), _HEADER_SIZE)

    def _expect(self, begun: bytes, size: int, count: int, flags: int) -> None:
        """
        Note that a frame has begun, and is not complete.
        """
        checkSize(size - _tableSize(size, count, flags), self._limit)
        whole = _HEADER_SIZE + size
        if whole - len(begun) <= _LARGE:
            self._rest = begun
            return
        self._rest = b""
        # It grows as the bytes come: what is announced may never be there.
        self._large = bytearray(begun)
        self._whole = whole

    def _taken(
        self, number: int, count: int, kind: int, flags: int, inline: memoryview
    ) -> tuple[Frame, ...]:
        """
        Return the message of a frame that is complete, of any form, unless it is none.
        """
        first = _tableSize(len(inline), count, flags)
        if not flags:
            checkSize(len(inline), self._limit)
            return ((kind, number, inline, ()),)
        lengths = Struct(f"<{count + 1}Q").unpack_from(inline)
        if flags == _RELEASED:
            self._regain(lengths)
            return ()
        checkSize(sum(lengths), self._limit)
        if flags & _SHARED:
            offsets, size = layout(lengths)
            (key,) = _KEY.unpack_from(inline, first - _KEY.size) if flags & _KEPT else (0,)
            try:
                view = self._claim(size, key)
            except (OSError, MemoryError) as error:
                return ((kind, number, _unavailable(error), ()),)
        else:
            view = inline[first:]
            *offsets, size = accumulate(lengths, initial=0)
        if len(view) != size:
            raise FrameInvalid(f"a frame of {len(view):,} bytes, where {size:,} were announced")
        parts = [view[at : at + length] for at, length in zip(offsets, lengths, strict=True)]
        return ((kind, number, parts[0], parts[1:]),)
