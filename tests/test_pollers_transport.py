"""
L{asynqueue.pollers.transport}: what a transport has of its own.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
from typing import Any

import pytest

from asynqueue.pollers import SelectPoller, Transport
from asynqueue.testing.transports import RecordingTransport
from asynqueue.testing.trials import socketAt
from tests.polling import LIMIT, twoEnds, watched

ends = pytest.fixture(twoEnds)


def test_handlersByDefault(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A plain Transport drops what comes, notices the end, and logs exceptions before
    it closes.
    """
    poller = SelectPoller()
    for end in (True, False):
        ours, theirs = socket.socketpair()
        transport = Transport(poller)
        transport.set_socket(ours)
        poller.defer_write(transport)
        theirs.send(b"x")
        poller.poll(LIMIT)
        if end:
            theirs.close()
        else:
            monkeypatch.setattr(transport, "recv", lambda n: 1 // 0)
            theirs.send(b"x")
        poller.loop(LIMIT)
        assert transport.socket is None
        theirs.close()
    (record,) = caplog.records
    assert (record.levelno, record.exc_info and record.exc_info[0]) == (
        logging.ERROR,
        ZeroDivisionError,
    )


def test_plainTransportConnects() -> None:
    """
    A plain Transport connects without a handler.
    """
    poller = SelectPoller()
    with socket.create_server(("127.0.0.1", 0)) as server:
        transport = Transport(poller)
        transport.create_socket()
        transport.connect(server.getsockname())
        poller.loop(timeout=LIMIT, count=1)
        assert transport.connected
        transport.close()


def test_needsASocketToConnect() -> None:
    """
    Without a socket there is nothing to connect, or to send; and no event.
    """
    transport = RecordingTransport(SelectPoller())
    with pytest.raises(ValueError, match="create_socket"):
        transport.connect(("127.0.0.1", 1))
    with pytest.raises(OSError) as caught:
        transport.send(b"x")
    assert caught.value.errno == errno.EBADF
    transport.handle_connect_event()
    assert transport.events == []


def test_transportTellsItsState(ends: Any) -> None:
    """
    The text of a transport says how it is.
    """
    transport = Transport(SelectPoller())
    assert repr(transport) == "<Transport: closed>"
    transport.set_socket(ends[0])
    transport.addr = "there"
    assert "connected, 'there'" in repr(transport)


def test_connectsAgainOnceConnected() -> None:
    """
    To connect what is connected already is told as a connection.
    """
    poller = SelectPoller()
    with socket.create_server(("127.0.0.1", 0)) as server:
        transport = RecordingTransport(poller)
        transport.set_socket(socket.create_connection(server.getsockname()))
        assert (transport.connected, transport.addr) == (True, server.getsockname())
        transport.connect(server.getsockname())
        assert (transport.connected, transport.events) == (True, ["connect"])
        transport.close()


def test_namelessPeerIsConnected(ends: Any) -> None:
    """
    A peer whose name is not known any more is a connection, whose end will be told.
    """

    class Nameless(socket.socket):
        def getpeername(self) -> Any:
            raise OSError(errno.EINVAL, "no name")

    with Nameless(fileno=ends[0].detach()) as ours:
        transport = watched(SelectPoller(), ours)
        assert not transport.connected
        transport.poller.poll(LIMIT)
        assert transport.events == ["connect"]


def test_fullListenerIsAnError(tmp_path: Any) -> None:
    """
    A local listener whose queue is full refuses, which is told at once.
    """
    poller, path = SelectPoller(), str(tmp_path / "full")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen(1)
        transports = [RecordingTransport(poller) for _ in range(5)]
        for transport in transports:
            transport.create_socket(socket.AF_UNIX)
            transport.connect(path)
        assert transports[0].events == ["connect"]
        assert transports[-1].events == ["error"]
        for transport in transports:
            transport.close()


def test_closesNoOthersDescriptor(ends: Any) -> None:
    """
    A transport whose descriptor was closed behind its back closes nothing instead,
    also if another transport has the number by now.
    """
    poller, (ours, theirs) = SelectPoller(), ends
    transport, fd = watched(poller, ours), ours.fileno()
    os.close(fd)
    newcomer = watched(poller, socketAt(fd, theirs))
    assert newcomer.fileno() == fd
    transport.close()
    assert poller.connections == {fd: newcomer}
    os.close(fd)
    newcomer.close()
    assert poller.connections == {}


def test_anotherSocketReplacesTheFirst(ends: Any) -> None:
    """
    A transport that takes another socket is watched for that, and not for the first.
    """
    poller = SelectPoller()
    transport = watched(poller, ends[0])
    transport.set_socket(ends[1])
    assert poller.connections == {ends[1].fileno(): transport}
    poller.close()
