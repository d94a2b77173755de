"""
What programs say that fork: who says it, the parent or the fork.
"""

from __future__ import annotations

import os
from typing import Any

_PARENT = os.getpid()


def isFork() -> bool:
    """
    Whether this is the fork.
    """
    return os.getpid() != _PARENT


def say(*words: Any) -> None:
    """
    Print a line, at once.
    """
    line = " ".join(map(str, ("fork" if isFork() else "parent", *words)))
    os.write(1, f"{line}\n".encode())
