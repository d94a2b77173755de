"""
Snapshots: how something stands at one moment, for people and for programs.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from attrs import asdict, frozen

from asynqueue.outcome import shortRepr


def inWords(series: Hashable) -> str | None:
    """
    Name a series in a text that a program may read: a string as it is, C{None} as it is,
    anything else as Python shows it.
    """
    return series if series is None or isinstance(series, str) else shortRepr(series)


class Snapshot:
    """
    How something stands at one moment. Those who make one are frozen attrs classes.
    """

    __slots__ = ()

    def as_dict(self) -> dict[str, Any]:
        """
        Return the same for JSON: dicts, lists, strings, numbers, and series in words.
        """
        snapshot: Any = self
        return asdict(snapshot, value_serializer=_plain)


@frozen
class WorkerSnapshot(Snapshot):
    """
    How a worker stands, as it tells itself.

    @ivar state: "serving"; "failing", while it can run nothing; "disconnected", while it has
        no connection to its host; "broken", when it has resigned, and its executor takes no
        calls; "stopping"; "stopped"; or "crashed".
    @ivar slots: how many tasks it can run at once.
    @ivar held: how many it has that have not ended, those sent ahead included.
    @ivar ended: how many it has ended.
    @ivar fault: why it can run nothing for now, in words; else empty.
    """

    state: str
    slots: int
    held: int
    ended: int
    fault: str


def _plain(snapshot: Any, attribute: Any, value: Any) -> Any:
    if attribute is None or attribute.name != "series":
        return list(value) if isinstance(value, tuple) else value
    if attribute.metadata.get("many"):
        return sorted(str(inWords(series)) for series in value)
    return inWords(value)
