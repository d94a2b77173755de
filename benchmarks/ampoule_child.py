"""
What ampoule runs in its children, and the peer that it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ampoule.child import AMPChild
from twisted.protocols import amp

from benchmarks.process_calls import identity, noop

# A box of AMP has no longer value.
_MOST = 0xFFFF


class LongString(amp.Argument):
    """
    Bytes of any length, cut into values that a box of AMP takes.
    """

    def toBox(self, name: bytes, strings: Any, objects: Any, proto: Any) -> None:
        """
        Write the pieces, and how many there are.
        """
        value = self.retrieve(objects, name.decode(), proto)
        starts = range(0, len(value), _MOST)
        strings[name] = b"%d" % len(starts)
        for number, start in enumerate(starts):
            strings[b"%s.%d" % (name, number)] = value[start : start + _MOST]

    def fromBox(self, name: bytes, strings: Any, objects: Any, proto: Any) -> None:
        """
        Read them.
        """
        count = int(strings[name])
        pieces = [strings[b"%s.%d" % (name, number)] for number in range(count)]
        objects[name.decode()] = b"".join(pieces)


class Noop(amp.Command):
    """
    Nothing.
    """


class Identity(amp.Command):
    """
    There and back.
    """

    arguments = [(b"data", LongString())]
    response = [(b"data", LongString())]


class Child(AMPChild):
    """
    Does both.
    """

    @Noop.responder
    def noop(self) -> dict[str, Any]:
        noop()
        return {}

    @Identity.responder
    def identity(self, data: bytes) -> dict[str, Any]:
        return {"data": identity(data)}


COMMANDS: dict[Callable[..., Any], type[amp.Command]] = {noop: Noop, identity: Identity}
