"""
AsynQueue as a service: hosts under C{twistd}, C{twist} or C{asynqueue worker}, and queues in
programs that are built of Twisted's services.

The names below import their modules when they are used: the table of options alone is
wanted by those that never serve.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

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

_HOMES = {
    "HostService": "asynqueue.service.running",
    "QueueService": "asynqueue.service.running",
    "makeService": "asynqueue.service.running",
    "Settings": "asynqueue.service.settings",
    "SettingsError": "asynqueue.service.settings",
    "settingsOf": "asynqueue.service.settings",
}

__all__ = [
    "HostService",
    "QueueService",
    "Settings",
    "SettingsError",
    "makeService",
    "settingsOf",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(home), name)
