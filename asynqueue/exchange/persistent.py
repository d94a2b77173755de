"""
Computations in the background, whose results are collected later, by any process
of the same user, through an address: the path of a UNIX socket.

::

    BackgroundCallable(address, f)(...) ─▶ a process that has no parent
    BackgroundQueue(address) ◀─ result ◀──┘ it ends when its result is collected

This module imports no Twisted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import ref

from asynqueue.exchange.background import (
    BackgroundCallable,
    PersistentChannel,
    connect_persistent,
    create_persistent,
)
from asynqueue.exchange.channel import Channel
from asynqueue.exchange.exchange import NO_ROOM, Exchange
from asynqueue.exchange.parallel import Queue
from asynqueue.exchange.reserve import Call


class PersistentCallable:
    """
    A callable whose calls are computations of an exchange, in background processes.

    It does not keep the exchange: when that is gone, and with it its connections, calls
    begin all the same, and another exchange may connect to them.
    """

    def __init__(
        self, address: str, callable: Callable[..., Any], exchange: PersistentExchange
    ) -> None:
        """
        @param address: a path. It is free again when a call's result was collected.
        @param callable: takes a channel as its first argument.
        """
        self.address = address
        self.callable = callable
        self._exchange = ref(exchange)

    @property
    def exchange(self) -> PersistentExchange | None:
        """
        The exchange, C{None} if it is gone.
        """
        return self._exchange()

    def __call__(self, *args: Any, **kw: Any) -> None:
        """
        Start a computation, as L{PersistentExchange.start} does.
        """
        exchange = self._exchange()
        if exchange is None:
            BackgroundCallable(self.address, self.callable)(*args, **kw)
        else:
            exchange.start(self.address, self.callable, *args, **kw)


class PersistentExchange(Exchange):
    """
    An exchange of background processes. It can be closed and forgotten: another one
    connects to them.

    To start a process does not connect to it. Unless L{connect} has done so, the exchange
    does when it next waits. If another one has collected the result by then, this one is
    done with it.
    """

    def __init__(self, *args: Any, **kw: Any) -> None:
        """
        @param args: as those of L{Exchange}, like C{kw}.
        """
        # By their addresses, the calls whose processes were started and not connected to.
        self._unconnected: dict[str, Call] = {}
        super().__init__(*args, **kw)

    def forked(self) -> None:
        self._computations.inherited.update(call.place for call in self._unconnected.values())
        self._unconnected.clear()
        super().forked()

    # An address comes first, as in the documents that promise these names.

    def start(  # type: ignore[override]
        self, address: str, callable: Callable[..., Any], /, *args: Any, **kw: Any
    ) -> None:
        """
        Make a call in a background process, as soon as there is room.
        """
        super().start(BackgroundCallable(address, callable), *args, **kw)

    def create(  # type: ignore[override]
        self, address: str
    ) -> Channel | PersistentChannel | None:
        """
        Create a background process that goes on from here, when there is room.

        @return: in the new process its channel, here C{None}.
        """
        self.wait()
        channel = create_persistent(address)
        if isinstance(channel, PersistentChannel):
            return channel
        return self._get_channel_for_process(channel)

    def manage(  # type: ignore[override]
        self, address: str, callable: Callable[..., Any]
    ) -> PersistentCallable:
        """
        Have the calls of a callable be computations in background processes.
        """
        return PersistentCallable(address, callable, self)

    def connect(self, address: str) -> None:
        """
        Watch a background process, when there is room for it.

        @raise OSError: no process is there.
        """
        if address in self._unconnected:
            self._connectTo(address)
        else:
            self.add_wait(connect_persistent(address))

    def unfinished(self) -> bool:
        return bool(self._unconnected) or super().unfinished()

    def busy(self) -> bool:
        if self.limit is None:
            return False
        return len(self._computations.running) + len(self._unconnected) >= self.limit

    def ready(self, timeout: float | None = None) -> list[Channel]:
        """
        Connect to what was started, and wait until there is something to receive.

        @raise OSError: a process that was started is there no more, and nobody has
            collected its result.
        """
        for address in list(self._unconnected):
            try:
                self._connectTo(address)
            except FileNotFoundError:
                # Another one has collected its result: there may be nothing to wait for.
                timeout = 0
            except OSError as error:
                if error.errno not in NO_ROOM or not self._computations.running:
                    raise
                # There is room when one of the others has ended.
                break
        return super().ready(timeout)

    def _hasNothing(self, channel: Channel) -> bool:
        # Who connects to a process expects something of it; who started it need not.
        wasStarted = self._computations.running[channel].callable is not None
        return (wasStarted and channel.wasCollected) or super()._hasNothing(channel)

    def _connectTo(self, address: str) -> None:
        """
        Connect to a process that was started, or know that it is there no more.
        """
        try:
            channel = connect_persistent(address)
        except OSError as error:
            if error.errno not in NO_ROOM:
                del self._unconnected[address]
            raise
        call = self._unconnected.pop(address)
        self._computations.begin(channel, call.place, call.callable)

    def _startProcess(self, call: Call) -> None:
        background: Any = call.callable
        background(*call.args, **call.kw)
        self._unconnected[background.address] = call


class PersistentQueue(PersistentExchange, Queue):
    """
    A queue of the results of background processes, in the order of their arrival.
    """


def BackgroundQueue(address: str) -> PersistentQueue:
    """
    Return a queue of the results of one background process.

    @raise OSError: no process is there.
    """
    queue = PersistentQueue(limit=1)
    queue.connect(address)
    return queue
