"""
A server that has one connection from the beginning: its standard input and output, which
are one socket. Both ends of it.
"""

from __future__ import annotations

import os
import socket
import stat
from typing import Any

from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import (
    IListeningPort,
    IStreamClientEndpoint,
    IStreamServerEndpoint,
)
from zope.interface import implementer

from asynqueue.wire.transport.connecting import ConnectionFactory

_STDIN, _STDOUT, _STDERR = range(3)


def isOneConnection() -> bool:
    """
    Return whether the standard input of this process is a socket.
    """
    try:
        return stat.S_ISSOCK(os.fstat(_STDIN).st_mode)
    except OSError:
        return False


@implementer(IStreamServerEndpoint)
class StdioEndpoint:
    """
    The one connection that this process was started with, as its standard input and output.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def listen(self, protocolFactory: Any) -> Deferred[Any]:
        """
        Use standard input and output for nothing but the connection from now on: what is
        printed goes to standard error.
        """
        with socket.socket(fileno=os.dup(_STDIN)) as connection:
            connection.setblocking(False)
            nothing = os.open(os.devnull, os.O_RDONLY)
            os.dup2(nothing, _STDIN)
            os.close(nothing)
            os.dup2(_STDERR, _STDOUT)
            # The transport makes a descriptor of its own.
            self._reactor.adoptStreamConnection(
                connection.fileno(), connection.family, protocolFactory
            )
        return succeed(_StdioPort())


@implementer(IListeningPort)
class _StdioPort:
    """
    There is nothing to listen on.
    """

    def startListening(self) -> None:
        """
        Do nothing: it has come already.
        """

    def stopListening(self) -> None:
        """
        Do nothing: no other will come.
        """

    def getHost(self) -> UNIXAddress:
        """
        Return a socket without a name.
        """
        return UNIXAddress(None)


@implementer(IStreamClientEndpoint)
class StdioServer:
    """
    The connection with a server over its standard input and output. It can be used once:
    by L{connect}, or by a L{WireWorker<asynqueue.wire.client.worker.WireWorker>} that dials the
    description with which the server was spawned.

    @ivar pid: the process ID of the server.
    @ivar description: with what it was spawned.
    """

    def __init__(self, description: str, end: socket.socket, reactor: Any) -> None:
        """
        @param end: our end of the connection.
        """
        self.pid = 0
        self.description = description
        self._end: socket.socket | None = end
        self._reactor = reactor

    def connect(self, protocolFactory: Any) -> Deferred[Any]:
        """
        Have a protocol talk with the server.

        @return: a Deferred of the protocol. It fails with C{ConnectError} if there was one
            before.
        """
        end, self._end = self._end, None
        if end is None:
            return fail(
                ConnectError(
                    string=f"{self.description} was connected before, and can be once only"
                )
            )
        protocol = protocolFactory.buildProtocol(None)
        with end:
            # The transport makes a descriptor of its own.
            self._reactor.adoptStreamConnection(
                end.fileno(), socket.AF_UNIX, ConnectionFactory(lambda address: protocol)
            )
        return succeed(protocol)

    def close(self) -> None:
        """
        Have no connection, if there was none.
        """
        if self._end is not None:
            self._end.close()
            self._end = None
