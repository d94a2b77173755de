"""
How a server lets its guests go.
"""

from __future__ import annotations

from typing import Any

import pytest

from asynqueue.taskqueue import TaskQueue
from asynqueue.testing import MemoryWorker
from asynqueue.wire.host.catalog import Catalog
from asynqueue.wire.host.host import Host
from asynqueue.wire.host.sessions import Guest
from asynqueue.wire.protocol.codecs import codecNamed
from tests.wirehosts import Line


class Coming(Line):
    """
    A connection that is not open yet.

    @ivar aborted: whether it was cut.
    """

    description = "somewhere"

    def __init__(self) -> None:
        super().__init__(codecNamed("pickle"))
        self.isOpen = False
        self.isProven = False
        self.aborted = False

    def abort(self) -> None:
        self.aborted = True


class Server:
    """
    Hears of its guests, and does nothing.
    """

    def guestOpened(self, guest: Guest, connection: Any) -> None:
        """
        It is there.
        """

    def guestLost(self, guest: Guest, connection: Any, error: Exception) -> None:
        """
        It is gone.
        """


@pytest.fixture
def guest() -> Any:
    """
    A guest whose connection is not open yet.
    """
    host = Host(
        TaskQueue(MemoryWorker()), Catalog(), codec=codecNamed("pickle"), ended=lambda _: None
    )
    guest = Guest(Server(), host)
    line: Any = Coming()
    guest.connection = line
    return guest


def test_strangersAreCut(guest: Guest) -> None:
    """
    Who has not proved itself is cut.
    """
    line: Any = guest.connection
    guest.dismiss()
    assert line.aborted


def test_whoHasProvedItselfIsToldGoodbye(guest: Guest) -> None:
    """
    Who has, may have sent calls already: it is told goodbye when the connection is open,
    and so gets them back.
    """
    line: Any = guest.connection
    line.isProven = True
    guest.dismiss()
    assert not line.aborted
    line.isOpen = True
    guest.opened(line)
    assert line.goodbyes
