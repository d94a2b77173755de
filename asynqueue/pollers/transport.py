"""
L{Transport}: a socket, and what to do when something happens to it.
"""

from __future__ import annotations

import errno
import logging
import os
import socket as sockets
from typing import Any

from asynqueue.pollers.base import BasePoller
from asynqueue.pollers.default import thePoller

_log = logging.getLogger(__name__)

# What is read and dropped at once where nobody wants it.
_DROPPED = 65536

# On Windows an attempt that is under way "would block". Elsewhere that is what a
# local listener with a full queue says, and no attempt.
_UNDER_WAY = frozenset(
    {
        errno.EINPROGRESS,
        errno.EALREADY,
        getattr(errno, "WSAEWOULDBLOCK", errno.EINPROGRESS),
    }
)


class Transport:
    """
    A non-blocking socket that is watched by a poller.

    Subclasses say what is to happen in C{handle_connect}, C{handle_read},
    C{handle_write}, C{handle_close} and C{handle_error}, which the poller calls.
    What these raise is told as L{BasePoller.process_readables
    <asynqueue.pollers.base.BasePoller.process_readables>} says.

    @ivar addr: the address of the other end, C{None} while there is none.
    @ivar connected: whether data can be sent. A datagram socket needs no
        connection for that.
    @ivar socket: the socket, C{None} before L{create_socket} or L{set_socket} and
        after L{close}.
    @ivar poller: the poller that watches it.
    """

    def __init__(self, alternate_poller: BasePoller | None = None) -> None:
        """
        @param alternate_poller: the poller to use instead of the module's own,
            C{asynqueue.pollers.poller}.
        """
        self.addr: Any = None
        self.connected = False
        self.socket: sockets.socket | None = None
        self.poller: BasePoller = thePoller() if alternate_poller is None else alternate_poller
        # The error that an attempt to connect ended with at once.
        self._refusal = 0

    def __repr__(self) -> str:
        state = "closed" if self.socket is None else f"descriptor {self.fileno()}"
        if self.connected:
            state += ", connected"
        if self.addr:
            state += f", {self.addr!r}"
        return f"<{type(self).__name__}: {state}>"

    def fileno(self) -> int:
        """
        Return the descriptor of the socket, -1 if there is none.
        """
        return -1 if self.socket is None else self.socket.fileno()

    def create_socket(
        self,
        family: int = sockets.AF_INET,
        type: int = sockets.SOCK_STREAM,
    ) -> None:
        """
        Make a socket, and have it watched.

        Before the next round of the poller it must L{connect}, or listen: one that
        does neither has hung up, and is closed.
        """
        self.set_socket(sockets.socket(family, type))

    def set_socket(self, socket: sockets.socket) -> None:
        """
        Take over a socket, connected or listening, and have it watched.

        It becomes non-blocking. The socket before, if there is one, is watched no
        more, but not closed.
        """
        if self.socket is not None:
            self.poller.del_channel(self)
        socket.setblocking(False)
        self.socket = socket
        self._refusal = 0
        self.addr = None
        self.connected = socket.type == sockets.SOCK_DGRAM
        try:
            self.addr = socket.getpeername()
            self.connected = True
        except OSError:
            # Not connected, or no longer: the first round will tell.
            pass
        self.poller.add_channel(self)

    def connect(self, address: Any) -> None:
        """
        Begin to connect to an address of the socket's family.

        How it ends is told in one way, whether it is known at once or later: by
        L{handle_connect}; or by L{handle_error}, with the C{OSError} as the current
        exception; or by L{handle_close}, if the peer took the connection and has
        already ended it. A host name is looked up first, which blocks: prefer
        numbers.

        @raise ValueError: if there is no socket.
        """
        if self.socket is None:
            raise ValueError(f"{self!r} has no socket to connect: call create_socket first")
        self.addr = address
        error = self.socket.connect_ex(address)
        if error not in _UNDER_WAY:
            self._refusal = 0 if error == errno.EISCONN else error
            self.connected = False
            self.poller.process_writables([self.fileno()])

    def handle_connect_event(self) -> None:
        """
        Note that the attempt to connect has ended, and call L{handle_connect}.

        The poller calls this, once.

        @raise OSError: if there is no connection.
        """
        if self.socket is None:
            return
        error = self._refusal or self.socket.getsockopt(sockets.SOL_SOCKET, sockets.SO_ERROR)
        self._refusal = 0
        if error:
            raise OSError(error, os.strerror(error), str(self.addr))
        try:
            self.socket.getpeername()
        except OSError as failed:
            # Some systems know no name of a peer that has already gone.
            if failed.errno == errno.ENOTCONN:
                raise
        self.connected = True
        self.handle_connect()

    def close(self) -> None:
        """
        Close the socket. No callback comes any more; nothing happens the second
        time.
        """
        socket, self.socket = self.socket, None
        if socket is None:
            return
        self.connected = False
        self.poller.del_channel(self)
        if socket.fileno() in self.poller.connections:
            # It was closed without our knowledge, and the number is another's.
            socket.detach()
        try:
            socket.close()
        except OSError:
            # It is closed, whatever it has to say.
            pass

    def send(self, data: Any) -> int:
        """
        Send what there is room for.

        @return: how many bytes were sent. If it is 0, because there was no room or no
            connection yet, L{handle_write} will be called once there is.
        @raise OSError: ESHUTDOWN if the peer no longer reads, EBADF if this is
            closed. In a callback that leads to L{handle_close}.
        """
        if self.socket is None:
            raise OSError(errno.EBADF, f"{self!r} cannot send: it has no socket, or was closed")
        if self.connected:
            try:
                return self.socket.send(data)
            except BlockingIOError:
                pass
            except BrokenPipeError as error:
                # That is how a peer goes, and no fault of this program.
                raise OSError(errno.ESHUTDOWN, "the peer reads no more") from error
        self.poller.defer_write(self)
        return 0

    def recv(self, n: int) -> bytes:
        """
        Receive what has come, at most C{n} bytes.

        At the end of the stream L{handle_close} is called.

        @return: the bytes; none at the end, or if nothing has come.
        @raise OSError: if the connection was lost. In a callback that leads to
            L{handle_close}.
        """
        if self.socket is None:
            return b""
        try:
            data = self.socket.recv(n)
        except BlockingIOError:
            return b""
        if not data and n and self.socket.type == sockets.SOCK_STREAM:
            self.handle_close()
        return data

    def handle_connect(self) -> None:
        """
        Hear that there is a connection. An override need not do anything.
        """

    def handle_read(self) -> None:
        """
        Hear that there is something to L{recv}, or to accept. What comes is dropped if this is not
        overridden, so that the end is noticed.
        """
        self.recv(_DROPPED)

    def handle_write(self) -> None:
        """
        Hear that there is room to L{send}, after it returned 0 or C{defer_write} was called. An
        override need not do anything.
        """

    def handle_close(self) -> None:
        """
        Close: the peer has gone. An override calls L{close}, or this.
        """
        self.close()

    def handle_error(self) -> None:
        """
        Log and L{close}: a callback raised an exception, which is the current one.
        """
        _log.exception("%r is closed, because of an exception", self)
        self.close()
