"""
Pollers that wait in the kernel, by select, poll, epoll or kqueue.
"""

from __future__ import annotations

import os
import select
from collections.abc import Iterable
from math import ceil
from typing import Any

from asynqueue.descriptors import ownEpoll
from asynqueue.pollers.base import BasePoller

# The bits of poll, which are the same wherever it is, and in epoll.
_IN, _OUT, _ERR, _HUP, _NVAL = 1, 4, 8, 16, 32
_READABLE = _IN | _ERR | _HUP
_WRITABLE = _OUT | _ERR | _HUP

# The systems' clocks for waiting overflow somewhere above this many seconds.
_LONGEST = 1_000_000.0


def _bits(writing: bool) -> int:
    return _IN | _OUT if writing else _IN


def _sorted(events: Iterable[tuple[int, int]]) -> tuple[list[int], list[int], list[int]]:
    """
    Return what is readable, what is writable, and what is no descriptor any more.
    """
    readables: list[int] = []
    writables: list[int] = []
    gone: list[int] = []
    for fd, event in events:
        if event & _NVAL:
            gone.append(fd)
            continue
        if event & _READABLE:
            readables.append(fd)
        if event & _WRITABLE:
            writables.append(fd)
    return readables, writables, gone


def lookAt(watched: Iterable[tuple[int, bool]]) -> tuple[list[int], list[int], list[int]]:
    """
    Return what of some descriptors is readable, what is writable, and what is no descriptor any
    more, at this moment.

    @param watched: descriptors, each with whether it may be writable.
    """
    poll = select.poll()
    for fd, writing in watched:
        poll.register(fd, _bits(writing))
    return _sorted(poll.poll(0))


class SelectPoller(BasePoller):
    """
    Waits by C{select}, which every platform has, and which is slow for many.
    """

    def poll(self, timeout: float | None = None) -> None:
        if not self.connections:
            return
        fds = list(self.connections)
        writing = [fd for fd, channel in self.connections.items() if self._wantsWrite(channel)]
        timeout = self.secondsLeft(timeout)
        seconds = None if timeout is None else min(timeout, _LONGEST)
        try:
            # Some systems tell a failed connection as an exceptional condition.
            readables, writables, failed = select.select(fds, writing, writing, seconds)
        except (OSError, ValueError):
            gone = [fd for fd in fds if not _isOpen(fd)]
            if not gone:
                raise
            self._processRound((), (), gone)
        else:
            self._processRound(readables, dict.fromkeys(writables + failed))

    def _watch(self, fd: int, writing: bool, known: bool) -> None:
        if known:
            return
        try:
            select.select([fd], [], [], 0)
        except ValueError as error:
            raise ValueError(
                f"descriptor {fd} is too large for select (FD_SETSIZE):"
                " use another poller, or close some files"
            ) from error


def _isOpen(fd: int) -> bool:
    try:
        select.select([fd], [], [], 0)
    except (OSError, ValueError):
        return False
    return True


class PollPoller(BasePoller):
    """
    Waits by C{poll}, for any descriptor.
    """

    def __init__(self) -> None:
        super().__init__()
        self._poll = select.poll()

    def poll(self, timeout: float | None = None) -> None:
        if not self.connections:
            return
        timeout = self.secondsLeft(timeout)
        # Never less than was asked for: that would be a busy loop.
        wait = None if timeout is None else ceil(min(timeout, _LONGEST) * 1000)
        self._processRound(*_sorted(self._poll.poll(wait)))

    def _watch(self, fd: int, writing: bool, known: bool) -> None:
        self._poll.register(fd, _bits(writing))

    def _unwatch(self, fd: int) -> None:
        self._poll.unregister(fd)


class _QueuePoller(BasePoller):
    """
    A poller for which the kernel keeps what is watched, behind a descriptor.

    After a fork the child gets a kernel queue of its own, with the same
    transports: what it does then concerns its parent no more.
    """

    def __init__(self) -> None:
        super().__init__()
        self._owner = os.getpid()
        # Descriptors that were found to be closed while they were to be watched.
        self._gone: set[int] = set()

    def fileno(self) -> int:
        """
        Return the descriptor of the kernel queue, readable while something has happened: another
        poller may watch it, and make a round of this one when it is. For C{kqueue} the number
        changes with a fork.
        """
        self._checkProcess()
        return self._queueFileno()

    def poll(self, timeout: float | None = None) -> None:
        if not self.connections:
            return
        self._checkProcess()
        gone, self._gone = self._gone, set()
        if gone:
            self._processRound((), (), gone)
            return
        timeout = self.secondsLeft(timeout)
        self._wait(None if timeout is None else min(timeout, _LONGEST))

    def _checkProcess(self) -> None:
        if os.getpid() != self._owner:
            self._owner = os.getpid()
            self._renew(inherited=True)

    def _watch(self, fd: int, writing: bool, known: bool) -> None:
        self._checkProcess()
        try:
            self._change(fd, writing, known)
        except OSError:
            if not known:
                # Half of it may have been done.
                self._renew()
                raise
            # It was closed without our knowledge, which the next round tells.
            self._gone.add(fd)

    def _unwatch(self, fd: int) -> None:
        self._checkProcess()
        self._gone.discard(fd)
        try:
            self._drop(fd)
        except OSError:
            # It was closed without our knowledge, and is watched on if there is a
            # duplicate of it. Then only another queue helps.
            self._renew()

    def _renew(self, inherited: bool = False) -> None:
        """
        Begin with another kernel queue.

        @param inherited: whether the one there is belongs to the parent process.
        """
        self._reopen(inherited)
        for fd in self.connections:
            try:
                self._change(fd, fd in self._writing, False)
            except OSError:
                self._gone.add(fd)

    def _queueFileno(self) -> int:
        raise NotImplementedError

    def _reopen(self, inherited: bool) -> None:
        """
        Make a kernel queue, instead of the one there was.
        """
        raise NotImplementedError

    def _wait(self, timeout: float | None) -> None:
        """
        Make a round.
        """
        raise NotImplementedError

    def _change(self, fd: int, writing: bool, known: bool) -> None:
        """
        Watch a descriptor, or watch it otherwise.
        """
        raise NotImplementedError

    def _drop(self, fd: int) -> None:
        """
        Watch a descriptor no more.
        """
        raise NotImplementedError


class EpollPoller(_QueuePoller):
    """
    Waits by C{epoll}, the best of Linux: a round costs what happens in it, however
    many are watched. Regular files cannot be.
    """

    def __init__(self) -> None:
        super().__init__()
        self._epoll = select.epoll()

    def close(self) -> None:
        super().close()
        self._epoll.close()

    def _queueFileno(self) -> int:
        return self._epoll.fileno()

    def _reopen(self, inherited: bool) -> None:
        # The number stays, for those who have it.
        ownEpoll(self._epoll)

    def _wait(self, timeout: float | None) -> None:
        self._processRound(*_sorted(self._epoll.poll(-1 if timeout is None else timeout)))

    def _change(self, fd: int, writing: bool, known: bool) -> None:
        if known:
            self._epoll.modify(fd, _bits(writing))
        else:
            self._epoll.register(fd, _bits(writing))

    def _drop(self, fd: int) -> None:
        self._epoll.unregister(fd)


class KQueuePoller(_QueuePoller):
    """
    Waits by C{kqueue}, the best of BSD and macOS: a round costs what happens in it,
    however many are watched.
    """

    def __init__(self, api: Any = select) -> None:
        """
        @param api: where C{kqueue}, C{kevent} and their constants are: a double in
            tests.
        """
        super().__init__()
        self._api = api
        self._kqueue = api.kqueue()
        self._inherited: list[Any] = []

    def close(self) -> None:
        super().close()
        self._kqueue.close()

    def _queueFileno(self) -> int:
        return int(self._kqueue.fileno())

    def _reopen(self, inherited: bool) -> None:
        if inherited:
            # A forked child has only its number, which may be another's by now: it
            # must not be closed.
            self._inherited.append(self._kqueue)
        else:
            self._kqueue.close()
        self._kqueue = self._api.kqueue()

    def _wait(self, timeout: float | None) -> None:
        api = self._api
        gone: list[int] = []
        readables: list[int] = []
        writables: list[int] = []
        # Each descriptor has at most two filters.
        for event in self._kqueue.control(None, 2 * len(self.connections), timeout):
            if event.flags & api.KQ_EV_ERROR:
                gone.append(event.ident)
            elif event.filter == api.KQ_FILTER_READ:
                readables.append(event.ident)
            else:
                # Also the end of what was to be written to, by KQ_EV_EOF.
                writables.append(event.ident)
        self._processRound(readables, writables, gone)

    def _change(self, fd: int, writing: bool, known: bool) -> None:
        api = self._api
        changes = []
        if not known:
            changes.append(api.kevent(fd, api.KQ_FILTER_READ, api.KQ_EV_ADD))
        if writing:
            changes.append(api.kevent(fd, api.KQ_FILTER_WRITE, api.KQ_EV_ADD))
        elif known:
            changes.append(api.kevent(fd, api.KQ_FILTER_WRITE, api.KQ_EV_DELETE))
        self._kqueue.control(changes, 0, 0)

    def _drop(self, fd: int) -> None:
        api = self._api
        changes = [api.kevent(fd, api.KQ_FILTER_READ, api.KQ_EV_DELETE)]
        if fd in self._writing:
            changes.append(api.kevent(fd, api.KQ_FILTER_WRITE, api.KQ_EV_DELETE))
        self._kqueue.control(changes, 0, 0)
