"""
What is kept of other programs, whose code runs here.
"""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from asynqueue.codec import dumps
from asynqueue.origins import Origin, originAt, originOf, originWith
from asynqueue.program import ELSEWHERE
from tests.mains import mainOf

PROGRAM = """
RATE = 1
OWN = None
MISSING = object()
class Plain:
    size = 1
def rate(): return RATE
def setOwn():
    global OWN
    OWN = 5
def own(): return OWN
def isMissing(x): return x is MISSING
def size(): return Plain.size
"""


@pytest.fixture
def main(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """
    The names of a program.
    """
    return mainOf(PROGRAM, monkeypatch)


def there(value: Any) -> Any:
    """
    What another program makes of a value.
    """
    return pickle.loads(dumps(value, ELSEWHERE))


def test_onlyNewerGlobalsAreTaken() -> None:
    """
    A global that comes again, or late, leaves what calls have made of it.
    """
    origin = Origin("somebody", {"__name__": "__main__"})
    origin.update({"a": 2}, {"a": "second"})
    origin.update({"a": 1}, {"a": "first"})
    assert origin.namespace["a"] == "second"
    origin.namespace["a"] = "set by a call"
    origin.update({"a": 2}, {"a": "second"})
    assert origin.namespace["a"] == "set by a call"
    origin.update({"a": 3}, {"a": "third"})
    assert origin.namespace["a"] == "third"


def test_originsAreFoundByTheirGlobals() -> None:
    """
    A namespace says whose it is; and a sentinel is found in it.
    """
    origin = originAt("another", {"__name__": "__main__"})
    assert originAt("another", {}) is origin
    assert originOf(origin.namespace) is origin
    assert originOf({}) is None
    sentinel = origin.namespace["SENTINEL"] = object()
    assert originWith(sentinel) == (origin, "SENTINEL")
    assert originWith(object()) is None


def test_functionsOfAProgramShareTheirGlobals(main: dict[str, Any]) -> None:
    """
    What one function of a program sets elsewhere, its others see there; here it stays as it
    is. What has changed here goes with the next one.
    """
    there(main["setOwn"])()
    assert there(main["own"])() == 5
    assert main["OWN"] is None
    assert there(main["rate"])() == 1
    main["RATE"] = 2
    assert there(main["rate"])() == 2
    main["OWN"] = 6
    assert there(main["own"])() == 6


def test_functionsStayThemselves(main: dict[str, Any]) -> None:
    """
    A function that is sent again is the same one there.
    """
    assert there(main["rate"]) is there(main["rate"])


def test_whatIsRelayedKeepsItsGlobals(main: dict[str, Any]) -> None:
    """
    Also what was sent from there to a third has the globals of its program.
    """
    own, setOwn = there(main["own"]), there(main["setOwn"])
    own.__globals__["OWN"] = 7
    assert there(own)() == 7
    there(setOwn)()
    assert there(own)() == 5


def test_sentinelsAreFoundByTheirNames(main: dict[str, Any]) -> None:
    """
    An object that means something only as the value of a name is that elsewhere; and what
    comes back is the one of here.
    """
    assert there(main["MISSING"]) is main["MISSING"]
    assert there(main["isMissing"])(main["MISSING"])
    far = there(main["isMissing"]).__globals__["MISSING"]
    assert far is main["MISSING"]
