"""
Processes in the background, which have no parent: their channels, which any process of the
same user connects to through an address, the path of a UNIX socket.

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

from asynqueue.descriptors import holdStandard
from asynqueue.errors import AcknowledgementError, WorkerLostError
from asynqueue.exchange.channel import Channel, openChannels
from asynqueue.exchange.creating import noteOuter, serve
from asynqueue.exchange.process import fork, leave
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
    @ivar sent: how many objects were sent, or were to be.
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
        self.sent = 0
        # How many of those were received.
        self._given = 0
        openChannels.add(self)
        tellForks(self)

    def fileno(self) -> int:
        """
        Return the descriptor that is readable when somebody comes.
        """
        return self._endpoint.fileno()

    def send(self, obj: Any) -> None:
        """
        Send an object, and wait until the next process that comes has received it.

        @raise AcknowledgementError: who is there sends, too.
        @raise MaybeEncodingError: it cannot be pickled.
        @raise FrameTooLarge: it has too many bytes.
        """
        self.sent += 1
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
        Say that this process ends, if it ends in order, and give up the address.

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
        Leave the address to the process that has it: this is a fork.
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
    Return a socket that listens at an address, for this user only.
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
    Return the process at the other end, 0 if that cannot be known, and its user.
    """
    if hasattr(socket, "SO_PEERCRED"):
        data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        pid, user, _ = _CREDENTIALS.unpack(data)
        return pid, user
    return 0, os.stat(address).st_uid
