"""
The way of messages to a child process.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from asynqueue.channels import Channel
from asynqueue.loops.adapters import LoopAdapter


class Outlet:
    """
    Sends messages, and keeps what there is no room for until there is.

    A child that is gone is none of its affairs: what that has left is read first.
    """

    def __init__(
        self, loop: LoopAdapter, channel: Channel, guarded: Callable[[Callable[[], None]], None]
    ) -> None:
        """
        @param guarded: does what the loop calls.
        """
        self._loop = loop
        self._channel = channel
        self._guarded = guarded
        self._isOpen = True

    def send(self, kind: int, number: int, body: bytes, buffers: Any = ()) -> None:
        """
        Send a message, unless this is closed. A hot path.
        """
        if not self._isOpen:
            return
        try:
            if not self._channel.send(kind, number, body, buffers):
                self._awaitWritable()
        except (BrokenPipeError, ConnectionResetError):
            pass

    def close(self) -> None:
        """
        Send nothing more.
        """
        self._isOpen = False

    def _writable(self) -> None:
        if self._isOpen:
            try:
                if not self._channel.flush():
                    self._awaitWritable()
            except (BrokenPipeError, ConnectionResetError):
                pass

    def _awaitWritable(self) -> None:
        writable = partial(self._guarded, self._writable)
        self._loop.awaitWritable(self._channel.outgoing, writable)
