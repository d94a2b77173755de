"""
Reactors and asyncio loops in a fork of the process in which they were made.

A fork shares with its parent what wakes a reactor up: its poller in the kernel, in which
each would change what the other watches, and its pipes, from which each would read what is
meant for the other. The threads of a reactor are the parent's only. In a fork all these are
made anew, before anybody else there has to let something go.
"""

from __future__ import annotations

import asyncio
import os
import select
import socket
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, suppress
from selectors import EVENT_READ, EVENT_WRITE
from typing import Any
from weakref import WeakSet

from twisted.internet.base import ReactorBase

from asynqueue.descriptors import occupy, ownEpoll
from asynqueue.forks import beforeOthers
from asynqueue.reactors import installedReactor, loopOf

# What a descriptor may be that is watched no more, or was never one.
_NO_DESCRIPTOR = (OSError, ValueError)

_used: WeakSet[Any] = WeakSet()


def renewInForks(driver: Any) -> None:
    """
    Have a reactor or an asyncio loop made independent of its parent's in each fork. The
    installed reactor is, without being asked for.
    """
    _used.add(driver)


def _forked() -> None:
    installed = installedReactor()
    with ExitStack() as stack:
        # All are renewed, whatever is wrong with one of them.
        for driver in {*_used, *([] if installed is None else [installed])}:
            stack.callback(_renew, driver)


def _renew(driver: Any) -> None:
    # First what pollers are to watch.
    if isinstance(driver, ReactorBase):
        _renewReactor(driver)
    loop = driver if isinstance(driver, asyncio.AbstractEventLoop) else loopOf(driver)
    if loop is not None:
        _renewLoop(loop)
    elif _isEpoll(poller := getattr(driver, "_poller", None)):
        watched: defaultdict[int, int] = defaultdict(int)
        for event, all_ in (
            (select.EPOLLIN, driver.getReaders()),
            (select.EPOLLOUT, driver.getWriters()),
        ):
            for each in all_:
                watched[each.fileno()] |= event
        _renewEpoll(poller, watched)


def _renewReactor(reactor: Any) -> None:
    for waker in reactor._internalReaders:
        _renewPair(os.pipe, getattr(waker, "i", -1), getattr(waker, "o", -1))
    if reactor.waker in reactor._internalReaders:
        # What a thread of the parent has asked for may have had its word in the old one.
        reactor.wakeUp()
    pool = reactor.threadpool
    if pool is not None and pool.started:
        # Another one is made when it is wanted. This one's locks may be held for ever.
        reactor.removeSystemEventTrigger(reactor.threadpoolShutdownID)
        reactor.threadpool = None


def _renewLoop(loop: asyncio.AbstractEventLoop) -> None:
    """
    Only the loops of the standard library have these; others see to that themselves.
    """
    ends = [getattr(loop, name, None) for name in ("_ssock", "_csock")]
    _renewPair(_socketPair, *(-1 if end is None else end.fileno() for end in ends))
    selector = getattr(loop, "_selector", None)
    poller = getattr(selector, "_selector", None)
    if selector is not None and _isEpoll(poller) and not loop.is_closed():
        watched = {
            fd: (select.EPOLLIN if key.events & EVENT_READ else 0)
            | (select.EPOLLOUT if key.events & EVENT_WRITE else 0)
            for fd, key in selector.get_map().items()
        }
        _renewEpoll(poller, watched)


def _isEpoll(poller: Any) -> bool:
    return hasattr(select, "epoll") and isinstance(poller, select.epoll) and not poller.closed


def _renewEpoll(poller: Any, watched: Mapping[int, int]) -> None:
    ownEpoll(poller)
    for descriptor, events in watched.items():
        # What the system cannot watch, the reactor looks at in other ways.
        with suppress(*_NO_DESCRIPTOR):
            poller.register(descriptor, events)


def _renewPair(make: Callable[[], Iterable[int]], *numbers: int) -> None:
    """
    Have two connected descriptors be two others, that only this process has.
    """
    if min(numbers) < 0:
        return
    for fresh, number in zip(make(), numbers, strict=True):
        os.set_blocking(fresh, False)
        occupy(number, fresh)


def _socketPair() -> Iterable[int]:
    return [end.detach() for end in socket.socketpair()]


beforeOthers(_forked)
