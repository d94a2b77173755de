"""
L{asynqueue.durable.ids}.
"""

from __future__ import annotations

import time
import uuid

import pytest

from asynqueue.durable.ids import Ids, createdOf, newId


def test_idsAreUuidsOfTheirKind() -> None:
    """
    An ID is a UUID of version 7, in its canonical form.
    """
    id = newId()
    read = uuid.UUID(id)
    assert str(read) == id
    assert (read.version, read.variant) == (7, uuid.RFC_4122)


def test_idsAreInTheOrderOfTime() -> None:
    """
    IDs that are made one after the other are in this order, and differ.
    """
    ids = Ids()
    made = [ids.make() for _ in range(10_000)]
    assert made == sorted(set(made))


def test_idsStayInOrderWhenTheClockIsSetBack(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The order holds also if the clock of the machine goes back.
    """
    ids = Ids()
    first = ids.make()
    monkeypatch.setattr(time, "time_ns", lambda: 0)
    assert ids.make() > first


def test_idsTellWhenTheyWereMade() -> None:
    """
    The time is in an ID, to the millisecond.
    """
    before = time.time() - 0.001
    assert before <= createdOf(newId()) <= time.time()


@pytest.mark.parametrize("text", ["", "nothing", str(uuid.UUID(int=0))])
def test_otherTextsHaveNoTime(text: str) -> None:
    """
    What is no such ID was made at no time that is known.
    """
    assert createdOf(text) == 0.0
