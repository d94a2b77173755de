"""
L{asynqueue.pollers.reactor}: what the reactor sees.
"""

from __future__ import annotations

import errno
from typing import Any

import pytest
from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactor
from twisted.python.failure import Failure

from asynqueue.errors import ImplementationError
from asynqueue.pollers import ReactorPoller, Transport
from asynqueue.testing.transports import RecordingTransport
from asynqueue.testing.trials import socketAt
from tests.polling import POLL, twoEnds, watched

pytestmark = POLL

ends = pytest.fixture(twoEnds)


def newReactorPoller(ends: Any) -> tuple[MemoryReactor, ReactorPoller, RecordingTransport]:
    """
    A poller with a double of the reactor, and a transport.
    """
    reactor = MemoryReactor()
    poller = ReactorPoller(reactor)
    return reactor, poller, watched(poller, ends[0])


def test_reactorMustWatchDescriptors() -> None:
    """
    A reactor that cannot watch descriptors is refused.
    """
    with pytest.raises(ImplementationError, match="IReactorFDSet"):
        ReactorPoller(Clock())


def test_reactorWatchesWritingOnlyIfAsked(ends: Any) -> None:
    """
    The reactor has a reader while a transport is watched, and a writer only while
    one is wanted.
    """
    reactor, poller, transport = newReactorPoller(ends)
    assert (len(reactor.readers), len(reactor.writers)) == (1, 0)
    poller.defer_write(transport)
    (writer,) = reactor.getWriters()
    assert writer.logPrefix() == "asynqueue.pollers"
    writer.doWrite()
    assert (transport.events, reactor.getWriters()) == (["write"], [])
    transport.close()
    assert (reactor.getReaders(), writer.fileno()) == ([], -1)


def test_reactorMayTellTheClosed(ends: Any) -> None:
    """
    What the reactor tells of a transport that is closed by now is ignored.
    """
    reactor, poller, transport = newReactorPoller(ends)
    poller.defer_write(transport)
    (writer,) = reactor.getWriters()
    transport.close()
    writer.doRead()
    writer.doWrite()
    writer.connectionLost(Failure(ConnectionLost()))
    assert transport.events == []


def test_reactorMayLoseADescriptor(ends: Any) -> None:
    """
    When the reactor drops a descriptor, what came is read, and that is the close.
    """
    reactor, poller, transport = newReactorPoller(ends)
    ends[1].send(b"the last")
    (reader,) = reactor.getReaders()
    reader.connectionLost(Failure(ConnectionLost()))
    assert transport.received == b"the last"
    assert transport.events == ["read", "close"]
    assert poller.connections == {}


def test_reactorIsNotToldForEver(ends: Any) -> None:
    """
    A descriptor that was closed without our knowledge, and whose number is another's
    by now, is closed when the reactor tells something, and not watched any more.
    """
    reactor, poller, transport = newReactorPoller(ends)
    (reader,), fd = reactor.getReaders(), transport.fileno()
    ends[0].close()
    with socketAt(fd, ends[1]) as other:
        assert other.fileno() == fd
        ends[1].send(b"x")
        reader.doRead()
    assert transport.events == ["read", "close"]
    assert (poller.connections, reactor.getReaders()) == ({}, [])


@pytest.mark.parametrize("refused", ["addReader", "addWriter"])
def test_reactorMayRefuse(refused: str, ends: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    What the reactor refuses to watch is not watched, and nothing is left open.
    """
    watchers: list[Any] = []

    def refuse(watcher: Any) -> None:
        watchers.append(watcher)
        raise PermissionError(errno.EPERM, "refused")

    reactor = MemoryReactor()
    poller, transport = ReactorPoller(reactor), Transport()
    transport.socket = ends[0]
    monkeypatch.setattr(reactor, refused, refuse)
    with pytest.raises(PermissionError):
        poller.add_channel(transport)
    assert [watcher.fileno() for watcher in watchers] == [-1]
    assert (poller.connections, poller._watchers, reactor.getReaders()) == ({}, {}, [])
