"""
Wait for many channels at once, with a poller.

This module imports no Twisted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from time import monotonic
from typing import Any

from asynqueue.exchange.channel import Channel
from asynqueue.pollers.kernel import PollPoller


class _Watch:
    """
    A descriptor of a channel, for a poller.
    """

    connected = True

    def __init__(self, descriptor: int, stir: Callable[[], object]) -> None:
        """
        @param stir: called when there is something.
        """
        self.poller: Any = None
        self._descriptor = descriptor
        self._stir = stir

    def fileno(self) -> int:
        return self._descriptor

    def handle_read(self) -> None:
        self._stir()

    def handle_close(self) -> None:
        self._stir()

    def handle_connect_event(self) -> None: ...
    def handle_write(self) -> None: ...
    def handle_error(self) -> None: ...


class Watching:
    """
    The channels of an exchange, and which of them have something.
    """

    def __init__(self) -> None:
        # Exchanges fork, and watch few: poll leaves nothing in the kernel.
        self._poller = PollPoller()
        self._watches: dict[Channel, list[_Watch]] = {}
        # Who may have something: the poller has said so, or nobody has looked yet.
        self._stirred: dict[Channel, None] = {}

    def add(self, channel: Channel) -> None:
        """
        Watch a channel.
        """
        stir = partial(self._stirred.__setitem__, channel, None)
        self._watches[channel] = [_Watch(number, stir) for number in channel.descriptors()]
        for watch in self._watches[channel]:
            self._poller.add_channel(watch)
        stir()

    def remove(self, channel: Channel) -> None:
        """
        Watch a channel no more.
        """
        for watch in self._watches.pop(channel, ()):
            self._poller.del_channel(watch)
        self._stirred.pop(channel, None)

    def rounds(self, milliseconds: float | None) -> Iterator[list[Channel]]:
        """
        Wait, and give the channels that can be received from; and again, until the
        time is over, or there are none to watch.
        """
        # What was read already no poller can tell.
        self._stirred.update((channel, None) for channel in self._watches if channel.hasCome)
        deadline = None if milliseconds is None else monotonic() + milliseconds / 1000
        while self._watches:
            left = None if deadline is None else max(0.0, deadline - monotonic())
            self._poller.poll(0 if self._stirred else left)
            for channel in list(self._stirred):
                if not channel.look():
                    del self._stirred[channel]
            found = list(self._stirred)
            yield found
            if left == 0 and not found:
                return

    def __del__(self) -> None:
        # It and what it watches know each other: they would go late.
        if "_poller" in vars(self):
            self._poller.close()
