"""
L{asynqueue.pollers.kernel}: what each poller has of its own.
"""

from __future__ import annotations

import errno
import os
import resource
import select
import socket
import subprocess
import sys
from typing import Any

import pytest

from asynqueue.pollers import BasePoller, EpollPoller, PollPoller, SelectPoller, pollerKinds
from asynqueue.testing.transports import RecordingTransport
from tests.polling import EPOLL, FAKE, LIMIT, POLL, memoryKQueuePoller, nameOf, twoEnds, watched

ends = pytest.fixture(twoEnds)


def test_selectIsLimited(ends: Any) -> None:
    """
    A descriptor that is too large for select is refused, in words.
    """
    large = 1500
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] <= large:
        pytest.skip("descriptors are not as large here")
    os.dup2(ends[0].fileno(), large)
    with socket.socket(fileno=large) as ours:
        poller = SelectPoller()
        with pytest.raises(ValueError, match="FD_SETSIZE"):
            watched(poller, ours)
        assert poller.connections == {}


def test_selectFailsOnItsOwn(ends: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    An error of select that no descriptor explains comes out of poll.
    """

    def fail(readers: Any, writers: Any, failed: Any, timeout: float | None) -> Any:
        if timeout != 0:
            raise OSError(errno.ENOMEM, "no memory")
        return [], [], []

    poller = SelectPoller()
    watched(poller, ends[0])
    monkeypatch.setattr(select, "select", fail)
    with pytest.raises(OSError, match="no memory"):
        poller.poll(1)


@POLL
def test_pollTellsTheGone(ends: Any) -> None:
    """
    A descriptor that was closed without PollPoller's knowledge is a close.
    """
    transport = watched(PollPoller(), ends[0])
    ends[0].close()
    transport.poller.poll(LIMIT)
    assert transport.events == ["close"]
    assert transport.poller.connections == {}


class Foreign(RecordingTransport):
    """
    A transport for something else that has a descriptor.
    """

    def __init__(self, poller: BasePoller, other: Any) -> None:
        super().__init__(poller)
        self.other = other
        self.connected = True

    def fileno(self) -> int:
        """
        That of the other.
        """
        return int(self.other.fileno())


@EPOLL
@pytest.mark.parametrize("kind", pollerKinds(), ids=nameOf)
def test_epollCanBeNested(kind: Any, ends: Any) -> None:
    """
    An EpollPoller is readable for another poller when something has happened.
    """
    outer, inner = kind(), EpollPoller()
    nested = Foreign(outer, inner)
    nested.reactions["read"] = lambda: inner.poll(0)
    outer.add_channel(nested)
    transport = watched(inner, ends[0])
    outer.poll(0)
    assert transport.events == []
    ends[1].send(b"x")
    outer.poll(LIMIT)
    assert transport.events == ["read"]
    outer.close()
    inner.close()


@EPOLL
def test_epollRefusesFiles() -> None:
    """
    What the kernel refuses to watch is not watched.
    """
    poller = EpollPoller()
    with open(__file__, "rb") as file, pytest.raises(PermissionError):
        poller.add_channel(Foreign(poller, file))
    assert poller.connections == {}
    poller.close()


@EPOLL
def test_epollHasNothingLeft(ends: Any) -> None:
    """
    What the kernel keeps of a descriptor that was closed without our knowledge,
    because of a duplicate, does not wake the poller again.
    """
    ours, theirs = ends
    poller = EpollPoller()
    transport = watched(poller, ours)
    with ours.dup():
        ours.close()
        theirs.send(b"x")
        poller.poll(LIMIT)
        assert transport.events == ["read", "close"]
        assert select.select([poller], [], [], 0) == ([], [], [])
    poller.close()


@pytest.mark.parametrize(
    "kind",
    [pytest.param(EpollPoller, marks=EPOLL), pytest.param(memoryKQueuePoller, marks=POLL)],
    ids=nameOf,
)
def test_goneWhileOthersAreRenewed(kind: Any, ends: Any) -> None:
    """
    Of two that were closed without our knowledge, one is found when the other is
    deleted, and its close is told in the next round.
    """
    poller, (ours, theirs) = kind(), ends
    one, other = watched(poller, ours), watched(poller, theirs)
    ours.close()
    theirs.close()
    poller.del_channel(one)
    poller.poll(LIMIT)
    assert (one.events, other.events) == ([], ["close"])
    poller.close()


@EPOLL
def test_forkedChildIsItsOwn(ends: Any) -> None:
    """
    After a fork, what the child does with the poller concerns the parent no more,
    and the child has the same transports.
    """
    code = """
import os, socket
from asynqueue.pollers import EpollPoller
from asynqueue.testing.transports import RecordingTransport
poller, (ours, theirs) = EpollPoller(), socket.socketpair()
transport = RecordingTransport(poller)
transport.set_socket(ours)
number = poller.fileno()
child = os.fork()
if not child:
    theirs.send(b"x")
    poller.poll(20)
    transport.close()
    os._exit(0 if (transport.received, poller.fileno()) == (b"x", number) else 1)
assert os.waitpid(child, 0)[1] == 0
theirs.send(b"y")
poller.poll(20)
print(transport.received.decode())
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=3 * LIMIT, check=True
    )
    assert done.stdout == "y\n"


@POLL
def test_kqueueIsNotInherited(ends: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    In another process a KQueuePoller makes a new queue, and leaves the number of the
    old one alone.
    """
    poller = memoryKQueuePoller()
    transport = watched(poller, ends[0])
    before = poller._kqueue
    monkeypatch.setattr(os, "getpid", lambda: -1)
    ends[1].send(b"x")
    poller.poll(LIMIT)
    assert transport.received == b"x"
    assert poller._kqueue is not before
    assert not before.closed
    assert poller.fileno() == 12345
    poller.close()
    assert poller._kqueue.closed


@POLL
def test_kqueueTellsErrors(ends: Any) -> None:
    """
    An event with the error flag is a close.
    """
    poller = memoryKQueuePoller()
    transport = watched(poller, ends[0])
    ends[0].close()
    poller.poll(LIMIT)
    assert transport.events == ["close"]


@POLL
def test_kqueueDeletesItsFilters(ends: Any) -> None:
    """
    Writability is a filter of its own, which is there only while it is wanted.
    """
    poller, fd = memoryKQueuePoller(), ends[0].fileno()
    transport = watched(poller, ends[0])
    assert poller._kqueue.filters == {(fd, FAKE.KQ_FILTER_READ)}
    poller.defer_write(transport)
    assert poller._kqueue.filters == {(fd, FAKE.KQ_FILTER_READ), (fd, FAKE.KQ_FILTER_WRITE)}
    kernel = poller._kqueue
    poller.del_channel(transport)
    assert (kernel.filters, kernel.closed) == (set(), False)
