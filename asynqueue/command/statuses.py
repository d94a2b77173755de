"""
How the command ends.
"""

from __future__ import annotations

import signal
from enum import Enum


class Status(Enum):
    """
    The exit status of the command.
    """

    WELL = 0
    FAILED = 1
    WRONG = 2
    INTERRUPTED = 128 + signal.SIGINT
    TERMINATED = 128 + signal.SIGTERM
