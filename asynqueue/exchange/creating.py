"""
Create processes, each with a channel to the one that created it.

This module imports no Twisted.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from typing import Any, NoReturn, Protocol
from weakref import WeakKeyDictionary

from asynqueue.codec import Before
from asynqueue.descriptors import holdStandard
from asynqueue.exchange.channel import Channel, openChannels
from asynqueue.exchange.process import children, fork, leave
from asynqueue.outcome import complain, describeCall

# What shells report for a program that Ctrl-C has ended.
_INTERRUPTED = 130

# The exceptions that were being handled when processes were created by L{create}.
_outer: WeakKeyDictionary[Any, BaseException | None] = WeakKeyDictionary()


class ToCreator(Protocol):
    """
    The channel of a process that was created.

    @ivar pid: 0.
    @ivar sent: how many objects it has sent, or has tried to.
    """

    pid: int
    sent: int

    def send(self, obj: Any) -> None:
        """
        Send an object, and wait until it has been received.
        """

    def receive(self) -> Any:
        """
        Wait for an object.
        """

    def leaving(self, inOrder: bool) -> None:
        """
        Say that this process ends, if it ends in order.
        """

    def close(self) -> None:
        """
        Close this end.
        """


def created(doing: str = "") -> Channel:
    """
    Create a process, which goes on from here.

    @param doing: what it is to do, for its errors.
    @return: in either process the channel to the other one.
    @raise OSError: there is no room for one.
    """
    holdStandard()
    here, there = socket.socketpair()
    try:
        process = fork()
    except BaseException:
        here.close()
        there.close()
        raise
    if process is None:
        here.close()
        return Channel(0, there, there)
    there.close()
    return Channel(process.pid, here, here, doing, Before())


def start(callable: Callable[..., Any], /, *args: Any, **kw: Any) -> Channel:
    """
    Create a process that makes a call, with a channel as its first argument.

    What the call returns is ignored. What it raises is sent, so that C{receive}
    raises it here. An exit ends the process.

    @return: the channel to the process.
    @raise OSError: there is no room for one.
    """
    channel = created(describeCall(callable, args, kw))
    if channel.pid == 0:
        serve(channel, callable, args, kw)
    return channel


def create() -> Channel:
    """
    Create a process that goes on from here, as this one does.

    The new one ends with L{exit}, best in a C{finally}.

    @return: in the new process a channel whose C{pid} is 0, here one to it.
    @raise OSError: there is no room for one.
    """
    outer = sys.exception()
    channel = created()
    if channel.pid == 0:
        noteOuter(channel, outer)
    return channel


def noteOuter(channel: ToCreator, outer: BaseException | None) -> None:
    """
    Remember what was being handled when this process was created.
    """
    _outer[channel] = outer


def exit(channel: ToCreator) -> NoReturn:
    """
    End this process, which L{create} has created.

    An exception that is on its way is sent, so that C{receive} raises it in the
    other process. No exit functions run.

    @raise ValueError: this is not the process that was created.
    """
    if channel.pid != 0:
        raise ValueError(f"process {channel.pid} can only end itself: close its channel instead")
    error = sys.exception()
    if error is _outer.get(channel):
        error = None
    _end(channel, error)


def waitall() -> None:
    """
    Wait until all processes that were created here have ended.

    What they send until then is acknowledged, and kept by the channels that are
    still there. Those that wait for something must have been sent that, or their
    channels closed.
    """
    channels = {channel.pid: channel for channel in list(openChannels) if channel.pid}
    for child in list(children.values()):
        (channels.get(child.pid) or child).wait()


def serve(
    channel: ToCreator, callable: Callable[..., Any], args: tuple[Any, ...], kw: dict[str, Any]
) -> NoReturn:
    """
    Make the call that this process was created for, and end.
    """
    error: BaseException | None = None
    try:
        try:
            callable(channel, *args, **kw)
        except BaseException as raised:
            # The seam between user code and the process: all of it is told.
            error = raised
        _end(channel, error)
    finally:
        # Whatever else is raised here, an interrupt, must not go on in the code of
        # the parent, of which this process is a copy.
        leave(1)


def _end(channel: ToCreator, error: BaseException | None) -> NoReturn:
    code = 0
    match error:
        case None:
            pass
        case KeyboardInterrupt():
            code = _INTERRUPTED
        case SystemExit():
            code = _exitCode(error)
        case _:
            code = 0 if _isTold(channel, error) else 1
            if code and channel.sent > 1 and not isinstance(error, EOFError):
                # Its result was taken, and nobody looks for anything else.
                complain(error)
    channel.leaving(code == 0)
    leave(code)


def _isTold(channel: ToCreator, error: BaseException) -> bool:
    try:
        channel.send(error)
    except Exception:
        # Nobody is there to be told, or the channel was closed.
        return False
    return True


def _exitCode(error: SystemExit) -> int:
    """
    Return the exit code of a process that ends with this, as Python has it.
    """
    if error.code is None:
        return 0
    if isinstance(error.code, int):
        return error.code & 0xFF
    sys.stderr.write(f"{error.code}\n")
    return 1
