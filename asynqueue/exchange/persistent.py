"""
Computations in the background, whose results are collected later, by any process
of the same user, through an address: the path of a UNIX socket.

::

    BackgroundCallable(address, f)(...) ─▶ a process that has no parent
    BackgroundQueue(address) ◀─ result ◀──┘ it ends when its result is collected

This module imports no Twisted.
"""

from __future__ import annotations

import os
import socket
import stat
import struct
import sys
from collections.abc import Callable
from typing import Any, NoReturn
from weakref import ref

from asynqueue.descriptors import holdStandard
from asynqueue.errors import AcknowledgementError, WorkerLostError
from asynqueue.exchange.channel import Channel, openChannels
from asynqueue.exchange.creating import noteOuter, serve
from asynqueue.exchange.exchange import NO_ROOM, Exchange
from asynqueue.exchange.parallel import Queue
from asynqueue.exchange.process import fork, leave
from asynqueue.exchange.reserve import Call
from asynqueue.forks import tellForks
from asynqueue.outcome import describeCall
from asynqueue.program import ELSEWHERE

# A process, a user and a group.
_CREDENTIALS = struct.Struct("3i")


class PersistentChannel:
    """
    The channel of a background process: to any process that comes to its address.

    When that one goes before it has received something, the next one gets it.

    @ivar pid: 0.
    @ivar address: the path of its socket.
    """

    def __init__(self, pid: int, endpoint: socket.socket, address: str) -> None:
        """
        @param pid: 0: it is only for the process that has the address.
        @param endpoint: the socket that listens there. The channel owns it, and the
            file at the address.
        """
        self.pid = pid
        self.address = address
        self._endpoint = endpoint
        self._file = os.stat(address).st_ino
        self._connection: Channel | None = None
        self._sent = 0
        # How many of those were received.
        self._given = 0
        openChannels.add(self)
        tellForks(self)

    @property
    def sent(self) -> int:
        """
        How many objects were sent, or were to be.
        """
        return self._sent

    def fileno(self) -> int:
        """
        The descriptor that is readable when somebody comes.
        """
        return self._endpoint.fileno()

    def send(self, obj: Any) -> None:
        """
        Send an object, and wait until the next process that comes has received it.

        @raise AcknowledgementError: who is there sends, too.
        @raise MaybeEncodingError: it cannot be pickled.
        @raise FrameTooLarge: it has too many bytes.
        """
        self._sent += 1
        while True:
            connection = self._connected()
            try:
                connection.send(obj)
            except AcknowledgementError:
                if not connection.look() or not connection.isOver:
                    raise
                self._disconnect()
            else:
                self._given += 1
                return

    def receive(self) -> Any:
        """
        Wait for an object from the next process that comes.

        @raise BaseException: an exception that was sent.
        """
        while True:
            connection = self._connected()
            try:
                return connection.receive()
            except EOFError:
                if not connection.isTold:
                    raise
                self._disconnect()

    def leaving(self, inOrder: bool) -> None:
        """
        This process ends: say so if it ends in order, and give up the address.

        Where nobody has heard of a result, or of the lack of one, the file stays: who comes
        then is refused, and knows that it was lost, and not collected by another one.
        """
        if self._connection is not None:
            self._connection.leaving(inOrder, self._given)
        elif not (inOrder and self._given):
            self.abandon()
            return
        self._giveUp()
        if inOrder and self._given:
            self._tellWhoWaits()
        self.abandon()

    def close(self) -> None:
        """
        Give up the address, and close all. It may be called more than once.
        """
        self._giveUp()
        self.abandon()

    def forked(self) -> None:
        """
        This is a fork of the process that has it: leave the address to that.
        """
        self.abandon()

    def abandon(self) -> None:
        """
        Close what this process has of it, of which another one has a copy.
        """
        openChannels.discard(self)
        self._endpoint.close()
        self._disconnect()

    def _giveUp(self) -> None:
        try:
            if self.fileno() >= 0 and os.stat(self.address).st_ino == self._file:
                os.unlink(self.address)
        except FileNotFoundError:
            # Somebody has removed it.
            pass

    def _tellWhoWaits(self) -> None:
        """
        Say goodbye to those who have come and wait behind the one who got all.
        """
        try:
            self._endpoint.setblocking(False)
            while True:
                connection, _ = self._endpoint.accept()
                waiting = Channel(0, connection, connection)
                waiting.leaving(True, self._given)
                waiting.abandon()
        except OSError:
            # There is none more, or no room for it.
            pass

    def _connected(self) -> Channel:
        if self._connection is None:
            connection, _ = self._endpoint.accept()
            self._connection = Channel(0, connection, connection, names=ELSEWHERE)
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def create_persistent(address: str) -> Channel | PersistentChannel:
    """
    Create a background process, which goes on from here.

    It has no terminal and no parent: it lasts until it ends with
    L{exit<asynqueue.exchange.exit>}.

    @param address: a path, where no other background process is.
    @return: in the new process its channel, whose C{pid} is 0; here one to it.
    @raise OSError: the address is not free, or there is no room.
    """
    outer = sys.exception()
    channel = _background(address, "")
    if channel is None:
        return connect_persistent(address)
    noteOuter(channel, outer)
    return channel


def start_persistent(
    address: str, callable: Callable[..., Any], /, *args: Any, **kw: Any
) -> Channel:
    """
    Make a call in a background process, with a channel as its first argument.

    @return: a channel to that process.
    @raise OSError: the address is not free, or there is no room.
    """
    BackgroundCallable(address, callable)(*args, **kw)
    return connect_persistent(address)


def connect_persistent(address: str) -> Channel:
    """
    Go to the address of a background process.

    @raise OSError: no process is there.
    @raise PermissionError: it is that of another user.
    """
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.setblocking(True)
        try:
            connection.connect(address)
        except OSError as error:
            message = f"no background process is there ({error.strerror or error})"
            raise OSError(error.errno, message, address) from None
        pid, user = _owner(connection, address)
        if user != os.geteuid():
            # What is received is unpickled, which may do anything.
            raise PermissionError(1, f"the background process is that of user {user}", address)
    except BaseException:
        connection.close()
        raise
    doing = f"what was to be collected at {address}"
    return Channel(pid, connection, connection, doing, ELSEWHERE)


class BackgroundCallable:
    """
    A callable each of whose calls is made in a background process.
    """

    def __init__(self, address: str, callable: Callable[..., Any]) -> None:
        """
        @param address: a path. It is free again when a call's result was collected.
        @param callable: takes a channel as its first argument.
        """
        self.address = address
        self.callable = callable

    def __call__(self, *args: Any, **kw: Any) -> None:
        """
        Start the background process. When this returns, it can be connected to.

        @raise OSError: the address is not free, or there is no room.
        """
        doing = describeCall(self.callable, args, kw)
        channel = _background(self.address, doing)
        if channel is not None:
            serve(channel, self.callable, args, kw)


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
        self._inherited.update(call.place for call in self._unconnected.values())
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
        return len(self._running) + len(self._unconnected) >= self.limit

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
                if error.errno not in NO_ROOM or not self._running:
                    raise
                # There is room when one of the others has ended.
                break
        return super().ready(timeout)

    def _hasNothing(self, channel: Channel) -> bool:
        # Who connects to a process expects something of it; who started it need not.
        wasStarted = self._running[channel].callable is not None
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
        self._watch(channel, call.place, call.callable)

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
    A queue of the results of one background process.

    @raise OSError: no process is there.
    """
    queue = PersistentQueue(limit=1)
    queue.connect(address)
    return queue


def _background(address: str, doing: str) -> PersistentChannel | None:
    """
    Create a background process, which goes on from here.

    @return: in the new process its channel, here C{None}: it listens now.
    """
    address = os.path.abspath(address)
    holdStandard()
    here, there = socket.socketpair()
    try:
        between = fork()
    except BaseException:
        here.close()
        there.close()
        raise
    if between is None:
        here.close()
        return _detached(there, address)
    there.close()
    status = Channel(0, here, here)
    try:
        status.receive()
    except EOFError:
        raise WorkerLostError(between.pid, between.wait(), None, doing) from None
    finally:
        status.close()
        between.wait()
        between.close()
    return None


def _detached(end: socket.socket, address: str) -> PersistentChannel:
    """
    Become a process without parent, terminal and output, that listens.

    @param end: of a channel, on which to say how that went.
    """
    try:
        os.setsid()
        child = fork(bound=False)
    except BaseException as error:
        # It must not go on in the code of the parent.
        _refuse(Channel(0, end, end), error)
    if child is not None:
        leave(0)
    # Channels stay with the process that has made them.
    status = Channel(0, end, end)
    try:
        endpoint = _listening(address)
        nothing = os.open(os.devnull, os.O_RDWR)
        for number in range(3):
            os.dup2(nothing, number)
        os.close(nothing)
        status.send(None)
        status.close()
        return PersistentChannel(0, endpoint, address)
    except BaseException as error:
        # It must not go on in the code of the parent.
        _refuse(status, error)


def _refuse(status: Channel, error: BaseException) -> NoReturn:
    try:
        status.send(error)
    finally:
        leave(1)


def _listening(address: str) -> socket.socket:
    """
    A socket that listens at an address, for this user only.
    """
    endpoint = socket.socket(socket.AF_UNIX)
    try:
        # However long it takes until somebody connects.
        endpoint.setblocking(True)
        _removeStale(address)
        endpoint.bind(address)
        # Until it listens nobody can connect.
        os.chmod(address, stat.S_IRUSR | stat.S_IWUSR)
        endpoint.listen()
    except BaseException:
        endpoint.close()
        raise
    return endpoint


def _removeStale(address: str) -> None:
    """
    Remove what a process that was killed has left at an address.
    """
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(True)
        try:
            probe.connect(address)
        except ConnectionRefusedError:
            if stat.S_ISSOCK(os.stat(address).st_mode):
                os.unlink(address)
        except FileNotFoundError:
            pass


def _owner(connection: socket.socket, address: str) -> tuple[int, int]:
    """
    The process at the other end, 0 if that cannot be known, and its user.
    """
    if hasattr(socket, "SO_PEERCRED"):
        data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        pid, user, _ = _CREDENTIALS.unpack(data)
        return pid, user
    return 0, os.stat(address).st_uid
