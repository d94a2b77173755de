"""
What the tests of pollers share: the kinds there are, and a double of C{kqueue}.
"""

from __future__ import annotations

import errno
import os
import select
import socket
from collections.abc import Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from asynqueue.pollers import BasePoller, EpollPoller, KQueuePoller, PollPoller, pollerKinds
from asynqueue.testing.transports import RecordingTransport

# How many seconds anything may wait that does not come.
LIMIT = 20.0


class MemoryKQueue:
    """
    What the kernel does for C{kqueue}, done with C{poll}.
    """

    def __init__(self) -> None:
        self.filters: set[tuple[int, int]] = set()
        self.closed = False

    def control(self, changes: Any, most: int, timeout: float | None = None) -> list[Any]:
        """
        Change what is watched, and tell what happened.
        """
        assert not self.closed
        for change in changes or ():
            self._change(change.ident, change.filter, change.flags)
        if not most:
            return []
        poll = select.poll()
        for fd, filter_ in self.filters:
            bit = select.POLLIN if filter_ == FAKE.KQ_FILTER_READ else select.POLLOUT
            wanted = bit | (select.POLLIN if (fd, FAKE.KQ_FILTER_READ) in self.filters else 0)
            if filter_ == FAKE.KQ_FILTER_WRITE or (fd, FAKE.KQ_FILTER_WRITE) not in self.filters:
                poll.register(fd, wanted)
        happened: list[Any] = []
        for fd, event in poll.poll(None if timeout is None else timeout * 1000):
            happened += self._events(fd, event)
        return happened[:most]

    def _events(self, fd: int, event: int) -> Iterator[Any]:
        if event & select.POLLNVAL:
            self.filters -= {(fd, FAKE.KQ_FILTER_READ), (fd, FAKE.KQ_FILTER_WRITE)}
            yield FAKE.kevent(fd, FAKE.KQ_FILTER_READ, FAKE.KQ_EV_ERROR)
            return
        ends = select.POLLHUP | select.POLLERR
        flags = FAKE.KQ_EV_EOF if event & ends else 0
        for filter_, bit in (
            (FAKE.KQ_FILTER_READ, select.POLLIN),
            (FAKE.KQ_FILTER_WRITE, select.POLLOUT),
        ):
            if event & (bit | ends) and (fd, filter_) in self.filters:
                yield FAKE.kevent(fd, filter_, flags)

    def _change(self, fd: int, filter_: int, flags: int) -> None:
        os.fstat(fd)
        if flags == FAKE.KQ_EV_ADD:
            self.filters.add((fd, filter_))
        elif (fd, filter_) in self.filters:
            self.filters.remove((fd, filter_))
        else:
            raise FileNotFoundError(errno.ENOENT, "no such filter")

    def fileno(self) -> int:
        """
        A number, of nothing.
        """
        return 12345

    def close(self) -> None:
        """
        It cannot be used any more.
        """
        self.closed = True


FAKE = SimpleNamespace(
    kqueue=MemoryKQueue,
    kevent=lambda ident, filter, flags: SimpleNamespace(ident=ident, filter=filter, flags=flags),
    KQ_FILTER_READ=-1,
    KQ_FILTER_WRITE=-2,
    KQ_EV_ADD=1,
    KQ_EV_DELETE=2,
    KQ_EV_EOF=0x8000,
    KQ_EV_ERROR=0x4000,
)

memoryKQueuePoller = partial(KQueuePoller, FAKE)


def _needs(kind: type[BasePoller]) -> pytest.MarkDecorator:
    return pytest.mark.skipif(kind not in pollerKinds(), reason=f"there is no {kind.__name__} here")


EPOLL = _needs(EpollPoller)
KQUEUE = _needs(KQueuePoller)
# The double of kqueue, and what a reactor's poller looks with, are made of poll.
POLL = _needs(PollPoller)

KINDS: list[Any] = [*pollerKinds(), pytest.param(memoryKQueuePoller, marks=POLL)]


def nameOf(value: Any) -> str | None:
    """
    What a parameter is called in the name of its test.
    """
    if value is memoryKQueuePoller:
        return "memory kqueue"
    return value.__name__ if isinstance(value, type) else None


def twoEnds() -> Iterator[tuple[socket.socket, socket.socket]]:
    """
    A fixture: two connected sockets.
    """
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.settimeout(LIMIT)
        yield ours, theirs


def watched(poller: BasePoller, ours: socket.socket) -> RecordingTransport:
    """
    A transport with this socket.
    """
    transport = RecordingTransport(poller)
    transport.set_socket(ours)
    return transport
