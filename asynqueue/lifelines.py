"""
A process that ends with its parent, whatever it is doing.

The parent holds one end of a pipe, and nobody else does: the kernel closes it when the parent
is gone. This module imports no Twisted.
"""

from __future__ import annotations

import fcntl
import os
import signal


def endWith(lifeline: int) -> bool:
    """
    Have the kernel kill this process when the other end of a pipe is closed: also in the
    middle of a call that never returns. If it leads a process group, the kernel kills all that
    its calls have started there, too.

    @param lifeline: the descriptor of this end.
    @return: whether the kernel can do that; Linux can.
    """
    os.set_inheritable(lifeline, False)
    if not hasattr(fcntl, "F_SETSIG"):
        return False
    pid = os.getpid()
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, -pid if os.getpgrp() == pid else pid)
    fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
    flags = fcntl.fcntl(lifeline, fcntl.F_GETFL)
    fcntl.fcntl(lifeline, fcntl.F_SETFL, flags | os.O_ASYNC | os.O_NONBLOCK)
    try:
        if not os.read(lifeline, 1):
            # The parent was faster.
            os._exit(1)
    except BlockingIOError:
        pass
    return True
