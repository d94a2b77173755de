"""
How servers stand: snapshots.
"""

from __future__ import annotations

from attrs import frozen

from asynqueue.scheduling.snapshots import QueueStatistics, Snapshot


@frozen
class GuestStatistics(Snapshot):
    """
    How a server stands with one queue out there.

    @ivar name: where that is, in words.
    @ivar held: how many of its calls have not ended, and how many iterators are open for it.
    """

    name: str
    held: int


@frozen
class ServerStatistics(Snapshot):
    """
    How a server stands.

    @ivar state: "idle", "starting", "serving", "stopping" (calls still end) or "closing" (its
        workers do).
    @ivar description: where it is to listen, or what it dials.
    @ivar address: what queues dial to reach it; empty while it does not listen.
    @ivar seconds: how long it has been serving; 0 if it does not.
    @ivar guests: the queues that have proved themselves.
    @ivar strangers: how many connections have not, by now.
    @ivar queue: how the queue stands that makes the calls; C{None} while there is none.
    """

    state: str
    description: str
    address: str
    seconds: float
    guests: tuple[GuestStatistics, ...]
    strangers: int
    queue: QueueStatistics | None
