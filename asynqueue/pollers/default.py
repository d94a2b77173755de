"""
The poller of those who have not chosen one.
"""

from __future__ import annotations

import select
from functools import cache

from asynqueue.pollers.base import BasePoller
from asynqueue.pollers.kernel import EpollPoller, KQueuePoller, PollPoller, SelectPoller

# The best first, each with what the select module must have for it.
_KINDS: tuple[tuple[str, type[BasePoller]], ...] = (
    ("epoll", EpollPoller),
    ("kqueue", KQueuePoller),
    ("poll", PollPoller),
    ("select", SelectPoller),
)


def pollerKinds() -> list[type[BasePoller]]:
    """
    Return the pollers that this platform has, the best first.
    """
    return [kind for name, kind in _KINDS if name in vars(select)]


@cache
def thePoller() -> BasePoller:
    """
    Return the poller of this process, made when it is first asked for.
    """
    return pollerKinds()[0]()
