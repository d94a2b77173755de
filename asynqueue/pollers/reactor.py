"""
L{ReactorPoller}: transports in a program that has a reactor.
"""

from __future__ import annotations

import os
from typing import Any

from twisted.internet.interfaces import IReactorFDSet, IReadWriteDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from asynqueue.errors import ImplementationError
from asynqueue.pollers.base import BasePoller
from asynqueue.pollers.kernel import lookAt
from asynqueue.reactors import theReactor
from asynqueue.renewal import renewInForks


@implementer(IReadWriteDescriptor)
class _Descriptor:
    """
    What the reactor sees of a transport.

    It is a duplicate: reactors take it badly if what they watch is closed without
    their knowledge, and this cannot be.
    """

    def __init__(self, poller: ReactorPoller, fd: int) -> None:
        self._poller = poller
        self._fd = fd
        self._duplicate = os.dup(fd)
        # The reactor may tell in its first round what happened to another with the
        # same number.
        self._sure = False

    def fileno(self) -> int:
        return self._duplicate

    def logPrefix(self) -> str:
        return "asynqueue.pollers"

    def doRead(self) -> None:
        if self._duplicate < 0:
            return
        # To a reactor also a failed connection is readable.
        if self._sure and self._poller.connections[self._fd].connected:
            self._poller.process_readables([self._fd])
        else:
            self._look()

    def doWrite(self) -> None:
        # What was readable may have ended it before.
        if self._duplicate >= 0:
            self._look()

    def _look(self) -> None:
        self._sure = self._poller.lookFor(self._fd) or self._sure

    def connectionLost(self, reason: Failure) -> None:
        if self._duplicate >= 0:
            self._poller.lose(self._fd, self)

    def close(self) -> None:
        duplicate, self._duplicate = self._duplicate, -1
        os.close(duplicate)


def _watching(reactor: Any) -> Any:
    """
    Return the reactor that is to watch descriptors.

    @raise ImplementationError: it cannot.
    """
    reactor = theReactor(reactor)
    if not IReactorFDSet.providedBy(reactor):
        raise ImplementationError(
            f"{reactor!r} cannot watch descriptors (IReactorFDSet):"
            " use another reactor, or another poller"
        )
    renewInForks(reactor)
    return reactor


class ReactorPoller(BasePoller):
    """
    Has the running reactor wait: its transports are called while it runs.

    Nothing else need be called. L{poll} and L{loop} never wait, because the reactor
    does; they make rounds for what has happened already.

    A C{KeyboardInterrupt} or C{SystemExit} of a callback passes to the reactor, as
    from any other poller to its caller. The reactor logs it, and loses the
    descriptor, so that C{handle_close} is called.
    """

    def __init__(self, reactor: Any = None) -> None:
        """
        @param reactor: the one that is there when the first transport is added, if it is
            not given.
        @raise ImplementationError: if it cannot watch descriptors.
        """
        super().__init__()
        self._reactor: Any = None if reactor is None else _watching(reactor)
        self._watchers: dict[int, _Descriptor] = {}

    def poll(self, timeout: float | None = None) -> None:
        """
        Make one round for what has happened already. It does not wait, whatever the
        timeout.
        """
        self._look(list(self.connections))

    def loop(self, timeout: float | None = None, count: int | None = None) -> None:
        """
        Make rounds while there are transports, without waiting.

        @param timeout: as for L{poll}.
        @param count: how many rounds; 1 if it is not given, since it is the reactor
            that makes the others.
        """
        super().loop(timeout, 1 if count is None else count)

    def lookFor(self, fd: int) -> bool:
        """
        Make a round for one descriptor. This is for the reactor's side.

        @return: whether anything had really happened.
        """
        return self._look([fd])

    def lose(self, fd: int, watcher: _Descriptor) -> None:
        """
        Forget a descriptor that the reactor watches no more. This is for the reactor's side.
        """
        self._look([fd])
        if self._watchers.get(fd) is watcher:
            # Nobody would ever call it again.
            self._processRound((), (), [fd])

    def _look(self, fds: list[int]) -> bool:
        # At the duplicates, as the reactor does: otherwise it would tell for ever what
        # nobody here sees, if a number was closed and taken without our knowledge.
        numbers = {self._watchers[fd].fileno(): fd for fd in fds}
        happened = [
            [numbers[duplicate] for duplicate in some]
            for some in lookAt(
                (duplicate, self._wantsWrite(self.connections[fd]))
                for duplicate, fd in numbers.items()
            )
        ]
        self._processRound(*happened)
        return any(happened)

    def _watch(self, fd: int, writing: bool, known: bool) -> None:
        if known:
            watcher = self._watchers[fd]
            if writing:
                self._reactor.addWriter(watcher)
            else:
                self._reactor.removeWriter(watcher)
            return
        if self._reactor is None:
            self._reactor = _watching(None)
        watcher = self._watchers[fd] = _Descriptor(self, fd)
        try:
            self._reactor.addReader(watcher)
            if writing:
                self._reactor.addWriter(watcher)
        except BaseException:
            self._unwatch(fd)
            raise

    def _unwatch(self, fd: int) -> None:
        watcher = self._watchers.pop(fd)
        self._reactor.removeReader(watcher)
        self._reactor.removeWriter(watcher)
        watcher.close()
