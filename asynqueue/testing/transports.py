"""
Transports that note what happens to them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from asynqueue.pollers.base import BasePoller
from asynqueue.pollers.transport import Transport


class RecordingTransport(Transport):
    """
    A transport that notes what happens to it, and keeps what it receives.

    @ivar events: what happened: "connect", "read", "write", "close", "error".
    @ivar received: all bytes that came.
    @ivar errors: the exceptions that were told.
    @ivar reactions: what else to do when something happens, by its name.
    @ivar piece: the most bytes that it receives or sends at once.
    """

    def __init__(self, alternate_poller: BasePoller | None = None) -> None:
        super().__init__(alternate_poller)
        self.events: list[str] = []
        self.received = bytearray()
        self.errors: list[BaseException | None] = []
        self.reactions: dict[str, Callable[[], object]] = {}
        self.piece = 65536
        self._outgoing = bytearray()

    def write(self, data: bytes) -> None:
        """
        Send all of it, as soon as there is room.
        """
        self._outgoing += data
        self._sendOn()

    def handle_connect(self) -> None:
        self._note("connect")

    def handle_read(self) -> None:
        self.events.append("read")
        self.received += self.recv(self.piece)
        self._react("read")

    def handle_write(self) -> None:
        self._note("write")
        self._sendOn()

    def handle_close(self) -> None:
        self._note("close")
        self.close()

    def handle_error(self) -> None:
        self.errors.append(sys.exc_info()[1])
        self._note("error")
        self.close()

    def _sendOn(self) -> None:
        while self._outgoing:
            sent = self.send(bytes(self._outgoing[: self.piece]))
            if not sent:
                return
            del self._outgoing[:sent]

    def _note(self, event: str) -> None:
        self.events.append(event)
        self._react(event)

    def _react(self, event: str) -> None:
        if event in self.reactions:
            self.reactions[event]()


class Listener(RecordingTransport):
    """
    A transport that accepts connections.

    @ivar accepted: a transport for each of them, watched by the same poller.
    """

    def __init__(self, poller: BasePoller) -> None:
        super().__init__(poller)
        self.accepted: list[RecordingTransport] = []

    def handle_read(self) -> None:
        assert self.socket is not None
        accepted = RecordingTransport(self.poller)
        accepted.set_socket(self.socket.accept()[0])
        self.accepted.append(accepted)
