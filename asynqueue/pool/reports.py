"""
What children report beside results, as if it had happened here.
"""

from __future__ import annotations

import logging
import pickle
import warnings
from typing import Any

from twisted.logger import Logger

from asynqueue.pool.protocol import Kind

_log = Logger()


def replay(kind: int, body: Any) -> None:
    """
    Log a record, or give a warning, that a child has sent.
    """
    try:
        if kind == Kind.LOGGED:
            record = logging.makeLogRecord(pickle.loads(body))
            logger = logging.getLogger(record.name)
            if logger.isEnabledFor(record.levelno):
                logger.handle(record)
        else:
            message, category, filename, lineno = pickle.loads(body)
            warnings.warn_explicit(message, category, filename, lineno)
    except Exception:
        # Somebody's objects, handlers and filters: whatever they raise harms nobody.
        _log.failure("a report of a child process")
