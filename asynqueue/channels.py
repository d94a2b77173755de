"""
Channels: framed messages between two processes, over a pair of sockets.

::

    send ─▶ frame ─▶ what does not fit now waits ─▶ flush, when writable
    receive ◀─ Decoder ◀─ what there is now, when readable

A message of many bytes goes through a segment of shared memory, whose descriptor is sent
along (SCM_RIGHTS): see L{asynqueue.segments}. Many small messages one way cost less in a pipe:
then only the descriptors go that way over the sockets, each before its message.

This module imports no Twisted.
"""

from __future__ import annotations

import errno
import os
import socket
from array import array
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pickle import PickleBuffer
from typing import Any

from asynqueue.descriptors import aboveStandard
from asynqueue.errors import FrameInvalid
from asynqueue.framing import LARGEST, Decoder, Frame, checkSize, head, layout, packed, released
from asynqueue.segments import Segments

# The bytes from which messages go through shared memory.
SHARED_FROM = 1 << 16

# The bytes that are read at once: some hundred results, so that one child's do
# not keep the reader from all else for long.
_CHUNK = 1 << 14

# The segments that are received by one call.
_MOST_SEGMENTS = 64
_ANCILLARY = socket.CMSG_SPACE(_MOST_SEGMENTS * array("i").itemsize)
_RECEIVE_FLAGS = int(getattr(socket, "MSG_CMSG_CLOEXEC", 0))
# Plain numbers: to ask a member of an enumeration takes as long as to read.
_TRUNCATED = int(socket.MSG_CTRUNC)

# It stands in the place of a segment for which no descriptor was free.
_LOST = -1

# What the system says when it has too much to carry at the moment.
_LATER = frozenset({errno.EAGAIN, errno.EWOULDBLOCK, errno.ENOBUFS, errno.ETOOMANYREFS})


class Channel:
    """
    One end of a connection between two processes, which send each other frames.

    Over a socket that does not block, C{send} keeps what does not fit, and
    C{receive} gives what there is; over one that blocks, each waits.

    @ivar unsent: how many pieces wait to be written.
    @ivar segments: those of shared memory. They are used again when it is told how many bytes
        it may keep.
    """

    def __init__(
        self,
        connection: socket.socket,
        limit: int = LARGEST,
        sharedFrom: int = SHARED_FROM,
        *,
        inlet: int = -1,
        outlet: int = -1,
    ) -> None:
        """
        @param connection: a connected socket of the UNIX family. The channel
            owns it from now on.
        @param limit: how many bytes a message may have, either way.
        @param sharedFrom: the bytes from which messages go through shared memory.
        @param inlet: the reading end of a pipe by which messages come; -1: they come over
            the connection. The channel owns this and the next one, too.
        @param outlet: the writing end of one by which messages go, and that the other end of the
            channel has as its inlet.
        """
        self._socket = connection
        self._inlet = inlet
        self._outlet = outlet
        self._write: Callable[[Any], int] = (
            connection.send if outlet < 0 else partial(os.write, outlet)
        )
        self._limit = limit
        self._sharedFrom = sharedFrom
        self.segments = Segments()
        # Messages of less need no look at segments.
        self._inlineBelow = sharedFrom
        self._decoder = Decoder(limit, self._claim, self.segments.regain)
        self._descriptors: deque[int] = deque()
        # Pieces, each perhaps with a descriptor to be sent along with its first byte.
        self._waiting: deque[tuple[Any, int | None]] = deque()

    def fileno(self) -> int:
        """
        Return the descriptor to watch for what comes; -1 once the channel is closed.
        """
        return self._socket.fileno() if self._inlet < 0 else self._inlet

    @property
    def outgoing(self) -> int:
        """
        The descriptor that is writable when there is room for what goes; -1 once the channel is
        closed.
        """
        return self._socket.fileno() if self._outlet < 0 else self._outlet

    @property
    def descriptors(self) -> set[int]:
        """
        Those that a loop may watch; none once the channel is closed.
        """
        return {self.fileno(), self.outgoing} - {-1}

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
        if not buffers and len(body) < self._inlineBelow:
            if len(body) > self._limit:
                checkSize(len(body), self._limit)
            return self.write(packed(kind, number, body))
        if self._inlineBelow != self._sharedFrom:
            self._inlineBelow = self._sharedFrom
            keys = self.segments.release()
            if keys:
                self.write(released(keys))
            return self.send(kind, number, body, buffers)
        parts = [PickleBuffer(part).raw() for part in (body, *buffers)]
        lengths = [part.nbytes for part in parts]
        checkSize(sum(lengths), self._limit)
        if sum(lengths) < self._sharedFrom:
            return self.write(b"".join([head(kind, number, lengths), *parts]))
        if self.fileno() < 0:
            raise OSError(errno.EBADF, "the channel is closed")
        key, descriptor = self.segments.fill(parts, *layout(lengths))
        self._waiting.append((head(kind, number, lengths, shared=True, key=key), descriptor))
        return self.flush()

    def write(self, data: bytes) -> bool:
        """
        Send what is framed already. A hot path.

        @return: as L{send} does.
        @raise OSError: the other end is gone.
        """
        if not self._waiting:
            try:
                sent = self._write(data)
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
                    sent = self._write(piece)
                elif self._outlet < 0:
                    sent = socket.send_fds(self._socket, [piece], [segment])
                    os.close(segment)
                else:
                    socket.send_fds(self._socket, [b"\0"], [segment])
                    os.close(segment)
                    sent = 0
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
            data = self._receive(size) if self._inlet < 0 else os.read(self._inlet, size)
        except BlockingIOError:
            return []
        except OSError:
            # It went with something of ours unread: an end like any other.
            data = b""
        if not data:
            decoder.finish()
            raise EOFError("the other end is gone")
        return decoder.feed(data)

    def close(self) -> None:
        """
        Close the connection. It may be called more than once.
        """
        self._socket.close()
        for pipe in (self._inlet, self._outlet):
            if pipe >= 0:
                os.close(pipe)
        self._inlet = self._outlet = -1
        self.segments.clear()
        for _, segment in self._waiting:
            if segment is not None:
                os.close(segment)
        self._waiting.clear()
        while self._descriptors:
            descriptor = self._descriptors.popleft()
            if descriptor != _LOST:
                os.close(descriptor)

    def _receive(self, size: int) -> bytes:
        """
        Read from the connection, and take the segments that come with that.

        @raise OSError: there is nothing now, or there will be no more.
        """
        data, ancillary, flags, _ = self._socket.recvmsg(size, _ANCILLARY, _RECEIVE_FLAGS)
        if ancillary:
            self._takeSegments(ancillary)
        if flags & _TRUNCATED:
            # One read has at most one segment. Those that come later would be taken for it.
            self._descriptors.append(_LOST)
        return data

    def _takeSegments(self, ancillary: Sequence[tuple[int, int, bytes]]) -> None:
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                descriptors = array("i")
                descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
                self._descriptors.extend(map(aboveStandard, descriptors))

    def _claim(self, size: int, key: int) -> memoryview:
        """
        Return the next segment, as memory.

        @raise FrameInvalid: it is not what was announced.
        @raise OSError: it was lost.
        @raise MemoryError: there is no room for it.
        """
        if self._inlet >= 0:
            # It was sent before what announces it.
            with suppress(OSError):
                self._receive(1)
        if not self._descriptors:
            raise FrameInvalid("a shared segment was announced, and none has come")
        descriptor = self._descriptors.popleft()
        if descriptor == _LOST:
            raise OSError(errno.EMFILE, "it was lost on the way: too many files are open")
        memory = self.segments.claim(key, size, descriptor)
        if self.segments.returning:
            self._inlineBelow = 0
        return memory


def channelPair(**kw: Any) -> tuple[Channel, Channel]:
    """
    Both ends of a new connection, which do not block.

    @param kw: keywords of L{Channel}.
    """
    here, there = socket.socketpair()
    here.setblocking(False)
    there.setblocking(False)
    return Channel(here, **kw), Channel(there, **kw)
