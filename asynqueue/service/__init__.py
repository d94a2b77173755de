"""
AsynQueue as a service: hosts under C{twistd}, C{twist} or C{asynqueue worker}, and queues in
programs that are built of Twisted's services.

The names below import their modules when they are used: the table of options alone is
wanted by those that never serve.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asynqueue.lazy import lazyNames

if TYPE_CHECKING:
    from asynqueue.service.running import (
        HostService as HostService,
        QueueService as QueueService,
        makeService as makeService,
    )
    from asynqueue.service.settings import (
        Settings as Settings,
        SettingsError as SettingsError,
        settingsOf as settingsOf,
    )

__all__ = [
    "HostService",
    "QueueService",
    "Settings",
    "SettingsError",
    "makeService",
    "settingsOf",
]

# What type checkers see above, and where it is found when it is asked for.
__getattr__, __dir__ = lazyNames(
    __name__,
    {
        "asynqueue.service.running": ("HostService", "QueueService", "makeService"),
        "asynqueue.service.settings": ("Settings", "SettingsError", "settingsOf"),
    },
)
