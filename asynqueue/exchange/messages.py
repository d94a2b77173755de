"""
Messages between two processes, over a socket or two pipes, and the end of all.

What is there is read before an end is believed; and a process that is gone is an end,
no matter which other processes hold its descriptors. This module imports no Twisted.
"""

from __future__ import annotations

import errno
import os
import select
import socket
from collections import deque
from collections.abc import Sequence
from enum import Enum
from pickle import PickleBuffer
from typing import Any, Protocol

from asynqueue.channels import Channel as SharingChannel
from asynqueue.errors import FrameError, FrameInvalid
from asynqueue.exchange.process import Process
from asynqueue.framing import LARGEST, Decoder, Frame, checkSize, head

# The kinds of messages. An acknowledgement has the number of what it is for, a goodbye that
# of the objects that were sent.
DATA, RAISED, ACKNOWLEDGED, GOODBYE = 1, 2, 3, 4

_CHUNK = 1 << 16


class HasDescriptor(Protocol):
    """
    A socket, a pipe as a file object, or the like.
    """

    def fileno(self) -> int:
        """
        Return its descriptor.
        """

    def close(self) -> object:
        """
        Close it.
        """


class Life(Enum):
    """
    What may still come through a channel.
    """

    OPEN = "anything"
    ENDED = "nothing: the other process has said goodbye"
    LOST = "nothing: the other process is gone"
    CLOSED = "nothing: this end is closed"


class _Link(Protocol):
    def send(self, kind: int, number: int, body: Any, buffers: Sequence[Any] = ()) -> bool: ...
    def flush(self) -> bool: ...
    def receive(self) -> list[Frame]: ...


class _Pair:
    """
    Messages through two descriptors, which do not block: one to read, one to write.
    """

    def __init__(self, read: int, write: int) -> None:
        self._read = read
        self._write = write
        self._decoder = Decoder()
        self._waiting: deque[Any] = deque()

    def send(self, kind: int, number: int, body: Any, buffers: Sequence[Any] = ()) -> bool:
        parts = [PickleBuffer(part).raw() for part in (body, *buffers)]
        lengths = [part.nbytes for part in parts]
        checkSize(sum(lengths), LARGEST)
        self._waiting += [head(kind, number, lengths), *parts]
        return self.flush()

    def flush(self) -> bool:
        while self._waiting:
            try:
                written = os.write(self._write, self._waiting[0])
            except BlockingIOError:
                return False
            rest = memoryview(self._waiting.popleft())[written:]
            if rest:
                self._waiting.appendleft(rest)
        return True

    def receive(self) -> list[Frame]:
        try:
            data = os.read(self._read, max(_CHUNK, min(self._decoder.missing, 1 << 20)))
        except BlockingIOError:
            return []
        except OSError:
            # It went with something of ours unread: an end like any other.
            data = b""
        if not data:
            self._decoder.finish()
            raise EOFError("the other end is gone")
        return self._decoder.feed(data)


def _number(end: int | HasDescriptor) -> int:
    return end if isinstance(end, int) else end.fileno()


class Messages:
    """
    One end of a connection, for messages.

    @ivar life: what may still come.
    @ivar inbox: what has come.
    @ivar fault: what was wrong with that which came last.
    @ivar given: how many objects the other process has sent in all, through this channel
        and others, as it has said in its goodbye.
    """

    def __init__(
        self, read: int | HasDescriptor, write: int | HasDescriptor, process: Process | None
    ) -> None:
        """
        @param process: the one at the other end, if its end can be seen.
        @raise OSError: they are no open descriptors.
        """
        self.life = Life.OPEN
        self.inbox: deque[Frame] = deque()
        self.fault: Exception | None = None
        self.given = 0
        self._ends = {_number(end): end for end in (read, write)}
        self._read = _number(read)
        self._write = _number(write)
        self._process = process
        for number, end in self._ends.items():
            if isinstance(end, socket.socket):
                # A socket would otherwise wait as long as C{socket.setdefaulttimeout} says.
                end.setblocking(False)
            else:
                os.set_blocking(number, False)
        self._link: _Link = _Pair(self._read, self._write)
        self._sharing: SharingChannel | None = None
        # Why it is closed, if it is.
        self._reason = "the channel is closed"
        if read is write and isinstance(read, socket.socket) and read.family == socket.AF_UNIX:
            self._link = self._sharing = SharingChannel(read)

    def fileno(self) -> int:
        """
        Return the descriptor that is read; -1 once it is closed.
        """
        return -1 if self.life is Life.CLOSED else self._read

    def descriptors(self) -> list[int]:
        """
        Return what to watch: when one of them is readable, L{look}.
        """
        if self.life is not Life.OPEN:
            return [] if self.life is Life.CLOSED else [self._read]
        watched = self._process.fileno() if self._process is not None else -1
        return [self._read] if watched < 0 else [self._read, watched]

    def put(self, kind: int, number: int, body: Any = b"", buffers: Sequence[Any] = ()) -> None:
        """
        Write a message, and meanwhile read, so that two who write do not wait for
        each other.

        @raise FrameTooLarge: it has too many bytes; nothing was written.
        @raise OSError: nobody reads it any more.
        """
        self.checkOpen()
        written = self._link.send(kind, number, body, buffers)
        while not written:
            found = self._poll(None, True)
            if self._write not in found and self._read not in found:
                raise OSError(errno.EPIPE, "it has ended")
            if self._read in found and self.life is Life.OPEN:
                self._takeIn()
            written = self._link.flush()

    def look(self) -> bool:
        """
        Take in what has come, without waiting.

        @return: whether there is a message, or nothing can come any more.
        """
        while self.life is Life.OPEN and not self.inbox:
            found = self._poll(0)
            if self._read in found:
                self._takeIn()
            elif found:
                # All is read; another process may still hold the other end.
                self.life = Life.LOST
            else:
                return False
        return True

    def wait(self) -> None:
        """
        Wait until there is a message, or nothing can come any more.
        """
        while not self.look():
            self._poll(None)

    def checkOpen(self) -> None:
        """
        @raise OSError: it is closed.
        """
        if self.life is Life.CLOSED:
            raise OSError(errno.EBADF, self._reason)

    def close(self, reason: str = "") -> None:
        """
        Close this end. It may be called more than once.

        @param reason: why, for the errors of those who use it all the same.
        """
        if self.life is Life.CLOSED:
            return
        self.life = Life.CLOSED
        if reason:
            self._reason += f": {reason}"
        if self._sharing is not None:
            self._sharing.close()
        for number, end in self._ends.items():
            if isinstance(end, int):
                os.close(number)
            else:
                end.close()

    def _poll(self, seconds: float | None, writing: bool = False) -> set[int]:
        watched = dict.fromkeys(self.descriptors(), select.POLLIN)
        if writing:
            watched[self._write] = watched.get(self._write, 0) | select.POLLOUT
        poll = select.poll()
        for number, events in watched.items():
            poll.register(number, events)
        return {number for number, _ in poll.poll(seconds)}

    def _takeIn(self) -> None:
        """
        Read once.
        """
        try:
            frames = self._link.receive()
        except (EOFError, FrameError) as error:
            self.life = Life.LOST
            self.fault = error.with_traceback(None) if isinstance(error, FrameError) else None
            return
        for frame in frames:
            if frame[0] == GOODBYE:
                self.life = Life.ENDED
                self.given = frame[1]
            elif frame[0] in (DATA, RAISED, ACKNOWLEDGED):
                self.inbox.append(frame)
            else:
                self.life = Life.LOST
                self.fault = FrameInvalid(f"a message of kind {frame[0]}")
