"""
Tell the parent of this process its state, as systemd understands it (sd_notify).
"""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping

from twisted.logger import Logger

_log = Logger()

VARIABLE = "NOTIFY_SOCKET"


class Notifier:
    """
    Writes to the socket that the environment names; without one it does nothing.
    """

    def __init__(self, environment: MutableMapping[str, str] = os.environ) -> None:
        """
        @param environment: the variable is taken out of it: children have nothing to tell.
        """
        self._address = environment.pop(VARIABLE, "")

    def ready(self, status: str) -> None:
        """
        Tell that the service serves.

        @param status: its state, in a line for people.
        """
        self._tell(f"READY=1\nSTATUS={status}\nMAINPID={os.getpid()}")

    def stopping(self, status: str) -> None:
        """
        Tell that the service is about to end.
        """
        self._tell(f"STOPPING=1\nSTATUS={status}")

    def _tell(self, state: str) -> None:
        if not self._address:
            return
        address = self._address
        if address.startswith("@"):
            # A name without a file, as Linux has it.
            address = "\0" + address[1:]
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.setblocking(False)
                sock.sendto(state.encode(), address)
        except OSError as error:
            # Nobody listens: the service serves all the same.
            _log.warn(
                "cannot tell {name} of {state!r}: {reason}",
                name=self._address,
                state=state.partition("\n")[0],
                reason=error.strerror,
            )
