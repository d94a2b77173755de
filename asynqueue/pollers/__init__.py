"""
Sockets without callbacks of a framework: transports, and pollers that call them.

For scripts that have no reactor, and for programs that have one: the same
L{Transport} works with each poller.

  - L{Transport} is a socket, and what to do when something happens to it.
  - L{SelectPoller}, L{PollPoller}, L{EpollPoller} and L{KQueuePoller} wait in the
    kernel; L{BasePoller} is what they have in common.
  - L{ReactorPoller<asynqueue.pollers.reactor.ReactorPoller>} leaves the waiting to
    Twisted's reactor. Only who asks for it imports Twisted.
  - C{poller} is the best of this platform, made when it is first asked for, and
    L{loop} runs it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asynqueue.lazy import lazyNames
from asynqueue.pollers.base import BasePoller, Channel
from asynqueue.pollers.default import pollerKinds, thePoller
from asynqueue.pollers.kernel import EpollPoller, KQueuePoller, PollPoller, SelectPoller
from asynqueue.pollers.transport import Transport

if TYPE_CHECKING:
    from asynqueue.pollers.reactor import ReactorPoller as ReactorPoller

    poller: BasePoller

__all__ = [
    "BasePoller",
    "Channel",
    "EpollPoller",
    "KQueuePoller",
    "PollPoller",
    "ReactorPoller",
    "SelectPoller",
    "Transport",
    "loop",
    "poller",
    "pollerKinds",
    "thePoller",
]


def loop(timeout: float | None = None, count: int | None = None) -> None:
    """
    Run C{poller}, as L{BasePoller.loop} says.
    """
    thePoller().loop(timeout, count)


__getattr__, __dir__ = lazyNames(
    __name__, {"asynqueue.pollers.reactor": ["ReactorPoller"]}, computed={"poller": thePoller}
)
