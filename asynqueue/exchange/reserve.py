"""
Processes of an exchange that have done their work: those that wait for more, and
those that are to end.

This module imports no Twisted.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any, NamedTuple

from asynqueue.errors import AcknowledgementError, MaybeEncodingError
from asynqueue.exchange.channel import Channel
from asynqueue.exchange.process import Process
from asynqueue.outcome import describeCall

# The seconds within which processes end whose work is done; or they are left alone.
_PATIENCE = 5.0


class Call(NamedTuple):
    """
    What is to be called in a process.

    @ivar place: its number among all computations of the exchange.
    """

    place: int
    callable: Callable[..., Any]
    args: tuple[Any, ...]
    kw: dict[str, Any]


class Reserve:
    """
    The processes that have done their work.
    """

    def __init__(self) -> None:
        self._idle: dict[Channel, Callable[..., Any]] = {}
        self._leaving: list[Process] = []

    def add(self, channel: Channel, callable: Callable[..., Any]) -> None:
        """
        Keep a process that waits for another call of what it has called.
        """
        self._idle[channel] = callable

    def take(self, call: Call) -> Channel | None:
        """
        Give a call to a process that waits for one, if there is one for it.

        @return: its channel, which is no longer in the reserve.
        """
        for channel, callable in list(self._idle.items()):
            if callable == call.callable:
                del self._idle[channel]
                channel.assign(describeCall(call.callable, call.args, call.kw))
                try:
                    channel.send((call.args, call.kw))
                except (AcknowledgementError, MaybeEncodingError):
                    # It has ended, or this cannot be sent, so the call has not
                    # begun: a new process can have it.
                    self.close(channel)
                else:
                    return channel
        return None

    def shrink(self, size: int) -> None:
        """
        End those that have been idle for longest, until there are no more than C{size}.
        """
        while len(self._idle) > size:
            channel = next(iter(self._idle))
            del self._idle[channel]
            try:
                channel.post(None)
            except AcknowledgementError:
                # It has ended already.
                pass
            self.close(channel)

    def close(self, channel: Channel) -> None:
        """
        Close a channel, whose process is to end.
        """
        channel.close()
        self.reap()
        if channel.process is not None and not channel.process.hasEnded():
            self._leaving.append(channel.process)

    def tidy(self) -> None:
        """
        Let the processes end: all is done.
        """
        self.shrink(0)
        deadline = monotonic() + _PATIENCE
        for process in self._leaving:
            process.wait(max(0.0, deadline - monotonic()))
        self._leaving.clear()

    def reap(self) -> None:
        """
        Leave nothing of the processes that have ended.
        """
        self._leaving = [process for process in self._leaving if not process.hasEnded()]
