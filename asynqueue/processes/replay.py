"""
What children report beside results, as if it had happened here.
"""

from __future__ import annotations

import logging
import marshal
import pickle
import sys
import warnings
from importlib import import_module
from typing import Any

from asynqueue.processes.guard import harmless
from asynqueue.processes.protocol import Kind


def replay(kind: int, body: Any) -> None:
    """
    Log a record, give a warning, print a text, or tell the resource tracker something, that a
    child has sent.
    """
    # Somebody's objects, handlers and filters: whatever they raise harms nobody.
    harmless("a report of a child process", _replayed, kind, body)


def _replayed(kind: int, body: Any) -> None:
    if kind == Kind.PRINTED:
        if sys.stdout is not None:
            sys.stdout.write(str(body, "utf-8", "surrogatepass"))
    elif kind == Kind.LOGGED:
        record = logging.makeLogRecord(pickle.loads(body))
        logger = logging.getLogger(record.name)
        if logger.isEnabledFor(record.levelno):
            logger.handle(record)
    elif kind == Kind.TRACKED:
        tracker: Any = import_module("multiprocessing.resource_tracker")._resource_tracker
        tracker._send(*marshal.loads(body))
    else:
        message, category, filename, lineno = pickle.loads(body)
        warnings.warn_explicit(message, category, filename, lineno)
