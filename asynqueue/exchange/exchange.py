"""
An exchange: a set of channels, and a limit to how many there are at once.

::

    start ─▶ waiting, first in first out ─▶ a process, when there is room
                                               │ its channel is ready
    store_data(channel) ◀─ store ◀─ ready ◀────┘ then what waits next

It waits with a poller of L{asynqueue.pollers}. This module imports no Twisted.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from asynqueue.checks import wholeNumber
from asynqueue.errors import ForkError
from asynqueue.exchange.channel import Channel
from asynqueue.exchange.creating import create, start
from asynqueue.exchange.reserve import Call, Reserve
from asynqueue.exchange.watching import Watching
from asynqueue.forks import tellForks

# What the system says when there is no room for a process, or its descriptors.
NO_ROOM = frozenset({errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOMEM})


class _Run(NamedTuple):
    """
    A computation that is under way.

    @ivar callable: what computes it, if that is known.
    """

    place: int
    callable: Callable[..., Any] | None


class ManagedCallable:
    """
    A callable whose calls are computations of an exchange.
    """

    def __init__(self, callable: Callable[..., Any], exchange: Exchange) -> None:
        """
        @param callable: takes a channel as its first argument.
        """
        self.callable = callable
        self.exchange = exchange

    def __call__(self, *args: Any, **kw: Any) -> None:
        """
        Start a computation, as L{Exchange.start} does.
        """
        self.exchange.start(self.callable, *args, **kw)


class Exchange:
    """
    Channels that are waited for together, and processes of which only so many run.

    Subclasses say in L{store_data} what to do with what comes. A computation that
    has nothing to give, because its process was lost, is ready like any other: it is
    C{receive} that raises.

    @cvar patience: the seconds that L{remove} gives a process to end that waits for its
        channel.
    @ivar limit: how many processes may run at once; C{None} for as many as the
        system has room for.
    @ivar removed: the channels whose processes ended in order, with nothing more to
        give, as L{ready} saw in its last call.
    """

    patience = 0.1

    def __init__(
        self,
        channels: Iterable[Channel] | None = None,
        limit: int | None = None,
        reuse: object = 0,
        continuous: object = 0,
        autoclose: object = 1,
    ) -> None:
        """
        @param channels: some to begin with.
        @param limit: how many processes may run at once.
        @param reuse: whether a process makes several calls, of the same callable:
            after each result it receives C{(args, kw)} of another one, or C{None}.
        @param continuous: whether a process sends any number of results. Otherwise
            each computation sends one, and no less.
        @param autoclose: whether channels are closed when they are removed.
        @raise ValueError: the limit is no whole number, or leaves no room for any.
        """
        self.limit = None if limit is None else wholeNumber(limit, "limit")
        self.reuse = bool(reuse)
        self.continuous = bool(continuous)
        self.autoclose = bool(autoclose)
        self.removed: list[Channel] = []
        self._watching = Watching()
        self._reserve = Reserve()
        self._running: dict[Channel, _Run] = {}
        self._waiting: deque[Call] = deque()
        self._places = 0
        # The computations of the parent of this process, if it is a fork.
        self._inherited: set[int] = set()
        tellForks(self)
        for channel in channels or ():
            self.add(channel)

    def __del__(self) -> None:
        # It and what it watches know each other: they would go late.
        if "_watching" in vars(self):
            self._watching.close()

    def forked(self) -> None:
        """
        This is a fork of the process that has the computations: forget them, and begin anew.
        """
        self._inherited.update(run.place for run in self._running.values())
        self._inherited.update(call.place for call in self._waiting)
        self._running.clear()
        self._waiting.clear()
        self.removed = []
        self._watching, self._reserve = Watching(), Reserve()

    def add(self, channel: Channel) -> None:
        """
        Watch a channel, whatever the limit.
        """
        self._watch(channel, self._newPlace(), None)

    def active(self) -> list[Channel]:
        """
        The channels that are watched.
        """
        return list(self._running)

    def ready(self, timeout: float | None = None) -> list[Channel]:
        """
        Wait until there is something to receive.

        Channels whose processes ended in order, with nothing more to give, are
        removed, see C{removed}. That ends the waiting, too.

        @param timeout: how many milliseconds to wait; C{None} for as long as it
            takes.
        @return: the channels whose C{receive} does not wait.
        """
        self.removed = []
        self._reserve.reap()
        for found in self._watching.rounds(timeout):
            ready = [channel for channel in found if not self._isDone(channel)]
            if ready or self.removed:
                return ready
        return []

    def remove(self, channel: Channel) -> None:
        """
        Watch a channel no more, and close it, unless C{autoclose} is off. Its process ends
        when it next uses the channel; one that is still busy is waited for by the next call
        that waits for something, and by L{finish}.
        """
        self._drop(channel)
        process = channel.process
        if self.autoclose and process is not None:
            # One that waits for its channel ends now: nothing shall be left of it.
            process.wait(self.patience)

    def unfinished(self) -> bool:
        """
        Whether there are computations under way, or waiting.
        """
        return bool(self._running or self._waiting)

    def busy(self) -> bool:
        """
        Whether there is no room for another process.
        """
        return self.limit is not None and len(self._running) >= self.limit

    def add_wait(self, channel: Channel) -> None:
        """
        Watch a channel, as soon as there is room for it.
        """
        self.wait()
        self.add(channel)

    def wait(self) -> None:
        """
        Store what comes until there is room for another process.
        """
        while self.busy():
            self.store()

    def finish(self) -> None:
        """
        Store what comes until all is done, and all processes have ended.

        @raise ForkError: this process is a fork, and there were computations when it began:
            they are its parent's. It is raised once.
        """
        try:
            while self.unfinished():
                self.store()
        finally:
            if not self.unfinished():
                self._reserve.tidy()
        self._tellInherited()

    def store(self, timeout: float | None = None) -> None:
        """
        Wait until something comes, store that, and start what has been waiting.

        What L{store_data} raises comes out of here; what else has come is stored by
        the next call.

        @param timeout: how many milliseconds to wait; C{None} for as long as it
            takes.
        """
        self._fill()
        for channel in self.ready(timeout):
            try:
                self.store_data(channel)
            finally:
                self._settle(channel)
        self._fill()

    def store_data(self, channel: Channel) -> None:
        """
        Receive from a channel that is ready, and do something with that.
        """
        raise NotImplementedError(f"{type(self).__name__} must say what to do with what comes")

    def start(self, callable: Callable[..., Any], /, *args: Any, **kw: Any) -> None:
        """
        Make a call in a process, with a channel as its first argument.

        It does not wait: if there is no room, the call does, behind those that were
        started before.
        """
        self._set_waiting(callable, args, kw)
        self._fill()

    def create(self) -> Channel | None:
        """
        Create a process that goes on from here, when there is room for it.

        It ends with L{exit<asynqueue.exchange.exit>}.

        @return: in the new process its channel, here C{None}.
        """
        self.wait()
        return self._get_channel_for_process(create())

    def manage(self, callable: Callable[..., Any]) -> ManagedCallable:
        """
        Have the calls of a callable be computations of this exchange.
        """
        return ManagedCallable(callable, self)

    # What subclasses may override

    def start_waiting(self, channel: Channel) -> None:
        """
        A channel has given its result: start what waits next, in its process if
        that is possible.
        """
        callable = self._running[channel].callable
        if not self.reuse or callable is None or channel.isOver:
            self._drop(channel)
        else:
            del self._running[channel]
            self._watching.remove(channel)
            self._reserve.add(channel, callable)
        call = None if self.busy() else self._get_waiting(channel)
        if call is not None:
            self._begin(call)

    def _get_waiting(self, channel: Channel | None) -> Call | None:
        """
        Take what waits next.

        @param channel: the one that makes room for it, if it is one.
        """
        return self._waiting.popleft() if self._waiting else None

    def _set_waiting(
        self, callable: Callable[..., Any], args: tuple[Any, ...], kw: dict[str, Any]
    ) -> None:
        """
        Let a call wait, behind all others.
        """
        self._waiting.append(Call(self._newPlace(), callable, args, kw))

    def _get_channel_for_process(self, channel: Channel) -> Channel | None:
        """
        What L{create} returns: in the new process its channel. Here that is watched.
        """
        if channel.pid == 0:
            return channel
        self.add(channel)
        return None

    def _startProcess(self, call: Call) -> Channel | None:
        """
        Make a call in a new process.

        @return: the channel to it; C{None}: it is connected to later.
        @raise OSError: there is no room for one.
        """
        return start(call.callable, *call.args, **call.kw)

    # What they leave alone

    def _drop(self, channel: Channel) -> None:
        self._running.pop(channel, None)
        self._watching.remove(channel)
        if self.autoclose:
            self._reserve.close(channel)

    def _tellInherited(self) -> None:
        """
        All is done; but not what the parent of this process does.
        """
        count = len(self._inherited)
        self._inherited.clear()
        if count:
            raise ForkError(f"waiting for {count} computations", "exchange")

    def _newPlace(self) -> int:
        self._places += 1
        return self._places - 1

    def _placeOf(self, channel: Channel) -> int:
        """
        The number of the computation that a channel belongs to.
        """
        return self._running[channel].place

    def _isOutstanding(self, place: int) -> bool:
        """
        Whether a computation is under way, or waits.
        """
        running = any(run.place == place for run in self._running.values())
        return running or any(call.place == place for call in self._waiting)

    def _isDone(self, channel: Channel) -> bool:
        """
        Whether the process of a channel has ended in order, with nothing to give. Then it is
        removed.
        """
        done = self._hasNothing(channel)
        if done:
            self._drop(channel)
            self.removed.append(channel)
        return done

    def _hasNothing(self, channel: Channel) -> bool:
        """
        Whether it is right that nothing more comes from a channel.
        """
        return channel.endedInOrder and (self.continuous or channel.received > 0)

    def _settle(self, channel: Channel) -> None:
        """
        Something of a channel was stored.
        """
        if channel in self._running:
            if not self.continuous:
                self.start_waiting(channel)
            elif channel.endedInOrder or channel.isTold:
                self._drop(channel)

    def _fill(self) -> None:
        """
        Start what waits, as long as there is room.
        """
        while not self.busy():
            call = self._get_waiting(None)
            if call is None or not self._begin(call):
                return

    def _begin(self, call: Call) -> bool:
        """
        Start a computation, or let it wait on if the system has no room for it.
        """
        channel = self._reserve.take(call)
        if channel is None:
            if self.limit is not None:
                self._reserve.shrink(self.limit - len(self._running) - 1)
            try:
                channel = self._startProcess(call)
            except OSError as error:
                if error.errno not in NO_ROOM:
                    raise
                self._waiting.appendleft(call)
                if not self._running:
                    raise
                return False
        if channel is not None:
            self._watch(channel, call.place, call.callable)
        return True

    def _watch(self, channel: Channel, place: int, callable: Callable[..., Any] | None) -> None:
        self._running[channel] = _Run(place, callable)
        self._watching.add(channel)
