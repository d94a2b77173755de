"""
Channels: framed messages between two processes, over a pair of sockets.

::

    send ─▶ frame ─▶ what does not fit now waits ─▶ flush, when writable
    receive ◀─ Decoder ◀─ what there is now, when readable

A message of many bytes goes through a segment of shared memory: an anonymous file
whose descriptor is sent along (SCM_RIGHTS). It has no name, so nothing is left
of it when its last user is gone, however that ended.

This module imports no Twisted.
"""

from __future__ import annotations

import errno
import mmap
import os
import socket
import sys
import tempfile
from array import array
from collections import deque
from collections.abc import Sequence
from pickle import PickleBuffer
from typing import Any
from weakref import WeakSet

from asynqueue.descriptors import aboveStandard
from asynqueue.errors import FrameInvalid
from asynqueue.framing import LARGEST, Decoder, Frame, checkSize, head, layout, packed

# Messages of so many bytes go through shared memory.
SHARED_FROM = 1 << 16

# So many bytes are read at once: some hundred results, so that one child's do
# not keep the reader from all else for long.
_CHUNK = 1 << 14

# So many segments are received by one call.
_MOST_SEGMENTS = 64
_ANCILLARY = socket.CMSG_SPACE(_MOST_SEGMENTS * array("i").itemsize)
_RECEIVE_FLAGS = int(getattr(socket, "MSG_CMSG_CLOEXEC", 0))
# Plain numbers: to ask a member of an enumeration takes as long as to read.
_TRUNCATED = int(socket.MSG_CTRUNC)
_POPULATE = getattr(mmap, "MAP_POPULATE", 0)

# It stands in the place of a segment for which no descriptor was free.
_LOST = -1

# What the system says when it has too much to carry at the moment.
_LATER = frozenset({errno.EAGAIN, errno.EWOULDBLOCK, errno.ENOBUFS, errno.ETOOMANYREFS})

# Until Python 3.13 memory that is mapped keeps a descriptor. With so many in use,
# what comes is copied: programs may keep more arrays than they may have open files.
_TRACKED = sys.version_info < (3, 13)
_MOST_MAPPED = 128 if _TRACKED else sys.maxsize
_MAP_OPTIONS: dict[str, Any] = {} if _TRACKED else {"trackfd": False}
_mapped: WeakSet[mmap.mmap] = WeakSet()


def anonymousFile() -> int:
    """
    The descriptor of a new file that has no name, in memory where the system has
    that. It is not inherited.
    """
    if hasattr(os, "memfd_create"):
        return aboveStandard(os.memfd_create("asynqueue"))
    with tempfile.TemporaryFile() as file:
        return aboveStandard(os.dup(file.fileno()))


def _segment(parts: Sequence[Any], offsets: Sequence[int], size: int) -> int:
    """
    A new segment with these contents.
    """
    descriptor = anonymousFile()
    try:
        os.ftruncate(descriptor, size)
        for part, offset in zip(parts, offsets, strict=True):
            view = memoryview(part)
            while view:
                written = os.pwrite(descriptor, view, offset)
                view = view[written:]
                offset += written
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _copied(descriptor: int, size: int) -> memoryview:
    """
    What is in a segment, in memory that has no descriptor.
    """
    memory = bytearray(size)
    with open(descriptor, "rb", closefd=False) as file:
        file.readinto(memory)
    return memoryview(memory)


class Channel:
    """
    One end of a connection between two processes, which send each other frames.

    Over a socket that does not block, C{send} keeps what does not fit, and
    C{receive} gives what there is; over one that blocks, each waits.

    @ivar unsent: how many pieces wait to be written.
    """

    def __init__(
        self,
        connection: socket.socket,
        limit: int = LARGEST,
        sharedFrom: int = SHARED_FROM,
    ) -> None:
        """
        @param connection: a connected socket of the UNIX family. The channel
            owns it from now on.
        @param limit: how many bytes a message may have, either way.
        @param sharedFrom: messages of so many bytes go through shared memory.
        """
        self._socket = connection
        self._limit = limit
        self._sharedFrom = sharedFrom
        self._decoder = Decoder(limit, self._claim)
        self._segments: deque[int] = deque()
        # Pieces, each perhaps with a descriptor to be sent along with its first byte.
        self._waiting: deque[tuple[Any, int | None]] = deque()

    def fileno(self) -> int:
        """
        The descriptor to watch; -1 once the channel is closed.
        """
        return self._socket.fileno()

    @property
    def unsent(self) -> int:
        return len(self._waiting)

    def send(self, kind: int, number: int, body: Any, buffers: Sequence[Any] = ()) -> bool:
        """
        Send a message.

        @param buffers: what belongs to the body. They are read until all is
            written.
        @return: whether all is written. If not, call L{flush} when the
            descriptor is writable.
        @raise FrameTooLarge: it is more than may be sent; nothing was.
        @raise FrameInvalid: it has too many buffers; nothing was sent.
        @raise BufferError: a buffer is not contiguous; nothing was sent.
        @raise OSError: the other end is gone, or there is no memory for it.
        """
        if not buffers and len(body) < self._sharedFrom:
            checkSize(len(body), self._limit)
            return self.write(packed(kind, number, body))
        parts = [PickleBuffer(part).raw() for part in (body, *buffers)]
        lengths = [part.nbytes for part in parts]
        checkSize(sum(lengths), self._limit)
        if sum(lengths) < self._sharedFrom:
            return self.write(b"".join([head(kind, number, lengths), *parts]))
        if self.fileno() < 0:
            raise OSError(errno.EBADF, "the channel is closed")
        begin = head(kind, number, lengths, shared=True)
        self._waiting.append((begin, _segment(parts, *layout(lengths))))
        return self.flush()

    def write(self, data: bytes) -> bool:
        """
        Send what is framed already. A hot path.

        @return: as L{send} does.
        @raise OSError: the other end is gone.
        """
        if not self._waiting:
            try:
                sent = self._socket.send(data)
            except OSError as error:
                if error.errno not in _LATER:
                    raise
                sent = 0
            if sent == len(data):
                return True
            self._waiting.append((memoryview(data)[sent:], None))
        else:
            self._waiting.append((data, None))
        return self.flush()

    def flush(self) -> bool:
        """
        Write what waits, as far as it fits.

        @return: whether nothing waits any more.
        @raise OSError: the other end is gone.
        """
        waiting = self._waiting
        while waiting:
            piece, segment = waiting[0]
            try:
                if segment is None:
                    sent = self._socket.send(piece)
                else:
                    sent = socket.send_fds(self._socket, [piece], [segment])
                    os.close(segment)
            except OSError as error:
                if error.errno not in _LATER:
                    raise
                return False
            if sent == len(piece):
                waiting.popleft()
            else:
                waiting[0] = (memoryview(piece)[sent:], None)
        return True

    def receive(self) -> list[Frame]:
        """
        Read what there is, once.

        @return: the messages that are complete with it, perhaps none.
        @raise FrameTruncated: the other end is gone, in the middle of a message.
        @raise EOFError: the other end is gone.
        @raise FrameTooLarge: a message is larger than it may be.
        @raise FrameInvalid: what came is no message.
        """
        decoder = self._decoder
        size = min(max(_CHUNK, decoder.missing), 1 << 20)
        try:
            data, ancillary, flags, _ = self._socket.recvmsg(size, _ANCILLARY, _RECEIVE_FLAGS)
        except BlockingIOError:
            return []
        except OSError:
            # It went with something of ours unread: an end like any other.
            data, ancillary, flags = b"", [], 0
        if ancillary:
            self._takeSegments(ancillary)
        if flags & _TRUNCATED:
            # One read has at most one segment. Those that come later would be taken for it.
            self._segments.append(_LOST)
        if not data:
            decoder.finish()
            raise EOFError("the other end is gone")
        return decoder.feed(data)

    def close(self) -> None:
        """
        Close the connection. It may be called more than once.
        """
        self._socket.close()
        for _, segment in self._waiting:
            if segment is not None:
                os.close(segment)
        self._waiting.clear()
        while self._segments:
            descriptor = self._segments.popleft()
            if descriptor != _LOST:
                os.close(descriptor)

    def _takeSegments(self, ancillary: Sequence[tuple[int, int, bytes]]) -> None:
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                descriptors = array("i")
                descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
                self._segments.extend(map(aboveStandard, descriptors))

    def _claim(self, size: int) -> memoryview:
        """
        The next segment, as memory.

        @raise FrameInvalid: it is not what was announced.
        @raise OSError: it was lost.
        @raise MemoryError: there is no room for it.
        """
        if not self._segments:
            raise FrameInvalid("a shared segment was announced, and none has come")
        descriptor = self._segments.popleft()
        if descriptor == _LOST:
            raise OSError(errno.EMFILE, "it was lost on the way: too many files are open")
        try:
            there = os.fstat(descriptor).st_size
            if there != size:
                raise FrameInvalid(f"a segment of {there:,} bytes, where {size:,} were announced")
            if not size:
                return memoryview(bytearray())
            if len(_mapped) >= _MOST_MAPPED:
                return _copied(descriptor, size)
            flags = mmap.MAP_SHARED | _POPULATE
            try:
                memory = mmap.mmap(descriptor, size, flags=flags, **_MAP_OPTIONS)
            except OSError:
                # No descriptor is free to go with it, or too much is mapped.
                return _copied(descriptor, size)
            _mapped.add(memory)
            return memoryview(memory)
        finally:
            os.close(descriptor)


def channelPair(**kw: Any) -> tuple[Channel, Channel]:
    """
    Both ends of a new connection, which do not block.

    @param kw: keywords of L{Channel}.
    """
    here, there = socket.socketpair()
    here.setblocking(False)
    there.setblocking(False)
    return Channel(here, **kw), Channel(there, **kw)
