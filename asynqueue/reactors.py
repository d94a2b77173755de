"""
The one place that looks up the installed reactor and the running asyncio loop.
"""

from __future__ import annotations

import asyncio
from typing import Any


def theReactor(given: Any = None) -> Any:
    """
    The reactor that was given, or else the installed one.

    The import stands here, inside the function, because importing this name is
    what installs the default reactor: it must not happen before it is needed.
    """
    if given is not None:
        return given
    from twisted.internet import reactor

    return reactor


def runningLoop() -> asyncio.AbstractEventLoop | None:
    """
    The asyncio loop that runs this code, or C{None}.
    """
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
