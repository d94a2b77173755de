"""
AsynQueue as a service: hosts under C{twistd}, C{twist} or C{asynqueue worker}, and queues in
programs that are built of Twisted's services.
"""

from __future__ import annotations

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
