"""
What a host tells of itself: C{asynqueue status} asks for it, by a name that every host
answers to any peer that has proven itself, without its queue: so also one that is busy tells.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Hashable, Iterable
from importlib.metadata import version
from time import time
from typing import Any

import psutil

from asynqueue.scheduling.snapshots import seriesText
from asynqueue.taskqueue import TaskQueue

STATUS = "asynqueue:status"
"""The name that is called, without arguments."""


def statusOf(
    queue: TaskQueue,
    *,
    slots: int,
    series: Iterable[Hashable] = (),
    trust: str = "",
    held: int = 0,
    names: Iterable[str] = (),
) -> dict[str, Any]:
    """
    Return the status of a host. Costs a look at each flow and each worker.

    @param queue: has the calls made.
    @param slots: how many calls the host can run at once.
    @param series: what may be sent to it, besides calls without a series.
    @param trust: what may be called, in one word.
    @param held: how many calls it has for the connection that asks.
    @param names: the methods that may be called.
    @return: what every codec can carry: dicts, lists, strings and numbers. Times are in
        seconds, memory is in bytes, C{done} and C{failed} count since the process began.
    """
    process = psutil.Process()
    statistics = queue.statistics()
    return {
        "version": version("asynqueue"),
        "python": sys.version.split()[0],
        "machine": os.uname().nodename,
        "pid": process.pid,
        "uptime": max(0.0, time() - process.create_time()),
        "memory": process.memory_info().rss,
        "loadAverage": list(os.getloadavg()),
        "slots": slots,
        "series": [str(seriesText(each)) for each in series],
        "trust": trust,
        "names": list(names),
        "held": held,
        "queued": statistics.queued,
        "running": statistics.running,
        "done": statistics.done,
        "failed": statistics.failed,
        "workers": [worker.as_dict() for worker in statistics.workers],
        "flows": [flow.as_dict() for flow in statistics.flows],
    }
