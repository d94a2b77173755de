"""
What tasks do that is odd: so children can import it, and it imports little itself.
"""

from __future__ import annotations

import os
import stat


def socketsThatDoNotBlock() -> list[int]:
    """
    The descriptors of the sockets of this process that do not block.
    """
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            isSocket = stat.S_ISSOCK(os.fstat(int(name)).st_mode)
        except OSError:
            # That of the listing itself.
            continue
        if isSocket and not os.get_blocking(int(name)):
            found.append(int(name))
    return found
