"""
Descriptors 0, 1 and 2 are for what programs read and print.

Where one of them is closed, the next that is opened takes its place: if that is a socket or
shared memory of ours, whatever code in C prints goes into it.

This module imports no Twisted.
"""

from __future__ import annotations

import fcntl
import os
import select
import socket

_STANDARD = range(3)


def holdStandard() -> None:
    """
    Open the null device in place of each standard descriptor that is closed, also for the
    processes that this one starts. Call it before descriptors are opened that stay open.

    @raise OSError: there is no room for it.
    """
    for number in _STANDARD:
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened == number:
                os.set_inheritable(opened, True)
            else:
                # Another thread has opened something there.
                os.close(opened)


def aboveStandard(descriptor: int) -> int:
    """
    Move a descriptor that was opened, if it has taken the place of a standard one, and hold
    those places.

    @return: its number from now on.
    @raise OSError: there is no room for it. It is closed.
    """
    if descriptor not in _STANDARD:
        return descriptor
    try:
        return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, len(_STANDARD))
    finally:
        os.close(descriptor)
        holdStandard()


def occupy(descriptor: int, fresh: int) -> None:
    """
    Have a descriptor stand for what another one stands for, which is closed. What it stood
    for is closed here, and nothing else happens to it: a fork lets go with this what its
    parent has, too.
    """
    try:
        os.dup2(fresh, descriptor, inheritable=False)
    finally:
        os.close(fresh)


def abandon(descriptor: int) -> None:
    """
    Have a descriptor stand for a connection that has ended, without a change to what it stood
    for.
    """
    here, there = socket.socketpair()
    there.close()
    here.setblocking(False)
    occupy(descriptor, here.detach())


def ownEpoll(epoll: select.epoll) -> None:
    """
    Have an epoll object that a fork has from its parent stand for another poller in the
    kernel, that watches nothing. Its descriptor keeps its number.
    """
    fresh = select.epoll()
    os.dup2(fresh.fileno(), epoll.fileno(), inheritable=False)
    fresh.close()
