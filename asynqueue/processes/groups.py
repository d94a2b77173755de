"""
Processes that lead a session of their own, and so a group: with such a process ends all
that the calls in it have started, unless that went into a group of its own.

This module imports no Twisted.
"""

from __future__ import annotations

import os
import signal


def killGroup(leader: int) -> None:
    """
    Kill a process that leads a group, and all others of that group. To be called before
    somebody has waited for the leader: until then its number belongs to no other process.
    """
    try:
        os.killpg(leader, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        # Nobody is left, or only those that have taken the rights of another user.
        pass


def reap(leader: int, options: int = 0) -> int | None:
    """
    Wait for a process that leads a group, and release it. If it was killed, or has exited
    with another code than 0, what is left of its group is killed.

    @param options: C{os.WNOHANG}, to return at once.
    @return: its exit code, or minus the number of the signal that ended it; C{None}: it has
        not ended.
    @raise ChildProcessError: something else in this program has waited for it, or ignores
        SIGCHLD.
    """
    try:
        ended = os.waitid(os.P_PID, leader, os.WEXITED | os.WNOWAIT | options)
    except ChildProcessError:
        if not _exists(leader):
            # Nobody else can have this number while the group has children.
            killGroup(leader)
        raise
    if ended is None:
        return None
    if ended.si_code != os.CLD_EXITED or ended.si_status:
        killGroup(leader)
    _, status = os.waitpid(leader, 0)
    return os.waitstatus_to_exitcode(status)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
