"""
Lets C{twist} and C{twistd} know of C{asynqueue}.

This folder has no C{__init__}: it is a part of Twisted's package of plugins.
"""

from __future__ import annotations

from twisted.application.service import ServiceMaker

asynqueue = ServiceMaker(
    "AsynQueue",
    "asynqueue.service.plugin",
    "A host that makes the calls of task queues elsewhere.",
    "asynqueue",
)
