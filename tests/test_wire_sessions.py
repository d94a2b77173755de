"""
How a server lets its sessions go.
"""

from __future__ import annotations

from typing import Any

import pytest

from asynqueue.taskqueue import TaskQueue
from asynqueue.testing import MemoryWorker
from asynqueue.wire.host.catalog import Catalog
from asynqueue.wire.host.sessions import HostSession
from asynqueue.wire.protocol.codecs import codecNamed
from tests.wirehosts import Line, Sessions


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


@pytest.fixture
def session() -> HostSession:
    """
    A session whose connection is not open yet.
    """
    session = HostSession(
        Sessions(), TaskQueue(MemoryWorker()), Catalog(), codec=codecNamed("pickle")
    )
    line: Any = Coming()
    session.connection = line
    return session


def test_strangersAreCut(session: HostSession) -> None:
    """
    Who has not proved itself is cut.
    """
    line: Any = session.connection
    session.dismiss()
    assert line.aborted


def test_whoHasProvedItselfIsToldGoodbye(session: HostSession) -> None:
    """
    Who has, may have sent calls already: it is told goodbye when the connection is open,
    and so gets them back.
    """
    line: Any = session.connection
    line.isProven = True
    session.dismiss()
    assert not line.aborted
    line.isOpen = True
    session.opened(line)
    assert line.goodbyes
