"""
Standard output, written by the reactor.

Its reader may be slow, stop reading (C{| less}) or go away (C{| head}).
The reactor does not wait for the first two, and learns of the last at once,
also while there is nothing to write. What is shared with other programs is left
as it is: the descriptor blocks, and is written to only when it would not.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import stat
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReadDescriptor, IWriteDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

# The bytes that are not yet written when the output is full.
_FULL = 1 << 20

# The bytes that a pipe that is writable takes without blocking ...
_PIECE = select.PIPE_BUF

# ... and the most pieces of them that it gets in one turn of the reactor.
_PIECES = 64


@implementer(IReadDescriptor, IWriteDescriptor)
class StandardOutput:
    """
    Writes bytes to a descriptor, all that one turn of the reactor brings at once.
    """

    def __init__(
        self,
        fd: int,
        reactor: Any,
        lost: Callable[[OSError], None],
        before: bytes = b"",
        after: Callable[[], None] | None = None,
    ) -> None:
        """
        @param fd: where to write.
        @param reactor: who waits until that can be done.
        @param lost: is called, once, when no more can be written, with the reason:
            a C{BrokenPipeError} if the reader has gone away.
        @param before: is written before what one turn brings: it makes room on a
            terminal.
        @param after: is called when that is written.
        """
        self._fd = fd
        self._reactor = reactor
        self._lost: Callable[[OSError], None] | None = lost
        self._before = before
        self._after = after
        self._buffer = bytearray()
        self._drained: list[Deferred[None]] = []
        self._writing = False
        mode = os.fstat(fd).st_mode
        self._pollable = stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or os.isatty(fd)
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)
        flags = fcntl.fcntl(fd, fcntl.F_GETFL)
        self._listening = stat.S_ISFIFO(mode) and flags & os.O_ACCMODE == os.O_WRONLY
        if self._listening:
            # There is nothing to read there: this hears of the end.
            reactor.addReader(self)

    def write(self, data: bytes) -> None:
        """
        Write this as soon as that can be done.
        """
        if self._lost is None:
            return
        if self._writing:
            self._buffer += data
            return
        self._writing = True
        self._buffer += self._before + data
        if self._pollable:
            self._reactor.addWriter(self)
        else:
            self._reactor.callLater(0, self.doWrite)

    @property
    def full(self) -> bool:
        """
        Whether so much waits to be written that no more should be made.
        """
        return len(self._buffer) > _FULL

    def drain(self) -> Deferred[None]:
        """
        Return a Deferred that fires when all has been written, or never will be.
        """
        if not self._buffer or self._lost is None:
            return succeed(None)
        d: Deferred[None] = Deferred(self._drained.remove)
        self._drained.append(d)
        return d

    def close(self) -> None:
        """
        Write no more, and listen no more. The descriptor is left open.
        """
        self._lost = None
        self._rest()
        self._buffer.clear()
        if self._listening:
            self._reactor.removeReader(self)
        self._tellDrained()

    def doWrite(self) -> None:
        """
        Write what waits, as far as the descriptor takes it.
        """
        try:
            if self._pollable:
                self._writePieces()
            else:
                while self._buffer:
                    del self._buffer[: os.write(self._fd, self._buffer)]
        except OSError as error:
            self._fail(error)
            return
        if not self._buffer:
            self._rest()
            if self._after is not None:
                self._after()
            self._tellDrained()

    def _writePieces(self) -> None:
        for _ in range(_PIECES):
            del self._buffer[: os.write(self._fd, self._buffer[:_PIECE])]
            if not self._buffer or not self._poll.poll(0):
                return

    def doRead(self) -> None:
        """
        Take the reader for gone: some reactors say so by this.
        """
        self._fail(BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE)))

    def connectionLost(self, reason: Failure) -> None:
        """
        And others this.
        """
        self.doRead()

    def fileno(self) -> int:
        """
        Return what the reactor waits for.
        """
        return self._fd

    def logPrefix(self) -> str:
        """
        Return what this is called in logs.
        """
        return "asynqueue output"

    def _fail(self, error: OSError) -> None:
        lost = self._lost
        self.close()
        if lost is not None:
            lost(error)

    def _rest(self) -> None:
        if self._writing and self._pollable:
            self._reactor.removeWriter(self)
        self._writing = False

    def _tellDrained(self) -> None:
        waiting, self._drained = self._drained, []
        for d in waiting:
            d.callback(None)
