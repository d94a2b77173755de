"""
How connections come: L{Listener}.
"""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IStreamServerEndpoint
from zope.interface import implementer

from asynqueue.wire.transport.connecting import ConnectionFactory, Listener
from tests.doubles import Heard, resultOf


class Stranger:
    """
    A connection with somebody.

    @ivar isProven: whether it has proved itself.
    @ivar isCut: whether it was cut.
    """

    def __init__(self) -> None:
        self.isProven = False
        self.isCut = False

    def abort(self) -> None:
        """
        Cut it.
        """
        self.isCut = True


class Port:
    """
    What listens.

    @ivar isOpen: whether it does.
    """

    def __init__(self) -> None:
        self.isOpen = True

    def getHost(self) -> str:
        """
        Return where that is.
        """
        return "here"

    def stopListening(self) -> Deferred[None]:
        """
        Do so no more.
        """
        self.isOpen = False
        return succeed(None)


@implementer(IStreamServerEndpoint)
class Endpoint:
    """
    Where to listen, when the test says so.

    @ivar port: what listens.
    @ivar listening: fires with it.
    """

    def __init__(self) -> None:
        self.port = Port()
        self.listening: Deferred[Any] = Deferred()
        self._factory: Any = None

    def listen(self, factory: Any) -> Deferred[Any]:
        """
        Begin.
        """
        self._factory = factory
        return self.listening

    def connect(self) -> Any:
        """
        Somebody connects.
        """
        return self._factory.buildProtocol(UNIXAddress(None))


@pytest.fixture
def endpoint() -> Endpoint:
    """
    Where to listen.
    """
    return Endpoint()


def listenerOf(endpoint: Endpoint, most: int) -> Listener:
    """
    Return what listens there.
    """
    listener = Listener(endpoint, most=most)
    listener.open(ConnectionFactory(lambda address: Stranger()))
    endpoint.listening.callback(endpoint.port)
    return listener


@pytest.mark.parametrize("most", [1, 3, 256])
def test_strangersAreBounded(endpoint: Endpoint, most: int) -> None:
    """
    While no more strangers are there than may be, none is cut; then the oldest is, for
    each that comes.
    """
    listenerOf(endpoint, most)
    strangers = [endpoint.connect() for _ in range(most)]
    assert not any(stranger.isCut for stranger in strangers)
    strangers += [endpoint.connect(), endpoint.connect()]
    assert [stranger.isCut for stranger in strangers] == [True] * 2 + [False] * most


def test_theProvenAreNotCut(endpoint: Endpoint) -> None:
    """
    A connection that has proved itself is no stranger, before it is open and after that.
    """
    listener = listenerOf(endpoint, 1)
    opened, proven = endpoint.connect(), endpoint.connect()
    assert opened.isCut
    proven.isProven = True
    third = endpoint.connect()
    listener.opened(third)
    third.isProven = False
    endpoint.connect()
    assert not proven.isCut
    assert not third.isCut


def test_theLostLeaveTheirPlace(endpoint: Endpoint) -> None:
    """
    Who is gone takes no place.
    """
    listener = listenerOf(endpoint, 1)
    listener.lost(endpoint.connect(), ConnectionError())
    last = endpoint.connect()
    assert list(listener.unproven) == [last]


def test_nothingListensAfterTheEnd(endpoint: Endpoint) -> None:
    """
    What was shut before the endpoint was ready does not listen.
    """
    listener = Listener(endpoint)
    opening = Heard(listener.open(ConnectionFactory(lambda address: None)))
    resultOf(listener.shut())
    endpoint.listening.callback(endpoint.port)
    assert opening.result == "here"
    assert not endpoint.port.isOpen
