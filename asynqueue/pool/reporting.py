"""
What tasks in a child report beside their results: records of C{logging}, and
warnings. They go to the parent, to be treated there as its own.

This module imports no Twisted, and does not import C{logging}: a child whose
tasks do not use it starts faster without.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from typing import Any

from asynqueue.codec import dumps
from asynqueue.pool.protocol import Kind

Report = Callable[[Kind, bytes], None]


class Reporter:
    """
    Catches records and warnings, and has them sent.
    """

    def __init__(self, report: Report, level: int) -> None:
        """
        @param report: sends what was reported; may be called in any thread.
        @param level: the level from which the parent wants records.
        """
        self._report = report
        self._level = level
        self._logging = False
        warnings.showwarning = self._warned

    def look(self) -> None:
        """
        Called before each task: C{logging} may have been imported meanwhile.
        """
        if not self._logging and "logging" in sys.modules:
            self._logging = True
            self._listen(sys.modules["logging"])

    def _listen(self, logging: Any) -> None:
        reporter = self

        class Forwarder(logging.Handler):  # type: ignore[misc]
            def emit(self, record: Any) -> None:
                try:
                    reporter._report(Kind.LOGGED, _pickledRecord(record))
                except Exception:
                    # Somebody's arguments: logging has its own way with errors.
                    self.handleError(record)

        root = logging.getLogger()
        root.setLevel(self._level)
        root.addHandler(Forwarder())

    def _warned(
        self,
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: Any = None,
        line: str | None = None,
    ) -> None:
        try:
            pickled = dumps((message, category, filename, lineno))
        except Exception:
            # Somebody's warning that cannot be pickled: its text has to do.
            pickled = dumps((str(message), UserWarning, filename, lineno))
        self._report(Kind.WARNED, pickled)


def _pickledRecord(record: Any) -> bytes:
    """
    The attributes of a record that mean something elsewhere: its message is made
    here, and its exception is text.
    """
    attributes = dict(record.__dict__)
    if record.exc_info:
        formatter = sys.modules["logging"].Formatter()
        attributes["exc_text"] = record.exc_text or formatter.formatException(record.exc_info)
    attributes.update(msg=record.getMessage(), args=None, exc_info=None)
    try:
        return dumps(attributes)
    except Exception:
        # What somebody attached to it: all but that can travel.
        plain = (str, int, float, type(None))
        return dumps({k: v for k, v in attributes.items() if isinstance(v, plain)})
