"""
What the checks of pollers are made of.
"""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Callable, Coroutine
from fcntl import F_DUPFD_CLOEXEC, fcntl
from time import monotonic
from typing import Any

from twisted.internet.defer import Deferred

from asynqueue.pollers.base import BasePoller
from asynqueue.pollers.transport import Transport
from asynqueue.reactors import theReactor
from asynqueue.testing.transports import Listener, RecordingTransport


class PollerTrial:
    """
    One check of one poller, and what must be cleaned up after it.

    Nothing in it waits longer than the limit, if the poller heeds its timeouts.

    @ivar poller: the poller.
    @ivar reactor: whether the reactor makes its rounds.
    @ivar folder: a directory for the names of local sockets.
    """

    def __init__(self, poller: BasePoller, reactor: bool, limit: float) -> None:
        self.poller = poller
        self.reactor = reactor
        self.folder = tempfile.TemporaryDirectory()
        self._limit = limit
        self._deadline = monotonic() + limit
        self._sockets: list[socket.socket] = []
        self._transports: list[Transport] = []
        # The sockets are there from the beginning: none gets a number that a check
        # has set free.
        self._marker = self.transport()
        self._marked, self._marking = self.ends()
        self._marks = 0

    def left(self) -> float:
        """
        Return how many seconds are left: the timeout for whatever may wait.

        @raise AssertionError: if there are none.
        """
        left = self._deadline - monotonic()
        require(left > 0, "what was to happen did not, within the limit")
        return left

    def transport(self) -> RecordingTransport:
        """
        Return a transport without a socket.
        """
        transport = RecordingTransport(self.poller)
        self._transports.append(transport)
        return transport

    def ends(self) -> tuple[socket.socket, socket.socket]:
        """
        Two connected sockets.
        """
        ends = socket.socketpair()
        self._sockets += ends
        for end in ends:
            end.settimeout(self._limit)
        return ends

    def pair(self) -> tuple[RecordingTransport, socket.socket]:
        """
        Return a connected transport, and the other end of it.
        """
        ours, theirs = self.ends()
        transport = self.transport()
        transport.set_socket(ours)
        return transport, theirs

    def listener(self, family: int, address: Any) -> Listener:
        """
        Return a transport that accepts connections.
        """
        listener = Listener(self.poller)
        self._transports.append(listener)
        listener.create_socket(family)
        assert listener.socket is not None
        listener.socket.bind(address)
        listener.socket.listen()
        return listener

    async def connected(
        self, family: int = socket.AF_INET, address: Any = ("127.0.0.1", 0)
    ) -> tuple[RecordingTransport, RecordingTransport]:
        """
        Two transports that are connected to each other, the first by itself.
        """
        listener = self.listener(family, address)
        assert listener.socket is not None
        transport = self.transport()
        transport.create_socket(family)
        transport.connect(listener.socket.getsockname())
        await self.until(lambda: transport.connected and listener.accepted)
        self._transports += listener.accepted
        return transport, listener.accepted[0]

    async def until(self, condition: Callable[[], object]) -> None:
        """
        Make rounds until something is true.
        """
        while not condition():
            if self.reactor:
                turn: Deferred[None] = Deferred()
                theReactor().callLater(0, turn.callback, None)
                await turn
            else:
                self.poller.poll(self.left())
            self.left()

    async def settle(self) -> None:
        """
        Make some rounds: what could happen has happened.
        """
        if self._marker.socket is None:
            self._marker.set_socket(self._marked)
        for _ in range(3):
            self._marks += 1
            self._marking.send(b"!")
            await self.until(lambda: len(self._marker.received) == self._marks)

    def end(self) -> None:
        """
        Leave nothing behind.
        """
        for transport in self._transports:
            transport.close()
        for other in self._sockets:
            other.close()
        self.poller.close()
        self.folder.cleanup()


Body = Callable[[PollerTrial], Coroutine[Any, Any, None]]


class Checks(list[Body]):
    """
    Checks, in the order in which they stand in a module.
    """

    def check(self, body: Body) -> Body:
        """
        Take a function for a check, whose name and text are its own.
        """
        self.append(body)
        return body


def expect(actual: Any, expected: Any, what: str) -> None:
    """
    Require that something is what it is expected to be.
    """
    if actual != expected:
        raise AssertionError(f"{what} is {actual!r}, not {expected!r}")


def require(condition: object, what: str) -> None:
    """
    Require that something is so; or else tell what is wrong.
    """
    if not condition:
        raise AssertionError(what)


def raiser(error: BaseException) -> Callable[[], object]:
    """
    Return a reaction that raises this.
    """

    def react() -> object:
        raise error

    return react


def socketAt(fd: int, other: socket.socket) -> socket.socket:
    """
    Return a duplicate of a socket, with a certain descriptor, or the next that is free.
    """
    return socket.socket(fileno=fcntl(other.fileno(), F_DUPFD_CLOEXEC, fd))
