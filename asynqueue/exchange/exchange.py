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
from collections.abc import Callable, Iterable
from typing import Any

from asynqueue.checks import wholeNumber
from asynqueue.exchange.channel import Channel
from asynqueue.exchange.computations import Computations
from asynqueue.exchange.creating import create, start
from asynqueue.exchange.reserve import Call, Reserve
from asynqueue.forks import tellForks

# What the system says when there is no room for a process, or its descriptors.
NO_ROOM = frozenset({errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOMEM})


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
    Channels that are waited for together, and processes of which a limited number runs.

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
        self._computations = Computations()
        self._reserve = Reserve()
        tellForks(self)
        for channel in channels or ():
            self.add(channel)

    def forked(self) -> None:
        """
        Forget the computations, which the process has of which this is a fork, and begin anew.
        """
        self._computations.forked()
        self.removed = []
        self._reserve = Reserve()

    def add(self, channel: Channel) -> None:
        """
        Watch a channel, whatever the limit.
        """
        self._computations.begin(channel, self._computations.newPlace(), None)

    def active(self) -> list[Channel]:
        """
        Return the channels that are watched.
        """
        return list(self._computations.running)

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
        found = next(filter(None, self._computations.watching.rounds(timeout)), [])
        self.removed = [channel for channel in found if self._hasNothing(channel)]
        for channel in self.removed:
            self._drop(channel)
        return [channel for channel in found if channel not in self.removed]

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
        Tell whether there are computations under way, or waiting.
        """
        return bool(self._computations.running or self._computations.waiting)

    def busy(self) -> bool:
        """
        Tell whether there is no room for another process.
        """
        return self.limit is not None and len(self._computations.running) >= self.limit

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
        self._computations.tellInherited()

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
                # Unless that has removed it.
                if channel in self._computations.running:
                    if not self.continuous:
                        self.start_waiting(channel)
                    elif channel.endedInOrder or channel.isTold:
                        self._drop(channel)
        self._fill()

    def store_data(self, channel: Channel) -> None:
        """
        Receive from a channel that is ready, and do something with that.
        """
        raise NotImplementedError(
            f"{type(self).__name__} does not say what to do with what comes: override store_data()"
        )

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
        Start what waits next, in its process if that is possible: a channel has given its result.
        """
        callable = self._computations.running[channel].callable
        if not self.reuse or callable is None or channel.isOver:
            self._drop(channel)
        else:
            self._computations.end(channel)
            self._reserve.add(channel, callable)
        call = None if self.busy() else self._get_waiting(channel)
        if call is not None:
            self._begin(call)

    def _get_waiting(self, channel: Channel | None) -> Call | None:
        """
        Take what waits next.

        @param channel: the one that makes room for it, if it is one.
        """
        waiting = self._computations.waiting
        return waiting.popleft() if waiting else None

    def _set_waiting(
        self, callable: Callable[..., Any], args: tuple[Any, ...], kw: dict[str, Any]
    ) -> None:
        """
        Let a call wait, behind all others.
        """
        computations = self._computations
        computations.waiting.append(Call(computations.newPlace(), callable, args, kw))

    def _get_channel_for_process(self, channel: Channel) -> Channel | None:
        """
        Return what L{create} returns: in the new process its channel. Here that is watched.
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
        self._computations.end(channel)
        if self.autoclose:
            self._reserve.close(channel)

    def _hasNothing(self, channel: Channel) -> bool:
        """
        Tell whether it is right that nothing more comes from a channel.
        """
        return channel.endedInOrder and (self.continuous or channel.received > 0)

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
        computations = self._computations
        if channel is None:
            if self.limit is not None:
                self._reserve.shrink(self.limit - len(computations.running) - 1)
            try:
                channel = self._startProcess(call)
            except OSError as error:
                if error.errno not in NO_ROOM:
                    raise
                computations.waiting.appendleft(call)
                if not computations.running:
                    raise
                return False
        if channel is not None:
            computations.begin(channel, call.place, call.callable)
        return True
