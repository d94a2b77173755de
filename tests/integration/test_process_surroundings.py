"""
L{ProcessQueue} in programs that have changed what is around it.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import gatherResults

from asynqueue import ProcessQueue
from tests.integration import odd_calls as odd


@pytest.fixture
def defaultTimeout() -> Iterator[None]:
    """
    A default timeout for sockets.
    """
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(30)
    yield
    socket.setdefaulttimeout(before)


@ensureDeferred
async def test_defaultTimeoutOfSockets(defaultTimeout: None) -> None:
    """
    A child waits in the system for its parent, and for room for results, whatever the
    program or a task says about new sockets.
    """
    queue = ProcessQueue(1)
    assert await queue.call(odd.socketsThatDoNotBlock) == []
    await queue.call(socket.setdefaulttimeout, 1e-6)
    results = await gatherResults([queue.call(bytes, 60_000) for _ in range(30)])
    assert {len(result) for result in results} == {60_000}
    await queue.shutdown()
