"""
What all pollers have in common: who is watched, and who is called.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Hashable, Iterable
from itertools import count as counting
from time import monotonic
from typing import Any, Protocol

# An OSError with one of these says that the peer has gone, or the descriptor.
DISCONNECTED = frozenset(
    {errno.EBADF, errno.ECONNRESET, errno.ENOTCONN, errno.ESHUTDOWN, errno.ECONNABORTED}
)


class Channel(Hashable, Protocol):
    """
    What a poller can watch: a L{Transport<asynqueue.pollers.transport.Transport>},
    or anything else with a descriptor. Instead of C{fileno()} it may have an attribute
    C{socket} or C{descriptor}.

    @ivar connected: while it is false, the poller waits for the end of a
        connection attempt. What needs none has it true from the beginning.
    @ivar poller: the poller that watches it, set by that.
    """

    connected: bool
    poller: Any

    def fileno(self) -> int:
        """
        Return its descriptor.
        """

    def handle_connect_event(self) -> None:
        """
        Set C{connected}, or raise: the connection attempt has ended.
        """

    def handle_read(self) -> None:
        """
        Hear that there is something to read, or the end.
        """

    def handle_write(self) -> None:
        """
        Hear that there is room for something to write, as was asked for.
        """

    def handle_close(self) -> None:
        """
        Hear that the peer has gone, or the descriptor.
        """

    def handle_error(self) -> None:
        """
        Hear that one of the others raised an exception, which is the current one.
        """


def descriptorOf(channel: Any) -> int:
    """
    Return the descriptor of a transport: that of C{fileno()}; or else of its C{socket}, or
    its C{descriptor}.

    @return: -1 if it is closed.
    @raise ValueError: it has none of these.
    """
    fileno = getattr(channel, "fileno", None)
    if fileno is None:
        fileno = getattr(getattr(channel, "socket", None), "fileno", None)
    fd = getattr(channel, "descriptor", None) if fileno is None else fileno()
    if isinstance(fd, bool) or not isinstance(fd, int):
        raise ValueError(
            f"{channel!r} cannot be watched: give it a fileno(), a socket or a descriptor"
        )
    return fd


# A channel as it was when the round began: its descriptor, and its number among
# all that were added, which tells it from a later one with the same descriptor.
_Seen = tuple[int, Channel, int | None]


class BasePoller:
    """
    Calls transports when something has happened to their descriptors.

    A poller is not safe for threads: all is called from one thread, and its
    callbacks run there. Readability is always watched. Writability is watched
    until a transport is connected, and after L{defer_write}, so that nothing is
    called, and nothing wakes up, while nothing happens.

    Subclasses give L{poll}, which L{loop} calls without an argument, and the two hooks
    L{_watch} and L{_unwatch} if they keep what is watched in the kernel. One that waits
    asks L{secondsLeft} for how long.

    @ivar connections: the transports that are watched, by descriptor. It is to
        be read; L{add_channel} and L{del_channel} change it.
    @ivar deferred_writers: the transports that wait for a C{handle_write}.
    """

    def __init__(self) -> None:
        self.connections: dict[int, Channel] = {}
        self.deferred_writers: set[Channel] = set()
        self._descriptors: dict[Channel, int] = {}
        self._numbers: dict[int, int] = {}
        self._counter = counting()
        # The descriptors whose writability is watched.
        self._writing: set[int] = set()
        # When L{loop} is to return, while it runs.
        self._until: float | None = None

    def add_channel(self, channel: Channel) -> None:
        """
        Watch a transport from now on, and set its C{poller}.

        One that was added before is added anew. One whose descriptor was closed
        without our knowledge, and now belongs to this one, is forgotten.

        @raise ValueError: if it has no descriptor, or one that this kind of poller
            cannot watch.
        @raise OSError: if the system cannot watch it.
        """
        fd = descriptorOf(channel)
        if fd < 0:
            raise ValueError(f"{channel!r} has no open descriptor: add it before it is closed")
        deferred = channel in self.deferred_writers
        self.del_channel(channel)
        if fd in self.connections:
            self._forget(fd)
        writing = deferred or not channel.connected
        self._watch(fd, writing, False)
        self.connections[fd] = channel
        self._descriptors[channel] = fd
        self._numbers[fd] = next(self._counter)
        if deferred:
            self.deferred_writers.add(channel)
        if writing:
            self._writing.add(fd)
        channel.poller = self

    def del_channel(self, channel: Channel) -> None:
        """
        Watch a transport no more. It is not closed; nothing happens to one that is
        not watched.
        """
        fd = self._descriptors.get(channel)
        if fd is not None:
            self._forget(fd)

    def defer_write(self, channel: Channel) -> None:
        """
        Call C{handle_write} of a watched transport once, when it is connected and
        can be written to.
        """
        fd = self._descriptors.get(channel)
        if fd is not None:
            self.deferred_writers.add(channel)
            self._refresh(fd, channel)

    def close(self) -> None:
        """
        Forget all transports, without closing them, and what the system keeps for
        this poller, which is of no use after that.
        """
        for fd in list(self.connections):
            self._forget(fd)

    def poll(self, timeout: float | None = None) -> None:
        """
        Make one round: wait for something to happen, and call the transports that
        it happened to. With none to watch there is nothing to wait for.

        What a C{handle_error} raises comes out of here, as do C{KeyboardInterrupt}
        and C{SystemExit} of all callbacks; what else had happened is told in the
        next round.

        @param timeout: the most seconds to wait: 0 for what has
            happened already, C{None} for as long as it takes.
        """
        raise NotImplementedError(
            f"{type(self).__name__} cannot wait: use SelectPoller, or another one that can"
        )

    def loop(self, timeout: float | None = None, count: int | None = None) -> None:
        """
        Make rounds while there are transports.

        @param timeout: after how many seconds, of all rounds together, to return.
            One round is always made.
        @param count: after how many rounds to return.
        """
        # A callback may call this again.
        outer, self._until = self._until, None if timeout is None else monotonic() + timeout
        try:
            for _ in counting() if count is None else range(count):
                if not self.connections:
                    return
                self.poll()
                if self.secondsLeft() == 0:
                    return
        finally:
            self._until = outer

    def secondsLeft(self, timeout: float | None = None) -> float | None:
        """
        Tell a round how long it may wait.

        @param timeout: what the round was given.
        @return: that, or what is left of the time of L{loop}, if that is less; C{None} for
            as long as it takes.
        """
        if self._until is None:
            return timeout
        left = max(0.0, self._until - monotonic())
        return left if timeout is None else min(timeout, left)

    def process_readables(self, fds: Iterable[int]) -> None:
        """
        Call C{handle_read} of transports, by their descriptors.

        For an C{OSError} that says that the peer has gone (EBADF, ECONNRESET,
        ENOTCONN, ESHUTDOWN, ECONNABORTED), C{handle_close} is called, and the
        transport is watched no more. For any other exception C{handle_error} is
        called. C{KeyboardInterrupt} and C{SystemExit} pass.

        A transport that was closed by the callback of another is skipped, also if a
        new one has its descriptor.
        """
        self._processAll(self._seen(fds), self._read)

    def process_writables(self, fds: Iterable[int]) -> None:
        """
        Call C{handle_connect_event} of transports that are not connected, and
        C{handle_write} of the others, which leave L{deferred_writers} before that.

        Exceptions are told as by L{process_readables}.
        """
        self._processAll(self._seen(fds), self._write)

    # The round of subclasses

    def _wantsWrite(self, channel: Channel) -> bool:
        return not channel.connected or channel in self.deferred_writers

    def _processRound(
        self, readables: Iterable[int], writables: Iterable[int], gone: Iterable[int] = ()
    ) -> None:
        """
        Tell what happened, in all three ways as it was when the round began.

        Who is closed by one way is skipped in the next. Writables come first: then
        an attempt to connect has ended when its first bytes are read, and who reads
        for ever keeps nobody from writing.

        @param gone: descriptors that no longer are any.
        """
        lost, writing, reading = self._seen(gone), self._seen(writables), self._seen(readables)
        self._processAll(lost, self._raiseGone)
        self._processAll(writing, self._writeIfWanted)
        self._processAll(reading, self._read)

    def _seen(self, fds: Iterable[int]) -> list[_Seen]:
        connections = self.connections
        return [(fd, connections[fd], self._numbers.get(fd)) for fd in fds if fd in connections]

    def _isStill(self, seen: _Seen) -> bool:
        fd, channel, number = seen
        return self.connections.get(fd) is channel and self._numbers.get(fd) == number

    def _processAll(self, all_: list[_Seen], act: Callable[[Channel], None]) -> None:
        for seen in all_:
            if self._isStill(seen):
                self._process(seen, act)

    def _process(self, seen: _Seen, act: Callable[[Channel], None]) -> None:
        fd, channel, _ = seen
        try:
            try:
                act(channel)
            except OSError as error:
                if error.errno not in DISCONNECTED:
                    raise
                self._tellClosed(seen)
        except Exception:
            # The seam to the user's callbacks: one failure must not end the others.
            channel.handle_error()
        if self._isStill(seen):
            self._refresh(fd, channel)

    def _tellClosed(self, seen: _Seen) -> None:
        """
        Watch no more what has gone, the peer or the descriptor, even if the transport keeps it
        open. It may have begun anew with the same one.
        """
        fd, channel, _ = seen
        try:
            channel.handle_close()
        finally:
            if self._isStill(seen):
                self._forget(fd)

    def _read(self, channel: Channel) -> None:
        channel.handle_read()

    def _write(self, channel: Channel) -> None:
        if channel.connected:
            self.deferred_writers.discard(channel)
            channel.handle_write()
        else:
            channel.handle_connect_event()

    def _writeIfWanted(self, channel: Channel) -> None:
        # It may have got its connection elsewhere; then nobody asked for this.
        if self._wantsWrite(channel):
            self._write(channel)

    def _raiseGone(self, channel: Channel) -> None:
        raise OSError(errno.EBADF, "the descriptor was closed without our knowledge")

    def _refresh(self, fd: int, channel: Channel) -> None:
        """
        Watch writability if, and only if, it is wanted.
        """
        wants = self._wantsWrite(channel)
        if wants != (fd in self._writing):
            self._watch(fd, wants, True)
            if wants:
                self._writing.add(fd)
            else:
                self._writing.discard(fd)

    def _forget(self, fd: int) -> None:
        channel = self.connections.pop(fd)
        self._descriptors.pop(channel, None)
        self._numbers.pop(fd, None)
        self.deferred_writers.discard(channel)
        self._unwatch(fd)
        self._writing.discard(fd)

    # The hooks of subclasses

    def _watch(self, fd: int, writing: bool, known: bool) -> None:
        """
        Watch whether a descriptor is readable, and, or no longer, whether it is
        writable.

        @param known: whether it is watched already.
        @raise OSError: if it cannot be; only while it is not known.
        """

    def _unwatch(self, fd: int) -> None:
        """
        Watch a descriptor no more. It may be closed by now, or be another one.
        """
